package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"
)

// body is one attempt's view of a request body. http.Transport may go on reading a body after
// RoundTrip has returned (RoundTripper's contract), and since Go 1.26 it sends the body even when the
// final status arrives instead of "100 Continue", to keep the connection. So what decides about a second
// attempt is here: the first Read tells the one from the other, and a body that was sealed before its
// first Read is whole and may be given to another attempt.
type body struct {
	src      io.Reader
	length   int64 // -1 unknown
	asks     bool  // sent with Expect: 100-continue
	agreed   atomic.Bool
	answered atomic.Bool   // any byte of an answer came
	hints    atomic.Int32  // informational answers other than 100 Continue
	wait     time.Duration // how long an answer's headers may take once they began
	mute     func()        // called when the registry said nothing to Expect

	sealed  chan struct{} // no Read begins any more
	release chan struct{} // the response was read: a waiting Read may end

	mu       sync.Mutex
	on       net.Conn // that it is sent on; nil: not known
	begun    bool     // src was touched
	isSealed bool
	n        int64
	err      error // of src, other than io.EOF
	eof      bool
	once     sync.Once
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

// open is the gate in front of every Read. Behind Expect the transport calls Read for the first time when
// the registry agreed, when it said nothing for a while (RFC 9110 section 10.1.1 lets the body go
// then), also behind 102 Processing or 103 Early Hints, or when the final status is there, which Do is about to see.
func (b *body) open() bool {
	if b.asks && !b.agreed.Load() && b.answered.Load() {
		b.mu.Lock()
		begun := b.begun
		b.mu.Unlock()
		if !begun {
			t := time.NewTimer(b.wait)
			defer t.Stop()
			select {
			case <-b.sealed:
				return false
			case <-t.C:
				if b.hints.Load() == 0 {
					return false // the connection broke in the middle of the headers
				}
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isSealed {
		return false
	}
	if !b.begun && b.asks && !b.agreed.Load() {
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
	b.mu.Lock()
	sealed := b.isSealed
	b.mu.Unlock()
	if sealed {
		<-b.release
	}
	return 0, errAbandoned
}

// Close is the transport's. The source belongs to whoever made the request.
func (b *body) Close() error { return nil }

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

// maxHints is how many informational answers are taken, as in internal/h1.
const maxHints = 5

// informed is called with each informational answer.
func (b *body) informed(status int, _ textproto.MIMEHeader) error {
	if status != http.StatusContinue && b.hints.Add(1) > maxHints {
		return fmt.Errorf("more than %d informational answers", maxHints)
	}
	return nil
}

// sentOn is called with the connection that an attempt goes over.
func (b *body) sentOn(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on = c
}

// free lets go of a Read that waits for the response to be read.
func (b *body) free() { b.once.Do(func() { close(b.release) }) }

// failed is the error of the source itself, which may be that it is too short.
func (b *body) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil && b.eof && b.n < b.length {
		return fmt.Errorf("%d of %d bytes came: %w", b.n, b.length, io.ErrUnexpectedEOF)
	}
	return b.err
}

// WriteTo is how a body of unknown length is sent: http.Transport copies such a body into its chunked
// writer, and with 32 KiB at a time if it may choose.
func (b *body) WriteTo(w io.Writer) (int64, error) {
	b.mu.Lock()
	p := &patient{w: w, c: b.on}
	b.mu.Unlock()
	n, err := pump(p, b)
	if derr := p.done(); err == nil {
		err = derr
	}
	if err != nil && b.failed() == nil && !errors.Is(err, errAbandoned) {
		time.Sleep(lastWords) // as in conn.ReadFrom: the registry's reason is on its way
	}
	return n, err
}

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
