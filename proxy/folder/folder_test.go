//go:build linux && (amd64 || arm64)

package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// both are this driver and distribution's over the same folder: what one writes the other must read, and what one
// refuses the other must refuse in the same way.
func both(t *testing.T) (root string, ours *Driver, theirs *filesystem.Driver) {
	t.Helper()
	root = t.TempDir()
	return root, New(root, 0), filesystem.New(filesystem.DriverParameters{RootDirectory: root, MaxThreads: 100})
}

func TestEachReadsWhatTheOtherWrote(t *testing.T) {
	_, ours, theirs := both(t)
	ctx := context.Background()
	for _, size := range []int{0, 1, 511, 512, 4096, 100_000, 3 << 20} {
		content := bytes.Repeat([]byte{byte(size), 7}, size)[:size]
		for i, pair := range [][2]storagedriver.StorageDriver{{ours, theirs}, {theirs, ours}, {ours, ours}} {
			path := fmt.Sprintf("/a/_b/%d/%d", size, i)
			if err := pair[0].PutContent(ctx, path, content); err != nil {
				t.Fatal(err)
			}
			got, err := pair[1].GetContent(ctx, path)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes came back, %v", path, len(got), err)
			}
			want, err := theirs.Stat(ctx, path)
			if err != nil {
				t.Fatal(err)
			}
			fi, err := ours.Stat(ctx, path)
			if err != nil {
				t.Fatal(err)
			}
			if fi.Path() != want.Path() || fi.Size() != want.Size() || !fi.ModTime().Equal(want.ModTime()) || fi.IsDir() {
				t.Errorf("%s: Stat says %v, %v, %v", path, fi.Path(), fi.Size(), fi.ModTime())
			}
		}
	}
	if fi, err := ours.Stat(ctx, "/a/_b"); err != nil || !fi.IsDir() || fi.Size() != 0 {
		t.Errorf("of a folder Stat says %v, %v", fi, err)
	}
	if fi, err := ours.Stat(ctx, "/"); err != nil || !fi.IsDir() {
		t.Errorf("of the root Stat says %v, %v", fi, err)
	}
}

func TestBothRefuseTheSame(t *testing.T) {
	root, ours, theirs := both(t)
	ctx := context.Background()
	if err := ours.PutContent(ctx, "/there/file", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "dangling")); err != nil {
		t.Fatal(err)
	}
	call := map[string]func(d storagedriver.StorageDriver, path string) error{
		"get":  func(d storagedriver.StorageDriver, path string) error { _, err := d.GetContent(ctx, path); return err },
		"stat": func(d storagedriver.StorageDriver, path string) error { _, err := d.Stat(ctx, path); return err },
		"list": func(d storagedriver.StorageDriver, path string) error { _, err := d.List(ctx, path); return err },
		"put":  func(d storagedriver.StorageDriver, path string) error { return d.PutContent(ctx, path, []byte("y")) },
	}
	for _, path := range []string{"/missing", "/missing/file", "/there", "/there/file/below", "/dangling", "", "a", "/a/", "//a", "/a b", "/a/ü", "/a%", "/a:b"} {
		for name, do := range call {
			if name == "put" && strings.HasPrefix(path, "/missing") {
				continue // is made
			}
			if name == "put" && path == "/dangling" {
				continue // is replaced
			}
			want, got := do(theirs, path), do(ours, path)
			if kind(want) != kind(got) {
				t.Errorf("%s %q: %v (%s), distribution's driver says %v (%s)", name, path, got, kind(got), want, kind(want))
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*.tmp")); len(left) > 0 {
		t.Errorf("a refused write left %v", left)
	}
}

func kind(err error) string {
	var notFound storagedriver.PathNotFoundError
	var invalid storagedriver.InvalidPathError
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &notFound):
		return "not found"
	case errors.As(err, &invalid):
		return "invalid"
	}
	return "other"
}

