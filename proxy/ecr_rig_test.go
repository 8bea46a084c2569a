package proxy_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // of the double

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
	"sluice/proxy/proxytest"
)

// An awsRig is a proxy in front of a double of Amazon ECR, signed in as `credentials: ecr` does.
type awsRig struct {
	*rig
	ecr *ecrsimtest.Server
	rec *proxytest.Recorder // of what reaches the double
}

// newAWSRig makes repositories as they are pushed to, unless the change says otherwise, and does not throttle.
func newAWSRig(t *testing.T, change func(*ecrsim.Switches), settings ...setting) *awsRig {
	t.Helper()
	s := ecrsimtest.New(t, ecrsim.Options{Storage: onDisk(t), Switches: ecrsim.Switches{NoThrottling: true, Templates: []ecrsim.Template{{Prefix: "ROOT"}}}})
	if change != nil {
		s.Update(change)
	}
	s.SetEnv(t)
	r := &awsRig{ecr: s, rec: proxytest.NewRecorder()}
	recorded := httptest.NewServer(r.rec.Handler(s.Registry()))
	t.Cleanup(recorded.Close)
	r.rig = newRig(t, &proxytest.Upstream{Kind: "ecrsim", URL: recorded.URL}, append([]setting{with(ecrCredentials)}, settings...)...)
	return r
}

// onDisk is for layers: the inmemory driver copies a file whole with every 32 KiB that are appended to it.
func onDisk(t *testing.T) storagedriver.StorageDriver {
	t.Helper()
	d, err := factory.Create(context.Background(), "filesystem", map[string]any{"rootdirectory": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// direct is a request to the double itself.
func (r *awsRig) direct(method, path string, body []byte, header ...string) *answer {
	r.t.Helper()
	user, password := r.ecr.Password(r.ecr.AccessKey)
	return request(r.t, method, r.ecr.URL+path, body, append(header, "Authorization", basic(user, password))...)
}

// blob reads a layer as ECR keeps it, past its redirect. It must be referenced.
func (r *awsRig) blob(repo, digest string) []byte {
	r.t.Helper()
	a := r.direct(http.MethodGet, "/v2/"+repo+"/blobs/"+digest, nil).want(r.t, http.StatusTemporaryRedirect)
	return request(r.t, http.MethodGet, a.Header.Get("Location"), nil).want(r.t, http.StatusOK).body
}

// sent are the requests that reached the double with a method, in order.
func (r *awsRig) sent(method string) []proxytest.Exchange {
	var out []proxytest.Exchange
	for _, e := range r.rec.Exchanges() {
		if e.Method == method {
			out = append(out, e)
		}
	}
	return out
}

// readableECR is a double of Amazon ECR that lets in who has no credentials, too.
func readableECR(t *testing.T, wrap func(http.Handler) http.Handler) *proxytest.Upstream {
	t.Helper()
	s := ecrsimtest.New(t, ecrsim.Options{Storage: onDisk(t), Switches: ecrsim.Switches{NoThrottling: true, Templates: []ecrsim.Template{{Prefix: "ROOT"}}}})
	s.SetEnv(t)
	user, password := s.Password(s.AccessKey)
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			r.SetBasicAuth(user, password)
		}
		s.Registry().ServeHTTP(w, r)
	})
	if wrap != nil {
		h = wrap(h)
	}
	front := httptest.NewUnstartedServer(h)
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front.Start()
	t.Cleanup(front.Close)
	return &proxytest.Upstream{Kind: "ecrsim", URL: front.URL}
}
