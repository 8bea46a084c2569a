package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

const (
	lifecycle = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	policy    = `{"Version":"2012-10-17","Statement":[]}`
)

// account is a double of Amazon ECR under the name of a real one, and what its API was asked.
type account struct {
	*ecrsimtest.Server
	api *ecr.Client

	mu     sync.Mutex
	calls  []string
	script func(operation string, n int, w http.ResponseWriter) bool // true: answered; n counts calls of the operation
	before func(operation string)                                    // before the double answers
	after  func(operation string, n int) bool                        // true: the double's answer is lost
	hide   func(r *http.Request) bool                                // true: the registry does not know the repository (yet)
	seen   []string                                                  // requests to the registry
}

func newAccount(t *testing.T) *account {
	t.Helper()
	host := ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion)
	a := &account{Server: ecrsimtest.New(t, ecrsim.Options{Host: host})}
	a.SetEnv(t)
	none := filepath.Join(t.TempDir(), "none")
	for k, v := range map[string]string{"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_MAX_ATTEMPTS": "2"} {
		t.Setenv(k, v)
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithBaseEndpoint(a.Control))
	if err != nil {
		t.Fatal(err)
	}
	a.api = ecr.NewFromConfig(cfg)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		n := a.called(operation)
		if a.script != nil && a.script(operation, n, w) {
			return
		}
		if a.before != nil {
			a.before(operation)
		}
		rec := httptest.NewRecorder()
		r.Host = strings.TrimPrefix(a.Control, "http://")
		a.ControlPlane().ServeHTTP(rec, r)
		if a.after != nil && a.after(operation, n) {
			panic(http.ErrAbortHandler)
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}))
	t.Cleanup(front.Close)
	t.Setenv("AWS_ENDPOINT_URL_ECR", front.URL)
	return a
}

func (a *account) called(operation string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if operation != "GetAuthorizationToken" {
		a.calls = append(a.calls, operation)
	}
	for _, c := range a.calls {
		if c == operation {
			n++
		}
	}
	return n
}

// RoundTrip leads the real host name to the double.
func (a *account) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.seen = append(a.seen, req.Method+" "+strings.TrimPrefix(req.URL.RequestURI(), "/v2/"))
	hide := a.hide != nil && a.hide(req)
	a.mu.Unlock()
	if hide {
		repo, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/")
		body := fmt.Sprintf(`{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name '%s' does not exist in the registry with id '123456789012'"}]}`, repo)
		return &http.Response{StatusCode: 404, Status: "404 Not Found", Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
	to, err := url.Parse(a.URL)
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = to.Scheme, to.Host
	resp, err := http.DefaultTransport.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (a *account) open(t *testing.T, s RepositorySettings, change ...func(*Options)) (*Registry, *clock) {
	t.Helper()
	o := Options{URL: "https://" + ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion), Credentials: ECR, Transport: a, CreateRepositories: &s}
	for _, c := range change {
		c(&o)
	}
	return open(t, o)
}

func post(repo string) Request {
	return Request{Method: "POST", Repository: repo, Path: "blobs/uploads/", Push: true}
}

func TestAPushToAMissingRepositoryMakesItAsConfigured(t *testing.T) {
	a := newAccount(t)
	r, _ := a.open(t, RepositorySettings{
		TagMutability: "IMMUTABLE_WITH_EXCLUSION", TagExclusions: []string{"latest", "dev-*"},
		Encryption: "KMS", KMSKey: "alias/k", Tags: map[string]string{"team": "platform", "cost": "4711"},
		LifecyclePolicy: lifecycle, RepositoryPolicy: policy,
	})
	do(t, r, 202, post("team/app"))
	same(t, a.calls, "CreateRepository", "PutLifecyclePolicy", "SetRepositoryPolicy")

	name := "team/app"
	d, err := a.api.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	got := d.Repositories[0]
	if got.ImageTagMutability != "IMMUTABLE_WITH_EXCLUSION" || len(got.ImageTagMutabilityExclusionFilters) != 2 || *got.ImageTagMutabilityExclusionFilters[1].Filter != "dev-*" ||
		got.EncryptionConfiguration.EncryptionType != "KMS" || *got.EncryptionConfiguration.KmsKey != "alias/k" {
		t.Errorf("made as %+v", got)
	}
	tags, err := a.api.ListTagsForResource(t.Context(), &ecr.ListTagsForResourceInput{ResourceArn: got.RepositoryArn})
	if err != nil || len(tags.Tags) != 2 || *tags.Tags[0].Key != "cost" || *tags.Tags[0].Value != "4711" {
		t.Errorf("tags %+v, %v", tags, err)
	}
	if p, err := a.api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: &name}); err != nil || *p.LifecyclePolicyText != lifecycle {
		t.Errorf("lifecycle policy %+v, %v", p, err)
	}
	if p, err := a.api.GetRepositoryPolicy(t.Context(), &ecr.GetRepositoryPolicyInput{RepositoryName: &name}); err != nil || *p.PolicyText != policy {
		t.Errorf("repository policy %+v, %v", p, err)
	}
	a.calls = nil
	do(t, r, 202, post("team/app"))
	same(t, a.calls) // no more
}

