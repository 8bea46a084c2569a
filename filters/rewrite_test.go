package filters

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

// Digests of documents in testdata/wire.
const (
	imageAMD64 = "sha256:8e6de99f755bea676edff8586876bd328ce8df054f7166a7ec16265b3da58d64"
	imageARM64 = "sha256:6ba0b3d6131c1fce0a74587c15df031fc71a57ec97c123b7bf0603199d14c70d"
	innerIndex = "sha256:d8bfafa5024838909fc6669cf8bcd2e28523999f9abfc958a77a6703cf5898f2"
)

var (
	storeAuto = Policy{Attestations: Store, Unwrap: UnwrapAuto}
	stripAuto = Policy{Attestations: Strip, Unwrap: UnwrapAuto}
)

// withoutAttestations is the index that the same build pushes with
// --provenance=false --sbom=false and OCI media types. c-multi-noprov was
// captured with Docker media types, and is otherwise that document.
func withoutAttestations(t testing.TB, all map[string]scenario) string {
	t.Helper()
	const dockerAMD64 = "sha256:9d0582c7c7e7a1b407b8fb57f71e5b8baa4ccbabb9dd4d2f4aff27acf1e12804"
	const dockerARM64 = "sha256:a080dde6d1a7621067007ac501ac9a8235abb460d63cb50a06f7a79bb56771f3"
	return strings.NewReplacer(
		ocidoc.MediaTypeDockerList, ocidoc.MediaTypeOCIIndex,
		ocidoc.MediaTypeDockerManifest, ocidoc.MediaTypeOCIManifest,
		dockerAMD64, imageAMD64, dockerARM64, imageARM64, `"size": 890`, `"size": 856`,
	).Replace(string(all["c-multi-noprov"].root.Bytes))
}

