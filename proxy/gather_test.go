package proxy

import (
	"io"
	"sync"
	"testing"
)

// idle is a part of the storage that is slow, and must not be closed while it is read.
type idle struct {
	reading chan struct{} // closed when Read was called
	more    chan struct{} // Read ends when it is closed
	closed  bool          // the race detector looks
}

func (i *idle) Read([]byte) (int, error) {
	close(i.reading)
	<-i.more
	if i.closed {
		panic("read of what was closed")
	}
	return 0, io.EOF
}

func (i *idle) Close() error {
	i.closed = true
	return nil
}

// An upstream that refuses a part in its middle answers while the Transport reads.
func TestWaitingChunksAreNotClosedUnderTheirReader(t *testing.T) {
	part := &idle{reading: make(chan struct{}), more: make(chan struct{})}
	s := &storageReader{r: part}
	var both sync.WaitGroup
	both.Go(func() { _, _ = s.Read(nil) })
	<-part.reading
	both.Go(s.close)
	close(part.more)
	both.Wait()
	if !part.closed {
		t.Error("not closed")
	}
	if n, err := s.Read(nil); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v, of what is closed", n, err)
	}
}
