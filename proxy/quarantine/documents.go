package quarantine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/proxy/internal/objects"
)

// Manifest is a document as it was received. Its media type is the request's Content-Type, and nowhere in the bytes
// when a client leaves `mediaType` out, so both are kept in one object.
type Manifest struct {
	MediaType string
	Bytes     []byte
	// Blobs are digests that the manifest refers to. Those of them that are held stay held for as long as the manifest:
	// they are copied into its generation. Nothing here reads the bytes, so whoever does says it.
	Blobs []string
	// Newer is what else a newer program has said of it, and this one does not understand.
	Newer []string
}

// Size is how much is kept for it.
func (m Manifest) Size() int64 {
	n := len(m.MediaType) + 1 + len(m.Bytes)
	for _, d := range slices.Concat(m.Blobs, m.Newer) {
		n += 1 + len(d)
	}
	return int64(n)
}

// PutManifest holds a manifest until something refers to it. The bytes must have the digest.
func (s *Store) PutManifest(ctx context.Context, repo, digest string, m Manifest) error {
	return s.putDocument(ctx, repo, manifestKind, digest, m)
}

// Manifest reads a held manifest.
func (s *Store) Manifest(ctx context.Context, repo, digest string) (Manifest, error) {
	return s.document(ctx, repo, manifestKind, digest, false)
}

// StatManifest says whether Manifest would return it. When it answers, the manifest stays for at least another day.
func (s *Store) StatManifest(ctx context.Context, repo, digest string) error {
	_, err := s.document(ctx, repo, manifestKind, digest, true)
	return err
}

// PutOriginal keeps a document that was forwarded as something else.
func (s *Store) PutOriginal(ctx context.Context, repo, digest string, m Manifest) error {
	return s.putDocument(ctx, repo, originalKind, digest, m)
}

// Original reads a document that was forwarded as something else. It is in use then, and stays for at least another day.
func (s *Store) Original(ctx context.Context, repo, digest string) (Manifest, error) {
	return s.document(ctx, repo, originalKind, digest, true)
}

// DeleteOriginal forgets an original in every generation. One that is not there is forgotten already.
func (s *Store) DeleteOriginal(ctx context.Context, repo, digest string) error {
	return s.forget(ctx, repo, originalKind, digest)
}

func (s *Store) putDocument(ctx context.Context, repo string, k kind, digest string, m Manifest) error {
	o, err := newObject(repo, k, digest)
	if err != nil {
		return err
	}
	if err := objects.CheckMediaType(m.MediaType); err != nil {
		return fmt.Errorf("hold %s: %w", o, err)
	}
	for _, b := range m.Blobs {
		if err := objects.CheckDigest(b); err != nil {
			return fmt.Errorf("hold %s: its blob: %w", o, err)
		}
	}
	if err := objects.CheckBytes(m.Bytes, digest); err != nil {
		return fmt.Errorf("hold %s: %w", o, err)
	}
	if err := s.writeDocument(ctx, o, m); err != nil {
		return fmt.Errorf("hold %s: %w", o, err)
	}
	return nil
}

// writeDocument writes into today's generation, after the blobs, so that they are never swept first.
func (s *Store) writeDocument(ctx context.Context, o object, m Manifest) error {
	generation := s.Generation()
	for _, b := range m.Blobs {
		if err := s.bring(ctx, o.repo, b, generation); err != nil {
			return fmt.Errorf("its blob %s: %w", b, err)
		}
	}
	if err := s.storage.Put(ctx, o.in(generation), packDocument(m)); err != nil {
		return err
	}
	s.written.Put(s.storage, o.in(generation))
	return nil
}

func (s *Store) document(ctx context.Context, repo string, k kind, digest string, stay bool) (m Manifest, err error) {
	o, err := newObject(repo, k, digest)
	if err != nil {
		return Manifest{}, err
	}
	m, at, err := search(ctx, s, o, func(ctx context.Context, path string) (Manifest, error) {
		packed, err := s.storage.Get(ctx, path)
		if err != nil {
			return Manifest{}, err
		}
		return unpackDocument(packed, digest)
	})
	if err == nil && at.dying && stay {
		if k == manifestKind {
			err = s.bringAbout(ctx, repo, digest, objects.MaxAbout)
		}
		if err == nil {
			err = s.writeDocument(ctx, o, m)
		}
		if err == nil {
			s.tellCopied(o, s.Generation())
		}
	}
	if err != nil {
		return Manifest{}, o.unanswered("read", err)
	}
	return m, nil
}

// packDocument: a line with the media type and the blobs, separated by tabs, which no media type contains; then the
// exact bytes. Whatever else is in the line is left there.
func packDocument(m Manifest) []byte {
	b := make([]byte, 0, m.Size())
	b = append(b, m.MediaType...)
	for _, d := range slices.Concat(m.Blobs, m.Newer) {
		b = append(append(b, '\t'), d...)
	}
	b = append(b, '\n')
	return append(b, m.Bytes...)
}

func unpackDocument(b []byte, digest string) (Manifest, error) {
	line, content, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return Manifest{}, fmt.Errorf("%w: it has no media type", errDamaged)
	}
	if err := objects.CheckBytes(content, digest); err != nil {
		return Manifest{}, fmt.Errorf("%w: %s", errDamaged, err.Error())
	}
	m := Manifest{Bytes: content}
	mediaType, rest, some := strings.Cut(string(line), "\t")
	m.MediaType = mediaType
	if !some {
		return m, nil
	}
	for field := range strings.SplitSeq(rest, "\t") {
		if objects.CheckDigest(field) == nil {
			m.Blobs = append(m.Blobs, field)
		} else {
			m.Newer = append(m.Newer, field)
		}
	}
	return m, nil
}
