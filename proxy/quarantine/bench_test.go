package quarantine

import (
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

func BenchmarkPutBlob(b *testing.B) {
	s := newStore(b, inmemory.New(), newClock())
	blob := content("statement", 10<<10)
	digest := sha(blob)
	b.ReportAllocs()
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		must(b, s.PutBlob(b.Context(), "team/app", digest, blob))
	}
}

func BenchmarkStatBlob(b *testing.B) {
	c := newClock()
	s := newStore(b, inmemory.New(), c)
	blob := content("statement", 10<<10)
	for name, prepare := range map[string]func(){
		"nowhere": func() {},
		"yesterday": func() {
			c.shift(-2)
			must(b, s.PutBlob(b.Context(), "team/app", sha(nil), nil))
			c.shift(1)
			must(b, s.PutBlob(b.Context(), "team/app", sha(blob), blob))
			c.shift(1)
		},
		"today": func() { must(b, s.PutBlob(b.Context(), "team/app", sha512d(blob), blob)) },
	} {
		b.Run(name, func(b *testing.B) {
			digest := map[string]string{"nowhere": sha([]byte("x")), "yesterday": sha(blob), "today": sha512d(blob)}[name]
			prepare()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.StatBlob(b.Context(), "team/app", digest); (err == nil) != (name != "nowhere") {
					b.Fatal(err)
				}
			}
		})
	}
}
