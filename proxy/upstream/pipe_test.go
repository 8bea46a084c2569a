package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// lockedBuffer is a log that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPipeCarriesAllBytesInOrder(t *testing.T) {
	a, b := newPipe()
	want := make([]byte, 3<<20+17)
	for i := range want {
		want[i] = byte(rand.IntN(256))
	}
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(2*pipeBuffer))
			if _, err := a.Write(rest[:n]); err != nil {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		a.Close()
	}()
	var got bytes.Buffer
	buf := make([]byte, 100_000)
	for {
		n, err := b.Read(buf[:1+rand.IntN(len(buf))])
		got.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the bytes changed on their way")
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("writing to a closed peer succeeds")
	}
}

func TestPipeHonoursDeadlines(t *testing.T) {
	a, b := newPipe()
	defer a.Close()
	a.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	var ne net.Error
	if _, err := a.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("http.Server asks for net.Error: %v", err)
	}
	a.SetReadDeadline(time.Time{}) // taken back
	go b.Write([]byte("y"))
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read = %d, %v", n, err)
	}
	b.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	if n, err := b.Write(make([]byte, 2*pipeBuffer)); n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write = %d, %v; a full pipe must wait and then give up", n, err)
	}
	waiting := make(chan error)
	go func() {
		_, err := b.Read(make([]byte, 1))
		waiting <- err
	}()
	b.SetReadDeadline(time.Unix(1, 0)) // how http.Server ends its background read
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a waiting read: %v", err)
	}
}

func TestPipeListenerEndsItsDialers(t *testing.T) {
	l := newListener()
	l.Close()
	if _, err := l.dial(context.Background(), "", ""); err == nil {
		t.Error("dialled a closed listener")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	l = newListener()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.dial(ctx, "", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("dial: %v", err)
	}
}
