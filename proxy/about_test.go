package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

const (
	bundleType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	notaryType  = "application/vnd.cncf.notary.signature"
	emptyConfig = "application/vnd.oci.empty.v1+json"
)

// A signature is an artifact about a manifest, and the blob in it.
type signature struct {
	subject, digest, artifactType string
	manifest, blob                []byte
}

// signatureOf is what cosign 3 writes (pkg/oci/remote/write.go, WriteReferrer), or notation.
func signatureOf(subject string, size int, artifactType string) *signature {
	s := &signature{subject: subject, artifactType: artifactType}
	if artifactType == bundleType {
		s.blob = fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"a"}},"dsseEnvelope":{"payload":%q}}`, bundleType, subject)
	} else {
		s.blob = fmt.Appendf(nil, `{"payload":%q,"protected":"a","header":{},"signature":"a"}`, subject)
	}
	s.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":2,"digest":%q},`+
		`"layers":[{"mediaType":%q,"size":%d,"digest":%q}],"subject":{"mediaType":%q,"size":%d,"digest":%q},"artifactType":%q}`,
		ociManifest, emptyConfig, filters.EmptyDigest, artifactType, len(s.blob), ocidoc.DigestOf(s.blob), ociManifest, size, subject, artifactType)
	s.digest = ocidoc.DigestOf(s.manifest)
	return s
}

func bundleOf(m *proxytest.Manifest) *signature {
	return signatureOf(m.Digest, len(m.Bytes()), bundleType)
}

// replace puts another blob into it.
func (s *signature) replace(blob []byte) {
	s.manifest = bytes.Replace(s.manifest, []byte(ocidoc.DigestOf(s.blob)), []byte(ocidoc.DigestOf(blob)), 1)
	s.manifest = bytes.Replace(s.manifest, fmt.Appendf(nil, `"size":%d`, len(s.blob)), fmt.Appendf(nil, `"size":%d`, len(blob)), 1)
	s.blob, s.digest = blob, ocidoc.DigestOf(s.manifest)
}

type sendFunc = func(method, path string, body []byte, header ...string) *answer

// push sends it as cosign does: each blob in one PATCH, and the manifest by its digest.
func (s *signature) push(send sendFunc, repo string, header ...string) *answer {
	if a := send(http.MethodHead, "/v2/"+repo+"/manifests/"+s.subject, nil, slices.Concat(acceptAll, header)...); a.StatusCode != http.StatusOK {
		return a
	}
	for _, b := range [][]byte{[]byte("{}"), s.blob} {
		a := send(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, header...)
		if a.StatusCode != http.StatusAccepted {
			return a
		}
		if a = send(http.MethodPatch, a.Header.Get("Location"), b, header...); a.StatusCode >= 300 {
			return a
		}
		if a = send(http.MethodPut, put(a.Header.Get("Location"), ocidoc.DigestOf(b)), nil, header...); a.StatusCode != http.StatusCreated {
			return a
		}
	}
	return send(http.MethodPut, "/v2/"+repo+"/manifests/"+s.digest, s.manifest, append([]string{"Content-Type", ociManifest}, header...)...)
}

// check reads it back as a verifier does: it is listed for what it signs, and nothing of it is missing.
func (s *signature) check(t testing.TB, send sendFunc, repo string, header ...string) {
	t.Helper()
	list := send(http.MethodGet, "/v2/"+repo+"/referrers/"+s.subject+"?artifactType="+url.QueryEscape(s.artifactType), nil, header...).want(t, http.StatusOK)
	if n := bytes.Count(list.body, []byte(s.digest)); n != 1 {
		t.Errorf("%s is listed %d times for %s: %s", s.digest, n, s.subject, list.body)
	}
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		a := send(method, "/v2/"+repo+"/manifests/"+s.digest, nil, slices.Concat(acceptAll, header)...).want(t, http.StatusOK)
		if method == http.MethodGet && !bytes.Equal(a.body, s.manifest) {
			t.Errorf("manifest of the signature: %s", a.body)
		}
		for _, want := range [][]byte{s.blob, []byte("{}")} {
			a = send(method, "/v2/"+repo+"/blobs/"+ocidoc.DigestOf(want), nil, header...)
			if a.StatusCode == http.StatusTemporaryRedirect { // Amazon ECR, of what is there
				a = request(t, method, a.Header.Get("Location"), nil)
			}
			a.want(t, http.StatusOK)
			if method == http.MethodGet && !bytes.Equal(a.body, want) {
				t.Errorf("blob of the signature: %s", a.body)
			}
		}
	}
}

// gone says that nothing of it can be read any more.
func (s *signature) gone(t *testing.T, r *rig, repo string) {
	t.Helper()
	if list := r.referrers(repo, s.subject); len(list.Manifests) > 0 {
		t.Errorf("still listed for %s: %v", s.subject, list)
	}
	r.request(http.MethodGet, "/v2/"+repo+"/manifests/"+s.digest, nil, acceptAll...).want(t, http.StatusNotFound)
	r.request(http.MethodGet, "/v2/"+repo+"/blobs/"+ocidoc.DigestOf(s.blob), nil).want(t, http.StatusNotFound)
}

// holds are the digests of all manifests that upstream has.
func (r *rig) holds(repo string) []string {
	return slices.Sorted(maps.Keys(r.upstream.Inspect(r.t).Repository(repo).Manifests))
}

// docker/github-builder signs every attestation manifest. The registry has none of these, and so it gets no signature either.
func TestASignatureOfAnAttestationStaysWithIt(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, act := range []filters.Action{filters.Store, filters.Strip} {
			for _, form := range forms {
				for _, kind := range []string{bundleType, notaryType} {
					t.Run(fmt.Sprint(act, form, kind), func(t *testing.T) {
						settings := []setting{action(act)}
						if act == filters.Store && kind == notaryType {
							settings = append(settings, with(func(c *config.Config) { c.View = config.ViewOriginal }))
						}
						r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), settings...)
						tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form})
						r.push(proxytest.BuildKit, "app", "1", tree)
						before := r.holds("app")
						var all []*signature
						for _, m := range tree.Attestations() {
							s := signatureOf(m.Digest, len(m.Bytes()), kind)
							a := s.push(r.request, "app").want(t, http.StatusCreated)
							if got := a.Header.Get("OCI-Subject"); got != m.Digest {
								t.Errorf("OCI-Subject %q", got)
							}
							all = append(all, s, signatureOf(s.digest, len(s.manifest), kind))
							all[len(all)-1].push(r.request, "app").want(t, http.StatusCreated) // a signature of the signature
							s.push(r.request, "app").want(t, http.StatusCreated)               // again
						}
						r.restart()
						for _, s := range all {
							s.check(t, r.request, "app")
						}
						if after := r.holds("app"); !slices.Equal(before, after) {
							t.Errorf("upstream has %v, and had %v", after, before)
						}
						for digest, b := range r.upstream.Inspect(t).Repository("app").Blobs {
							if kind == bundleType && bytes.Contains(b.Bytes, []byte("dsseEnvelope")) {
								t.Errorf("upstream has the bundle %s", digest)
							}
						}
						proxytest.AssertClean(t, r.upstream)
						r.finished(tree, proxytest.Synthetic(proxytest.SyntheticOptions{}), act)
					})
				}
			}
		}
	})
}

// All others are upstream's.
func TestASignatureOfWhatUpstreamHasGoesThere(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for name, settings := range map[string][]setting{
			"an image, store":                  {action(filters.Store)},
			"an image, strip":                  {action(filters.Strip)},
			"an attestation, forward":          {action(filters.Forward)},
			"an attestation, dry run":          {with(dryRun)},
			"an attestation, beside its image": {storeTo(config.StoreToReferrers)},
		} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), settings...)
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
				r.push(proxytest.BuildKit, "app", "1", tree)
				m := tree.Images()[0]
				if strings.HasPrefix(name, "an attestation") {
					m = tree.Attestations()[0]
				}
				s := bundleOf(m)
				s.push(r.request, "app").want(t, http.StatusCreated)
				r.direct(http.MethodGet, "/v2/app/manifests/"+s.digest, nil, acceptAll...).want(t, http.StatusOK)
				if r.config.Attestations != filters.Forward && !r.config.DryRun {
					s.check(t, r.request, "app")
				}
				proxytest.AssertComplete(t, r.upstream)
			})
		}
	})
}

// What is too large to be held when it comes is upstream, and what is too much altogether goes there.
func TestALargeArtifactAboutAnAttestation(t *testing.T) {
	for size, kept := range map[int]bool{300 << 10: true, 5 << 20: false} {
		for _, act := range []filters.Action{filters.Store, filters.Strip} {
			t.Run(fmt.Sprint(act, size), func(t *testing.T) {
				r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), action(act))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				r.push(proxytest.BuildKit, "app", "1", tree)
				s := bundleOf(tree.Attestations()[0])
				s.replace(signatureOf(strings.Repeat(" ", size), 1, bundleType).blob)
				s.push(r.request, "app").want(t, http.StatusCreated)
				s.check(t, r.request, "app")
				if there := slices.Contains(r.holds("app"), s.digest); there == kept {
					t.Errorf("upstream has it: %t", there)
				}
			})
		}
	}
}

