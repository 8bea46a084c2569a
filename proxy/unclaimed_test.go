package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// An attestation that `store` held and no index has named yet may be the only copy there is, also when a rule has changed
// meanwhile to one that takes nothing out.
func TestAnAttestationThatStoreHeldIsKeptAsideAlsoUnderForward(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"forward": func(c *config.Config) { c.Attestations = filters.Forward },
		"dry run": func(c *config.Config) { c.DryRun = true },
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Store), clock(func() time.Time { return now }))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			pushHalf(t, r, "app", "", tree)
			change(r.config)
			r.restart()
			now = now.Add(10 * 24 * time.Hour)
			r.proxy.Sweep(context.Background())
			m := tree.Attestations()[0]
			r.wantUnclaimed("app", m.Digest, m)
		})
	}
}

// What an index named under `strip` is gone with retention, as that says, whatever the rule says by then.
func TestWhatStripTookOutIsNotKeptAsideByAnotherRule(t *testing.T) {
	for _, act := range []filters.Action{filters.Forward, filters.Store} {
		t.Run(string(act), func(t *testing.T) {
			now := time.Now()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Strip), clock(func() time.Time { return now }))
			r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
			action(act)(r)
			r.restart()
			now = now.Add(10 * 24 * time.Hour)
			r.proxy.Sweep(context.Background())
			if kept := r.files("/attestations", "/_unclaimed/"); len(kept) > 0 {
				t.Errorf("kept aside: %v", kept)
			}
			if left := r.files("/quarantine", ""); len(left) > 0 {
				t.Errorf("left in quarantine: %v", left)
			}
		})
	}
}

// A client that finds a statement here, since another attestation has it, does not send it again. What is kept aside has it
// all the same, for when the other one is deleted.
func TestAnUnclaimedAttestationHasTheStatementThatItShares(t *testing.T) {
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Store), clock(func() time.Time { return now }))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	for range 4 {
		now = now.Add(24 * time.Hour)
		r.proxy.Sweep(context.Background())
	}
	m := tree.Attestations()[0]
	for _, b := range m.Blobs() {
		r.request(http.MethodHead, "/v2/app/blobs/"+b.Digest, nil).want(t, http.StatusOK)
	}
	again := append(m.Bytes(), '\n')
	r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(again), again, "Content-Type", m.MediaType).want(t, http.StatusCreated)
	now = now.Add(10 * 24 * time.Hour)
	r.proxy.Sweep(context.Background())
	r.wantUnclaimed("app", ocidoc.DigestOf(again), m)
}

// A disk may spoil what it holds. That is lost, and keeps nothing else: neither the rest of its attestation from being kept aside,
// nor its generation from being swept.
func TestADamagedBlobOfAnUnclaimedAttestationDoesNotStayForEver(t *testing.T) {
	for name, stored := range map[string]bool{"it is nowhere else": false, "another attestation has it": true} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Store), clock(func() time.Time { return now }))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
			if stored {
				r.push(proxytest.BuildKit, "app", "1", tree)
			}
			m := tree.Attestations()[0]
			unnamed := append(m.Bytes(), '\n')
			for _, b := range m.Blobs() {
				send(t, r, "app", b.Bytes())
			}
			r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(unnamed), unnamed, "Content-Type", m.MediaType).want(t, http.StatusCreated)
			spoiled := strings.TrimPrefix(m.Layers[0].Digest, "sha256:")
			held := r.files("/quarantine", spoiled)
			if len(held) == 0 {
				t.Fatal("the statement is not held")
			}
			for _, f := range held {
				if err := r.storage.PutContent(context.Background(), f, []byte("spoiled")); err != nil {
					t.Fatal(err)
				}
			}
			now = now.Add(10 * 24 * time.Hour)
			r.proxy.Sweep(context.Background())
			if left := r.files("/quarantine", ""); len(left) > 0 {
				t.Errorf("left in quarantine: %v", left)
			}
			kept := strings.Join(r.files("/attestations/app", "/_unclaimed/"), "\n")
			for _, d := range append(digestsIn(m), ocidoc.DigestOf(unnamed)) {
				d = strings.TrimPrefix(d, "sha256:")
				if want := d != spoiled || stored; strings.Contains(kept, d) != want {
					t.Errorf("%s is kept aside: %t", d, !want)
				}
			}
			if got := strings.Contains(r.log.String(), "is damaged, and lost"); got == stored {
				t.Errorf("the log tells of a loss: %t", got)
			}
		})
	}
}

// wantUnclaimed asserts that an attestation is kept aside with all its blobs.
func (r *rig) wantUnclaimed(repo, digest string, m *proxytest.Manifest) {
	r.t.Helper()
	kept := strings.Join(r.files("/attestations/"+repo, "/_unclaimed/"), "\n")
	for _, d := range append(digestsIn(m), digest) {
		if !strings.Contains(kept, strings.TrimPrefix(d, "sha256:")) {
			r.t.Errorf("%s is not kept aside: %s", d, kept)
		}
	}
}
