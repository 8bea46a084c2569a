package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/folder"
	"sluice/proxy/proxytest"
)

// storedFormats has a storage as each program has written it that wrote it in another way than those before, with the registry
// behind it. The number is the format's, a letter behind it says that programs of that format read it all the same.
const storedFormats = "testdata/storage"

// A storedFormat is one of them.
type storedFormat struct {
	At       time.Time // when the last of it was written
	Pushes   []storedPush
	Signed   map[string]storedSignature // by repository
	Held     storedHeld                 // a push of which everything but the index has come
	Left     storedHeld                 // one that was left like that, and swept
	Uploads  []storedUpload             // that go on
	Subject  string                     // in new/app, of which the list of referrers has just been changed
	Referrer string                     // that it was given
	Storage  []storedFile
	Registry map[string]storedRepository
}

// A storedPush is what a push of an index leads to, under a tag and by its digest.
type storedPush struct {
	Repository, Original, Forwarded string
	Manifests, Blobs                []string            // of the original
	Statements                      map[string][]string // by image
	Whole                           bool                // can still be read
	Stays                           bool                // for good
}

type storedSignature struct{ Subject, Digest, Type, Manifest, Blob string }

type storedHeld struct {
	Repository, Attestation, Index string
	Blobs                          []string
}

type storedUpload struct{ Location, Rest, Digest string }

// A storedFile is text where it can be.
type storedFile struct {
	Path string
	At   time.Time
	Text string `json:",omitempty"`
	Raw  []byte `json:",omitempty"`
}

func (f storedFile) content() []byte { return append([]byte(f.Text), f.Raw...) }

func newStoredFile(path string, at time.Time, b []byte) storedFile {
	if utf8.Valid(b) {
		return storedFile{Path: path, At: at, Text: string(b)}
	}
	return storedFile{Path: path, At: at, Raw: b}
}

type storedRepository struct {
	Tags      map[string]string
	Manifests []storedManifest
	Blobs     []storedFile // by digest
}

type storedManifest struct{ MediaType, Text string }

// newYear is long ago by any clock that a driver stamps objects with.
var newYear = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newYearAnd(days int) time.Time { return newYear.AddDate(0, 0, days) }

// storedRules have something of every kind in the storage.
func storedRules(c *config.Config) {
	c.Rules = []config.Rule{
		{Repositories: []string{"strip/**"}, Attestations: filters.Strip},
		{Repositories: []string{"docker/**"}, MediaTypes: filters.MediaTypesDocker},
	}
}

// A formatWriter pushes at certain times.
type formatWriter struct {
	t        *testing.T
	dir      string
	upstream *proxytest.Upstream
	now      time.Time
	format   *storedFormat
	stamped  map[string]time.Time
}

func (w *formatWriter) rig(settings ...setting) *rig {
	return newRig(w.t, w.upstream, append([]setting{storage(folder.New(w.dir, 0)), clock(func() time.Time { return w.now }), with(storedRules)}, settings...)...)
}

