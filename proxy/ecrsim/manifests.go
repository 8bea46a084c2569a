package ecrsim

import (
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,299}$`)

// reference is a tag or a digest.
func (c *call) reference() (tag, dgst string, f *failure) {
	if strings.Contains(c.ref, ":") {
		d, err := digest.Parse(c.ref)
		if err != nil || d.Algorithm() != digest.SHA256 {
			return "", "", invalid("imageDigest", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
		}
		return "", c.ref, nil
	}
	if !tagPattern.MatchString(c.ref) {
		return "", "", invalid("imageTag", "must satisfy regular expression '[a-zA-Z0-9-_.]+'")
	}
	return c.ref, "", nil
}

// getManifest answers GET and HEAD. By tag, GET converts to what the client accepts, and leaves the digest out, so that only
// bytes that were asked for by digest can be trusted to be those that were pushed.
func (c *call) getManifest() *failure {
	tag, dgst, f := c.reference()
	if f != nil {
		return f
	}
	c.mu.Lock()
	r, f := c.repository(c.repo)
	var i *image
	if f == nil {
		i, f = c.find(r, tag, dgst)
	}
	c.mu.Unlock()
	if f != nil {
		return f
	}
	body, mediaType := i.body, i.mediaType
	if tag != "" {
		body, mediaType = convert(body, mediaType, accepted(c.r))
	}
	h := c.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if tag == "" || c.r.Method == http.MethodHead {
		h.Set("Docker-Content-Digest", i.digest)
	}
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(body)
	return nil
}

func accepted(r *http.Request) []string {
	var types []string
	for _, line := range r.Header.Values("Accept") {
		for _, part := range strings.Split(line, ",") {
			if t, _, err := mime.ParseMediaType(part); err == nil {
				types = append(types, t)
			}
		}
	}
	return types
}

func (c *call) putManifest() *failure {
	tag, dgst, f := c.reference()
	if f != nil {
		return f
	}
	limit := c.sw.Limits.withDefaults().ManifestBytes
	body, err := io.ReadAll(io.LimitReader(c.r.Body, limit+1))
	if err != nil {
		return &failure{cut: true} // the client has gone
	}
	contentType, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	c.mu.Lock()
	r, f := c.pushed(c.repo, c.sw)
	var i *image
	if f == nil {
		i, f = c.put(r, body, contentType, tag, dgst, c.sw)
	}
	c.mu.Unlock()
	if f != nil {
		return f
	}
	at := "/v2/" + c.repo + "/manifests/" + i.digest
	if !c.sw.RelativeLocation {
		at = base(c.r) + at
	}
	h := c.w.Header()
	h.Set("Location", at)
	h.Set("Docker-Content-Digest", i.digest)
	if i.subject != "" && !c.sw.NoReferrers && !c.sw.NoOCISubject {
		h.Set("OCI-Subject", i.subject)
	}
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *call) deleteManifest() *failure {
	if c.sw.NoDelete {
		return notFoundPage()
	}
	tag, dgst, f := c.reference()
	if f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, f := c.repository(c.repo)
	if f == nil {
		f = r.remove(tag, dgst)
	}
	if f != nil {
		if f.exception == "ImageReferencedByManifestList" {
			f = f.or(c.sw.ReferencedByIndex)
		}
		return f
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
