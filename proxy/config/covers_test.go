package config

import (
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"
)

// What is called dead must be dead: check-config refuses it.
func TestARuleIsCalledDeadOnlyIfNothingIsLeftForIt(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "b", "-", "*", "**", "?", "/", "/**", "**/", "[ab]", "[^a]", "{a,b}", "{a,*/b}", "a*"})
	pattern := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(piece, 1, 5).Draw(t, "pieces"), "")
	})
	name := rapid.StringMatching(`[abc-]{1,3}(/[abc-]{1,2}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		wide, narrow := pattern.Draw(t, "wide"), pattern.Draw(t, "narrow")
		v := &validator{Config: Default()}
		if !v.glob("wide", wide, true) || !v.glob("narrow", narrow, true) || !covers(wide, narrow) {
			return
		}
		for range 20 {
			n := name.Draw(t, "name")
			if doublestar.MatchUnvalidated(narrow, n) && !doublestar.MatchUnvalidated(wide, n) {
				t.Fatalf("%q was said to cover %q, but leaves %q", wide, narrow, n)
			}
		}
	})
}
