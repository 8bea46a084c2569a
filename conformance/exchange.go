package conformance

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// maxAnswer bounds what is read of an answer; no case puts more into a registry.
const maxAnswer = 32 << 20

// answer is a response that was read to its end.
type answer struct {
	method, url string
	status      int
	header      http.Header
	body        []byte
}

func (a *answer) String() string {
	body := a.body
	if len(body) > 300 {
		body = body[:300]
	}
	target := a.url // upload URLs are long, and say nothing to a reader
	if len(target) > 160 {
		target = target[:120] + "..." + target[len(target)-40:]
	}
	return fmt.Sprintf("%s %s: %d %q", a.method, target, a.status, body)
}

type option func(*http.Request)

func withHeader(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// withoutLength sends the body in HTTP chunks, as Docker 20.10 does with layers: no Content-Length.
func withoutLength(r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		r.ContentLength, r.GetBody = -1, nil
	}
}

var octets = withHeader("Content-Type", "application/octet-stream")

// do sends one request to a path of the registry or to a URL that the registry named, and checks what holds for every answer.
func (c *check) do(method, target string, body []byte, options ...option) *answer {
	if strings.HasPrefix(target, "/") {
		target = c.base + target
	}
	req, err := http.NewRequestWithContext(c.ctx, method, target, bytes.NewReader(body))
	if err != nil {
		c.failf("%s %q: not a request: %v", method, target, err)
	}
	if len(body) == 0 {
		req.Body, req.GetBody = http.NoBody, nil
	}
	// Go would ask for gzip by itself, and then hide the length; container clients do not ask
	req.Header.Set("Accept-Encoding", "identity")
	for _, o := range options {
		o(req)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.failf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		c.failf("%s %s: %d, and then reading the body: %v", method, target, resp.StatusCode, err)
	}
	a := &answer{method, resp.Request.URL.String(), resp.StatusCode, resp.Header, got}
	c.checkEvery(a)
	return a
}

// warning is the only form that the section "Warnings" allows: code 299, agent "-", no date.
var warning = regexp.MustCompile(`^299 - "(?:[^"\\]|\\.)*"$`)

// errorCodes are those of the section "Error Codes"; the rest are Docker's, which "Legacy Docker support error codes" tolerates.
func errorCodes() []string {
	return []string{
		"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
		"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
		"TAG_INVALID", "MANIFEST_UNVERIFIED",
	}
}

// checkEvery checks what the sections "Error Codes" and "Warnings" demand of any answer.
func (c *check) checkEvery(a *answer) {
	total := 0
	for _, w := range a.header.Values("Warning") {
		total += len(w)
		if !warning.MatchString(w) {
			c.failf("%v: Warning %q is not of the form 299 - \"text\"", a, w)
		}
	}
	if total > 4096 {
		c.failf("%v: %d bytes of Warning headers, at most 4096 are allowed", a, total)
	}
	if a.status >= 500 {
		c.failf("%v: the registry failed", a)
	}
	if a.status >= 400 && a.method != http.MethodHead && json.Valid(a.body) {
		for _, code := range c.codes(a) {
			if !regexp.MustCompile(`^[A-Z_]+$`).MatchString(code) {
				c.failf("%v: error code %q is not upper case letters and underscores", a, code)
			}
		}
	}
	if len(a.header.Values("Docker-Content-Digest")) > 1 {
		c.failf("%v: several Docker-Content-Digest headers: %q", a, a.header.Values("Docker-Content-Digest"))
	}
}

// codes reads the error codes of an answer; none if its body is not JSON.
func (c *check) codes(a *answer) []string {
	if a.status < 400 || !json.Valid(a.body) {
		return nil
	}
	var e struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) == 0 {
		c.failf("%v: a JSON body of an error has to be {\"errors\": [{\"code\": ...}]}", a)
	}
	var codes []string
	for _, one := range e.Errors {
		codes = append(codes, one.Code)
	}
	return codes
}

// want ends the case unless the answer has one of these statuses.
func (c *check) want(a *answer, statuses ...int) *answer {
	if !slices.Contains(statuses, a.status) {
		panic(failed{fmt.Sprintf("%v: want %v", a, statuses), a.status})
	}
	return a
}

// wantCode ends the case unless the answer is a client error that names this code.
func (c *check) wantCode(a *answer, code string) {
	if a.status < 400 || a.status > 499 {
		c.failf("%v: want a client error with %s", a, code)
	}
	if codes := c.codes(a); !slices.Contains(codes, code) {
		c.failf("%v: want code %s, got %q", a, code, codes)
	}
}

// wantHeader ends the case unless the answer has the header exactly once with this value.
func (c *check) wantHeader(a *answer, name, value string) {
	if got := a.header.Values(name); len(got) != 1 || got[0] != value {
		c.failf("%v: %s is %q, want %q", a, name, got, value)
	}
}

func (c *check) wantBody(a *answer, body []byte) {
	if !bytes.Equal(a.body, body) {
		c.failf("%s %s: %d bytes of body, and not the %d bytes that were sent", a.method, a.url, len(a.body), len(body))
	}
}

// location is the Location header as an absolute URL.
func (c *check) location(a *answer) string {
	l := a.header.Get("Location")
	if l == "" {
		c.failf("%v: no Location", a)
	}
	base, err := url.Parse(a.url)
	if err != nil {
		c.failf("%v: %v", a, err)
	}
	u, err := base.Parse(l)
	if err != nil {
		c.failf("%v: Location %q: %v", a, l, err)
	}
	return u.String()
}

// withQuery adds a parameter and leaves the rest of the URL as it is: it may hold the state of an upload.
func withQuery(target, name, value string) string {
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	return target + separator + name + "=" + url.QueryEscape(value)
}

func sha256Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func sha512Digest(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512:" + hex.EncodeToString(sum[:])
}
