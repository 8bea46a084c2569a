package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// uploads are the ways in which a client may send a blob.
var uploads = map[string]func(r *rig, blob []byte) *answer{
	"a PUT": func(r *rig, blob []byte) *answer {
		return r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(blob)), blob)
	},
	"a PUT that does not say its length": func(r *rig, blob []byte) *answer {
		req, err := http.NewRequest(http.MethodPut, absolutely(r, put(r.upload("app"), ocidoc.DigestOf(blob))), io.MultiReader(bytes.NewReader(blob)))
		if err != nil {
			r.t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			r.t.Fatal(err)
		}
		_ = resp.Body.Close()
		return &answer{resp, nil}
	},
	"a PATCH": func(r *rig, blob []byte) *answer { return inPieces(r, r.request, blob) },
	"a PATCH that does not say its length": func(r *rig, blob []byte) *answer { // cosign
		return inPieces(r, r.tries, blob)
	},
	"pieces":                   func(r *rig, blob []byte) *answer { return inPieces(r, r.request, blob[:70], blob[70:90], blob[90:]) },
	"pieces of unsaid lengths": func(r *rig, blob []byte) *answer { return inPieces(r, r.tries, blob[:70], blob[70:90], blob[90:]) },
	"pieces too small to tell": func(r *rig, blob []byte) *answer { return inPieces(r, r.request, blob[:5], blob[5:20], blob[20:]) },
}

func inPieces(r *rig, send sendFunc, pieces ...[]byte) *answer {
	location := r.upload("app")
	for _, p := range pieces {
		location = send(http.MethodPatch, location, p).want(r.t, http.StatusAccepted).Header.Get("Location")
	}
	return r.request(http.MethodPut, put(location, ocidoc.DigestOf(slices.Concat(pieces...))), nil)
}

func absolutely(r *rig, location string) string {
	if strings.HasPrefix(location, "/") {
		return r.url() + location
	}
	return location
}

// I8: however a bundle comes, it is answered for from then on, and goes upstream if what it signs is there, before its
// manifest.
func TestABundleWaitsForItsManifestHoweverItComes(t *testing.T) {
	for name, upload := range uploads {
		for _, act := range []filters.Action{filters.Store, filters.Strip, filters.Forward} {
			t.Run(name+" "+string(act), func(t *testing.T) {
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				r.push(proxytest.BuildKit, "app", "1", tree)
				for _, m := range []*proxytest.Manifest{tree.Attestations()[0], tree.Images()[0]} {
					s := bundleOf(m)
					blob := "/v2/app/blobs/" + ocidoc.DigestOf(s.blob)
					uploads["a PUT"](r, []byte("{}")).want(t, http.StatusCreated)
					upload(r, s.blob).want(t, http.StatusCreated)
					r.request(http.MethodHead, blob, nil).want(t, http.StatusOK)
					if a := r.request(http.MethodGet, blob, nil).want(t, http.StatusOK); !bytes.Equal(a.body, s.blob) {
						t.Errorf("read back: %s", a.body)
					}
					there := map[bool]int{true: http.StatusOK, false: http.StatusNotFound}
					r.direct(http.MethodHead, blob, nil).want(t, there[act == filters.Forward])
					r.request(http.MethodPut, "/v2/app/manifests/"+s.digest, s.manifest, "Content-Type", ociManifest).want(t, http.StatusCreated)
					goes := act == filters.Forward || m == tree.Images()[0]
					r.direct(http.MethodHead, blob, nil).want(t, there[goes])
					r.direct(http.MethodHead, "/v2/app/manifests/"+s.digest, nil, acceptAll...).want(t, there[goes])
				}
				proxytest.AssertComplete(t, r.upstream)
			})
		}
	}
}

// What is larger than what is held, and does not say its length, streams on as it came.
func TestALargeBundleOfUnsaidLengthIsSentOn(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	blob := []byte(`{"mediaType":"` + bundleType + `","x":"` + strings.Repeat("x", 300<<10) + `"}`)
	for name, upload := range uploads {
		if strings.Contains(name, "pieces") {
			continue // a first piece is as small as any bundle
		}
		blob = append(blob, '\n') // another each time
		upload(r, blob).want(t, http.StatusCreated)
		if a := r.direct(http.MethodGet, "/v2/app/blobs/"+ocidoc.DigestOf(blob), nil).want(t, http.StatusOK); !bytes.Equal(a.body, blob) {
			t.Errorf("%s: upstream has %d bytes", name, len(a.body))
		}
	}
}

