//go:build !(linux && (amd64 || arm64))

package folder

import (
	"errors"
	"io/fs"
)

func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }
