package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// controlPlane is what GetAuthorizationToken needs of AWS: JSON 1.1, tokens that are counted.
type controlPlane struct {
	*httptest.Server
	now  func() time.Time
	life time.Duration

	mu     sync.Mutex
	calls  int
	refuse string        // error type of the next answers
	gate   chan struct{} // answers wait for it
}

func newControlPlane(t *testing.T) *controlPlane {
	c := &controlPlane{now: time.Now, life: 12 * time.Hour}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	awsEnvironment(t)
	t.Setenv("AWS_ENDPOINT_URL_ECR", c.URL)
	t.Setenv("AWS_ENDPOINT_URL_ECR_PUBLIC", c.URL)
	return c
}

// awsEnvironment has keys and nothing of the machine's own.
func awsEnvironment(t *testing.T) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_REGION": "eu-west-1",
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(k, v)
	}
}

func (c *controlPlane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.calls++
	n, refuse, gate := c.calls, c.refuse, c.gate
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if refuse != "" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": refuse, "message": "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: ecr:GetAuthorizationToken on resource: *"})
		return
	}
	if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKIDEXAMPLE/") {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": "UnrecognizedClientException", "message": "The security token included in the request is invalid."})
		return
	}
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:p%d", n)),
		"expiresAt":          float64(c.now().Add(c.life).Unix()),
	}
	var answer any = map[string]any{"authorizationData": []any{data}}
	if strings.Contains(r.Header.Get("X-Amz-Target"), "Spencer") { // ECR Public's service name
		answer = map[string]any{"authorizationData": data}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (c *controlPlane) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

const expired = `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`

// ecrFake is a private registry: the tokens up to and including dead have expired.
type ecrFake struct {
	*fake
	mu     sync.Mutex
	dead   int
	status int // of the refusal
}

func newECRFake(t *testing.T) *ecrFake {
	e := &ecrFake{status: http.StatusForbidden}
	e.fake = newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for n := 1; n <= 9; n++ {
			if r.Header.Get("Authorization") != basicHeader("AWS", fmt.Sprintf("p%d", n)) {
				continue
			}
			if n > e.dead {
				_, _ = io.Copy(io.Discard, r.Body)
				return
			}
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(e.status)
			_, _ = io.WriteString(w, expired)
			return
		}
		w.Header().Set("Www-Authenticate", `Basic realm="https://registry/",service="ecr.amazonaws.com"`)
		http.Error(w, "Not Authorized", http.StatusUnauthorized)
	}})
	return e
}

func (e *ecrFake) expire(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dead = n
}

func openECR(t *testing.T, c *controlPlane, url string) (*Registry, *clock) {
	r, clock := open(t, Options{URL: url, Credentials: ECR})
	if c != nil {
		c.now = clock.now
	}
	return r, clock
}

func TestOneECRTokenServesEveryRequest(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	r, _ := openECR(t, c, f.URL)
	c.gate = make(chan struct{})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { do(t, r, 200, Request{Repository: fmt.Sprint("app", i), Path: "tags/list"}) })
	}
	close(c.gate)
	all.Wait()
	if n, m := c.count(), len(f.requests()); n != 1 || m != 20 {
		t.Errorf("%d tokens for %d requests, want 1 for 20: a request without a token was refused first", n, m)
	}
}

func TestAnECRTokenIsRenewedAheadOfItsEnd(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	r, clock := openECR(t, c, f.URL)
	do(t, r, 200, Request{})
	clock.add(7 * time.Hour)
	do(t, r, 200, Request{})
	if n := c.count(); n != 1 {
		t.Fatalf("%d tokens after seven of twelve hours", n)
	}
	clock.add(2 * time.Hour) // renewed in the background: this request goes with the old one
	c.gate = make(chan struct{})
	do(t, r, 200, Request{})
	close(c.gate)
	r.auth.flights.Wait()
	do(t, r, 200, Request{})
	got := f.requests()
	if c.count() != 2 || !strings.HasSuffix(got[2], basicHeader("AWS", "p1")) || !strings.HasSuffix(got[3], basicHeader("AWS", "p2")) {
		t.Errorf("%d tokens, requests %q", c.count(), got)
	}

	t.Run("and is used to its end when that fails", func(t *testing.T) {
		c.mu.Lock()
		c.refuse = "AccessDeniedException"
		c.mu.Unlock()
		clock.add(9 * time.Hour)
		for range 5 {
			do(t, r, 200, Request{})
			r.auth.flights.Wait()
		}
		if n := c.count(); n != 3 {
			t.Errorf("%d tokens were asked for, want 3: once a minute is enough", n)
		}
		clock.add(4 * time.Hour)
		if _, err := r.Do(t.Context(), Request{}); !errors.Is(err, ErrCredentials) {
			t.Errorf("after its end: %v", err)
		}
	})
}