// stamp gives all that was written since the last call the time that it is by the test's clock.
func (w *formatWriter) stamp() {
	w.t.Helper()
	for _, path := range filesBelow(w.t, w.dir) {
		name := filepath.Join(w.dir, path)
		fi, err := os.Stat(name)
		if err == nil && !fi.ModTime().Equal(w.stamped[path]) {
			err = os.Chtimes(name, w.now, w.now)
			w.stamped[path] = w.now
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func filesBelow(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			paths = append(paths, strings.TrimPrefix(filepath.ToSlash(name), filepath.ToSlash(dir)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func (w *formatWriter) push(r *rig, repo string, seed uint64, o proxytest.SyntheticOptions) (*proxytest.Tree, *storedPush) {
	w.t.Helper()
	o.Seed, o.LayerSize = seed, 32
	if o.Platforms == nil {
		o.Platforms = []string{"linux/amd64"}
	}
	tree := proxytest.Synthetic(o)
	_, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: repo, Tags: []string{"1"}, Tree: tree, Sequential: true})
	if err != nil {
		w.t.Fatal(err)
	}
	r.proxy.Settle()
	p := storedPush{Repository: repo, Original: tree.Digest(), Forwarded: r.upstreamDigest(repo, "1"), Statements: map[string][]string{}, Whole: true, Stays: true}
	p.Manifests, p.Blobs = digestsOf(tree)
	for i, image := range tree.Images() {
		for _, s := range tree.Attestations()[i].Layers {
			p.Statements[image.Digest] = append(p.Statements[image.Digest], s.Digest)
		}
	}
	w.format.Pushes = append(w.format.Pushes, p)
	return tree, &w.format.Pushes[len(w.format.Pushes)-1]
}

func digestsOf(tree *proxytest.Tree) (manifests, blobs []string) {
	for _, m := range tree.Manifests() {
		manifests = append(manifests, m.Digest)
	}
	for _, b := range tree.Blobs() {
		blobs = append(blobs, b.Digest)
	}
	slices.Sort(manifests)
	slices.Sort(blobs)
	return manifests, blobs
}

func (w *formatWriter) sign(r *rig, repo string, tree *proxytest.Tree) {
	w.t.Helper()
	s := bundleOf(tree.Attestations()[0])
	s.push(r.request, repo).want(w.t, http.StatusCreated)
	w.format.Signed[repo] = storedSignature{Subject: s.subject, Digest: s.digest, Type: s.artifactType, Manifest: string(s.manifest), Blob: string(s.blob)}
}

// half pushes everything but the index.
func (w *formatWriter) half(r *rig, repo string, seed uint64) storedHeld {
	w.t.Helper()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Seed: seed, Platforms: []string{"linux/amd64"}, LayerSize: 32, Form: proxytest.FormLegacy})
	for _, m := range tree.Images() {
		for _, b := range m.Blobs() {
			send(w.t, r, repo, b.Bytes())
		}
		r.request(http.MethodPut, "/v2/"+repo+"/manifests/"+m.Digest, m.Bytes(), "Content-Type", m.MediaType).want(w.t, http.StatusCreated)
	}
	pushHalf(w.t, r, repo, "", tree)
	m := tree.Attestations()[0]
	held := storedHeld{Repository: repo, Attestation: m.Digest, Index: string(tree.Root.Bytes())}
	for _, b := range m.Blobs() {
		held.Blobs = append(held.Blobs, b.Digest)
	}
	return held
}

// begin sends the first n bytes of a statement.
func (w *formatWriter) begin(r *rig, repo string, n int) {
	w.t.Helper()
	b := proxytest.Synthetic(proxytest.SyntheticOptions{Seed: uint64(n), Form: proxytest.FormLegacy}).Statements()[0].Bytes()
	a := r.request(http.MethodPatch, r.upload(repo), b[:n]).want(w.t, http.StatusAccepted)
	w.format.Uploads = append(w.format.Uploads, storedUpload{a.Header.Get("Location"), string(b[n:]), ocidoc.DigestOf(b)})
}

// writeFormat pushes something of every kind that the storage has.
func writeFormat(t *testing.T) *storedFormat {
	w := &formatWriter{
		t: t, dir: t.TempDir(), upstream: proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}),
		format: &storedFormat{Signed: map[string]storedSignature{}}, stamped: map[string]time.Time{},
	}
	legacy := proxytest.SyntheticOptions{Form: proxytest.FormLegacy}

	w.now = newYear
	r := w.rig(with(func(c *config.Config) { c.Store.Retention = 3 }))
	_, old := w.push(r, "old/app", 1, legacy)
	old.Whole, old.Stays = false, false
	_, old = w.push(r, "strip/old", 2, legacy)
	old.Whole, old.Stays = false, false
	w.format.Left = w.half(r, "left/app", 3)
	w.stamp()

	w.now = newYearAnd(2)
	_, middle := w.push(r, "middle/app", 4, legacy)
	middle.Stays = false
	w.stamp()

	w.now = newYearAnd(4) // what is of the first day goes: some of it is put aside, for another day
	r.proxy.Sweep(context.Background())
	tree, _ := w.push(r, "new/app", 5, proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true, Platforms: []string{"linux/amd64", "linux/arm64"}})
	w.sign(r, "new/app", tree)
	note := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/note","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		ociManifest, emptyConfig, filters.EmptyDigest, ociManifest, tree.Images()[0].Digest, len(tree.Images()[0].Bytes()))
	w.format.Subject, w.format.Referrer = tree.Images()[0].Digest, ocidoc.DigestOf(note)
	r.request(http.MethodPut, "/v2/new/app/manifests/"+w.format.Referrer, note, "Content-Type", ociManifest).want(t, http.StatusCreated)
	w.push(r, "new/artifact", 6, proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
	w.push(r, "docker/app", 7, legacy)
	tree, stripped := w.push(r, "strip/app", 8, legacy)
	stripped.Stays = false
	w.sign(r, "strip/app", tree)
	w.format.Held = w.half(r, "held/app", 9)
	w.begin(r, "begun/app", 5)
	w.begin(r, "begun/app", 200)
	for _, place := range []string{"first", "second"} {
		w.push(w.rig(with(func(c *config.Config) { c.Store.To, c.Store.Repository = config.StoreToRepository, place })), "elsewhere/app", 10, legacy)
	}
	w.format.Pushes = w.format.Pushes[:len(w.format.Pushes)-1] // the same twice
	w.stamp()

	w.format.At = w.now
	for _, path := range filesBelow(t, w.dir) {
		b, err := os.ReadFile(filepath.Join(w.dir, path))
		if err != nil {
			t.Fatal(err)
		}
		w.format.Storage = append(w.format.Storage, newStoredFile(path, w.stamped[path].UTC(), b))
	}
	w.format.Registry = map[string]storedRepository{}
	for name, repo := range w.upstream.Inspect(t).Repositories {
		s := storedRepository{Tags: repo.Tags}
		for _, d := range slices.Sorted(maps.Keys(repo.Manifests)) {
			s.Manifests = append(s.Manifests, storedManifest{repo.Manifests[d].MediaType, string(repo.Manifests[d].Bytes)})
		}
		for _, d := range slices.Sorted(maps.Keys(repo.Blobs)) {
			s.Blobs = append(s.Blobs, newStoredFile(d, time.Time{}, repo.Blobs[d].Bytes))
		}
		w.format.Registry[name] = s
	}
	return w.format
}

