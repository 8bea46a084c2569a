package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/access"
	"sluice/proxy/config"
	"sluice/proxy/observe"
	"sluice/proxy/upstream"
)

// An exchange is one request of one client about one repository, and what is known about it.
type exchange struct {
	p       *Proxy
	w       http.ResponseWriter
	seen    *watched // w, where it notes what happens
	r       *http.Request
	repo    string             // as the client names it, with the upstream's prefix
	ref     string             // the tag, digest or upload that the path names, "" for none
	up      *upstream.Registry // who holds it
	upRepo  string             // as the upstream names it
	rule    config.RuleSettings
	id      access.Identity
	auth    string // the client's Authorization, for credentials: passthrough
	log     *slog.Logger
	answers bool // something was written to the client

	// What log is made of, and the values of the answer's header: one piece with the exchange, since every request has them.
	lines  aboutRepository
	logger slog.Logger
	values [6]string
	said   int

	tags      url.Values      // of a push by digest that names tags too
	stale     bool            // the upload URL is not that of the last answer
	storedNow map[string]bool // blobs that this push has made permanent
	heavy     bool            // it is one of heavyPushes
	crowded   bool            // it is one of heldAtOnce
	bundle    bool            // what is held goes upstream where it cannot be held
	standIns  bool            // children that storage does not give back are taken for what their entries say
}

// say sets a header of the answer. The name is in its canonical form.
func (ex *exchange) say(name, value string) {
	h := ex.w.Header()
	if ex.said == len(ex.values) {
		h[name] = []string{value}
		return
	}
	at := ex.said
	ex.said++
	ex.values[at] = value
	h[name] = ex.values[at : at+1 : at+1]
}

// decimal is a number in a header; most are nought.
func decimal(n int64) string {
	if n == 0 {
		return "0"
	}
	return strconv.FormatInt(n, 10)
}

func (ex *exchange) ctx() context.Context { return ex.r.Context() }

// action is what becomes of attestations in this repository. A dry run forwards everything.
func (ex *exchange) action() filters.Action {
	if ex.p.cfg.DryRun {
		return filters.Forward
	}
	return ex.rule.Attestations
}

func (ex *exchange) policy() filters.Policy { return ex.rule.Policy(ex.onECR()) }

// rewrites is false where everything goes upstream as it came, so that there is nothing that only
// Sluice has.
func (ex *exchange) rewrites() bool {
	return ex.rule.Attestations != filters.Forward || ex.policy().CacheIndex == filters.CacheIndexManifest
}

// do sends one request upstream for this repository with this client's authority, and remembers
// what its success proves (I9).
func (ex *exchange) do(q upstream.Request) (*http.Response, error) {
	return ex.doContext(ex.ctx(), q)
}

func (ex *exchange) doContext(ctx context.Context, q upstream.Request) (*http.Response, error) {
	if q.Repository == "" {
		q.Repository = ex.upRepo
	}
	q.Authorization = ex.auth
	resp, err := ex.up.Do(ctx, q)
	if err != nil {
		return nil, ex.unreachable(ctx, q, err)
	}
	ex.p.authority.learn(ex, q, resp)
	return resp, nil
}

// unreachable turns a transport error into an answer. Not every client retries a 502, but a
// registry that cannot be reached is not Sluice's own trouble, and hiding it as such would send
// the reader to the wrong logs.
//
// ctx is the request's, and not the client's: others may wait for the same answer when the client has gone.
func (ex *exchange) unreachable(ctx context.Context, q upstream.Request, err error) error {
	if ctxErr := ctx.Err(); errors.Is(ctxErr, context.Canceled) {
		return ctxErr
	}
	var f *Failure
	if errors.As(err, &f) {
		return err
	}
	var s *storageFailed
	switch {
	case errors.As(err, &s):
		return ex.storageTransient(err, "upload to repository %s could not be read from the storage of sluice, see its log; try again", ex.repo)
	case errors.Is(err, upstream.ErrBody):
		return bodyError(ex, err)
	case errors.Is(err, upstream.ErrRenewed):
		return transient(err, "the token that sluice sends for %s ended while the body was on its way; sluice signs in again, try again", ex.about())
	case errors.Is(err, upstream.ErrThrottled):
		return transient(err, "%v; try again", err)
	case errors.Is(err, upstream.ErrCreate):
		return refuse(http.StatusForbidden, codeDenied, "%v", err).because(err)
	case errors.Is(err, upstream.ErrCredentials):
		return refuse(http.StatusForbidden, codeDenied, "sluice has no credentials for the registry behind %s: %v; check upstreams[].credentials of sluice, not your own login", ex.about(), err).because(err)
	}
	hint := ""
	if q.Body != nil && ex.onECR() {
		// containers-roadmap#1970: a push to a repository that is not there ends so in the middle of a layer.
		hint = fmt.Sprintf("; Amazon ECR also cuts the connection when repository %s does not exist", ex.upRepo)
	}
	return refuse(http.StatusBadGateway, codeUnavailable, "upstream registry for %s did not answer %s: %v%s", ex.about(), q.Method, err, hint).because(err)
}

// about names what is asked for in messages: a repository, or the registry where it is about none (a login, the catalog).
func (ex *exchange) about() string {
	if ex.repo == "" {
		if ex.seen.route == observe.RouteCatalog {
			return "the catalog"
		}
		return "a login"
	}
	return "repository " + ex.repo
}

// digestRef tells a digest reference from a tag.
func digestRef(ref string) bool { return strings.Contains(ref, ":") }

// checkDigest refuses what no registry could hold.
func checkDigest(repo, d string) *Failure {
	if !ocidoc.ValidDigest(d) {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "digest %q for repository %s is not a valid sha256 or sha512 digest", clip(d), repo)
	}
	return nil
}

// clip keeps what a client sent from filling the answer and the log.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

func blobPath(digest string) string { return "blobs/" + digest }

func manifestPath(ref string) string { return "manifests/" + ref }

// here is the path of something in this repository as the client names it. Neither a valid repository nor a digest, a
// tag or a sealed token has a character that would have to be escaped.
func (ex *exchange) here(kind, name string) string { return "/v2/" + ex.repo + kind + name }
