package objects

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/contain"
)

// A storage that answers at once is asked so often, and for so little, that a goroutine, a timer and a context for each
// call would cost more than the answers. For it the goroutines wait for the next call, and nothing is allocated; the driver
// gets the caller's own context, since it does not wait for the end of one anyway.

// workersIdle is how long a goroutine waits for another call.
const workersIdle = 10 * time.Second

// workers make calls for others, who may give them up.
type workers struct {
	driver storagedriver.StorageDriver
	jobs   chan *job
	free   sync.Pool
}

func newWorkers(d storagedriver.StorageDriver) *workers {
	return &workers{driver: d, jobs: make(chan *job), free: sync.Pool{New: func() any {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return &job{done: make(chan struct{}, 1), timer: t}
	}}}
}

// A job is one call. It is its worker's until done, or for good if it was given up.
type job struct {
	ctx     context.Context
	what    operation
	path    string
	content []byte

	bytes []byte
	info  storagedriver.FileInfo
	names []string
	err   error

	state atomic.Int32
	done  chan struct{}
	timer *time.Timer
}

type operation uint8

const (
	getContent operation = iota
	putContent
	stat
	list
)

func (o operation) String() string {
	return [...]string{"GetContent", "PutContent", "Stat", "List"}[o]
}

// The states of a call.
const (
	running int32 = iota
	back
	givenUp
)

// ask makes one call, and gives it up when it takes too long.
func (p *Patient) ask(ctx context.Context, what operation, path string, content []byte) (answer, error) {
	if n := p.lost.Calls(); n >= mostLost {
		return answer{}, fmt.Errorf("%w: %d calls have not come back, so no other is made until they do: %s %s", ErrHung, n, what, path)
	}
	w := p.workers
	j := w.free.Get().(*job)
	j.ctx, j.what, j.path, j.content = ctx, what, path, content
	j.state.Store(running)
	j.timer.Reset(p.patience(ctx) + p.grace())
	select {
	case w.jobs <- j: // one waits for it
	default:
		go w.work(j, p.lost)
	}
	select {
	case <-j.done:
	case <-j.timer.C:
		p.lost.n.Add(1) // before the worker may take it back
		if j.state.CompareAndSwap(running, givenUp) {
			return answer{}, fmt.Errorf("%w: given up: %s %s", ErrHung, what, path)
		}
		p.lost.n.Add(-1)
		<-j.done
	}
	j.timer.Stop()
	a, err := answer{j.bytes, j.info, j.names}, j.err
	j.ctx, j.path, j.content, j.bytes, j.info, j.names, j.err = nil, "", nil, nil, nil, nil, nil
	w.free.Put(j)
	return a, err
}

// An answer is what a call brought, whichever it was.
type answer struct {
	bytes []byte
	info  storagedriver.FileInfo
	names []string
}

func (w *workers) call(j *job) {
	defer contain.Panic(&j.err)
	switch j.what {
	case getContent:
		j.bytes, j.err = w.driver.GetContent(j.ctx, j.path)
	case putContent:
		j.err = w.driver.PutContent(j.ctx, j.path, j.content)
	case stat:
		j.info, j.err = w.driver.Stat(j.ctx, j.path)
	case list:
		j.names, j.err = w.driver.List(j.ctx, j.path)
	}
}

// work makes a call, and then others as long as there are some. All Patients over one storage count the same lost ones.
func (w *workers) work(j *job, lost *Lost) {
	idle := time.NewTimer(workersIdle)
	defer idle.Stop()
	for {
		w.call(j)
		if j.state.CompareAndSwap(running, back) {
			j.done <- struct{}{}
		} else {
			lost.n.Add(-1)
		}
		idle.Reset(workersIdle)
		select {
		case j = <-w.jobs:
		case <-idle.C:
			return
		}
	}
}
