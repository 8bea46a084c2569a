package proxy_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// mayBe are the digests that may be under a tag: upstream, and what a push of them was of.
type mayBe struct{ forwarded, originals []string }

// madeOf is what a push puts upstream, "" if that is not told beforehand.
func (l *woven) madeOf(a *act, c *config.Config) string {
	if c.Attestations == filters.Forward {
		return a.tree.Digest()
	}
	if c.Unwrap != filters.UnwrapAuto && len(a.tree.Images()) == 1 {
		return ""
	}
	stripped, err := proxytest.Stripped(a.tree)
	if err != nil {
		l.t.Fatal(err)
	}
	return stripped.Digest()
}

// tagged says what may be under tags after acts that were made at the same time. A push that failed has put its own there or
// not, and so has one beside another.
func (l *woven) tagged(acts ...*act) {
	for _, a := range acts {
		if a.kind != "push" || a.o.ByDigest {
			continue
		}
		at := place{a.repo, a.tag}
		beside := slices.DeleteFunc(slices.Clone(acts), func(b *act) bool { return b.kind != "push" || b.o.ByDigest || b.repo != a.repo || b.tag != a.tag })
		if beside[0] != a {
			continue // done
		}
		before, now := l.under[at], &mayBe{}
		stays := true // what was there
		for _, b := range beside {
			stays = stays && (b.err != nil || b.put.IsZero())
			if slices.ContainsFunc(beside, func(c *act) bool { return c.err == nil && !c.put.IsZero() && c.begun.After(b.ended) }) {
				continue
			}
			now.originals = append(now.originals, b.tree.Digest())
			for _, r := range b.by[:max(b.most, 1)] { // what failed with the first may have come last
				now.forwarded = append(now.forwarded, l.madeOf(b, r.config))
			}
		}
		if stays && before != nil {
			now.forwarded, now.originals = append(now.forwarded, before.forwarded...), append(now.originals, before.originals...)
		} else if stays {
			now.forwarded = append(now.forwarded, "")
		}
		l.under[at] = now
	}
	for _, a := range acts {
		if a.kind == "image" && a.sent {
			for _, p := range inOrder(l.under) {
				if p.repo == a.repo {
					delete(l.under, p)
				}
			}
		}
	}
}

// checkTags: I6, and what is under a tag is there without Sluice, too.
func (l *woven) checkTags() {
	l.t.Helper()
	to := &proxytest.Direct{Handler: l.registry, Woven: true}
	for _, p := range inOrder(l.under) {
		path, may := "/v2/"+p.repo+"/manifests/"+p.ref, l.under[p]
		under := l.send(context.Background(), to)(http.MethodHead, path, nil, acceptAll...).Header.Get("Docker-Content-Digest")
		if !slices.Contains(may.forwarded, under) && !slices.Contains(may.forwarded, "") {
			l.t.Errorf("%s:%s is %q upstream, and may be one of %v", p.repo, p.ref, under, may.forwarded)
		}
		if under == "" {
			continue
		}
		if _, err := proxytest.Pull(context.Background(), proxytest.PullOptions{BaseURL: wovenURL, Repository: p.repo, Reference: under, Client: &http.Client{Transport: to}}); err != nil {
			l.t.Errorf("%s:%s cannot be had from the registry itself: %v", p.repo, p.ref, err)
		}
		for _, r := range l.replicas {
			shown := l.send(context.Background(), r)(http.MethodHead, path, nil, acceptAll...).Header.Get("Docker-Content-Digest")
			if shown != under && (r.config.View != config.ViewOriginal || !slices.Contains(may.originals, shown)) {
				l.t.Errorf("%s shows %s under %s:%s, which upstream has as %s, of one of %v", r.name, shown, p.repo, p.ref, under, may.originals)
			}
		}
	}
}

// wovenECR is a double of Amazon ECR that lets in who has no credentials.
func wovenECR(t *testing.T, r *rand.Rand, noReferrers bool) *proxytest.Upstream {
	t.Helper()
	yes := func() bool { return r.IntN(3) == 0 }
	s, err := ecrsim.New(ecrsim.Options{Switches: ecrsim.Switches{
		NoThrottling: true, Templates: []ecrsim.Template{{Prefix: "ROOT"}}, NoReferrers: noReferrers,
		BlobMounting: yes(), HideUnreferenced: yes(), CancelUploads: yes(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	user, password := s.Password(ecrsim.DefaultAccessKey)
	next := s.Registry()
	return &proxytest.Upstream{
		Kind: "ecrsim", URL: "https://" + ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.SetBasicAuth(user, password)
			next.ServeHTTP(w, r)
		}),
	}
}
