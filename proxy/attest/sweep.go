package attest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

// Swept says what a sweep did.
type Swept struct {
	Aside     int   // documents and blobs without a record, moved to where nothing reads them
	Back      int   // put back, since by now something names them
	Documents int   // deleted
	Blobs     int   // deleted
	Bytes     int64 // of what was deleted
	Leftovers int   // deleted, of writes that a crash ended
}

// Sweep deletes what no record names: documents and blobs of pushes that did not come to their end, or whose records
// have expired. Before a document goes, keep is asked whether something else names it, as an alias does an original of
// which no attestation was stored; a nil keep says no. Unclaimed attestations are not touched.
//
// Only what was written before olderThan is looked at, and never what is younger than two days: PutBlob, PutDocument,
// StatBlob and StatDocument write again what is a day old, so what a push relies on is younger than that when its record
// comes. One that comes just as its blob is being swept loses nothing either, since a sweep deletes in two steps. First an object
// is put aside. A sweep that finds it there puts it back if it is named by then, and deletes it when a day has passed,
// in which every push that was under way has come to its end. So it takes sweeps on several days, by any replica, and
// as many as like at the same time.
//
// An error spares what it is about; the next sweep finds it again. The result is what was done together with the
// errors.
func (s *Store) Sweep(ctx context.Context, olderThan time.Time, keep func(ctx context.Context, repo, digest string) (bool, error)) (Swept, error) {
	now := s.now().UTC()
	if newest := now.Add(-2 * day); olderThan.After(newest) {
		olderThan = newest
	}
	if keep == nil {
		keep = func(context.Context, string, string) (bool, error) { return false, nil }
	}
	repos, err := s.sweepable(ctx, olderThan)
	if err != nil {
		return Swept{}, fmt.Errorf("sweep stored attestations: %w", err)
	}
	w := &sweeper{Store: s, keep: keep, now: now, olderThan: olderThan}
	var errs []error
	for _, repo := range slices.Sorted(maps.Keys(repos)) {
		if err := w.sweep(ctx, repo, repos[repo]); err != nil {
			errs = append(errs, fmt.Errorf("sweep stored attestations of repository %s: %w", repo, err))
		}
	}
	return w.swept, errors.Join(errs...)
}

// sweepable is what a sweep may have to do with, of one repository.
type sweepable struct {
	leftovers []string
	old       []stored // documents and blobs
	aside     []stored
	strange   map[string]bool // days on which something was put aside that this program does not know
}

// stored is a document or a blob, wherever it is.
type stored struct {
	storagedriver.FileInfo
	kind   kind
	digest string
	day    string // on which it was put aside
}

// sweptKinds are what goes when no record names it. What a newer program puts aside beside them is that one's.
var sweptKinds = []kind{documentKind, blobKind, elsewhereKind}

func (s *Store) sweepable(ctx context.Context, olderThan time.Time) (map[string]*sweepable, error) {
	looked := append([]kind{stagingKind, asideKind}, sweptKinds...)
	files, err := s.storage.Files(ctx, "/"+root, func(folder string) bool {
		return strings.HasPrefix(folder, "_") && !slices.Contains(looked, kind(folder))
	})
	if err != nil {
		return nil, err
	}
	yesterday := s.now().Add(-day)
	repos := map[string]*sweepable{}
	for _, f := range files {
		repo, k, rest, ok := split(f.Path())
		if !ok {
			continue
		}
		if repos[repo] == nil {
			repos[repo] = &sweepable{strange: map[string]bool{}}
		}
		in := repos[repo]
		switch k {
		case asideKind:
			on, rest, _ := strings.Cut(rest, "/")
			name, tail, _ := strings.Cut(rest, "/")
			of := kind("_" + name)
			if digest, ok := objects.DigestOfTail(tail); !slices.Contains(sweptKinds, of) {
				in.strange[on] = true
			} else if ok {
				in.aside = append(in.aside, stored{FileInfo: f, kind: of, digest: digest, day: on})
			}
		case documentKind, blobKind, elsewhereKind: // sweptKinds
			if digest, ok := objects.DigestOfTail(rest); ok {
				if f.ModTime().Before(olderThan) {
					in.old = append(in.old, stored{FileInfo: f, kind: k, digest: digest})
				}
			} else if strings.HasSuffix(rest, ".tmp") && f.ModTime().Before(yesterday) { // the filesystem driver's
				in.leftovers = append(in.leftovers, f.Path())
			}
		case stagingKind:
			if f.ModTime().Before(yesterday) {
				in.leftovers = append(in.leftovers, f.Path())
			}
		}
	}
	return repos, nil
}

