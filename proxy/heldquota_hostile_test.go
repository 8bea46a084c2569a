package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// A holding is what a test knows of the quarantine of one repository, `app`, to which everybody is anonymous.
type holding struct {
	*rig
	image string          // an entry of an index that is upstream
	known map[string]bool // paths in the quarantine: whether something has claimed what is there
}

const anybody = "anonymous"

func heldLimit(blob, identity config.Size) setting {
	return with(func(c *config.Config) { c.MaxHeldBlob, c.Access.MaxHeldPerIdentity = blob, identity })
}

func newHolding(t testing.TB, up *proxytest.Upstream, settings ...setting) *holding {
	h := &holding{rig: newRig(t, up, settings...), known: map[string]bool{}}
	image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	h.push(proxytest.BuildKit, "app", "image", image)
	h.image = entryOf(ociManifest, image.Root.Digest, int(image.Root.Size))
	return h
}

// statementOf is a statement of some length.
func statementOf(marker, n int) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","n":%d,"x":"%s"}`, marker, strings.Repeat("x", n))
}

func (h *holding) begin() string {
	return h.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(h.t, http.StatusAccepted).Header.Get("Location")
}

func (h *holding) blob(b []byte) int {
	a := h.request(http.MethodPut, absolutePath(h.begin())+"digest="+ocidoc.DigestOf(b), b)
	if a.StatusCode == http.StatusCreated {
		h.held(b)
	}
	return a.StatusCode
}

// held is what was put into today's generation.
func (h *holding) held(b []byte) {
	for _, f := range h.copies(ocidoc.DigestOf(b)) {
		if strings.Contains(f, h.now().UTC().Format("/2006-01-02/")) {
			h.known[f] = false
		}
	}
}

// copies are the paths of what has a digest, in all generations.
func (h *holding) copies(digest string) (paths []string) {
	for _, f := range h.files("/quarantine", strings.TrimPrefix(digest, "sha256:")) {
		if !strings.Contains(f, "/_originals/") {
			paths = append(paths, f)
		}
	}
	return paths
}

func absolutePath(location string) string {
	if strings.Contains(location, "?") {
		return location + "&"
	}
	return location + "?"
}

// attestation names statements with a size of the client's choice.
func attestationNaming(size int64, statements ...[]byte) []byte {
	var layers []string
	for _, st := range statements {
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/vnd.in-toto+json","digest":%q,"size":%d}`, ocidoc.DigestOf(st), size))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[%s]}`,
		ociManifest, filters.ArtifactTypeAttestation, filters.EmptyDigest, strings.Join(layers, ","))
}

func (h *holding) manifest(m []byte) int {
	digest := ocidoc.DigestOf(m)
	a := h.request(http.MethodPut, "/v2/app/manifests/"+digest, m, "Content-Type", ociManifest)
	if a.StatusCode == http.StatusCreated {
		h.held(m)
	}
	return a.StatusCode
}

// index names attestations beside an image, and so claims them and their statements.
func (h *holding) index(attestations [][]byte, named ...[]byte) int {
	entries := []string{h.image}
	for _, m := range attestations {
		entries = append(entries, entryOf(ociManifest, ocidoc.DigestOf(m), len(m)))
	}
	a := h.request(http.MethodPut, "/v2/app/manifests/1", indexOf(entries...), "Content-Type", ociIndex)
	if a.StatusCode == http.StatusCreated {
		for _, b := range append(attestations, named...) {
			for _, f := range h.copies(ocidoc.DigestOf(b)) {
				h.known[f] = true
			}
		}
	}
	return a.StatusCode
}

