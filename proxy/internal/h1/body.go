package h1

import (
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"sync"
	"time"
)

// maxTrailer bounds the lines behind a chunked body, which nobody reads.
const maxTrailer = 2 << 10

var errReadAfterClose = errors.New("read of the body of an answer that was closed")

// body is that of one answer. The connection goes back when the last byte was read, and is closed with a body that was
// not read to its end.
type body struct {
	mu   sync.Mutex
	conn *conn     // nil: gone
	r    io.Reader // nil: as many bytes as are left; else it knows its end
	left int64     // without r
	end  error     // of the whole: what every further Read gets
	till bool      // it ends with the connection
	ends bool      // the connection ends with it

	comes  bool          // not all of it is in the buffer
	since  time.Time     // when the deadline was set
	waited time.Duration // since StallBytes came: whoever reads may take any time
	bytes  int           // that came in waited
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		return 0, b.end
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.patiently(p)
	if err != nil {
		b.finish(err)
	}
	return n, err
}

// patiently reads what there is. A server that sends nothing ends it by a deadline, which gives each Read at least StallTimeout;
// it is not set for each, since that costs as much as a small one. One that sends byte by byte ends it when those Reads have
// waited for as long together.
func (b *body) patiently(p []byte) (int, error) {
	client := b.conn.client
	stall := client.StallTimeout
	if !b.comes || stall <= 0 {
		return b.next(p)
	}
	start := time.Now()
	if start.Sub(b.since) > stall/4 {
		b.since = start
		_ = b.conn.nc.SetReadDeadline(start.Add(stall + stall/4))
	}
	n, err := b.next(p)
	b.waited += time.Since(start)
	if b.bytes += n; b.bytes >= client.StallBytes {
		b.waited, b.bytes = 0, 0
	}
	if errors.Is(err, ErrHeaderTimeout) || err == nil && b.waited >= stall {
		err = ErrStalled
	}
	return n, err
}

// next reads what there is, and io.EOF only at the right place.
func (b *body) next(p []byte) (n int, err error) {
	if b.r == nil && !b.till {
		n, err = b.conn.r.Read(p[:min(int64(len(p)), b.left)])
		if b.left -= int64(n); b.left == 0 {
			return n, io.EOF
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, b.conn.explain(err)
	}
	if b.till {
		n, err = b.conn.r.Read(p)
	} else if n, err = b.r.Read(p); errors.Is(err, io.EOF) {
		if err = b.trailer(); err == nil {
			err = io.EOF
		}
	}
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, b.conn.explain(err)
}

// trailer reads the lines behind the last chunk: what net/http takes for some, though nobody looks at them.
func (b *body) trailer() error {
	for read := 0; read < maxTrailer; {
		line, err := b.conn.r.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		line, found := bytes.CutSuffix(line, []byte("\r\n"))
		if !found {
			return malformed("a line of its trailer ends without a carriage return")
		}
		if len(line) == 0 {
			return nil
		}
		if _, _, err := parseLine(string(line)); err != nil {
			return err
		}
		read += len(line)
	}
	return malformed("its trailer has more than %d bytes", maxTrailer)
}

// finish lets the connection go, back to the others where the answer was read to a good end.
func (b *body) finish(err error) {
	b.end = err
	c := b.conn
	b.conn, b.r = nil, nil
	if errors.Is(err, io.EOF) && !b.till && !b.ends {
		c.release()
	} else {
		c.drop()
	}
}

// Close gives the connection up unless everything that is left has arrived already. A Read that waits is ended by the
// request's context, and not by Close.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		if b.r == nil && !b.till && b.left <= int64(b.conn.r.Buffered()) {
			_, _ = b.conn.r.Discard(int(b.left)) // it is in the buffer
			b.finish(io.EOF)
		} else {
			b.finish(errReadAfterClose)
		}
	}
	b.end = errReadAfterClose
	return nil
}

// Drain closes the body of an answer that nobody wants to read, and waits a moment for what is left of a short one, so that its
// connection can be used again.
func (b *body) Drain(most int64, patience time.Duration) {
	b.mu.Lock()
	if short := b.r != nil || b.left <= most; b.conn != nil && b.comes && short && !b.till && !b.ends {
		_ = b.conn.nc.SetReadDeadline(time.Now().Add(patience))
		_, err := io.CopyN(io.Discard, rest{b}, most)
		if err == nil { // there is more
			err = errReadAfterClose
		}
		b.finish(err)
	}
	b.mu.Unlock()
	_ = b.Close()
}

// rest is a body whose lock is held.
type rest struct{ *body }

func (r rest) Read(p []byte) (int, error) { return r.next(p) }

func newChunked(c *conn) io.Reader { return httputil.NewChunkedReader(c.r) }