func TestReplicasRenewAtDifferentTimes(t *testing.T) {
	at := map[time.Time]bool{}
	for _, j := range []float64{0, 0.3, 0.99} {
		s := &ecrSource{now: newClock().now, jitter: func() float64 { return j }}
		end := s.now().Add(12 * time.Hour)
		c, err := s.read(base64.StdEncoding.EncodeToString([]byte("AWS:p")), end)
		if err != nil {
			t.Fatal(err)
		}
		if left := end.Sub(c.renewAt()); left < 3*time.Hour || left > 4*time.Hour+30*time.Minute {
			t.Errorf("renewed %v before the end", left)
		}
		at[c.renewAt()] = true
	}
	if len(at) != 3 {
		t.Errorf("renewals at %v", at)
	}
}

// A HEAD that ECR refuses while AWS gives out no tokens is answered as ECR did, and AWS is not asked for each.
// A token that ended while a request was under way is replaced every time, however often that happens; within one
// request so often as a request is tried.
// Where the clocks differ nobody knows when a token ends: it is used, and replaced when it is refused.
func TestATokenThatEndsUnderABodyIsAnErrorOfItsOwn(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	r, _ := openECR(t, c, f.URL)
	do(t, r, 200, Request{})
	r.mute() // a registry that does not know Expect
	f.handle = func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.CopyN(io.Discard, req.Body, 1<<16)
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, expired)
	}
	_, err := r.Do(t.Context(), Request{Method: "PUT", Repository: "app", Path: "blobs/uploads/x", Body: io.LimitReader(zeros{}, 1<<20), ContentLength: 1 << 20, Push: true})
	if !errors.Is(err, ErrRenewed) {
		t.Fatalf("error = %v, want ErrRenewed", err)
	}
	f.handle = func(http.ResponseWriter, *http.Request) {}
	do(t, r, 200, Request{})
	if got := f.requests(); c.count() != 2 || !strings.HasSuffix(got[len(got)-1], basicHeader("AWS", "p2")) {
		t.Errorf("the next request: %q", got[len(got)-1])
	}
}

// ECR Public wants Bearer: the password goes to its token service, as that of docker login does, and an
// expired token is 400 without a challenge (containers-roadmap#2835).
func TestECRPublicExchangesThePasswordForABearerToken(t *testing.T) {
	c := newControlPlane(t)
	f := newFake(t, &fake{scheme: "bearer", allow: func(a string) bool { return strings.HasPrefix(a, "Bearer t") }})
	r, clock := openECR(t, c, f.URL)
	src := r.auth.source.(*ecrSource)
	src.ecr = ECRHost{Public: true}
	r.auth.service = service{}
	dead := ""
	f.handle = func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") == dead {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, expired)
		}
	}
	do(t, r, 200, Request{Repository: "alias/app", Path: "tags/list"})
	dead = "Bearer t1"
	do(t, r, 200, Request{Repository: "alias/app", Path: "tags/list"})
	clock.add(time.Hour)
	do(t, r, 200, Request{Repository: "alias/app", Path: "tags/list"})
	if got := f.auths; c.count() != 1 || len(got) != 3 || got[2] != basicHeader("AWS", "p1") {
		t.Errorf("%d passwords of AWS, tokens for %q; want one password, whose life is twelve hours", c.count(), got)
	}

	// A password that the service refuses is fetched anew.
	f.grant = func(n int) (int, map[string]any) {
		if n == 4 {
			return http.StatusForbidden, nil
		}
		return http.StatusOK, map[string]any{"token": fmt.Sprint("t", n)}
	}
	do(t, r, 200, Request{Repository: "alias/other", Path: "tags/list"})
	if got := f.auths; c.count() != 2 || got[len(got)-1] != basicHeader("AWS", "p2") {
		t.Errorf("%d passwords of AWS, tokens for %q", c.count(), got)
	}
}

