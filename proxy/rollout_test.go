package proxy_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A rollout is a setting of which two values serve the same pushes for a while.
type rollout struct {
	name     string
	old, new func(*config.Config)
	// left says that with one of the two attestations are in the registry, where its setting wants them.
	left bool
	// lost says that one of the two does not give originals back, or only for a while.
	lost bool
}

func attestations(a filters.Action) func(*config.Config) {
	return func(c *config.Config) { c.Attestations = a }
}

func rollouts() []rollout {
	unchanged := func(*config.Config) {}
	return []rollout{
		{name: "store and strip", old: attestations(filters.Store), new: attestations(filters.Strip), lost: true},
		{name: "store and forward", old: attestations(filters.Store), new: attestations(filters.Forward), left: true, lost: true},
		{name: "strip and forward", old: attestations(filters.Strip), new: attestations(filters.Forward), left: true, lost: true},
		{name: "unwrap", old: unchanged, new: func(c *config.Config) { c.Unwrap = filters.UnwrapNever }},
		{name: "media types", old: unchanged, new: func(c *config.Config) { c.MediaTypes = filters.MediaTypesDocker }},
		{name: "view", old: unchanged, new: func(c *config.Config) { c.View = config.ViewOriginal }},
		{name: "retention", old: unchanged, new: func(c *config.Config) { c.Retention = 30 }},
		{name: "statements as referrers", old: unchanged, new: func(c *config.Config) { c.Store.To = config.StoreToReferrers }, left: true},
		{name: "statements in a repository", old: unchanged, new: func(c *config.Config) { c.Store.To = config.StoreToRepository }, left: true},
		{name: "statements of one blob only", old: unchanged, new: func(c *config.Config) { c.MaxHeldBlob = 1 << 20 }},
	}
}

// I10 while a change of the configuration goes from replica to replica: the tag is what one of the two configurations makes of
// the push, whole, and nothing of it is lost. After the rollout it is what the new one makes.
func TestReplicasOfTwoConfigurationsMakeWhatOneOfThemMakes(t *testing.T) {
	clients := []proxytest.Client{{Name: "buildkit", Push: proxytest.BuildKit}, {Name: "skopeo", Push: proxytest.Skopeo}, {Name: "regctl", Push: proxytest.Regctl}}
	for i, c := range rollouts() {
		for j, client := range clients {
			if (i+j)%2 != 0 && client.Name != "buildkit" {
				continue // each change with BuildKit's order and with another one
			}
			platforms := []string{"linux/amd64", "linux/arm64"}[:1+(i+1)%2] // one is unwrapped, where that is not what changes
			t.Run(c.name+", "+client.Name, func(t *testing.T) {
				t.Parallel()
				c.try(t, client.Push, proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: platforms, Form: proxytest.FormLegacy, SBOM: true}))
			})
		}
	}
}

func (c rollout) try(t *testing.T, push proxytest.Pusher, tree *proxytest.Tree) {
	alone := func(change func(*config.Config)) string {
		r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(change))
		r.push(push, "app", "1", tree)
		return r.upstreamDigest("app", "1")
	}
	before, after := alone(c.old), alone(c.new)

	up, shared := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New()
	var replicas []*rig
	for _, change := range []func(*config.Config){c.old, c.new, c.old} {
		replicas = append(replicas, newRig(t, up, storage(shared), with(change)))
	}
	settle := func() {
		for _, r := range replicas {
			r.proxy.Settle()
		}
	}
	balancer := balance(t, replicas)
	for i := range 3 { // an odd and an even number of requests, so that the tag is put at another one each time
		if i > 0 {
			request(t, http.MethodGet, balancer+"/v2/", nil)
		}
		if _, err := push(context.Background(), proxytest.Options{BaseURL: balancer, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
			t.Fatalf("push %d: %v", i, err)
		}
		settle()
		if got := replicas[0].upstreamDigest("app", "1"); got != before && got != after {
			t.Errorf("push %d: the tag is %s, the configurations make %s and %s", i, got, before, after)
		}
		if proxytest.AssertComplete(t, up); !c.left {
			proxytest.AssertClean(t, up)
		}
		if c.lost {
			continue
		}
		if back, err := proxytest.PullAll(context.Background(), balancer, "app", tree.Digest()); err != nil {
			t.Errorf("push %d: the original cannot be read: %v", i, err)
		} else if err := back.Equal(tree); err != nil {
			t.Errorf("push %d: %v", i, err)
		}
	}
	last := newRig(t, up, storage(shared), with(c.new))
	last.push(push, "app", "1", tree)
	if got := last.upstreamDigest("app", "1"); got != after {
		t.Errorf("after the rollout the tag is %s, want %s", got, after)
	}
	proxytest.AssertComplete(t, up)
}
