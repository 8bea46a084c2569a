package filters

import (
	"bufio"
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

// scenario is one folder of genuine documents.
type scenario struct {
	name  string
	root  *ocidoc.Document            // the first document of files.tsv
	docs  map[string]*ocidoc.Document // manifests and indexes by digest
	blobs map[string][]byte           // configs, statements and all others
	roles map[string]string           // files.tsv's last column by digest
}

func scenarios(t testing.TB) map[string]scenario {
	t.Helper()
	tables, err := filepath.Glob("testdata/wire/*/files.tsv")
	if err != nil || len(tables) == 0 {
		t.Fatalf("no wire documents: %v", err)
	}
	all := map[string]scenario{}
	for _, table := range tables {
		s := scenario{
			name: filepath.Base(filepath.Dir(table)),
			docs: map[string]*ocidoc.Document{}, blobs: map[string][]byte{}, roles: map[string]string{},
		}
		list, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
			f := strings.Split(lines.Text(), "\t")
			if len(f) != 4 {
				continue
			}
			b, err := os.ReadFile(filepath.Join(filepath.Dir(table), f[0]))
			if err != nil {
				t.Fatal(err)
			}
			digest := "sha256:" + f[0]
			s.roles[digest] = f[3]
			d, err := ocidoc.Parse(b, f[2])
			if err != nil {
				t.Fatalf("%s: %v", table, err)
			}
			if d.Kind == ocidoc.KindOther {
				s.blobs[digest] = b
				continue
			}
			s.docs[digest] = d
			if s.root == nil {
				s.root = d
			}
		}
		all[s.name] = s
	}
	return all
}

// needed returns the children that NeedsChild asks for, and no others.
func (s scenario) needed(t testing.TB, index *ocidoc.Document) map[string]*ocidoc.Document {
	t.Helper()
	children := map[string]*ocidoc.Document{}
	for _, e := range index.Manifests {
		if NeedsChild(index, e, storeAuto) {
			if children[e.Digest] = s.docs[e.Digest]; children[e.Digest] == nil {
				t.Fatalf("%s: no child %s", s.name, e.Digest)
			}
		}
	}
	return children
}

func digests(ds []ocidoc.Descriptor) []string {
	var all []string
	for _, d := range ds {
		all = append(all, d.Digest)
	}
	return all
}

func parse(t testing.TB, contentType, body string) *ocidoc.Document {
	t.Helper()
	d, err := ocidoc.Parse([]byte(body), contentType)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	return d
}

func sortedNames(all map[string]scenario) []string { return slices.Sorted(maps.Keys(all)) }
