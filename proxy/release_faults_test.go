package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// Each request to an upstream in trouble is tried again for some seconds, so that the first failure has to be the last: what
// a manifest refers to may be many.
func TestWhatIsReleasedStopsAtTheFirstFailure(t *testing.T) {
	m := &moody{}
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
	const many, atOnce = 40, 8
	var layers []string
	for n := range many {
		statement := statementOf(n, 100)
		r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(statement)), statement).want(t, http.StatusCreated)
		layers = append(layers, fmt.Sprintf(`{"mediaType":"text/plain","digest":%q,"size":%d}`, ocidoc.DigestOf(statement), len(statement)))
	}
	m.mood.Store(&mood{is(http.MethodPost, "/blobs/uploads/"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusInternalServerError)
	}})
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[%s]}`,
		ocidoc.MediaTypeOCIManifest, filters.EmptyDigest, strings.Join(layers, ","))
	push := func() *answer {
		return r.request(http.MethodPut, "/v2/app/manifests/1", manifest, "Content-Type", ocidoc.MediaTypeOCIManifest)
	}
	push().want(t, http.StatusInternalServerError)
	if n := m.seen.Load(); n == 0 || n > atOnce {
		t.Errorf("upstream was asked for %d uploads, want those that were under way, at most %d", n, atOnce)
	}
	m.heal()
	push().want(t, http.StatusCreated)
	proxytest.AssertComplete(t, r.upstream)
}

// The same for an index that Amazon ECR refuses, and whose children are looked for.
func TestALookForTheChildrenOfARefusedIndexStopsAtTheFirstFailure(t *testing.T) {
	r := newAWSRig(t, func(s *ecrsim.Switches) {
		s.Faults = []ecrsim.Fault{{Action: "BatchGetImage", Times: 1000, Answer: ecrsim.Answer{Status: 500, Code: "SERVER_ERROR"}}}
	}, action(filters.Forward))
	const many, atOnce = 40, 8
	var entries []string
	for n := range many {
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":7,"platform":{"architecture":"amd64","os":"linux"}}`, ociManifest, ocidoc.DigestOf(fmt.Append(nil, n))))
	}
	r.request(http.MethodPut, "/v2/app/manifests/1", indexOf(entries...), "Content-Type", ociIndex).want(t, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
	if n := len(r.sent(http.MethodHead)); n == 0 || n > atOnce {
		t.Errorf("ECR was asked for %d children, want those that were under way, at most %d", n, atOnce)
	}
}
