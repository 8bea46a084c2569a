package conformance

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// longChunks wants chunks of a length, says so with OCI-Chunk-Min-Length, and refuses whatever follows a shorter one.
type longChunks struct {
	http.Handler
	minimum int64

	mu    sync.Mutex
	short map[string]bool // sessions, by path, whose last chunk must have been the last one
}

func newLongChunks(h http.Handler, minimum int64) *longChunks {
	return &longChunks{Handler: h, minimum: minimum, short: map[string]bool{}}
}

func (l *longChunks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/uploads/") {
		l.Handler.ServeHTTP(w, r)
		return
	}
	switch {
	case r.Method == http.MethodPost:
		w.Header().Set("OCI-Chunk-Min-Length", strconv.FormatInt(l.minimum, 10))
	case r.ContentLength != 0 && (r.Method == http.MethodPatch || r.Method == http.MethodPut):
		l.mu.Lock()
		refuse := l.short[r.URL.Path]
		if r.ContentLength > 0 && r.ContentLength < l.minimum && r.Method == http.MethodPatch {
			l.short[r.URL.Path] = true
		}
		l.mu.Unlock()
		if refuse {
			http.Error(w, "a chunk before this one was too short", http.StatusBadRequest)
			return
		}
	}
	l.Handler.ServeHTTP(w, r)
}
