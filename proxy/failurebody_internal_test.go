package proxy

import (
	"encoding/json"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Clients were written against distribution's bytes.
func TestAFailureIsWrittenAsDistributionWritesIt(t *testing.T) {
	for _, f := range []*Failure{
		{Code: codeBlobUnknown, Message: "sha256:abc is not in team/app"},
		{Code: codeManifestUnknown},
		{Code: "NOT_OF_THE_SPEC", Message: "a code that nobody has"},
		{Code: codeDenied, Message: "<&> \" \\ \n \x00 \u2028 \xff é 😀"},
		{},
	} {
		want, err := json.Marshal(errcode.Errors{errcode.Error{Code: errorCode(f.Code), Message: f.Message}})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.body(); string(got) != string(want) {
			t.Errorf("%s: got %s, distribution writes %s", f.Code, got, want)
		}
	}
}

// Two allocations, distribution's way takes eight.
func BenchmarkFailure(b *testing.B) {
	f := &Failure{Code: codeBlobUnknown, Message: "sha256:abc is not in team/app"}
	b.ReportAllocs()
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			f.body()
		}
	})
	b.Run("errcode", func(b *testing.B) {
		for b.Loop() {
			_, _ = json.Marshal(errcode.Errors{errcode.Error{Code: errorCode(f.Code), Message: f.Message}})
		}
	})
}
