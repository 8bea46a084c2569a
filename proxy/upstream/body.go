package upstream

import (
	"errors"
	"io"
	"sync"
	"time"
)

// body is one attempt's view of a request body. http.Transport may go on reading a body after
// RoundTrip has returned (RoundTripper's contract), and since Go 1.25 it sends the body even when the
// final status arrives instead of "100 Continue", to keep the connection. So what decides about a second
// attempt is here: a Read waits until the registry agrees, and a body that was sealed before its
// first Read is whole and may be given to another attempt.
type body struct {
	src    io.Reader
	length int64         // -1 unknown
	agreed chan struct{} // closed by "100 Continue"; nil: nothing to wait for
	wait   time.Duration // for agreed; then the bytes go anyway (RFC 9110 section 10.1.1)
	mute   func()        // called when wait has passed in vain

	sealed  chan struct{} // no Read begins any more
	release chan struct{} // the response was read: a waiting Read may end

	mu       sync.Mutex
	begun    bool // src was touched
	isSealed bool
	n        int64
	err      error // of src, other than io.EOF
	eof      bool
	once     sync.Once
	okOnce   sync.Once
}

var errAbandoned = errors.New("upstream answered before the body was sent")

func newBody(src io.Reader, length int64) *body {
	return &body{src: src, length: length, sealed: make(chan struct{}), release: make(chan struct{})}
}

func (b *body) Read(p []byte) (int, error) {
	if !b.open() {
		return b.ended()
	}
	n, err := b.src.Read(p)
	b.mu.Lock()
	b.n += int64(n)
	if errors.Is(err, io.EOF) {
		b.eof = true
	} else if err != nil {
		b.err = err
	}
	b.mu.Unlock()
	return n, err
}

// open is the gate in front of every Read.
func (b *body) open() bool {
	b.mu.Lock()
	if b.isSealed {
		b.mu.Unlock()
		return false
	}
	if b.begun || b.agreed == nil {
		b.begun = true
		b.mu.Unlock()
		return true
	}
	b.mu.Unlock()
	t := time.NewTimer(b.wait)
	defer t.Stop()
	silent := false
	select {
	case <-b.agreed:
	case <-b.sealed:
	case <-t.C:
		silent = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isSealed {
		return false
	}
	if silent && b.mute != nil {
		b.mute()
	}
	b.begun = true
	return true
}

// ended is what a Read after the response gets. A body that was sent in full ends, so that the
// connection can be used again. Otherwise the Read waits until the response was read: failing now would
// close the connection under it, and with it the reason why the upload was refused.
func (b *body) ended() (int, error) {
	b.mu.Lock()
	whole := b.eof || b.length >= 0 && b.n >= b.length
	b.mu.Unlock()
	if whole {
		return 0, io.EOF
	}
	<-b.release
	return 0, errAbandoned
}

// Close is the transport's. The source belongs to whoever made the request.
func (b *body) Close() error { return nil }

// agree is "100 Continue".
func (b *body) agree() { b.okOnce.Do(func() { close(b.agreed) }) }

// seal ends the attempt's use of the body; whole is true when nothing of it was read.
func (b *body) seal() (whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isSealed {
		b.isSealed = true
		close(b.sealed)
	}
	return !b.begun
}

// free lets go of a Read that waits for the response to be read.
func (b *body) free() { b.once.Do(func() { close(b.release) }) }

// failed is the error of the source itself.
func (b *body) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// WriteTo is how a body of unknown length is sent: http.Transport copies such a body into its chunked
// writer, and with 32 KiB at a time if it may choose.
func (b *body) WriteTo(w io.Writer) (int64, error) { return pump(w, b) }

// answer is a response's body; done runs once, when it is closed or at its end.
type answer struct {
	io.ReadCloser
	done func()
	once sync.Once
}

func (a *answer) Close() error {
	a.once.Do(a.done)
	return a.ReadCloser.Close()
}