func TestARepositoryIsMadeOnceForAllWhoWait(t *testing.T) {
	a := newAccount(t)
	r, _ := a.open(t, RepositorySettings{})
	var all sync.WaitGroup
	all.Add(16)
	a.before = func(operation string) { // until all have heard that the repository is missing
		if operation == "CreateRepository" {
			all.Wait()
		}
	}
	next := r.creating.next
	r.creating.next = func(ctx context.Context, q Request) (*http.Response, error) {
		resp, err := next(ctx, q)
		if err == nil && resp.StatusCode == http.StatusNotFound {
			all.Done()
		}
		return resp, err
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { do(t, r, 202, post("app")) })
	}
	wg.Wait()
	// Whoever heard it, but asked for the repository only after it was made, asks once more at most.
	if n := len(a.calls); n == 0 || n > 2 {
		t.Errorf("calls %v", a.calls)
	}
}

func TestWhichRequestsMakeARepository(t *testing.T) {
	stream := func() io.Reader { return strings.NewReader(strings.Repeat("x", 1<<20)) }
	for name, tt := range map[string]struct {
		q     Request
		makes bool
	}{
		"an upload":                 {post("app"), true},
		"a mount":                   {Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Query: url.Values{"mount": {"sha256:" + strings.Repeat("a", 64)}, "from": {"base"}}, Push: true, Mount: "base"}, true},
		"a manifest":                {putTag("app"), true},
		"a read of a manifest":      {Request{Repository: "app", Path: "manifests/1"}, false},
		"a look at a layer":         {Request{Method: "HEAD", Repository: "app", Path: "blobs/sha256:" + strings.Repeat("a", 64)}, false},
		"a list of tags":            {Request{Repository: "app", Path: "tags/list"}, false},
		"a chunk, which is gone":    {Request{Method: "PATCH", Repository: "app", Location: "/v2/app/blobs/uploads/1", Body: stream(), ContentLength: 1 << 20, Push: true}, false},
		"a deletion":                {Request{Method: "DELETE", Repository: "app", Path: "manifests/1", Push: true}, false},
		"an upload with its layer":  {Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Body: stream(), ContentLength: 1 << 20, Push: true}, false},
		"an upload outside of them": {post("other/app"), false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t)
			r, _ := a.open(t, RepositorySettings{Repositories: []string{"app", "team/**"}})
			resp, err := r.Do(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if made := len(a.calls) > 0; made != tt.makes {
				t.Errorf("made: %v (%s)", made, resp.Status)
			}
			if tt.q.Repository == "other/app" && (resp.StatusCode != 404 || !strings.Contains(string(body), "'other/app' does not exist")) {
				t.Errorf("upstream's own answer became %s %s", resp.Status, body) // and is whole
			}
		})
	}
}

// Another replica, or the answer to an earlier try that was lost.
func TestARepositoryThatIsThereAlreadyIsASuccess(t *testing.T) {
	for name, tt := range map[string]struct {
		theirs bool // whoever made it gave it a lifecycle policy
		calls  []string
		want   string
	}{
		"and gets the policies that it lacks": {false, []string{"CreateRepository", "GetLifecyclePolicy", "PutLifecyclePolicy", "GetRepositoryPolicy", "SetRepositoryPolicy"}, lifecycle},
		"and keeps those that it has":         {true, []string{"CreateRepository", "GetLifecyclePolicy", "GetRepositoryPolicy", "SetRepositoryPolicy"}, strings.Replace(lifecycle, "1,", "7,", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t)
			app := "app"
			if _, err := a.api.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &app}); err != nil {
				t.Fatal(err)
			}
			if tt.theirs {
				if _, err := a.api.PutLifecyclePolicy(t.Context(), &ecr.PutLifecyclePolicyInput{RepositoryName: &app, LifecyclePolicyText: &tt.want}); err != nil {
					t.Fatal(err)
				}
			}
			first := true
			a.hide = func(*http.Request) bool { defer func() { first = false }(); return first }
			r, _ := a.open(t, RepositorySettings{LifecyclePolicy: lifecycle, RepositoryPolicy: policy})
			do(t, r, 202, post(app))
			same(t, a.calls, tt.calls...)
			if p, err := a.api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: &app}); err != nil || *p.LifecyclePolicyText != tt.want {
				t.Errorf("lifecycle policy %+v, %v", p, err)
			}
		})
	}
}

