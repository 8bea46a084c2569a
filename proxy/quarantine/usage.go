package quarantine

import "context"

// Usage is how many objects all generations hold, and of how many bytes.
func (s *Store) Usage(ctx context.Context) (objects int, bytes int64, err error) {
	u, err := s.storage.Usage(ctx, "/"+quarantineRoot)
	return u.Objects, u.Bytes, err
}
