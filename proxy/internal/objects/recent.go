package objects

import "sync"

// maxRecent bounds the memory of a hint: about a MiB.
const maxRecent = 4096

// Recent remembers what this process has written lately: most of what a push looks for it has brought a moment ago, and
// where it is most likely to be found one request to a bucket is enough. Whether it is still there the storage says, since
// any replica may have deleted it. The zero value is ready.
type Recent struct {
	mu    sync.Mutex
	paths map[string]struct{}
}

// Put remembers a path, unless the storage answers at once, which needs no hints.
func (r *Recent) Put(s Storage, path string) {
	if s.Immediate() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil || len(r.paths) >= maxRecent {
		r.paths = map[string]struct{}{}
	}
	r.paths[path] = struct{}{}
}

// Has says whether something was written there.
func (r *Recent) Has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.paths[path]
	return ok
}

// Forget is for what is not there any more.
func (r *Recent) Forget(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paths, path)
}
