package proxy_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"sluice/filters"
)

// acknowledged are what clients were told is there.
type acknowledged struct {
	mu               sync.Mutex
	blobs, manifests map[place]bool
}

func newAcknowledged() *acknowledged {
	return &acknowledged{blobs: map[place]bool{}, manifests: map[place]bool{}}
}

func (a *acknowledged) client(t testing.TB) *http.Client {
	own := &http.Transport{DisableCompression: true}
	t.Cleanup(own.CloseIdleConnections)
	return &http.Client{Transport: listening{own, a}}
}

type listening struct {
	http.RoundTripper
	a *acknowledged
}

var pushedPath = regexp.MustCompile(`^/v2/(.+)/(blobs/uploads|manifests)/(.*)$`)

func (l listening) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusCreated {
		return resp, err
	}
	// The answer is whole when its body is.
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	l.a.mu.Lock()
	defer l.a.mu.Unlock()
	if m := pushedPath.FindStringSubmatch(r.URL.Path); m != nil && m[2] == "manifests" {
		if strings.Contains(m[3], ":") {
			l.a.manifests[place{m[1], m[3]}] = true
		}
	} else if m != nil {
		for _, digest := range append(r.URL.Query()["digest"], r.URL.Query()["mount"]...) {
			l.a.blobs[place{m[1], digest}] = true
		}
	}
	return resp, nil
}

// heard checks that what clients were told is there can be had. What no index names yet is only read by its digest. Two
// answers promise less: `{}` is not kept where the storage fails, and on_storage_error: strip keeps nothing of attestations.
// An original of what ECR does not give back is not there either, see ended.
func (l *stormyLife) heard(a *acknowledged, stripped bool) {
	l.t.Helper()
	excused := map[string]bool{filters.EmptyDigest: true}
	for _, tree := range l.trees {
		excused[tree.Digest()] = stripped || l.ecr && l.leaked && l.action == filters.Strip
		if !stripped {
			continue
		}
		for _, m := range tree.Attestations() {
			excused[m.Digest], excused[m.Config.Digest] = true, true
			for _, b := range m.Layers {
				excused[b.Digest] = true
			}
		}
	}
	for kind, all := range map[string]map[place]bool{"blobs": a.blobs, "manifests": a.manifests} {
		for _, p := range inOrder(all) {
			method := http.MethodGet
			if l.ecr && kind == "blobs" {
				method = http.MethodHead // it does not give back what no image refers to
			}
			if got := one(l.life, l.rs...).request(method, "/v2/"+p.repo+"/"+kind+"/"+p.ref, nil, acceptAll...); got.StatusCode >= 400 && !excused[p.ref] {
				l.t.Errorf("%s %s of %s was answered 201, and now it is %s: %s", kind, p.ref, p.repo, got.Status, got.body)
			}
		}
	}
}
