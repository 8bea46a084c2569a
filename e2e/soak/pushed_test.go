//go:build soak

package soak

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

// pushed are the pushes that ended well.
type pushed struct {
	mu  sync.Mutex
	all map[push]bool
}

type push struct {
	sluice                    *sluice
	repo, original, forwarded string
}

func (p *pushed) add(s *sluice, repo string, tree, plain *proxytest.Tree) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[push{s, repo, tree.Digest(), plain.Digest()}] = true
}

const pulls = 100 // of each process; reading them all takes longer than a soak

var notKept = regexp.MustCompile(`msg="pushed without keeping attestations.* original=(sha256:[0-9a-f]{64})`)

// pullable reads what was pushed by the digest of what was pushed, whole with its attestations: it was not lost, but where
// on_storage_error said so and the log does. Where the rule is strip, an index does not look for its statements, and what
// on_storage_error lost of them shows only now: then the answer names what is upstream.
func (p *pushed) pullable(t *testing.T) {
	t.Helper()
	lost, read, skipped, forgotten := map[*sluice]map[string]bool{}, map[*sluice]int{}, 0, 0
	for x := range p.all {
		if lost[x.sluice] == nil {
			lost[x.sluice] = map[string]bool{}
			for _, m := range notKept.FindAllSubmatch(x.sluice.logged(t), -1) {
				lost[x.sluice][string(m[1])] = true
			}
		}
		if lost[x.sluice][x.original] {
			skipped++
			continue
		}
		if read[x.sluice]++; read[x.sluice] > pulls {
			continue
		}
		if !x.pull(t) {
			forgotten++
		}
	}
	t.Logf("of %d different pushes %d are lost as on_storage_error has it, %d are not whole where the rule is strip, and of the others up to %d by process are as they were pushed", len(p.all), skipped, forgotten, pulls)
}

// logged is what the log says of a push.
func (x push) logged(t *testing.T) string {
	var of []string
	for line := range strings.Lines(string(x.sluice.logged(t))) {
		if strings.Contains(line, x.original) {
			of = append(of, line)
		}
	}
	return strings.Join(of, "")
}

func (x push) pull(t *testing.T) (whole bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	transport := &http.Transport{TLSClientConfig: x.sluice.trusted()}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	q, err := http.NewRequestWithContext(ctx, http.MethodHead, x.sluice.url()+"/v2/"+x.repo+"/manifests/"+x.original, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", proxytest.MediaTypeOCIIndex)
	resp, err := c.Do(q)
	if err != nil {
		t.Error(err)
		return true
	}
	resp.Body.Close()
	got := resp.Header.Get("Sluice-Forwarded-Digest")
	if whole := x.sluice.forwards && got == "" && x.sluice.up.has(x.repo, "manifests/"+x.original) != ""; got != x.forwarded && !whole {
		t.Errorf("%s: %s of %s is answered %s and said to be forwarded as %q, want %s. Its log says of it, and last of all:\n%s\n%s",
			x.sluice.name, x.original, x.repo, resp.Status, got, x.forwarded, x.logged(t), x.sluice.tail())
	}
	if resp.StatusCode == http.StatusNotFound && strings.HasPrefix(x.repo, "strip/") {
		return false
	}
	if _, err := proxytest.Pull(ctx, proxytest.PullOptions{BaseURL: x.sluice.url(), Repository: x.repo, Reference: x.original, Client: c}); err != nil {
		t.Errorf("%s: what was pushed is not there: %v", x.sluice.name, err)
	}
	return true
}
