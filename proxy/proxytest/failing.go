package proxytest

import (
	"fmt"
	"sync"
	"testing"
)

// Fault counts calls and lets one of them fail. A failing driver and a failing upstream share it, so that a test can walk
// through every instruction of a push:
//
//	for n := 1; ; n++ {
//		driver.Fail(n, FaultError)
//		_, err := push()
//		if !driver.Fired() { break } // the push needs fewer than n calls
//		driver.Fail(0, FaultError)   // all is well again
//		...the client retries, I1, I2, I6, I7 hold
//	}
//
// EveryCall is that loop.
type Fault struct {
	mu    sync.Mutex
	count int
	at    int
	kind  Kind
	fired string
	log   []string
	draw  func(what string) Kind
	hung  func(what string) bool
	back  chan struct{}
}

// Kind is how a call fails.
type Kind string

const (
	// FaultError fails the call before anything has happened: disk full, 500 of an object store, 500 of upstream.
	FaultError Kind = "error"
	// FaultAfter does the work and then says it failed: a lost answer.
	FaultAfter Kind = "error after the work is done"
	// FaultPartial does a part of the work: half of a body is written or read, then it fails. A call that has no halves
	// fails as with FaultError.
	FaultPartial Kind = "half of the work, then an error"
	// FaultDead fails the call and every later one, until Fail is called again: what a killed process or an
	// unreachable storage looks like from outside.
	FaultDead Kind = "dead from here on"
	// FaultDeadAfter does this call's work and fails every later one: killed just after it.
	FaultDeadAfter Kind = "dead after this"

	// FaultPanic is a bug in a storage driver. Not for upstreams.
	FaultPanic Kind = "panic"

	// The following are for upstreams; a driver takes them as FaultError.

	FaultCut         Kind = "connection cut before the request is processed"
	FaultCutAfter    Kind = "connection cut after the request is processed"
	FaultUnavailable Kind = "503"
	FaultTooMany     Kind = "429"
	FaultDenied      Kind = "403"
	FaultNotFound    Kind = "404"
	FaultBadGateway  Kind = "502"
)

// DriverFaults are the kinds that make sense for a storage driver.
func DriverFaults() []Kind {
	return []Kind{FaultError, FaultAfter, FaultPartial, FaultDead, FaultDeadAfter, FaultPanic}
}

// UpstreamFaults are the kinds that make sense for a registry.
func UpstreamFaults() []Kind {
	return []Kind{FaultError, FaultAfter, FaultPartial, FaultDead, FaultCut, FaultCutAfter, FaultUnavailable, FaultTooMany, FaultDenied}
}

// Fail lets the n-th call from now on fail; 0 lets none. Counter, log and Fired begin anew.
func (f *Fault) Fail(n int, kind Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count, f.at, f.kind, f.fired, f.log = 0, n, kind, "", nil
}

// Draw lets draw say of every call how it fails, "" for not at all; nil ends that. Calls that run at the same time ask at the
// same time, and each waits for its answer.
func (f *Fault) Draw(draw func(what string) Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draw = draw
}

// Hang lets every call hang that hung is true for, as calls over a network mount that has gone do: whatever their context
// says. release lets them go on, and no other hang.
func (f *Fault) Hang(hung func(what string) bool) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	back := make(chan struct{})
	f.hung, f.back = hung, back
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.hung = nil
		f.mu.Unlock()
		close(back)
	})
}

// hang waits where Hang says so.
func (f *Fault) hang(what string) {
	f.mu.Lock()
	hung, back := f.hung, f.back
	f.mu.Unlock()
	if hung != nil && hung(what) {
		<-back
	}
}

// Calls is the number of calls since Fail (or since the beginning).
func (f *Fault) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Fired tells whether the n-th call was reached.
func (f *Fault) Fired() bool { return f.Failed() != "" }

// Failed is the call that failed, for messages: "Writer.Write /quarantine/…", "PUT /v2/app/manifests/1".
func (f *Fault) Failed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Log lists the calls since Fail.
func (f *Fault) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.log...)
}

// call counts one call and says how it is to fail, "" for not at all.
func (f *Fault) call(what string) Kind {
	f.hang(what)
	f.mu.Lock()
	if draw := f.draw; draw != nil {
		f.mu.Unlock()
		kind := draw(what)
		if kind == FaultPanic {
			panic("made to panic: " + what)
		}
		return kind
	}
	defer f.mu.Unlock()
	f.count++
	f.log = append(f.log, what)
	switch {
	case f.at == 0 || f.count < f.at:
		return ""
	case f.count == f.at:
		f.fired = what
		switch f.kind {
		case FaultDeadAfter:
			return FaultAfter
		case FaultPanic:
			panic("made to panic: " + what)
		}
		return f.kind
	case f.kind == FaultDead || f.kind == FaultDeadAfter:
		return FaultDead
	}
	return ""
}

// Failure is the error of a call that was made to fail.
type Failure struct {
	Call string
	Kind Kind
}

func (f *Failure) Error() string { return fmt.Sprintf("made to fail: %s: %s", f.Call, f.Kind) }

// maxCalls ends a loop that would not: no push of a test has so many calls.
const maxCalls = 3000

// EveryCall runs body as a subtest for n = 1, 2, … with the n-th call set to fail, until one is not reached. The body makes
// its push (which may succeed or fail) and calls heal, after which nothing fails, then retries and checks. A push that
// no call belongs to is an error: then nothing was tested.
func EveryCall(t *testing.T, f *Fault, kind Kind, body func(t *testing.T, heal func())) {
	t.Helper()
	for n := 1; n <= maxCalls; n++ {
		failed := ""
		t.Run(fmt.Sprintf("call %d", n), func(t *testing.T) {
			f.Fail(n, kind)
			heal := sync.OnceFunc(func() {
				failed = f.Failed()
				f.Fail(0, kind)
			})
			defer func() { // also when body ends by t.Fatal
				heal()
				if t.Failed() {
					t.Logf("call %d failed (%s): %s", n, kind, failed)
				}
			}()
			body(t, heal)
		})
		if failed == "" {
			if n == 1 {
				t.Errorf("no call was made, so none could fail")
			}
			return
		}
	}
	t.Fatalf("more than %d calls", maxCalls)
}
