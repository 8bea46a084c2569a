package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/internal/contain"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// forwardedHeader carries the digest under which upstream has a document that the client knows by
// another one. `sluice resolve` and pipelines read it.
const forwardedHeader = "Sluice-Forwarded-Digest"

// manifestTypes is sent upstream where the client's own Accept does not count. Every type is in it,
// because ECR converts by Accept what is asked for by tag.
var manifestTypes = []string{
	ocidoc.MediaTypeOCIIndex, ocidoc.MediaTypeOCIManifest, ocidoc.MediaTypeDockerList, ocidoc.MediaTypeDockerManifest,
	"application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.oci.artifact.manifest.v1+json", "*/*",
}

// getManifest answers GET and HEAD, by tag and by digest.
func (ex *exchange) getManifest() error {
	ref := ex.ref
	if digestRef(ref) {
		if f := checkDigest(ex.repo, ref); f != nil {
			return f
		}
		return ex.manifestByDigest(ref)
	}
	return ex.manifestByTag(ref)
}

// manifestByDigest is upstream's document, or the one that Sluice took out or rewrote.
func (ex *exchange) manifestByDigest(digest string) error {
	if ex.r.Method == http.MethodHead && ex.foretold(digest) {
		local, err := ex.localManifest(digest)
		if err != nil {
			return err
		}
		if local == nil {
			return refuse(http.StatusNotFound, codeManifestUnknown, "attestation manifest %s of repository %s is not held here yet", digest, ex.repo)
		}
		return ex.serveManifest(digest, local)
	}
	resp, err := ex.askManifest(upstream.Request{Method: ex.r.Method, Path: manifestPath(digest), Header: pick(ex.r.Header, "Accept", "If-None-Match")})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNotFound || !ex.rewrites() {
		ex.passResponse(resp)
		return nil
	}
	local, err := ex.localManifest(digest)
	if err != nil {
		discard(resp)
		return err
	}
	if local == nil {
		ex.passResponse(resp)
		return nil
	}
	discard(resp)
	return ex.serveManifest(digest, local)
}

// A localDocument is a document that Sluice has and upstream lacks.
type localDocument struct {
	mediaType string
	bytes     []byte
	forwarded string // the digest that upstream has in its place, "" for an attestation
}

// serveManifest answers with bytes of our own. Content-Type is the document's own: anything else
// breaks Docker, skopeo, regctl and others.
func (ex *exchange) serveManifest(digest string, d *localDocument) error {
	ex.p.sent.forget(ex.repo, wentAlong(digest))
	h := ex.w.Header()
	h.Set("Content-Type", d.mediaType)
	h.Set("Content-Length", strconv.Itoa(len(d.bytes)))
	h.Set("Docker-Content-Digest", digest)
	if d.forwarded != "" {
		ex.tellForwarded(digest, d.forwarded)
	}
	ex.answers = true
	ex.w.WriteHeader(http.StatusOK)
	if ex.r.Method == http.MethodHead {
		return nil
	}
	_, err := ex.w.Write(d.bytes)
	return err
}

// tellForwarded says which digest upstream knows, in a header for programs and in the warning form
// of the distribution spec ("Warnings") for people.
func (ex *exchange) tellForwarded(original, forwarded string) {
	h := ex.w.Header()
	h.Set(forwardedHeader, forwarded)
	if original != forwarded {
		h.Add("Warning", fmt.Sprintf(`299 - "%s was forwarded as %s: sign and deploy %s"`, original, forwarded, forwarded))
	}
}

// localManifest finds a rewritten original, an attestation or a derived referrer, for whoever may
// read it. nil is "not here", also for who may not know.
func (ex *exchange) localManifest(digest string) (*localDocument, error) {
	var (
		asked   sync.WaitGroup
		m       *ocidoc.Document
		heldErr error
	)
	if ex.rule.Attestations != filters.Forward { // else there is nothing but aliases of what was converted
		asked.Go(func() { defer contain.Panic(&heldErr); m, heldErr = ex.findManifest(digest) })
	}
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, digest)
	asked.Wait()
	if err != nil {
		ex.p.storageTrouble(ex.log, "look up alias of "+digest, err)
		return nil, nil
	}
	if ex.rule.Attestations == filters.Forward {
		// What an earlier rule took out of an original is not read under this one, and a client that is told that it is
		// there does not send it.
		aliases = slices.DeleteFunc(aliases, func(a quarantine.Alias) bool { return a.Action != filters.Forward })
	}
	if len(aliases) > 0 {
		return ex.original(digest, aliases)
	}
	if heldErr != nil {
		ex.p.storageTrouble(ex.log, "look up manifest "+digest, heldErr)
		return nil, nil
	}
	if m == nil || m.Kind == ocidoc.KindIndex {
		// An index without an alias is a push that was interrupted: "not here" makes the client finish it (I7).
		return nil, nil
	}
	if may, err := ex.mayRead(); !may {
		return nil, err
	}
	if ex.r.Method == http.MethodHead {
		if whole, err := ex.keepsWhole(digest, m); !whole || err != nil {
			ex.goWithout("look for what manifest "+digest+" refers to", err)
			return nil, nil // the client then sends the manifest again, and the blobs that have gone
		}
	}
	return &localDocument{mediaType: m.ContentType, bytes: m.Bytes}, nil
}

