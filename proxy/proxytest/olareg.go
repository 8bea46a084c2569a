package proxytest

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"sync"
)

// settled makes olareg's repositories before they are used concurrently: its folder store sets a repository's "exists"
// without a lock when the first of several uploads creates it (internal/store/dir.go repoInit, indexLoad; v0.2.2), which
// the race detector reports in every test with a concurrent push. A repository's first write waits for the requests that
// already run in it, creates it, loads it, and only then lets anybody on.
type settled struct {
	next   http.Handler
	create func(repository string) error

	mu    sync.Mutex
	repos map[string]*settling
}

type settling struct {
	sync.RWMutex
	done bool
}

var repositoryPath = regexp.MustCompile(`^/v2/(.+)/(?:blobs|manifests|tags|referrers)/`)

func (s *settled) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found := repositoryPath.FindStringSubmatch(r.URL.Path)
	if found == nil {
		s.next.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		if err := s.settle(found[1]); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	repositories := []string{found[1]}
	if from := r.URL.Query().Get("from"); from != "" && from != found[1] {
		repositories = append(repositories, from)
	}
	slices.Sort(repositories) // always locked in one order
	for _, name := range repositories {
		repo := s.repo(name)
		repo.RLock()
		defer repo.RUnlock()
	}
	s.next.ServeHTTP(w, r)
}

func (s *settled) repo(name string) *settling {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo := s.repos[name]
	if repo == nil {
		repo = &settling{}
		s.repos[name] = repo
	}
	return repo
}

func (s *settled) settle(name string) error {
	repo := s.repo(name)
	repo.RLock()
	done := repo.done
	repo.RUnlock()
	if done {
		return nil
	}
	repo.Lock()
	defer repo.Unlock()
	if repo.done {
		return nil
	}
	if err := s.create(name); err != nil {
		return err
	}
	s.next.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/"+name+"/tags/list", nil))
	repo.done = true
	return nil
}
