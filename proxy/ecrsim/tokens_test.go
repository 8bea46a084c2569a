package ecrsim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

const expired = "Your authorization token has expired. Reauthenticate and try again."

func TestWithoutCredentialsTheAnswerIsPlainText(t *testing.T) {
	r := newRig(t)
	for _, auth := range []string{"-", "Basic QVdTOm5vbmU=", "Bearer x"} {
		for _, path := range []string{"/v2/", "/v2/app/manifests/1", "/v2/app/blobs/uploads/"} {
			r.auth = auth
			p := r.do("GET", path, nil)
			r.want(path, p, 401, "Not Authorized\n")
			r.wantHeader(path, p, "Content-Length", "15")
			r.wantHeader(path, p, "Content-Type", "text/plain; charset=utf-8")
			r.wantHeader(path, p, "Docker-Distribution-Api-Version", "registry/2.0")
			r.wantHeader(path, p, "Www-Authenticate", `Basic realm="`+r.URL+`/",service="ecr.amazonaws.com"`)
		}
	}
}

func TestTokensExpire(t *testing.T) {
	for _, c := range []struct {
		set    func(*ecrsim.Switches)
		status int
	}{
		{func(*ecrsim.Switches) {}, 403},
		{func(s *ecrsim.Switches) { s.ExpiredToken = 401 }, 401},
	} {
		r := newRig(t, c.set)
		token := func() string {
			req, _ := http.NewRequest("GET", r.URL, nil)
			req.SetBasicAuth(r.Password(r.AccessKey))
			return req.Header.Get("Authorization")
		}
		r.auth = token()
		r.clock.pass(12*time.Hour - time.Second)
		r.want("before 12 hours", r.do("GET", "/v2/", nil), 200)
		r.clock.pass(time.Second)
		r.want("after 12 hours", r.do("GET", "/v2/", nil), c.status, errorBody("DENIED", expired))
		r.want("HEAD", r.do("HEAD", "/v2/app/manifests/1", nil), c.status)
		r.auth = token()
		r.want("a new one", r.do("GET", "/v2/", nil), 200)
		r.ExpireTokens()
		r.want("one that was ended", r.do("GET", "/v2/", nil), c.status, expired)
		r.auth = token()
		r.want("one after that", r.do("GET", "/v2/", nil), 200)
	}
}

func TestATokenMayExpireInTheMiddleOfAPush(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) {
		s.Faults = []ecrsim.Fault{{Action: "UploadLayerPart", ExpireTokens: true, Times: 1}}
	})
	req, _ := http.NewRequest("GET", r.URL, nil)
	req.SetBasicAuth(r.Password(r.AccessKey))
	r.auth = req.Header.Get("Authorization")
	at := r.session("app")
	r.want("PATCH", r.do("PATCH", at, "x"), 403, expired)
	r.auth = ""
	r.want("PATCH with another token", r.do("PATCH", at, "x"), 201)
}

func TestATokenIsForOneRegion(t *testing.T) {
	other := ecrsimtest.New(t, ecrsim.Options{Region: "us-east-1"})
	req, _ := http.NewRequest("GET", other.URL, nil)
	req.SetBasicAuth(other.Password(other.AccessKey))
	r := newRig(t)
	r.auth = req.Header.Get("Authorization")
	r.want("403", r.do("GET", "/v2/", nil), 403, "DENIED")
	r.Update(func(s *ecrsim.Switches) { s.ForeignToken = 401 })
	r.want("401", r.do("GET", "/v2/", nil), 401, "Not Authorized")
}

// Each request needs the right of its action, and HEAD is refused without a body.
func TestRightsFollowTheAction(t *testing.T) {
	r := newRig(t)
	img := r.image("app", "1", "x")
	up := r.session("app")
	for _, c := range []struct{ method, path, action string }{
		{"HEAD", "/v2/app/blobs/" + sum("layer x"), "BatchCheckLayerAvailability"},
		{"GET", "/v2/app/blobs/" + sum("layer x"), "GetDownloadUrlForLayer"},
		{"POST", "/v2/app/blobs/uploads/", "InitiateLayerUpload"},
		{"PATCH", strings.TrimPrefix(up, r.URL), "UploadLayerPart"},
		{"PUT", strings.TrimPrefix(up, r.URL) + "?digest=" + sum("x"), "CompleteLayerUpload"},
		{"PUT", "/v2/app/manifests/1", "PutImage"},
		{"GET", "/v2/app/manifests/1", "BatchGetImage"},
		{"HEAD", "/v2/app/manifests/1", "BatchGetImage"},
		{"GET", "/v2/app/tags/list", "ListImages"},
		{"DELETE", "/v2/app/manifests/1", "BatchDeleteImage"},
		{"GET", "/v2/app/referrers/" + sum(img), "BatchGetImage"},
	} {
		t.Run(c.method+" needs "+c.action, func(t *testing.T) {
			r.Update(func(s *ecrsim.Switches) { s.Deny = []string{"ecr:" + c.action} })
			p := r.do(c.method, c.path, nil)
			text := errorBody("DENIED", "User: arn:aws:iam::123456789012:user/sim is not authorized to perform: ecr:"+c.action+
				" on resource: arn:aws:ecr:eu-central-1:123456789012:repository/app because no identity-based policy allows the ecr:"+c.action+" action")
			if c.method != "HEAD" {
				r.want(c.path, p, 403, text)
				return
			}
			r.want(c.path, p, 403)
			if p.body != "" || p.header.Get("Content-Length") == "0" {
				t.Errorf("body %q of length %s, want none, and the length of what a GET would say", p.body, p.header.Get("Content-Length"))
			}
		})
	}
}

func TestAPrincipalMayDoWhatItsListAllows(t *testing.T) {
	s := ecrsimtest.New(t, ecrsim.Options{Principals: []ecrsim.Principal{{AccessKey: "AKIAREADER", Name: "reader", Allow: []string{"ecr:Batch*", "ecr:GetAuthorizationToken"}}}})
	r := &rig{Server: s, t: t}
	r.create("app")
	r.want("HEAD", r.do("HEAD", "/v2/app/manifests/1", nil), 404)
	r.want("POST", r.do("POST", "/v2/app/blobs/uploads/", nil), 403, "user/reader is not authorized to perform: ecr:InitiateLayerUpload")
}
