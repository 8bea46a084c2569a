package attest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/proxy/internal/objects"
)

// Record says of one attestation what it is about and how it was pushed. The same attestation has several when it was
// pushed under several tags or in several originals.
type Record struct {
	Attestation          string      `json:"attestation"` // digest of the attestation manifest
	AttestationMediaType string      `json:"attestationMediaType,omitempty"`
	Subject              string      `json:"subject,omitempty"` // the image
	SubjectMediaType     string      `json:"subjectMediaType,omitempty"`
	SubjectSize          int64       `json:"subjectSize,omitempty"`
	Original             string      `json:"original,omitempty"` // the index that listed it
	Tag                  string      `json:"tag,omitempty"`
	At                   time.Time   `json:"at"`
	Statements           []Statement `json:"statements,omitempty"`
	Derived              string      `json:"derived,omitempty"` // digest of the derived referrer manifest
	// Needs are digests of further blobs and documents that belong to it, such as the attestation manifest's config.
	// They are deleted with the last record that names them.
	Needs []string `json:"needs,omitempty"`

	// Repository is where the statements are, by the name that clients use, and Placed the digest of the manifest that
	// holds them there. Both are empty when they are kept here.
	Repository string `json:"repository,omitempty"`
	Placed     string `json:"placed,omitempty"`

	// Newer is the whole of a record in which a newer program says more than this one knows, nil otherwise.
	Newer []byte `json:"-"`
}

// Statement is one layer of an attestation manifest.
type Statement struct {
	Digest        string `json:"digest"`
	MediaType     string `json:"mediaType,omitempty"`
	PredicateType string `json:"predicateType,omitempty"`
	Size          int64  `json:"size,omitempty"`
}

// key tells apart the records of one attestation. Pushing the same again gives the same key.
func (r Record) key() string {
	var b []byte
	for _, part := range []string{r.Subject, r.Original, r.Tag} {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

func (r Record) check() error {
	if err := objects.CheckDigest(r.Attestation); err != nil {
		return err
	}
	digests := slices.Clone(r.Needs)
	for _, d := range []string{r.Subject, r.Original, r.Derived, r.Placed} {
		if d != "" {
			digests = append(digests, d)
		}
	}
	for _, st := range r.Statements {
		digests = append(digests, st.Digest)
	}
	for _, d := range digests {
		if err := objects.CheckDigest(d); err != nil {
			return err
		}
	}
	if r.Repository != "" {
		if err := objects.CheckRepository(r.Repository); err != nil {
			return err
		}
	}
	if r.Tag != "" {
		return objects.CheckTag(r.Tag)
	}
	return nil
}

// places are the paths of a record: first the one by which Delete finds it, then those for the lookups. That of the tag comes
// before those by which a sweep finds a lookup whose record was deleted as it was written.
func (r Record) places(repo string) ([]string, error) {
	folder, err := digestPath(repo, recordKind, r.Attestation)
	if err != nil {
		return nil, err
	}
	places := []string{folder + "/" + r.key()}
	name := objects.Leaf(r.Attestation) + "-" + r.key()
	if r.Tag != "" {
		folder, err := tagPath(repo, r.Tag)
		if err != nil {
			return nil, err
		}
		places = append(places, folder+"/"+name)
	}
	for _, by := range []struct {
		kind   kind
		digest string
	}{{subjectKind, r.Subject}, {originalKind, r.Original}} {
		if by.digest == "" {
			continue
		}
		folder, err := digestPath(repo, by.kind, by.digest)
		if err != nil {
			return nil, err
		}
		places = append(places, folder+"/"+name)
	}
	return places, nil
}

// PutRecord makes an attestation findable. What it names has been stored before. Subject, Original and Tag may be
// empty; a zero At becomes now. The same record again replaces the first.
func (s *Store) PutRecord(ctx context.Context, repo string, r Record) error {
	if r.At.IsZero() {
		r.At = s.now().UTC()
	}
	err := objects.CheckRepository(repo)
	if err == nil {
		err = r.check()
	}
	var places []string
	if err == nil {
		places, err = r.places(repo)
	}
	var b []byte
	if b = r.Newer; err == nil && b == nil {
		b, err = json.Marshal(r)
	}
	for _, p := range places {
		if err == nil {
			err = s.storage.Put(ctx, p, b)
		}
	}
	if err != nil {
		return fmt.Errorf("record attestation %s of repository %s: %w", objects.Shortened(r.Attestation), repo, err)
	}
	return nil
}

// BySubject finds the records about an image, newest first. None is no error.
func (s *Store) BySubject(ctx context.Context, repo, imageDigest string) ([]Record, error) {
	folder, err := digestPath(repo, subjectKind, imageDigest)
	if err != nil {
		return nil, err
	}
	return s.find(ctx, repo, imageDigest, folder, func(r Record) bool { return r.Subject == imageDigest })
}

// ByOriginal finds the records of what an original listed, newest first. None is no error.
func (s *Store) ByOriginal(ctx context.Context, repo, originalDigest string) ([]Record, error) {
	folder, err := digestPath(repo, originalKind, originalDigest)
	if err != nil {
		return nil, err
	}
	return s.find(ctx, repo, originalDigest, folder, func(r Record) bool { return r.Original == originalDigest })
}

// OfOriginal are the attestations of which a record says that an original listed them.
func (s *Store) OfOriginal(ctx context.Context, repo, originalDigest string) (map[string]bool, error) {
	folder, err := digestPath(repo, originalKind, originalDigest)
	var names []string
	if err == nil {
		names, err = s.storage.List(ctx, folder)
	}
	if err != nil {
		return nil, fmt.Errorf("look for attestations of %s in repository %s: %w", originalDigest, repo, err)
	}
	found := map[string]bool{}
	for _, name := range names {
		if attestation, ok := attestationOf(name); ok {
			found[attestation] = true
		}
	}
	return found, nil
}

// ByTag finds the records of everything that was ever pushed under a tag, newest first. None is no error.
func (s *Store) ByTag(ctx context.Context, repo, tag string) ([]Record, error) {
	folder, err := tagPath(repo, tag)
	if err != nil {
		return nil, err
	}
	// A file system that ignores case, as on macOS, lists `V1` for `v1`.
	return s.find(ctx, repo, tag, folder, func(r Record) bool { return r.Tag == tag })
}

// readAtOnce bounds the requests of one lookup to a bucket.
const readAtOnce = 8

func (s *Store) find(ctx context.Context, repo, what, folder string, wanted func(Record) bool) ([]Record, error) {
	names, err := s.storage.List(ctx, folder)
	if err != nil {
		return nil, fmt.Errorf("look for attestations of %s in repository %s: %w", what, repo, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { _, ok := attestationOf(name); return !ok })
	for i, name := range names {
		names[i] = folder + "/" + name
	}
	records, err := s.readRecords(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("read the attestations of %s in repository %s: %w", what, repo, err)
	}
	records = slices.DeleteFunc(records, func(r Record) bool { return !wanted(r) })
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Attestation, b.Attestation),
			cmp.Compare(a.Original, b.Original), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Subject, b.Subject))
	})
	return records, nil
}

