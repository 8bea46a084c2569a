package proxy_test

import (
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func lines(text, message string) (found []string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, " msg="+message+" ") {
			found = append(found, line)
		}
	}
	return found
}

func TestTheAccessLogHasALineForEveryRequestAndNoSecret(t *testing.T) {
	var requests atomic.Int64
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}),
		with(func(c *config.Config) { c.AccessLog = true }),
		before(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { requests.Add(1); next.ServeHTTP(w, r) })
		}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, LayerSize: 100 << 10, Platforms: []string{"linux/amd64"}})
	res, err := proxytest.Crane(t.Context(), proxytest.Options{BaseURL: r.url(), Repository: "team/app", Tags: []string{"1"}, Tree: tree})
	if err != nil {
		t.Fatal(res, err)
	}
	location := r.request(http.MethodPost, "/v2/team/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	token := location[strings.LastIndex(location, "/")+1:]
	r.request(http.MethodGet, location, nil)
	r.request(http.MethodGet, "/v2/team/app/manifests/1?secret=planted", nil, "Authorization", basic("u", "planted"),
		"User-Agent", "tool\n\x1b[31m"[:4]+strings.Repeat("x", 300), "Accept", acceptAll[1], "Accept", acceptAll[3]).want(t, http.StatusOK)
	r.request(http.MethodGet, "/planted%0Amsg=forged", nil)
	r.server.Close() // every line is written
	log := r.log.String()
	got := lines(log, "request")
	if int64(len(got)) != requests.Load() {
		t.Errorf("%d lines for %d requests", len(got), requests.Load())
	}
	for _, line := range got {
		for _, key := range []string{"method=", "route=", "repository=", "reference=", "status=", "bytes_in=", "bytes_out=", "took=", "identity=", "remote=127.0.0.1:", "user_agent="} {
			if !strings.Contains(line, key) {
				t.Errorf("no %s in %s", key, line)
			}
		}
	}
	for _, secret := range []string{token, "planted", strings.Repeat("x", 201)} {
		if strings.Contains(strings.Join(got, ""), secret) {
			t.Errorf("the access log has %.60s", secret)
		}
	}
	layer := regexp.MustCompile(`method=(PUT|PATCH) route=blob-upload-chunk repository=team/app reference=\S+ status=20\d bytes_in=1024\d\d bytes_out=0 `)
	if !layer.MatchString(log) {
		t.Errorf("no upload of the layer in:\n%s", strings.Join(got, ""))
	}
	if !strings.Contains(log, "method=GET route=manifest repository=team/app reference=1 status=200 bytes_in=0 ") {
		t.Errorf("no pull in:\n%s", strings.Join(got, ""))
	}
}

// Who was refused what is what the line of a refusal is read for.
func TestTheAccessLogSaysWhoWasRefusedAndWhere(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) {
		c.AccessLog = true
		c.Upstreams[0].Prefix = "team"
		c.Access.Permissions = []config.Permission{{Identity: "anonymous", Repositories: []string{"**"}, Actions: []string{"pull"}}}
	}))
	r.request(http.MethodPut, "/v2/team/app/manifests/1", []byte("{}")).want(t, http.StatusForbidden)
	r.request(http.MethodGet, "/v2/elsewhere/app/manifests/1", nil).want(t, http.StatusNotFound)
	r.request(http.MethodGet, "/v2/", nil).want(t, http.StatusOK)
	r.request(http.MethodGet, "/v2/_catalog", nil).want(t, http.StatusOK)
	r.server.Close() // every line is written
	for _, want := range []string{
		"method=PUT route=manifest repository=team/app reference=1 status=403 .* identity=anonymous ",
		"method=GET route=manifest repository=elsewhere/app reference=1 status=404 .* identity=anonymous ",
		`method=GET route=base repository="" .* identity=anonymous `,
		`method=GET route=catalog repository="" .* identity=anonymous `,
	} {
		if !regexp.MustCompile(want).MatchString(r.log.String()) {
			t.Errorf("no %s in:\n%s", want, r.log.String())
		}
	}
}

func TestWithoutAccessLogThereIsNoLinePerRequest(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	r.request(http.MethodGet, "/v2/", nil).want(t, http.StatusOK)
	if got := lines(r.log.String(), "request"); len(got) > 0 {
		t.Error(got)
	}
}

func TestTheLineOfAPushSaysWhatWasTakenOut(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
	r.push(proxytest.BuildKit, "app", "1", tree)
	got := lines(r.log.String(), "pushed")
	if len(got) != 1 {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	wants := []string{
		"repository=app", "reference=1", "original=" + tree.Digest(), "forwarded=" + r.upstreamDigest("app", "1"), "action=store",
		"identity=anonymous", "took=", "spdx.dev/Document", "slsa.dev/provenance",
	}
	for _, a := range tree.Attestations() {
		wants = append(wants, a.Digest)
	}
	for _, want := range wants {
		if !strings.Contains(got[0], want) {
			t.Errorf("no %s in %s", want, got[0])
		}
	}
	for _, size := range []string{" size=", " forwarded_size=", " taken_bytes="} {
		if !regexp.MustCompile(regexp.QuoteMeta(size) + `[1-9]\d+ `).MatchString(got[0]) {
			t.Errorf("no%s in %s", size, got[0])
		}
	}
}