func TestWhatIsDeletedTakesItsSignaturesAlong(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		for _, form := range forms {
			t.Run(fmt.Sprint(act, form), func(t *testing.T) {
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), action(act))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form})
				r.push(proxytest.BuildKit, "app", "1", tree)
				first, other := bundleOf(tree.Attestations()[0]), bundleOf(tree.Attestations()[1])
				second := signatureOf(first.digest, len(first.manifest), notaryType)
				for _, s := range []*signature{first, other, second} {
					s.push(r.request, "app").want(t, http.StatusCreated)
				}
				r.request(http.MethodDelete, "/v2/app/manifests/"+second.digest, nil).want(t, http.StatusAccepted)
				if list := r.referrers("app", first.digest); len(list.Manifests) > 0 {
					t.Errorf("deleted, and listed: %v", list)
				}
				r.request(http.MethodGet, "/v2/app/manifests/"+second.digest, nil, acceptAll...).want(t, http.StatusNotFound)
				first.check(t, r.request, "app")
				second.push(r.request, "app").want(t, http.StatusCreated)

				r.request(http.MethodDelete, "/v2/app/manifests/"+first.subject, nil).want(t, http.StatusAccepted)
				first.gone(t, r, "app")
				r.request(http.MethodGet, "/v2/app/manifests/"+second.digest, nil, acceptAll...).want(t, http.StatusNotFound)
				other.check(t, r.request, "app")
			})
		}
	}
}

func TestASignatureOfAnAttestationIsKeptAsLongAsThat(t *testing.T) {
	for name, settings := range map[string][]setting{
		"strip":             {action(filters.Strip)},
		"store":             {action(filters.Store)},
		"store for 30 days": {with(func(c *config.Config) { c.Store.Retention = 30 })},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), append(settings, clock(func() time.Time { return now }))...)
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r.push(proxytest.BuildKit, "app", "1", tree)
			s := bundleOf(tree.Attestations()[0])
			s.push(r.request, "app").want(t, http.StatusCreated)
			later := func(days int) {
				now = now.Add(time.Duration(days) * 24 * time.Hour)
				r.proxy.Sweep(context.Background())
			}
			later(1)
			s.check(t, r.request, "app")
			later(19)
			if name == "strip" {
				s.gone(t, r, "app")
				return
			}
			s.check(t, r.request, "app")
			r.push(proxytest.BuildKit, "app", "2", tree) // the attestation is in use
			later(20)
			s.check(t, r.request, "app")
			later(20)
			if name == "store" {
				s.check(t, r.request, "app")
				return
			}
			later(2) // put aside, and deleted
			later(2)
			s.gone(t, r, "app")
		})
	}
}

// Under `strip` an attestation stays for as long as its index is asked for, and what is about it does too.
func TestASignatureOfAnAttestationThatIsInUseIsKept(t *testing.T) {
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Strip), clock(func() time.Time { return now }))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	s := bundleOf(tree.Attestations()[0])
	second := signatureOf(s.digest, len(s.manifest), notaryType)
	for _, x := range []*signature{s, second} {
		x.push(r.request, "app").want(t, http.StatusCreated)
	}
	for range 12 {
		now = now.Add(24 * time.Hour)
		r.request(http.MethodHead, "/v2/app/manifests/"+tree.Root.Digest, nil, acceptAll...).want(t, http.StatusOK)
		r.proxy.Sweep(context.Background())
	}
	s.check(t, r.request, "app")
	second.check(t, r.request, "app")
	now = now.Add(20 * 24 * time.Hour)
	r.proxy.Sweep(context.Background())
	s.gone(t, r, "app")
}

// I9: who may not read the repository is told of no signature, and who may not push there leaves none.
func TestASignatureOfAnAttestationIsForWhoMayReadTheRepository(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: byTenant, Delete: true}), action(act), with(passthrough))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}); err != nil {
				t.Fatal(err)
			}
			s := bundleOf(tree.Attestations()[0])
			s.push(r.request, "alice/app", "Authorization", alice).want(t, http.StatusCreated)
			r.restart()
			mallory := basic("mallory", "secret-of-mallory")
			for _, auth := range []string{mallory, basic("alice", "guessed"), ""} {
				for _, path := range []string{"manifests/" + s.digest, "blobs/" + ocidoc.DigestOf(s.blob), "referrers/" + s.subject} {
					a := r.request(http.MethodGet, "/v2/alice/app/"+path, nil, append([]string{"Authorization", auth}, acceptAll...)...)
					if bytes.Contains(a.body, []byte(s.digest)) || bytes.Contains(a.body, []byte("dsseEnvelope")) {
						t.Errorf("%s as %q: %s %s", path, auth, a.Status, a.body)
					}
				}
				if a := r.request(http.MethodDelete, "/v2/alice/app/manifests/"+s.digest, nil, "Authorization", auth); a.StatusCode < 400 {
					t.Errorf("deleted as %q: %s", auth, a.Status)
				}
				forged := signatureOf(s.subject, 1, bundleType)
				a := r.request(http.MethodPut, "/v2/alice/app/manifests/"+forged.digest, forged.manifest, "Authorization", auth, "Content-Type", ociManifest)
				if a.StatusCode < 400 {
					t.Errorf("pushed as %q: %s", auth, a.Status)
				}
			}
			s.check(t, r.request, "alice/app", "Authorization", alice)
		})
	}
}

