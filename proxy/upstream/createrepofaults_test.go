package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sluice/proxy/ecrsim"
)

func awsAnswer(w http.ResponseWriter, status int, code, message string) bool {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
	return true
}

func TestAFailureSaysWhatIsMissing(t *testing.T) {
	all := RepositorySettings{LifecyclePolicy: lifecycle, RepositoryPolicy: policy, Tags: map[string]string{"a": "b"}}
	deny := func(action string) func(*account) {
		return func(a *account) { a.Update(func(s *ecrsim.Switches) { s.Deny = []string{action} }) }
	}
	answer := func(operation string, status int, code, message string) func(*account) {
		return func(a *account) {
			a.script = func(op string, _ int, w http.ResponseWriter) bool {
				return op == operation && awsAnswer(w, status, code, message)
			}
		}
	}
	for name, tt := range map[string]struct {
		change func(*account)
		kind   error
		want   []string
	}{
		"no right to make it":    {deny("ecr:CreateRepository"), ErrCreate, []string{"allow ecr:CreateRepository on it", "or make it beforehand", "arn:aws:iam::"}},
		"no right to its policy": {deny("ecr:SetRepositoryPolicy"), ErrCreate, []string{"allow ecr:SetRepositoryPolicy on it"}},
		"no right to expiry":     {deny("ecr:PutLifecyclePolicy"), ErrCreate, []string{"allow ecr:PutLifecyclePolicy on it"}},
		"no right to its tags": {
			answer("CreateRepository", 400, "AccessDeniedException", "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: ecr:TagResource on resource: arn:aws:ecr:x because no identity-based policy allows the ecr:TagResource action"),
			ErrCreate,
			[]string{"allow ecr:TagResource on it"},
		},
		"a denial that names no action": {answer("CreateRepository", 400, "AccessDeniedException", "no"), ErrCreate, []string{"allow ecr:CreateRepository on it"}},
		"a key that cannot be used":     {answer("CreateRepository", 400, "KmsException", "KMS key is disabled"), ErrCreate, []string{"KmsException: KMS key is disabled"}},
		"too many repositories":         {answer("CreateRepository", 400, "LimitExceededException", "100000 repositories"), ErrCreate, []string{"LimitExceededException: 100000 repositories"}},
		"a throttled API":               {answer("CreateRepository", 400, "ThrottlingException", "Rate exceeded"), ErrThrottled, []string{"AWS throttles ecr:CreateRepository"}},
		"an API that fails":             {answer("CreateRepository", 500, "ServerException", "oops"), ErrUnreachable, []string{"ServerException: oops"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t)
			tt.change(a)
			r, _ := a.open(t, all)
			_, err := r.Do(t.Context(), post("team/app"))
			if !errors.Is(err, tt.kind) {
				t.Fatalf("error %v", err)
			}
			for _, part := range append(tt.want, "team/app", r.Host()) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), ecrsim.DefaultSecretKey) {
				t.Errorf("a secret in: %v", err)
			}
		})
	}
}

func TestWithoutAWSCredentialsTheErrorSaysSo(t *testing.T) {
	a := newAccount(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	a.hide = func(*http.Request) bool { return true }
	r, _ := a.open(t, RepositorySettings{}, func(o *Options) { o.Credentials = Anonymous })
	_, err := r.Do(t.Context(), post("app"))
	if !errors.Is(err, ErrCreate) || !strings.Contains(err.Error(), "no AWS credentials for ecr:CreateRepository") {
		t.Errorf("error %v", err)
	}
}

func TestAClientThatGivesUpLeavesTheCreationToOthers(t *testing.T) {
	a := newAccount(t)
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.before = func(string) { once.Do(func() { close(reached) }); <-release }
	r, _ := a.open(t, RepositorySettings{})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { gone <- r.EnsureRepository(ctx, "app") }()
	<-reached
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	other := make(chan error)
	go func() { other <- r.EnsureRepository(t.Context(), "app") }()
	close(release) // the other waits for the same creation, or makes its own
	if err := <-other; err != nil {
		t.Error(err)
	}
	do(t, r, 202, post("app"))
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.EnsureRepository(t.Context(), "late"); err == nil {
		t.Error("a closed registry makes repositories")
	}
}

func TestWhereRepositoriesCannotBeMade(t *testing.T) {
	for name, o := range map[string]Options{
		"Amazon ECR only":           {URL: "https://registry.example", Credentials: Anonymous},
		"ECR Public":                {URL: "https://public.ecr.aws", Credentials: Anonymous},
		"name the repositories":     {URL: ecrURL, Credentials: Passthrough},
		`"[" is not a glob`:         {URL: ecrURL, Credentials: Anonymous, CreateRepositories: &RepositorySettings{Repositories: []string{"["}}},
		"the host is none of its n": {URL: "https://ecr.example.com", Credentials: ECR},
	} {
		if o.CreateRepositories == nil {
			o.CreateRepositories = &RepositorySettings{}
		}
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
