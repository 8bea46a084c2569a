package proxy_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/folder"
	"sluice/proxy/proxytest"
)

// ownMounts is true in a process of its own in which the test runs once more and may mount what it likes: root outside a
// container has the right, and everybody where user namespaces are allowed. In the first process it is false when that
// one is done.
func ownMounts(t *testing.T) bool {
	t.Helper()
	const inside = "SLUICE_TEST_OWN_MOUNTS"
	if os.Getenv(inside) != "" {
		err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) { // AppArmor gives namespaces in which nothing may be done
			t.Skip("a disk of its own needs the right to mount, which this user cannot have here")
		}
		if err != nil {
			t.Fatalf("keep mounts to this process: %v", err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), inside+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := child.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("a disk of its own needs a mount namespace, which this user cannot have here: %v", err)
	}
	switch {
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("%s", out)
	case err != nil, !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A disk is a small file system, and what is kept on it.
type disk struct {
	t      *testing.T
	folder string
}

func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	d := &disk{t, t.TempDir()}
	if err := syscall.Mount("tmpfs", d.folder, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a file system of %s: %v", size, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *disk) storage() *folder.Driver { return folder.New(filepath.Join(d.folder, "data"), 0) }

func (d *disk) filler() string { return filepath.Join(d.folder, "filler") }

// fill leaves so many bytes free.
func (d *disk) fill(free int64) {
	d.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.folder, &st); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.filler(), make([]byte, int64(st.Bavail*uint64(st.Bsize))-free), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) empty() {
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// readOnly is what becomes of a file system after an error of its disk, until somebody mounts it anew.
func (d *disk) readOnly(yes bool) {
	d.t.Helper()
	var flags uintptr = syscall.MS_REMOUNT
	if yes {
		flags |= syscall.MS_RDONLY
	}
	if err := syscall.Mount("", d.folder, "", flags, ""); err != nil {
		d.t.Fatalf("mount anew: %v", err)
	}
}

// servesOnlyWhole: of what was pushed there is all or nothing.
func (r *rig) servesOnlyWhole(tree *proxytest.Tree) {
	r.t.Helper()
	whole := func(kind string, b *proxytest.Blob) {
		a := r.request(http.MethodGet, "/v2/app/"+kind+"/"+b.Digest, nil, acceptAll...)
		if a.StatusCode != http.StatusNotFound && (a.StatusCode != http.StatusOK || string(a.body) != string(b.Bytes())) {
			r.t.Errorf("%s is served as %s with %d bytes of %d", b.Name, a.Status, len(a.body), b.Size)
		}
	}
	for _, b := range tree.Blobs() {
		whole("blobs", b)
	}
	for _, m := range tree.Manifests() {
		whole("manifests", &m.Blob)
	}
}

// I2, I6, I7: a real disk is full after so many bytes, for a number of them that leads through all that a push writes.
func TestADiskThatIsFullAtAnyPointOfAPush(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	const page = 4 << 10
	for size, free := range map[int][]int64{
		0:         {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 28, 32, 40, 48}, // each file takes a page
		300 << 10: {0, 20, 60, 80, 100, 140, 150, 160, 200, 230, 260, 320, 400},
	} {
		refused, accepted := 0, 0
		for _, pages := range free {
			t.Run(fmt.Sprintf("statements of %d bytes, %d pages free", size, pages), func(t *testing.T) {
				c := ordinary
				c.options.StatementSize = size
				tree, plain := c.trees()
				d := newDisk(t, "4m")
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(d.storage()))
				d.fill(pages * page)
				err := c.try(r, tree)
				r.quiet(err)
				if err != nil {
					refused++
					for _, want := range []string{"429", "storage of sluice failed"} {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("the client hears %q, want %q", err, want)
						}
					}
					if !strings.Contains(r.log.String(), "no space left on device") {
						t.Errorf("the log does not say why:\n%s", r.log)
					}
				} else {
					accepted++
				}
				r.holdsNow(plain)
				r.restart() // also a new process, as long as there is no room
				r.servesOnlyWhole(tree)
				if err == nil {
					r.finished(tree, plain, c.act)
				}
				other := proxytest.Synthetic(proxytest.SyntheticOptions{Seed: 7})
				r.push(proxytest.BuildKit, "other", "1", other) // has no attestations
				d.empty()
				if err := c.try(r, tree); err != nil {
					t.Fatalf("there is room again, and the push fails: %v", err)
				}
				r.quiet(nil)
				r.holdsNow(plain)
				r.finished(tree, plain, c.act)
			})
		}
		if refused < 5 || accepted == 0 {
			t.Errorf("%d pushes with statements of %d bytes were refused, and %d not: a case is missing", refused, size, accepted)
		}
	}
}

// I2, I4, I7: as for a driver that says so, with a file system that is read-only or full; and when it is well again the
// next push is whole.
func TestAFileSystemThatTakesNothingStopsOnlyWhatNeedsIt(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	for _, choice := range choices() {
		for _, kind := range []string{"read-only", "full"} {
			t.Run(fmt.Sprint(kind, " ", choice), func(t *testing.T) {
				d := newDisk(t, "1m")
				setUp := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(d.storage())) // which makes the key
				setUp.server.Close()
				says := "read-only file system"
				if kind == "read-only" {
					d.readOnly(true)
				} else {
					d.fill(0)
					says = "no space left on device"
				}
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(d.storage()), onStorageError(choice))
				tree := r.stopsOnlyWhatNeedsIt(choice)
				if !strings.Contains(r.log.String(), says) {
					t.Errorf("the log does not say why:\n%s", r.log)
				}
				if kind == "read-only" {
					d.readOnly(false)
				} else {
					d.empty()
				}
				if err := tryPush(r, proxytest.BuildKit, tree); err != nil {
					t.Fatalf("it is well again, and the push fails: %v", err)
				}
				r.quiet(nil)
				proxytest.AssertComplete(t, r.upstream)
				if choice == config.StorageErrorReject {
					r.finished(tree, proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}}), ordinary.act)
				}
			})
		}
	}
}
