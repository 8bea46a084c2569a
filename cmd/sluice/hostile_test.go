package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// scripted is a registry that answers each path with what a test wants.
func scripted(t *testing.T, answers map[string]http.HandlerFunc) *repository {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.RequestURI(), "/v2/app/")
		if answer, ok := answers[path]; ok {
			answer(w, r)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	repo, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/app")
	if err != nil {
		t.Fatal(err)
	}
	// Without openRepository, which would sign in first.
	toServer := roundTripper(func(r *http.Request) (*http.Response, error) {
		r.URL.Scheme = "http"
		return http.DefaultTransport.RoundTrip(r)
	})
	return &repository{name: repo, client: &http.Client{Transport: toServer}}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func document(mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		fmt.Fprint(w, body)
	}
}

const emptyManifest = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`

func entry(mediaType, digest, more string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1%s}`, mediaType, digest, more)
}

func index(entries ...string) string {
	return `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
}

func TestWhatARegistrySaysIsNotTakenOnTrust(t *testing.T) {
	image := ocidoc.DigestOf([]byte(emptyManifest))
	other := "sha256:" + strings.Repeat("0", 64)
	referrers := "referrers/" + image + "?artifactType=application%2Fvnd.docker.attestation.manifest.v1%2Bjson"
	oci, idx := ocidoc.MediaTypeOCIManifest, ocidoc.MediaTypeOCIIndex
	attestation := `,"artifactType":"` + filters.ArtifactTypeAttestation + `"`
	nested := ""
	answers := map[string]http.HandlerFunc{}
	for range maxNesting + 1 {
		body := index(entry(oci, image, ""))
		if nested != "" {
			body = index(entry(idx, nested, ""))
		}
		nested = ocidoc.DigestOf([]byte(body))
		answers["manifests/"+nested] = document(idx, body)
	}
	many := make([]string, maxManifests+1)
	for i := range many {
		many[i] = entry(oci, fmt.Sprintf("sha256:%064x", i), "")
	}
	for _, tt := range []struct {
		name, reference string
		answers         map[string]http.HandlerFunc
		want            string
	}{
		{
			"another document than the digest says", other,
			map[string]http.HandlerFunc{"manifests/" + other: document(oci, emptyManifest)},
			"what the registry sent has the digest " + image,
		},
		{"not a manifest", "1", map[string]http.HandlerFunc{"manifests/1": document(oci, `{"layers":[],"layers":[]}`)}, "invalid document"},
		{"a manifest without end", "1", map[string]http.HandlerFunc{"manifests/1": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", oci)
			for range 5 {
				fmt.Fprint(w, strings.Repeat(" ", 1<<20))
			}
		}}, "larger than 4194304 bytes"},
		{"an index of indexes without end", nested, answers, "nested more than 4 deep"},
		{"an index of very many manifests", "1", map[string]http.HandlerFunc{"manifests/1": document(idx, index(many...))}, "more than 1000 manifests"},
		{"a next page elsewhere", "1", map[string]http.HandlerFunc{
			"manifests/1": document(oci, emptyManifest),
			referrers: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", `<http://169.254.169.254/latest>; rel="next"`)
				document(idx, index())(w, r)
			},
		}, "next page is on another host, 169.254.169.254"},
		{"pages without end", "1", map[string]http.HandlerFunc{
			"manifests/1": document(oci, emptyManifest),
			referrers: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", `<`+r.URL.RequestURI()+`>; rel="next"`)
				document(idx, index())(w, r)
			},
		}, "more than 100 pages"},
		{"an attestation of something else", "1", map[string]http.HandlerFunc{
			"manifests/1":          document(oci, emptyManifest),
			referrers:              document(idx, index(entry(oci, image, attestation))),
			"manifests/" + image:   document(oci, emptyManifest),
			"manifests/irrelevant": nil,
		}, "is not about it"},
		{"an error that steers the terminal", "1", map[string]http.HandlerFunc{"manifests/1": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"\\u001b[2Jno\\nno\"}]}")
		}}, "DENIED: ?[2Jno; no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := scripted(t, tt.answers).statements(context.Background(), tt.reference)
			if err == nil || !strings.Contains(oneLine(err), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPagesAndOtherReferrers(t *testing.T) {
	image := ocidoc.DigestOf([]byte(emptyManifest))
	base := "referrers/" + image + "?artifactType=application%2Fvnd.docker.attestation.manifest.v1%2Bjson"
	att := func(i int) string {
		return entry(ocidoc.MediaTypeOCIManifest, fmt.Sprintf("sha256:%064d", i), `,"artifactType":"`+filters.ArtifactTypeAttestation+`"`)
	}
	signature := entry(ocidoc.MediaTypeOCIManifest, fmt.Sprintf("sha256:%064d", 9), `,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"`)
	paged := scripted(t, map[string]http.HandlerFunc{
		base: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `</v2/app/referrers/`+image+`?last=1>; rel="next"`)
			document(ocidoc.MediaTypeOCIIndex, index(att(1), signature))(w, r)
		},
		"referrers/" + image + "?last=1": document(ocidoc.MediaTypeOCIIndex, index(att(1), att(2))),
	})
	fallback := scripted(t, map[string]http.HandlerFunc{
		"manifests/" + strings.Replace(image, ":", "-", 1): document(ocidoc.MediaTypeOCIIndex, index(signature, att(3))),
	})
	for name, tt := range map[string]struct {
		repo *repository
		want string
	}{
		"pages are followed, others left out, none twice": {paged, "1 2"},
		"a registry without the API has a tag":            {fallback, "3"},
		"or nothing":                                      {scripted(t, nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			digests, err := tt.repo.attestations(context.Background(), image)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range digests {
				got = append(got, d[len(d)-1:])
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAWrongBlobLeavesNoFile(t *testing.T) {
	content := "{}"
	for name, tt := range map[string]struct {
		sent string
		size int64
		want string
	}{
		"other bytes":       {"[]", 2, "what the registry sent has the digest"},
		"fewer bytes":       {"{", 2, "what the registry sent has the digest"},
		"bytes without end": {strings.Repeat("x", 1<<20), 2, "is larger than the 2 bytes its manifest says"},
	} {
		t.Run(name, func(t *testing.T) {
			x := statement{Platform: "../../etc", PredicateType: "https://../../x", Statement: ocidoc.DigestOf([]byte(content)), Size: tt.size}
			repo := scripted(t, map[string]http.HandlerFunc{"blobs/" + x.Statement: document("application/octet-stream", tt.sent)})
			dir := filepath.Join(t.TempDir(), "out")
			err := exported{Statements: []exportedFile{{fileName(x), x}}}.write(context.Background(), repo, dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			files, err := os.ReadDir(dir)
			if err != nil || len(files) != 0 {
				t.Errorf("left behind: %v, %v", files, err)
			}
		})
	}
}

func TestFileNamesAreTame(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for want, s := range map[string]statement{
		"linux-arm-v7-slsa.dev-provenance-v0.2-abababababab.json": {Platform: "linux/arm/v7", PredicateType: "https://slsa.dev/provenance/v0.2", Statement: digest},
		"unknown-statement-abababababab.json":                     {Statement: digest},
		"etc-passwd-x-abababababab.json":                          {Platform: "../etc/passwd", PredicateType: "file:///..\x00X", Statement: digest},
	} {
		if got := fileName(s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestPlainHTTPStaysOnThisMachine(t *testing.T) {
	reached := roundTripper(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("reached") })
	for url, want := range map[string]string{
		"http://registry.example/v2/": errPlain.Error(), "http://10.0.0.1:5000/v2/": errPlain.Error(), "http://localhost.example/v2/": errPlain.Error(),
		"http://localhost:5000/v2/": "reached", "http://127.0.0.1/v2/": "reached", "http://[::1]:5000/v2/": "reached", "https://registry.example/v2/": "reached",
	} {
		r := httptest.NewRequest(http.MethodGet, url, nil)
		if _, err := (encrypted{reached, false}).RoundTrip(r); err.Error() != want {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
		if _, err := (encrypted{reached, true}).RoundTrip(r); err.Error() != "reached" {
			t.Errorf("%s with --insecure: %v", url, err)
		}
	}
	for image, want := range map[string]string{"localhost/app": "http", "localhost:5000/app": "http", "127.0.0.1:5000/app": "http", "registry.example/app": "https", "docker.io/app": "https"} {
		ref, err := parseImage(image, false)
		if err != nil || ref.Context().Scheme() != want {
			t.Errorf("%s: %v, %v", image, ref, err)
		}
	}
}

func TestAWebServerIsNoRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<html>\n<body>a page\n")
	}))
	defer server.Close()
	var out, errs lines
	code := execute(context.Background(), []string{"resolve", strings.TrimPrefix(server.URL, "http://") + "/app"}, &out, &errs)
	want := "HTTP status 404, but no error of a registry: is this the address of one?\n"
	if said := strings.Join(errs, ""); code != exitFailed || !strings.HasSuffix(said, want) || strings.Contains(said, "a page") {
		t.Errorf("exit %d, %s", code, said)
	}
}
