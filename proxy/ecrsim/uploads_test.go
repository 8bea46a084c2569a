package ecrsim_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sluice/proxy/ecrsim"
)

func TestTheAddressOfAnUpload(t *testing.T) {
	r := newRig(t)
	if at := r.session("app"); !regexp.MustCompile(`^` + r.URL + `/v2/app/blobs/uploads/[0-9a-f-]{36}$`).MatchString(at) {
		t.Errorf("Location %s: want an absolute URL without a query", at)
	}
	r.Update(func(s *ecrsim.Switches) { s.RelativeLocation = true })
	if at := r.session("app"); !strings.HasPrefix(at, "/v2/app/blobs/uploads/") {
		t.Errorf("Location %s: want a path", at)
	}
}

func TestAPatchIs201AndItsRangeIsStale(t *testing.T) {
	for _, truth := range []bool{false, true} {
		t.Run(fmt.Sprint("true range ", truth), func(t *testing.T) {
			r := newRig(t, func(s *ecrsim.Switches) { s.TrueRange, s.Limits.PartBytes = truth, 4 })
			at := r.session("app")
			for i, part := range []string{"0123", "4567", "89"} {
				p := r.do("PATCH", at, part, fmt.Sprintf("Content-Range: %d-%d", 4*i, 4*i+len(part)-1))
				r.want("PATCH", p, 201)
				want := "0-3"
				if truth {
					want = fmt.Sprintf("0-%d", 4*i+len(part)-1)
				}
				r.wantHeader("PATCH", p, "Range", want)
			}
			p := r.do("PUT", at+"?digest="+sum("0123456789"), nil)
			r.want("PUT", p, 201)
			r.wantHeader("PUT", p, "Docker-Content-Digest", sum("0123456789"))
			r.want("PUT again", r.do("PUT", at+"?digest="+sum("0123456789"), nil), 404, "BLOB_UPLOAD_UNKNOWN")
		})
	}
}

func TestTheLastPartMayRideOnThePut(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) { s.Limits.PartBytes = 4 })
	at := r.session("app")
	r.want("PATCH", r.do("PATCH", at, "0123"), 201)
	r.want("PUT", r.do("PUT", at+"?digest="+sum("012345"), "45", "Content-Range: 4-5"), 201)
}

func TestUploadsThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 11<<20)
	for _, c := range []struct {
		name    string
		set     func(*ecrsim.Switches)
		parts   []string
		last    string
		digest  string
		status  int
		message string
	}{
		{
			name: "a small part that is not the last", parts: []string{"012", "3456"}, digest: sum("0123456"),
			status: 400, message: "All layer parts except the last part should be at least 5MB",
		},
		{
			name: "a small part that is not the last, cut", parts: []string{"012"}, last: "3456", digest: sum("0123456"),
			set: func(s *ecrsim.Switches) { s.SmallPartCuts = true }, status: 0,
		},
		{name: "a small part that is the last", parts: []string{"012"}, digest: sum("012"), status: 201},
		{
			name: "another digest", last: "x", digest: sum("y"),
			status: 400, message: errorBody("BLOB_UPLOAD_INVALID", "None of the provided layer digests match the calculated layer digest"),
		},
		{name: "nothing", digest: sum(""), status: 500},
		{
			name: "too many parts", set: func(s *ecrsim.Switches) { s.Limits = ecrsim.Limits{PartBytes: 1, Parts: 2} },
			parts: []string{"0", "1"}, last: "2", digest: sum("012"), status: 400, message: "the number of parts, which is 2",
		},
		{
			name: "too many parts in one body", set: func(s *ecrsim.Switches) { s.Limits.Parts = 1 },
			last: long, digest: sum(long), status: 400, message: "the number of parts",
		},
		{
			name: "too many bytes", set: func(s *ecrsim.Switches) { s.Limits.LayerBytes = 4 },
			last: "01234", digest: sum("01234"), status: 400, message: "its size, which is 4",
		},
		{name: "no digest", last: "x", digest: "none", status: 405, message: "Invalid parameter at 'layerDigest'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(s *ecrsim.Switches) {
				s.Limits.PartBytes = 4
				if c.set != nil {
					c.set(s)
				}
			})
			at := r.session("app")
			for _, p := range c.parts {
				r.want("PATCH", r.do("PATCH", at, p), 201)
			}
			p := r.do("PUT", at+"?digest="+c.digest, c.last)
			if c.status == 0 {
				r.wantCut("PUT", p)
				return
			}
			r.want("PUT", p, c.status, c.message)
		})
	}
}

