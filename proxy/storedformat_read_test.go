package proxy_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/config"
	"sluice/proxy/folder"
	"sluice/proxy/proxytest"
	"sluice/proxy/quarantine"
)

// A reader is today's program on a storage that another one has left.
type formatReader struct {
	*rig
	format *storedFormat
	dir    string
	now    time.Time
}

// open lays the storage out, and the registry. Each reader has its own.
func (f *storedFormat) open(t *testing.T, settings ...setting) *formatReader {
	t.Helper()
	r := &formatReader{format: f, dir: t.TempDir(), now: f.At}
	for _, file := range f.Storage {
		name := filepath.Join(r.dir, file.Path)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if err == nil {
			err = os.WriteFile(name, file.content(), 0o600)
		}
		if err == nil {
			err = os.Chtimes(name, file.At, file.At)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true})
	for name, repo := range f.Registry {
		repo.push(t, up.URL+"/v2/"+name)
	}
	r.rig = newRig(t, up, append([]setting{storage(folder.New(r.dir, 0)), clock(func() time.Time { return r.now }), with(storedRules)}, settings...)...)
	return r
}

func (s storedRepository) push(t *testing.T, base string) {
	t.Helper()
	for _, b := range s.Blobs {
		a := request(t, http.MethodPost, base+"/blobs/uploads/", []byte{}).want(t, http.StatusAccepted)
		request(t, http.MethodPut, a.Header.Get("Location")+"&digest="+b.Path, b.content()).want(t, http.StatusCreated)
	}
	tags := map[string][]string{}
	for tag, digest := range s.Tags {
		tags[digest] = append(tags[digest], tag)
	}
	for _, indexes := range []bool{false, true} {
		for _, m := range s.Manifests {
			digest := ocidoc.DigestOf([]byte(m.Text))
			if indexes != (m.MediaType == proxytest.MediaTypeOCIIndex || m.MediaType == proxytest.MediaTypeDockerList) {
				continue // what an index lists comes first
			}
			for _, reference := range append(tags[digest], digest) {
				request(t, http.MethodPut, base+"/manifests/"+reference, []byte(m.Text), "Content-Type", m.MediaType).want(t, http.StatusCreated)
			}
		}
	}
}

func (r *formatReader) left(part string) map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for _, path := range filesBelow(r.t.(*testing.T), r.dir) {
		b, err := os.ReadFile(filepath.Join(r.dir, path))
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.Contains(path, part) {
			all[path] = string(b)
		}
	}
	return all
}

// Whoever replaces the program keeps the storage: what any program has written, every later one reads.
func TestWhatAProgramWroteEveryLaterOneReads(t *testing.T) {
	files := storedFormatFiles(t)
	if len(files) == 0 {
		t.Fatal("there is nothing to read")
	}
	for _, name := range files {
		f := readStoredFormat(t, name)
		base := filepath.Base(name)
		if !strings.HasPrefix(base, f.number()) {
			t.Errorf("%s has format %q", name, f.number())
		}
		for what, check := range map[string]func(*testing.T, *storedFormat){
			"there is something of every kind":   hasEveryKind,
			"originals":                          readsOriginals,
			"tags, as they were pushed":          readsTags,
			"attestations of an image":           readsReferrers,
			"signatures of attestations":         readsSignatures,
			"uploads go on":                      resumesUploads,
			"a push ends":                        endsPush,
			"what nobody claimed":                readsUnclaimed,
			"what replicas tell each other":      readsReferrerRecords,
			"an attestation is deleted":          deletesAttestation,
			"what was put aside is pushed again": pushesAgain,
			"what is over is swept, and no more": sweepsWhatIsOver,
			"all is well after a sweep at once":  sweepsNothingYet,
		} {
			t.Run(base+", "+what, func(t *testing.T) {
				t.Parallel()
				check(t, f)
			})
		}
	}
}

func hasEveryKind(t *testing.T, f *storedFormat) {
	kinds := map[string]bool{}
	for _, file := range f.Storage {
		root, rest, _ := strings.Cut(file.Path[1:], "/")
		if _, kind, ok := strings.Cut(rest, "/_"); ok {
			kind, _, _ = strings.Cut(kind, "/")
			root += "/_" + kind
		}
		kinds[root] = true
	}
	// _staging is what is being written, and what a crash has left of that.
	for _, kind := range []string{
		"format", "keys", "aliases/_aliases", "aliases/_tags",
		"quarantine/_blobs", "quarantine/_manifests", "quarantine/_originals", "quarantine/_parts", "quarantine/_about", "quarantine/_referrers",
		"attestations/_documents", "attestations/_blobs", "attestations/_elsewhere", "attestations/_records", "attestations/_subjects",
		"attestations/_originals", "attestations/_tags", "attestations/_unclaimed", "attestations/_aside",
	} {
		if !kinds[kind] {
			t.Errorf("there is no %s, only %v", kind, slices.Sorted(maps.Keys(kinds)))
		}
	}
}

