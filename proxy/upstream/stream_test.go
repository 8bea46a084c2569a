package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/internal/h1"
)

const layerSize = 64 << 20

// upload is a streamed body of layerSize zeros.
func upload(src io.Reader) Request {
	return Request{Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1?digest=x", Push: true, Body: src, ContentLength: layerSize}
}

func TestTheFirstByteArrivesBeforeTheLastIsThere(t *testing.T) {
	for name, length := range map[string]int64{"known length": small + 1, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			first := make(chan struct{})
			f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
				io.ReadFull(r.Body, make([]byte, 1))
				close(first)
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(201)
			}})
			r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
			pr, pw := io.Pipe()
			go func() {
				pw.Write([]byte("x"))
				<-first
				pw.Write(make([]byte, small))
				pw.Close()
			}()
			q := upload(pr)
			q.ContentLength = length
			do(t, r, 201, q)
		})
	}
}

func TestASlowUpstreamSlowsTheClient(t *testing.T) {
	goOn := make(chan struct{})
	f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 1))
		<-goOn
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
	}})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	src := &counter{r: io.LimitReader(zeros{}, 4*layerSize)}
	q := upload(src)
	q.ContentLength = 4 * layerSize
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(t, r, 201, q)
	}()
	last, calm := int64(0), 0
	for calm < 20 { // until nothing moves any more
		time.Sleep(5 * time.Millisecond)
		if n := src.read(); n > 0 && n == last {
			calm++
		} else {
			last, calm = n, 0
		}
	}
	if last > 32<<20 { // socket buffers and ours
		t.Errorf("%d MiB were read from the client although upstream takes nothing", last>>20)
	}
	close(goOn)
	<-done
}

func TestABodyThatBreaksOffIsTheClientsFault(t *testing.T) {
	f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	gone := errors.New("client hung up")
	for name, length := range map[string]int64{"large": layerSize, "small": 100, "chunked": -1} {
		q := upload(io.MultiReader(strings.NewReader("some"), errorReader{gone}))
		q.ContentLength = length
		if _, err := r.Do(context.Background(), q); !errors.Is(err, ErrBody) || !errors.Is(err, gone) || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
	for name, length := range map[string]int64{"large": layerSize, "small": 100} {
		q := upload(strings.NewReader("too short"))
		q.ContentLength = length
		if _, err := r.Do(context.Background(), q); !errors.Is(err, ErrBody) {
			t.Errorf("%s, too short: error = %v", name, err)
		}
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

func TestACancelledRequestLeavesNoGoroutine(t *testing.T) {
	entered := make(chan struct{}, 1)
	f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 1))
		entered <- struct{}{}
		io.Copy(io.Discard, r.Body) // net/http watches a connection only behind the body
		<-r.Context().Done()
	}})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	before := runtime.NumGoroutine()
	for name, q := range map[string]Request{
		"upload":  upload(io.LimitReader(zeros{}, layerSize)),
		"chunked": {Method: "PATCH", Repository: "app", Path: "x", Body: io.LimitReader(zeros{}, layerSize), ContentLength: -1},
		"read":    {Repository: "app", Path: "tags/list"},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-entered
			cancel()
		}()
		if _, err := r.Do(ctx, q); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
	f.CloseClientConnections()
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}

func TestARegistryThatNeverAnswersIsGivenUp(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	u := raw(t, func(*http.Request, *bufio.Reader, net.Conn, int) bool { <-stop; return false })
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
	r.quick.(*h1.Client).HeaderTimeout = 20 * time.Millisecond
	if _, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("error = %v", err)
	}
}

func TestConcurrentUploadsAreNotLimited(t *testing.T) {
	const n = 64
	var all sync.WaitGroup
	all.Add(n)
	f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 1))
		all.Done()
		all.Wait() // all at the same time
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
	}})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	r.transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			q := upload(io.LimitReader(zeros{}, 1<<20))
			q.ContentLength = 1 << 20
			do(t, r, 201, q)
		})
	}
	wg.Wait()
}
