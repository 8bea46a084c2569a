package ecrsim

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// front is the size of the parts into which the registry API cuts a long body on its way to the storage.
const front = 10 << 20

// session is one upload. Its writer is distribution's, kept open: it is for this process only, as all else is.
type session struct {
	repo string

	mu       sync.Mutex // one request at a time
	w        distribution.BlobWriter
	hash     hash.Hash // of all bytes so far: distribution logs a mismatch as an error of its own, through logrus
	ended    bool
	size     int64 // kept here, since the writer of the inmemory driver leaves out what it buffers
	parts    int
	first    int64 // the end of the first part, which Range stays at
	last     int64 // size of the last part
	tooSmall bool  // a part that was not the last one was too small
}

func (u *session) cancel() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.ended {
		u.ended = true
		_ = u.w.Cancel(context.Background())
	}
}

// startUpload opens a session, unless the layer can be mounted.
func (c *call) startUpload() *failure {
	q := c.r.URL.Query()
	c.mu.Lock()
	_, f := c.pushed(c.repo, c.sw)
	c.mu.Unlock()
	if f != nil {
		return f
	}
	if d := q.Get("mount"); d != "" && c.mount(d, q.Get("from")) {
		return c.created(d)
	}
	id, u, f := c.newSession()
	if f != nil {
		return f
	}
	if q.Has("digest") && c.sw.Monolithic {
		return c.complete(id, u)
	}
	c.location(id)
	c.w.Header().Set("Range", "0-0")
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (c *call) newSession() (id string, u *session, f *failure) {
	w, err := c.layers.Create(context.WithoutCancel(c.r.Context())) // it outlives the request
	if err != nil {
		return "", nil, broken("open a session", err)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	id = strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
	u = &session{repo: c.repo, w: w, hash: sha256.New()}
	c.mu.Lock()
	c.sessions[id] = u
	c.mu.Unlock()
	return id, u, nil
}

// session finds an upload, and locks it; the caller unlocks it. A repository that has gone since cuts the connection in the
// middle of the body, as is reported of pushes to one that does not exist.
func (c *call) session() (*session, *failure) {
	c.mu.Lock()
	u, repo := c.sessions[c.ref], c.repositories[c.repo]
	c.mu.Unlock()
	if u == nil || u.repo != c.repo {
		return nil, noUpload()
	}
	if repo == nil {
		_, _ = io.CopyN(io.Discard, c.r.Body, 1)
		return nil, &failure{cut: true}
	}
	u.mu.Lock()
	if u.ended {
		u.mu.Unlock()
		return nil, noUpload()
	}
	return u, nil
}

func (c *call) uploadStatus() *failure {
	u, f := c.session()
	if f != nil {
		return f
	}
	defer u.mu.Unlock()
	c.stored(u)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// uploadPart answers 201, and not the 202 of the specification.
func (c *call) uploadPart() *failure {
	u, f := c.session()
	if f != nil {
		return f
	}
	defer u.mu.Unlock()
	if f := c.append(u); f != nil {
		return f
	}
	c.stored(u)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *call) stored(u *session) {
	c.location(c.ref)
	end := u.first
	if c.sw.TrueRange {
		end = u.size
	}
	c.w.Header().Set("Range", fmt.Sprintf("0-%d", max(end-1, 0)))
}

func (c *call) location(id string) {
	at := "/v2/" + c.repo + "/blobs/uploads/" + id
	if !c.sw.RelativeLocation {
		at = base(c.r) + at
	}
	c.w.Header().Set("Location", at)
	c.w.Header().Set("Docker-Upload-Uuid", id)
}

// append stores a body as the next part.
func (c *call) append(u *session) *failure {
	stored := u.size
	if f := c.consecutive(stored); f != nil {
		return f
	}
	limits := c.sw.Limits.withDefaults()
	n, err := u.w.ReadFrom(io.TeeReader(io.LimitReader(c.r.Body, limits.LayerBytes-stored+1), u.hash))
	switch {
	case err != nil && c.r.Context().Err() != nil:
		return &failure{cut: true} // the client has gone
	case err != nil:
		return broken("store a part", err)
	case n == 0:
		return nil
	case stored+n > limits.LayerBytes:
		return layerLimit("its size", limits.LayerBytes)
	}
	u.size += n
	u.tooSmall = u.tooSmall || u.parts > 0 && u.last < limits.PartBytes
	u.parts += int((n + front - 1) / front)
	if u.last = n; u.first == 0 {
		u.first = n
	}
	if u.parts > limits.Parts {
		return layerLimit("the number of parts", int64(limits.Parts))
	}
	return nil
}

// consecutive compares Content-Range, which is "first-last" in this API.
func (c *call) consecutive(stored int64) *failure {
	v := strings.TrimPrefix(c.r.Header.Get("Content-Range"), "bytes ")
	if v == "" {
		return nil
	}
	first, last, _ := strings.Cut(v, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	length := c.r.ContentLength
	if err1 != nil || err2 != nil || from != stored || to < from || length >= 0 && length != to-from+1 {
		return otherRange(stored).with(c.sw.BadRange)
	}
	return nil
}

// completeUpload may carry all of the layer, or its last part.
func (c *call) completeUpload() *failure {
	u, f := c.session()
	if f != nil {
		return f
	}
	defer u.mu.Unlock()
	return c.finish(c.ref, u)
}

// complete is the whole of an upload in one POST.
func (c *call) complete(id string, u *session) *failure {
	u.mu.Lock()
	defer u.mu.Unlock()
	return c.finish(id, u)
}

func (c *call) finish(id string, u *session) *failure {
	want, err := digest.Parse(c.r.URL.Query().Get("digest"))
	if err != nil || want.Algorithm() != digest.SHA256 {
		return invalid("layerDigest", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	if f := c.append(u); f != nil {
		return f
	}
	switch {
	case u.size == 0:
		c.end(id, u, true)
		return emptyUpload()
	case u.tooSmall:
		c.end(id, u, true)
		f := smallPart()
		f.cut = c.sw.SmallPartCuts
		return f
	}
	if digest.NewDigest(digest.SHA256, u.hash) != want {
		c.end(id, u, true)
		return otherLayerDigest()
	}
	_, err = u.w.Commit(context.WithoutCancel(c.r.Context()), v1.Descriptor{Digest: want})
	if c.end(id, u, err != nil); err != nil {
		return broken("store a layer", err)
	}
	c.mu.Lock()
	r := c.repositories[c.repo]
	if r != nil && r.layers[want.String()] == nil {
		r.layers[want.String()] = &layer{size: u.size}
	}
	c.mu.Unlock()
	if r == nil {
		return c.noRepository(c.repo)
	}
	return c.created(want.String())
}

// end forgets a session, and its bytes unless they have become a layer.
func (c *call) end(id string, u *session, discard bool) {
	u.ended = true
	if discard {
		_ = u.w.Cancel(context.WithoutCancel(c.r.Context()))
	}
	c.mu.Lock()
	delete(c.sessions, id)
	c.mu.Unlock()
}

func (c *call) created(digest string) *failure {
	at := "/v2/" + c.repo + "/blobs/" + digest
	if !c.sw.RelativeLocation {
		at = base(c.r) + at
	}
	c.w.Header().Set("Location", at)
	c.w.Header().Set("Docker-Content-Digest", digest)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *call) cancelUpload() *failure {
	if !c.sw.CancelUploads {
		return unsupported()
	}
	u, f := c.session()
	if f != nil {
		return f
	}
	defer u.mu.Unlock()
	c.end(c.ref, u, true)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