func TestAPartThatDoesNotFollow(t *testing.T) {
	for _, status := range []int{416, 400} {
		r := newRig(t, func(s *ecrsim.Switches) { s.BadRange = status })
		at := r.session("app")
		r.want("PATCH", r.do("PATCH", at, "0123", "Content-Range: 0-3"), 201)
		r.want("PATCH after a gap", r.do("PATCH", at, "89", "Content-Range: 8-9"), status, "not consecutive")
		r.want("PATCH again", r.do("PATCH", at, "0123", "Content-Range: 0-3"), status)
	}
}

func TestAPostWithABody(t *testing.T) {
	r := newRig(t)
	p := r.do("POST", "/v2/app/blobs/uploads/?digest="+sum("x"), "x")
	r.want("POST", p, 202)
	r.want("HEAD", r.do("HEAD", "/v2/app/blobs/"+sum("x"), nil), 404)
	r.want("PUT to its session", r.do("PUT", p.header.Get("Location")+"?digest="+sum("x"), "x"), 201)
	r.Update(func(s *ecrsim.Switches) { s.Monolithic = true })
	r.want("POST", r.do("POST", "/v2/app/blobs/uploads/?digest="+sum("y"), "y"), 201)
	r.want("HEAD", r.do("HEAD", "/v2/app/blobs/"+sum("y"), nil), 200)
}

func TestCancellingAnUpload(t *testing.T) {
	r := newRig(t)
	at := r.session("app")
	r.want("DELETE", r.do("DELETE", at, nil), 405, "UNSUPPORTED")
	r.want("GET", r.do("GET", at, nil), 204)
	r.Update(func(s *ecrsim.Switches) { s.CancelUploads = true })
	r.want("DELETE", r.do("DELETE", at, nil), 204)
	r.want("GET", r.do("GET", at, nil), 404, "BLOB_UPLOAD_UNKNOWN")
}

func TestPushToAMissingRepository(t *testing.T) {
	r := newRig(t)
	text := errorBody("NAME_UNKNOWN", "The repository with name 'missing' does not exist in the registry with id '123456789012'")
	r.want("POST", r.do("POST", "/v2/missing/blobs/uploads/", nil), 404, text)
	r.want("POST without the last slash", r.do("POST", "/v2/missing/blobs/uploads", nil), 404, text)
	r.want("PUT of a manifest", r.put("missing", "1", index()), 404, text)
	r.want("a name outside the grammar", r.do("POST", "/v2/App/blobs/uploads/", nil), 405, "Invalid parameter at 'repositoryName'")

	// In the middle of a body the connection is cut.
	at := r.session("app")
	c := sdk(t, r.Server)
	name := "app"
	deleteRepository(t, c, name)
	r.wantCut("PATCH", r.do("PATCH", at, strings.Repeat("x", 1<<20)))
}

func TestRepositoriesAreCreatedOnPush(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) {
		s.Templates = []ecrsim.Template{
			{Prefix: "team", Mutability: "IMMUTABLE", Lifecycle: `{"rules":[]}`, Policy: `{}`, Tags: []ecrsim.ResourceTag{{Key: "a", Value: "b"}}},
			{Prefix: "team/free"},
		}
	})
	r.want("another prefix", r.do("POST", "/v2/teams/app/blobs/uploads/", nil), 404, "NAME_UNKNOWN")
	for _, tag := range []string{"1", "1"} {
		r.put("team/app", tag, r.manifest("team/app", "{ }", []string{tag}))
		r.put("team/free/app", tag, r.manifest("team/free/app", "{ }", []string{tag}))
	}
	r.want("immutable", r.put("team/app", "1", r.manifest("team/app", "{  }", nil)), 400, "TAG_INVALID")
	r.want("mutable", r.put("team/free/app", "1", r.manifest("team/free/app", "{  }", nil)), 201)
	r.Update(func(s *ecrsim.Switches) { s.Templates = []ecrsim.Template{{Prefix: "ROOT"}} })
	r.want("ROOT", r.do("POST", "/v2/any/blobs/uploads/", nil), 202)
}
