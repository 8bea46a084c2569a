package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

const ociIndex, ociManifest = ocidoc.MediaTypeOCIIndex, ocidoc.MediaTypeOCIManifest

// What nobody can store or read safely is refused in the spec's words, and nothing of it is upstream.
func TestBadManifestsAreRefusedAndNothingChanges(t *testing.T) {
	image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"}}`, ociManifest, image.Root.Digest, image.Root.Size)
	missing := strings.Repeat("a", 64)
	attestation := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: proxytest.FormLegacy}).Attestations()[0]
	for _, tt := range []struct {
		name, ref, mediaType, body string
		status                     int
		code                       string
	}{
		{"duplicate key", "1", ociIndex, `{"schemaVersion":2,"manifests":[],"manifests":[` + entry + `]}`, 400, "MANIFEST_INVALID"},
		{"case variant of a key", "1", ociIndex, `{"schemaVersion":2,"manifests":[],"MANIFESTS":[` + entry + `]}`, 400, "MANIFEST_INVALID"},
		{"duplicate key in an entry", "1", ociIndex, `{"schemaVersion":2,"manifests":[` + strings.Replace(entry, `"size"`, `"digest":"sha256:`+missing+`","size"`, 1) + `]}`, 400, "MANIFEST_INVALID"},
		{"trailing bytes", "1", ociIndex, `{"schemaVersion":2,"manifests":[` + entry + `]}{}`, 400, "MANIFEST_INVALID"},
		{"no JSON at all", "1", ociManifest, `hello`, 400, "MANIFEST_INVALID"},
		{"empty body", "1", ociManifest, ``, 400, "MANIFEST_INVALID"},
		{"deep nesting", "1", ociIndex, `{"schemaVersion":2,"manifests":[],"x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`, 400, "MANIFEST_INVALID"},
		{"larger than 4 MiB", "1", ociIndex, `{"schemaVersion":2,"manifests":[` + entry + `]` + strings.Repeat(" ", ocidoc.MaxBytes) + `}`, 413, "MANIFEST_INVALID"},
		{"digest of other bytes", "sha256:" + missing, ociIndex, `{"schemaVersion":2,"manifests":[` + entry + `]}`, 400, "DIGEST_INVALID"},
		{"digest that is none", "sha256:abc", ociIndex, `{}`, 400, "DIGEST_INVALID"},
		{"tag outside the grammar", ".hidden", ociIndex, `{}`, 400, "MANIFEST_INVALID"},
		{"a hinted child that is nowhere", "1", ociIndex, `{"schemaVersion":2,"manifests":[` + entry + `,{"mediaType":"` + ociManifest + `","digest":"sha256:` + missing + `","size":5,"platform":{"architecture":"unknown","os":"unknown"}}]}`, 400, "MANIFEST_BLOB_UNKNOWN"},
		{"nothing but attestations", "1", ociIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"unknown","os":"unknown"}}]}`, ociIndex, ociManifest, attestation.Digest, attestation.Size), 400, "MANIFEST_INVALID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
			pushHalf(t, r, "app", "", proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: proxytest.FormLegacy}))
			r.push(proxytest.Crane, "app", "other", image)
			before := len(r.upstream.Inspect(t).Repository("app").Manifests)
			a := r.request(http.MethodPut, "/v2/app/manifests/"+tt.ref, []byte(tt.body), "Content-Type", tt.mediaType)
			a.want(t, tt.status, tt.code)
			if got := a.Header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type of the error is %q", got)
			}
			if after := len(r.upstream.Inspect(t).Repository("app").Manifests); after != before {
				t.Errorf("%d manifests upstream before, %d after", before, after)
			}
			if a := r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...); a.StatusCode != http.StatusNotFound {
				t.Errorf("the tag is upstream: %s", a.Status)
			}
		})
	}
}

func TestNamesOutsideTheGrammarAreRefused(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	for _, name := range []string{"UPPER", "a//b", "a/../b", "-a", "a/_blobs", "a..b", strings.Repeat("a/", 200) + "a", "h.example:5000/a"} {
		a := r.request(http.MethodPost, "/v2/"+name+"/blobs/uploads/", nil)
		if a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %s", name, a.Status)
		}
	}
}

// What a front end of the registry does for whoever it trusts (PURGE, TRACE) it is not asked by anybody through Sluice.
func TestOnlyReadsOfTheVersionCheckGoUpstream(t *testing.T) {
	var asked []string
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = append(asked, r.Method) })
	}}), with(passthrough))
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r.request(method, "/v2/", nil).want(t, http.StatusOK)
	}
	for _, method := range []string{"PURGE", http.MethodTrace, http.MethodDelete, http.MethodPost, "HOSTILE"} {
		r.request(method, "/v2/", nil).want(t, http.StatusMethodNotAllowed, "UNSUPPORTED")
	}
	if got := strings.Join(asked, " "); got != "GET HEAD" {
		t.Errorf("upstream was asked to %s", got)
	}
}

// A path costs as much as it is long, before anybody is asked who they are.
func TestAPathThatIsFarTooLongIsNotLookedInto(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	for _, name := range []string{strings.Repeat("a", 60_000), strings.Repeat("a/", 30_000) + "a", strings.Repeat("a-", 600) + "a", strings.Repeat("%61", 2000)} {
		for _, tail := range []string{"/manifests/1", "/tags/list", "/blobs/uploads/", "/blobs/uploads", "/referrers/x", "/blobs/uploads/" + strings.Repeat("x", 2000), ""} {
			if a := r.request(http.MethodPost, "/v2/"+name+tail, nil); a.StatusCode != http.StatusRequestURITooLong || !strings.Contains(string(a.body), "NAME_INVALID") {
				t.Errorf("%.10s... (%d bytes) %.20s: %s %.100s", name, len(name), tail, a.Status, a.body)
			}
		}
	}
	// What may be long: a name, and an upload's URL.
	name := strings.Repeat("a/", 127) + "a"
	r.request(http.MethodGet, "/v2/"+name+"/manifests/"+strings.Repeat("t", 128), nil).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	r.request(http.MethodGet, "/v2/"+name+"/referrers/sha512:"+strings.Repeat("0", 128), nil).want(t, http.StatusOK)
	r.request(http.MethodPut, put("/v2/"+name+"/blobs/uploads/"+strings.Repeat("x", 5000), "sha256:"+strings.Repeat("0", 64)), nil).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
}

// upload starts an upload and gives its URL path.
func (r *rig) upload(repo string) string {
	r.t.Helper()
	return r.request(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil).want(r.t, http.StatusAccepted).Header.Get("Location")
}

func put(location, digest string) string { return location + "?digest=" + url.QueryEscape(digest) }

func TestAnUploadURLThatWasTamperedWithIsRefused(t *testing.T) {
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), clock(func() time.Time { return now }))
	statement := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}).Statements()[0]
	location := r.upload("app")
	altered := []byte(location)
	altered[len(altered)-3] ^= 1
	for name, l := range map[string]string{
		"altered":               string(altered),
		"of another repository": strings.Replace(location, "/v2/app/", "/v2/other/", 1),
		"made up":               "/v2/app/blobs/uploads/0a1b2c3d-0000-0000-0000-000000000000",
	} {
		for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodGet, http.MethodDelete} {
			a := r.request(method, put(l, statement.Digest), statement.Bytes())
			if a.StatusCode != http.StatusNotFound || !strings.Contains(string(a.body), "BLOB_UPLOAD_UNKNOWN") {
				t.Errorf("%s with a URL %s: %s %s", method, name, a.Status, a.body)
			}
		}
	}
	r.request(http.MethodPut, put(location, statement.Digest), statement.Bytes()).want(t, http.StatusCreated)
	location = r.upload("app")
	now = now.Add(25 * time.Hour)
	r.request(http.MethodPut, put(location, statement.Digest), statement.Bytes()).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
}

func TestAHeldBlobIsCheckedAndBounded(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.MaxHeldBlob = 600 << 10 }))
	statement := func(n int) []byte {
		return append([]byte(`{"_type":"https://in-toto.io/Statement/v0.1","x":"`), append(bytes.Repeat([]byte("a"), n), `"}`...)...)
	}
	for _, n := range []int{1000, 400 << 10} { // in memory, and in parts
		b := statement(n)
		wrong := "sha256:" + strings.Repeat("0", 64)
		r.request(http.MethodPut, put(r.upload("app"), wrong), b).want(t, http.StatusBadRequest, "DIGEST_INVALID")
		r.request(http.MethodHead, "/v2/app/blobs/"+wrong, nil).want(t, http.StatusNotFound)
		d := ocidoc.DigestOf(b)
		r.request(http.MethodPut, put(r.upload("app"), d), b).want(t, http.StatusCreated)
		if a := r.request(http.MethodGet, "/v2/app/blobs/"+d, nil).want(t, http.StatusOK); !bytes.Equal(a.body, b) {
			t.Error("other bytes come back")
		}
		if a := r.request(http.MethodGet, "/v2/app/blobs/"+d, nil, "Range", "bytes=3-9").want(t, http.StatusPartialContent); string(a.body) != string(b[3:10]) {
			t.Errorf("range is %q", a.body)
		}
	}
	large := statement(700 << 10)
	a := r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(large)), large)
	a.want(t, http.StatusRequestEntityTooLarge, "SIZE_INVALID")
	if !strings.Contains(string(a.body), "max_held_blob") {
		t.Errorf("the error does not name the setting: %s", a.body)
	}
	// In chunks the size shows only on the way.
	location := r.upload("app")
	half := len(large) / 2
	location = r.request(http.MethodPatch, location, large[:half]).want(t, http.StatusAccepted).Header.Get("Location")
	r.request(http.MethodPatch, location, large[half:]).want(t, http.StatusRequestEntityTooLarge, "SIZE_INVALID")
}

// A blob that begins like an attestation and is none travels when something refers to it (I8).
func TestAGuessDecidesOnlyWhenABlobTravels(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		for _, mediaType := range []string{"application/vnd.example.config+json", "application/vnd.oci.image.layer.v1.tar"} {
			for _, size := range []int{100, 100 << 10, 600 << 10} {
				t.Run(fmt.Sprintf("%s %s %d", act, mediaType, size), func(t *testing.T) {
					r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act))
					blob := []byte(`{"_type":"https://in-toto.io/Statement/v1","pad":"` + strings.Repeat("x", size) + `"}`)
					config := []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)
					for _, b := range [][]byte{blob, config} {
						r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(b)), b).want(t, http.StatusCreated)
					}
					r.direct(http.MethodHead, "/v2/app/blobs/"+ocidoc.DigestOf(blob), nil).want(t, http.StatusNotFound)
					m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
						ociManifest, ocidoc.DigestOf(config), len(config), mediaType, ocidoc.DigestOf(blob), len(blob))
					r.request(http.MethodPut, "/v2/app/manifests/1", []byte(m), "Content-Type", ociManifest).want(t, http.StatusCreated)
					proxytest.AssertComplete(t, r.upstream)
					if got := r.upstreamDigest("app", "1"); got != ocidoc.DigestOf([]byte(m)) {
						t.Errorf("upstream has %s (I4)", got)
					}
				})
			}
		}
	}
}

// An index that lists what nobody has costs upstream a bounded number of requests.
func TestAHostileIndexIsBounded(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, `{"schemaVersion":2,"mediaType":%q,"manifests":[`, ociIndex)
	for i := range 20_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"mediaType":%q,"digest":"sha256:%064x","size":5}`, ociManifest, i)
	}
	b.WriteString(`]}`)
	tr := proxytest.NewTranscript()
	r := recorded(t, proxytest.NewDistribution, tr)
	r.request(http.MethodPut, "/v2/app/manifests/1", []byte(b.String()), "Content-Type", ociIndex).want(t, http.StatusBadRequest, "MANIFEST_INVALID")
	if n := tr.Upstream.Count(); n > 1100 {
		t.Errorf("%d requests upstream", n)
	}
}

// Also a client that looks at the answer only after its last byte learns what is wrong.
func TestAManifestThatIsFarTooLargeIsToldSoToAClientThatKeepsSending(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 40 * mib
	if _, err := fmt.Fprintf(conn, "PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", ocidoc.MediaTypeOCIManifest, size); err != nil {
		t.Fatal(err)
	}
	part := bytes.Repeat([]byte(" "), mib)
	for range size / mib {
		if _, err := conn.Write(part); err != nil {
			t.Fatalf("the client sees %v instead of the reason", err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answer is %s", resp.Status)
	}
}