// bytes are those in the storage that nobody has claimed. What is there and is not known was copied from an older generation.
func (h *holding) bytes() (n int64) {
	for _, f := range h.files("/quarantine", "") {
		if strings.Contains(f, "/_originals/") {
			continue
		}
		claimed, known := h.known[f]
		if _, hex, whole := strings.Cut(f, "/sha256/"); whole && !known {
			var of, ofClaimed int
			for _, other := range h.copies("sha256:" + hex) {
				if c, known := h.known[other]; known {
					of++
					if c {
						ofClaimed++
					}
				}
			}
			claimed = of > 0 && of == ofClaimed
			h.known[f] = claimed
		}
		if claimed {
			continue
		}
		fi, err := h.storage.Stat(context.Background(), f)
		if err != nil {
			h.t.Fatal(err)
		}
		n += fi.Size()
	}
	return n
}

func (h *holding) chargeIsRight(what string) {
	h.t.Helper()
	if got, want := h.proxy.Charged(anybody), h.bytes(); got != want {
		h.t.Fatalf("%s: charged are %d bytes, held are %d: %v", what, got, want, h.files("/quarantine", ""))
	}
}

// Whatever a client does, what it is charged for is what it has in the storage that nothing has claimed.
func TestTheChargeIsWhatTheStorageHolds(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour) // near the storage's own times
		act := rapid.SampledFrom([]filters.Action{filters.Store, filters.Strip}).Draw(rt, "action")
		h := newHolding(t, up, heldLimit(64<<10, 256<<10), action(act), clock(func() time.Time { return now }))
		defer h.stop()
		type open struct {
			location string
			sent     []byte
		}
		var uploads []*open
		// What is about to be swept is copied when it is asked for, and a manifest takes its blobs along into the day's generation,
		// whatever there is room for. Nothing else goes over the limit.
		most := int64(256 << 10)
		statement := func(t *rapid.T) []byte {
			n := rapid.IntRange(0, 3).Draw(t, "statement")
			return statementOf(n, n*12345)
		}
		manifest := func(t *rapid.T) (m, st []byte) {
			st = statement(t)
			return attestationNaming(rapid.SampledFrom([]int64{0, 1, int64(len(st)), 1 << 50}).Draw(t, "said to be"), st), st
		}
		rt.Repeat(map[string]func(*rapid.T){
			"push a blob":    func(t *rapid.T) { h.blob(statement(t)) },
			"push the empty": func(*rapid.T) { h.blob([]byte("{}")) },
			"push a manifest": func(t *rapid.T) {
				m, st := manifest(t)
				h.manifest(m)
				most = max(most, 256<<10+int64(len(st)+len("{}")))
			},
			"push an index": func(t *rapid.T) {
				m, st := manifest(t)
				h.index([][]byte{m}, st, []byte("{}"))
			},
			"begin an upload": func(t *rapid.T) { uploads = append(uploads, &open{location: h.begin()}) },
			"send a chunk": func(t *rapid.T) {
				if len(uploads) == 0 {
					t.Skip("no upload is open: rapid draws another action")
				}
				u := uploads[rapid.IntRange(0, len(uploads)-1).Draw(t, "upload")]
				chunk := bytes.Repeat([]byte("x"), rapid.IntRange(1, 40<<10).Draw(t, "bytes"))
				if len(u.sent) == 0 {
					chunk = append(statementOf(9, 0), chunk...)
				}
				if a := h.request(http.MethodPatch, u.location, chunk); a.StatusCode == http.StatusAccepted {
					u.location, u.sent = a.Header.Get("Location"), append(u.sent, chunk...)
				}
			},
			"end an upload": func(t *rapid.T) {
				if len(uploads) == 0 {
					t.Skip("no upload is open: rapid draws another action")
				}
				u := uploads[rapid.IntRange(0, len(uploads)-1).Draw(t, "upload")]
				digest := ocidoc.DigestOf(u.sent)
				if rapid.IntRange(0, 3).Draw(t, "wrong") == 0 {
					digest = ocidoc.DigestOf([]byte("another"))
				}
				if a := h.request(http.MethodPut, absolutePath(u.location)+"digest="+digest, nil); a.StatusCode == http.StatusCreated {
					h.held(u.sent)
				}
			},
			"cancel an upload": func(t *rapid.T) {
				if len(uploads) == 0 {
					t.Skip("no upload is open: rapid draws another action")
				}
				h.request(http.MethodDelete, uploads[rapid.IntRange(0, len(uploads)-1).Draw(t, "upload")].location, nil)
			},
			"ask for a blob": func(t *rapid.T) {
				h.request(http.MethodHead, "/v2/app/blobs/"+ocidoc.DigestOf(statement(t)), nil)
				most = max(most, h.proxy.Charged(anybody))
			},
			"delete a blob": func(t *rapid.T) {
				h.request(http.MethodDelete, "/v2/app/blobs/"+ocidoc.DigestOf(statement(t)), nil)
			},
			"a day passes": func(*rapid.T) { now = now.Add(24 * time.Hour) },
			"sweep":        func(*rapid.T) { h.proxy.Sweep(context.Background()) },
			"": func(rt *rapid.T) {
				if got, want := h.proxy.Charged(anybody), h.bytes(); got != want {
					rt.Fatalf("charged are %d bytes, held are %d: %v", got, want, h.files("/quarantine", ""))
				} else if got > most {
					rt.Fatalf("%d bytes are held, and %d may be", got, most)
				} else {
					most = max(256<<10, got)
				}
			},
		})
	})
}

