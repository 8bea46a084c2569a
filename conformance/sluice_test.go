package conformance

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy"
	"sluice/proxy/config"
)

// onlyHost fails requests to any other host: a client of a proxy may be able to reach nothing else, so no Location and no Link
// of the registry behind it may come through.
type onlyHost struct {
	host string
	next http.RoundTripper
}

func (o onlyHost) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != o.host {
		return nil, fmt.Errorf("%s leads around the proxy", r.URL)
	}
	return o.next.RoundTrip(r)
}

// sluice starts a proxy with this configuration.
func sluice(t *testing.T, name, yaml string) Target {
	t.Helper()
	c, err := config.Parse("test.yml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(proxy.Options{Config: c, Storage: inmemory.New(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	target := serve(t, p.Handler())
	u, err := url.Parse(target.URL)
	if err != nil {
		t.Fatal(err)
	}
	target.Name = name
	target.Client = &http.Client{Transport: onlyHost{u.Host, target.Client.Transport}}
	return target
}

// Nothing fails through Sluice that passes without it, whatever it does with attestations: no case pushes one whole.
func TestNothingIsLostThroughSluice(t *testing.T) {
	type proxied struct{ name, config string } // config: with the registry's URL for %[1]q and a folder for %[2]q
	for _, tt := range []struct {
		registry string
		start    func(*testing.T) Target
		proxies  []proxied
	}{
		{"olareg", anyTypeTarget, []proxied{
			{"store", `{upstreams: [{url: %[1]q}], attestations: store}`},
			{"strip", `{upstreams: [{url: %[1]q}], attestations: strip}`},
			{"forward", `{upstreams: [{url: %[1]q}], attestations: forward}`},
			{"showing originals", `{upstreams: [{url: %[1]q}], attestations: store, view: original}`},
			{"under a prefix", `{upstreams: [{url: %[1]q, prefix: conformance}], attestations: store}`},
		}},
		{"olareg that wants long chunks", longChunksTarget, []proxied{
			{"store", `{upstreams: [{url: %[1]q}], attestations: store}`},
		}},
		{"distribution", distributionTarget, []proxied{
			{"store", `{upstreams: [{url: %[1]q}], attestations: store}`},
			{"forward", `{upstreams: [{url: %[1]q}], attestations: forward}`},
			// another registry, but the same program: Sluice's own, on disk
			{"embedded", `{upstreams: [{url: embedded}], storage: {filesystem: {rootdirectory: %[2]q}}}`},
		}},
	} {
		t.Run(tt.registry, func(t *testing.T) {
			direct := tt.start(t)
			direct.Name = tt.registry
			var via []Target
			for _, p := range tt.proxies {
				via = append(via, sluice(t, p.name, fmt.Sprintf(p.config+"%.0[1]s%.0[2]s", direct.URL, t.TempDir())))
			}
			Compare(t, direct, via...)
		})
	}
}

// Not a case of the suite, since olareg loses some of them; Sluice, which keeps the list that distribution cannot, must not.
func TestReferrersThatArePushedAtOnceAreAllListed(t *testing.T) {
	direct := distributionTarget(t)
	via := sluice(t, "store", fmt.Sprintf(`{upstreams: [{url: %q}], attestations: store}`, direct.URL))
	const note = "application/vnd.example.note"
	at := testCase{"Content Discovery/Listing Referrers", "lists what several clients push at once", Must, func(c *check) {
		subject := c.pushImage(c.repo("a"), nil).descriptor()
		var documents []document
		var want []v1.Descriptor
		for range 8 {
			d := c.image(c.repo("a"), func(m *v1.Manifest) { m.Subject, m.ArtifactType = &subject, note })
			documents, want = append(documents, d), append(want, entry(d, note, nil))
		}
		c.atOnce(len(documents), func(i int) {
			c.want(c.putManifest(c.repo("a"), documents[i].digest, documents[i]), http.StatusCreated)
		})
		list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
		c.wantReferrers(list, want...)
	}}
	if err := at.try(t, via); err != nil {
		t.Error(err)
	}
}
