package proxy_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// notes are artifacts with the image as their subject, not pushed yet. Their blobs are.
func (r *rig) notes(image proxytest.Blob, name string, n int) (notes [][]byte) {
	r.t.Helper()
	r.request(http.MethodPut, put(r.upload("app"), filters.EmptyDigest), []byte("{}")).want(r.t, http.StatusCreated)
	for i := range n {
		notes = append(notes, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/note","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2}],"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"note":"%s %d"}}`,
			ociManifest, filters.EmptyDigest, filters.EmptyDigest, ociManifest, image.Digest, image.Size, name, i))
	}
	return notes
}

func putNote(t testing.TB, registry string, note []byte) {
	t.Helper()
	a := change(t, http.MethodPut, registry+"/v2/app/manifests/"+ocidoc.DigestOf(note), note, "Content-Type", ociManifest)
	if a.StatusCode != http.StatusCreated || a.Header.Get("OCI-Subject") == "" {
		t.Errorf("a referrer is answered %s %s", a.Status, a.body)
	}
}

var brokenTag = regexp.MustCompile(`"filesystem: .*/_manifests/tags/`)

// change is a request that writes a referrers tag, made again as a client makes it where the registry of the tests failed at
// a tag in its storage: distribution writes one in steps, and answers 500 where another request deletes the tag's folder in
// between.
func change(t testing.TB, method, url string, body []byte, header ...string) *answer {
	t.Helper()
	a := request(t, method, url, body, header...)
	for try := 1; try < 10 && a.StatusCode == http.StatusInternalServerError && brokenTag.Match(a.body); try++ {
		a = request(t, method, url, body, header...)
	}
	return a
}

// listsExactly compares the referrers tag of an image, and what Sluice lists, with what should be there.
func (r *rig) listsExactly(image string, notes ...[]byte) {
	r.t.Helper()
	var want []string
	for _, n := range notes {
		want = append(want, ocidoc.DigestOf(n))
	}
	slices.Sort(want)
	for by, list := range map[string]referrersIndex{"the tag upstream": r.listedUpstream("app", image), "sluice": r.referrers("app", image)} {
		var got []string
		for _, d := range list.Manifests {
			got = append(got, d.Digest)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			r.t.Errorf("%s lists %d referrers, want these %d:\n%s\nit has\n%s", by, len(got), len(want), strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
	}
}

// sharing are three replicas in front of a registry without a referrers API, with an image in it.
func sharing(t *testing.T, shared storagedriver.StorageDriver, settings ...setting) (replicas []*rig, image proxytest.Blob) {
	t.Helper()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true})
	for range 3 {
		replicas = append(replicas, newRig(t, up, append([]setting{storage(shared)}, settings...)...))
	}
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	replicas[0].push(proxytest.BuildKit, "app", "1", tree)
	return replicas, tree.Root.Blob
}

func TestReferrersThatReplicasListAtOnceAreAllListed(t *testing.T) {
	for try := range 5 {
		t.Run(fmt.Sprint(try), func(t *testing.T) {
			replicas, image := sharing(t, inmemory.New())
			balancer := balance(t, replicas)
			notes := replicas[0].notes(image, "note", 12)
			var pushes sync.WaitGroup
			for _, n := range notes {
				pushes.Go(func() { putNote(t, balancer, n) })
			}
			pushes.Wait()
			replicas[0].listsExactly(image.Digest, notes...)
		})
	}
}

// Some are old: no record says any more that they should be listed, only the list itself.
func TestReferrersThatReplicasAddAndRemoveAtOnceEndAsTheyShould(t *testing.T) {
	for try := range 5 {
		t.Run(fmt.Sprint(try), func(t *testing.T) {
			now := time.Now()
			replicas, image := sharing(t, inmemory.New(), clock(func() time.Time { return now }))
			balancer := balance(t, replicas)
			old, young, added := replicas[0].notes(image, "old", 6), replicas[0].notes(image, "young", 4), replicas[0].notes(image, "added", 6)
			for _, n := range old {
				putNote(t, balancer, n)
			}
			now = now.Add(4 * time.Hour)
			for _, n := range young {
				putNote(t, balancer, n)
			}
			var changes sync.WaitGroup
			for _, n := range slices.Concat(old[:3], young[:2]) {
				changes.Go(func() {
					change(t, http.MethodDelete, balancer+"/v2/app/manifests/"+ocidoc.DigestOf(n), nil).want(t, http.StatusAccepted)
				})
			}
			for _, n := range added {
				changes.Go(func() { putNote(t, balancer, n) })
			}
			changes.Wait()
			replicas[0].listsExactly(image.Digest, slices.Concat(old[3:], young[2:], added)...)
			for _, n := range old[:2] { // one that comes again is listed again
				putNote(t, balancer, n)
			}
			replicas[0].listsExactly(image.Digest, slices.Concat(old[:2], old[3:], young[2:], added)...)
		})
	}
}

