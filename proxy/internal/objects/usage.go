package objects

import (
	"context"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// Usage is how much there is below a folder. What comes or goes meanwhile may be counted or not.
type Usage struct {
	Objects int
	Bytes   int64
}

// Usage counts what is below a folder, without keeping a list of it. Nothing is there when there is no such folder.
func (s Storage) Usage(ctx context.Context, from string) (Usage, error) {
	var u Usage
	err := s.Walk(ctx, from, func(fi storagedriver.FileInfo) error {
		if !fi.IsDir() {
			u.Objects++
			u.Bytes += fi.Size()
		}
		return nil
	})
	if Absent(err) {
		err = nil
	}
	return u, err
}
