package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/proxy/internal/h1"
)

// through sends everything by way of a proxy of the environment, which net/http reads once for the whole process.
func through(r *Registry, proxy string) {
	named := func(*http.Request) (*url.URL, error) { return url.Parse(proxy) }
	quick := r.quick.(*h1.Client)
	quick.Proxy = named
	quick.Other.(steady).over.(*http.Transport).Proxy = named
	r.transport.(*http.Transport).Proxy = named
}

func TestAProxyOfTheEnvironmentThatRefusesIsNamed(t *testing.T) {
	requests := map[string]Request{
		"read":   {Repository: "app", Path: "tags/list"},
		"stream": {Method: "PATCH", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true, Body: zeros{}, ContentLength: layerSize},
	}
	for status, c := range map[int]struct {
		want  string
		tries int
	}{407: {"user and password into HTTP_PROXY", 1}, 403: {"check the proxy", 1}, 503: {"check the proxy", retryAttempts}} {
		for name, q := range requests {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				connects := 0
				proxy := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
					connects++
					if req.Method != http.MethodConnect || req.Header.Get("Proxy-Authorization") == "" {
						t.Errorf("%s %s with %v", req.Method, req.Host, req.Header)
					}
					fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status)
					return false
				})
				r, _ := open(t, Options{URL: "https://registry.example.com", Credentials: Anonymous})
				through(r, strings.Replace(proxy, "://", "://user:geheim@", 1))
				_, err := r.Do(t.Context(), q)
				if !errors.Is(err, ErrUnreachable) {
					t.Fatalf("%v", err)
				}
				for _, want := range []string{c.want, strings.TrimPrefix(proxy, "http://"), fmt.Sprint(status), "registry.example.com:443"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("no %q in %v", want, err)
					}
				}
				if strings.Contains(err.Error(), "geheim") {
					t.Errorf("the password is in %v", err)
				}
				if connects != c.tries {
					t.Errorf("asked %d times", connects)
				}
			})
		}
	}
}

// Behind such a proxy plain http is sent without CONNECT, so that the proxy's word comes in the registry's place.
func TestAProxyThatWantsALoginForPlainHTTPIsNamed(t *testing.T) {
	for name, q := range map[string]Request{
		"read":             {Repository: "app", Path: "tags/list"},
		"manifest":         {Method: "PUT", Repository: "app", Path: "manifests/v1", Push: true, Replay: []byte("{}")},
		"stream":           {Method: "PATCH", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true, Body: zeros{}, ContentLength: layerSize},
		"end of an upload": {Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			proxy := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
				asked.Add(1)
				if req.URL.Host != "registry.example.com" || req.Header.Get("Proxy-Authorization") == "" {
					t.Errorf("%s %s with %v", req.Method, req.URL, req.Header)
				}
				fmt.Fprint(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 4\r\n\r\nwhat")
				return false
			})
			r, _ := open(t, Options{URL: "http://registry.example.com", Credentials: Anonymous})
			through(r, strings.Replace(proxy, "://", "://user:geheim@", 1))
			_, err := r.Do(t.Context(), q)
			if !errors.Is(err, ErrUnreachable) || Lost(err) {
				t.Fatalf("%v", err)
			}
			for _, want := range []string{"user and password into HTTP_PROXY", "proxy " + strings.TrimPrefix(proxy, "http://"), "407", "registry.example.com"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "geheim") || asked.Load() != 1 {
				t.Errorf("asked %d times: %v", asked.Load(), err)
			}
		})
	}
}

// The proxy lets requests to the registry through, and not those to another host that the registry names.
func TestAProxyThatRefusesAnotherHostIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		host   string // that the proxy does not let through
		answer string // the registry's
		q      Request
	}{
		"token service": {
			"auth.example.com", "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"%s/token\",service=\"x\"",
			Request{Repository: "app", Path: "tags/list"},
		},
		"a manifest's token service": {
			"auth.example.com", "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"%s/token\"",
			Request{Method: "PUT", Repository: "app", Path: "manifests/v1", Push: true, Replay: []byte("{}")},
		},
		"redirect": {
			"storage.example.com", "307 Temporary Redirect\r\nLocation: %s/blob?signature=geheim",
			Request{Repository: "app", Path: "blobs/sha256:1", Follow: true},
		},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				var refused atomic.Int32
				proxy := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
					if req.Header.Get("Proxy-Authorization") == "" {
						t.Errorf("%s %s with %v", req.Method, req.URL, req.Header)
					}
					if req.URL.Hostname() == "registry.example.com" {
						fmt.Fprintf(conn, "HTTP/1.1 "+c.answer+"\r\nContent-Length: 0\r\n\r\n", scheme+"://"+c.host)
						return true
					}
					refused.Add(1)
					fmt.Fprint(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 4\r\n\r\nwhat")
					return false
				})
				r, _ := open(t, Options{URL: "http://registry.example.com", Credentials: Anonymous, Hosts: []string{c.host}})
				through(r, strings.Replace(proxy, "://", "://user:geheim@", 1))
				_, err := r.Do(t.Context(), c.q)
				if !errors.Is(err, ErrUnreachable) || Lost(err) {
					t.Fatalf("%v", err)
				}
				for _, want := range []string{"user and password into HTTP_PROXY", "proxy " + strings.TrimPrefix(proxy, "http://"), "407", c.host} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("no %q in %v", want, err)
					}
				}
				if strings.Contains(err.Error(), "geheim") || refused.Load() != 1 {
					t.Errorf("asked %d times: %v", refused.Load(), err)
				}
			})
		}
	}
}

// Without a proxy it is somebody else's word, and passed on like any other.
func TestA407WithoutAProxyIsTheRegistrys(t *testing.T) {
	f := newFake(t, &fake{handle: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) }})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	do(t, r, http.StatusProxyAuthRequired, Request{Repository: "app", Path: "tags/list"})
}

func TestAProxyOfTheEnvironmentThatIsNotThereIsNamed(t *testing.T) {
	srv := httptest.NewServer(nil)
	gone := srv.URL
	srv.Close()
	for _, u := range []string{"https://registry.example.com", "http://registry.example.com"} {
		r, _ := open(t, Options{URL: u, Credentials: Anonymous})
		through(r, gone)
		if _, err := r.Do(t.Context(), Request{Repository: "app", Path: "tags/list"}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "check the proxy") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
