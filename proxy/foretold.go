package proxy

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// BuildKit's attestation manifest follows from its blobs: the config lists its statements, each statement names its
// predicate type, and the rest is the same in all of them. So when these are held, the digest under which their
// manifest will be asked for is known, and that upstream need not be asked about it: under `strip` and `store` it
// has no such manifest (I2), or one that the push can do without.
//
// foretold remembers what follows from the blobs that this process held lately. It is a hint: what is not foretold,
// because another replica held a blob or because BuildKit writes its manifests differently one day, is asked of upstream.
type foretold struct {
	mu         sync.Mutex
	statements map[inRepo]statement
	configs    []foretoldConfig // whose statements have not all come
	manifests  map[inRepo]struct{}
}

type statement struct {
	size          int64
	predicateType string
}

type foretoldConfig struct {
	repo, digest string
	size         int64
	statements   []string
}

// What is remembered is bounded; everything goes at once, and what goes is asked of upstream.
const (
	maxForetold       = 4096
	maxWaitingConfigs = 64
)

func newForetold() *foretold {
	return &foretold{statements: map[inRepo]statement{}, manifests: map[inRepo]struct{}{}}
}

// held takes note of a blob that was put in quarantine.
func (f *foretold) held(repo, digest string, content []byte) {
	if filters.Peek(content, true) != filters.Hold {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if st, ok := asStatement(content); ok {
		if len(f.statements) >= maxForetold {
			clear(f.statements)
		}
		f.statements[inRepo{repo, digest}] = st
	} else if c, ok := asConfig(content); ok {
		if len(f.configs) >= maxWaitingConfigs {
			f.configs = nil
		}
		c.repo, c.digest, c.size = repo, digest, int64(len(content))
		f.configs = append(f.configs, c)
	}
	f.configs = slices.DeleteFunc(f.configs, f.conclude)
}

// conclude is true when everything is known that follows from a config.
func (f *foretold) conclude(c foretoldConfig) bool {
	for _, digest := range c.statements {
		if _, ok := f.statements[inRepo{c.repo, digest}]; !ok {
			return false
		}
	}
	b := manifestText{}
	b.Grow(512 * (1 + len(c.statements)))
	b.open(c)
	for i, digest := range c.statements {
		b.layer(i, digest, f.statements[inRepo{c.repo, digest}])
	}
	b.WriteString("\n  ]\n}")
	if len(f.manifests) >= maxForetold {
		clear(f.manifests)
	}
	f.manifests[inRepo{c.repo, ocidoc.DigestOf(b.Bytes())}] = struct{}{}
	return true
}

// manifest is true for the digest of an attestation manifest whose blobs are held.
func (f *foretold) manifest(repo, digest string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.manifests[inRepo{repo, digest}]
	return ok
}

// manifestText is the manifest as BuildKit writes it (exporter/containerimage/writer.go, json.MarshalIndent).
type manifestText struct{ bytes.Buffer }

func (b *manifestText) open(c foretoldConfig) {
	b.WriteString("{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"" + ocidoc.MediaTypeOCIManifest + "\",\n  \"config\": {\n" +
		"    \"mediaType\": \"application/vnd.oci.image.config.v1+json\",\n    \"digest\": \"" + c.digest + "\",\n    \"size\": ")
	b.number(c.size)
	b.WriteString("\n  },\n  \"layers\": [")
}

func (b *manifestText) layer(i int, digest string, st statement) {
	if i > 0 {
		b.WriteByte(',')
	}
	b.WriteString("\n    {\n      \"mediaType\": \"application/vnd.in-toto+json\",\n      \"digest\": \"" + digest + "\",\n      \"size\": ")
	b.number(st.size)
	b.WriteString(",\n      \"annotations\": {\n        \"" + filters.AnnotationPredicateType + "\": \"" + st.predicateType + "\"\n      }\n    }")
}

func (b *manifestText) number(n int64) {
	text, _ := json.Marshal(n) // an integer cannot fail
	b.Write(text)
}

// asStatement reads the beginning of a statement as BuildKit writes it; an SBOM behind it may be long.
func asStatement(content []byte) (statement, bool) {
	head := content[:min(len(content), 512)]
	_, rest, ok := bytes.Cut(head, []byte(`,"predicateType":"`))
	if !ok || !bytes.HasPrefix(head, []byte(`{"_type":"https://in-toto.io/`)) {
		return statement{}, false
	}
	name, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok || bytes.ContainsAny(name, "\\<>&") {
		return statement{}, false // would be escaped: another spelling than the one that follows
	}
	return statement{int64(len(content)), string(name)}, true
}

func asConfig(content []byte) (c foretoldConfig, ok bool) {
	_, list, ok := bytes.Cut(content, []byte(`"rootfs":{"type":"layers","diff_ids":[`))
	if !ok || len(content) > 64<<10 || !bytes.HasPrefix(content, []byte(`{"architecture":"unknown"`)) {
		return c, false
	}
	list, _, _ = bytes.Cut(list, []byte("]"))
	for id := range strings.SplitSeq(string(list), ",") {
		if id = strings.Trim(id, `"`); !ocidoc.ValidDigest(id) {
			return c, false
		}
		c.statements = append(c.statements, id)
	}
	return c, true
}

// asksToPush recognises BuildKit and containerd, which look whether a manifest is there by its own type and any other
// (containerd core/remotes/docker/pusher.go). Who resolves a reference accepts a list of types.
func asksToPush(r *http.Request) bool {
	accept := r.Header["Accept"]
	return len(accept) == 1 && accept[0] == ocidoc.MediaTypeOCIManifest+", */*"
}

// foretold is true where upstream need not be asked about a manifest: for who asks whether to push it. Upstream may have it
// all the same, under a tag or from before Sluice was in the way, and everybody else is told so, by every replica alike.
// These credentials must have been seen lately (I9).
func (ex *exchange) foretold(digest string) bool {
	return asksToPush(ex.r) && ex.peeks() && ex.p.foretold.manifest(ex.repo, digest) &&
		(!ex.up.Passthrough() || ex.p.authority.proven(ex.proofKey(false)) || ex.p.authority.proven(ex.proofKey(true)))
}
