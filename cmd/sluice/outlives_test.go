package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// Registries expire images, and whoever then asks what a running container was built from has its image's digest.
func TestTheAttestationsOfADeletedImageAreFoundByItsDigest(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	p := startServe(t)
	defer p.end(t)
	app := strings.TrimPrefix(p.url, "http://") + "/app"
	b := pushBuild(t, &testRegistry{url: p.url})
	req, err := http.NewRequest(http.MethodDelete, p.url+"/v2/app/manifests/"+b.image, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("the image is not deleted: %s", resp.Status)
	}
	image := app + "@" + b.image
	if got := sluice(t, "attestations", "show", image); got != b.statement+"\n" {
		t.Errorf("shows %s, want the statement that was pushed", got)
	}
	if list := sluice(t, "attestations", "list", image); !strings.Contains(list, "https://spdx.dev/Document") {
		t.Errorf("lists:\n%s", list)
	}
	sluice(t, "attestations", "export", image, "--dir", t.TempDir())
	nobody := app + "@sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"list", app + ":1"}, "MANIFEST_UNKNOWN"}, // deleted with its image
		{[]string{"list", nobody}, "MANIFEST_UNKNOWN"},
		{[]string{"delete", image, "--yes"}, "nothing was deleted"},
	} {
		var out, errs bytes.Buffer
		if code := execute(t.Context(), append([]string{"attestations"}, c.args...), &out, &errs); code != exitFailed || !strings.Contains(errs.String(), c.want) {
			t.Errorf("sluice attestations %s: exit %d, %s%s, want %s", strings.Join(c.args, " "), code, out.String(), errs.String(), c.want)
		}
	}
}
