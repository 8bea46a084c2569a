package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func (l *woven) get(path string) *answer { return l.ask(http.MethodGet, path) }

// check is what holds whenever nothing happens.
func (l *woven) check() {
	l.t.Helper()
	if l.up.Kind != "ecrsim" { // of which no list can be had
		proxytest.AssertComplete(l.t, l.up)
		if l.to == config.StoreToStorage && !l.forward {
			proxytest.AssertClean(l.t, l.up)
		}
	}
	l.forgetExpired()
	for _, p := range inOrder(l.kept) {
		k := l.kept[p]
		if err := l.whole(p.repo, k.tree); err != nil {
			l.t.Errorf("what was kept in %s is lost: %v", p.repo, err)
		}
		if !k.strip && !k.plain {
			if err := l.listed(l.get, p.repo, k.tree); err != nil {
				l.t.Error(err)
			}
		}
	}
	for _, p := range inOrder(l.tags) {
		if _, err := l.pull(p.repo, p.ref); err != nil {
			l.t.Errorf("tag: %v", err)
		}
	}
	l.checkTags()
	for _, p := range inOrder(l.signed) {
		l.signed[p].check(l.t, func(method, path string, _ []byte, header ...string) *answer { return l.ask(method, path, header...) }, p.repo)
	}
	l.open()
	for _, p := range inOrder(l.gone) {
		if a := l.ask(http.MethodGet, "/v2/"+p.repo+"/manifests/"+p.ref, acceptAll...); a.StatusCode != http.StatusNotFound {
			l.t.Errorf("%s was deleted in %s, and is there: %s", p.ref, p.repo, a.Status)
		}
		if a := l.get("/v2/" + p.repo + "/referrers/" + l.gone[p]); slices.Contains(digests(a), p.ref) {
			l.t.Errorf("%s was deleted in %s, and is listed: %s", p.ref, p.repo, a.body)
		}
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// forgetExpired is about what may be gone by now.
func (l *woven) forgetExpired() {
	for _, p := range inOrder(l.kept) {
		age := time.Since(l.kept[p].at)
		if l.kept[p].strip && age > 2*24*time.Hour || l.expires > 0 && age > l.expires {
			delete(l.kept, p)
		}
	}
	if l.expires > 0 {
		clear(l.signed) // they go with what they are about
	}
}

// open is about all that may be there or not: then it is there as a whole, or not at all.
func (l *woven) open() {
	l.t.Helper()
	for _, repo := range []string{"app", "lib"} {
		for _, tree := range l.trees {
			path := "/v2/" + repo + "/manifests/" + tree.Digest()
			if a := l.ask(http.MethodGet, path, acceptAll...); a.StatusCode == http.StatusOK {
				if err := l.whole(repo, tree); err != nil {
					l.t.Errorf("the original in %s is shown, and not whole: %v", repo, err)
				}
			} else if a.StatusCode != http.StatusNotFound {
				l.t.Errorf("%s: %s %s", path, a.Status, a.body)
			}
			for _, image := range tree.Images() {
				a := l.ask(http.MethodGet, "/v2/"+repo+"/referrers/"+image.Digest)
				for _, d := range digests(a) {
					if _, err := l.pull(repo, d); err != nil {
						l.t.Errorf("%s is listed for %s: %v", d, image.Digest, err)
					}
				}
			}
		}
	}
}

var lookups = regexp.MustCompile(`^(/attestations/[a-z]+)/_(?:subjects|originals|tags)/.*/([a-z0-9]+)-([0-9a-f]{64})-([0-9a-f]{32})$`)

// recorded: whatever can be found can be deleted, once a sweep has seen it.
func (l *woven) recorded() {
	l.t.Helper()
	files := l.files("/attestations")
	for _, f := range files {
		if m := lookups.FindStringSubmatch(f); m != nil && !slices.Contains(files, m[1]+"/_records/"+m[2]+"/"+m[3]+"/"+m[4]) {
			l.t.Errorf("%s has no record", f)
		}
	}
}

func digests(a *answer) (found []string) {
	doc, err := ocidoc.Parse(a.body, ocidoc.MediaTypeOCIIndex)
	if err != nil {
		return nil
	}
	for _, e := range doc.Manifests {
		found = append(found, e.Digest)
	}
	return found
}

func (l *woven) pull(repo, ref string) (*proxytest.Tree, error) {
	return proxytest.Pull(context.Background(), proxytest.PullOptions{
		BaseURL: wovenURL, Repository: repo, Reference: ref, Client: &http.Client{Transport: l.reader()},
	})
}

func (l *woven) whole(repo string, tree *proxytest.Tree) error {
	back, err := l.pull(repo, tree.Digest())
	if err == nil {
		err = back.Equal(tree)
	}
	return err
}

// listed says that each attestation is among the referrers of its image.
func (l *woven) listed(get func(path string) *answer, repo string, tree *proxytest.Tree) error {
	for i, image := range tree.Images() {
		digest := l.asListed(tree, i)
		if a := get("/v2/" + repo + "/referrers/" + image.Digest); !slices.Contains(digests(a), digest) {
			return fmt.Errorf("attestation %s in %s is not listed as %s for %s: %s %s", tree.Attestations()[i].Digest, repo, digest, image.Digest, a.Status, a.body)
		}
	}
	return nil
}

// asListed is the digest of an attestation as an OCI 1.1 referrer.
func (l *woven) asListed(tree *proxytest.Tree, i int) string {
	m, image := tree.Attestations()[i], tree.Images()[i]
	doc, err := ocidoc.Parse(m.Bytes(), m.MediaType)
	if err != nil {
		l.t.Fatal(err)
	}
	if doc.Subject != nil {
		return m.Digest
	}
	return ocidoc.DigestOf(filters.Derived(doc, ocidoc.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}))
}

// again pushes once more what was pushed, and then it is there whatever was before.
func (l *woven) again() {
	l.t.Helper()
	l.payOff()
	for _, tree := range l.trees {
		if l.IntN(2) == 0 {
			continue
		}
		a := l.pushActor(l.where(), tree)
		l.pushedAgain(a)
		a.Do(context.Background())
		for _, r := range l.replicas {
			r.Settle()
		}
		l.happens("again: %s: %v", a.Name, a.err)
		l.pushAgain(a)
		if a.err != nil {
			l.t.Errorf("again, %s: %v", a.Name, a.err)
			continue
		}
		a.ended = time.Now()
		l.pushed(a, nil)
		l.tagged(a)
	}
}

// end lets days go by, until nothing is held any more.
func (l *woven) end() {
	l.t.Helper()
	l.happens("the end")
	for range 12 {
		time.Sleep(24 * time.Hour)
		for _, r := range l.replicas {
			r.Sweep(context.Background())
		}
		l.forgetExpired()
	}
	l.check()
	l.recorded()
	if left := l.files("/quarantine"); len(left) > 0 {
		l.t.Errorf("left in quarantine: %v", left)
	}
	if left := l.files("/attestations"); l.action == filters.Strip && len(left) > 0 || l.expires > 0 && strings.Contains(strings.Join(left, "\n"), "/_records/") {
		l.t.Errorf("left of attestations: %v", left)
	}
	if left := strings.Join(l.files("/attestations"), "\n"); strings.Contains(left, "/_aside/") {
		l.t.Errorf("left aside: %v", left)
	}
}

func (l *woven) files(below string) (found []string) {
	l.t.Helper()
	err := l.driver.Walk(context.Background(), below, func(f storagedriver.FileInfo) error {
		if !f.IsDir() && !strings.Contains(f.Path(), "/.tmp.") { // which a crash leaves
			found = append(found, f.Path())
		}
		return nil
	})
	if err != nil && !errors.As(err, &storagedriver.PathNotFoundError{}) {
		l.t.Fatal(err)
	}
	return found
}