// manifestByTag shows what is upstream under the tag, or, with `view: original`, what was pushed.
func (ex *exchange) manifestByTag(tag string) error {
	if !ex.rewrites() {
		// A tag may hold what another rule made of it.
		return ex.pass(upstream.Request{Method: ex.r.Method, Path: manifestPath(tag), Header: ex.accept("If-None-Match")})
	}
	if ex.rule.View == config.ViewOriginal {
		if done, err := ex.pushedUnder(tag); done || err != nil {
			return err
		}
	}
	if ex.onECR() {
		return ex.tagOnECR(tag)
	}
	resp, err := ex.do(upstream.Request{Method: ex.r.Method, Path: manifestPath(tag), Header: ex.accept("If-None-Match")})
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		ex.tellTag(tag, resp.Header.Get("Docker-Content-Digest"))
	}
	ex.passResponse(resp)
	return nil
}

// accept is what the client accepts, with every type in place of `*/*`, which distribution does not
// know: BuildKit asks for "its type, */*", and gets 400 where the tag holds a list of Docker's
// (registry/handlers/manifests.go, GetManifest).
func (ex *exchange) accept(more ...string) http.Header {
	h := pick(ex.r.Header, append(more, "Accept")...)
	for _, line := range h["Accept"] {
		for t := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(t) == "*/*" {
				h["Accept"] = manifestTypes
				return h
			}
		}
	}
	return h
}

// tellTag adds the header by which a reader knows that the tag holds a rewrite.
func (ex *exchange) tellTag(tag, forwarded string) {
	if !ocidoc.ValidDigest(forwarded) {
		return
	}
	if _, err := ex.p.quarantine.TagOriginal(ex.ctx(), ex.repo, tag, forwarded); err != nil {
		ex.p.storageTrouble(ex.log, "look up tag "+tag, err)
		return
	}
	ex.w.Header().Set(forwardedHeader, forwarded)
}

// pushedUnder serves the original under a tag. Upstream's tag must still hold the forwarded
// digest: BuildKit, containerd and regctl skip a push when HEAD shows their own digest.
func (ex *exchange) pushedUnder(tag string) (done bool, err error) {
	// With the client's own Accept, so that the answer serves when there is no original. ECR would convert by it.
	accept := ex.accept()
	if ex.onECR() {
		accept = http.Header{"Accept": manifestTypes}
	}
	resp, err := ex.askManifest(upstream.Request{Method: http.MethodHead, Path: manifestPath(tag), Header: accept})
	if err != nil {
		return true, err
	}
	if resp.StatusCode == http.StatusOK {
		if local := ex.originalOf(tag, resp.Header.Get("Docker-Content-Digest")); local != nil {
			discard(resp)
			d := ocidoc.Document{Bytes: local.bytes}
			return true, ex.serveManifest(d.Digest(), local)
		}
	}
	if ex.r.Method == http.MethodHead && !ex.onECR() {
		ex.tellTag(tag, resp.Header.Get("Docker-Content-Digest"))
		ex.passResponse(resp)
		return true, nil
	}
	discard(resp)
	return false, nil
}

// originalOf is the original that was pushed under a tag, if the rule that made it is still the one.
func (ex *exchange) originalOf(tag, forwarded string) *localDocument {
	if !ocidoc.ValidDigest(forwarded) {
		return nil
	}
	original, err := ex.p.quarantine.TagOriginal(ex.ctx(), ex.repo, tag, forwarded)
	if err != nil {
		if !errors.Is(err, quarantine.ErrNotFound) {
			ex.p.storageTrouble(ex.log, "look up tag "+tag, err)
		}
		return nil
	}
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, original)
	if err != nil {
		ex.p.storageTrouble(ex.log, "look up alias of "+original, err)
		return nil
	}
	for _, a := range aliases {
		if a.Forwarded == forwarded && a.Action == filters.Store && a.Unwrap == ex.rule.Unwrap && a.MediaTypes == converted(ex.policy()) {
			b, err := ex.findOriginal(original)
			if err != nil {
				ex.p.storageTrouble(ex.log, "read original "+original, err)
			}
			if b == nil {
				return nil
			}
			if whole, err := ex.keepsTaken(a); !whole || err != nil {
				ex.goWithout("look for what original "+original+" lists", err)
				return nil
			}
			return &localDocument{mediaType: a.OriginalMediaType, bytes: b, forwarded: forwarded}
		}
	}
	return nil
}
