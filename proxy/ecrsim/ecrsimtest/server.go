// Package ecrsimtest serves a double of Amazon ECR on loopback ports for the length of a test.
package ecrsimtest

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/proxy/ecrsim"
)

// Server is a double that can be reached.
type Server struct {
	*ecrsim.Simulator

	URL     string // of the registry, http://127.0.0.1:port
	Control string // of the control plane, http://127.0.0.1:port
	Blobs   string // that GET of a blob redirects to, http://localhost:port: Go's client keeps Authorization between ports of one host

	AccessKey, SecretKey, Region string
}

// New starts one; everything ends with the test. o.BlobURL and o.Host are set here, to Blobs and the host of URL, unless
// they have a value. Throttling is on, as in life: 10 manifests per second of Options.Now.
func New(t testing.TB, o ecrsim.Options) *Server {
	t.Helper()
	s := &Server{AccessKey: ecrsim.DefaultAccessKey, SecretKey: ecrsim.DefaultSecretKey, Region: o.Region}
	if s.Region == "" {
		s.Region = ecrsim.DefaultRegion
	}
	if len(o.Principals) > 0 {
		s.AccessKey = o.Principals[0].AccessKey
	}
	var registry, control, blobs http.Handler // set before the first request: nobody knows the address before
	serve := func(h *http.Handler) string {
		hs := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h).ServeHTTP(w, r) }))
		hs.Config.ErrorLog = log.New(io.Discard, "", 0) // cut connections are meant
		hs.Start()
		t.Cleanup(hs.Close)
		return hs.URL
	}
	s.URL, s.Control = serve(&registry), serve(&control)
	s.Blobs = strings.Replace(serve(&blobs), "127.0.0.1", "localhost", 1)
	if o.BlobURL == "" {
		o.BlobURL = s.Blobs
	}
	if o.Host == "" {
		o.Host = strings.TrimPrefix(s.URL, "http://")
	}
	sim, err := ecrsim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	s.Simulator = sim
	registry, control, blobs = sim.Registry(), sim.ControlPlane(), sim.Blobs()
	return s
}

// Env is what an AWS SDK or the AWS CLI needs to use the control plane, as NAME=value.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL_ECR=" + s.Control,
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_REGION=" + s.Region,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// SetEnv puts Env into the process, for SDKs that run in it.
func (s *Server) SetEnv(t *testing.T) {
	t.Helper()
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
}

// Client signs in to the registry with a token like docker login has left it. On another host it sends no credentials.
func (s *Server) Client() *http.Client {
	return &http.Client{Transport: signedIn{s}}
}

type signedIn struct{ s *Server }

func (t signedIn) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Authorization") == "" && strings.HasPrefix(r.URL.String(), t.s.URL+"/") {
		user, password := t.s.Password(t.s.AccessKey)
		r = r.Clone(r.Context())
		r.SetBasicAuth(user, password)
	}
	return http.DefaultTransport.RoundTrip(r)
}
