package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// I10: what a process remembers of earlier requests decides no answer. Each of these goes wrong on a replica that has seen
// something which another has not, or that has not seen what became of it.

// twins are two replicas on one storage.
func twins(t *testing.T, up *proxytest.Upstream, settings ...setting) (first, second *rig) {
	t.Helper()
	settings = append(settings, storage(inmemory.New()))
	return newRig(t, up, settings...), newRig(t, up, settings...)
}

// Each request goes to a process of its own, which knows nothing of those before it.
func TestEachRequestMayGoToANewProcess(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		for _, mode := range []tenancy{passthroughTenancy(), {name: "anybody"}} {
			t.Run(client.Name+", "+mode.name, func(t *testing.T) {
				up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: mode.upstream})
				r := newRig(t, up, mode.settings...) // for its configuration and storage; it is asked nothing
				balancer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					p, err := proxy.New(proxy.Options{Config: r.config, Storage: r.storage})
					if err != nil {
						t.Error(err)
						return
					}
					p.Handler().ServeHTTP(w, q)
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}))
				t.Cleanup(balancer.Close)
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true, StatementSize: 300 << 10})
				o := proxytest.Options{BaseURL: balancer.URL, Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}
				for range 2 {
					if _, err := client.Push(context.Background(), o); err != nil {
						t.Fatal(err)
					}
				}
				proxytest.AssertClean(t, up)
				proxytest.AssertComplete(t, up)
				back, err := proxytest.Pull(context.Background(), proxytest.PullOptions{BaseURL: balancer.URL, Repository: "alice/app", Reference: tree.Digest(), Authorization: alice})
				if err != nil {
					t.Fatal(err)
				}
				if err := back.Equal(tree); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// send uploads a blob in one PUT.
func send(t *testing.T, r *rig, repo string, b []byte, header ...string) {
	t.Helper()
	location := r.request(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", []byte{}, header...).want(t, http.StatusAccepted).Header.Get("Location")
	r.request(http.MethodPut, absolutePath(location)+"digest="+ocidoc.DigestOf(b), b, header...).want(t, http.StatusCreated)
}

// Its blobs tell a replica that an attestation manifest will be asked for, and upstream need not be asked. That is for
// BuildKit before it pushes: one that was pushed by tag is upstream, and everybody else is told so.
func TestAnAttestationUnderATagIsFoundByTheReplicaThatHeldItsBlobs(t *testing.T) {
	first, second := twins(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Store))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	m := tree.Attestations()[0]
	for _, b := range m.Blobs() {
		send(t, first, "app", b.Bytes())
	}
	before := []string{"Accept", m.MediaType + ", */*"}
	first.request(http.MethodHead, "/v2/app/manifests/"+m.Digest, nil, before...).want(t, http.StatusNotFound)
	second.request(http.MethodPut, "/v2/app/manifests/attestation", m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
	for name, r := range map[string]*rig{"that held its blobs": first, "that took it": second} {
		if a := r.request(http.MethodHead, "/v2/app/manifests/"+m.Digest, nil, acceptAll...); a.StatusCode != http.StatusOK {
			t.Errorf("the replica %s: %s", name, a.Status)
		}
	}
}

// A read of what a first push left is tried on a blob that went through this replica, as long as it is there.
func TestAFirstPushIsReadOnAReplicaWhoseBlobWasDeleted(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: byTenant, Delete: true})
	first, second := twins(t, up, with(passthrough))
	layer := []byte("\x1f\x8b layer")
	send(t, first, "alice/app", layer, "Authorization", alice)
	second.request(http.MethodDelete, "/v2/alice/app/blobs/"+ocidoc.DigestOf(layer), nil, "Authorization", alice).want(t, http.StatusAccepted)
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	pushHalf(t, second, "alice/app", alice, tree)
	for name, r := range map[string]*rig{"first": first, "second": second} {
		for _, path := range []string{"manifests/" + tree.Attestations()[0].Digest, "blobs/" + tree.Statements()[0].Digest} {
			get := func(auth string) *answer {
				return r.request(http.MethodGet, "/v2/alice/app/"+path, nil, append([]string{"Authorization", auth}, acceptAll...)...)
			}
			get(mallory).want(t, http.StatusNotFound)
			if a := get(alice); a.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: %s", name, path, a.Status)
			}
		}
	}
}