// attestationOf is the attestation that a lookup's record is about, by its name; false for what is no record, such as a
// temporary file that a crash left.
func attestationOf(name string) (digest string, ok bool) {
	i := strings.LastIndex(name, "-")
	if i < 0 || !keyGrammar.MatchString(name[i+1:]) {
		return "", false
	}
	return objects.DigestOfLeaf(name[:i])
}

// ByAttestation finds the records of one attestation, in no order. None is no error.
func (s *Store) ByAttestation(ctx context.Context, repo, attestation string) ([]Record, error) {
	folder, err := digestPath(repo, recordKind, attestation)
	var names, paths []string
	if err == nil {
		names, err = s.storage.List(ctx, folder)
	}
	for _, name := range names {
		if keyGrammar.MatchString(name) {
			paths = append(paths, folder+"/"+name)
		}
	}
	var records []Record
	if err == nil {
		records, err = s.readRecords(ctx, paths)
	}
	if err != nil {
		return nil, fmt.Errorf("look for records of attestation %s in repository %s: %w", objects.Shortened(attestation), repo, err)
	}
	return records, nil
}

// parseRecord keeps what a newer program says more, for when the record is written again.
func parseRecord(b []byte) (r Record, err error) {
	strict := json.NewDecoder(bytes.NewReader(b))
	strict.DisallowUnknownFields()
	if strict.Decode(&r) == nil && !strict.More() {
		return r, nil
	}
	r = Record{Newer: b}
	return r, json.Unmarshal(b, &r)
}

// readRecord returns nil for one that was deleted since it was listed.
func (s *Store) readRecord(ctx context.Context, path string) (*Record, error) {
	b, err := s.storage.Get(ctx, path)
	if objects.Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := parseRecord(b)
	if err == nil {
		err = r.check()
	}
	if err == nil && !strings.HasSuffix(path, r.key()) {
		err = fmt.Errorf("it is about something else than its name says")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the record at %s in the storage is malformed, restore it or delete it: %w", ErrStorage, path, err)
	}
	return &r, nil
}
