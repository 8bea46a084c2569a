package proxy

import (
	"testing"

	"github.com/distribution/reference"
	"pgregory.net/rapid"

	"sluice/proxy/internal/objects"
)

// The grammar by hand is distribution's.
func TestValidRepositoryIsTheGrammarOfDistribution(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9._/A\-]{0,12}|([a-z0-9]{1,3}(\.|_|__|-{1,3}|/)){0,4}[a-z0-9]{0,2}|[a]{254,257}|(a/){126,128}a?`).Draw(t, "name")
		named, err := reference.WithName("h.example/" + name)
		want := len(name) > 0 && len(name) <= objects.MaxRepository && err == nil && reference.Path(named) == name
		if got := validRepository(name); got != want {
			t.Fatalf("%q: %v, distribution says %v", name, got, want)
		}
	})
}
