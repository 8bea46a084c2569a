package quarantine

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

// A Held is one thing in one generation, by whichever replica.
type Held struct {
	Generation string
	Kind       string // "blob", "manifest", "original"; and "part" of an upload
	Repository string
	ID         string // digest; of a part upload/number
}

// Each visits everything that is held. It fails when not everything was seen, also because a folder vanished meanwhile.
func (s *Store) Each(ctx context.Context, visit func(Held)) error {
	err := s.storage.Walk(ctx, "/"+quarantineRoot, func(fi storagedriver.FileInfo) error {
		if fi.IsDir() {
			return nil
		}
		if generation, o, ok := parseHeld(fi.Path()); ok {
			visit(Held{generation, o.kind.noun(), o.repo, o.digest})
		} else if h, ok := parsePart(fi.Path()); ok {
			visit(h)
		}
		return nil
	})
	if objects.Absent(err) {
		if generations, listErr := s.generations(ctx); listErr == nil && len(generations) == 0 {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("look through the quarantine: %w", err)
	}
	return nil
}

// parsePart is the way back from the path of a part that was written whole.
func parsePart(path string) (h Held, ok bool) {
	rest, ok := strings.CutPrefix(path, "/"+quarantineRoot+"/")
	if !ok {
		return h, false
	}
	generation, rest, _ := strings.Cut(rest, "/")
	repo, id, ok := strings.Cut(rest, "/"+string(partKind)+"/")
	if !ok || strings.Contains(repo, "/_") || !validGeneration(generation) {
		return h, false
	}
	upload, number, _ := strings.Cut(id, "/")
	if n, err := strconv.Atoi(number); err != nil || partPath(upload, n) != id {
		return h, false
	}
	return Held{generation, "part", repo, id}, true
}
