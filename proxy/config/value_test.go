package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "1B": 1, "2KB": 2000, "2KiB": 2048, "128MiB": 128 << 20, "1 GiB": 1 << 30, "3GB": 3e9,
		"": -1, "MiB": -1, "-1": -1, "1.5MiB": -1, "128Mi": -1, "128m": -1, "9223372036854775807KiB": -1, "1TiB": -1, "0x10": -1,
	} {
		var s Size
		err := s.UnmarshalText([]byte(text))
		if (err != nil) != (want == -1) || err == nil && s != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
	}
	for s, want := range map[Size]string{0: "0B", 1023: "1023B", 2048: "2KiB", 128 << 20: "128MiB", 1 << 30: "1GiB"} {
		if s.String() != want {
			t.Errorf("%d prints as %s, want %s", int64(s), s, want)
		}
	}
}

func TestDays(t *testing.T) {
	for text, want := range map[string]Days{"1d": 1, "30d": 30, "forever": Forever, "0d": -1, "-1d": -1, "2": -1, "48h": -1, "1.5d": -1, "d": -1, "99999999d": -1} {
		var d Days
		err := d.UnmarshalText([]byte(text))
		if (err != nil) != (want == -1) || err == nil && d != want {
			t.Errorf("%q: %d, %v; want %d", text, d, err, want)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := Default()
	c.SealKeys = []Secret{"hunter2"}
	c.Upstreams[0].Password = "hunter2"
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", c.SealKeys[0])
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", c.Upstreams)
	}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	out.Write(y)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "c", c, "s", c.SealKeys[0])
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "c", c, "s", c.SealKeys[0])
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%s printed in:\n%s", leak, out.String())
		}
	}
	if n := strings.Count(out.String(), hidden); n < 7 {
		t.Errorf("%s printed %d times only", hidden, n)
	}
	if c.SealKeys[0].Reveal() != "hunter2" {
		t.Error("Reveal does not reveal")
	}
}

func TestSealKeysAreBase64OrHex(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16)
	for _, text := range []string{
		strings.Repeat("fbff", 16), strings.Repeat("FBFF", 16),
		base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw) + "\n",
	} {
		k, err := Secret(text).key()
		if err != nil || !bytes.Equal(k, raw) {
			t.Errorf("%s: %x, %v", text, k, err)
		}
	}
	for _, text := range []string{"", "secret", strings.Repeat("ab", 31), strings.Repeat("AAAA", 12)} {
		if _, err := Secret(text).key(); err == nil {
			t.Errorf("%q was taken for a key", text)
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q is in its own error: %v", text, err)
		}
	}
}
