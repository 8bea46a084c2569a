package proxytest

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Transcript records both sides of a proxy and shows them beside each other.
type Transcript struct {
	Client   *Recorder // put it in front of the proxy: Client.Handler, or Client.Transport in the pusher
	Upstream *Recorder // put it in front of the registry, or into the proxy's transport
	// Background tells which upstream requests belong to no client request: they are shown at the end, sorted.
	// NewTranscript sets it to the cancelling of sessions, which is fire and forget.
	Background func(Exchange) bool
}

// NewTranscript makes two recorders that know the trees' names and share a clock.
func NewTranscript(trees ...*Tree) *Transcript {
	t := &Transcript{Client: NewRecorder(trees...), Upstream: NewRecorder(trees...)}
	t.Upstream.clock = t.Client.clock
	t.Background = func(e Exchange) bool {
		return e.Method == http.MethodDelete && strings.Contains(e.Path, "/blobs/uploads/")
	}
	return t
}

// Reset forgets both sides' exchanges.
func (t *Transcript) Reset() {
	t.Client.Reset()
	t.Upstream.Reset()
}

// Name adds names to both sides.
func (t *Transcript) Name(names map[string]string) {
	t.Client.Name(names)
	t.Upstream.Name(names)
}

// Text is the golden text: a line for each client request, and to the right of it, sorted, the upstream requests that began
// while it was the last one begun; below it more upstream requests of the same. With a sequential pusher it is stable.
//
//	client side                      | upstream side
//	HEAD /v2/app/blobs/layer-1 404   | HEAD /v2/app/blobs/layer-1 404
//	POST /v2/app/blobs/uploads/ 202  |
func (t *Transcript) Text() string {
	client, upstream := t.Client.Exchanges(), t.Upstream.Exchanges()
	rows := make([][]string, len(client)+1) // of upstream lines; 0: before the first client request
	var background []string
	for _, e := range upstream {
		if t.Background != nil && t.Background(e) {
			background = append(background, t.Upstream.Line(e))
			continue
		}
		i := 0
		for i < len(client) && client[i].began < e.began {
			i++
		}
		rows[i] = append(rows[i], t.Upstream.Line(e))
	}
	left := []string{"client side"}
	for _, e := range client {
		left = append(left, t.Client.Line(e))
	}
	width := 0
	for _, l := range left {
		width = max(width, utf8.RuneCountInString(l))
	}
	var b strings.Builder
	row := func(l, r string) {
		line := l + strings.Repeat(" ", width-utf8.RuneCountInString(l)) + " | " + r
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	row(left[0], "upstream side")
	for i, l := range left {
		slices.Sort(rows[i])
		if i > 0 {
			if len(rows[i]) == 0 {
				row(l, "")
				continue
			}
			row(l, rows[i][0])
			rows[i] = rows[i][1:]
		}
		for _, u := range rows[i] {
			row("", u)
		}
	}
	if len(background) > 0 {
		slices.Sort(background)
		row("in the background", background[0])
		for _, u := range background[1:] {
			row("", u)
		}
	}
	fmt.Fprintf(&b, "%d requests | %d requests\n", len(client), len(upstream))
	return b.String()
}

// AssertNotSent fails the test if a recorder in front of a registry saw content of the tree's attestations: statements,
// their configurations (but not the empty one), attestation manifests, or the beginning of any (I2: "not a byte of it"). The recorder must not have seen cosign's attestations: a DSSE envelope
// is one by its beginning.
func AssertNotSent(t testing.TB, upstream *Recorder, trees ...*Tree) {
	t.Helper()
	forbidden := map[string]string{}
	var starts []*Blob
	for _, tree := range trees {
		for _, m := range tree.Attestations() {
			for _, b := range append(m.Blobs(), &m.Blob) {
				if b.Size > 2 && b.content != nil {
					forbidden[b.Digest] = b.Name
					starts = append(starts, b)
				}
			}
		}
	}
	for _, e := range upstream.Exchanges() {
		name := forbidden[e.BodyDigest]
		if name == "" && e.BodySize > 0 {
			name = attestationStart(e.BodyStart)
		}
		for _, b := range starts {
			if n := min(len(e.BodyStart), len(b.content)); name == "" && n >= 200 && bytes.Equal(e.BodyStart[:n], b.content[:n]) {
				name = b.Name + " (or what begins like it)"
			}
		}
		if name != "" {
			t.Errorf("upstream was sent %s (I2): %s", name, upstream.Line(e))
		}
	}
}

// update rewrites golden files: go test ./... -update. A test package that imports this one must not define it again.
var update = flag.Bool("update", false, "write golden files anew instead of comparing with them")

// Golden compares text with testdata/<name>, which -update writes.
func Golden(t testing.TB, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", filepath.FromSlash(name))
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run the test with -update to write it, then read it", err)
	}
	if diff := firstDifference(string(want), got); diff != "" {
		t.Errorf("%s differs (go test -run '%s' -update writes it anew):\n%s", file, t.Name(), diff)
	}
}

// firstDifference shows the first line that differs with its surroundings, "" if none does.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < max(len(w), len(g)); i++ {
		a, b := "<end>", "<end>"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s\n\nall of it:\n%s", i+1, a, b, got)
		}
	}
	return ""
}
