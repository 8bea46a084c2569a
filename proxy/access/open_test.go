package access

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOnlyNamesThatNoWebPageHasLeadToModeNone(t *testing.T) {
	local, all := mustNew(t, Options{Local: true}), mustNew(t, Options{})
	for host, want := range map[string]bool{
		"localhost:5000": true, "localhost": true, "LocalHost:5000": true, "localhost.:5000": true, "app.localhost:5000": true,
		"127.0.0.1:5000": true, "127.0.0.1": true, "127.9.9.9:1": true, "192.168.1.5:5000": true,
		"[::1]:5000": true, "[::1]": true, "[::ffff:127.0.0.1]:5000": true,
		"host.docker.internal:5001": true, "Host.Docker.Internal": true, "gateway.docker.internal:1": true,
		"host.containers.internal:5000": true, "host.lima.internal:5000": true,

		"": false, ":5000": false, ".": false, ".localhost:5000": false, "[]:5000": false, "[": false,
		"evil.example:5000": false, "evil.example": false, "evil.example.:5000": false, "registry:5000": false,
		"localhost.evil.example:5000": false, "evillocalhost:5000": false, "127.0.0.1.evil.example:5000": false,
		"host.docker.internal.evil.example": false, "evil.docker.internal": false, "[evil.example]:5000": false, "127.1:5000": false,
	} {
		r := request(basicAuth("bob", "x"))
		r.Host = host
		id, err := local.Authenticate(r)
		if want != (err == nil) || err != nil && !errors.Is(err, ErrDenied) || want != (id.Name == anonymous) {
			t.Errorf("Host %q: %+v, %v; want in: %v", host, id, err, want)
		}
		if _, err := all.Authenticate(r); err != nil {
			t.Errorf("Host %q, on an address that others reach: %v", host, err)
		}
	}
}

func TestModeNoneOnLoopbackIsNotForOtherPages(t *testing.T) {
	local, all := mustNew(t, Options{Local: true}), mustNew(t, Options{})
	for _, tt := range []struct {
		key, value string
		want       bool
	}{
		{"Origin", "http://evil.example", false},
		{"Origin", "http://localhost:3000", false},
		{"Origin", "null", false},
		{"Sec-Fetch-Site", "cross-site", false},
		{"Sec-Fetch-Site", "none", true}, // typed into the browser
		{"User-Agent", "Mozilla/5.0", true},
	} {
		r := request("")
		r.Host = "localhost:5000"
		r.Header.Set(tt.key, tt.value)
		if _, err := local.Authenticate(r); tt.want != (err == nil) || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %s: %v, want in: %v", tt.key, tt.value, err, tt.want)
		}
		if _, err := all.Authenticate(r); err != nil {
			t.Errorf("%s: %s, on an address that others reach: %v", tt.key, tt.value, err)
		}
	}
}

// The message is shown to whoever gave the registry a name in /etc/hosts: it must say the way out, and be one line
// whatever the name.
func TestARefusedNameIsToldWhatToDo(t *testing.T) {
	r := request("")
	r.Host = "a\x1b[31m\u202e" + strings.Repeat("b", 10<<10)
	_, err := mustNew(t, Options{Local: true}).Authenticate(r)
	if err == nil {
		t.Fatal("let in")
	}
	for _, want := range []string{"localhost", "access.mode", "access.insecure: true", `"a?[31m?bbb`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in: %v", want, err)
		}
	}
	if len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x1b\u202e") {
		t.Errorf("%d bytes: %q", len(err.Error()), err)
	}
}

func TestTheUsualNamesCostNoAllocation(t *testing.T) {
	local := mustNew(t, Options{Local: true})
	for _, host := range []string{"localhost:5000", "127.0.0.1:5000", "[::1]:5000", "host.docker.internal:5000"} {
		r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		r.Host = host
		if n := testing.AllocsPerRun(100, func() {
			if _, err := local.Authenticate(r); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("Host %s: %v allocations for each request", host, n)
		}
	}
}

func TestAPageDoesNotReachWhatOnlyThisMachineMay(t *testing.T) {
	h := OnlyLocal(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, tt := range []struct {
		host, key, value string
		want             int
	}{
		{"127.0.0.1:5080", "", "", http.StatusNoContent},
		{"localhost:5080", "User-Agent", "Prometheus/3", http.StatusNoContent},
		{"evil.example:5080", "", "", http.StatusForbidden},
		{"127.0.0.1:5080", "Origin", "http://evil.example", http.StatusForbidden},
		{"127.0.0.1:5080", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
	} {
		r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		r.Host = tt.host
		if tt.key != "" {
			r.Header.Set(tt.key, tt.value)
		}
		if h.ServeHTTP(w, r); w.Code != tt.want {
			t.Errorf("Host %s, %s %s: %d, want %d", tt.host, tt.key, tt.value, w.Code, tt.want)
		}
	}
}
