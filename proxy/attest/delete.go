package attest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/filters/ocidoc"
	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

// Delete forgets an attestation: its records, its manifest, the derived one, and its statements and further needs as
// far as no record of another attestation in the repository names them. Originals stay; they list other things too.
// ErrNotFound when nothing is known of it. After an error, repeating the call goes on; the record that says what there
// is to delete goes last.
//
// Another attestation with the same statement, or the same config, may be pushed at this very moment, and its push does not
// send what is here. It has written its manifest before it looks. So what a manifest names that was written lately and has
// no record yet stays too; the rest is put aside, and given back in the end if somebody has come to need it meanwhile. The same
// attestation may be pushed, too: then either comes last.
func (s *Store) Delete(ctx context.Context, repo, attestationDigest string) error {
	if err := s.delete(ctx, repo, attestationDigest); err != nil {
		return fmt.Errorf("delete attestation %s of repository %s: %w", objects.Shortened(attestationDigest), repo, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, repo, attestation string) error {
	document, err := digestPath(repo, documentKind, attestation)
	if err != nil {
		return err
	}
	unclaimed, err := digestPath(repo, unclaimedKind, attestation)
	if err != nil {
		return err
	}
	known := 0
	if _, err := s.storage.Size(ctx, document); err == nil {
		known++
	} else if !objects.Absent(err) {
		return err
	}
	left, err := s.storage.List(ctx, unclaimed)
	if err != nil {
		return err
	}
	known += len(left)

	d := &deletion{Store: s, repo: repo, attestation: attestation, now: s.now().UTC()}
	ours, err := d.begin(ctx)
	if err != nil {
		return err
	}
	if known+len(ours) == 0 {
		return ErrNotFound
	}
	for _, r := range ours { // not to be found any more, before its parts go
		places, err := r.places(repo)
		if err == nil {
			err = s.removeEach(ctx, places[1:])
		}
		if err != nil {
			return err
		}
	}
	for _, p := range d.parts {
		if err := s.storage.Move(ctx, p.place, p.aside); err != nil && !objects.Absent(err) {
			return err
		}
	}
	if err := s.removeEach(ctx, []string{unclaimed}); err != nil {
		return err
	}
	for _, r := range ours {
		if _, err := s.removeRecord(ctx, repo, r); err != nil {
			return err
		}
	}
	return d.end(ctx)
}

// A deletion is one Delete.
type deletion struct {
	*Store
	repo, attestation string
	now               time.Time
	originals         map[string]bool // that list it
	named             digestSet       // by records of others
	read              digestSet       // paths of those records
	parts             []part
}

// A part is something that an attestation consists of, and may be there or not.
type part struct{ digest, place, aside string }

// begin finds the records of the attestation, and the parts that nothing else needs.
func (d *deletion) begin(ctx context.Context) (ours []Record, err error) {
	manifests, err := d.manifests(ctx)
	if err != nil {
		return nil, err
	}
	d.originals, d.named, d.read = map[string]bool{}, digestSet{}, digestSet{}
	own := map[string]bool{d.attestation: true}
	var digests []string
	err = d.eachRecord(ctx, d.repo, nil, func(r Record, _ bool) error {
		if r.Attestation != d.attestation {
			return d.other(r)
		}
		ours = append(ours, r)
		digests = append(digests, r.names()...)
		d.originals[r.Original], own[r.Original], own[r.Derived] = true, true, true
		return nil
	})
	if err != nil {
		return nil, err
	}
	needed, err := d.needed(ctx, manifests, own, digests)
	if err != nil {
		return nil, err
	}
	done := map[string]bool{}
	add := func(k kind, digest string) error {
		place, err := digestPath(d.repo, k, digest)
		if err == nil && !done[place] {
			done[place] = true
			d.parts = append(d.parts, part{digest, place, asidePath(d.repo, k, digest, d.now)})
		}
		return err
	}
	for _, digest := range digests {
		for _, k := range []kind{blobKind, elsewhereKind, documentKind} {
			if needed(digest) {
				continue
			}
			if err := add(k, digest); err != nil {
				return nil, err
			}
		}
	}
	return ours, add(documentKind, d.attestation)
}

// other notes what a record names that is not the attestation's own. It need not be read again: one that is written again
// under its name is about the same, and names the same.
func (d *deletion) other(r Record) error {
	places, err := r.places(d.repo)
	if err == nil {
		r.mark(d.named)
		d.read.add(places[0])
	}
	return err
}

// end gives back what is needed by now, and deletes the rest.
func (d *deletion) end(ctx context.Context) error {
	manifests, err := d.manifests(ctx)
	if err == nil {
		err = d.eachRecord(ctx, d.repo, d.read.has, func(r Record, _ bool) error {
			r.mark(d.named)
			return nil
		})
	}
	if err != nil {
		return err
	}
	var digests []string
	for _, p := range d.parts {
		digests = append(digests, p.digest)
	}
	needed, err := d.needed(ctx, manifests, d.originals, digests)
	if err != nil {
		return err
	}
	for _, p := range d.parts {
		if needed(p.digest) {
			if _, err = d.storage.Size(ctx, p.place); objects.Absent(err) { // else it was sent again
				err = d.storage.Move(ctx, p.aside, p.place)
			}
			if err != nil && !objects.Absent(err) {
				return err
			}
		}
		if err := d.storage.Remove(ctx, p.aside); err != nil {
			return err
		}
	}
	return nil
}

// manifests are those that were written lately, digests by path. They are listed before the records are, which pushes write
// after them.
func (d *deletion) manifests(ctx context.Context) (map[string]string, error) {
	lately := map[string]string{}
	err := d.each(ctx, d.repo, documentKind, func(fi storagedriver.FileInfo, rest string) error {
		if digest, ok := objects.DigestOfTail(rest); ok && d.fresh(fi) {
			lately[fi.Path()] = digest
		}
		return nil
	})
	return lately, err
}

// needed says of some digests whether records name them, or a manifest that was written lately and has no record. Those
// of the deleted attestation's own are no sign that somebody pushes. Indexes need nothing of it: they list attestations, of
// which each is written for itself, and stay when the last record of those is deleted.
func (d *deletion) needed(ctx context.Context, manifests map[string]string, own map[string]bool, digests []string) (func(digest string) bool, error) {
	pushed := map[string]bool{}
	var mu sync.Mutex
	group, ctx := contain.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for path, digest := range manifests {
		if d.named.has(digest) || own[digest] {
			continue
		}
		group.Go(func() error {
			mediaType, b, err := d.readDocument(ctx, path, digest)
			if err != nil {
				if errors.Is(err, ErrNotFound) {
					err = nil
				}
				return err
			}
			if mediaType == ocidoc.MediaTypeOCIIndex || mediaType == ocidoc.MediaTypeDockerList {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, digest := range digests {
				if bytes.Contains(b, []byte(digest)) {
					pushed[digest] = true
				}
			}
			return nil
		})
	}
	return func(digest string) bool { return pushed[digest] || d.named.has(digest) }, group.Wait()
}

// names are the digests that a record keeps, besides the attestation's own and its original's.
func (r Record) names() []string {
	names := append([]string(nil), r.Needs...)
	for _, st := range r.Statements {
		names = append(names, st.Digest)
	}
	if r.Derived != "" && r.Derived != r.Attestation {
		names = append(names, r.Derived)
	}
	return names
}

// anyDigest finds digests in a record of which not everything is understood.
var anyDigest = regexp.MustCompile(`sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}`)

// mark adds all that a record names. What a newer program says more may be that something belongs to it.
func (r Record) mark(named digestSet) {
	for _, d := range anyDigest.FindAll(r.Newer, -1) {
		named.add(string(d))
	}
	named.add(r.Attestation)
	named.add(r.Original)
	for _, d := range r.names() {
		named.add(d)
	}
}
