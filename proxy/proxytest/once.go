package proxytest

import (
	"context"
	"sync"
)

// onces does what belongs to a digest once, though several indexes or images name it; all who ask get its error.
type onces struct {
	mu   sync.Mutex
	once map[string]func() error
}

func (o *onces) do(ctx context.Context, digest string, f func(context.Context) error) error {
	o.mu.Lock()
	if o.once == nil {
		o.once = map[string]func() error{}
	}
	run := o.once[digest]
	if run == nil {
		run = sync.OnceValue(func() error { return f(ctx) })
		o.once[digest] = run
	}
	o.mu.Unlock()
	return run()
}
