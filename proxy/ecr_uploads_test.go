package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	godigest "github.com/opencontainers/go-digest"

	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
	"sluice/proxy/quarantine"
	"sluice/proxy/session"
)

// noise is content that nothing takes for a statement.
func noise(size int) []byte {
	b := make([]byte, size)
	x := uint32(size) | 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// A part is one request of an upload in several.
type part struct {
	size    int
	ranged  bool // with Content-Range
	unknown bool // of a length that is not said beforehand
	last    bool // on the PUT
}

// upload sends content in parts to one of several proxies after the other, and returns the answer that ends it.
func upload(t *testing.T, repo string, content []byte, parts []part, proxies ...*rig) *answer {
	t.Helper()
	n := 0
	next := func(method, location string, body io.Reader, length int64, header http.Header) *answer {
		t.Helper()
		n++
		req, err := http.NewRequest(method, proxies[n%len(proxies)].url()+location, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength, req.Header = length, header
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return &answer{resp, b}
	}
	location := next(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, 0, http.Header{}).want(t, http.StatusAccepted).Header.Get("Location")
	at := 0
	for _, p := range append(parts, part{last: true}) {
		chunk := content[at : at+p.size]
		header := http.Header{"Content-Type": {"application/octet-stream"}}
		if p.ranged {
			header.Set("Content-Range", fmt.Sprintf("%d-%d", at, at+p.size-1))
		}
		var body io.Reader = bytes.NewReader(chunk)
		length := int64(len(chunk))
		if p.unknown {
			body, length = io.MultiReader(body), -1
		}
		method := http.MethodPatch
		if p.last {
			method = http.MethodPut
			location += "?digest=" + godigest.FromBytes(content).String()
		}
		a := next(method, location, body, length, header)
		at += p.size
		if p.last || a.StatusCode != http.StatusAccepted {
			return a
		}
		location = a.Header.Get("Location")
		if want := fmt.Sprintf("0-%d", max(at-1, 0)); a.Header.Get("Range") != want {
			t.Errorf("Range %s after %d bytes, want %s", a.Header.Get("Range"), at, want)
		}
		if status := next(http.MethodGet, location, nil, 0, http.Header{}).want(t, http.StatusNoContent); status.Header.Get("Range") != a.Header.Get("Range") {
			t.Errorf("status says %s after %d bytes", status.Header.Get("Range"), at)
		}
	}
	return nil
}

func repeat(n int, p part) []part { return slices.Repeat([]part{p}, n) }

// ECR refuses an upload with a part under 5 MiB that is not its last. What a client sends in smaller chunks
// is gathered; what it streams in one is sent on as it comes.
func TestChunksReachECRInPartsThatItTakes(t *testing.T) {
	for _, c := range []struct {
		name  string
		parts []part
		sent  string // to ECR: the requests with their sizes
		keeps bool   // in the storage meanwhile
	}{
		{"chunks of 1 MiB", repeat(12, part{size: mib, ranged: true}), "PATCH 5 PATCH 5 PUT 2", true},
		{"chunks of 3 MiB, the last on the PUT", append(repeat(3, part{size: 3 * mib, ranged: true}), part{size: mib, ranged: true, last: true}), "PATCH 6 PUT 4", true},
		{"fewer than a part", repeat(3, part{size: mib, ranged: true}), "PUT 3", true},
		{"chunks that end with a part", repeat(2, part{size: 3 * mib, ranged: true}), "PATCH 6 PUT 0", true},
		{"small chunks of unknown length", repeat(7, part{size: 2 * mib, ranged: true, unknown: true}), "PATCH 6 PATCH 6 PUT 2", true},
		{"a large chunk of unknown length", []part{{size: 12 * mib, ranged: true, unknown: true}, {size: mib, ranged: true, unknown: true}}, "PATCH 12 PUT 1", true},
		{"a small chunk before a large one", []part{{size: mib, ranged: true}, {size: 6 * mib, ranged: true}, {size: mib, ranged: true}}, "PATCH 7 PUT 1", true},
		{"chunks that are large enough", repeat(2, part{size: 6 * mib, ranged: true}), "PATCH 6 PATCH 6 PUT 0", false},
		{"a small last chunk behind large ones, without Content-Range", []part{{size: 6 * mib}, {size: mib}}, "PATCH 6 PUT 1", true},
		{"one stream of known length, as skopeo's", []part{{size: mib}}, "PATCH 1 PUT 0", false},
		{"one stream of unknown length, as Docker 20.10's and crane's", []part{{size: mib, unknown: true}}, "PATCH 1 PUT 0", false},
		{"a long stream of unknown length", []part{{size: 11 * mib, unknown: true}}, "PATCH 11 PUT 0", false},
		{"one PUT, as BuildKit's", []part{{size: 2 * mib, last: true}}, "PUT 2", false},
	} {
		for name, change := range map[string]func(*ecrsim.Switches){
			"stale Range, absolute Location, 400": nil,
			"true Range, relative Location, cut": func(s *ecrsim.Switches) {
				s.TrueRange, s.RelativeLocation, s.SmallPartCuts, s.BadRange = true, true, true, http.StatusBadRequest
			},
		} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				calls := proxytest.NewFailingDriver(onDisk(t))
				r := newAWSRig(t, change, storage(calls))
				other := &awsRig{ecr: r.ecr, rec: r.rec, rig: newRig(t, r.upstream, with(ecrCredentials), storage(calls))} // I10
				size := 0
				for _, p := range c.parts {
					size += p.size
				}
				content := noise(size)
				before := calls.Calls()
				upload(t, "app", content, c.parts, r.rig, other.rig).want(t, http.StatusCreated)
				var sent []string
				for _, e := range r.rec.Exchanges() {
					if e.Method == http.MethodPatch || e.Method == http.MethodPut {
						sent = append(sent, fmt.Sprint(e.Method, " ", e.BodySize/mib))
					}
					if e.Method == http.MethodDelete || e.Method == http.MethodPost && e.BodySize > 0 {
						t.Errorf("%s %s with %d bytes reached ECR", e.Method, e.Path, e.BodySize)
					}
				}
				if got := strings.Join(sent, " "); got != c.sent {
					t.Errorf("ECR got %s, want %s", got, c.sent)
				}
				if kept := calls.Calls() > before; kept != c.keeps {
					t.Errorf("the storage was used: %v, want %v", kept, c.keeps)
				}
				r.tag(t, "app", "1", content)
				if !bytes.Equal(r.blob("app", godigest.FromBytes(content).String()), content) {
					t.Error("ECR holds other bytes")
				}
				if c.keeps {
					if left := files(t, calls, "_parts"); len(left) > 0 {
						t.Errorf("left in the storage: %v", left)
					}
				}
			})
		}
	}
}