// Whatever call of the storage fails, a referrer that was acknowledged is listed, and one that was deleted is not.
func TestAReferrerIsListedThoughTheStorageFails(t *testing.T) {
	for _, kind := range []proxytest.Kind{proxytest.FaultError, proxytest.FaultAfter, proxytest.FaultDead} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			shared := proxytest.NewFailingDriver(inmemory.New())
			replicas, image := sharing(t, shared)
			r := replicas[0]
			notes := r.notes(image, "note", 2)
			putNote(t, r.url(), notes[0])
			for n := 1; ; n++ {
				shared.Fail(n, kind)
				putNote(t, r.url(), notes[1])
				fired := shared.Fired()
				shared.Fail(0, kind)
				replicas[1].listsExactly(image.Digest, notes...)
				shared.Fail(n, kind)
				a := r.request(http.MethodDelete, "/v2/app/manifests/"+ocidoc.DigestOf(notes[1]), nil)
				fired = fired || shared.Fired()
				shared.Fail(0, kind)
				if a.StatusCode != http.StatusAccepted {
					r.request(http.MethodDelete, "/v2/app/manifests/"+ocidoc.DigestOf(notes[1]), nil).want(t, http.StatusAccepted)
				}
				replicas[2].listsExactly(image.Digest, notes[0])
				if t.Failed() {
					t.Fatalf("call %d of the storage had failed", n)
				}
				if !fired {
					if n < 3 {
						t.Error("the storage was not asked")
					}
					return
				}
			}
		})
	}
}

// Who may not write the list must not have others write it.
func TestAReferrerThatUpstreamRefusesToListIsNoBusinessOfOthers(t *testing.T) {
	shared := inmemory.New()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact, Platforms: []string{"linux/amd64"}})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/sha256-") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	refused := newRig(t, up, storage(shared), storeTo(config.StoreToReferrers))
	if err := tryPush(refused, proxytest.BuildKit, tree); err == nil {
		t.Error("the push succeeds")
	}
	refused.proxy.Settle()
	if records := refused.files("/quarantine", "_referrers"); len(records) > 0 {
		t.Errorf("records of what may not be written: %v", records)
	}
}

// A registry behind a cache shows for a while what a tag had before. That must not fail a push.
func TestAReferrerIsAcceptedWhereTheRegistryGoesOnShowingTheOldList(t *testing.T) {
	var old atomic.Bool
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if old.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/sha256-") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up)
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	r.push(proxytest.BuildKit, "app", "1", tree)
	notes := r.notes(tree.Root.Blob, "note", 1)
	old.Store(true)
	putNote(t, r.url(), notes[0])
	old.Store(false)
	r.listsExactly(tree.Root.Digest, notes[0])
}

// I7: a delete of a referrer that fails half-way can be repeated, and then nothing lists what is gone.
func TestADeletedReferrerIsNoLongerListedWhateverFailedFirst(t *testing.T) {
	for what, fails := range map[string]func(*http.Request) bool{
		"the question for the API": func(q *http.Request) bool { return strings.Contains(q.URL.Path, "/referrers/") },
		"the new list":             func(q *http.Request) bool { return q.Method == http.MethodPut },
		"the delete":               func(q *http.Request) bool { return q.Method == http.MethodDelete },
	} {
		t.Run(what, func(t *testing.T) {
			var on, failed atomic.Bool
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, NoValidation: true, Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if fails(q) && on.CompareAndSwap(true, false) {
						failed.Store(true)
						w.WriteHeader(http.StatusForbidden)
						return
					}
					next.ServeHTTP(w, q)
				})
			}})
			r := newRig(t, up)
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
			r.push(proxytest.BuildKit, "app", "1", tree)
			notes := r.notes(tree.Root.Blob, "n", 2)
			for _, n := range notes {
				putNote(t, r.url(), n)
			}
			on.Store(true)
			note := "/v2/app/manifests/" + ocidoc.DigestOf(notes[0])
			if a := r.request(http.MethodDelete, note, nil); what != "the delete" {
				a.want(t, http.StatusForbidden)
				r.listsExactly(tree.Digest(), notes...) // nothing was deleted, so nothing is missing
			}
			if !failed.Load() {
				t.Fatal("nothing failed, so this shows nothing")
			}
			r.request(http.MethodDelete, note, nil)
			r.direct(http.MethodHead, note, nil, acceptAll...).want(t, http.StatusNotFound)
			r.listsExactly(tree.Digest(), notes[1])
		})
	}
}

// Taking a referrer from the list comes before its delete, and is taken back where the registry deletes nothing.
func TestAReferrerThatTheRegistryDoesNotDeleteStaysListed(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{NoValidation: true}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	r.push(proxytest.BuildKit, "app", "1", tree)
	notes := r.notes(tree.Root.Blob, "n", 2)
	for _, n := range notes {
		putNote(t, r.url(), n)
	}
	r.request(http.MethodDelete, "/v2/app/manifests/"+ocidoc.DigestOf(notes[0]), nil).want(t, http.StatusMethodNotAllowed, "UNSUPPORTED")
	r.listsExactly(tree.Digest(), notes...)
}
