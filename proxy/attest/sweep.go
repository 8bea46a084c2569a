package attest

import (
	"context"
	"errors"
	"fmt"
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
	repos, err := s.repositories(ctx)
	if err != nil {
		return Swept{}, fmt.Errorf("sweep stored attestations: %w", err)
	}
	w := &sweeper{Store: s, keep: keep, now: now, olderThan: olderThan}
	var errs []error
	for _, repo := range repos {
		if err := w.sweep(ctx, repo); err != nil {
			errs = append(errs, fmt.Errorf("sweep stored attestations of repository %s: %w", repo, err))
		}
	}
	return w.swept, errors.Join(errs...)
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

type sweeper struct {
	*Store
	keep      func(ctx context.Context, repo, digest string) (bool, error)
	now       time.Time
	olderThan time.Time
	swept     Swept
}

func (w *sweeper) sweep(ctx context.Context, repo string) error {
	some, err := w.someOld(ctx, repo)
	if err != nil || !some {
		return err
	}
	named, err := w.namedIn(ctx, repo)
	if err != nil {
		return err
	}
	days, err := w.asideIn(ctx, repo, named)
	if err := errors.Join(err, w.oldIn(ctx, repo, named)); err != nil {
		return err
	}
	// All that was put aside on these days has been deleted or put back.
	for _, d := range days {
		if err := w.storage.RemoveAll(ctx, below(repo, asideKind, d)); err != nil {
			return err
		}
	}
	return nil
}

// leftover is what a crash left of a write: what was staged, and the filesystem driver's temporary files.
func (w *sweeper) leftover(k kind, fi storagedriver.FileInfo, rest string) bool {
	return (k == stagingKind || strings.HasSuffix(rest, ".tmp")) && fi.ModTime().Before(w.now.Add(-day))
}

// someOld says whether a repository has anything that a sweep looks at. The records of one that has not need not be read.
func (w *sweeper) someOld(ctx context.Context, repo string) (some bool, err error) {
	for _, k := range append([]kind{asideKind, stagingKind}, sweptKinds...) {
		err := w.each(ctx, repo, k, func(fi storagedriver.FileInfo, rest string) error {
			_, ok := objects.DigestOfTail(rest)
			if k == asideKind || w.leftover(k, fi, rest) || ok && fi.ModTime().Before(w.olderThan) {
				some = true
				return storagedriver.ErrFilledBuffer
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		if some {
			return true, nil
		}
	}
	return false, nil
}

// namedIn is what the records of a repository name. Lookups get back the record that they have lost, by which they can be
// deleted.
//
// It is read before what there is is listed. What is old then and is named only later was relied on by a push that took
// days, or is written again by it.
func (w *sweeper) namedIn(ctx context.Context, repo string) (digestSet, error) {
	named := digestSet{}
	err := w.eachRecord(ctx, repo, nil, func(r Record, lost bool) error {
		r.mark(named)
		if lost {
			return w.PutRecord(ctx, repo, r)
		}
		return nil
	})
	return named, err
}

// asideIn looks at what was put aside, and says which days are over of which everything was seen to.
func (w *sweeper) asideIn(ctx context.Context, repo string, named digestSet) (days []string, err error) {
	strange := map[string]bool{} // days on which something was put aside that this program does not know
	err = inSteps(func(next nextStep) error {
		return w.each(ctx, repo, asideKind, func(fi storagedriver.FileInfo, rest string) error {
			on, rest, _ := strings.Cut(rest, "/")
			name, tail, _ := strings.Cut(rest, "/")
			o := stored{FileInfo: fi, kind: kind("_" + name), day: on}
			if !slices.Contains(sweptKinds, o.kind) {
				strange[on] = true
				return nil
			}
			var ok bool
			if o.digest, ok = objects.DigestOfTail(tail); !ok {
				return nil
			}
			if w.over(o) && !slices.Contains(days, on) {
				days = append(days, on)
			}
			if o.kind != documentKind && !named.has(o.digest) && !w.over(o) {
				return nil
			}
			return next(fi.Path(), func() error { return w.treat(ctx, repo, o, named) })
		})
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(days, func(day string) bool { return strange[day] }), nil
}

// oldIn looks at what is old.
func (w *sweeper) oldIn(ctx context.Context, repo string, named digestSet) error {
	return inSteps(func(next nextStep) error {
		for _, k := range append([]kind{stagingKind}, sweptKinds...) {
			err := w.each(ctx, repo, k, func(fi storagedriver.FileInfo, rest string) error {
				digest, ok := objects.DigestOfTail(rest)
				switch {
				case w.leftover(k, fi, rest):
					return next(fi.Path(), func() error { return w.clean(ctx, fi.Path()) })
				case ok && fi.ModTime().Before(w.olderThan) && !named.has(digest):
					return next(fi.Path(), func() error { return w.treat(ctx, repo, stored{FileInfo: fi, kind: k, digest: digest}, named) })
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *sweeper) clean(ctx context.Context, leftover string) error {
	err := w.storage.Remove(ctx, leftover)
	if err == nil {
		w.swept.Leftovers++
	}
	return err
}

// over: it has been aside for a whole day.
func (w *sweeper) over(o stored) bool {
	since, err := time.Parse(dayFormat, o.day)
	return err == nil && !w.now.Before(since.Add(2*day))
}

// treat takes the next step with one object.
func (w *sweeper) treat(ctx context.Context, repo string, o stored, named digestSet) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", o.Path(), err)
		}
	}()
	kept := named.has(o.digest)
	if !kept && o.kind == documentKind {
		if kept, err = w.keep(ctx, repo, o.digest); err != nil {
			return err
		}
	}
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