// I10: each request of a signature's push, and each that reads it, goes to another replica.
func TestASignatureOfAnAttestationMayGoToAnyReplica(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			first, second := twins(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), action(act))
			n := 0
			send := func(method, path string, body []byte, header ...string) *answer {
				n++
				return []*rig{first, second}[n%2].request(method, path, body, header...)
			}
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			first.push(proxytest.BuildKit, "app", "1", tree)
			before := first.holds("app")
			for _, m := range tree.Attestations() {
				s := bundleOf(m)
				s.push(send, "app").want(t, http.StatusCreated)
				for range 2 {
					s.check(t, send, "app")
					n++
				}
			}
			if after := first.holds("app"); !slices.Equal(before, after) {
				t.Errorf("upstream has %v, and had %v", after, before)
			}
		})
	}
}

// An image's referrers list an attestation as the artifact that is made of it, and a client has signed the one that it pushed.
// Whoever goes from the image to its attestations and on (oras discover) finds the signature.
func TestASignatureIsListedForTheDerivedFormOfItsAttestationToo(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	signed := map[string]bool{}
	for _, m := range tree.Attestations() {
		s := bundleOf(m)
		s.push(r.request, "app").want(t, http.StatusCreated)
		signed[s.digest] = true
	}
	var derived string
	for _, image := range tree.Images() {
		for _, attestation := range r.referrers("app", image.Digest).Manifests {
			derived = attestation.Digest
			list := r.referrers("app", derived).Manifests
			if len(list) != 1 || !signed[list[0].Digest] || list[0].ArtifactType != bundleType {
				t.Errorf("about %s, as the referrer %s: %v, want one of %v", image.Digest, derived, list, signed)
			}
		}
	}
	// It may be signed as well.
	s := signatureOf(derived, 1, bundleType)
	s.push(r.request, "app").want(t, http.StatusCreated)
	if list := r.referrers("app", derived).Manifests; len(list) != 2 {
		t.Errorf("about the referrer: %v, want two signatures", list)
	}
	s.check(t, r.request, "app")
}

// Amazon ECR gives no blob back that no image refers to: a bundle has been kept, and any other signature is forwarded.
func TestASignatureOfAnAttestationOnECR(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		for kind, kept := range map[string]bool{bundleType: true, notaryType: false} {
			t.Run(fmt.Sprint(act, kind), func(t *testing.T) {
				r := newAWSRig(t, func(s *ecrsim.Switches) { s.NoThrottling = true }, action(act))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
				r.push(proxytest.BuildKit, "app", "1", tree)
				m := tree.Attestations()[0]
				s := signatureOf(m.Digest, len(m.Bytes()), kind)
				s.push(r.request, "app").want(t, http.StatusCreated)
				r.restart()
				s.check(t, r.request, "app")
				a := r.direct(http.MethodHead, "/v2/app/manifests/"+s.digest, nil, acceptAll...)
				if there := a.StatusCode == http.StatusOK; there == kept {
					t.Errorf("upstream has it: %s", a.Status)
				}
			})
		}
	}
}

// A client that is told that a signature is there does not push it again. So it stays one of its attestation, and not only
// there, when what it was pushed with is swept.
func TestASignatureThatIsReliedOnStaysListed(t *testing.T) {
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Strip), clock(func() time.Time { return now }))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	s := bundleOf(tree.Attestations()[0])
	s.push(r.request, "app").want(t, http.StatusCreated)
	now = now.Add(48 * time.Hour)
	for _, digest := range []string{s.subject, s.digest} {
		r.request(http.MethodHead, "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, http.StatusOK)
	}
	now = now.Add(24*time.Hour + time.Minute)
	r.proxy.Sweep(context.Background())
	s.check(t, r.request, "app")
}
