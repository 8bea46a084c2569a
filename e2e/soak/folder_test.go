//go:build soak

package soak

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A folder is a file system in memory that can be full or read-only.
type folder struct{ mount string }

const roomy = "size=4g,nr_inodes=4m"

func newFolder(t *testing.T) *folder {
	t.Helper()
	f := &folder{mount: filepath.Join(t.TempDir(), "folder")}
	err := os.Mkdir(f.mount, 0o700)
	if err == nil {
		err = syscall.Mount("soak", f.mount, "tmpfs", 0, roomy+",mode=700")
	}
	if err != nil {
		t.Fatal("mount a file system in memory: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(f.mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *folder) root() string { return filepath.Join(f.mount, "data") }

// storage is how a configuration names it.
func (f *folder) storage() string { return fmt.Sprintf("{filesystem: {rootdirectory: %q}}", f.root()) }

func (f *folder) remount(flags uintptr, options string) error {
	return syscall.Mount("soak", f.mount, "tmpfs", syscall.MS_REMOUNT|flags, options)
}

// leave makes the file system so small that only room bytes, or no further file, go in.
func (f *folder) leave(room int64, files bool) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(f.mount, &s); err != nil {
		return err
	}
	if files {
		return f.remount(0, fmt.Sprintf("nr_inodes=%d", s.Files-s.Ffree))
	}
	return f.remount(0, fmt.Sprintf("size=%d", int64(s.Blocks-s.Bfree)*s.Bsize+room))
}

// misbehave goes through what can be wrong with it until ctx ends.
func (f *folder) misbehave(ctx context.Context, t *testing.T, d *dice, n *tally) {
	troubles := []struct {
		name  string
		begin func() error
	}{
		{"folder: full", func() error { return f.leave(0, false) }},
		{"folder: nearly full", func() error { return f.leave(int64(d.n(256))<<10, false) }},
		{"folder: no further file", func() error { return f.leave(0, true) }},
		{"folder: read-only", func() error { return f.remount(syscall.MS_RDONLY, "") }},
	}
	for _, x := range troubles {
		n.expect(x.name)
	}
	for ctx.Err() == nil {
		for _, i := range d.shuffled(len(troubles)) {
			d.pause(ctx, 2*time.Second)
			err := troubles[i].begin()
			for range 50 { // while somebody writes it cannot become read-only, nor as small as it was a moment ago
				if err == nil {
					n.did(troubles[i].name)
					d.pause(ctx, 1500*time.Millisecond)
					break
				}
				d.pause(ctx, 5*time.Millisecond)
				err = troubles[i].begin()
			}
			if err := f.remount(0, roomy); err != nil {
				t.Errorf("the file system stays as it was: %v", err)
			}
		}
	}
}
