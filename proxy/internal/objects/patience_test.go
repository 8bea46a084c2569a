package objects_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/objects"
	"sluice/proxy/proxytest"
)

// soon is when calls are given up. In a test's own time what does not hang takes none, however busy the machine is.
const soon = 300 * time.Millisecond

// ownTime runs a test in a time of its own, which goes on when nothing else can.
func ownTime(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Minute) // workers that wait for another call end
		test(t)
	})
}

// eventually waits for what must come to be; only a bug makes it wait for long.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

type hanging struct {
	*proxytest.FailingDriver
	s    objects.Storage
	lost *objects.Lost
}

// atOnce answers at once, as a folder does until it hangs.
type atOnce struct{ *proxytest.FailingDriver }

func (atOnce) Immediate() bool { return true }

// ways are the two in which calls are made.
var ways = map[string]bool{"": false, ", which answers at once": true}

func newHanging(t *testing.T, soon time.Duration, immediate bool) *hanging {
	t.Helper()
	d := proxytest.NewFailingDriver(inmemory.New())
	h := &hanging{FailingDriver: d, lost: &objects.Lost{}}
	h.s = objects.Storage{Driver: objects.NewPatient(d, soon, h.lost), Small: 64}
	if immediate {
		h.s.Driver = objects.NewPatient(atOnce{d}, soon, h.lost)
	}
	if h.s.Immediate() != immediate {
		t.Fatal("the driver's word is lost")
	}
	for _, p := range []string{"/a/small", "/a/large"} {
		if _, err := h.s.Save(t.Context(), p, "/staging"+p, bytes.NewReader(make([]byte, map[string]int{"/a/small": 10, "/a/large": 1000}[p])), nil); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// hang lets one kind of call hang.
func (h *hanging) hang(kind string) (release func()) {
	return h.Hang(func(what string) bool { return strings.HasPrefix(what, kind+" ") })
}

// Each kind of call ends although the driver does not, as the storage's failure, and leaves nothing behind when it comes back.
func TestACallThatHangsIsGivenUp(t *testing.T) {
	read := func(ctx context.Context, s objects.Storage) error {
		rc, err := s.Open(ctx, "/a/large", 1000, 0)
		if err != nil {
			return err
		}
		_, err = io.ReadAll(rc)
		return errors.Join(err, rc.Close())
	}
	write := func(ctx context.Context, s objects.Storage) error {
		_, err := s.Save(ctx, "/b/large", "/staging/b", bytes.NewReader(make([]byte, 200<<10)), nil)
		return err
	}
	for kind, do := range map[string]func(ctx context.Context, s objects.Storage) error{
		"GetContent": func(ctx context.Context, s objects.Storage) error { _, err := s.Get(ctx, "/a/small"); return err },
		"PutContent": func(ctx context.Context, s objects.Storage) error { return s.Put(ctx, "/b/small", []byte("x")) },
		"Stat":       func(ctx context.Context, s objects.Storage) error { _, err := s.Stat(ctx, "/a/small"); return err },
		"List":       func(ctx context.Context, s objects.Storage) error { _, err := s.List(ctx, "/a"); return err },
		"Move":       func(ctx context.Context, s objects.Storage) error { return s.Move(ctx, "/a/small", "/b/small") },
		"Delete":     func(ctx context.Context, s objects.Storage) error { return s.Remove(ctx, "/a") },
		"Walk": func(ctx context.Context, s objects.Storage) error {
			return s.Each(ctx, "/a", nil, func(storagedriver.FileInfo) error { return nil })
		},
		"Reader":        read,
		"Reader.Read":   read,
		"Writer":        write,
		"Writer.Write":  write,
		"Writer.Commit": write,
		"Writer.Close":  write,
	} {
		for way, immediate := range ways {
			t.Run(kind+way, func(t *testing.T) { ownTime(t, func(t *testing.T) { hangsAndIsGivenUp(t, kind, immediate, do) }) })
		}
	}
}

func hangsAndIsGivenUp(t *testing.T, kind string, immediate bool, do func(ctx context.Context, s objects.Storage) error) {
	t.Helper()
	h := newHanging(t, soon, immediate)
	before := runtime.NumGoroutine()
	release := h.hang(kind)
	defer release()
	if err := do(t.Context(), h.s); !errors.Is(err, objects.ErrStorage) || !errors.Is(err, objects.ErrHung) || objects.Absent(err) {
		t.Errorf("got %v, want the storage's failure", err)
	}
	if n := h.lost.Calls(); n != 1 {
		t.Errorf("%d calls are lost, want 1", n)
	}
	release()
	eventually(t, "the call is not lost any more", func() bool { return h.lost.Calls() == 0 })
	eventually(t, "its goroutine has ended", func() bool { return runtime.NumGoroutine() <= before })
	if err := do(t.Context(), h.s); err != nil && !objects.Absent(err) {
		t.Errorf("afterwards: %v", err)
	}
}

// A storage from which nothing comes back costs a bounded number of goroutines, and callers no time.
func TestAStorageThatHangsIsLeftAlone(t *testing.T) {
	for way, immediate := range ways {
		t.Run("storage"+way, func(t *testing.T) {
			ownTime(t, func(t *testing.T) { hangsIsLeftAlone(t, newHanging(t, soon, immediate)) })
		})
	}
}

func hangsIsLeftAlone(t *testing.T, h *hanging) {
	t.Helper()
	before := runtime.NumGoroutine()
	release := h.hang("GetContent")
	defer release()
	const most = 16
	var first sync.WaitGroup
	for range most {
		first.Go(func() {
			if _, err := h.s.Get(t.Context(), "/a/small"); !errors.Is(err, objects.ErrHung) {
				t.Errorf("got %v", err)
			}
		})
	}
	first.Wait()
	for range 100 {
		if _, err := h.s.Get(t.Context(), "/a/small"); !errors.Is(err, objects.ErrHung) {
			t.Fatalf("got %v", err)
		}
	}
	if n := h.lost.Calls(); n != most {
		t.Errorf("%d calls are lost, want %d", n, most)
	}
	if n := runtime.NumGoroutine() - before; n > most+2 {
		t.Errorf("%d goroutines are left", n)
	}
	// Also what would not hang is not tried.
	calls := h.FailingDriver.Calls()
	if err := h.s.Put(t.Context(), "/b", []byte("x")); !errors.Is(err, objects.ErrHung) || !errors.Is(err, objects.ErrStorage) {
		t.Errorf("got %v", err)
	}
	if n := h.FailingDriver.Calls(); n != calls {
		t.Errorf("%d calls reached the driver", n-calls)
	}
	release()
	eventually(t, "calls are made again", func() bool { _, err := h.s.Get(t.Context(), "/a/small"); return err == nil })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// A walk, and the deletion of much, take as long as they take. (The caller of a walk holds a lock, at which a test's own time
// would stand still: so soon is long for what does not hang.)
func TestWhatTakesLongButGoesOnIsNotGivenUp(t *testing.T) {
	const soon = time.Second
	h := newHanging(t, soon, false)
	seen := 0
	err := h.s.Walk(t.Context(), "/a", func(storagedriver.FileInfo) error {
		time.Sleep(2 * soon)
		seen++
		return nil
	})
	if err != nil || seen != 2 {
		t.Errorf("%d seen, %v", seen, err)
	}
	release := h.hang("Delete")
	defer release()
	var removing sync.WaitGroup
	removing.Go(func() { err = h.s.RemoveAll(t.Context(), "/a") })
	time.Sleep(2 * soon)
	if n := h.lost.Calls(); n != 0 {
		t.Errorf("%d calls are lost", n)
	}
	release()
	removing.Wait()
	if err != nil {
		t.Error(err)
	}
	// At the end of the process nobody waits for it.
	release = h.hang("Delete")
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	removing.Go(func() { err = h.s.RemoveAll(ctx, "/b") })
	cancel()
	removing.Wait()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What was given up has copies: the caller may use its buffers again.
func TestABufferIsTheCallersWhenTheCallIsGivenUp(t *testing.T) { ownTime(t, bufferIsTheCallers) }

func bufferIsTheCallers(t *testing.T) {
	h := newHanging(t, soon, false)
	rc, err := h.s.Driver.Reader(t.Context(), "/a/large", 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := h.s.Driver.Writer(t.Context(), "/b/large", false)
	if err != nil {
		t.Fatal(err)
	}
	buf := bytes.Repeat([]byte("x"), 500)
	for kind, do := range map[string]func() (int, error){
		"Reader.Read":  func() (int, error) { return rc.Read(buf) },
		"Writer.Write": func() (int, error) { return w.Write(buf) },
	} {
		release := h.hang(kind)
		if n, err := do(); n != 0 || !errors.Is(err, objects.ErrHung) {
			t.Errorf("%s: %d, %v", kind, n, err)
		}
		release()
		copy(buf, bytes.Repeat([]byte("y"), len(buf))) // the race detector looks
		if n, err := do(); n != 0 || !errors.Is(err, objects.ErrHung) {
			t.Errorf("%s again: %d, %v", kind, n, err)
		}
	}
	eventually(t, "both are back", func() bool { return h.lost.Calls() == 0 })
	if err := errors.Join(rc.Close(), w.Cancel(t.Context())); err != nil && !errors.Is(err, objects.ErrHung) {
		t.Error(err)
	}
	if err := w.Close(); !errors.Is(err, objects.ErrHung) {
		t.Errorf("close says %v of what was not written", err)
	}
}
