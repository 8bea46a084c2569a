package config

import (
	"reflect"
	"testing"
)

// allKeys are the paths of every key, with list elements left out except those of
// the default upstream.
func allKeys() (keys []string) {
	var walk func(t reflect.Type, at string)
	walk = func(t reflect.Type, at string) {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch at { // config.yml sets one driver; it explains the others in a comment, see TestTheExplainedDriversAreWhole
		case "storage.inmemory", "storage.s3", "storage.gcs", "storage.azure":
			return
		}
		if at != "" {
			keys = append(keys, at)
		}
		switch {
		case t == reflect.TypeFor[[]Upstream]():
			walk(t.Elem(), at+"[0]")
		case t.Kind() == reflect.Struct:
			for _, key := range keysOf(t) {
				field, _ := fieldOf(reflect.New(t).Elem(), key)
				path := key
				if at != "" {
					path = at + "." + key
				}
				walk(field.Type(), path)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	return keys
}

func TestMistypedKeysFindTheirNeighbour(t *testing.T) {
	known := keysOf(reflect.TypeFor[Config]())
	for word, want := range map[string]string{
		"attestation":     "attestations",
		"upstream":        "upstreams",
		"signedOriginals": "signed_originals",
		"max-held-blob":   "max_held_blob",
		"retnetion":       "retention",
		"colour":          "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}
