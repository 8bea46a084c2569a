package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/upstream"
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
func sluice(t *testing.T, yaml string) Target {
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
	target.Client = &http.Client{Transport: onlyHost{u.Host, target.Client.Transport}}
	return target
}

func embeddedTarget(t *testing.T) Target {
	t.Helper()
	h, closer, err := upstream.NewEmbedded(context.Background(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closer.Close() })
	return serve(t, h)
}

// Nothing fails through Sluice that passes without it, whatever it does with attestations: no case pushes one whole.
func TestNothingIsLostThroughSluice(t *testing.T) {
	for _, tt := range []struct {
		name   string
		direct func(*testing.T) Target
		config string // with the URL of direct for %s
	}{
		{"store over olareg", anyTypeTarget, `{upstreams: [{url: "%s"}], attestations: store}`},
		{"strip over olareg", anyTypeTarget, `{upstreams: [{url: "%s"}], attestations: strip}`},
		{"forward over olareg", anyTypeTarget, `{upstreams: [{url: "%s"}], attestations: forward}`},
		{"originals shown over olareg", anyTypeTarget, `{upstreams: [{url: "%s"}], attestations: store, view: original}`},
		{"under a prefix over olareg", anyTypeTarget, `{upstreams: [{url: "%s", prefix: conformance}], attestations: store}`},
		{"over olareg that wants long chunks", longChunksTarget, `{upstreams: [{url: "%s"}], attestations: store}`},
		{"store over distribution", distributionTarget, `{upstreams: [{url: "%s"}], attestations: store}`},
		{"forward over distribution", distributionTarget, `{upstreams: [{url: "%s"}], attestations: forward}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			direct := tt.direct(t)
			Compare(t, direct, sluice(t, fmt.Sprintf(tt.config, direct.URL)))
		})
	}
}

func TestNothingIsLostThroughSluiceWithItsOwnRegistry(t *testing.T) {
	Compare(t, embeddedTarget(t), sluice(t, fmt.Sprintf(`{upstreams: [{url: embedded}], storage: {filesystem: {rootdirectory: %q}}}`, t.TempDir())))
}
