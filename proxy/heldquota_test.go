package proxy

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What no index names costs until the storage says that its generation has gone, whatever the clock says.
func TestWhatNoIndexClaimsCountsUntilItIsSwept(t *testing.T) {
	l := newHeldLedger()
	hold := func(id, generation string, n int64, want bool) {
		t.Helper()
		r := l.reserve("a", 100)
		defer r.drop()
		if r.grow(n) != want {
			t.Errorf("%d bytes are held: %t, want %t", n, !want, want)
		} else if want {
			r.hold(heldBlobOf("app", id), generation, n)
		}
	}
	full := func(identity string, n int64, want bool) {
		t.Helper()
		if got := l.full(identity, n, 100); got != want {
			t.Errorf("%s with %d more is full: %t, want %t", identity, n, got, want)
		}
	}
	full("a", 100, false)
	full("a", 101, true)
	full("a", -1, false) // a length that is not known
	hold("1", "2026-11-26", 60, true)
	hold("2", "2026-11-27", 41, false)
	hold("2", "2026-11-27", 30, true)
	hold("2", "2026-11-27", 30, false) // there is no room for both, and which one is written last is not known before
	full("a", 10, false)
	full("a", 11, true)
	full("b", 100, false)
	l.release(heldBlobOf("app", "3"))
	l.release(heldBlobOf("other", "2"))
	l.release(heldManifestOf("app", "2"))
	full("a", 11, true)
	l.release(heldBlobOf("app", "2"))
	l.release(heldBlobOf("app", "2"))
	full("a", 40, false)
	full("a", 41, true)
	l.copied(heldBlobOf("app", "1"), "2026-11-28")
	full("a", 0, true) // two copies
	l.swept(func(g string) bool { return g != "2026-11-26" })
	full("a", 40, false)
	full("a", 41, true)
	l.swept(func(string) bool { return false })
	full("a", 100, false)
	if n := len(l.holders) + len(l.charges) + len(l.generations); n > 0 {
		t.Errorf("%d are remembered of nobody who holds anything", n)
	}
}

