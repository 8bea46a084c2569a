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
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// tries is a request whose answer may not come. A PATCH does not say its length, as cosign's does not.
func (r *rig) tries(method, path string, body []byte, header ...string) *answer {
	r.t.Helper()
	var rd io.Reader
	if rd = bytes.NewReader(body); method == http.MethodPatch {
		rd = io.MultiReader(rd)
	}
	if !strings.HasPrefix(path, "http") {
		path = r.url() + path
	}
	req, err := http.NewRequest(method, path, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return &answer{&http.Response{Status: err.Error(), Request: req}, nil}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return &answer{&http.Response{Status: err.Error(), Request: req}, nil}
	}
	return &answer{resp, b}
}

// A signing is the push of two signatures, of an attestation and of its image, that may be broken off anywhere.
type signing struct {
	*rig
	tree      *proxytest.Tree
	of, image *signature
}

func newSigning(r *rig) *signing {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	r.quiet(nil)
	return &signing{r, tree, bundleOf(tree.Attestations()[0]), bundleOf(tree.Images()[0])}
}

// sign sends what is not there yet, as oras does, and says whether all was taken.
func (s *signing) sign() (failed *answer) {
	s.t.Helper()
	for _, one := range []*signature{s.of, s.image} {
		if a := s.tries(http.MethodHead, "/v2/app/manifests/"+one.digest, nil, acceptAll...); a.StatusCode == http.StatusOK {
			continue
		}
		if a := one.push(s.tries, "app"); a.StatusCode != http.StatusCreated && failed == nil {
			failed = a
		}
	}
	return failed
}

// signed is what then holds: each signature is listed and whole, and the attestation's is not upstream.
func (s *signing) signed() {
	s.t.Helper()
	s.of.check(s.t, s.request, "app")
	s.image.check(s.t, s.request, "app")
	s.direct(http.MethodGet, "/v2/app/manifests/"+s.image.digest, nil, acceptAll...).want(s.t, http.StatusOK)
	s.clean()
}

// clean is what holds at any time: no manifest of upstream is the attestation's signature, or tells of it.
func (s *signing) clean() {
	s.t.Helper()
	proxytest.AssertComplete(s.t, s.upstream)
	for digest, m := range s.upstream.Inspect(s.t).Repository("app").Manifests {
		if digest == s.of.digest || bytes.Contains(m.Bytes, []byte(s.of.digest)) || bytes.Contains(m.Bytes, []byte(s.of.subject)) {
			s.t.Errorf("upstream has %s: %s", digest, m.Bytes)
		}
	}
}

// check is what holds whatever failed, and after the retry.
func (s *signing) check(heal func()) {
	s.t.Helper()
	failed := s.sign()
	s.proxy.HandlersEnd()
	s.proxy.Settle()
	heal()
	s.clean()
	if failed == nil {
		s.signed()
	}
	s.restart()
	if failed := s.sign(); failed != nil {
		s.t.Fatalf("the retry fails too: %s %s", failed.Status, failed.body)
	}
	s.signed()
}

// I7, I8: every call to the storage may fail, in every way, and the retry converges.
func TestSigningSurvivesEveryFaultOfTheStorage(t *testing.T) {
	for act, kinds := range map[filters.Action]kinds{
		filters.Store: {proxytest.FaultError, proxytest.FaultDeadAfter, proxytest.FaultPartial},
		filters.Strip: {proxytest.FaultError, proxytest.FaultAfter, proxytest.FaultDead},
	} {
		for _, kind := range kinds {
			t.Run(fmt.Sprint(act, " ", kind), func(t *testing.T) {
				t.Parallel()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					driver := proxytest.NewFailingDriver(inmemory.New())
					s := newSigning(newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(driver), action(act)))
					driver.Fault = fault
					s.check(heal)
				})
			})
		}
	}
}

// The same for upstream's requests.
func TestSigningSurvivesEveryFaultOfUpstream(t *testing.T) {
	for act, kinds := range map[filters.Action]kinds{
		filters.Store: {proxytest.FaultError, proxytest.FaultCutAfter, proxytest.FaultDenied},
		filters.Strip: {proxytest.FaultTooMany, proxytest.FaultPartial, proxytest.FaultUnavailable},
	} {
		for _, kind := range kinds {
			t.Run(fmt.Sprint(act, " ", kind), func(t *testing.T) {
				t.Parallel()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					var failing *proxytest.FailingUpstream
					up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(h http.Handler) http.Handler {
						failing = proxytest.NewFailingUpstream(h)
						return failing
					}})
					s := newSigning(newRig(t, up, action(act)))
					failing.Fault = fault
					s.check(heal)
				})
			})
		}
	}
}

// A signature of an image needs no storage. Whether one is of an attestation is not known without it, and
// on_storage_error says what then happens.
func TestAnImageIsSignedWhileTheStorageIsDown(t *testing.T) {
	for _, choice := range choices() {
		for _, act := range []filters.Action{filters.Store, filters.Strip} {
			t.Run(fmt.Sprint(choice, " ", act), func(t *testing.T) {
				driver := proxytest.NewFailingDriver(inmemory.New())
				s := newSigning(newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(driver), onStorageError(choice), action(act)))
				driver.Fail(1, proxytest.FaultDead)
				s.image.push(s.request, "app").want(t, http.StatusCreated)
				s.direct(http.MethodGet, "/v2/app/manifests/"+s.image.digest, nil, acceptAll...).want(t, http.StatusOK)
				s.direct(http.MethodGet, "/v2/app/blobs/"+ocidoc.DigestOf(s.image.blob), nil).want(t, http.StatusOK)

				a := s.sent()
				there := slices.Contains(s.holds("app"), s.of.digest)
				if choice == config.StorageErrorReject {
					a.want(t, http.StatusTooManyRequests)
				} else {
					a.want(t, http.StatusCreated)
				}
				if there != (choice != config.StorageErrorReject) {
					t.Errorf("upstream has the signature of the attestation: %t", there)
				}
				proxytest.AssertComplete(t, s.upstream)
			})
		}
	}
}

// sent sends the signature of the attestation without asking for what it is about.
func (s *signing) sent() *answer {
	s.t.Helper()
	for _, b := range [][]byte{[]byte("{}"), s.of.blob} {
		s.request(http.MethodPut, put(s.upload("app"), ocidoc.DigestOf(b)), b).want(s.t, http.StatusCreated)
	}
	return s.request(http.MethodPut, "/v2/app/manifests/"+s.of.digest, s.of.manifest, "Content-Type", ociManifest)
}
