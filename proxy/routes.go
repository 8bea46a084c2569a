package proxy

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	v2 "github.com/distribution/distribution/v3/registry/api/v2"
	"github.com/gorilla/mux"

	"sluice/proxy/access"
	"sluice/proxy/observe"
)

// routeNameReferrers is the route that distribution's router lacks.
const routeNameReferrers = "referrers"

// A handler answers one exchange. Its error becomes the answer, in one place.
type handler func(*exchange) error

// methods maps HTTP methods of one route to what answers them and what it takes.
type methods map[string]struct {
	action access.Action
	handle handler
}

// routes builds distribution's router with our handlers, and the referrers route that it lacks.
func (p *Proxy) routes() http.Handler {
	// A fresh router: v2.Router() is shared by everything in the process, the embedded registry included.
	router := v2.RouterWithPrefix("")
	router.SkipClean(true) // a cleaned path would be redirected, and no client follows that with a body
	router.NotFoundHandler = http.HandlerFunc(notFound)
	router.MethodNotAllowedHandler = http.HandlerFunc(methodNotAllowed)

	table := map[string]methods{
		v2.RouteNameManifest: {
			http.MethodGet:    {access.Pull, (*exchange).getManifest},
			http.MethodHead:   {access.Pull, (*exchange).getManifest},
			http.MethodPut:    {access.Push, (*exchange).putManifest},
			http.MethodDelete: {access.Delete, (*exchange).deleteManifest},
		},
		v2.RouteNameTags: {
			http.MethodGet: {access.Pull, (*exchange).listTags},
		},
		v2.RouteNameBlob: {
			http.MethodGet:    {access.Pull, (*exchange).getBlob},
			http.MethodHead:   {access.Pull, (*exchange).headBlob},
			http.MethodDelete: {access.Delete, (*exchange).deleteBlob},
		},
		v2.RouteNameBlobUpload: {
			http.MethodPost: {access.Push, (*exchange).postUpload},
		},
		v2.RouteNameBlobUploadChunk: {
			http.MethodGet:    {access.Push, (*exchange).getUpload},
			http.MethodPatch:  {access.Push, (*exchange).patchUpload},
			http.MethodPut:    {access.Push, (*exchange).putUpload},
			http.MethodDelete: {access.Push, (*exchange).deleteUpload},
		},
	}
	short := map[observe.Route]methods{}
	for name, m := range table {
		short[routeOf(name)] = m
		router.GetRoute(name).Handler(p.repository(routeOf(name), m))
	}
	router.GetRoute(v2.RouteNameBase).Handler(routed(observe.RouteBase, p.base))
	router.GetRoute(v2.RouteNameCatalog).Handler(routed(observe.RouteCatalog, p.catalog))
	// Both with any digest text: the handler says what is wrong with it, the router could only say 404.
	router.Path("/v2/{name:.+}/referrers/{digest}").Name(routeNameReferrers).Handler(p.repository(observe.RouteReferrers, methods{
		http.MethodGet: {access.Pull, (*exchange).referrers},
	}))
	// Without the final slash mux would redirect the POST as a GET.
	return p.shortcuts(short, withoutSlash(router))
}

var uploadsWithoutSlash = regexp.MustCompile(`^/v2/.+/blobs/uploads$`)

// withoutSlash accepts "POST /v2/<name>/blobs/uploads", as distribution does.
func withoutSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && uploadsWithoutSlash.MatchString(r.URL.Path) {
			r2 := r.Clone(r.Context())
			r2.URL.Path += "/"
			r2.URL.RawPath = ""
			r = r2
		}
		next.ServeHTTP(w, r)
	})
}

// routed notes which route it was, before anything may refuse the request.
func routed(route observe.Route, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watching(w).route = route
		next(w, r)
	})
}

// repository wraps the handlers of one route: who asks, for which repository, behind which
// upstream, under which rule; and turns their errors into answers.
func (p *Proxy) repository(route observe.Route, m methods) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vars := mux.Vars(r)
		p.serve(w, r, route, m, vars["name"], variable(vars))
	})
}

// variable is what a path names in its repository: each route has one at most.
func variable(vars map[string]string) string {
	return cmp.Or(vars["reference"], vars["digest"], vars["uuid"])
}

// apiVersion is shared by all answers; nothing changes a header's values in place.
var apiVersion = []string{"registry/2.0"}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, route observe.Route, m methods, name, ref string) {
	watching(w).route = route
	w.Header()["Docker-Distribution-Api-Version"] = apiVersion
	entry, ok := m[r.Method]
	if !ok {
		methodNotAllowed(w, r)
		return
	}
	ex, fail := p.exchange(w, r, name, ref, entry.action)
	if fail != nil {
		writeFailure(w, fail)
		drain(w, r)
		return
	}
	// Layers are read while the answer is already being written (errors to a streaming client).
	enableFullDuplex(w)
	start := time.Now()
	err := entry.handle(ex)
	ex.finish(err, time.Since(start))
}

