package conformance

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// anyType keeps manifests of types that the registry behind it would refuse, and leaves everything else to that registry.
type anyType struct {
	http.Handler

	mu        sync.Mutex
	documents map[string]document // by path
}

func newAnyType(h http.Handler) *anyType {
	return &anyType{Handler: h, documents: map[string]document{}}
}

var manifestURL = regexp.MustCompile(`^(/v2/.+/manifests/)([^/]+)$`)

func (a *anyType) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := manifestURL.FindStringSubmatch(r.URL.Path)
	if m == nil {
		a.Handler.ServeHTTP(w, r)
		return
	}
	a.mu.Lock()
	d, found := a.documents[r.URL.Path]
	a.mu.Unlock()
	mediaType := r.Header.Get("Content-Type")
	known := mediaType == "" || strings.HasPrefix(mediaType, "application/vnd.oci.image.") || strings.HasPrefix(mediaType, "application/vnd.docker.")
	switch {
	case r.Method == http.MethodPut && !known:
		a.put(w, r, m[1], m[2], mediaType)
	case r.Method == http.MethodPut:
		a.remove(r.URL.Path)
		a.Handler.ServeHTTP(w, r)
	case found && r.Method == http.MethodDelete:
		a.remove(r.URL.Path)
		if m[2] == d.digest {
			a.removeTags(m[1], d.digest)
		}
		w.WriteHeader(http.StatusAccepted)
	case found:
		w.Header().Set("Content-Type", d.mediaType)
		w.Header().Set("Docker-Content-Digest", d.digest)
		w.Header().Set("Content-Length", strconv.Itoa(len(d.bytes)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(d.bytes)
		}
	default:
		a.Handler.ServeHTTP(w, r)
	}
}

func (a *anyType) put(w http.ResponseWriter, r *http.Request, base, ref, mediaType string) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	d := newDocument(b, mediaType)
	if strings.HasPrefix(ref, "sha512:") {
		d.digest = sha512Digest(b)
	}
	if strings.Contains(ref, ":") && ref != d.digest {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.documents[base+ref], a.documents[base+d.digest] = d, d
	a.mu.Unlock()
	w.Header().Set("Location", base+d.digest)
	w.Header().Set("Docker-Content-Digest", d.digest)
	w.WriteHeader(http.StatusCreated)
}

func (a *anyType) remove(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.documents, path)
}

func (a *anyType) removeTags(base, digest string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, d := range a.documents {
		if strings.HasPrefix(path, base) && d.digest == digest {
			delete(a.documents, path)
		}
	}
}