// A first piece may look small and more come.
func TestALargeBundleInPiecesReachesItsImage(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r.push(proxytest.BuildKit, "app", "1", tree)
	s := bundleOf(tree.Images()[0])
	s.replace([]byte(`{"mediaType":"` + bundleType + `","x":"` + strings.Repeat("x", 600<<10) + `"}`))
	inPieces(r, r.request, s.blob[:100<<10], s.blob[100<<10:200<<10], s.blob[200<<10:]).want(t, http.StatusCreated)
	uploads["a PUT"](r, []byte("{}")).want(t, http.StatusCreated)
	r.request(http.MethodPut, "/v2/app/manifests/"+s.digest, s.manifest, "Content-Type", ociManifest).want(t, http.StatusCreated)
	if a := r.direct(http.MethodGet, "/v2/app/blobs/"+ocidoc.DigestOf(s.blob), nil).want(t, http.StatusOK); !bytes.Equal(a.body, s.blob) {
		t.Errorf("upstream has %d bytes", len(a.body))
	}
	proxytest.AssertComplete(t, r.upstream)
}

// cosign says no length, and Amazon ECR gives back nothing that no image refers to.
func TestABundleOfUnsaidLengthIsHeldOnECR(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			r := newAWSRig(t, func(s *ecrsim.Switches) { s.NoThrottling = true }, action(act))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r.push(proxytest.BuildKit, "app", "1", tree)
			of, image := bundleOf(tree.Attestations()[0]), bundleOf(tree.Images()[0])
			for _, s := range []*signature{of, image} {
				s.push(r.tries, "app").want(t, http.StatusCreated)
			}
			r.direct(http.MethodHead, "/v2/app/manifests/"+of.digest, nil, acceptAll...).want(t, http.StatusNotFound)
			r.direct(http.MethodHead, "/v2/app/manifests/"+image.digest, nil, acceptAll...).want(t, http.StatusOK)
			r.restart()
			of.check(t, r.request, "app")
			image.check(t, r.request, "app")
		})
	}
}

// Who holds all that he may signs images nevertheless. A signature of an attestation is refused with the reason, since
// keeping it is what he may not.
func TestWhoHoldsAllThatHeMaySignsImages(t *testing.T) {
	for name, upload := range uploads {
		if strings.Contains(name, "pieces") {
			continue // the first may fit, and the next not
		}
		t.Run(name, func(t *testing.T) {
			const limit = 16 << 10
			h := newHolding(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), heldLimit(64<<10, limit), action(filters.Strip))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			h.push(proxytest.BuildKit, "app", "1", tree)
			for n := limit / 2; n > 0; n /= 2 { // whatever is left
				h.blob(statementOf(n, n))
			}
			for i := 0; h.blob(statementOf(100000+i, 0)) == http.StatusCreated; i++ {
			}
			for _, s := range []*signature{bundleOf(tree.Images()[0]), bundleOf(tree.Attestations()[0])} {
				upload(h.rig, []byte("{}")).want(t, http.StatusCreated)
				upload(h.rig, s.blob).want(t, http.StatusCreated)
				h.direct(http.MethodHead, "/v2/app/blobs/"+ocidoc.DigestOf(s.blob), nil).want(t, http.StatusOK)
				a := h.request(http.MethodPut, "/v2/app/manifests/"+s.digest, s.manifest, "Content-Type", ociManifest)
				if s.subject == tree.Images()[0].Digest {
					a.want(t, http.StatusCreated)
				} else if a.want(t, http.StatusForbidden, "DENIED"); !bytes.Contains(a.body, []byte("access.max_held_per_identity")) {
					t.Errorf("the answer does not name the setting: %s", a.body)
				}
			}
			proxytest.AssertComplete(t, h.upstream)
		})
	}
}

