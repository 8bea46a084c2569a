//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// The README's first command: no configuration, and a registry of its own behind the proxy.
func TestWithoutConfigurationSluiceIsARegistryOfItsOwn(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	host, dir, bin := fmt.Sprintf("127.0.0.1:%d", port), scratch(t), shared(t, bench.sluice)
	serve := daemon{
		name: "sluice", argv: []string{bin, "serve", "--listen", host, "--admin", "", "--data", filepath.Join(dir, "data")},
		ready: httpReady("http://" + host + "/v2/"),
	}
	p, err := bench.start(serve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop() })

	k, app, classic := needBuilder(t, "new"), newApplication(t, 80), shared(t, bench.classic)
	original := k.mustBuild(t, app, "linux/amd64", push(host+"/app:1")...)
	clean := k.mustBuild(t, app, "linux/amd64", withoutAttestations(host+"/reference:1")...)
	check := func() {
		t.Helper()
		if got := get(t, host, "app", "1").Digest; got != clean || got == original {
			t.Errorf("the tag is %s; sent %s, without attestations it would be %s", got, original, clean)
		}
		if out := run(t, bin, "attestations", "list", host+"/app:1"); !strings.Contains(out, "slsa.dev/provenance") {
			t.Errorf("the provenance is not listed: %s", out)
		}
		if out := run(t, bin, "resolve", host+"/app@"+original); !strings.Contains(out, clean) {
			t.Errorf("resolve prints %s, want %s", out, clean)
		}
		classic.run(t, "pull", host+"/app:1")
		classic.run(t, "tag", host+"/app:1", host+"/app:2")
		classic.run(t, "push", host+"/app:2")
	}
	check()
	p.stop()
	if p, err = bench.start(serve); err != nil {
		t.Fatal(err)
	}
	check()
}

// Many clients at once push the same layers to one repository, and twice the same tag.
func TestPushesAtTheSameTimeDoNotDisturbEachOther(t *testing.T) {
	m, w, crane, regctl, oras := needImages(t), newWorld(t), tool(t, "crane"), tool(t, "regctl"), tool(t, "oras")
	k, app := needBuilder(t, "new"), newApplication(t, 81)
	all := func(host, repository string, image map[string]string, build ...string) {
		var g errgroup.Group
		for i := range 3 {
			for _, form := range forms {
				from, to := image[form.name], host+"/"+repository+":"+form.name
				for client, argv := range map[string][]string{
					"crane":  {crane, "copy", "--insecure", from, to},
					"regctl": append([]string{regctl, "image", "copy", from, to}, plain(from, to)...),
					"oras":   {oras, "cp", "--from-plain-http", "--to-plain-http", from, to},
					"again":  {crane, "copy", "--insecure", from, fmt.Sprintf("%s-%d", to, i)},
				} {
					g.Go(func() error {
						if _, err := tryRun(argv...); err != nil {
							return fmt.Errorf("%s: %w", client, err)
						}
						return nil
					})
				}
			}
		}
		g.Go(func() error {
			_, err := k.build(app, bothPlatforms, build...)
			return err
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	all(w.direct, "reference", m.clean, withoutAttestations(w.direct+"/reference:built")...)
	all(w.via, "app", m.attested, push(w.via+"/app:built")...)
	w.same(t, "app", "reference")
}