// enableFullDuplex is http.ResponseController's, for the writer that all requests have.
func enableFullDuplex(w http.ResponseWriter) {
	if seen, ok := w.(*watched); ok {
		w = seen.ResponseWriter
	}
	if full, ok := w.(interface{ EnableFullDuplex() error }); ok {
		_ = full.EnableFullDuplex()
	} else {
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
}

// exchange finds out everything that a handler needs to know, or why there is no answer.
func (p *Proxy) exchange(w http.ResponseWriter, r *http.Request, repo, ref string, action access.Action) (*exchange, *Failure) {
	if !validRepository(repo) {
		return nil, invalidName(repo)
	}
	seen := watching(w) // knows of whom it refuses, too
	seen.repo = repo
	if p.cfg.AccessLog || p.traces != nil {
		seen.reference = referred(r, seen.route, ref)
	}
	id, fail := p.admit(r, access.Scope{Repository: repo, Action: action})
	seen.identity = id.Name
	if fail != nil {
		return nil, fail
	}
	b, upRepo := p.owner(repo)
	if b == nil {
		return nil, refuse(http.StatusNotFound, codeNameUnknown, "no upstream is configured for repository %s: see upstreams[].prefix", repo)
	}
	ex := &seen.exchange
	*ex = exchange{
		p: p, w: w, seen: seen, r: r, repo: repo, ref: ref, up: b.registry, upRepo: upRepo, id: id,
		rule: p.cfg.Rule(repo), lines: aboutRepository{p.log.Handler(), repo},
	}
	ex.logger = *slog.New(&ex.lines)
	ex.log = &ex.logger
	if ex.up.Passthrough() {
		ex.auth = r.Header.Get("Authorization")
	}
	return ex, nil
}

// finish answers with the error, if there is one, and logs it once.
func (ex *exchange) finish(err error, took time.Duration) {
	if err == nil {
		return
	}
	if p, is := errors.AsType[*passed](err); is {
		if p.resp.StatusCode >= 300 {
			ex.passResponse(p.resp)
			drain(ex.w, ex.r)
			return
		}
		// A success that is no answer to what was asked, such as 202 to a GET, ended a request that has not been done: passed
		// on, it would say that it has (I6).
		discard(p.resp)
		err = refuse(http.StatusBadGateway, codeUnavailable, "upstream answered %s to a %s for %s, which is no answer to that: is something else than a registry in between?",
			p.resp.Status, p.resp.Request.Method, ex.about())
	}
	f, is := errors.AsType[*Failure](err)
	switch {
	case ex.r.Context().Err() != nil && !tooSlow(err):
		ex.log.Info("client went away", "method", ex.r.Method, "took", took)
		panic(http.ErrAbortHandler) // nothing can be said any more; the connection must not be reused
	case is:
	default:
		f = transient(err, "sluice could not serve %s for %s: see its log", ex.r.Method, ex.about())
	}
	level := slog.LevelWarn
	if f.Status >= 500 || f.Status == http.StatusTooManyRequests {
		level = slog.LevelError
	} else if f.Status == http.StatusNotFound {
		level = slog.LevelDebug
	}
	if ex.log.Enabled(ex.ctx(), level) {
		ex.log.Log(ex.ctx(), level, "request refused", "method", ex.r.Method, "route", ex.seen.route.String(), "status", f.Status, "code", f.Code, "reason", f.reason())
	}
	if ex.answers {
		panic(http.ErrAbortHandler) // half an answer is out: cut it, so that nobody takes it for whole
	}
	ex.outwait(f)
	writeFailure(ex.w, f)
	drain(ex.w, ex.r)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v2/") {
		writeFailure(w, describeBadPath(r.Method, r.URL.Path))
		drain(w, r)
		return
	}
	writeFailure(w, refuse(http.StatusNotFound, codeNameUnknown, "nothing here: the registry API is under /v2/"))
	drain(w, r)
}

var knownTail = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|tags|referrers)/(.*)$`)

// describeBadPath says what is outside the grammar in a path that no route takes.
func describeBadPath(method, path string) *Failure {
	m := knownTail.FindStringSubmatch(path)
	if m == nil {
		return refuse(http.StatusNotFound, codeNameUnknown, "path is not one of the registry API")
	}
	name, kind, ref := m[1], m[2], m[3]
	switch {
	case !validRepository(name):
		return invalidName(name)
	case kind == "blobs" && strings.HasPrefix(ref, "uploads/"):
		return refuse(http.StatusNotFound, codeBlobUploadUnknown, "upload URL for repository %s is not one of this registry: start again with POST", name)
	case kind == "blobs" || strings.Contains(ref, ":"):
		return refuse(http.StatusBadRequest, codeDigestInvalid, "digest %q for repository %s is not valid", clip(ref), name)
	case kind == "manifests" && (method == http.MethodGet || method == http.MethodHead):
		return refuse(http.StatusNotFound, codeManifestUnknown, "tag %q of repository %s cannot exist: letters, digits, _ . - and at most 128 of them", clip(ref), name)
	case kind == "manifests":
		return refuse(http.StatusBadRequest, codeManifestInvalid, "tag %q for repository %s is not valid: letters, digits, _ . - and at most 128 of them", clip(ref), name)
	}
	return refuse(http.StatusNotFound, codeNameUnknown, "path is not one of the registry API")
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	writeFailure(w, refuse(http.StatusMethodNotAllowed, codeUnsupported, "method %s is not supported here", clip(r.Method)))
	drain(w, r)
}

// base answers the API version check. Under passthrough upstream's own answer counts, since it
// carries the challenge that clients such as skopeo and Docker 20.10 act on.
func (p *Proxy) base(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		methodNotAllowed(w, r)
		return
	}
	id, fail := p.admit(r, access.Scope{})
	watching(w).identity = id.Name
	if fail != nil {
		writeFailure(w, fail)
		return
	}
	if u := p.passthroughUpstream(); u != nil {
		p.passBase(w, r, u)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "2")
	_, _ = w.Write([]byte("{}"))
}
