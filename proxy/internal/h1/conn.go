package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	readBuffer  = 4 << 10
	keepScratch = 8 << 10 // what of a connection's scratch is kept while it is idle
	// quickly is how long an answer may take without that anything is made to notice the end of the context: most need a
	// tenth of it, and what ends a request that is waiting costs as much as reading its answer.
	quickly = 20 * time.Millisecond
	// quickWrite is what a socket takes at once of a request, in all likelihood.
	quickWrite = 8 << 10
	// lastWords is how long a server that takes no more of a request may need to say why.
	lastWords = 200 * time.Millisecond
)

// conn is one connection, with one request at a time.
type conn struct {
	client  *Client
	host    *host
	nc      net.Conn
	r       *bufio.Reader
	socket  *socket // nil: nothing can be found out about it
	scratch []byte

	idleSince time.Time
	writeBy   time.Time // the deadline that is set
	reused    bool      // it has brought an answer before
	answered  bool      // a byte of the answer to the present request came
	wrote     bool      // a byte of the present request was taken

	ctx       context.Context // of the present request
	stop      func() bool     // of what interrupts it; nil: nothing does
	interrupt func()          // made once for all requests
	cancelled atomic.Bool
}

func newConn(c *Client, h *host, nc net.Conn) *conn {
	cn := &conn{client: c, host: h, nc: nc, r: bufio.NewReaderSize(nc, readBuffer), socket: socketOf(nc)}
	cn.interrupt = func() {
		cn.cancelled.Store(true)
		_ = nc.Close() // whoever reads or writes gets an error
	}
	return cn
}

// quiet is false for an idle connection that the server has closed, or on which it says something although it was
// not asked.
func (c *conn) quiet() bool {
	return c.r.Buffered() == 0 && (c.socket == nil || c.socket.quiet()) && (!c.host.secure || c.empty() && c.whole())
}

// past is a deadline that no read can keep.
var past = time.Unix(1, 0)

// empty is false for a connection whose TLS holds something that was not read: it takes as much from the socket as came
// with the record that was asked for, and gives a record in pieces. A read whose time is over reaches no socket, so that only
// what is here already can be seen, and TLS goes on after a timeout. The deadline stays: each request sets its own.
func (c *conn) empty() bool {
	if c.nc.SetReadDeadline(past) != nil {
		return false
	}
	_, err := c.r.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// whole is false for a connection whose TLS holds the beginning of a record: its end would bring an answer that nobody has asked
// for. Only the connection itself can know.
func (c *conn) whole() bool {
	r, ok := c.nc.(interface{ Whole() bool })
	return !ok || r.Whole()
}

// exchange sends a request and reads the head of its answer. After an error the connection is closed.
func (c *conn) exchange(req *http.Request, payload []byte, timeout time.Duration) (*http.Response, error) {
	h, err := c.ask(req, payload, timeout)
	if err != nil {
		err = c.explain(err)
		c.drop()
		return nil, err
	}
	a := &answer{Response: http.Response{
		Status: h.text, StatusCode: h.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: h.minor,
		Header: h.header, ContentLength: h.length, Close: h.close, Request: req, Body: http.NoBody,
	}}
	if h.minor == 0 {
		a.Proto = "HTTP/1.0"
	}
	if h.chunked {
		a.TransferEncoding = inChunks
	}
	switch {
	case req.Method == http.MethodHead:
		a.ContentLength = h.announcement
		c.over(h.close)
		return &a.Response, nil
	case bodiless(req.Method, h.status) || h.length == 0:
		a.ContentLength = 0
		c.over(h.close)
		return &a.Response, nil
	}
	b := &a.body
	b.conn, b.left, b.ends = c, h.length, h.close
	switch {
	case h.chunked:
		b.r = newChunked(c)
	case h.length < 0:
		b.till = true
	}
	if b.r != nil || b.till || h.length > int64(c.r.Buffered()) {
		b.comes = true
		c.wait(time.Time{}) // how long a body takes is up to who reads it
	}
	a.Body = b
	return &a.Response, nil
}

// inChunks is shared by all answers; nobody changes it.
var inChunks = []string{"chunked"}

// An answer is a response with what its body needs, in one piece.
type answer struct {
	http.Response
	body body
}

// wait lets the connection be read until a point in time, or as long as it takes, and until the context ends.
func (c *conn) wait(end time.Time) {
	if c.stop == nil && c.ctx.Done() != nil {
		c.stop = context.AfterFunc(c.ctx, c.interrupt)
	}
	_ = c.nc.SetReadDeadline(end) // fails on a closed connection, and then so does what follows
}

// ask is the exchange itself.
func (c *conn) ask(req *http.Request, payload []byte, timeout time.Duration) (h head, err error) {
	c.ctx, c.stop, c.answered, c.wrote = req.Context(), nil, false, false
	began := time.Now()
	end := began.Add(timeout)
	if by := began.Add(c.client.HeaderTimeout); c.writeBy.Before(by) { // not for each request: it costs as much as a small read
		c.writeBy = by.Add(c.client.HeaderTimeout / 4)
		_ = c.nc.SetWriteDeadline(c.writeBy)
	}
	b, err := appendRequest(c.scratch[:0], req, payload)
	c.scratch = b
	if err != nil {
		return h, err
	}
	if len(b) > quickWrite && c.ctx.Done() != nil { // it may wait for a server that reads nothing
		c.stop = context.AfterFunc(c.ctx, c.interrupt)
	}
	n, werr := c.nc.Write(b)
	c.wrote = n > 0
	if werr != nil {
		if !c.wrote {
			return h, werr
		}
		end = time.Now().Add(lastWords) // a server that refuses a body in its middle answers and closes
	}
	if err = c.firstByte(end, began.Add(quickly)); err == nil {
		c.answered = true
		h, c.scratch, err = readHead(c.r, c.client.MaxHeader, c.scratch, func() { c.wait(end) })
	}
	if werr != nil {
		if err != nil {
			return h, werr
		}
		h.close = true
	}
	return h, err
}

// firstByte waits for an answer.
func (c *conn) firstByte(end, soon time.Time) error {
	if soon.Before(end) {
		_ = c.nc.SetReadDeadline(soon)
		_, err := c.r.Peek(1)
		switch {
		case err == nil:
			if there, _ := c.r.Peek(c.r.Buffered()); !bytes.Contains(there, []byte("\r\n\r\n")) {
				c.wait(end) // for the rest of the header
			}
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
	c.wait(end)
	_, err := c.r.Peek(1)
	return err
}

// explain is the error of whoever ended the request, if the server did not.
func (c *conn) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case c.cancelled.Load(), c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrHeaderTimeout
	}
	return err
}

// over is called when an answer was read to its end.
func (c *conn) over(last bool) {
	if last {
		c.drop()
		return
	}
	c.release()
}

// release makes the connection one that waits for the next request.
func (c *conn) release() {
	if c.stop != nil && !c.stop() { // it is being closed at this moment
		c.stop = nil
		c.drop()
		return
	}
	c.ctx, c.stop, c.reused = nil, nil, true
	if cap(c.scratch) > keepScratch {
		c.scratch = nil
	}
	c.client.put(c)
}

// drop closes the connection.
func (c *conn) drop() {
	if c.stop != nil {
		c.stop()
		c.stop = nil
	}
	_ = c.nc.Close()
}
