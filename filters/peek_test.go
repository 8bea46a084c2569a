package filters

import (
	"strings"
	"testing"
)

func TestPeek(t *testing.T) {
	const s, e, c = `{"_type":"https://in-toto.io/`, `{"payloadType":"application/vnd.in-toto`, `{"architecture":"unknown","os":"unknown"`
	const b = `{"mediaType":"application/vnd.dev.sigstore.bundle`
	for _, tc := range []struct {
		name, prefix string
		final        bool
		want         Guess
	}{
		{"nothing yet", "", false, Undecided},
		{"nothing at all", "", true, Pass},
		{"a brace", "{", false, Undecided},
		{"a brace and the end", "{", true, Pass},
		{"empty object, perhaps more", "{}", false, Undecided},
		{"empty object", "{}", true, Empty},
		{"empty object and a newline", "{}\n", true, Pass},
		{"empty object and more", "{}\n", false, Pass},
		{"gzip", "\x1f\x8b", false, Pass},
		{"zstd", "\x28\xb5\x2f\xfd", false, Pass},
		{"tar of zeros", "\x00", false, Pass},
		{"a statement", s + `Statement/v0.1"`, false, Hold},
		{"a statement, just so many bytes", s, false, Hold},
		{"a statement, one byte less", s[:len(s)-1], false, Undecided},
		{"a statement cut off", s[:len(s)-1], true, Pass},
		{"an envelope", e + `+json"`, false, Hold},
		{"an envelope of something else", `{"payloadType":"application/vnd.example`, false, Pass},
		{"an attestation's config", c + `,"config":{}`, false, Hold},
		{"half an attestation's config", c[:20], false, Undecided},
		{"an image's config", `{"architecture":"amd64","os":"linux"`, false, Pass},
		{"an image's config, so far alike", `{"architecture":"`, false, Undecided},
		{"a sigstore bundle", b + `.v0.3+json","verificationMaterial":{`, false, Bundle},
		{"a sigstore bundle in the form of version 0.1", b + `+json;version=0.1"`, false, Bundle},
		{"a sigstore bundle, one byte less", b[:len(b)-1], false, Undecided},
		{"a sigstore bundle cut off", b[:len(b)-1], true, Pass},
		{"a manifest", `{"mediaType":"application/vnd.oci.image`, false, Pass},
		{"indented JSON", "{\n", false, Pass},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Peek([]byte(tc.prefix), tc.final); got != tc.want {
				t.Errorf("Peek(%q, %v) = %s, want %s", tc.prefix, tc.final, got, tc.want)
			}
		})
	}
	if PeekLen > 64 {
		t.Errorf("PeekLen is %d; the upload URL carries as many bytes", PeekLen)
	}
}

// checkPeek is what holds for every blob, however it is cut into chunks.
func checkPeek(t *testing.T, b []byte) {
	t.Helper()
	end := Peek(b, true)
	if end == Undecided {
		t.Fatalf("undecided about all of %q", b)
	}
	decided := Undecided
	for n := 0; n <= len(b) && n <= 2*PeekLen; n++ {
		got := Peek(b[:n], false)
		if got == Empty {
			t.Fatalf("%q cannot be known to be empty before its end", b[:n])
		}
		if n >= PeekLen && got == Undecided {
			t.Fatalf("undecided after %d bytes", n)
		}
		if decided != Undecided && got != decided {
			t.Fatalf("%s after %d bytes, %s before", got, n, decided)
		}
		decided = got
	}
	if decided != Undecided && decided != end {
		t.Fatalf("%s on the way, %s at the end", decided, end)
	}
}

func FuzzPeek(f *testing.F) {
	for _, s := range scenarios(f) {
		for _, b := range s.blobs {
			f.Add(b[:min(len(b), 2*PeekLen)])
		}
	}
	signs := held()
	for _, h := range append(signs[:], bundle) {
		f.Add([]byte(h))
		f.Add([]byte(strings.ToUpper(h)))
	}
	f.Fuzz(checkPeek)
}