func TestTheECREndpointBelongsToTheHost(t *testing.T) {
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                "api.ecr.eu-west-1.amazonaws.com eu-west-1",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":           "api.ecr-fips.us-east-1.amazonaws.com us-east-1",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":       "api.ecr-fips.us-gov-west-1.amazonaws.com us-gov-west-1", // as the SDK has it
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            "api.ecr.cn-north-1.amazonaws.com.cn cn-north-1",
		"123456789012.dkr-ecr.eu-west-1.on.aws":                       "ecr.eu-west-1.api.aws eu-west-1",
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":                  "ecr-fips.us-east-1.api.aws us-east-1",
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": "ecr.cn-north-1.api.amazonwebservices.com.cn cn-north-1",
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":               "api.ecr.us-iso-east-1.c2s.ic.gov us-iso-east-1",
		"public.ecr.aws":  "api.ecr-public.us-east-1.amazonaws.com us-east-1",
		"ecr.example.com": "api.ecr.ap-south-1.amazonaws.com ap-south-1",
	} {
		t.Run(host, func(t *testing.T) {
			awsEnvironment(t)
			t.Setenv("AWS_REGION", "ap-south-1")
			r, _ := openECR(t, nil, "https://"+host)
			var got string
			r.auth.source.(*ecrSource).client = clientFunc(func(q *http.Request) (*http.Response, error) {
				_, scope, _ := strings.Cut(q.Header.Get("Authorization"), "AKIDEXAMPLE/")
				got = q.URL.Host + " " + strings.Split(scope, "/")[1]
				return nil, errors.New("enough")
			})
			_, _ = r.auth.source.credential(t.Context())
			if got != want {
				t.Errorf("asked %q, want %q", got, want)
			}
			if _, ok := r.ECR(); !ok {
				t.Error("ECR() = false")
			}
		})
	}
}

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func TestTheRealAWSErrorComesOutWithWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, c *controlPlane)
		kind    error
		want    []string
	}{
		"no credentials at all": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			imds := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(imds.Close)
			t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.URL)
		}, ErrCredentials, []string{"no EC2 IMDS role found", "AWS_PROFILE", "role"}},
		"instance roles are off": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		}, ErrCredentials, []string{"no EC2 IMDS role found", "AWS_PROFILE"}},
		"a profile that does not exist": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_PROFILE", "nobody")
		}, ErrCredentials, []string{"nobody", "AWS_PROFILE"}},
		"a profile whose process prints secrets": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte("[default]\ncredential_process = echo hunter2\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AWS_CONFIG_FILE", file)
		}, ErrCredentials, []string{"credential_process"}},
		"the right is missing": {func(t *testing.T, c *controlPlane) {
			c.refuse = "AccessDeniedException"
		}, ErrCredentials, []string{"ecr:GetAuthorizationToken", "user/ci", "IAM policy"}},
		"keys of nobody": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_ACCESS_KEY_ID", "OTHER")
		}, ErrCredentials, []string{"UnrecognizedClientException", "AWS keys"}},
		"temporary keys that ended": {func(t *testing.T, c *controlPlane) {
			c.refuse = "ExpiredTokenException"
		}, ErrCredentials, []string{"aws sso login"}},
		"no region": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_REGION", "")
		}, ErrCredentials, []string{"AWS_REGION"}},
		"nobody listens": {func(t *testing.T, c *controlPlane) {
			t.Setenv("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:1")
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
		}, ErrUnreachable, []string{"eu-west-1", "VPC endpoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			plane, f := newControlPlane(t), newECRFake(t)
			c.prepare(t, plane)
			r, _ := openECR(t, plane, f.URL)
			_, err := r.Do(t.Context(), Request{})
			if !errors.Is(err, c.kind) {
				t.Fatalf("error = %v, want %v", err, c.kind)
			}
			for _, w := range append(c.want, r.Host()) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is missing in: %v", w, err)
				}
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if s := fmt.Sprintf("%v %+v", e, e); strings.Contains(s, "hunter2") || strings.Contains(s, "AKIDEXAMPLE") {
					t.Errorf("error shows a secret: %v", e)
				}
			}
		})
	}
}

func TestARegionThatDoesNotExistIsSaidToBeSo(t *testing.T) {
	lookup := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "api.ecr.eu-wset-1.amazonaws.com", IsNotFound: true}}
	err := awsError("123456789012.dkr.ecr.eu-wset-1.amazonaws.com", "eu-wset-1", "ecr:GetAuthorizationToken", lookup)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "check the region in the upstream's url") || strings.Contains(err.Error(), "VPC") {
		t.Error(err)
	}
}

func TestCloseEndsACallOfTheECRAPI(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	c.gate = make(chan struct{})
	defer close(c.gate)
	r, _ := openECR(t, c, f.URL)
	done := make(chan error, 1)
	go func() {
		_, err := r.Do(context.Background(), Request{})
		done <- err
	}()
	for c.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = r.Close()
	if err := <-done; !errors.Is(err, ErrUnreachable) {
		t.Errorf("error = %v", err)
	}
}