// I8: what a first piece looks like decides when a blob travels, and not whether, also where a later piece is too much.
func TestABundleInPiecesIsSentOnWhenALaterOneIsTooMuch(t *testing.T) {
	const most = 16 << 10
	inPUT := func(r *rig, pieces ...[]byte) *answer { // the last
		last := len(pieces) - 1
		location := r.upload("app")
		for _, p := range pieces[:last] {
			location = r.request(http.MethodPatch, location, p).want(r.t, http.StatusAccepted).Header.Get("Location")
		}
		return r.request(http.MethodPut, put(location, ocidoc.DigestOf(slices.Concat(pieces...))), pieces[last])
	}
	for limited, limit := range map[string]setting{"the identity": heldLimit(1<<20, most), "a blob": heldLimit(most, 0)} {
		for way, upload := range map[string]func(*rig, ...[]byte) *answer{
			"PATCHes":                   func(r *rig, pieces ...[]byte) *answer { return inPieces(r, r.request, pieces...) },
			"PATCHes of unsaid lengths": func(r *rig, pieces ...[]byte) *answer { return inPieces(r, r.tries, pieces...) },
			"a last PUT":                inPUT,
		} {
			if limited == "a blob" && way == "PATCHes of unsaid lengths" {
				continue // how much there is of it is known when the part is in the storage
			}
			t.Run(limited+" in "+way, func(t *testing.T) {
				h := newHolding(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), limit, action(filters.Strip))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
				h.push(proxytest.BuildKit, "app", "1", tree)
				s := bundleOf(tree.Images()[0])
				for n := range 3 { // the piece that is too much is the last, or others follow
					s.replace(fmt.Appendf(nil, `{"mediaType":%q,"x":"%s"}`, bundleType, strings.Repeat("x", (18+n*10)<<10)))
					pieces := [][]byte{s.blob[:8<<10]}
					for at := 8 << 10; at < len(s.blob); at += 9 << 10 {
						pieces = append(pieces, s.blob[at:min(len(s.blob), at+9<<10)])
					}
					upload(h.rig, pieces...).want(t, http.StatusCreated)
					if a := h.direct(http.MethodGet, "/v2/app/blobs/"+ocidoc.DigestOf(s.blob), nil).want(t, http.StatusOK); !bytes.Equal(a.body, s.blob) {
						t.Errorf("upstream has %d bytes of %d", len(a.body), len(s.blob))
					}
				}
				uploads["a PUT"](h.rig, []byte("{}")).want(t, http.StatusCreated)
				h.request(http.MethodPut, "/v2/app/manifests/"+s.digest, s.manifest, "Content-Type", ociManifest).want(t, http.StatusCreated)
				proxytest.AssertComplete(t, h.upstream)
				// Nothing of what was sent on is kept, or costs anything.
				if got := h.blob(statementOf(1, most-1<<10)); got != http.StatusCreated {
					t.Errorf("a statement that fits is answered %d", got)
				}
				// A statement in pieces is refused as ever.
				st := statementOf(2, 40<<10)
				location := h.request(http.MethodPatch, h.upload("app"), st[:100]).want(t, http.StatusAccepted).Header.Get("Location")
				if a := h.request(http.MethodPatch, location, st[100:]); a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusRequestEntityTooLarge {
					t.Errorf("a statement that does not fit: %s %s", a.Status, a.body)
				}
			})
		}
	}
}

// A signature of an image waits for the storage as little as it can: the look-ups about its subject are made at once.
func TestASignatureOfAnImageWaitsForTheStorageOnce(t *testing.T) {
	b := &bucket{StorageDriver: inmemory.New()}
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(b))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r.push(proxytest.BuildKit, "app", "1", tree)
	s := signatureOf(tree.Images()[0].Digest, 1, notaryType)
	for _, blob := range [][]byte{[]byte("{}"), s.blob} {
		r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(blob)), blob).want(t, http.StatusCreated)
	}
	r.request(http.MethodHead, "/v2/app/blobs/"+ocidoc.DigestOf([]byte("the generations are listed once a minute")), nil)
	n := b.count(func() {
		r.request(http.MethodPut, "/v2/app/manifests/"+s.digest, s.manifest, "Content-Type", ociManifest).want(t, http.StatusCreated)
	})
	if n > 1 {
		t.Errorf("%d round trips to the storage one after the other, want one: %s", n, b.table())
	}
}