type sweeper struct {
	*Store
	keep      func(ctx context.Context, repo, digest string) (bool, error)
	now       time.Time
	olderThan time.Time
	swept     Swept
}

func (w *sweeper) sweep(ctx context.Context, repo string, in *sweepable) error {
	var errs []error
	for _, p := range in.leftovers {
		if err := w.storage.Remove(ctx, p); err != nil {
			errs = append(errs, err)
			continue
		}
		w.swept.Leftovers++
	}
	if len(in.old)+len(in.aside) == 0 {
		return errors.Join(errs...)
	}
	// Read after everything was listed: what was recorded before that is named.
	records, err := w.recordsHealed(ctx, repo)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	named := map[string]bool{}
	for _, r := range records {
		r.mark(named)
	}
	for _, o := range slices.Concat(in.aside, in.old) {
		kept := named[o.digest]
		if !kept && o.kind == documentKind {
			kept, err = w.keep(ctx, repo, o.digest)
		}
		if err == nil {
			err = w.treat(ctx, repo, o, kept)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o.Path(), err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return w.clear(ctx, repo, in)
}

// recordsHealed gives lookups the record that they have lost, by which they can be deleted.
func (w *sweeper) recordsHealed(ctx context.Context, repo string) ([]Record, error) {
	paths, lookups, err := w.recordsAndLookups(ctx, repo)
	if err != nil {
		return nil, err
	}
	records, err := w.readRecords(ctx, paths)
	if err != nil {
		return nil, err
	}
	lost, err := w.readRecords(ctx, lookups)
	for _, r := range lost {
		if err == nil {
			err = w.PutRecord(ctx, repo, r)
		}
	}
	return append(records, lost...), err
}

// clear removes the folders of the days that are over; all that was in them has been deleted or put back.
func (w *sweeper) clear(ctx context.Context, repo string, in *sweepable) error {
	var days []string
	for _, o := range in.aside {
		if w.over(o) && !in.strange[o.day] && !slices.Contains(days, o.day) {
			days = append(days, o.day)
		}
	}
	for _, d := range days {
		if err := w.storage.RemoveAll(ctx, below(repo, asideKind, d)); err != nil {
			return err
		}
	}
	return nil
}

// over: it has been aside for a whole day.
func (w *sweeper) over(o stored) bool {
	since, err := time.Parse(dayFormat, o.day)
	return err == nil && !w.now.Before(since.Add(2*day))
}

// treat takes the next step with one object.
func (w *sweeper) treat(ctx context.Context, repo string, o stored, kept bool) error {
	switch {
	case o.day == "" && kept:
		return nil
	case o.day == "":
		return w.putAside(ctx, repo, o)
	case kept:
		return w.putBack(ctx, repo, o)
	case !w.over(o):
		return nil
	}
	if err := w.storage.Remove(ctx, o.Path()); err != nil {
		return err
	}
	w.swept.Bytes += o.Size()
	switch o.kind {
	case documentKind:
		w.swept.Documents++
	case blobKind:
		w.swept.Blobs++
	}
	return nil
}

func (w *sweeper) putAside(ctx context.Context, repo string, o stored) error {
	there, err := w.storage.Stat(ctx, o.Path())
	if err == nil && !there.ModTime().Before(w.olderThan) {
		return nil // written again since it was listed
	}
	if err == nil {
		err = w.storage.Move(ctx, o.Path(), asidePath(repo, o.kind, o.digest, w.now))
	}
	if objects.Absent(err) {
		return nil // another replica was faster
	}
	if err == nil {
		w.swept.Aside++
	}
	return err
}

func (w *sweeper) putBack(ctx context.Context, repo string, o stored) error {
	place, err := digestPath(repo, o.kind, o.digest)
	if err != nil {
		return err
	}
	_, err = w.storage.Size(ctx, place)
	if err == nil { // it was sent again
		return w.storage.Remove(ctx, o.Path())
	}
	if objects.Absent(err) {
		err = w.storage.Move(ctx, o.Path(), place)
	}
	if objects.Absent(err) {
		return nil
	}
	if err == nil {
		w.swept.Back++
	}
	return err
}

func asidePath(repo string, k kind, digest string, now time.Time) string {
	return below(repo, asideKind, now.Format(dayFormat)+"/"+strings.TrimPrefix(string(k), "_")+"/"+strings.Replace(digest, ":", "/", 1))
}
