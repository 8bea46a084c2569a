package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

// build is a push of one image with one statement, as BuildKit makes it.
type build struct {
	image, attestation, index string // digests
	statement                 string
}

func pushBuild(t *testing.T, r *testRegistry) build {
	t.Helper()
	put := func(kind, mediaType, content string) string {
		t.Helper()
		digest := ocidoc.DigestOf([]byte(content))
		path := kind + "/" + digest
		if kind == "blobs" {
			if err := r.upload([]byte(content)); err != nil {
				t.Fatal(err)
			}
		} else if err := r.send("", "PUT", path, mediaType, []byte(content)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, len(content))
	}
	with := func(descriptor, more string) string { return strings.TrimSuffix(descriptor, "}") + "," + more + "}" }
	digestOf := func(descriptor string) string {
		var d struct{ Digest string }
		if err := json.Unmarshal([]byte(descriptor), &d); err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	statement, err := os.ReadFile(filepath.Join(wire, "0b24fc1136b6e538cc849f37ffa7c90e4f89fe4763ab7d497f8c50483f3a33ed"))
	if err != nil {
		t.Fatal(err)
	}

	config, layer := "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"
	manifest := func(config, layer string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocidoc.MediaTypeOCIManifest, config, layer)
	}
	image := put("manifests", ocidoc.MediaTypeOCIManifest, manifest(
		put("blobs", config, `{"architecture":"arm","variant":"v7","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`),
		put("blobs", layer, "\x1f\x8b a layer")))
	attestation := put("manifests", ocidoc.MediaTypeOCIManifest, manifest(
		put("blobs", config, `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`),
		with(put("blobs", "application/vnd.in-toto+json", string(statement)), `"annotations":{"in-toto.io/predicate-type":"https://spdx.dev/Document"}`)))
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s,%s]}`, ocidoc.MediaTypeOCIIndex,
		with(image, `"platform":{"architecture":"arm","variant":"v7","os":"linux"}`),
		with(attestation, `"platform":{"architecture":"unknown","os":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"`+digestOf(image)+`"}`))
	if err := r.send("", "PUT", "manifests/1", ocidoc.MediaTypeOCIIndex, []byte(index)); err != nil {
		t.Fatal(err)
	}
	return build{digestOf(image), digestOf(attestation), ocidoc.DigestOf([]byte(index)), string(statement)}
}

// sluice runs a command that is to succeed.
func sluice(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := execute(context.Background(), args, &out, &errs); code != 0 {
		t.Errorf("sluice %s: exit %d, %s", strings.Join(args, " "), code, errs.String())
	}
	return out.String()
}

// The commands against the real thing: a build with provenance is pushed through a
// running sluice, whose forwarded digest and stored statement are then read back.
func TestWhatWasTakenOutOfAPushIsReadBack(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	p := startServe(t)
	defer p.end(t)
	host := strings.TrimPrefix(p.url, "http://")
	b := pushBuild(t, &testRegistry{url: p.url})
	original := "@" + b.index
	want := host + "/app@" + b.image + "\n"
	for _, reference := range []string{":1", original} {
		if got := sluice(t, "resolve", host+"/app"+reference); got != want {
			t.Errorf("app%s resolves to %s, want %s", reference, got, want)
		}
		if got := sluice(t, "attestations", "show", host+"/app"+reference); got != b.statement+"\n" {
			t.Errorf("app%s shows %s, want the statement that was pushed", reference, got)
		}
	}
	list := sluice(t, "attestations", "list", host+"/app:1")
	if rows := strings.Count(list, "\n") - 1; rows != 1 || !strings.Contains(list, "linux/arm/v7") || !strings.Contains(list, "https://spdx.dev/Document") {
		t.Errorf("listed:\n%s", list)
	}
	if again := sluice(t, "attestations", "list", host+"/app"+original); again != list {
		t.Errorf("by the original's digest:\n%swant\n%s", again, list)
	}
	sluice(t, "attestations", "delete", host+"/app"+original, "--yes")
	for _, reference := range []string{":1", original} {
		if list := sluice(t, "attestations", "list", host+"/app"+reference, "--output", "json"); list != "[]\n" {
			t.Errorf("app%s after deleting: %s", reference, list)
		}
	}
	if got := sluice(t, "resolve", host+"/app:1"); got != want {
		t.Errorf("after deleting, app:1 resolves to %s, want %s", got, want)
	}
}
