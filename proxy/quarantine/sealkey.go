package quarantine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

const keySize = 32

var keyName = regexp.MustCompile(`^[0-9]{20}-[0-9a-f]{16}$`)

// SealKeys returns the keys that are kept in the storage, the oldest first, and makes one when there is none.
//
// Replicas that start together on an empty storage may each make one: without compare-and-swap nothing can prevent
// that. After writing its own each reads back what is there and takes the oldest, so they agree with the next call at
// the latest, and no key is ever removed. A replica that meets a token sealed with a key it does not know calls this
// again.
func (s *Store) SealKeys(ctx context.Context) ([][]byte, error) {
	keys, err := s.readKeys(ctx)
	if err != nil || len(keys) > 0 {
		return keys, err
	}
	content := make([]byte, keySize)
	id := make([]byte, 8)
	rand.Read(content) // never fails, as of Go 1.24
	rand.Read(id)
	path := fmt.Sprintf("/%s/%020d-%x", keyRoot, s.now().UnixNano(), id)
	if err := s.storage.Put(ctx, path, content); err != nil {
		return nil, fmt.Errorf("keep a key for upload sessions in the storage, or set seal_keys: %w", err)
	}
	keys, err = s.readKeys(ctx)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("%w: the key for upload sessions that was just written is not there", ErrStorage)
	}
	return keys, err
}

func (s *Store) readKeys(ctx context.Context) ([][]byte, error) {
	names, err := s.storage.List(ctx, "/"+keyRoot)
	if err != nil {
		return nil, fmt.Errorf("list the keys for upload sessions: %w", err)
	}
	slices.Sort(names)
	var keys [][]byte
	for _, name := range names {
		if !keyName.MatchString(name) {
			continue
		}
		path := "/" + keyRoot + "/" + name
		b, err := s.storage.Get(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("read a key for upload sessions: %w", err)
		}
		if len(b) != keySize {
			return nil, malformed(path, errors.New("it is no key of 32 bytes"))
		}
		keys = append(keys, b)
	}
	return keys, nil
}
