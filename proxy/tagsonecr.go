package proxy

import (
	"mime"
	"net/http"
	"strings"

	"sluice/proxy/upstream"
)

// tagOnECR answers GET and HEAD of a tag where upstream is Amazon ECR, which converts what is asked for by
// tag to what Accept allows, and leaves Docker-Content-Digest out of the answer to GET. A client that
// compares the body with the digest that HEAD, or Sluice, told it would see another document. So the tag is
// resolved with every type accepted, and the document is read by its digest, which ECR never converts. A
// client that does not accept the stored type gets ECR's conversion, without a digest.
func (ex *exchange) tagOnECR(tag string) error {
	resp, err := ex.headTag(tag)
	if err != nil {
		return err
	}
	digest := resp.Header.Get("Docker-Content-Digest")
	stored := resp.Header.Get("Content-Type")
	accepted := accepts(ex.r.Header.Values("Accept"), stored)
	switch {
	case resp.StatusCode != http.StatusOK && ex.r.Method == http.MethodHead:
		ex.passResponse(resp)
		return nil
	case resp.StatusCode != http.StatusOK || digest == "" || !accepted:
		discard(resp)
		return ex.convertedTag(tag, stored)
	case ex.r.Method == http.MethodHead:
		ex.tellTag(tag, digest)
		ex.passResponse(resp)
		return nil
	}
	discard(resp)
	ex.tellTag(tag, digest)
	resp, err = ex.askManifest(upstream.Request{Method: http.MethodGet, Path: manifestPath(digest), Header: pick(ex.r.Header, "Accept", "If-None-Match")})
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		resp.Header.Set("Docker-Content-Digest", digest)
	}
	ex.passResponse(resp)
	return nil
}

// headTag resolves a tag to what is stored under it.
func (ex *exchange) headTag(tag string) (*http.Response, error) {
	return ex.askManifest(upstream.Request{Method: http.MethodHead, Path: manifestPath(tag), Header: http.Header{"Accept": manifestTypes}})
}

// convertedTag passes on what ECR makes of a tag for this client, or its refusal with the reason that a
// HEAD does not have. The digest is that of the stored document, and so not of a converted one.
func (ex *exchange) convertedTag(tag, stored string) error {
	resp, err := ex.do(upstream.Request{Method: ex.r.Method, Path: manifestPath(tag), Header: pick(ex.r.Header, "Accept", "If-None-Match")})
	if err != nil {
		return err
	}
	if stored != "" && resp.Header.Get("Content-Type") != stored {
		resp.Header.Del("Docker-Content-Digest")
	}
	ex.passResponse(resp)
	return nil
}

// accepts tells whether Accept lines allow a media type (RFC 9110 section 12.5.1); none allow everything.
func accepts(lines []string, mediaType string) bool {
	if len(lines) == 0 {
		return true
	}
	if t, _, err := mime.ParseMediaType(mediaType); err == nil {
		mediaType = t
	}
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			t, params, err := mime.ParseMediaType(part)
			if err != nil || strings.Trim(params["q"], "0.") == "" && params["q"] != "" {
				continue
			}
			if prefix, any := strings.CutSuffix(t, "*"); t == mediaType || any && (prefix == "*/" || strings.HasPrefix(mediaType, prefix)) {
				return true
			}
		}
	}
	return false
}