// Distribution's driver would follow these out of the folder.
func TestNoPathLeavesTheFolder(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(root, "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := New(filepath.Join(root, "inside"), 0)
	ctx := context.Background()
	for _, path := range []string{"/../outside", "/..", "/a/../../outside", "/./a", "/.", "/a/.."} {
		if _, err := d.GetContent(ctx, path); kind(err) != "invalid" {
			t.Errorf("read %s: %v", path, err)
		}
		if _, err := d.Stat(ctx, path); kind(err) != "invalid" {
			t.Errorf("look at %s: %v", path, err)
		}
		if err := d.PutContent(ctx, path, nil); kind(err) != "invalid" {
			t.Errorf("write %s: %v", path, err)
		}
	}
}

func TestValidIsDistributionsExpression(t *testing.T) {
	for _, path := range []string{"/a", "/a/b", "/_a/-b/.c/A9", "/...", "/a..b", "", "/", "a", "/a/", "//a", "/a//b", "/a b", "/a\n", "/é", "/a:b", "/a\x00"} {
		if got, want := valid(path), storagedriver.PathRegexp.MatchString(path); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
}

func TestAWriterNeverShowsHalfAnObject(t *testing.T) {
	root, ours, _ := both(t)
	ctx := context.Background()
	contents := [][]byte{bytes.Repeat([]byte("a"), 50_000), bytes.Repeat([]byte("b"), 60_000)}
	if err := ours.PutContent(ctx, "/x/y", contents[0]); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for _, c := range contents {
		writers.Go(func() {
			for range 100 {
				if err := ours.PutContent(ctx, "/x/y", c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); close(stop) }()
	for done := false; !done; {
		select {
		case <-stop:
			done = true
		default:
		}
		b, err := ours.GetContent(ctx, "/x/y")
		if err != nil || !bytes.Equal(b, contents[0]) && !bytes.Equal(b, contents[1]) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
	if names, _ := os.ReadDir(filepath.Join(root, "x")); len(names) != 1 {
		t.Errorf("something was left: %v", names)
	}
}

// A sweep removes folders while others write into them.
func TestFoldersThatVanishAreMadeAgain(t *testing.T) {
	root, ours, _ := both(t)
	ctx := context.Background()
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.RemoveAll(filepath.Join(root, "x"))
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	kept := 0
	for range 200 {
		switch err := ours.PutContent(ctx, "/x/y/z", []byte("content")); kind(err) {
		case "none":
			kept++
		case "not found": // taken away under the writer's hands, and said
		default:
			t.Errorf("%v", err)
		}
	}
	close(stop)
	sweeper.Wait()
	if err := ours.PutContent(ctx, "/x/y/z", []byte("content")); err != nil {
		t.Error(err)
	}
	if kept == 0 {
		t.Error("no write succeeded")
	}
}

func TestAFullLineOfCallsGivesUpWithItsContext(t *testing.T) {
	d := New(t.TempDir(), 0)
	d.slots = make(chan struct{}, 1)
	d.slots <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.PutContent(ctx, "/a", nil); err == nil || kind(err) != "other" {
		t.Errorf("%v", err)
	}
	<-d.slots
	if err := d.PutContent(context.Background(), "/a", nil); err != nil {
		t.Error(err)
	}
}

func BenchmarkSmall(b *testing.B) {
	root, err := os.MkdirTemp("/dev/shm", "folder-")
	if err != nil {
		root = b.TempDir()
	}
	defer os.RemoveAll(root)
	ctx := context.Background()
	for name, d := range map[string]storagedriver.StorageDriver{
		"folder": New(root, 0), "distribution": filesystem.New(filesystem.DriverParameters{RootDirectory: root, MaxThreads: 100}),
	} {
		content := make([]byte, 1000)
		b.Run("put/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = d.PutContent(ctx, "/a/b/c", content)
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = d.GetContent(ctx, "/a/b/c")
			}
		})
		b.Run("miss/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = d.GetContent(ctx, "/a/b/d")
			}
		})
	}
}