// Upstream says when it opens a session how small chunks may be, and every client that begins an upload must hear it: also
// on a replica that knows by a manifest that it may push.
func TestEveryReplicaTellsHowSmallChunksMayBe(t *testing.T) {
	for name, passed := range map[string]setting{"passed on": with(passthrough), "of Sluice": with(func(*config.Config) {})} {
		t.Run("credentials "+name, func(t *testing.T) {
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						w.Header().Set("OCI-Chunk-Min-Length", "1000")
					}
					next.ServeHTTP(w, r)
				})
			}})
			first, second := twins(t, up, passed)
			send(t, first, "app", []byte("{}"))
			second.request(http.MethodPut, "/v2/app/manifests/1", noteOfNothing, "Content-Type", ociManifest).want(t, http.StatusCreated)
			for name, r := range map[string]*rig{"first": first, "second": second} {
				for i := range 2 {
					a := r.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted)
					if got := a.Header.Get("OCI-Chunk-Min-Length"); got != "1000" {
						t.Errorf("%s, upload %d: chunks of at least %q", name, i, got)
					}
				}
			}
		})
	}
}

// A URL of an upload that another replica has ended says what there is to do, and not to try again.
func TestAnUploadThatAnotherReplicaHasEndedBeginsAgain(t *testing.T) {
	statement := statementOf(1, 1000)
	digest := ocidoc.DigestOf(statement)
	for _, what := range []config.OnStorageError{config.StorageErrorReject, config.StorageErrorForward} {
		t.Run("held, "+string(what), func(t *testing.T) {
			first, second := twins(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.OnStorageError = what }))
			location := first.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location")
			location = first.request(http.MethodPatch, location, statement).want(t, http.StatusAccepted).Header.Get("Location")
			second.request(http.MethodGet, location, nil).want(t, http.StatusNoContent)
			second.request(http.MethodDelete, location, nil).want(t, http.StatusNoContent)
			first.request(http.MethodGet, location, nil).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
			first.request(http.MethodPut, absolutePath(location)+"digest="+digest, []byte{}).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
			if held := first.files("/quarantine", "_blobs"); len(held) > 0 {
				t.Errorf("held: %v", held)
			}
		})
	}
	t.Run("chunks that wait for more on their way to ECR", func(t *testing.T) {
		shared := storage(inmemory.New())
		first := newAWSRig(t, func(*ecrsim.Switches) {}, shared)
		second := newRig(t, &proxytest.Upstream{Kind: "ecrsim", URL: first.upstream.URL}, with(ecrCredentials), shared)
		layer := noise(2000)
		chunk := func(at int, b []byte) []string {
			return []string{"Content-Range", fmt.Sprintf("%d-%d", at, at+len(b)-1)}
		}
		location := first.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location")
		location = first.request(http.MethodPatch, location, layer[:1000], chunk(0, layer[:1000])...).want(t, http.StatusAccepted).Header.Get("Location")
		if waiting := first.files("/quarantine", "_parts"); len(waiting) != 1 {
			t.Fatalf("waiting: %v", waiting)
		}
		second.request(http.MethodGet, location, nil).want(t, http.StatusNoContent)
		second.request(http.MethodDelete, location, nil).want(t, http.StatusNoContent)
		first.request(http.MethodGet, location, nil).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		a := first.request(http.MethodPut, absolutePath(location)+"digest="+ocidoc.DigestOf(layer), layer[1000:], chunk(1000, layer[1000:])...)
		if a.want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"); strings.Contains(string(a.body), "storage") {
			t.Errorf("%s", a.body)
		}
	})
}