// differences are the names of what one has and not the other, or otherwise. Names that are random are as good as any.
func (f *storedFormat) differences(o *storedFormat) (names []string) {
	mine, others := f.comparable(), o.comparable()
	for name, content := range mine {
		if other, ok := others[name]; !ok || !bytes.Equal(other, content) {
			names = append(names, name)
		}
	}
	for name := range others {
		if _, ok := mine[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (f *storedFormat) comparable() map[string][]byte {
	all := map[string][]byte{}
	for _, file := range f.Storage {
		name, content := file.Path, file.content()
		parts := strings.Split(name, "/")
		switch {
		case parts[1] == "keys":
			name, content = "/keys/...", fmt.Appendf(nil, "%d bytes", len(content))
		case slices.Contains(parts, "_parts"):
			parts[len(parts)-2] = "..."
			name = strings.Join(parts, "/")
		}
		all[name] = content
	}
	return all
}

func storedFormatFiles(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(storedFormats, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func readStoredFormat(t *testing.T, name string) *storedFormat {
	t.Helper()
	b, err := os.ReadFile(name)
	f := &storedFormat{}
	if err == nil {
		err = json.Unmarshal(b, f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// number is the format's, by the storage itself.
func (f *storedFormat) number() string {
	for _, file := range f.Storage {
		if file.Path == "/format" {
			n, _ := strings.CutPrefix(strings.TrimSpace(file.Text), "sluice ")
			return fmt.Sprintf("%02s", n)
		}
	}
	return ""
}

// A program is replaced while the one before it still runs, or is gone back to. So what is written stays the same, or somebody
// has thought about it.
//
// UPDATE_GOLDEN=1 adds what is written now to testdata/storage, beside what was written before, which stays: programs that
// have written it are out there. It takes the format's number and the next letter. Where only this test has changed, and what
// it pushes, delete the last one first.
func TestWhatIsWrittenIsWhatTheFormatSays(t *testing.T) {
	now, files := writeFormat(t), storedFormatFiles(t)
	var changed []string
	if len(files) > 0 {
		if changed = readStoredFormat(t, files[len(files)-1]).differences(now); len(changed) == 0 {
			return
		}
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatalf(`what is written to the storage has changed:
%s
Will a program that was built before read it, and lose nothing of it? A field of JSON more is left alone by it. If it does
not, raise the format (formatNumber of proxy/quarantine/store.go), and keep reading this one. In both cases add to the
formats that are read for good: UPDATE_GOLDEN=1 go test ./proxy -run %s`, strings.Join(changed, "\n"), t.Name())
	}
	name := now.number()
	for letter := 'a'; slices.Contains(files, filepath.Join(storedFormats, name+".json")); letter++ {
		name = now.number() + string(letter)
	}
	b, err := json.MarshalIndent(now, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(storedFormats, name+".json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
