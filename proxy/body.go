package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// afterAnswer is how much of a body that nobody has read is read to keep the connection, as net/http has it.
const afterAnswer = 256 << 10

// A body is that of one request: how long it is waited for, and whether it comes to its end.
type body struct {
	whole   wholeBody
	slow    slowBody
	request http.Request // as the handlers see it, with this body
}

// bodies looks after the body of every request that has one. It cuts off clients that hardly send theirs (slowBodies), and
// the connection after a request whose body was not read to a good end. What comes behind a chunk that cannot
// be understood must not be taken for the next request: whoever has put it there may be another client than the one whose
// request it looks like, if a load balancer reads the chunk otherwise. net/http sees to that by itself (chunkWriter in
// server.go), but not once EnableFullDuplex was called. Nor does it keep the connection of a client that waits for
// "100 Continue", unless the body was read before the answer.
func (p *Proxy) bodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &body{slow: slowBody{r: r.Body, w: w}}
		b.whole.r = &b.slow
		p.slowBodies.add(&b.slow)
		defer p.slowBodies.remove(&b.slow)
		b.request = *r // a copy: the server looks at the body of its own request when it answers
		b.request.Body = &b.whole
		next.ServeHTTP(w, &b.request)
		if !strings.Contains(strings.ToLower(r.Header.Get("Expect")), "100-continue") {
			b.whole.demandEnd(w)
		}
	})
}

// demandEnd cuts the connection unless the body was read to a good end.
func (b *wholeBody) demandEnd(w http.ResponseWriter) {
	if b.ended() == nil {
		_, _ = io.CopyN(io.Discard, b, afterAnswer)
	}
	// ErrBodyReadAfterClose: the answer came before EnableFullDuplex, and net/http has read and judged the rest.
	if end := b.ended(); !errors.Is(end, io.EOF) && !errors.Is(end, http.ErrBodyReadAfterClose) {
		_ = http.NewResponseController(w).Flush() // the answer first
		panic(http.ErrAbortHandler)
	}
}

// wholeBody remembers how reading ended. Closing is the server's business: a Transport closes what it sends, and what
// was wrong with the rest would be lost.
type wholeBody struct {
	r io.Reader

	mu  sync.Mutex // a Transport may still read when its answer is there
	end error
}

func (b *wholeBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil {
		b.mu.Lock()
		b.end = err
		b.mu.Unlock()
	}
	return n, err
}

func (b *wholeBody) ended() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end
}

func (b *wholeBody) Close() error { return nil }
