package attest

import "context"

// Usage is how many objects are stored, records and what waits to be deleted included, and of how many bytes.
func (s *Store) Usage(ctx context.Context) (objects int, bytes int64, err error) {
	u, err := s.storage.Usage(ctx, "/"+root)
	return u.Objects, u.Bytes, err
}