func readsOriginals(t *testing.T, f *storedFormat) {
	r := f.open(t)
	for _, p := range f.Pushes {
		head := r.request(http.MethodHead, "/v2/"+p.Repository+"/manifests/"+p.Original, nil, acceptAll...)
		if got := head.Header.Get("Sluice-Forwarded-Digest"); got != p.Forwarded {
			t.Errorf("%s: %s was forwarded as %q, want %s", p.Repository, p.Original, got, p.Forwarded)
		}
		if !p.Whole {
			head.want(t, http.StatusNotFound)
			continue
		}
		p.readBack(r, p.Original)
	}
}

func (p storedPush) readBack(r *formatReader, reference string) {
	r.t.Helper()
	tree, err := proxytest.PullAll(context.Background(), r.url(), p.Repository, reference)
	if err != nil {
		r.t.Errorf("%s: %v", p.Repository, err)
		return
	}
	manifests, blobs := digestsOf(tree)
	if tree.Digest() != p.Original || !slices.Equal(manifests, p.Manifests) || !slices.Equal(blobs, p.Blobs) {
		r.t.Errorf("%s: %s leads to %v and %v, want %v and %v", p.Repository, reference, manifests, blobs, p.Manifests, p.Blobs)
	}
}

func readsTags(t *testing.T, f *storedFormat) {
	r := f.open(t)
	for _, p := range f.Pushes {
		a := r.request(http.MethodHead, "/v2/"+p.Repository+"/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
		if got := a.Header.Get("Docker-Content-Digest"); got != p.Forwarded {
			t.Errorf("%s:1 is %s, want %s", p.Repository, got, p.Forwarded)
		}
	}
	r = f.open(t, view(config.ViewOriginal))
	for _, p := range f.Pushes {
		if p.Stays && p.Whole {
			p.readBack(r, "1")
		}
	}
}

func readsReferrers(t *testing.T, f *storedFormat) {
	r := f.open(t)
	for _, p := range f.Pushes {
		if p.Whole && !strings.HasPrefix(p.Repository, "strip/") {
			p.attested(r)
		}
	}
}

// attested asserts that the statements are found by the image.
func (p storedPush) attested(r *formatReader) {
	r.t.Helper()
	for image, want := range p.Statements {
		var got []string
		for _, d := range r.referrers(p.Repository, image).Manifests {
			if d.ArtifactType != filters.ArtifactTypeAttestation {
				continue
			}
			a := r.request(http.MethodGet, "/v2/"+p.Repository+"/manifests/"+d.Digest, nil, acceptAll...).want(r.t, http.StatusOK)
			doc, err := ocidoc.Parse(a.body, a.Header.Get("Content-Type"))
			if err != nil || doc.Digest() != d.Digest {
				r.t.Fatalf("%s: %s is listed, %v: %s", p.Repository, d.Digest, err, a.body)
			}
			for _, l := range doc.Layers {
				b := r.request(http.MethodGet, "/v2/"+p.Repository+"/blobs/"+l.Digest, nil).want(r.t, http.StatusOK)
				got = append(got, ocidoc.DigestOf(b.body))
			}
		}
		if !slices.Equal(got, want) {
			r.t.Errorf("%s: image %s has the statements %v, want %v", p.Repository, image, got, want)
		}
	}
}

func readsSignatures(t *testing.T, f *storedFormat) {
	r := f.open(t)
	for repo, s := range f.Signed {
		signed := signature{s.Subject, s.Digest, s.Type, []byte(s.Manifest), []byte(s.Blob)}
		signed.check(t, r.rig.request, repo)
	}
}

func resumesUploads(t *testing.T, f *storedFormat) {
	r := f.open(t)
	if len(f.Uploads) == 0 {
		t.Error("there are none")
	}
	for _, u := range f.Uploads {
		a := r.request(http.MethodPatch, u.Location, []byte(u.Rest)).want(t, http.StatusAccepted)
		r.request(http.MethodPut, put(a.Header.Get("Location"), u.Digest), nil).want(t, http.StatusCreated)
		b := r.request(http.MethodGet, "/v2/begun/app/blobs/"+u.Digest, nil).want(t, http.StatusOK)
		if ocidoc.DigestOf(b.body) != u.Digest {
			t.Errorf("%s is read as %s", u.Digest, b.body)
		}
		r.direct(http.MethodHead, "/v2/begun/app/blobs/"+u.Digest, nil).want(t, http.StatusNotFound)
	}
}

func endsPush(t *testing.T, f *storedFormat) {
	r, h := f.open(t), f.Held
	r.request(http.MethodHead, "/v2/"+h.Repository+"/manifests/"+h.Attestation, nil, acceptAll...).want(t, http.StatusOK)
	r.request(http.MethodPut, "/v2/"+h.Repository+"/manifests/1", []byte(h.Index), "Content-Type", ociIndex).want(t, http.StatusCreated)
	tree, err := proxytest.PullAll(context.Background(), r.url(), h.Repository, ocidoc.DigestOf([]byte(h.Index)))
	if err != nil {
		t.Fatal(err)
	}
	if a := tree.Attestations(); len(a) != 1 || a[0].Digest != h.Attestation {
		t.Errorf("the original lists %v", a)
	}
	if got, want := r.upstreamDigest(h.Repository, "1"), tree.Images()[0].Digest; got != want {
		t.Errorf("the tag is %s upstream, want %s", got, want)
	}
}

func readsUnclaimed(t *testing.T, f *storedFormat) {
	r := f.open(t)
	s := attest.New(r.storage, func() time.Time { return r.now })
	found, err := s.Unclaimed(context.Background(), "")
	if want := []attest.Unclaimed{{Repository: f.Left.Repository, Attestation: f.Left.Attestation}}; err != nil || !slices.Equal(found, want) {
		t.Errorf("found %v, %v, want %v", found, err, want)
	}
	if _, b, err := s.UnclaimedDocument(context.Background(), f.Left.Repository, f.Left.Attestation); err != nil || ocidoc.DigestOf(b) != f.Left.Attestation {
		t.Errorf("%s, %v", b, err)
	}
	for _, digest := range f.Left.Blobs {
		rc, _, err := s.OpenUnclaimedBlob(context.Background(), f.Left.Repository, f.Left.Attestation, digest, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = rc.Close()
	}
}

func readsReferrerRecords(t *testing.T, f *storedFormat) {
	r := f.open(t)
	q, err := quarantine.New(r.storage, quarantine.Options{Now: func() time.Time { return r.now }})
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Referrers(context.Background(), "new/app", f.Subject)
	if err != nil || len(found) != 1 || found[0].Descriptor.Digest.String() != f.Referrer || found[0].Removed {
		t.Errorf("found %v, %v, want %s", found, err, f.Referrer)
	}
}

func deletesAttestation(t *testing.T, f *storedFormat) {
	r, s := f.open(t), f.Signed["new/app"]
	r.request(http.MethodDelete, "/v2/new/app/manifests/"+s.Subject, nil).want(t, http.StatusAccepted)
	for _, digest := range []string{s.Subject, s.Digest} {
		r.request(http.MethodGet, "/v2/new/app/manifests/"+digest, nil, acceptAll...).want(t, http.StatusNotFound)
		for path, content := range r.left("attestations/new/app") {
			hex := strings.TrimPrefix(digest, "sha256:")
			if strings.Contains(path, "/_records/sha256/"+hex) || strings.Contains(path, "/_documents/sha256/"+hex) {
				t.Errorf("%s is still there: %s", path, content)
			}
		}
	}
}

func pushesAgain(t *testing.T, f *storedFormat) {
	r := f.open(t)
	r.push(proxytest.BuildKit, "old/app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Seed: 1, LayerSize: 32, Platforms: []string{"linux/amd64"}, Form: proxytest.FormLegacy}))
	for days := range 8 {
		r.now = f.At.AddDate(0, 0, days)
		r.proxy.Sweep(context.Background())
	}
	for _, p := range f.Pushes {
		if p.Repository == "old/app" {
			p.readBack(r, p.Original)
			p.attested(r)
		}
	}
}

func sweepsNothingYet(t *testing.T, f *storedFormat) {
	r := f.open(t)
	before := r.left("/")
	r.proxy.Sweep(context.Background())
	after := r.left("/")
	for path, content := range before {
		// The original of old/app follows what it lists, which has been put aside.
		if after[path] != content && !strings.HasPrefix(path, "/attestations/old/app/_documents/") {
			t.Errorf("%s was swept, or has changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d objects were there, and are %d", len(before), len(after))
	}
}

func sweepsWhatIsOver(t *testing.T, f *storedFormat) {
	r := f.open(t, with(func(c *config.Config) { c.Store.Retention = 9 }))
	want := r.left("/")
	r.now = f.At.AddDate(0, 0, 8) // the day of middle/app is ten days ago, that of what is newer eight
	r.proxy.Sweep(context.Background())
	with(func(c *config.Config) { c.Store.Retention = 30 })(r.rig)
	r.restart()
	for range 4 { // what is put aside goes on another day, and an original when what it lists has gone
		r.now = r.now.AddDate(0, 0, 2)
		r.proxy.Sweep(context.Background())
	}
	for path := range want {
		switch parts := strings.Split(path, "/"); {
		case parts[1] == "quarantine", parts[1] == "attestations" && (parts[2] == "old" || parts[2] == "middle"):
			delete(want, path)
		}
	}
	held := fmt.Sprintf("/attestations/%s/_unclaimed/", f.Held.Repository)
	if left := slices.Sorted(maps.Keys(r.left(held))); len(left) != 1+len(f.Held.Blobs) {
		t.Errorf("of the attestation that no index named, %v is kept", left)
	}
	got := r.left("/")
	maps.DeleteFunc(got, func(path, _ string) bool { return strings.HasPrefix(path, held) })
	for path, content := range want {
		if now, ok := got[path]; !ok {
			t.Errorf("%s was swept", path)
		} else if now != content {
			t.Errorf("%s has changed, from\n%s\nto\n%s", path, content, now)
		}
		delete(got, path)
	}
	for path := range got {
		t.Errorf("%s is still there", path)
	}
	for _, p := range f.Pushes {
		if p.Stays {
			p.readBack(r, p.Original)
			p.attested(r)
		}
	}
}
