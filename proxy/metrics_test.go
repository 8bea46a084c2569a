package proxy_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// scrape is what Prometheus would see of a rig: the value of every series.
//
// A client may have its answer before the request is counted: the counts are read when none is in flight.
func (r *rig) scrape() map[string]float64 {
	r.t.Helper()
	const inFlight = "sluice_requests_in_flight"
	values := r.scrapeNow()
	for end := time.Now().Add(patience); values[inFlight] != 0; values = r.scrapeNow() {
		if time.Now().After(end) {
			r.t.Fatalf("%v requests are in flight after %v", values[inFlight], patience)
		}
		time.Sleep(time.Millisecond)
	}
	return r.scrapeNow() // the families are gathered side by side: some were read before the gauge was
}

func (r *rig) scrapeNow() map[string]float64 {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.proxy.Admin().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	values := map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "sluice_") {
			at := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
			if err != nil {
				r.t.Fatalf("%q: %v", line, err)
			}
			values[line[:at]] = v
		}
	}
	return values
}

func TestAPushIsCounted(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	host := strings.TrimPrefix(up.URL, "http://")
	for _, a := range []filters.Action{filters.Store, filters.Strip} {
		r := newRig(t, up, action(a))
		r.push(proxytest.BuildKit, "counted/"+string(a), "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true}))
		r.request(http.MethodGet, "/v2/counted/"+string(a)+"/manifests/1", nil, acceptAll...).want(t, 200)
		r.request(http.MethodGet, "/v2/counted/"+string(a)+"/manifests/none", nil, acceptAll...).want(t, 404)
		got := r.scrape()
		for name, want := range map[string]float64{
			`sluice_pushes_total{action="%s",reference="tag",result="rewritten"}`:                        1,
			`sluice_pushes_total{action="%s",reference="tag",result="forwarded"}`:                        0,
			`sluice_pushes_total{action="%s",reference="digest",result="held"}`:                          2,
			`sluice_pushes_total{action="%s",reference="digest",result="forwarded"}`:                     2,
			`sluice_statements_taken_total{action="%s",predicate_type="https://spdx.dev/Document"}`:      2,
			`sluice_statements_taken_total{action="%s",predicate_type="https://slsa.dev/provenance/v1"}`: 2,
			`sluice_statements_taken_total{action="%s",predicate_type="other"}`:                          0,
			`sluice_requests_total{code="4xx",method="GET",route="manifest"}`:                            1,
			`sluice_requests_in_flight`: 0,
			`sluice_upstream_errors_total{kind="unreachable",upstream="` + host + `"}`: 0,
			`sluice_storage_errors_total`: 0,
		} {
			if strings.Contains(name, "%s") {
				name = fmt.Sprintf(name, a)
			}
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s: %s is %v (there: %t), want %v", a, name, v, ok, want)
			}
		}
		for _, name := range []string{
			`sluice_upstream_requests_total{code="2xx",operation="read",upstream="` + host + `"}`,
			`sluice_upstream_requests_total{code="2xx",operation="write",upstream="` + host + `"}`,
			`sluice_upstream_request_duration_seconds_count{operation="write",upstream="` + host + `"}`,
			`sluice_request_duration_seconds_count{route="blob-upload-chunk"}`,
			`sluice_requests_total{code="2xx",method="PUT",route="manifest"}`,
			`sluice_streamed_bytes_total`, `sluice_held_bytes_total`, `sluice_response_bytes_total`,
		} {
			if got[name] == 0 {
				t.Errorf("%s: %s is 0", a, name)
			}
		}
	}
}

func TestAnUpstreamThatIsGoneIsCountedByKind(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	r := newRig(t, up, with(func(c *config.Config) { c.Upstreams[0].URL = "http://" + freeAddress(t) }))
	host := strings.TrimPrefix(r.config.Upstreams[0].URL, "http://")
	r.request(http.MethodGet, "/v2/app/tags/list", nil).want(t, http.StatusBadGateway)
	got := r.scrape()
	if v := got[`sluice_upstream_errors_total{kind="unreachable",upstream="`+host+`"}`]; v != 1 {
		t.Errorf("unreachable: %v, want 1", v)
	}
	if v := got[`sluice_upstream_retries_total{upstream="`+host+`"}`]; v < 1 {
		t.Errorf("retries: %v, want some", v)
	}
	if v := got[`sluice_requests_total{code="5xx",method="GET",route="tags"}`]; v != 1 {
		t.Errorf("requests: %v, want 1", v)
	}
}

