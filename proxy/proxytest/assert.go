package proxytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// AssertClean fails the test for everything of I2 that is in the registry's storage: a statement, an attestation
// manifest, an unknown/unknown configuration, an index that lists an attestation. Digests in allow are left out
// (an attestation pushed by tag, a statement mounted upstream by the client).
func AssertClean(t testing.TB, u *Upstream, allow ...string) {
	t.Helper()
	for _, f := range u.Inspect(t).Attestations(allow...) {
		t.Errorf("%s must hold no attestation (I2): %s", u.Kind, f)
	}
}

// AssertComplete fails the test for every blob or manifest that something stored refers to and that is not in the same
// repository (I7), and for every tag without its manifest.
func AssertComplete(t testing.TB, u *Upstream) {
	t.Helper()
	for _, f := range u.Inspect(t).Dangling() {
		t.Errorf("%s must hold all it refers to (I7): %s", u.Kind, f)
	}
}

// Attestations lists what AssertClean finds, sorted.
func (c *Contents) Attestations(allow ...string) []string {
	var found []string
	for name, r := range c.Repositories {
		legit := r.legitimate()
		for digest, m := range r.Manifests {
			doc, _ := parseDocument(m.Bytes)
			if slices.Contains(allow, digest) {
				continue
			}
			if isAttestation(doc) && len(doc.Manifests) == 0 {
				found = append(found, fmt.Sprintf("%s: %s is an attestation manifest", name, digest))
			}
			for _, e := range doc.Manifests {
				if why := r.listsAttestation(e); why != "" && !slices.Contains(allow, e.Digest.String()) {
					found = append(found, fmt.Sprintf("%s: the index %s lists the attestation %s (%s)", name, digest, e.Digest, why))
				}
			}
		}
		for digest, b := range r.Blobs {
			if what := attestationBlob(b.Bytes); what != "" && !legit[digest] && !slices.Contains(allow, digest) {
				found = append(found, fmt.Sprintf("%s: %s is %s", name, digest, what))
			}
		}
	}
	for digest, b := range c.Stray {
		doc, isDocument := parseDocument(b.Bytes)
		if what := attestationBlob(b.Bytes); what != "" && !slices.Contains(allow, digest) {
			found = append(found, fmt.Sprintf("%s, in no repository, is %s", digest, what))
		} else if isDocument && isAttestation(doc) && len(doc.Manifests) == 0 && !slices.Contains(allow, digest) {
			found = append(found, fmt.Sprintf("%s, in no repository, is an attestation manifest", digest))
		}
	}
	for _, up := range c.Uploads {
		if what := attestationStart(up.Bytes); what != "" {
			found = append(found, fmt.Sprintf("%s: an unfinished upload begins as %s", up.Repository, what))
		}
	}
	slices.Sort(found)
	return found
}

// listsAttestation judges by the child if it is there, else by the hints.
func (r *RepositoryContents) listsAttestation(e v1.Descriptor) string {
	if child, ok := r.Manifests[e.Digest.String()]; ok {
		if doc, ok := parseDocument(child.Bytes); ok && isAttestation(doc) && len(doc.Manifests) == 0 {
			return "it is one"
		}
		return ""
	}
	switch {
	case e.ArtifactType == ArtifactTypeAttestation:
		return "artifactType"
	case e.Annotations["vnd.docker.reference.type"] == "attestation-manifest":
		return "annotation"
	case platformOf(e.Platform) == "unknown/unknown":
		return "unknown/unknown"
	}
	return ""
}

// legitimate are the blobs that a stored manifest refers to which is no attestation of BuildKit's: cosign's envelopes,
// somebody's own artifact with in-toto layers.
func (r *RepositoryContents) legitimate() map[string]bool {
	legit := map[string]bool{}
	for _, m := range r.Manifests {
		doc, ok := parseDocument(m.Bytes)
		if !ok || isAttestation(doc) {
			continue
		}
		for _, d := range references(doc) {
			legit[d.Digest.String()] = true
		}
	}
	return legit
}

// Dangling lists what AssertComplete finds, sorted.
func (c *Contents) Dangling() []string {
	var found []string
	for name, r := range c.Repositories {
		for digest, m := range r.Manifests {
			if m.Bytes == nil {
				found = append(found, fmt.Sprintf("%s: the manifest %s has no content", name, digest))
				continue
			}
			doc, ok := parseDocument(m.Bytes)
			if !ok {
				continue // of a kind that nobody here reads
			}
			for _, d := range references(doc) {
				_, manifest := r.Manifests[d.Digest.String()]
				blob, isBlob := r.Blobs[d.Digest.String()]
				switch {
				case manifest:
				case !isBlob:
					found = append(found, fmt.Sprintf("%s: %s refers to %s, which is not there", name, digest, d.Digest))
				case blob.Size != d.Size:
					found = append(found, fmt.Sprintf("%s: %s refers to %s with size %d, it has %d", name, digest, d.Digest, d.Size, blob.Size))
				}
			}
		}
		for tag, digest := range r.Tags {
			if _, ok := r.Manifests[digest]; !ok {
				found = append(found, fmt.Sprintf("%s: the tag %s points at %s, which is not there", name, tag, digest))
			}
		}
		for _, all := range []map[string]Stored{r.Manifests, r.Blobs} {
			for digest, s := range all {
				if !s.Seeded && int64(len(s.Bytes)) == s.Size && digestOf(s.Bytes) != digest && strings.HasPrefix(digest, "sha256:") {
					found = append(found, fmt.Sprintf("%s: the content of %s has another digest", name, digest))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

func references(doc document) []v1.Descriptor {
	all := slices.Concat(doc.Layers, doc.Manifests)
	if doc.Config != nil {
		all = append(all, *doc.Config)
	}
	return all
}

func parseDocument(b []byte) (document, bool) {
	var doc document
	if bodyMediaType(b) == "" || json.Unmarshal(b, &doc) != nil {
		return document{}, false
	}
	return doc, true
}

// attestationBlob tells what kind of attestation content complete bytes are, "" for none.
func attestationBlob(b []byte) string {
	if len(b) == 0 || b[0] != '{' {
		return ""
	}
	var doc struct {
		Type         string `json:"_type"`
		PayloadType  string `json:"payloadType"`
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	if json.Unmarshal(b, &doc) != nil {
		return attestationStart(b)
	}
	switch {
	case strings.HasPrefix(doc.Type, "https://in-toto.io/Statement"):
		return "an in-toto statement"
	case strings.HasPrefix(doc.PayloadType, "application/vnd.in-toto"):
		return "a signed in-toto statement"
	case doc.Architecture == "unknown" && doc.OS == "unknown":
		return "an unknown/unknown configuration"
	}
	return ""
}

// attestationStart judges a beginning as BuildKit writes it.
func attestationStart(b []byte) string {
	for prefix, what := range map[string]string{
		`{"_type":"https://in-toto.io/`:            "an in-toto statement",
		`{"payloadType":"application/vnd.in-toto`:  "a signed in-toto statement",
		`{"architecture":"unknown","os":"unknown"`: "an unknown/unknown configuration",
	} {
		if len(b) >= 8 && (bytes.HasPrefix(b, []byte(prefix)) || len(b) < len(prefix) && strings.HasPrefix(prefix, string(b))) {
			return what
		}
	}
	return ""
}
