package proxytest

import (
	"context"
	"net/http"
	"testing"
)

// Outside serves a handler from goroutines of its own, which belong to no synctest bubble if this is called outside: what the
// handler makes, such as a channel that lives as long as a registry, is then none of the bubble's. Requests must have their
// whole body, and lose their context.
func Outside(t testing.TB, h http.Handler) http.Handler {
	t.Helper()
	free := make(chan *room, rooms)
	for range rooms {
		r := &room{in: make(chan func()), out: make(chan any)}
		go r.serve()
		t.Cleanup(func() { close(r.in) })
		free <- r
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := <-free
		defer func() { free <- own }()
		r = r.Clone(context.Background())
		own.in <- func() { h.ServeHTTP(w, r) }
		if v := <-own.out; v != nil {
			panic(v)
		}
	})
}

// rooms is how many requests are answered at the same time.
const rooms = 8

// A room is one goroutine, that answers one request after the other.
type room struct {
	in  chan func()
	out chan any // what it panicked with
}

func (r *room) serve() {
	for do := range r.in {
		r.out <- func() (v any) {
			defer func() { v = recover() }()
			do()
			return nil
		}()
	}
}
