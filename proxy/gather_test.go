package proxy

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/quarantine"
	"sluice/proxy/session"
)

// hanging is a storage in which a part hangs once it is read.
type hanging struct {
	storagedriver.StorageDriver
	reading chan struct{} // closed when a part is read
	more    chan struct{} // closed when the read may end
}

func (h *hanging) GetContent(ctx context.Context, path string) ([]byte, error) {
	if path == "/format" {
		return h.StorageDriver.GetContent(ctx, path)
	}
	close(h.reading)
	<-h.more
	return h.StorageDriver.GetContent(ctx, path)
}

// An upstream that refuses a part in its middle answers while the Transport reads, and its answer does not wait for a storage
// that hangs.
func TestWaitingChunksCanBeClosedWhileTheyAreRead(t *testing.T) {
	d := &hanging{inmemory.New(), make(chan struct{}), make(chan struct{})}
	q, err := quarantine.New(d, quarantine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st := &session.State{Generation: q.Generation(), ID: "upload", Parts: 1, Pending: 5}
	if _, err := q.WritePart(t.Context(), st.Generation, "app", st.ID, 0, strings.NewReader("parts"), 100); err != nil {
		t.Fatal(err)
	}
	ex := &exchange{p: &Proxy{quarantine: q}, repo: "app"}
	body, _, done, err := ex.withWaiting(t.Context(), st, &chunk{})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan int)
	go func() {
		n, _ := body.Read(make([]byte, 10))
		read <- n
	}()
	<-d.reading
	closed := make(chan struct{})
	go func() { done(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("closing waits for the storage")
	}
	close(d.more)
	if n := <-read; n != 5 {
		t.Errorf("the read that was under way has %d bytes", n)
	}
	<-closed
	if n, err := body.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("read %d bytes, %v, of what is closed", n, err)
	}
}