func mustRewrite(t testing.TB, index *ocidoc.Document, children map[string]*ocidoc.Document, inner map[string]Inner, p Policy) *Plan {
	t.Helper()
	plan, err := Rewrite(index, children, inner, p)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestTheRewriteOfGenuineIndexes(t *testing.T) {
	all := scenarios(t)
	clean := withoutAttestations(t, all)
	compact := func(s string) string {
		// buildah writes the same documents without white space
		return strings.NewReplacer("\n", "", " ", "").Replace(s)
	}
	for _, tc := range []struct {
		scenario, digest string // digest "" = the root
		want             string // bytes; "" = unchanged
		unwrapped        string
		taken            []string // subjects
	}{
		{"a-multi-min", "", clean, "", []string{imageAMD64, imageARM64}},
		{"b-multi-max-sbom", "", clean, "", []string{imageAMD64, imageARM64}},
		{"b-multi-max-slsa-v0.2", "", clean, "", []string{imageAMD64, imageARM64}},
		{"d-oci-artifact", "", clean, "", []string{imageAMD64, imageARM64}},
		{"k-nested-index", innerIndex, clean, "", []string{imageAMD64, imageARM64}},
		{"k-buildah", "", compact(clean), "", []string{"", ""}},
		{"c-single-min", "", "", imageAMD64, []string{imageAMD64}},
		{"c-single-sbom-only", "", "", imageAMD64, []string{imageAMD64}},
		{"f-matrix", "", "", imageAMD64, []string{imageAMD64}},
		{"f-matrix", "sha256:2f752c9ef9561db6337d52af503eb5cb88fc48c340b6720a49f5fba27cd7cc6d", "", imageARM64, []string{imageARM64}},
		{"i-zstd", "", "", "sha256:70288b7c12e4f2768d87762e786deb47f1a426af61dbe96c45a8813051f8b84f", []string{"sha256:70288b7c12e4f2768d87762e786deb47f1a426af61dbe96c45a8813051f8b84f"}},
		{"m-docker-engine", "", "", "sha256:13c03e915f5cda344bd459f8cafb98e315fc64d666c13e45103b67f8e6d2a879", []string{"sha256:13c03e915f5cda344bd459f8cafb98e315fc64d666c13e45103b67f8e6d2a879"}},
		{"c-multi-noprov", "", "", "", nil},
		{"c-single-noprov", "", "", "", nil},
		{"h-cache-docker-list", "", "", "", nil},
		{"h-cache-oci-index", "", "", "", nil},
		{"h-cache-image-manifest", "", "", "", nil},
		{"l-cosign2", "", "", "", nil},
		{"l-cosign3", "", "", "", nil},
		{"k-nested-index", "", "", "", nil}, // when its inner index was not rewritten
	} {
		t.Run(tc.scenario+tc.digest, func(t *testing.T) {
			s := all[tc.scenario]
			index := s.root
			if tc.digest != "" {
				index = s.docs[tc.digest]
			}
			for _, p := range []Policy{storeAuto, stripAuto} {
				plan := mustRewrite(t, index, s.needed(t, index), nil, p)
				changed := tc.want != "" || tc.unwrapped != ""
				if plan.Changed != changed || plan.Empty {
					t.Fatalf("changed %v, empty %v, want changed %v", plan.Changed, plan.Empty, changed)
				}
				var subjects []string
				for _, x := range plan.Taken {
					subjects = append(subjects, x.Subject)
					if x.Verdict.Action != p.Attestations || x.Manifest != s.docs[x.Entry.Digest] {
						t.Errorf("taken %+v", x)
					}
				}
				if !slices.Equal(subjects, tc.taken) {
					t.Errorf("taken: about %v, want %v", subjects, tc.taken)
				}
				switch {
				case tc.unwrapped != "":
					if u := plan.Unwrapped; u == nil || u.Digest != tc.unwrapped || plan.Bytes != nil || plan.MediaType != ocidoc.MediaTypeOCIManifest {
						t.Errorf("unwrapped %+v as %s with %d bytes, want %s", u, plan.MediaType, len(plan.Bytes), tc.unwrapped)
					}
				case tc.want != "":
					if string(plan.Bytes) != tc.want || plan.MediaType != index.ContentType || plan.Unwrapped != nil {
						t.Errorf("got %s\n%s\nwant\n%s", plan.MediaType, plan.Bytes, tc.want)
					}
				default:
					if &plan.Bytes[0] != &index.Bytes[0] || plan.MediaType != index.ContentType || len(plan.Kept) != len(index.Manifests) {
						t.Errorf("not the very document received: %s, %d entries", plan.MediaType, len(plan.Kept))
					}
				}

				forward := mustRewrite(t, index, nil, nil, Policy{Attestations: Forward, Unwrap: UnwrapAlways})
				if forward.Changed || len(forward.Taken) > 0 {
					t.Errorf("under forward: %+v", forward)
				}
			}
		})
	}
}

func TestAnAnnotatedIndexKeepsItsAnnotations(t *testing.T) {
	s := scenarios(t)["a-multi-annotated"]
	plan := mustRewrite(t, s.root, s.needed(t, s.root), nil, storeAuto)
	var index struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(s.root.Bytes, &index); err != nil {
		t.Fatal(err)
	}
	index.Manifests = index.Manifests[:2]
	want, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if string(plan.Bytes) != string(want) || plan.Unwrapped != nil {
		t.Errorf("got\n%s\nwant\n%s", plan.Bytes, want)
	}
}

func TestTheCombinedIndexOfAMatrixBuildLosesItsAttestations(t *testing.T) {
	all := scenarios(t)
	s := all["f-matrix"]
	index := s.docs["sha256:d928cdac5d6032a57ff3f94df86916d55e4a1e99a3e812039da8b58be3f13de5"]
	plan := mustRewrite(t, index, s.needed(t, index), nil, storeAuto)
	if string(plan.Bytes) != withoutAttestations(t, all) {
		t.Errorf("got\n%s", plan.Bytes)
	}
}

func TestANestedIndexIsListedAsWhatItWasForwardedAs(t *testing.T) {
	s := scenarios(t)["k-nested-index"]
	outer, inner := s.root, s.docs[innerIndex]
	forwarded := mustRewrite(t, inner, s.needed(t, inner), nil, storeAuto)
	digest := ocidoc.DigestOf(forwarded.Bytes)
	in := map[string]Inner{innerIndex: {MediaType: forwarded.MediaType, Digest: digest, Size: int64(len(forwarded.Bytes))}}
	for _, p := range []Policy{storeAuto, {Attestations: Forward, Unwrap: UnwrapAlways}} {
		plan := mustRewrite(t, outer, nil, in, p)
		want := strings.NewReplacer(innerIndex, digest, `"size":1607`, `"size":683`).Replace(string(outer.Bytes))
		// BuildKit's cut index has the size of c-multi-noprov's but for the media types
		want = strings.Replace(want, `"size":683`, `"size":`+jsonNumber(len(forwarded.Bytes)), 1)
		if string(plan.Bytes) != want || !plan.Changed || plan.Unwrapped != nil || len(plan.Taken) != 0 {
			t.Errorf("got\n%s\nwant\n%s", plan.Bytes, want)
		}
		if got := digests(plan.Kept); !slices.Equal(got, []string{digest}) || plan.Kept[0].Size != int64(len(forwarded.Bytes)) {
			t.Errorf("kept %+v", plan.Kept)
		}
	}

	t.Run("an image in its place", func(t *testing.T) {
		plan := mustRewrite(t, outer, nil, map[string]Inner{innerIndex: {MediaType: ocidoc.MediaTypeOCIManifest, Digest: imageAMD64, Size: 856}}, storeAuto)
		if plan.Unwrapped != nil || plan.Kept[0].MediaType != ocidoc.MediaTypeOCIManifest || !strings.Contains(string(plan.Bytes), imageAMD64) {
			t.Errorf("an index nothing was cut from: %+v\n%s", plan, plan.Bytes)
		}
	})
	t.Run("unchanged", func(t *testing.T) {
		plan := mustRewrite(t, outer, nil, map[string]Inner{innerIndex: {MediaType: ocidoc.MediaTypeOCIIndex, Digest: innerIndex, Size: 1607}}, storeAuto)
		if plan.Changed || &plan.Bytes[0] != &outer.Bytes[0] {
			t.Errorf("rewritten to itself: %+v", plan)
		}
	})
	t.Run("nothing in its place", func(t *testing.T) {
		plan := mustRewrite(t, outer, nil, map[string]Inner{innerIndex: {}}, storeAuto)
		if !plan.Empty || !plan.Changed || plan.Bytes != nil || plan.MediaType != "" || len(plan.Kept)+len(plan.Taken) != 0 {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("nothing in its place, beside an image", func(t *testing.T) {
		both := parse(t, ocidoc.MediaTypeOCIIndex, `{"manifests":[`+entry(ocidoc.MediaTypeOCIIndex, innerIndex, "")+`,`+entry(ocidoc.MediaTypeOCIManifest, imageAMD64, linuxPlatform)+`]}`)
		plan := mustRewrite(t, both, nil, map[string]Inner{innerIndex: {}}, storeAuto)
		if plan.Unwrapped == nil || plan.Unwrapped.Digest != imageAMD64 {
			t.Errorf("what a build without attestations sends is the image: %+v", plan)
		}
	})
	for name, bad := range map[string]Inner{
		"a bad digest": {MediaType: ocidoc.MediaTypeOCIIndex, Digest: "x", Size: 1},
		"no size":      {MediaType: ocidoc.MediaTypeOCIIndex, Digest: digestA},
		"a layer type": {MediaType: tarLayer, Digest: digestA, Size: 1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Rewrite(outer, nil, map[string]Inner{innerIndex: bad}, storeAuto); err == nil || !strings.Contains(err.Error(), innerIndex) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func jsonNumber(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// entry writes an index entry.
func entry(mediaType, digest, more string) string {
	return `{"mediaType":"` + mediaType + `","digest":"` + digest + `","size":1` + more + `}`
}

const (
	linuxPlatform   = `,"platform":{"os":"linux","architecture":"amd64"}`
	unknownPlatform = `,"platform":{"os":"unknown","architecture":"unknown"}`
)

func TestUnwrap(t *testing.T) {
	oci := ocidoc.MediaTypeOCIManifest
	att := parse(t, oci, manifest("", imageConfig, "", inToto))
	image := parse(t, oci, manifest("", imageConfig, "", tarLayer))
	chart := parse(t, oci, manifest("", "application/vnd.cncf.helm.config.v1+json", "", tarLayer))
	referrer := parse(t, oci, manifest("", imageConfig, subjectA, tarLayer))
	artifact := parse(t, oci, manifest(`"artifactType":"text/x",`, imageConfig, "", tarLayer))
	bare := parse(t, oci, `{"layers":[]}`)
	attEntry := entry(oci, digestB, unknownPlatform)
	for _, tc := range []struct {
		name         string
		kept         string
		child        *ocidoc.Document // of digestC, if it is read
		tail         string
		auto, always bool
	}{
		{"an image", entry(oci, digestC, linuxPlatform), nil, "", true, true},
		{"a Docker image", entry(ocidoc.MediaTypeDockerManifest, digestC, linuxPlatform), nil, "", true, true},
		{"an image with annotations on its entry", entry(oci, digestC, linuxPlatform+`,"annotations":{"a":"b"}`), nil, "", true, true},
		{"an image without platform", entry(oci, digestC, ""), image, "", true, true},
		{"an index with empty annotations", entry(oci, digestC, linuxPlatform), nil, `,"annotations":{}`, true, true},
		{"an index with annotations", entry(oci, digestC, linuxPlatform), nil, `,"annotations":{"a":"b"}`, false, true},
		{"an index with a subject", entry(oci, digestC, linuxPlatform), nil, subjectA, false, true},
		{"an index with an artifactType", entry(oci, digestC, linuxPlatform), nil, `,"artifactType":"application/x"`, false, true},
		{"two images", entry(oci, digestC, linuxPlatform) + `,` + entry(oci, digestA, linuxPlatform), nil, "", false, false},
		{"an artifact by its entry", entry(oci, digestC, `,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"`), nil, "", false, false},
		{"an artifact by its config", entry(oci, digestC, ""), chart, "", false, false},
		{"a referrer", entry(oci, digestC, ""), referrer, "", false, false},
		{"an artifact by its type", entry(oci, digestC, ""), artifact, "", false, false},
		{"a manifest without a config", entry(oci, digestC, ""), bare, "", false, false},
		{"an image whose entry has its config's type", entry(oci, digestC, `,"artifactType":"`+imageConfig+`"`), image, "", true, true},
		{"a blob", entry(tarLayer, digestC, ""), nil, "", false, false},
		{"a nested index", entry(ocidoc.MediaTypeOCIIndex, digestC, ""), parse(t, ocidoc.MediaTypeOCIIndex, `{"manifests":[]}`), "", false, false},
		// Whether a manifest that nobody had to read is at hand must not matter (I3).
		{"an image, though what is at hand is a chart", entry(oci, digestC, linuxPlatform), chart, "", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			index := parse(t, ocidoc.MediaTypeOCIIndex, `{"manifests":[`+tc.kept+`,`+attEntry+`]`+tc.tail+`}`)
			children := map[string]*ocidoc.Document{digestB: att}
			if tc.child != nil {
				children[digestC] = tc.child
			}
			for u, want := range map[Unwrap]bool{UnwrapAuto: tc.auto, UnwrapAlways: tc.always, UnwrapNever: false} {
				plan := mustRewrite(t, index, children, nil, Policy{Attestations: Strip, Unwrap: u})
				if got := plan.Unwrapped != nil; got != want || !plan.Changed || len(plan.Taken) != 1 {
					t.Errorf("%s: unwrapped %v, want %v", u, got, want)
				}
				if plan.Unwrapped != nil && plan.MediaType != plan.Unwrapped.MediaType {
					t.Errorf("%s: type %s of %+v", u, plan.MediaType, plan.Unwrapped)
				}
			}
			alone := parse(t, ocidoc.MediaTypeOCIIndex, `{"manifests":[`+tc.kept+`]`+tc.tail+`}`)
			if plan := mustRewrite(t, alone, children, nil, Policy{Attestations: Strip, Unwrap: UnwrapAlways}); plan.Changed {
				t.Error("an index that nothing was cut from was rewritten")
			}
		})
	}
}

func TestRewriteJudgesTheManifestNotTheEntry(t *testing.T) {
	oci := ocidoc.MediaTypeOCIManifest
	att := parse(t, oci, manifest("", imageConfig, "", inToto))
	image := parse(t, oci, manifest("", imageConfig, "", tarLayer))
	labelled := `,"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"` + digestA + `"}`
	index := func(entries ...string) *ocidoc.Document {
		return parse(t, ocidoc.MediaTypeOCIIndex, `{"manifests":[`+strings.Join(entries, ",")+`]}`)
	}
	other := entry(oci, digestA, linuxPlatform)

	t.Run("a mislabelled image is kept", func(t *testing.T) {
		plan := mustRewrite(t, index(other, entry(oci, digestB, unknownPlatform+labelled)), map[string]*ocidoc.Document{digestB: image}, nil, stripAuto)
		if plan.Changed {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("an attestation under a real platform is cut when it is at hand", func(t *testing.T) {
		plan := mustRewrite(t, index(other, entry(oci, digestB, linuxPlatform)), map[string]*ocidoc.Document{digestB: att}, nil, stripAuto)
		if len(plan.Taken) != 1 || plan.Unwrapped == nil {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("a blob is never cut", func(t *testing.T) {
		plan := mustRewrite(t, index(other, entry(inToto, digestB, unknownPlatform+labelled)), map[string]*ocidoc.Document{digestB: att}, nil, stripAuto)
		if plan.Changed {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("a missing child is an error that names it, and nothing is decided", func(t *testing.T) {
		plan, err := Rewrite(index(other, entry(oci, digestB, unknownPlatform)), nil, nil, stripAuto)
		if plan != nil || !errors.Is(err, ErrMissingChild) || !strings.Contains(err.Error(), digestB) {
			t.Errorf("%+v, %v", plan, err)
		}
	})
	t.Run("the subject of an artifact tells what it is about when the entry does not", func(t *testing.T) {
		artifact := parse(t, oci, manifest(`"artifactType":"application/vnd.docker.attestation.manifest.v1+json",`, emptyConfig, subjectA, inToto))
		plan := mustRewrite(t, index(other, entry(oci, digestB, unknownPlatform)), map[string]*ocidoc.Document{digestB: artifact}, nil, stripAuto)
		if len(plan.Taken) != 1 || plan.Taken[0].Subject != digestA {
			t.Errorf("%+v", plan.Taken)
		}
	})
	t.Run("an annotation that is no digest is not believed", func(t *testing.T) {
		if got := SubjectOf(ocidoc.Descriptor{Annotations: map[string]string{AnnotationReferenceDigest: "../x"}}, nil); got != "" {
			t.Errorf("about %q", got)
		}
	})
	t.Run("an index of only attestations is empty", func(t *testing.T) {
		plan := mustRewrite(t, index(entry(oci, digestB, unknownPlatform), entry(oci, digestC, unknownPlatform)),
			map[string]*ocidoc.Document{digestB: att, digestC: att}, nil, storeAuto)
		if !plan.Empty || len(plan.Taken) != 2 || plan.Bytes != nil || len(plan.Kept) != 0 {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("an index that was empty before is forwarded", func(t *testing.T) {
		if plan := mustRewrite(t, index(), nil, nil, storeAuto); plan.Changed || plan.Empty {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("the same attestation listed twice is cut twice", func(t *testing.T) {
		e := entry(oci, digestB, unknownPlatform)
		plan := mustRewrite(t, index(e, other, e, entry(oci, digestC, linuxPlatform)), map[string]*ocidoc.Document{digestB: att}, nil, storeAuto)
		if want := []string{digestA, digestC}; len(plan.Taken) != 2 || !slices.Equal(digests(plan.Kept), want) {
			t.Errorf("%+v", plan)
		}
	})
	t.Run("a policy that says nothing is refused", func(t *testing.T) {
		for _, p := range []Policy{{}, {Attestations: Strip}, {Unwrap: UnwrapAuto}, {Attestations: "remove", Unwrap: UnwrapAuto}} {
			if _, err := Rewrite(index(), nil, nil, p); err == nil {
				t.Errorf("%+v was accepted", p)
			}
		}
	})
	t.Run("what is no index is returned as it is", func(t *testing.T) {
		if plan := mustRewrite(t, image, nil, nil, storeAuto); plan.Changed || &plan.Bytes[0] != &image.Bytes[0] {
			t.Errorf("%+v", plan)
		}
	})
}

func TestARewriteIsDeterministicAndARewrittenIndexNeedsNoOther(t *testing.T) {
	all := scenarios(t)
	for _, name := range sortedNames(all) {
		s := all[name]
		for _, d := range s.docs {
			if d.Kind != ocidoc.KindIndex {
				continue
			}
			for _, u := range []Unwrap{UnwrapAuto, UnwrapNever} {
				p := Policy{Attestations: Store, Unwrap: u}
				first := mustRewrite(t, d, s.needed(t, d), nil, p)
				if second := mustRewrite(t, d, s.docs, nil, p); string(first.Bytes) != string(second.Bytes) {
					t.Errorf("%s: other bytes when more manifests are at hand", name)
				}
				if first.Bytes == nil {
					continue
				}
				again := parse(t, first.MediaType, string(first.Bytes))
				if !slices.Equal(digests(again.Manifests), digests(first.Kept)) {
					t.Errorf("%s: lists %v, want %v", name, digests(again.Manifests), digests(first.Kept))
				}
				if plan := mustRewrite(t, again, s.docs, nil, p); plan.Changed {
					t.Errorf("%s: rewritten twice", name)
				}
			}
		}
	}
}
