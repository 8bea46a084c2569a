package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/contain"
)

// ErrHung says that a call to the storage was given up, or was not made since too many have been.
var ErrHung = errors.New("the storage does not answer")

// mostLost is how many calls may be given up and not have come back before no other is made. One request may make half a
// dozen at once, so a few requests find out that a storage hangs, and those after them are told at once.
const mostLost = 16

// unhurried is how long a call may take for which nobody waits: a whole generation is deleted in one.
const unhurried = 2 * time.Hour

// Lost counts calls that were given up and have not come back. All drivers over one storage share it.
type Lost struct{ n atomic.Int64 }

// Calls is how many they are now.
func (l *Lost) Calls() int { return int(l.n.Load()) }

// Patient is a storage driver with an end to its calls: drivers have no timeout of their own, and the filesystem one, over
// a mount that hangs, does not even look at the context. A call that does not come back within the timeout is given up:
// it goes on in its goroutine, with what it was given copied, and what comes of it in the end is undone. As many as mostLost
// such goroutines are left behind, beside those whose calls were made before that many were lost; then no call is made
// until some have come back.
//
// A caller that goes away ends no call by itself: who hangs up on a storage that is only slow would otherwise stop it for
// everybody.
type Patient struct {
	driver  storagedriver.StorageDriver
	timeout time.Duration
	limit   time.Duration // of a call whose caller has not gone away
	lost    *Lost
	workers *workers // of a driver that answers at once; nil: of another
}

var _ storagedriver.StorageDriver = (*Patient)(nil)

// NewPatient wraps a driver. lost may be shared, and must not be nil.
func NewPatient(d storagedriver.StorageDriver, timeout time.Duration, lost *Lost) *Patient {
	p := &Patient{driver: d, timeout: timeout, limit: timeout, lost: lost}
	if p.Immediate() {
		p.workers = newWorkers(d)
	}
	return p
}

// patiently is the same storage for a call that may take long.
func (p *Patient) patiently() *Patient {
	return &Patient{driver: p.driver, timeout: p.timeout, limit: max(unhurried, p.timeout), lost: p.lost}
}

// A call is one call of the driver.
type call[T any] struct {
	what string
	do   func(ctx context.Context) (T, error)
	late func(T, error) // undoes what came too late, in the goroutine of the call; may be nil
	must bool           // it is made however many are lost
	gone *bool          // set when it was given up; may be nil

	// idle is for how long nothing has been seen of a call that takes its time; may be nil. The call is given up when
	// that is too long.
	idle func() time.Duration
}

type outcome[T any] struct {
	value T
	err   error
}

// patience is how long a call may take.
func (p *Patient) patience(ctx context.Context) time.Duration {
	limit := p.limit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(end), 0))
	}
	return limit
}

// grace is for drivers that end a call by themselves.
func (p *Patient) grace() time.Duration { return min(p.timeout/4, time.Second) }

// run makes a call, and gives it up when it takes too long.
func run[T any](ctx context.Context, p *Patient, c call[T]) (T, error) {
	var none T
	if n := p.lost.Calls(); n >= mostLost && !c.must {
		return none, fmt.Errorf("%w: %d calls have not come back, so no other is made until they do: %s", ErrHung, n, c.what)
	}
	var state atomic.Int32
	done := make(chan outcome[T], 1)
	go func() {
		value, err := contain.Call(func() (T, error) { return c.do(ctx) })
		done <- outcome[T]{value, err}
		if state.CompareAndSwap(running, back) {
			return
		}
		if c.late != nil {
			c.late(value, err)
		}
		p.lost.n.Add(-1)
	}()
	timer := time.NewTimer(p.patience(ctx) + p.grace())
	defer timer.Stop()
	left := ctx.Done()
	for {
		select {
		case o := <-done:
			return o.value, o.err
		case <-left:
			left = nil
			if p.limit > p.timeout { // nobody waits for the end of a long call at shutdown
				timer.Reset(p.timeout)
			}
		case <-timer.C:
			if c.idle != nil {
				if rest := p.timeout - c.idle(); rest > 0 {
					timer.Reset(rest)
					continue
				}
			}
			p.lost.n.Add(1) // before the goroutine may take it back
			if state.CompareAndSwap(running, givenUp) {
				if c.gone != nil {
					*c.gone = true
				}
				return none, fmt.Errorf("%w: given up: %s", ErrHung, c.what)
			}
			p.lost.n.Add(-1)
			o := <-done
			return o.value, o.err
		}
	}
}

// simple is a call that leaves nothing open.
func simple[T any](ctx context.Context, p *Patient, what string, do func(ctx context.Context) (T, error)) (T, error) {
	own, cancel := context.WithTimeout(ctx, p.patience(ctx))
	defer cancel()
	return run(own, p, call[T]{what: what, do: do})
}