// tag pushes an image with one layer, so that ECR lets it be read.
func (r *awsRig) tag(t *testing.T, repo, tag string, layer []byte) string {
	t.Helper()
	if r.request(http.MethodHead, "/v2/"+repo+"/blobs/"+godigest.FromBytes(layer).String(), nil).StatusCode != http.StatusOK {
		upload(t, repo, layer, []part{{size: len(layer), last: true}}, r.rig).want(t, http.StatusCreated)
	}
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	upload(t, repo, config, []part{{size: len(config), last: true}}, r.rig).want(t, http.StatusCreated)
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`,
		godigest.FromBytes(config), len(config), godigest.FromBytes(layer), len(layer))
	r.request(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, body, "Content-Type", "application/vnd.oci.image.manifest.v1+json").want(t, http.StatusCreated)
	return godigest.FromBytes(body).String()
}

// files are the paths of a storage that hold a word.
func files(t *testing.T, d storagedriver.StorageDriver, word string) []string {
	t.Helper()
	var found []string
	err := d.Walk(context.Background(), "/", func(f storagedriver.FileInfo) error {
		if !f.IsDir() && strings.Contains(f.Path(), word) {
			found = append(found, f.Path())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestASecondChunkBehindASmallOneThatWasSentOnIsRefusedWithWhatToDo(t *testing.T) {
	for name, parts := range map[string][]part{
		"in a PATCH":                    {{size: mib}, {size: mib}},
		"on the PUT":                    {{size: mib}, {size: mib, last: true}},
		"on the PUT, of unknown length": {{size: mib}, {size: mib, last: true, unknown: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newAWSRig(t, nil)
			a := upload(t, "app", noise(2*mib), parts, r.rig).want(t, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
			if !strings.Contains(string(a.body), "send Content-Range") {
				t.Errorf("body %s", a.body)
			}
		})
	}
	t.Run("an empty PUT of unknown length is no chunk", func(t *testing.T) {
		r := newAWSRig(t, nil)
		upload(t, "app", noise(mib), []part{{size: mib}, {last: true, unknown: true}}, r.rig).want(t, http.StatusCreated)
	})
}

// Pushes without attestations go on while the storage is down.
func TestASmallOnlyChunkGoesToECRWithoutStorage(t *testing.T) {
	disk := newFullDisk()
	r := newAWSRig(t, nil, storage(disk))
	disk.fill("/")
	upload(t, "app", noise(100<<10), []part{{size: 100 << 10, ranged: true}}, r.rig).want(t, http.StatusCreated)
	a := upload(t, "app", noise(200<<10), repeat(2, part{size: 100 << 10, ranged: true}), r.rig)
	a.want(t, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
}

func TestAnUploadToECRIsCancelledHereOnly(t *testing.T) {
	for _, ranged := range []bool{true, false} {
		for _, cancels := range []bool{true, false} {
			t.Run(fmt.Sprintf("ranged %v, ECR cancels %v", ranged, cancels), func(t *testing.T) {
				d := inmemory.New()
				r := newAWSRig(t, func(s *ecrsim.Switches) { s.CancelUploads = cancels }, storage(d))
				location := r.request("POST", "/v2/app/blobs/uploads/", nil).want(t, 202).Header.Get("Location")
				header := []string{}
				if ranged {
					header = []string{"Content-Range", "0-9999"}
				}
				location = r.request("PATCH", location, noise(10000), header...).want(t, 202).Header.Get("Location")
				r.request("DELETE", location, nil).want(t, 204)
				r.request("PATCH", location, noise(10000), "Content-Range", "10000-19999").want(t, 404, "BLOB_UPLOAD_UNKNOWN")
				if left := files(t, d, "_parts"); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				if n := len(r.sent("DELETE")); n != 0 {
					t.Errorf("%d DELETE reached ECR", n)
				}
			})
		}
	}
}

// A mount that ECR did not do opened a session; a blob that is then held leaves it alone.
func TestASessionOfARefusedMountIsNotCancelledOnECR(t *testing.T) {
	r := newAWSRig(t, nil)
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true})
	if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, MountFrom: "base"}); err != nil {
		t.Fatal(err)
	}
	r.proxy.Settle()
	if n := len(r.sent("DELETE")); n != 0 {
		t.Errorf("%d DELETE reached ECR", n)
	}
}

func TestAMonolithicPOSTBecomesASessionAndOnePUT(t *testing.T) {
	for _, takes := range []bool{true, false} {
		t.Run(fmt.Sprint("ECR takes it: ", takes), func(t *testing.T) {
			r := newAWSRig(t, func(s *ecrsim.Switches) { s.Monolithic = takes })
			content := noise(mib)
			r.request("POST", "/v2/app/blobs/uploads/?digest="+godigest.FromBytes(content).String(), content).want(t, http.StatusCreated)
			for _, e := range r.sent("POST") {
				if e.BodySize > 0 || e.Query.Has("digest") {
					t.Errorf("POST %v with %d bytes reached ECR", e.Query, e.BodySize)
				}
			}
			if puts := r.sent("PUT"); len(puts) != 1 || puts[0].BodySize != mib {
				t.Errorf("%d PUTs", len(puts))
			}
		})
	}
}

// An upload that comes in more chunks than can be kept is told so, and not that it ended early.
func TestAnUploadInTooManyChunksIsToldWhatIsWrong(t *testing.T) {
	r := newAWSRig(t, nil)
	at := func(mode session.Mode) string {
		token, err := r.proxy.Seal(session.State{
			Repository: "app", Identity: "anonymous", ID: "0123456789abcdef", Mode: mode, Offset: quarantine.MaxParts, Parts: quarantine.MaxParts,
			Pending: quarantine.MaxParts, Generation: time.Now().UTC().Format(time.DateOnly), Started: time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		return "/v2/app/blobs/uploads/" + token
	}
	for _, mode := range []session.Mode{session.Upstream, session.Held} {
		a := r.request(http.MethodPatch, at(mode), []byte("x"), "Content-Range", fmt.Sprintf("%d-%d", quarantine.MaxParts, quarantine.MaxParts)).want(t, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
		if !strings.Contains(string(a.body), "more chunks than the 100000") || !strings.Contains(string(a.body), "repository app") {
			t.Errorf("%v: %s", mode, a.body)
		}
	}
}