// No size that a client says, no index that it repeats and nothing that it begins again makes room.
func TestAHostilePusherHoldsNoMoreThanItsLimit(t *testing.T) {
	const limit = 256 << 10
	for name, attack := range map[string]func(h *holding, i int){
		"manifests that declare huge sizes": func(h *holding, i int) {
			own := statementOf(-1, 0)
			h.blob(own)
			h.blob([]byte("{}"))
			m := attestationNaming(1<<50, own)
			h.manifest(m)
			h.index([][]byte{m}, own, []byte("{}"))
			h.blob(statementOf(i, 20<<10))
		},
		"the same index again and again": func(h *holding, i int) {
			own := statementOf(-1, 30<<10)
			m := attestationNaming(30<<10, own)
			if i == 0 {
				h.blob(own)
				h.blob([]byte("{}"))
				h.manifest(m)
			}
			if status := h.index([][]byte{m, m, m}, own, []byte("{}")); status != http.StatusCreated {
				h.t.Fatalf("the index is answered %d", status)
			}
			h.blob(statementOf(i, 20<<10))
		},
		"the same attestation again and again": func(h *holding, i int) {
			own := statementOf(-1, 0)
			h.blob(own)
			h.blob([]byte("{}"))
			m := attestationNaming(int64(len(own)), own)
			h.manifest(m)
			h.manifest(m)
			h.index([][]byte{m}, own, []byte("{}"))
			h.blob(statementOf(i, 20<<10))
		},
		"uploads that are left alone": func(h *holding, i int) {
			h.request(http.MethodPatch, h.begin(), statementOf(i, 20<<10))
		},
		"uploads that are cancelled twice": func(h *holding, i int) {
			first := h.begin()
			if a := h.request(http.MethodPatch, first, statementOf(i, 5<<10)); a.StatusCode == http.StatusAccepted {
				h.request(http.MethodDelete, a.Header.Get("Location"), nil)
				h.request(http.MethodDelete, a.Header.Get("Location"), nil)
			}
			h.request(http.MethodPatch, h.begin(), statementOf(i, 20<<10))
		},
		"manifests that name ten thousand blobs": func(h *holding, i int) {
			var named [][]byte
			for n := range 100 {
				named = append(named, fmt.Append(nil, i, n))
			}
			h.manifest(attestationNaming(0, named...))
		},
		"uploads that end with a wrong digest": func(h *holding, i int) {
			a := h.request(http.MethodPatch, h.begin(), statementOf(i, 20<<10))
			if a.StatusCode == http.StatusAccepted {
				h.request(http.MethodPut, absolutePath(a.Header.Get("Location"))+"digest="+ocidoc.DigestOf(nil), nil).want(h.t, http.StatusBadRequest)
			}
			h.request(http.MethodPatch, h.begin(), statementOf(i, 20<<10))
		},
		"many at once": func(h *holding, i int) {
			var all sync.WaitGroup
			for n := range 8 {
				all.Go(func() {
					b := statementOf(8*i+n, 20<<10)
					location := h.begin()
					if n%2 == 0 {
						h.request(http.MethodPut, absolutePath(location)+"digest="+ocidoc.DigestOf(b), b)
					} else {
						h.request(http.MethodPatch, location, b)
					}
				})
			}
			all.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHolding(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), heldLimit(64<<10, limit))
			for i := range 40 {
				attack(h, i)
				h.chargeIsRight(fmt.Sprintf("round %d", i))
				if n := h.bytes(); n > limit {
					t.Fatalf("round %d: %d bytes are held, the limit is %d", i, n, limit)
				}
			}
			if n := h.bytes(); n < limit/2 {
				t.Errorf("only %d bytes are held at the end: nothing was tried", n)
			}
			// What is not an attestation goes on.
			layer := []byte("\x1f\x8b layer")
			h.request(http.MethodPut, absolutePath(h.begin())+"digest="+ocidoc.DigestOf(layer), layer).want(t, http.StatusCreated)
		})
	}
}

