package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestRealmsOnOtherHosts(t *testing.T) {
	stranger := newFake(t, &fake{})
	strange := strings.Replace(stranger.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		realm string
		hosts []string
		want  string // of the error; "" = allowed
	}{
		"the same name on another port":  {stranger.URL + "/token", nil, ""},
		"a stranger":                     {strange + "/token", nil, "add localhost:"},
		"a stranger that is listed":      {strange + "/token", []string{"localhost"}, ""},
		"listed with its port":           {strange + "/token", []string{strings.TrimPrefix(strange, "http://")}, ""},
		"another one listed":             {strange + "/token", []string{"localhost.example.com"}, "add localhost:"},
		"a URL with a user":              {strings.Replace(stranger.URL, "http://", "http://u:p@", 1), nil, "not an http or https URL"},
		"a file":                         {"file:///etc/passwd", nil, "not an http or https URL"},
		"a host that ends like it":       {"http://evil127.0.0.1/token", nil, "hosts"},
		"the registry's name as a user":  {"http://127.0.0.1@evil.example/token", nil, "not an http or https URL"},
		"the registry's name in a query": {"http://evil.example/?127.0.0.1", nil, "evil.example"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "bearer", realm: c.realm, allow: only("Bearer t1")})
			stranger.mu.Lock()
			stranger.tokens = nil
			stranger.mu.Unlock()
			r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: password("hunter2"), Hosts: c.hosts})
			resp, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
				return
			}
			if !errors.Is(err, ErrHost) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v; want ErrHost with %q", err, c.want)
			}
			if n := len(stranger.tokenRequests()); n != 0 {
				t.Error("credentials were sent")
			}
		})
	}
}

func TestWellKnownRealms(t *testing.T) {
	for _, c := range []struct {
		registry, realm string
		ok              bool
	}{
		{"https://docker.io", "https://auth.docker.io/token", true},
		{"https://registry-1.docker.io", "https://auth.docker.io/token", true},
		{"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"https://registry.example.com", "https://auth.docker.io/token", false},
		{"https://registry.example.com", "https://auth.example.com/token", false},
		{"https://registry.example.com", "https://REGISTRY.example.com:5001/token", true},
		{"https://registry.example.com", "http://registry.example.com/token", false}, // plain http
		{"https://localhost:5000", "http://localhost:5001/token", true},              // stays on this machine
		{"http://registry.example.com", "https://registry.example.com/token", true},
	} {
		r, _ := open(t, Options{URL: c.registry, Credentials: Anonymous})
		if _, err := r.realm(c.realm); (err == nil) != c.ok {
			t.Errorf("%s names %s: error = %v", c.registry, c.realm, err)
		}
	}
}
