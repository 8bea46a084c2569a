package ecrsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// headLayer sees an unreferenced layer while it lives. Whether ECR does is not settled; a client that does not see it
// sends it again.
func (c *call) headLayer() *failure {
	c.mu.Lock()
	l, f := c.layer()
	var size int64
	if f == nil {
		if size = l.size; l.references == 0 && c.sw.HideUnreferenced {
			f = noLayer()
		}
	}
	c.mu.Unlock()
	if f != nil {
		return f
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Docker-Content-Digest", c.ref)
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// layer finds the one that the path names; the caller holds the lock.
func (c *call) layer() (*layer, *failure) {
	r, f := c.repository(c.repo)
	if f != nil {
		return nil, f
	}
	if _, err := digest.Parse(c.ref); err != nil {
		return nil, invalid("layerDigests", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	if l := r.layers[c.ref]; l != nil {
		return l, nil
	}
	return nil, noLayer()
}

// getLayer sends to the blob address, with a query that lets everybody in who has it.
func (c *call) getLayer() *failure {
	c.mu.Lock()
	l, f := c.layer()
	if f == nil && l.references == 0 {
		f = inaccessibleLayer().or(c.sw.UnreferencedGet)
	}
	c.mu.Unlock()
	if f != nil {
		return f
	}
	if c.blobURL == "" {
		c.serveLayer(c.w, c.r, c.ref)
		return nil
	}
	c.w.Header().Set("Location", c.signed(c.repo, c.ref))
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// mount links a layer that an image of another repository refers to. That it is there is not enough
// (https://github.com/aws/containers-roadmap/issues/2860).
func (c *call) mount(digest, from string) bool {
	if !c.sw.BlobMounting || !c.who.allows("GetDownloadUrlForLayer") || listed(c.sw.Deny, "GetDownloadUrlForLayer") {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	into := c.repositories[c.repo]
	if into == nil { // it has gone in the meantime
		return false
	}
	for name, r := range c.repositories {
		if name != from && (from != "" || !c.sw.AnonymousMount) {
			continue
		}
		if l := r.layers[digest]; l != nil && l.references > 0 && r.encryption == into.encryption {
			if into.layers[digest] == nil {
				into.layers[digest] = &layer{size: l.size}
			}
			return true
		}
	}
	return false
}

// linkLife is how long an address from getLayer works.
const linkLife = time.Hour

// signed is the address of a layer, in the form of a pre-signed one of S3.
func (s *Simulator) signed(repo, digest string) string {
	path := "/" + s.account + "/" + repo + "/" + digest
	expires := s.now().Add(linkLife).Unix()
	q := url.Values{
		"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
		"X-Amz-Credential":    {"ECR/" + s.region + "/s3/aws4_request"},
		"X-Amz-SignedHeaders": {"host"},
		"X-Amz-Expires":       {strconv.FormatInt(expires, 10)}, // S3's counts from X-Amz-Date
		"X-Amz-Signature":     {s.sign(path, expires)},
	}
	return s.blobURL + path + "?" + q.Encode()
}

func (s *Simulator) sign(path string, expires int64) string {
	h := hmac.New(sha256.New, s.secret[:])
	h.Write([]byte(path + " " + strconv.FormatInt(expires, 10)))
	return hex.EncodeToString(h.Sum(nil))
}

// Blobs is what GET of a layer redirects to, S3 in real life. It knows nobody: the address is the credential, and one in a
// header besides is refused.
func (s *Simulator) Blobs() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusWriter{ResponseWriter: w}
		defer func() { s.log.Debug("blobs", requestAttrs(r, rec.status)...) }()
		expires, _ := strconv.ParseInt(r.URL.Query().Get("X-Amz-Expires"), 10, 64)
		digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		switch {
		case r.Method != http.MethodGet:
			refuseBlob(rec, http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
		case r.Header.Get("Authorization") != "":
			refuseBlob(rec, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
		case !hmac.Equal([]byte(s.sign(r.URL.Path, expires)), []byte(r.URL.Query().Get("X-Amz-Signature"))):
			refuseBlob(rec, http.StatusForbidden, "AccessDenied", "Access Denied")
		case s.now().After(time.Unix(expires, 0)):
			refuseBlob(rec, http.StatusForbidden, "AccessDenied", "Request has expired")
		default:
			s.serveLayer(rec, r, digest)
		}
	})
}

func refuseBlob(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
}

// serveLayer sends the bytes, of a range if one is asked for.
func (s *Simulator) serveLayer(w http.ResponseWriter, r *http.Request, d string) {
	content, err := s.layers.Open(r.Context(), digest.Digest(d))
	if err != nil {
		refuseBlob(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	defer content.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d)
	http.ServeContent(w, r, "", time.Time{}, content)
}
