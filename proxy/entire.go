package proxy

import (
	"errors"
	"io"
	"net/http"
)

// afterAnswer is how much of a body that nobody has read is read to keep the connection, as net/http has it.
const afterAnswer = 256 << 10

// entire cuts the connection after a request whose body was not read to a good end. What comes behind a chunk that cannot
// be understood must not be taken for the next request: whoever has put it there may be another client than the one whose
// request it looks like, if a load balancer reads the chunk otherwise. net/http sees to that by itself (chunkWriter in
// server.go), but not once EnableFullDuplex was called.
func entire(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		body := &wholeBody{r: r.Body}
		r.Body = body
		next.ServeHTTP(w, r)
		if body.end == nil {
			_, _ = io.CopyN(io.Discard, body, afterAnswer)
		}
		if !errors.Is(body.end, io.EOF) {
			_ = http.NewResponseController(w).Flush() // the answer first
			panic(http.ErrAbortHandler)
		}
	})
}

// wholeBody remembers how reading ended. Closing is the server's business: a Transport closes what it sends, and what
// was wrong with the rest would be lost.
type wholeBody struct {
	r   io.Reader
	end error
}

func (b *wholeBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil {
		b.end = err
	}
	return n, err
}

func (b *wholeBody) Close() error { return nil }
