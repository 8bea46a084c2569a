package proxytest

import (
	"context"
	"sync"
)

// onces does what belongs to a digest once, though several indexes or images name it; all who ask get its error. They wait
// for it at a channel, as a Weave needs it.
type onces struct {
	mu   sync.Mutex
	once map[string]*once
}

type once struct {
	done chan struct{}
	err  error
}

func (o *onces) do(ctx context.Context, digest string, f func(context.Context) error) error {
	o.mu.Lock()
	if o.once == nil {
		o.once = map[string]*once{}
	}
	run := o.once[digest]
	if run != nil {
		o.mu.Unlock()
		<-run.done
		return run.err
	}
	run = &once{done: make(chan struct{})}
	o.once[digest] = run
	o.mu.Unlock()
	defer close(run.done)
	run.err = f(ctx)
	return run.err
}
