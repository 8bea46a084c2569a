package ocidoc

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wireFile is one genuine document and what it was sent as.
type wireFile struct {
	folder, digest, mediaType, role string
	bytes                           []byte
}

// wireFiles reads every genuine document, statements and configs included.
func wireFiles(t testing.TB) []wireFile {
	t.Helper()
	tables, err := filepath.Glob("../testdata/wire/*/files.tsv")
	if err != nil || len(tables) == 0 {
		t.Fatalf("no wire documents: %v", err)
	}
	var all []wireFile
	for _, table := range tables {
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			f := strings.Split(lines.Text(), "\t")
			if len(f) != 4 {
				continue
			}
			w := wireFile{folder: filepath.Base(filepath.Dir(table)), digest: "sha256:" + f[0], mediaType: f[2], role: f[3]}
			if w.bytes, err = os.ReadFile(filepath.Join(filepath.Dir(table), f[0])); err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
		}
	}
	return all
}

func TestGenuineDocumentsAreTheBytesTheyWereCapturedAs(t *testing.T) {
	for _, w := range wireFiles(t) {
		if got := DigestOf(w.bytes); got != w.digest {
			t.Errorf("%s/%s has digest %s; did something change line endings?", w.folder, w.digest, got)
		}
	}
}
