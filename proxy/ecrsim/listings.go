package ecrsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPage = 100
	maximumPage = 1000
)

// cursor is where a page starts and how long it is. Clients see it as bytes without meaning; one that they made up is found
// out.
type cursor struct {
	Of    string `json:"of"` // what is listed
	After string `json:"after"`
	Size  int    `json:"size"`
}

func (s *Simulator) seal(c cursor) string {
	b, _ := json.Marshal(c)
	return base64.RawURLEncoding.EncodeToString(append(s.sealOf(b), b...))
}

func (s *Simulator) sealOf(b []byte) []byte {
	h := hmac.New(sha256.New, s.secret[:])
	h.Write(b)
	return h.Sum(nil)[:12]
}

func (s *Simulator) unseal(text, of string) (cursor, *failure) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	var c cursor
	if err != nil || len(b) < 12 || !hmac.Equal(b[:12], s.sealOf(b[12:])) || json.Unmarshal(b[12:], &c) != nil || c.Of != of {
		return cursor{}, invalid("NextToken", "Invalid next token provided")
	}
	return c, nil
}

// page cuts one out of sorted keys.
func page(keys []string, c cursor) (part []string, more bool) {
	from, found := slices.BinarySearch(keys, c.After)
	if found {
		from++
	}
	keys = keys[from:]
	if len(keys) > c.Size {
		return keys[:c.Size], true
	}
	return keys, false
}

// asked reads n= and last=.
func (c *call) asked(of string) (cursor, *failure) {
	q := c.r.URL.Query()
	cur := cursor{Of: of, Size: defaultPage}
	if last := q.Get("last"); last != "" {
		var f *failure
		if cur, f = c.unseal(last, of); f != nil {
			return cursor{}, f
		}
	}
	if q.Has("n") {
		n, err := strconv.Atoi(q.Get("n"))
		switch {
		case err != nil || n < 1:
			return cursor{}, invalid("maxResults", "Member must have value greater than or equal to 1")
		case n > maximumPage:
			return cursor{}, invalid("maxResults", fmt.Sprintf("Member must have value less than or equal to %d", maximumPage))
		}
		cur.Size = n
	}
	return cur, nil
}

// next is the absolute address of the following page.
func (c *call) next(cur cursor) {
	c.w.Header().Set("Link", "<"+base(c.r)+c.r.URL.Path+"?last="+url.QueryEscape(c.seal(cur))+`>; rel="next"`)
}

// answer has the type text/plain, which ECR gives its lists.
func (c *call) answer(contentType string, v any) *failure {
	b, err := json.Marshal(v)
	if err != nil {
		return broken("write a list", err)
	}
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(b)
	return nil
}

// listTags sorts by a hash: ECR's order is not lexical, and nobody should come to rely on one.
func (c *call) listTags() *failure {
	cur, f := c.asked("tags of " + c.repo)
	if f != nil {
		return f
	}
	c.mu.Lock()
	r, f := c.repository(c.repo)
	byKey := map[string]string{}
	if f == nil {
		for tag := range r.tagged {
			h := sha256.Sum256([]byte(tag))
			byKey[hex.EncodeToString(h[:])] = tag
		}
	}
	c.mu.Unlock()
	if f != nil {
		return f
	}
	return c.list(cur, byKey, "tags", map[string]any{"name": c.repo})
}

// catalog is every repository of the account.
func (c *call) catalog() *failure {
	cur, f := c.asked("repositories")
	if f != nil {
		return f
	}
	byKey := map[string]string{}
	c.mu.Lock()
	for name := range c.repositories {
		byKey[name] = name
	}
	c.mu.Unlock()
	return c.list(cur, byKey, "repositories", map[string]any{})
}

func (c *call) list(cur cursor, byKey map[string]string, field string, answer map[string]any) *failure {
	keys := slices.Sorted(maps.Keys(byKey))
	part, more := page(keys, cur)
	if more {
		c.next(cursor{cur.Of, part[len(part)-1], cur.Size})
	}
	names := make([]string, len(part))
	for i, k := range part {
		names[i] = byKey[k]
	}
	answer[field] = names
	return c.answer("text/plain; charset=utf-8", answer)
}

// listReferrers pages like the rest, and filters unless a switch says otherwise.
func (c *call) listReferrers() *failure {
	if c.sw.NoReferrers {
		return notFoundPage()
	}
	_, subject, f := c.reference()
	if f == nil && subject == "" {
		f = invalid("subjectId.imageDigest", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	if f != nil {
		return f
	}
	q := c.r.URL.Query()
	types := q["artifactType"]
	cur := cursor{Of: "referrers of " + c.repo + "@" + subject + strings.Join(types, ","), Size: or(c.sw.ReferrersPage, 50)}
	if last := q.Get("last"); last != "" {
		if cur, f = c.unseal(last, cur.Of); f != nil {
			return f
		}
	}
	c.mu.Lock()
	r, f := c.repository(c.repo)
	byKey := map[string]descriptor{}
	if f == nil {
		for _, i := range r.referrers(subject) {
			if len(types) == 0 || c.sw.IgnoreArtifactType || slices.Contains(types, i.artifactType) {
				byKey[i.digest] = descriptor{i.mediaType, i.digest, len(i.body), i.artifactType, i.annotations}
			}
		}
	}
	c.mu.Unlock()
	if f != nil {
		return f
	}
	part, more := page(slices.Sorted(maps.Keys(byKey)), cur)
	if more {
		link := base(c.r) + c.r.URL.Path + "?" + url.Values{"artifactType": types, "last": {c.seal(cursor{cur.Of, part[len(part)-1], cur.Size})}}.Encode()
		c.w.Header().Set("Link", "<"+link+`>; rel="next"`)
	}
	if len(types) > 0 && !c.sw.NoFiltersApplied && !c.sw.IgnoreArtifactType {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	found := make([]descriptor, len(part))
	for i, k := range part {
		found[i] = byKey[k]
	}
	return c.answer(ociIndex, map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": found})
}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int               `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}
