package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// everyName is found at 127.0.0.1.
func everyName() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return answering(func(query []byte, end int) []byte {
			answer := append([]byte{}, query[:end]...) // RFC 1035 section 4.1
			answer[2], answer[3] = 0x80|query[2], 0x80
			copy(answer[6:12], make([]byte, 6))
			if binary.BigEndian.Uint16(query[end-4:]) == 1 { // type A
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
			}
			return answer
		}), nil
	}}
}

// A registry that is not to be trusted leads to what only this machine reaches, by an address or by a name.
func TestARedirectLeadsToNothingThatOnlyThisMachineReaches(t *testing.T) {
	var asked atomic.Int32
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "credentials of this machine")
	}))
	defer metadata.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(metadata.URL, "http://"), ":")
	var to atomic.Pointer[string]
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, *to.Load(), http.StatusTemporaryRedirect)
	}))
	defer registry.Close()
	_, own, _ := strings.Cut(strings.TrimPrefix(registry.URL, "http://"), ":")
	for name, c := range map[string]struct {
		url, to string
		hosts   []string
		allowed bool
	}{
		"an address":                     {"http://registry.example:" + own, "http://127.0.0.1:" + port, nil, false},
		"an IPv6 address of the same":    {"http://registry.example:" + own, "http://[::ffff:127.0.0.1]:" + port, nil, false},
		"no address at all":              {"http://registry.example:" + own, "http://0.0.0.0:" + port, nil, false},
		"a name":                         {"http://registry.example:" + own, "http://metadata.example:" + port, nil, false},
		"a name that is listed":          {"http://registry.example:" + own, "http://metadata.example:" + port, []string{"metadata.example"}, true},
		"from a registry on the machine": {"http://127.0.0.1:" + own, "http://localhost:" + port, nil, true},
	} {
		for _, follow := range []bool{true, false} { // what Sluice wants itself, and what clients want
			t.Run(name, func(t *testing.T) {
				asked.Store(0)
				to.Store(&c.to)
				o := Options{URL: c.url, Hosts: c.hosts, Credentials: Anonymous, Resolver: everyName()}
				if !follow {
					o.Redirects = "follow"
				}
				r, clock := open(t, o)
				resp, err := r.Do(t.Context(), Request{Repository: "app", Path: "blobs/sha256:1", Follow: follow})
				if err == nil {
					_ = resp.Body.Close()
				}
				if c.allowed && (err != nil || asked.Load() != 1) {
					t.Errorf("%v, asked %d times", err, asked.Load())
				}
				if !c.allowed && (!errors.Is(err, ErrHost) || asked.Load() != 0 || !strings.Contains(err.Error(), "`hosts`") || len(clock.slept) > 0) {
					t.Errorf("%v, asked %d times, tried again %d times", err, asked.Load(), len(clock.slept))
				}
			})
		}
	}
}

func TestWhatIsNearby(t *testing.T) {
	for address, want := range map[string]bool{
		"127.9.9.9": true, "::1": true, "0.0.0.0": true, "::": true, "169.254.169.254": true, "fe80::1%eth0": true, "::ffff:169.254.169.254": true,
		"10.0.0.1": false, "192.168.1.1": false, "203.0.113.1": false, "2001:db8::1": false, "fd00::1": false,
	} {
		if got := nearby(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}
