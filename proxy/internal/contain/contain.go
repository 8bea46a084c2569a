// Package contain keeps a panic in one goroutine from ending the process. net/http does so for the goroutine of a handler
// and no other, and a handler starts some: to ask several places at once, to give up a storage that hangs, to fetch a token
// that many wait for. A bug there, or in a storage driver, is to end one push and not the pushes of everybody.
package contain

import (
	"context"
	"fmt"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// A Bug is a panic that did not end the process. It wraps nothing: whatever it panicked with, it is not an answer.
type Bug struct {
	Value any
	Where string // the calls that led to it, the innermost first
}

func (b *Bug) Error() string { return fmt.Sprintf("bug: panic: %v, in %s", b.Value, b.Where) }

// Panic makes an error of a panic. It has to be deferred itself, and not called by what is:
//
//	defer contain.Panic(&err)
func Panic(err *error) {
	if v := recover(); v != nil {
		*err = &Bug{Value: v, Where: where()}
	}
}

// Call calls f, and returns its panic as an error.
func Call[T any](f func() (T, error)) (value T, err error) {
	defer Panic(&err)
	return f()
}

// Group is an errgroup.Group in which a panic is an error of the function that panicked.
type Group struct{ group *errgroup.Group }

// NewGroup is a group that cancels nothing.
func NewGroup() Group { return Group{&errgroup.Group{}} }

// WithContext is errgroup.WithContext: the first error ends the context.
func WithContext(ctx context.Context) (Group, context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	return Group{g}, ctx
}

// SetLimit is errgroup's: how many functions run at once.
func (g Group) SetLimit(n int) { g.group.SetLimit(n) }

// Go calls f in a goroutine of its own.
func (g Group) Go(f func() error) {
	g.group.Go(func() (err error) {
		defer Panic(&err)
		return f()
	})
}

// Wait waits for all functions, and returns the first error.
func (g Group) Wait() error { return g.group.Wait() }

// frames is how many calls an error tells of: enough to find the bug by, few enough for one line.
const frames = 8

// where are the calls below the panic, without the runtime's own.
func where() string {
	pcs := make([]uintptr, 64)
	calls := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)]) // without Callers, where and Panic
	var told []string
	for len(told) < frames {
		frame, more := calls.Next()
		if frame.Function != "" && !strings.HasPrefix(frame.Function, "runtime.") {
			told = append(told, fmt.Sprintf("%s (%s:%d)", path.Base(frame.Function), path.Base(frame.File), frame.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(told, " < ")
}
