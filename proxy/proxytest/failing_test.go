package proxytest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

// Every call of a small program fails in turn; the program must see each failure, and no call may be left out.
func TestEveryCallOfADriverCanFail(t *testing.T) {
	program := func(ctx context.Context, d storagedriver.StorageDriver) error {
		if err := d.PutContent(ctx, "/a/b", []byte("content")); err != nil {
			return err
		}
		if _, err := d.GetContent(ctx, "/a/b"); err != nil {
			return err
		}
		w, err := d.Writer(ctx, "/a/c", false)
		if err != nil {
			return err
		}
		if _, err := w.Write([]byte("more content")); err != nil {
			return errors.Join(err, w.Cancel(ctx))
		}
		if err := w.Commit(ctx); err != nil {
			return errors.Join(err, w.Close())
		}
		if err := w.Close(); err != nil {
			return err
		}
		if err := d.Move(ctx, "/a/c", "/a/d"); err != nil {
			return err
		}
		r, err := d.Reader(ctx, "/a/d", 0)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.ReadAll(r); err != nil {
			return err
		}
		if _, err := d.Stat(ctx, "/a/d"); err != nil {
			return err
		}
		if _, err := d.List(ctx, "/a"); err != nil {
			return err
		}
		if err := d.Walk(ctx, "/a", func(storagedriver.FileInfo) error { return nil }); err != nil {
			return err
		}
		return d.Delete(ctx, "/a")
	}
	for _, kind := range DriverFaults() {
		t.Run(string(kind), func(t *testing.T) {
			counted := NewFailingDriver(inmemory.New())
			if err := program(t.Context(), counted); err != nil {
				t.Fatal(err)
			}
			failures, shared := 0, &Fault{}
			EveryCall(t, shared, kind, func(t *testing.T, heal func()) {
				d := &FailingDriver{Fault: shared, driver: inmemory.New()}
				err := panicking(func() error { return program(t.Context(), d) })
				var failure *Failure
				if d.Fired() {
					failures++
					var wrapped storagedriver.Error
					if !errors.As(err, &wrapped) || !errors.As(wrapped.Detail, &failure) {
						t.Errorf("the program returned %v", err)
					}
				} else if err != nil {
					t.Error(err)
				}
				heal()
				if err := program(t.Context(), d); err != nil {
					t.Errorf("the retry fails: %v", err)
				}
			})
			if failures != counted.Calls() {
				t.Errorf("%d of %d calls failed: %v", failures, counted.Calls(), counted.Log())
			}
		})
	}
}

// panicking returns the panic of FaultPanic as the error that the other kinds give.
func panicking(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = storagedriver.Error{Detail: &Failure{Kind: FaultPanic}}
		}
	}()
	return f()
}

func TestAPartialWriteLeavesHalf(t *testing.T) {
	inner := inmemory.New()
	d := NewFailingDriver(inner)
	w, err := d.Writer(t.Context(), "/a", false)
	if err != nil {
		t.Fatal(err)
	}
	d.Fail(1, FaultPartial)
	n, err := w.Write([]byte("0123456789"))
	if n != 5 || err == nil || !strings.Contains(err.Error(), "made to fail") {
		t.Errorf("wrote %d: %v", n, err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := inner.GetContent(t.Context(), "/a"); err != nil || string(b) != "01234" {
		t.Errorf("%q is there: %v", b, err)
	}
}

// A push for every n: it fails or not, and its retry converges. This is the loop that Sluice's tests make; without Sluice
// it shows that pushers and registries stand it.
func TestEveryRequestOfAPushCanFailAndTheRetryConverges(t *testing.T) {
	tree := Synthetic(SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: FormLegacy})
	for _, kind := range UpstreamFaults() {
		for _, client := range []Client{{Name: "buildkit", Push: BuildKit}, {Name: "crane", Push: Crane}} {
			t.Run(client.Name+"/"+string(kind), func(t *testing.T) {
				var failing *FailingUpstream
				failures, refusals := 0, 0
				shared := &Fault{}
				EveryCall(t, shared, kind, func(t *testing.T, heal func()) {
					u := NewOlareg(t, UpstreamOptions{Wrap: func(h http.Handler) http.Handler {
						failing = NewFailingUpstream(h)
						failing.Fault = shared
						return failing
					}})
					o := Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true}
					_, err := client.Push(testContext(t), o)
					if err == nil && failing.Fired() && kind != FaultDenied && kind != FaultCut && kind != FaultCutAfter && kind != FaultPartial {
						t.Errorf("the push succeeds though a request failed: %s", failing.Failed())
					}
					if failing.Fired() {
						failures++
					}
					if err != nil {
						refusals++
					}
					AssertComplete(t, u)
					heal()
					if _, err := client.Push(testContext(t), o); err != nil {
						t.Fatalf("the retry fails: %v", err)
					}
					if _, err := PullAll(testContext(t), u.URL, "app", "1"); err != nil {
						t.Error(err)
					}
					AssertComplete(t, u)
				})
				if failures < 10 || refusals < 10 {
					t.Errorf("only %d requests failed, and %d pushes", failures, refusals)
				}
			})
		}
	}
}