// Whatever happens in whatever order, an identity pays for the bytes that are there and for nothing else, and never for
// more than its limit.
func TestTheChargeIsWhatIsHeld(t *testing.T) {
	const limit = 300
	rapid.Check(t, func(t *rapid.T) {
		l := newHeldLedger()
		type at struct {
			thing      heldThing
			generation string
		}
		type cost struct {
			identity string
			bytes    int64
		}
		held := map[at]cost{}
		var open []*reservation // in the order in which they began: what is drawn must not depend on anything else
		total := func(identity string) (n int64) {
			for _, c := range held {
				if c.identity == identity {
					n += c.bytes
				}
			}
			for _, r := range open {
				if r.holder.identity == identity {
					n += r.bytes
				}
			}
			return n
		}
		thing := rapid.Custom(func(t *rapid.T) heldThing {
			if rapid.Bool().Draw(t, "part") {
				return heldPart("app", "upload", rapid.IntRange(0, 3).Draw(t, "number"))
			}
			return heldThing{rapid.SampledFrom([]string{"blob", "manifest"}).Draw(t, "kind"), "app", rapid.SampledFrom([]string{"1", "2"}).Draw(t, "digest")}
		})
		identity := rapid.SampledFrom([]string{"a", "b"})
		generation := rapid.SampledFrom([]string{"2026-11-26", "2026-11-27", "2026-11-28"})
		drop := func(match func(at) bool) { maps.DeleteFunc(held, func(a at, _ cost) bool { return match(a) }) }
		pick := func(t *rapid.T) *reservation {
			if len(open) == 0 {
				t.Skip("nothing is being written: rapid draws another action")
			}
			return rapid.SampledFrom(open).Draw(t, "reservation")
		}
		end := func(ended *reservation) {
			open = slices.DeleteFunc(open, func(r *reservation) bool { return r == ended })
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) { open = append(open, l.reserve(identity.Draw(t, "identity"), limit)) },
			"more": func(t *rapid.T) {
				r, n := pick(t), rapid.Int64Range(0, 100).Draw(t, "bytes")
				fits := n == 0 || total(r.holder.identity)+n <= limit // copies may be more than the limit, and nothing more is no more
				if got := r.grow(n); got != fits {
					t.Fatalf("%d more for %s, who holds %d: %t", n, r.holder.identity, total(r.holder.identity), got)
				}
			},
			"hold": func(t *rapid.T) {
				r, a := pick(t), at{thing.Draw(t, "thing"), generation.Draw(t, "generation")}
				held[a] = cost{r.holder.identity, r.bytes}
				end(r)
				r.hold(a.thing, a.generation, r.bytes)
				r.drop() // as handlers do, deferred
			},
			"drop": func(t *rapid.T) { r := pick(t); end(r); r.drop() },
			"release": func(t *rapid.T) {
				th := thing.Draw(t, "thing")
				drop(func(a at) bool { return a.thing == th })
				l.release(th)
			},
			"cancel": func(*rapid.T) {
				// Those that are there from the first on: parts have no gaps.
				for n := 0; ; n++ {
					before := len(held)
					drop(func(a at) bool { return a.thing == heldPart("app", "upload", n) })
					if n >= 2 && len(held) == before {
						break
					}
				}
				l.releaseParts("app", "upload", 2)
			},
			"assemble": func(t *rapid.T) {
				drop(func(a at) bool { return a.thing.kind == "part" })
				who, g := identity.Draw(t, "identity"), generation.Draw(t, "generation")
				n := rapid.Int64Range(0, 100).Draw(t, "bytes")
				blob := heldBlobOf("app", "1")
				held[at{blob, g}] = cost{who, n}
				l.releaseParts("app", "upload", 4)
				l.reserve(who, limit).hold(blob, g, n)
			},
			"copy": func(t *rapid.T) {
				th, g := thing.Draw(t, "thing"), generation.Draw(t, "generation")
				var of []cost
				for a, c := range held {
					if a.thing == th && a.generation != g {
						of = append(of, c)
					}
				}
				if _, there := held[at{th, g}]; !there && len(of) > 1 && of[0] != of[1] {
					t.Skip("whose copy it is does not matter")
				}
				if _, there := held[at{th, g}]; !there && len(of) > 0 {
					held[at{th, g}] = of[0]
				}
				l.copied(th, g)
			},
			"sweep": func(t *rapid.T) {
				gone := generation.Draw(t, "generation")
				drop(func(a at) bool { return a.generation == gone })
				l.swept(func(g string) bool { return g != gone })
			},
			"": func(t *rapid.T) {
				for _, who := range []string{"a", "b"} {
					var got int64
					if h := l.holders[who]; h != nil {
						got = h.total
					}
					if got != total(who) {
						t.Fatalf("%s pays for %d bytes and holds %d: %v", who, got, total(who), held)
					}
				}
				if len(l.charges) != len(held) {
					t.Fatalf("%d charges for %d things", len(l.charges), len(held))
				}
			},
		})
	})
}

// The bookkeeping is bounded, whoever pushes what, and what no longer fits in it costs its holder more, not less.
func TestTheBookkeepingOfWhatIsHeldIsBounded(t *testing.T) {
	const limit = 1 << 40
	l := newHeldLedger()
	l.most = 64
	hold := func(identity, id string) {
		r := l.reserve(identity, limit)
		defer r.drop()
		r.grow(10)
		r.hold(heldBlobOf("app", id), "2026-11-26", 10)
	}
	hold("alice", "a")
	for i := range 1000 {
		hold("mallory", fmt.Sprint(i))
		if len(l.charges) > l.most {
			t.Fatalf("%d things are remembered, the bound is %d", len(l.charges), l.most)
		}
	}
	for i := range 1000 {
		l.release(heldBlobOf("app", fmt.Sprint(i)))
	}
	if got := l.holders["mallory"].total; got == 0 || got > 10_000 {
		t.Errorf("whoever filled the bookkeeping pays for %d bytes, want what no longer fitted", got)
	}
	l.release(heldBlobOf("app", "a"))
	if h := l.holders["alice"]; h != nil {
		t.Errorf("another one pays for it: %d bytes", h.total)
	}
	l.swept(func(string) bool { return false })
	if len(l.holders) > 0 {
		t.Errorf("after the sweep %d still pay", len(l.holders))
	}

	l = newHeldLedger()
	big := l.reserve("big", limit)
	big.grow(1000)
	big.hold(heldBlobOf("app", "big"), "2026-11-26", 1000)
	for i := range maxHolders + 10 {
		hold(fmt.Sprint(i), fmt.Sprint(i))
	}
	if n := len(l.holders); n > maxHolders {
		t.Errorf("%d identities are remembered", n)
	}
	if l.holders["big"] == nil {
		t.Error("the identity that holds most was forgotten")
	}
}
