package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"sluice/filters/ocidoc"
	"sluice/proxy/internal/objects"
)

// readManifest reads the body within the size a manifest may have, and checks it against the
// digest in the URL. release is called when nobody needs it any more.
func (ex *exchange) readManifest(ref string) (body []byte, release func(), err error) {
	if digestRef(ref) {
		if f := checkDigest(ex.repo, ref); f != nil {
			return nil, nil, f
		}
	}
	tooLarge := func() error {
		return refuse(http.StatusRequestEntityTooLarge, codeManifestInvalid, "manifest %s for repository %s is larger than %d bytes, the size that registries take", clip(ref), ex.repo, ocidoc.MaxBytes)
	}
	if ex.r.ContentLength > ocidoc.MaxBytes {
		return nil, nil, tooLarge()
	}
	release = func() {}
	body, err = readUpTo(ex.r.Body, ex.r.ContentLength, believed)
	if err == nil && len(body) == believed {
		if release, err = ex.roomForManifest(); err != nil {
			return nil, nil, err
		}
		body, err = ex.inTime(ex.p.manifestTime, func() ([]byte, error) {
			return fill(ex.r.Body, slices.Grow(body, int(max(ex.r.ContentLength+1-believed, believed))), ocidoc.MaxBytes+1)
		})
	}
	switch {
	case err != nil:
		err = bodyError(ex, err)
	case len(body) > ocidoc.MaxBytes:
		err = tooLarge()
	case digestRef(ref) && objects.CheckBytes(body, ref) != nil:
		got := godigest.Digest(ref).Algorithm().FromBytes(body)
		err = refuse(http.StatusBadRequest, codeDigestInvalid, "manifest for repository %s has digest %s, not %s: nothing was changed", ex.repo, got, ref)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return body, release, nil
}

const (
	// largeManifests of up to 4 MiB are in memory at the same time, each with several times its size where it is parsed.
	// Nearly all manifests are smaller than what is believed, and wait for nobody.
	largeManifests = 8
	// roomPatience is how long one waits for the others.
	roomPatience = 10 * time.Second
	// manifestTime is how long the rest of one may take, whose room others wait for: 140 KiB/s for the largest.
	manifestTime = 30 * time.Second
)

// roomForManifest lets a large manifest be read. With passthrough anybody may send one, so upstream is asked first whether
// this client may.
func (ex *exchange) roomForManifest() (release func(), err error) {
	if err := ex.passthroughMayWrite(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ex.ctx(), roomPatience)
	defer cancel()
	if err := ex.p.largeManifests.Acquire(ctx, 1); err != nil {
		if ex.ctx().Err() != nil {
			return nil, ex.ctx().Err()
		}
		return nil, transient(err, "the manifest for %s waits: %d of more than 64 KiB are being pushed already, and sluice keeps no more in memory; try again", ex.about(), largeManifests)
	}
	return func() { ex.p.largeManifests.Release(1) }, nil
}

// inTime reads the rest of a large manifest. A body that hardly comes is cut off as others are: the deadline of slowBodies
// is in the past, and is not taken back here. The server takes the deadline back at the end of the body, and goes on reading, to
// see whether the client is still there.
func (ex *exchange) inTime(d time.Duration, read func() ([]byte, error)) ([]byte, error) {
	rc := http.NewResponseController(ex.w)
	_ = rc.SetReadDeadline(time.Now().Add(d))
	body, err := read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, &errTooSlow{"the whole manifest", d.String()}
	}
	return body, err
}

// believed is how much memory a length is worth that somebody only says.
const believed = 64 << 10

// readUpTo is io.ReadAll of an io.LimitReader, for what says its length, or -1.
func readUpTo(r io.Reader, length int64, limit int) ([]byte, error) {
	return fill(r, make([]byte, 0, min(max(length+1, 512), believed, int64(limit))), limit)
}

// fill reads until b has limit bytes.
func fill(r io.Reader, b []byte, limit int) ([]byte, error) {
	for len(b) < limit {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(cap(b), limit)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}