// Chunks that wait until there are enough for Amazon ECR are held too.
func TestGatheredChunksAreCharged(t *testing.T) {
	r := newAWSRig(t, func(s *ecrsim.Switches) { s.CancelUploads = true }, heldLimit(3*mib, 4*mib))
	chunk := func(location string, at int) *answer {
		t.Helper()
		return r.request(http.MethodPatch, location, noise(mib), "Content-Range", fmt.Sprintf("%d-%d", at, at+mib-1))
	}
	charged := func(want int64) {
		t.Helper()
		if got := r.proxy.Charged(anybody); got != want {
			t.Errorf("charged are %d bytes, want %d", got, want)
		}
	}
	post := func() string {
		return r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	}
	var waiting []string
	for range 4 {
		waiting = append(waiting, chunk(post(), 0).want(t, http.StatusAccepted).Header.Get("Location"))
	}
	charged(4 * mib)
	a := chunk(post(), 0).want(t, http.StatusForbidden, "DENIED")
	if !strings.Contains(string(a.body), "access.max_held_per_identity") {
		t.Errorf("the answer does not name the setting: %s", a.body)
	}
	charged(4 * mib)
	r.request(http.MethodDelete, waiting[0], nil).want(t, http.StatusNoContent)
	charged(3 * mib)
	waiting[1] = chunk(waiting[1], mib).want(t, http.StatusAccepted).Header.Get("Location")
	charged(4 * mib)
	whole := append(noise(mib), noise(mib)...)
	r.request(http.MethodPut, absolutePath(waiting[1])+"digest="+ocidoc.DigestOf(whole), []byte{}).want(t, http.StatusCreated)
	charged(2 * mib)
	// A layer in one request waits for nothing.
	layer := noise(2 * mib)
	r.request(http.MethodPut, absolutePath(post())+"digest="+ocidoc.DigestOf(layer), layer).want(t, http.StatusCreated)
	charged(2 * mib)
}

// A part that is written for ever would keep its whole generation from being swept.
func TestAHeldUploadEndsADayAfterItBegan(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	h := newHolding(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), clock(func() time.Time { return now }))
	location := h.begin()
	for day := range 3 {
		a := h.request(http.MethodPatch, location, statementOf(day, 100))
		if day == 2 {
			a.want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
			break
		}
		location = a.want(t, http.StatusAccepted).Header.Get("Location")
		now = now.Add(23 * time.Hour)
	}
}