// Everything that a client may choose is chosen badly: no series may come of it.
func TestClientsCannotMakeSeries(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("u:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Mode, c.Access.Htpasswd = config.AccessHtpasswd, users
		c.Access.Permissions = []config.Permission{{Identity: "u", Repositories: []string{"mine/**"}, Actions: []string{"pull", "push"}}}
	}))
	before := r.scrape()
	for i := range 20 {
		repo, user := fmt.Sprintf("mine/hostile%d", i), fmt.Sprintf("hostile%d", i)
		r.request("HOSTILE"+strings.Repeat("X", i), "/v2/"+repo+"/manifests/hostile", nil, "Authorization", basic("u", "secret"))
		r.request(http.MethodGet, "/hostile"+strconv.Itoa(i), nil)
		r.request(http.MethodGet, "/v2/"+repo+"/manifests/hostile"+strconv.Itoa(i), nil, "Authorization", basic("u", "secret"), "User-Agent", "hostile")
		r.request(http.MethodGet, "/v2/other/"+repo+"/tags/list", nil, "Authorization", basic("u", "secret"))
		r.request(http.MethodGet, "/v2/"+repo+"/tags/list", nil, "Authorization", basic(user, "hostile"))
		r.request(http.MethodPut, "/v2/"+repo+"/manifests/1", []byte(`{"schemaVersion":2,"hostile`), "Authorization", basic("u", "secret"), "Content-Type", "hostile/"+user)
	}
	after := r.scrape()
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("new: %s", name)
		}
		if strings.Contains(strings.ToLower(name), "hostile") {
			t.Errorf("a client's text is in %s", name)
		}
	}
	for name, want := range map[string]float64{
		`sluice_access_refusals_total{reason="denied"}`:                        20,
		`sluice_access_refusals_total{reason="unauthenticated"}`:               20,
		`sluice_pushes_total{action="store",reference="tag",result="refused"}`: 20,
		`sluice_requests_total{code="4xx",method="other",route="manifest"}`:    20,
		`sluice_requests_total{code="4xx",method="GET",route="other"}`:         20,
	} {
		if after[name] != want {
			t.Errorf("%s is %v, want %v", name, after[name], want)
		}
	}
}

func TestEveryUpstreamHasItsSeriesFromTheStart(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	r := newRig(t, up)
	host := regexp.QuoteMeta(strings.TrimPrefix(up.URL, "http://"))
	n := 0
	for name := range r.scrape() {
		if regexp.MustCompile(`upstream="` + host + `"`).MatchString(name) {
			n++
		}
	}
	if n < 50 {
		t.Errorf("%d series of the upstream before its first request", n)
	}
}

func TestSweepsAreCountedAndWhatIsKeptIsMeasured(t *testing.T) {
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), clock(func() time.Time { return now }))
	r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
	r.proxy.Sweep(t.Context())
	young := r.scrape()
	for _, place := range []string{"quarantine", "stored"} {
		objects := float64(len(r.files("/"+map[string]string{"quarantine": "quarantine", "stored": "attestations"}[place], "")))
		if got := young[`sluice_storage_objects{place="`+place+`"}`]; got == 0 || got != objects {
			t.Errorf("%s: %v objects, the storage has %v", place, got, objects)
		}
		if young[`sluice_storage_bytes{place="`+place+`"}`] == 0 {
			t.Errorf("%s: no bytes", place)
		}
		if young[`sluice_sweeps_total{place="`+place+`",result="succeeded"}`] != 1 || young[`sluice_swept_objects_total{place="`+place+`"}`] != 0 {
			t.Errorf("%s: %v", place, young)
		}
		if at := young[`sluice_sweep_last_success_timestamp_seconds{place="`+place+`"}`]; math.Abs(at-float64(now.Unix())) > 2 {
			t.Errorf("%s: last success at %v, it is %v", place, at, now.Unix())
		}
	}
	now = now.Add(10 * 24 * time.Hour)
	r.proxy.Sweep(t.Context())
	old := r.scrape()
	if got, want := old[`sluice_swept_objects_total{place="quarantine"}`], young[`sluice_storage_objects{place="quarantine"}`]; got != want {
		t.Errorf("swept %v objects, there were %v", got, want)
	}
	if got, want := old[`sluice_swept_bytes_total{place="quarantine"}`], young[`sluice_storage_bytes{place="quarantine"}`]; got != want {
		t.Errorf("swept %v bytes, there were %v", got, want)
	}
	if got := old[`sluice_storage_bytes{place="quarantine"}`]; got != 0 {
		t.Errorf("%v bytes are left in quarantine", got)
	}
}