// Name is the wrapped driver's.
func (p *Patient) Name() string { return p.driver.Name() }

// Immediate says what the wrapped driver says (Storage.Immediate).
func (p *Patient) Immediate() bool { return Storage{Driver: p.driver}.Immediate() }

// RedirectURL asks nobody.
func (p *Patient) RedirectURL(r *http.Request, path string) (string, error) {
	return p.driver.RedirectURL(r, path)
}

// GetContent reads a whole object.
func (p *Patient) GetContent(ctx context.Context, path string) ([]byte, error) {
	if p.workers != nil {
		a, err := p.ask(ctx, getContent, path, nil)
		return a.bytes, err
	}
	return simple(ctx, p, "GetContent "+path, func(ctx context.Context) ([]byte, error) { return p.driver.GetContent(ctx, path) })
}

// PutContent writes a whole object; content must not change any more.
func (p *Patient) PutContent(ctx context.Context, path string, content []byte) error {
	if p.workers != nil {
		_, err := p.ask(ctx, putContent, path, content)
		return err
	}
	return p.plain(ctx, "PutContent "+path, func(ctx context.Context) error { return p.driver.PutContent(ctx, path, content) })
}

// Stat describes an object.
func (p *Patient) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	if p.workers != nil {
		a, err := p.ask(ctx, stat, path, nil)
		return a.info, err
	}
	return simple(ctx, p, "Stat "+path, func(ctx context.Context) (storagedriver.FileInfo, error) { return p.driver.Stat(ctx, path) })
}

// List lists a folder.
func (p *Patient) List(ctx context.Context, path string) ([]string, error) {
	if p.workers != nil {
		a, err := p.ask(ctx, list, path, nil)
		return a.names, err
	}
	return simple(ctx, p, "List "+path, func(ctx context.Context) ([]string, error) { return p.driver.List(ctx, path) })
}

// Move renames an object.
func (p *Patient) Move(ctx context.Context, from, to string) error {
	return p.plain(ctx, "Move "+from, func(ctx context.Context) error { return p.driver.Move(ctx, from, to) })
}

// Delete removes what is there and below.
func (p *Patient) Delete(ctx context.Context, path string) error {
	return p.plain(ctx, "Delete "+path, func(ctx context.Context) error { return p.driver.Delete(ctx, path) })
}

func (p *Patient) plain(ctx context.Context, what string, do func(ctx context.Context) error) error {
	_, err := simple(ctx, p, what, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}

// Walk may take as long as there is something to see: its timeout is for each step.
func (p *Patient) Walk(ctx context.Context, from string, visit storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	var (
		mu      sync.Mutex
		last    = time.Now()
		givenUp bool
	)
	step := func(fi storagedriver.FileInfo) error {
		mu.Lock() // held while the caller looks at it: that takes no time of the storage's
		defer mu.Unlock()
		if givenUp {
			return ErrHung
		}
		defer func() { last = time.Now() }()
		return visit(fi)
	}
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err := run(own, p, call[struct{}]{
		what: "Walk " + from,
		do: func(ctx context.Context) (struct{}, error) {
			return struct{}{}, p.driver.Walk(ctx, from, step, options...)
		},
		idle: func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			idle := time.Since(last)
			givenUp = idle >= p.timeout
			return idle
		},
	})
	return err
}

// Reader opens an object.
func (p *Patient) Reader(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	own, cancel := context.WithCancel(ctx) // it lives as long as what is read
	rc, err := run(own, p, call[io.ReadCloser]{
		what: "Reader " + path,
		do:   func(ctx context.Context) (io.ReadCloser, error) { return p.driver.Reader(ctx, path, offset) },
		late: func(rc io.ReadCloser, err error) {
			if err == nil {
				_ = rc.Close()
			}
		},
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &patientReader{p: p, ctx: own, cancel: cancel, rc: rc, path: path}, nil
}

// Writer opens an object for writing.
func (p *Patient) Writer(ctx context.Context, path string, appending bool) (storagedriver.FileWriter, error) {
	own, cancel := context.WithCancel(ctx) // some drivers keep it for as long as is written
	w, err := run(own, p, call[storagedriver.FileWriter]{
		what: "Writer " + path,
		do: func(ctx context.Context) (storagedriver.FileWriter, error) {
			return p.driver.Writer(ctx, path, appending)
		},
		late: func(w storagedriver.FileWriter, err error) {
			if err == nil {
				abandon(w)
			}
		},
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &patientWriter{p: p, ctx: own, cancel: cancel, w: w, path: path, size: w.Size()}, nil
}
