package proxy_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// One client cannot fill the storage with what nobody will ever ask for, and who finishes is not hindered.
func TestAnIdentityHoldsOnlySoMuchThatNoIndexClaims(t *testing.T) {
	mode := htpasswdTenancy(t)
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), append(mode.settings, with(func(c *config.Config) {
		c.MaxHeldBlob, c.Access.MaxHeldPerIdentity = 64<<10, 128<<10
	}))...)
	as := func(user, method, path string, body []byte) *answer {
		t.Helper()
		return r.request(method, path, body, mode.as(user, method, path)...)
	}
	hold := func(user, marker string, n int, chunked bool) *answer {
		t.Helper()
		repo := "/v2/" + user + "/app/blobs/uploads/"
		body := []byte(`{"_type":"https://in-toto.io/Statement/v1","x":"` + marker + strings.Repeat("x", n) + `"}`)
		location := as(user, http.MethodPost, repo, nil).want(t, http.StatusAccepted).Header.Get("Location")
		if chunked {
			return as(user, http.MethodPatch, location, body)
		}
		return as(user, http.MethodPut, location+"?digest="+ocidoc.DigestOf(body), body)
	}
	// Those who finish may go on for good.
	var pushed int64
	for i := 0; pushed < 160<<10; i++ {
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Build: i, SBOM: true})
		o := proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Client: &http.Client{Transport: signed{mode, "alice"}}}
		if _, err := proxytest.BuildKit(t.Context(), o); err != nil {
			t.Fatalf("push %d, after %d bytes: %v", i, pushed, err)
		}
		for _, b := range tree.Statements() {
			pushed += b.Size
		}
		if i == 100 {
			break
		}
	}
	for i, want := range []int{201, 202, 201, 202, 403, 403} {
		a := hold("mallory", string(rune('a'+i)), 28<<10, want == 202)
		if a.StatusCode != want {
			t.Fatalf("upload %d: %s, want %d: %s", i, a.Status, want, a.body)
		}
		if want == 403 && !strings.Contains(string(a.body), "access.max_held_per_identity") {
			t.Errorf("the answer does not name the setting: %s", a.body)
		}
	}
	if a := hold("alice", "z", 28<<10, false); a.StatusCode != 201 {
		t.Errorf("alice pays for mallory: %s", a.Status)
	}
	// Layers are not held, and go on.
	layer := []byte("\x1f\x8b layer")
	location := as("mallory", http.MethodPost, "/v2/mallory/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	as("mallory", http.MethodPut, location+"?digest="+ocidoc.DigestOf(layer), layer).want(t, http.StatusCreated)
}

// Who asks before sending hears at once that there is no room for one more piece, and sends none of it.
func TestAPieceForWhichThereIsNoRoomIsNotAskedFor(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.Access.MaxHeldPerIdentity = 64 << 10 }))
	location := r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	first := []byte(`{"_type":"https://in-toto.io/Statement/v1","x":"` + strings.Repeat("x", 1<<10))
	location = r.request(http.MethodPatch, location, first).want(t, http.StatusAccepted).Header.Get("Location")
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", location, 64<<10)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 403") {
		t.Errorf("the answer is %q (%v), want 403", line, err)
	}
}

// What an identity holds stops no artifact without attestations: the empty config is known without being held.
func TestAnArtifactIsPushedByWhoHoldsAllThatHeMay(t *testing.T) {
	const limit = 1000
	h := newHolding(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), heldLimit(64<<10, limit))
	if status := h.blob(statementOf(1, limit-len(statementOf(1, 0)))); status != http.StatusCreated {
		t.Fatalf("a statement as large as the limit: %d", status)
	}
	if status := h.blob(statementOf(2, 0)); status != http.StatusForbidden {
		t.Fatalf("one more: %d, so nothing is shown", status)
	}
	if status := h.blob([]byte("{}")); status != http.StatusCreated {
		t.Errorf("the empty config: %d", status)
	}
	h.chargeIsRight("with the empty config")
	h.request(http.MethodPut, "/v2/app/manifests/1", noteOfNothing, "Content-Type", ociManifest).want(t, http.StatusCreated)
	proxytest.AssertComplete(t, h.upstream)
}
