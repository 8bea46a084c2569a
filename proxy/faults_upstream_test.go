package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A moody registry answers some requests in its own way as long as it is told to.
type moody struct {
	mood atomic.Pointer[mood]
	seen atomic.Int64 // requests that got it
}

type mood struct {
	of     func(*http.Request) bool
	answer func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func (m *moody) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if now := m.mood.Load(); now != nil && now.of(r) {
			m.seen.Add(1)
			now.answer(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (m *moody) heal() { m.mood.Store(nil) }

// moodyRig has the case that most faults are tried with.
func moodyRig(t *testing.T) (r *rig, m *moody, c faultCase, tree, plain *proxytest.Tree) {
	m = &moody{}
	c = ordinary
	c.options.Platforms = []string{"linux/amd64", "linux/arm64"} // the tag is an index, and images are put by digest
	tree, plain = c.trees()
	r = newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
	return r, m, c, tree, plain
}

// check is the same after everything that a registry can do: nothing wrong is there, and the next push is whole.
func (m *moody) check(r *rig, c faultCase, tree, plain *proxytest.Tree) {
	r.t.Helper()
	if m.seen.Load() == 0 {
		r.t.Error("it was never asked, so this shows nothing")
	}
	m.heal()
	r.proxy.Settle()
	r.holdsNow(plain)
	if err := c.try(r, tree); err != nil {
		r.t.Fatalf("the retry fails: %v", err)
	}
	r.quiet(nil)
	r.holdsNow(plain)
	r.finished(tree, plain, c.act)
}

// says401 finds the status, and not a port or a digest that has these digits.
var says401 = regexp.MustCompile(`\b401\b`)

// I1, I2, I6, I7: a registry that answers one step of each push with an error, for as long as it likes.
func TestWhateverStatusUpstreamAnswersAtAStepARetryConverges(t *testing.T) {
	for i, s := range steps() {
		all := []int{401, 403, 404, 429, 500}
		if gateway := []int{502, 503, 504}; s.ofBuildKit() {
			all = append(all, gateway...)
		} else {
			all = append(all, gateway[i%3])
		}
		for _, status := range all {
			t.Run(s.name+" "+strconv.Itoa(status), func(t *testing.T) {
				t.Parallel()
				r := s.rig(t)
				r.answers(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"the registry's own words"}]}`))
				})
				err := r.try(r.rig, r.tree)
				switch {
				case slices.Contains(s.without, status):
					if err != nil {
						t.Errorf("what can be done without fails the push: %v", err)
					}
				case err == nil:
					t.Error("the push succeeds")
				case status == 401: // it is about Sluice's credentials, and the client must not ask its user for others
					if says401.MatchString(err.Error()) || !strings.Contains(err.Error(), "credentials of sluice") && !strings.Contains(err.Error(), "HEAD request") {
						t.Errorf("the client hears %q", err)
					}
				case !strings.Contains(err.Error(), strconv.Itoa(status)) && !strings.Contains(err.Error(), "the registry's own words"):
					t.Errorf("the client hears %q, upstream said %d", err, status)
				}
				r.check()
			})
		}
	}
}

func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// The same for answers that are none.
func TestWhateverNonsenseUpstreamAnswersAtAStepARetryConverges(t *testing.T) {
	raw := func(text string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			conn := hijack(w)
			defer conn.Close()
			_, _ = conn.Write([]byte(text))
		}
	}
	answers := []struct {
		name   string
		status int // if it has one
		answer func(http.ResponseWriter, *http.Request, http.Handler)
	}{
		{"a reset", 0, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			conn := hijack(w)
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}},
		{"no HTTP at all", 0, raw("220 mail.example ESMTP\r\n")},
		{"half a header", 0, raw("HTTP/1.1 201 Created\r\nDocker-Cont")},
		{"half a body", 500, raw("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000\r\n\r\n{\"err")},
		{"a page of some portal", 200, raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Please log in</html>")},
		{"202 with no Location", 202, raw("HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")},
	}
	for i, s := range steps() {
		for k, nonsense := range answers {
			if strings.HasPrefix(s.name, "HEAD") && nonsense.status/100 == 2 {
				continue // that is a yes: see the registry that changes its mind
			}
			if !s.ofBuildKit() && (i+k)%2 == 0 {
				continue
			}
			t.Run(s.name+", "+nonsense.name, func(t *testing.T) {
				t.Parallel()
				r := s.rig(t)
				r.answers(nonsense.answer)
				if err := r.try(r.rig, r.tree); (err == nil) != slices.Contains(s.without, nonsense.status) {
					t.Errorf("the push ends with %v", err)
				}
				r.check()
			})
		}
	}
}

// A page of some portal is a success, too, and says nothing of a layer.
func TestASuccessThatNoRegistryGivesIsNoneForALayer(t *testing.T) {
	for name, status := range map[string]int{"a page of some portal": http.StatusOK, "something accepted": http.StatusAccepted} {
		t.Run(name, func(t *testing.T) {
			r, m, c, tree, plain := moodyRig(t)
			m.mood.Store(&mood{is(http.MethodPut, "/blobs/uploads/"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.WriteHeader(status)
				_, _ = w.Write([]byte("<html>Please log in</html>"))
			}})
			layer := tree.Images()[0].Layers[0]
			r.request(http.MethodPut, put(r.upload("app"), layer.Digest), proxytest.RandomLayer("layer", "", 1, 1, 100).Bytes()).want(t, http.StatusBadGateway, "UNAVAILABLE")
			m.check(r, c, tree, plain)
		})
	}
}

// I6: what Sluice asks on the way to the tag is answered by a success that is none. That must not become the answer to the
// client: crane takes 202 for its tag, too.
func TestASuccessThatIsNoAnswerToWhatWasAskedIsNotTheClients(t *testing.T) {
	r, m, c, tree, plain := moodyRig(t)
	m.mood.Store(&mood{is(http.MethodGet, "/manifests/"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusAccepted)
	}})
	r.request(http.MethodPut, "/v2/app/manifests/1", tree.Root.Bytes(), "Content-Type", tree.Root.MediaType).want(t, http.StatusBadGateway, "UNAVAILABLE")
	m.check(r, c, tree, plain)
}

// A client that gives up on a registry that hangs takes its request with it.
func TestAHangingUpstreamHoldsNobodyLongerThanTheClientWaits(t *testing.T) {
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) {
			before := settled(t)
			r := s.rig(t)
			hanging, over := make(chan struct{}, 64), make(chan struct{})
			defer close(over) // whatever fails, the registry can end
			r.answers(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
				_, _ = io.Copy(io.Discard, r.Body) // net/http sees a client that goes away only then
				hanging <- struct{}{}
				select {
				case <-r.Context().Done():
				case <-over:
				}
			})
			ctx, giveUp := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := s.push(ctx, proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: r.tree, Sequential: true, MountFrom: s.from})
				ended <- err
			}()
			receive(t, "request that hangs", hanging)
			giveUp()
			if err := receive(t, "end of the push", ended); err == nil {
				t.Error("the push succeeds")
			}
			r.proxy.HandlersEnd()
			r.check()
			r.server.Close()
			_ = r.proxy.Close()
			transport.CloseIdleConnections()
			eventually(t, "back to the goroutines of before", func() bool { return ours() <= before })
		})
	}
}

// Answers byte by byte, and a connection for each request, are only slow.
func TestATricklingUpstreamWithoutKeepAliveIsOnlySlow(t *testing.T) {
	r, m, c, tree, plain := moodyRig(t)
	r.upstream.Server.Config.SetKeepAlivesEnabled(false)
	m.mood.Store(&mood{func(*http.Request) bool { return true }, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&trickle{w}, r)
	}})
	if err := tryPush(r, c.push, tree); err != nil {
		t.Fatal(err)
	}
	r.finished(tree, plain, c.act)
	m.check(r, c, tree, plain)
}

type trickle struct{ http.ResponseWriter }

func (t *trickle) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := t.ResponseWriter.Write(b[i : i+1]); err != nil {
			return i, err
		}
		t.ResponseWriter.(http.Flusher).Flush()
	}
	return len(b), nil
}

// A registry that says it has a layer, so that nobody sends it, and then misses it (garbage collection does that):
// its refusal passes as it is, and the next push is whole.
func TestAnUpstreamThatChangesItsMindRefusesInItsOwnWordsAndARetryConverges(t *testing.T) {
	for _, client := range []proxytest.Client{{Name: "buildkit", Push: proxytest.BuildKit}, {Name: "skopeo", Push: proxytest.Skopeo}} {
		t.Run(client.Name, func(t *testing.T) {
			r, m, c, tree, plain := moodyRig(t)
			c.push = client.Push
			layer := tree.Images()[0].Layers[0]
			m.mood.Store(&mood{is(http.MethodHead, "/blobs/"+layer.Digest), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("Docker-Content-Digest", layer.Digest)
				w.Header().Set("Content-Length", strconv.FormatInt(layer.Size, 10))
			}})
			err := tryPush(r, c.push, tree)
			if err == nil || !strings.Contains(err.Error(), "MANIFEST_BLOB_UNKNOWN") && !strings.Contains(err.Error(), "blob unknown") {
				t.Errorf("the client hears %v, want upstream's refusal", err)
			}
			r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusNotFound)
			m.check(r, c, tree, plain)
		})
	}
}

// The message names the host, since that is what is wrong: in the name, or in the machine's resolver.
func TestAHostThatDNSDoesNotKnowIsNamed(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.Upstreams[0].URL = "https://registry.invalid" })) // RFC 6761
	began := time.Now()
	a := r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusBadGateway, "UNAVAILABLE")
	for _, want := range []string{"registry.invalid", "check the host in the upstream's url"} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("no %q in %s", want, a.body)
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the client waits %s", took)
	}
}
