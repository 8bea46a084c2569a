package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
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

// Docker, BuildKit and the others do not ask, so that nobody notices what refuses the question (RFC 9110 section 10.1.1 has it
// repeated without).
func TestWhatRefusesToBeAskedGetsTheBodyWithout(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		keeps  bool // the connection
	}{"known length": {layerSize, false}, "chunked": {-1, false}, "known length, and it goes on": {layerSize, true}, "chunked, and it goes on": {-1, true}} {
		t.Run(name, func(t *testing.T) {
			var asked, sent atomic.Int32
			u := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
				if req.Header.Get("Expect") != "" {
					asked.Add(1)
					last := map[bool]string{false: "Connection: close\r\n"}[c.keeps]
					fmt.Fprintf(conn, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 4\r\n%s\r\nwhat", last)
					return c.keeps
				}
				sent.Add(1)
				if n, err := io.Copy(io.Discard, req.Body); n != layerSize || err != nil {
					t.Errorf("%d bytes arrived: %v", n, err)
				}
				fmt.Fprint(conn, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
				return true
			})
			r, clock := open(t, Options{URL: u, Credentials: Anonymous})
			for range 2 {
				q := upload(io.LimitReader(zeros{}, layerSize))
				q.ContentLength = c.length
				do(t, r, 201, q)
			}
			if asked.Load() != 1 || sent.Load() != 2 || len(clock.slept) != 0 {
				t.Errorf("asked %d times, sent %d times, waited for %v", asked.Load(), sent.Load(), clock.slept)
			}
		})
	}
}

// Informational answers are neither an agreement nor a refusal.
func TestInformationalAnswersDecideNothingAboutABody(t *testing.T) {
	const hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
	for name, c := range map[string]struct {
		before string
		status int // of the answer before the body; 0: the body is waited for
		want   int // 0: none
	}{
		"and then nothing": {hint, 0, 201},
		"and an agreement": {hint + "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", 0, 201},
		"and a refusal":    {hint, 413, 413},
		"without end":      {strings.Repeat(hint, 100), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			src := &counter{r: io.LimitReader(zeros{}, layerSize)}
			u := raw(t, func(req *http.Request, br *bufio.Reader, conn net.Conn, _ int) bool {
				fmt.Fprint(conn, c.before)
				if c.status == 0 {
					if n, _ := io.Copy(io.Discard, req.Body); c.want == 201 && n != layerSize {
						t.Errorf("%d bytes arrived", n)
					}
					fmt.Fprint(conn, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
					return true
				}
				time.Sleep(100 * time.Millisecond) // nobody has agreed
				fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", c.status)
				return false
			})
			r, _ := open(t, Options{URL: u, Credentials: Anonymous})
			if c.status == 0 {
				r.transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Millisecond
			}
			resp, err := r.Do(t.Context(), upload(src))
			if c.want == 0 {
				if !errors.Is(err, ErrUnreachable) {
					t.Errorf("%v, %v", resp, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("status %d", resp.StatusCode)
			}
			if n := src.read(); c.status != 0 && n != 0 {
				t.Errorf("%d bytes were read", n)
			}
		})
	}
}
