package proxy

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
)

// counted is what a held blob opens: how often, and how often it is closed.
type counted struct{ opened, closed atomic.Int64 }

type countedReader struct {
	io.Reader
	c *counted
}

func (r countedReader) Close() error { r.c.closed.Add(1); return nil }

func (c *counted) open() io.ReadCloser {
	c.opened.Add(1)
	return countedReader{strings.NewReader("statement"), c}
}

// An upstream that refuses a blob in the middle leaves its Transport reading for a moment, also from a storage that
// takes its time: nothing stays open, nobody waits for it, and nothing is opened again.
func TestAHeldBlobThatIsClosedWhileItIsReadLeavesNothingOpen(t *testing.T) {
	for _, when := range []string{"while it is opened", "while it gives bytes", "between two reads"} {
		t.Run(when, func(t *testing.T) {
			var c counted
			there, goOn := make(chan struct{}), make(chan struct{})
			pause := func(at string) {
				if at == when {
					close(there)
					<-goOn
				}
			}
			h := &held{size: 9, ctx: t.Context(), open: func(context.Context, int64) (io.ReadCloser, error) {
				pause("while it is opened")
				rc := c.open()
				return struct {
					io.Reader
					io.Closer
				}{readerFunc(func(b []byte) (int, error) {
					pause("while it gives bytes")
					return rc.Read(b)
				}), rc}, nil
			}}
			read := make(chan error, 1)
			go func() {
				_, err := h.Read(make([]byte, 4))
				pause("between two reads")
				read <- err
			}()
			<-there
			if err := h.Close(); err != nil {
				t.Error(err)
			}
			close(goOn)
			if err := <-read; err != nil {
				t.Errorf("the Read that ran: %v", err)
			}
			if n, err := h.Read(make([]byte, 4)); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("a Read after that: %d bytes, %v", n, err)
			}
			if opened, closed := c.opened.Load(), c.closed.Load(); opened != 1 || closed != 1 {
				t.Errorf("opened %d times, closed %d times", opened, closed)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
