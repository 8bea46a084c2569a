//go:build e2e

package e2e

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// `store.to` in a registry: what real readers find there, at the registry itself and through Sluice.

// destinationWorlds are a registry without a referrers API and one that has it.
func destinationWorlds(t *testing.T, to string) map[string]*world {
	t.Helper()
	setting := "store: {to: " + to + "}"
	w := map[string]*world{"distribution": newWorld(t, setting)}
	w["distribution"].needSluice(t)
	u, err := url.Parse(proxytest.NewOlareg(t, proxytest.UpstreamOptions{Delete: true}).URL)
	if err != nil {
		t.Fatal(err)
	}
	o := &world{upstream: &registry{host: u.Host}, direct: u.Host}
	o.sluice = startSluice(t, o.upstream, "credentials: anonymous", setting)
	o.via = o.sluice.host
	w["olareg"] = o
	return w
}

func TestRealReadersFindAttestationsAsReferrersInTheRegistry(t *testing.T) {
	oras, regctl := tool(t, "oras"), tool(t, "regctl")
	for kind, w := range destinationWorlds(t, "referrers") {
		for _, form := range forms {
			t.Run(kind+" "+form.name, func(t *testing.T) {
				repository := "app-" + form.name
				k := needBuilder(t, form.builder)
				original := k.mustBuild(t, newApplication(t, 64), bothPlatforms, append(push(w.via+"/"+repository+":1"), "--provenance=mode=max")...)
				index := get(t, w.direct, repository, "1")
				for _, m := range index.Parsed.Manifests {
					if m.Platform == nil || m.Platform.OS == "unknown" {
						t.Errorf("the tag lists an attestation: %s", m.Digest)
					}
				}
				for _, host := range []string{w.direct, w.via} {
					image := host + "/" + repository + "@" + index.Parsed.Manifests[0].Digest
					if out := run(t, oras, "discover", "--plain-http", "--format", "json", image); strings.Count(out, attestationArtifact) != 1 {
						t.Errorf("oras discover %s does not find one attestation: %s", image, out)
					}
					if out := run(t, append([]string{regctl, "artifact", "list", "--format", "{{jsonPretty .}}", image}, plain(image)...)...); strings.Count(out, attestationArtifact) != 1 {
						t.Errorf("regctl artifact list %s does not find one attestation: %s", image, out)
					}
					show := run(t, append([]string{regctl, "artifact", "get", "--subject", image, "--filter-artifact-type", attestationArtifact}, plain(image)...)...)
					if !strings.Contains(show, "https://in-toto.io/Statement") {
						t.Errorf("regctl artifact get %s shows no statement: %.200s", image, show)
					}
					if found := w.sluice.list(t, host+"/"+repository+":1"); len(found) != 2 {
						t.Errorf("sluice attestations list %s shows %d statements, want 2", host, len(found))
					}
				}
				dir := filepath.Join(scratch(t), "exported")
				run(t, w.sluice.bin, "attestations", "export", "--dir", dir, w.direct+"/"+repository+":1")
				assertExported(t, dir, w.sluice.list(t, w.via+"/"+repository+":1"))
				w.sluice.restart(t)
				out := run(t, k.buildx, "imagetools", "inspect", "--builder", k.name, "--format", "{{json .Provenance}}", w.via+"/"+repository+"@"+original)
				if !strings.Contains(out, "buildType") {
					t.Errorf("imagetools sees no provenance by the original's digest: %s", out)
				}
				run(t, w.sluice.bin, "attestations", "delete", "--yes", w.via+"/"+repository+":1")
				if found := w.sluice.list(t, w.direct+"/"+repository+":1"); len(found) != 0 {
					t.Errorf("after the delete the registry has %v", found)
				}
			})
		}
	}
}

// cosign lists referrers of any type, when it is told to. It downloads and verifies only what cosign has signed.
func TestCosignTreeListsAttestationsStoredAsReferrers(t *testing.T) {
	for _, name := range cosigns {
		t.Run(name, func(t *testing.T) {
			cosign := tool(t, name)
			for kind, w := range destinationWorlds(t, "referrers") {
				needBuilder(t, "new").mustBuild(t, newApplication(t, 65), "linux/amd64", push(w.via+"/app:1")...)
				if out := run(t, cosign, "tree", "--experimental-oci11", "--allow-http-registry", w.direct+"/app:1"); !strings.Contains(out, attestationArtifact) {
					t.Errorf("%s: cosign tree shows no attestation: %s", kind, out)
				}
			}
		})
	}
}

func TestRealReadersFindAttestationsInTheSideRepository(t *testing.T) {
	oras, regctl := tool(t, "oras"), tool(t, "regctl")
	for kind, w := range destinationWorlds(t, "repository") {
		for _, form := range forms {
			t.Run(kind+" "+form.name, func(t *testing.T) {
				repository := "app-" + form.name
				k := needBuilder(t, form.builder)
				original := k.mustBuild(t, newApplication(t, 66), "linux/amd64", append(push(w.via+"/"+repository+":1"), "--provenance=mode=max")...)
				digest := get(t, w.direct, repository, "1").Digest
				image, side := w.direct+"/"+repository+":1", w.direct+"/"+repository+"-attestations"
				for what, args := range map[string][]string{
					"list": {regctl, "artifact", "list", "--format", "{{jsonPretty .}}", "--external", side, image},
					"get":  {regctl, "artifact", "get", "--subject", image, "--external", side, "--filter-artifact-type", attestationArtifact},
				} {
					want := map[string]string{"list": attestationArtifact, "get": "https://in-toto.io/Statement"}[what]
					if out := run(t, append(args, plain(image)...)...); !strings.Contains(out, want) {
						t.Errorf("regctl artifact %s --external finds no attestation: %.300s", what, out)
					}
				}
				if out := run(t, oras, "discover", "--plain-http", "--format", "json", image); strings.Contains(out, attestationArtifact) {
					t.Errorf("the image's own repository has an attestation: %s", out)
				}
				if kind == "distribution" { // the referrers tag is a tag like others
					tag := strings.Replace(digest, ":", "-", 1)
					if out := run(t, oras, "manifest", "fetch", "--plain-http", side+":"+tag); !strings.Contains(out, attestationArtifact) {
						t.Errorf("the referrers tag does not list the attestation: %s", out)
					}
				}
				if out := run(t, oras, "discover", "--plain-http", "--format", "json", w.via+"/"+repository+":1"); strings.Count(out, attestationArtifact) != 1 {
					t.Errorf("oras discover through Sluice does not find one attestation: %s", out)
				}
				w.sluice.restart(t)
				if found := w.sluice.list(t, w.via+"/"+repository+":1"); len(found) != 1 {
					t.Errorf("sluice attestations list shows %d statements, want 1", len(found))
				}
				out := run(t, k.buildx, "imagetools", "inspect", "--builder", k.name, "--format", "{{json .Provenance}}", w.via+"/"+repository+"@"+original)
				if !strings.Contains(out, "buildType") {
					t.Errorf("imagetools sees no provenance by the original's digest: %s", out)
				}
			})
		}
	}
}
