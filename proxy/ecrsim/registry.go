package ecrsim

import (
	"log/slog"
	"net/http"
	"regexp"
	"strings"
)

// call is one request to the registry that has been let in.
type call struct {
	*Simulator
	sw   *Switches
	w    http.ResponseWriter
	r    *http.Request
	who  Principal
	repo string
	ref  string // tag, digest or session, by route
}

// route is a kind of request. The action is what IAM and the quotas call it: HEAD of a layer is BatchCheckLayerAvailability,
// and HEAD of a manifest BatchGetImage, which a push needs as well.
type route struct {
	action string
	serve  func(*call) *failure
}

var paths = regexp.MustCompile(`^/v2/(.+)/(?:(blobs/uploads)/([^/]*)|(manifests|blobs|referrers)/([^/]+)|(tags)/list)$`)

// match reads method and path. Its failure is for what has no route; one of an ECR parameter is found later, by whoever
// looks at it.
func match(method, path string) (rt route, repo, ref string, f *failure) {
	if method == http.MethodGet || method == http.MethodHead {
		switch path {
		case "/v2/", "/v2":
			return route{"", (*call).base}, "", "", nil
		case "/v2/_catalog":
			return route{"DescribeRepositories", (*call).catalog}, "", "", nil
		}
	}
	if strings.HasSuffix(path, "/blobs/uploads") { // some clients leave the last slash out
		path += "/"
	}
	m := paths.FindStringSubmatch(path)
	if m == nil {
		return route{}, "", "", notFoundPage()
	}
	repo, kind, ref := m[1], m[2]+m[4]+m[6], m[3]+m[5]
	rt, ok := routes()[kind+" "+method]
	if kind == "blobs/uploads" && (ref == "") != (method == http.MethodPost) {
		ok = false
	}
	if !ok {
		return route{}, repo, ref, unsupported()
	}
	return rt, repo, ref, nil
}

func routes() map[string]route {
	return map[string]route{
		"blobs HEAD":           {"BatchCheckLayerAvailability", (*call).headLayer},
		"blobs GET":            {"GetDownloadUrlForLayer", (*call).getLayer},
		"blobs/uploads POST":   {"InitiateLayerUpload", (*call).startUpload},
		"blobs/uploads GET":    {"UploadLayerPart", (*call).uploadStatus},
		"blobs/uploads PATCH":  {"UploadLayerPart", (*call).uploadPart},
		"blobs/uploads PUT":    {"CompleteLayerUpload", (*call).completeUpload},
		"blobs/uploads DELETE": {"CompleteLayerUpload", (*call).cancelUpload},
		"manifests HEAD":       {"BatchGetImage", (*call).getManifest},
		"manifests GET":        {"BatchGetImage", (*call).getManifest},
		"manifests PUT":        {"PutImage", (*call).putManifest},
		"manifests DELETE":     {"BatchDeleteImage", (*call).deleteManifest},
		"tags GET":             {"ListImages", (*call).listTags},
		"referrers GET":        {"ListImageReferrers", (*call).listReferrers},
	}
}

// Registry is the /v2/ API. The scheme and host in its answers are those of the request.
func (s *Simulator) Registry() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		rec := &statusWriter{ResponseWriter: w}
		defer func() { s.log.Debug("registry", requestAttrs(r, rec.status)...) }()
		if f := s.serve(rec, r); f != nil {
			if f.status == http.StatusUnauthorized && f.plain {
				w.Header().Set("Www-Authenticate", `Basic realm="`+base(r)+`/",service="ecr.amazonaws.com"`)
			}
			f.write(rec)
		}
	})
}

func (s *Simulator) serve(w http.ResponseWriter, r *http.Request) *failure {
	sw := s.switches.Load()
	rt, repo, ref, routing := match(r.Method, r.URL.Path)
	w, f := s.befall(w, r, sw, rt.action, repo) // first, so that a token may expire under a request
	if f != nil {
		return f
	}
	who, f := s.signedIn(r, sw)
	switch {
	case f != nil:
		return f
	case routing != nil:
		return routing
	}
	if f := s.admit(who, rt.action, repo, sw); f != nil {
		return f
	}
	return rt.serve(&call{s, sw, w, r, who, repo, ref})
}

// admit asks for the right, and then for the quota, to do an action.
func (s *Simulator) admit(who Principal, action, repo string, sw *Switches) *failure {
	for _, needed := range rights(action) {
		if !who.allows(needed) || listed(sw.Deny, needed) {
			return s.denied(who, needed, repo)
		}
	}
	if !s.buckets.take(action, s.now(), sw) {
		return throttled()
	}
	return nil
}

// rights: listing referrers needs that to read images as well (SDK, api_op_ListImageReferrers.go).
func rights(action string) []string {
	switch action {
	case "":
		return nil
	case "ListImageReferrers":
		return []string{"BatchGetImage"}
	}
	return []string{action}
}

func (c *call) base() *failure {
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// base is the address that the client used.
func base(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// requestAttrs leave out the query, which holds signatures.
func requestAttrs(r *http.Request, status int) []any {
	return []any{slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status)}
}
