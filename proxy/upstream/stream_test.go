package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const layerSize = 64 << 20

// upload is a streamed body of layerSize zeros.
func upload(src io.Reader) Request {
	return Request{Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1?digest=x", Push: true, Body: src, ContentLength: layerSize}
}

func TestATokenThatEndsInTheMiddleOfAPushIsRenewedBeforeAnyByteIsRead(t *testing.T) {
	for name, length := range map[string]int64{"known length": layerSize, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "bearer"})
			var valid atomic.Value
			valid.Store("Bearer t1")
			src := &counter{r: io.LimitReader(zeros{}, layerSize)}
			var readAt401 int64
			f.allow = func(got string) bool {
				if got != valid.Load() {
					readAt401 = src.read()
					return false
				}
				return true
			}
			var arrived int64
			f.handle = func(w http.ResponseWriter, r *http.Request) {
				arrived, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(201)
			}
			r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
			q := upload(src)
			q.ContentLength = length
			f.scheme = ""
			do(t, r, 201, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true})
			f.scheme = "bearer"
			do(t, r, 201, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true}) // t1 now, widened
			valid.Store("Bearer t2")                                                                      // t1 is revoked
			before := len(f.requests())
			do(t, r, 201, q)
			if readAt401 != 0 {
				t.Errorf("%d bytes had been read when the 401 came", readAt401)
			}
			if arrived != layerSize || src.read() != layerSize {
				t.Errorf("%d bytes arrived, %d were read", arrived, src.read())
			}
			if n := len(f.requests()) - before; n != 2 {
				t.Errorf("%d requests, want one and its repetition", n)
			}
		})
	}
}

// raw is a server of its own making: answer gets the connection behind the headers of each request.
func raw(t *testing.T, answer func(req *http.Request, br *bufio.Reader, c net.Conn, n int) (keep bool)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var n atomic.Int32
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(br)
					if err != nil || !answer(req, br, c, int(n.Add(1))) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

func TestA401ThatKeepsTheConnectionReadsNoByteEither(t *testing.T) {
	// nginx does this, and http.Transport then sends the body to keep the connection.
	src := &counter{r: io.LimitReader(zeros{}, layerSize)}
	var readAt401, arrived int64
	u := raw(t, func(req *http.Request, br *bufio.Reader, c net.Conn, n int) bool {
		if req.URL.Path == "/token" {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}")
			return true
		}
		if req.Header.Get("Authorization") == "" {
			readAt401 = src.read()
			fmt.Fprintf(c, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://%s/token\"\r\nContent-Length: 3\r\n\r\nno\n", req.Host)
			return true
		}
		if req.Header.Get("Expect") != "100-continue" {
			t.Error("the body was not announced")
		}
		fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		arrived, _ = io.Copy(io.Discard, req.Body)
		fmt.Fprint(c, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		return true
	})
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
	do(t, r, 201, upload(src))
	if readAt401 != 0 || arrived != layerSize {
		t.Errorf("%d bytes read at the 401, %d arrived", readAt401, arrived)
	}
}

func TestABodyOfWhichAByteWasReadIsNeverReplayed(t *testing.T) {
	var requests atomic.Int32
	u := raw(t, func(req *http.Request, br *bufio.Reader, c net.Conn, n int) bool {
		requests.Add(1)
		fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		io.CopyN(io.Discard, req.Body, 1<<20)
		if n == 1 { // and the connection goes
			return false
		}
		fmt.Fprint(c, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n")
		io.Copy(io.Discard, br) // or a reset would destroy the answer
		return false
	})
	r, _ := open(t, Options{URL: u, Credentials: Basic, Username: "u", Password: password("p")})
	_, err := r.Do(context.Background(), upload(io.LimitReader(zeros{}, layerSize)))
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("error = %v", err)
	}
	resp, err := r.Do(context.Background(), upload(io.LimitReader(zeros{}, layerSize)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != 401 || string(b) != "no\n" {
		t.Errorf("status %d, body %q, %v", resp.StatusCode, b, err)
	}
	if requests.Load() != 2 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestAnEarlyRefusalCanBeRead(t *testing.T) {
	for name, answer := range map[string]func(c net.Conn, body io.Reader){
		"instead of agreeing": func(net.Conn, io.Reader) {},
		"after a megabyte": func(c net.Conn, b io.Reader) {
			fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
			io.CopyN(io.Discard, b, 1<<20)
		},
		"after a megabyte, with no 100 Continue": func(c net.Conn, b io.Reader) { io.CopyN(io.Discard, b, 1<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			u := raw(t, func(req *http.Request, br *bufio.Reader, c net.Conn, n int) bool {
				answer(c, req.Body)
				reason := strings.Repeat("too large ", 1000)
				fmt.Fprintf(c, "HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%s", len(reason), reason)
				io.Copy(io.Discard, br)
				return false
			})
			r, _ := open(t, Options{URL: u, Credentials: Anonymous})
			r.transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Millisecond
			resp, err := r.Do(context.Background(), upload(io.LimitReader(zeros{}, layerSize)))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if resp.StatusCode != 413 || len(b) != 10000 || err != nil {
				t.Errorf("status %d, %d bytes, %v", resp.StatusCode, len(b), err)
			}
			resp.Body.Close()
		})
	}
}

func TestARegistryThatIgnoresExpectIsAskedOnce(t *testing.T) {
	var announced atomic.Int32
	u := raw(t, func(req *http.Request, br *bufio.Reader, c net.Conn, n int) bool {
		if req.Header.Get("Expect") != "" {
			announced.Add(1)
		}
		io.Copy(io.Discard, req.Body)
		fmt.Fprint(c, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		return true
	})
	r, clock := open(t, Options{URL: u, Credentials: Anonymous})
	r.transport.(*http.Transport).ExpectContinueTimeout = 5 * time.Millisecond
	for range 3 {
		do(t, r, 201, upload(io.LimitReader(zeros{}, layerSize)))
	}
	if n := announced.Load(); n != 1 {
		t.Errorf("announced %d times, want 1", n)
	}
	clock.add(muteFor + time.Second)
	do(t, r, 201, upload(io.LimitReader(zeros{}, layerSize)))
	if n := announced.Load(); n != 2 {
		t.Errorf("announced %d times, want 2: it may have learned", n)
	}
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
	for i := 0; runtime.NumGoroutine() > before; i++ {
		if i == 1000 {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

func TestARegistryThatNeverAnswersIsGivenUp(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	u := raw(t, func(*http.Request, *bufio.Reader, net.Conn, int) bool { <-stop; return false })
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
	r.headerTimeout = 20 * time.Millisecond
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

func TestAPumpGrowsAndShrinks(t *testing.T) {
	var sizes []int
	reads := 0
	src := readerFunc(func(p []byte) (int, error) {
		if len(sizes) == 0 || sizes[len(sizes)-1] != len(p) {
			sizes = append(sizes, len(p))
		}
		switch reads++; {
		case reads <= 10:
			return len(p), nil
		case reads <= 100:
			return 10, nil
		}
		return 0, io.EOF
	})
	var out bytes.Buffer
	n, err := pump(&out, src)
	if want := int64(readsToGrow*smallBuffer + (10-readsToGrow)*largeBuffer + 900); n != want || err != nil || int64(out.Len()) != n {
		t.Errorf("pump = %d, %v, want %d", n, err, want)
	}
	if fmt.Sprint(sizes) != fmt.Sprint([]int{smallBuffer, largeBuffer, smallBuffer}) {
		t.Errorf("buffers = %v", sizes)
	}
	if len(largeSlots) != 0 {
		t.Error("a slot for a large buffer was not given back")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