func TestALostAnswerLeavesNoRepositoryWithoutItsPolicies(t *testing.T) {
	a := newAccount(t)
	a.after = func(operation string, n int) bool { return operation == "CreateRepository" && n == 1 }
	r, _ := a.open(t, RepositorySettings{LifecyclePolicy: lifecycle})
	do(t, r, 202, post("app"))
	same(t, a.calls, "CreateRepository", "CreateRepository", "GetLifecyclePolicy", "PutLifecyclePolicy")
}

// Between the repository and its policies anything may fail. Nobody pushes there until they are set.
func TestAPolicyThatFailedIsSetBeforeTheNextPush(t *testing.T) {
	a := newAccount(t)
	a.Update(func(s *ecrsim.Switches) { s.Deny = []string{"ecr:PutLifecyclePolicy"} })
	r, _ := a.open(t, RepositorySettings{LifecyclePolicy: lifecycle, RepositoryPolicy: policy})
	for range 2 {
		_, err := r.Do(t.Context(), post("app"))
		if !errors.Is(err, ErrCreate) || !strings.Contains(err.Error(), "allow ecr:PutLifecyclePolicy on it") {
			t.Fatalf("error %v", err)
		}
	}
	a.Update(func(s *ecrsim.Switches) { s.Deny = nil })
	do(t, r, 202, post("app"))
	app := "app"
	if p, err := a.api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: &app}); err != nil || *p.LifecyclePolicyText != lifecycle {
		t.Errorf("lifecycle policy %+v, %v", p, err)
	}
	if p, err := a.api.GetRepositoryPolicy(t.Context(), &ecr.GetRepositoryPolicyInput{RepositoryName: &app}); err != nil || *p.PolicyText != policy {
		t.Errorf("repository policy %+v, %v", p, err)
	}
	a.calls = nil
	do(t, r, 202, post("app"))
	same(t, a.calls)
}

func TestANewRepositoryMayBeUnknownForAWhile(t *testing.T) {
	a := newAccount(t)
	n := 0
	a.hide = func(*http.Request) bool { n++; return n <= 3 }
	r, clock := a.open(t, RepositorySettings{})
	do(t, r, 202, post("app"))
	if n != 4 || len(clock.slept) != 2 {
		t.Errorf("%d requests, waits %v", n, clock.slept)
	}
	same(t, a.calls, "CreateRepository")

	n = -1 << 30 // for ever
	a.hide = func(*http.Request) bool { return true }
	start := clock.now()
	_, body := do(t, r, 404, post("other"))
	if !strings.Contains(string(body), "NAME_UNKNOWN") || clock.now().Sub(start) > retryBudget {
		t.Errorf("after %s: %s", clock.now().Sub(start), body)
	}
}

// awsAnswer is an error as AWS JSON 1.1 has it.
func TestEnsureRepository(t *testing.T) {
	a := newAccount(t)
	r, _ := a.open(t, RepositorySettings{Repositories: []string{"*-attestations"}})
	for _, name := range []string{"app-attestations", "app-attestations", "app"} {
		if err := r.EnsureRepository(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	same(t, a.calls, "CreateRepository", "CreateRepository")
	off, _ := open(t, Options{URL: "https://registry.example", Credentials: Anonymous})
	if err := off.EnsureRepository(t.Context(), "app"); err != nil {
		t.Error(err)
	}
}

func TestNameUnknown(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   bool
	}{
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'app' does not exist in the registry with id '1'"}]}`, true},
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`, true},
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'app2' does not exist"}]}`, false}, // the source of a mount
		{404, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`, false},
		{404, `404 page not found`, false},
		{404, ``, false},
		{403, `{"errors":[{"code":"NAME_UNKNOWN"}]}`, false},
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"` + strings.Repeat("x", 100<<10) + `"}]}`, false},
	} {
		resp := &http.Response{StatusCode: tt.status, Body: io.NopCloser(strings.NewReader(tt.body))}
		if got := nameUnknown(resp, "app"); got != tt.want {
			t.Errorf("%d %.80s: %v", tt.status, tt.body, got)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, []byte(tt.body)) {
			t.Errorf("%d %.80s: the answer changed to %.80s, %v", tt.status, tt.body, b, err)
		}
	}
}
