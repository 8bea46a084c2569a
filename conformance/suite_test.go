package conformance

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func find(t *testing.T, path string) testCase {
	t.Helper()
	i := slices.IndexFunc(cases(), func(tc testCase) bool { return tc.path() == path })
	if i < 0 {
		t.Fatalf("there is no case %q", path)
	}
	return cases()[i]
}

func TestEveryCaseHasANameOfItsOwnUnderAHeading(t *testing.T) {
	seen := map[string]bool{}
	for _, tc := range cases() {
		if seen[tc.path()] {
			t.Errorf("two cases are called %q", tc.path())
		}
		seen[tc.path()] = true
		if tc.section == "" || tc.level == "" || strings.ContainsAny(tc.name, "/[\\") {
			t.Errorf("%q: a case needs a section, a level and a name that works as a pattern", tc.path())
		}
	}
}

// A case that no answer can fail tests nothing.
func TestNoCasePassesAgainstEveryConstantAnswer(t *testing.T) {
	passed := map[string]int{}
	constant := []struct {
		status int
		body   string
	}{
		{http.StatusOK, ""},
		{http.StatusBadRequest, ""},
		{http.StatusNotFound, ""},
		{http.StatusNotFound, `{"errors":[{"code":"MADE_UP"}]}`},
	}
	for _, k := range constant {
		target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(k.status)
			_, _ = io.WriteString(w, k.body)
		}))
		for _, tc := range cases() {
			if tc.try(t, target) == nil {
				passed[tc.path()]++
			}
		}
	}
	for path, n := range passed {
		if n == len(constant) {
			t.Errorf("%q passes whatever is answered", path)
		}
	}
}

// rewrite lets a registry's answers, read whole, be changed.
func rewrite(h http.Handler, change func(r *http.Request, rec *httptest.ResponseRecorder)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		change(r, rec)
		maps.Copy(w.Header(), rec.Header())
		if r.Method != http.MethodHead && rec.Code != http.StatusNoContent {
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		}
		w.WriteHeader(rec.Code)
		_, _ = io.Copy(w, rec.Body)
	})
}

func without(header string) func(*http.Request, *httptest.ResponseRecorder) {
	return func(_ *http.Request, rec *httptest.ResponseRecorder) { rec.Header().Del(header) }
}

