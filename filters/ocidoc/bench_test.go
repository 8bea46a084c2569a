package ocidoc

import (
	"encoding/json"
	"fmt"
	"testing"
)

func benchDocuments(b *testing.B) map[string][]byte {
	docs := map[string][]byte{}
	for _, w := range wireFiles(b) {
		if w.folder == "b-multi-max-sbom" && w.role == "index" {
			docs["4-entries"] = w.bytes
		}
	}
	all := hostile(MaxBytes)
	docs["4MiB-of-entries"] = all["entries"]
	docs["4MiB-of-names"] = all["names"]
	return docs
}

func BenchmarkParse(b *testing.B) {
	for name, body := range benchDocuments(b) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(body, MediaTypeOCIIndex); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/encoding-json", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := json.Unmarshal(body, new(loose)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRewrite(b *testing.B) {
	for name, body := range benchDocuments(b) {
		d, err := Parse(body, MediaTypeOCIIndex)
		if err != nil {
			b.Fatal(err)
		}
		var edits []Edit
		for i := range d.Manifests {
			if i%2 == 1 {
				edits = append(edits, Edit{Entry: i, Cut: true})
			}
		}
		b.Run(fmt.Sprintf("%s/cut-%d", name, len(edits)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Rewrite(edits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