func TestABrokenRegistryIsFound(t *testing.T) {
	answers := func(change func(*http.Request, *httptest.ResponseRecorder)) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler { return rewrite(h, change) }
	}
	requests := func(change func(r *http.Request)) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				change(r)
				h.ServeHTTP(w, r)
			})
		}
	}
	const chunks = "Push/Pushing a blob in chunks/"
	for _, tt := range []struct {
		name, found string // found: the case that finds it
		breaks      func(http.Handler) http.Handler
	}{
		{"no digest on answers", "Pull/Pulling manifests/Docker-Content-Digest is the digest of the manifest", answers(without("Docker-Content-Digest"))},
		{"parameters on Content-Type", "Pull/Pulling manifests/Content-Type has no parameters", answers(func(_ *http.Request, rec *httptest.ResponseRecorder) {
			rec.Header().Set("Content-Type", rec.Header().Get("Content-Type")+"; charset=utf-8")
		})},
		{
			"manifests that were marshalled anew", "Push/Pushing Manifests/an OCI index with unknown fields, odd spaces and a newline by tag is 201 and comes back as it is",
			answers(func(r *http.Request, rec *httptest.ResponseRecorder) {
				if r.Method == http.MethodGet {
					rec.Body = bytes.NewBuffer(bytes.TrimSpace(rec.Body.Bytes()))
				}
			}),
		},
		{"ranges are ignored", "Pull/Pulling blobs/Range: from the middle", requests(func(r *http.Request) { r.Header.Del("Range") })},
		{"chunk ranges are ignored", chunks + "out of order chunk is 416 (chunks of 10 bytes)", requests(func(r *http.Request) { r.Header.Del("Content-Range") })},
		{"no Range on chunks", chunks + "chunks of 10, 20 bytes and the rest add up", answers(without("Range"))},
		{"deleting does nothing", "Content Management/Deleting tags/is 202, and the tag is gone", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete {
					w.WriteHeader(http.StatusAccepted)
					return
				}
				h.ServeHTTP(w, r)
			})
		}},
		{"the empty JSON object is always there", "Content Management/Deleting Blobs/the empty JSON object is gone after 202", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, sha256Digest([]byte("{}"))) {
					return
				}
				h.ServeHTTP(w, r)
			})
		}},
		{"pages of referrers are not linked", "Content Discovery/Listing Referrers/pages, if there are, give every referrer once", answers(without("Link"))},
		{"pages of tags lead elsewhere", "Content Discovery/Listing Tags/pages of 3 give every tag once", answers(func(_ *http.Request, rec *httptest.ResponseRecorder) {
			if rec.Header().Get("Link") != "" {
				rec.Header().Set("Link", `</v2/another/tags/list?last=c>; rel="next"`)
			}
		})},
		{"no OCI-Subject", "Push/Pushing Manifests/Pushing Manifests with Subject/an image by tag is answered with OCI-Subject", answers(without("OCI-Subject"))},
		{"no OCI-Subject, and the list is the registry's", "Backwards Compatibility/Unavailable Referrers API/the API is 404, or every push of a subject is answered with OCI-Subject", answers(without("OCI-Subject"))},
		{"filters that are not named", "Content Discovery/Listing Referrers/a list is filtered exactly when OCI-Filters-Applied says so", answers(without("OCI-Filters-Applied"))},
		{"a warning in a form of its own", "API/Determining Support/GET of its base is 200", answers(func(_ *http.Request, rec *httptest.ResponseRecorder) {
			rec.Header().Set("Warning", `199 sluice "text"`)
		})},
		{"error bodies in a form of their own", "Pull/Pulling blobs/a blob that is not there is 404", answers(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if rec.Code == http.StatusNotFound {
				rec.Body = bytes.NewBufferString(`{"error":"not found"}`)
			}
		})},
		{"HEAD without a length", "Pull/Checking if content exists in the registry/HEAD of a manifest is 200 with its digest and size", answers(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if r.Method == http.MethodHead {
				rec.Header().Del("Content-Length")
			}
		})},
		{"the query of an upload is dropped", "Push/Pushing a blob monolithically/Single POST/is 201 at once", requests(func(r *http.Request) {
			if r.Method == http.MethodPost {
				r.URL.RawQuery = ""
			}
		})},
		{"mounting is an error", "Push/Mounting a blob from another repository/is 201 with the URL of the blob, or 202 with a session", answers(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if r.URL.Query().Has("mount") {
				rec.Code = http.StatusNotFound
			}
		})},
		{"chunks may be short, says nobody", chunks + "chunks of 10, 20 bytes and the rest add up", func(h http.Handler) http.Handler {
			return rewrite(newLongChunks(h, 1000), without("OCI-Chunk-Min-Length"))
		}},
		{"digests are not checked", "Push/Pushing blobs/gzip by POST and PUT is checked against the digest", requests(func(r *http.Request) {
			if q := r.URL.Query(); r.Method == http.MethodPut && q.Has("digest") {
				b, _ := io.ReadAll(r.Body)
				q.Set("digest", sha256Digest(b))
				r.Body, r.URL.RawQuery = io.NopCloser(bytes.NewReader(b)), q.Encode()
			}
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tc := find(t, tt.found)
			if err := tc.try(t, olaregTarget(t)); err != nil {
				t.Fatalf("%s: fails before anything is broken: %v", tc.path(), err)
			}
			err := tc.try(t, serve(t, tt.breaks(newOlareg(t))))
			if err == nil {
				t.Fatalf("%s: passes", tc.path())
			}
			t.Log(err)
		})
	}
}

func TestAProfileCannotOutliveItsReasons(t *testing.T) {
	p := Profile{"Pull/Pulling blobs/Range: *": "has no ranges"}
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		r    Result
		bad  bool
	}{
		{"listed and failing is known", Result{"Pull/Pulling blobs/Range: to the end", Should, broken}, false},
		{"listed and passing is an error", Result{"Pull/Pulling blobs/Range: to the end", Should, nil}, true},
		{"not listed and failing is an error", Result{"Pull/Pulling blobs/a blob", Must, broken}, true},
		{"not listed and passing is fine", Result{"Pull/Pulling blobs/a blob", Must, nil}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.judge(tt.r); got.bad != tt.bad {
				t.Errorf("got %+v, want bad %t", got, tt.bad)
			}
		})
	}
}

func TestAProxyMayFailOnlyWhatFailsWithoutIt(t *testing.T) {
	broken := errors.New("broken")
	listed := Profile{"section/case": "on purpose"}
	for _, tt := range []struct {
		name        string
		via         Profile
		direct, got error
		bad         bool
	}{
		{"both pass", nil, nil, nil, false},
		{"both fail", nil, broken, broken, false},
		{"only the proxy passes", nil, broken, nil, false},
		{"only the proxy fails", nil, nil, broken, true},
		{"only the proxy fails, on purpose", listed, nil, broken, false},
		{"the proxy passes what it fails on purpose", listed, nil, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.via.judgeBoth(Result{"section/case", Must, tt.direct}, Result{"section/case", Must, tt.got})
			if got.bad != tt.bad {
				t.Errorf("got %+v, want bad %t", got, tt.bad)
			}
		})
	}
}

// A plain reverse proxy changes nothing: Compare has nothing to say, and says it about every case.
func TestComparingARegistryWithItself(t *testing.T) {
	target := olaregTarget(t)
	u, err := url.Parse(target.URL)
	if err != nil {
		t.Fatal(err)
	}
	results := Compare(t, target, serve(t, httputil.NewSingleHostReverseProxy(u)))
	if len(results) != 2 || len(results[0]) != len(cases()) || len(results[1]) != len(cases()) {
		t.Errorf("not two results for each of %d cases", len(cases()))
	}
}
