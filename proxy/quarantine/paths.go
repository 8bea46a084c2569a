package quarantine

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sluice/proxy/internal/objects"
)

const (
	quarantineRoot = "quarantine"
	aliasRoot      = "aliases"
	keyRoot        = "keys"
)

// kind is the folder below a repository.
type kind string

const (
	blobKind     kind = "_blobs"
	manifestKind kind = "_manifests"
	originalKind kind = "_originals"
	partKind     kind = "_parts"
	stagingKind  kind = "_staging"
	referrerKind kind = "_referrers"
	aboutKind    kind = "_about"
	aliasKind    kind = "_aliases"
	tagKind      kind = "_tags"
)

func (k kind) noun() string {
	switch k {
	case blobKind:
		return "blob"
	case manifestKind:
		return "manifest"
	case originalKind:
		return "original"
	}
	return strings.TrimPrefix(string(k), "_")
}

var uploadGrammar = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)

func validGeneration(name string) bool {
	t, err := time.Parse(dayFormat, name)
	return err == nil && t.Format(dayFormat) == name
}

func below(root, repo string, k kind, rest string) string {
	return "/" + root + "/" + repo + "/" + string(k) + "/" + rest
}

// object is a content-addressed thing in the quarantine, whatever its generation.
type object struct {
	repo, digest string
	kind         kind
	tail         string
}

func newObject(repo string, k kind, digest string) (object, error) {
	tail, err := objects.Tail(repo, digest)
	if err != nil {
		return object{}, err
	}
	return object{repo: repo, digest: digest, kind: k, tail: tail}, nil
}

func (o object) String() string {
	return o.kind.noun() + " " + o.digest + " of repository " + o.repo
}

// unanswered says what was asked for in vain, at little cost where it is not there.
func (o object) unanswered(doing string, err error) error {
	if err == ErrNotFound { //nolint:errorlint // wrapped it has more to say
		return &objects.Missing{Doing: doing, What: o.kind.noun(), Digest: o.digest, Repository: o.repo, Err: err}
	}
	return fmt.Errorf("%s %s: %w", doing, o, err)
}

func (o object) in(generation string) string {
	return "/" + quarantineRoot + "/" + generation + "/" + o.repo + "/" + string(o.kind) + "/" + o.tail
}

// parseHeld is the way back from a path in the quarantine. False for parts, staging,
// records of referrers, notes of what is about what, and what a driver left behind.
func parseHeld(path string) (generation string, o object, ok bool) {
	rest, ok := strings.CutPrefix(path, "/"+quarantineRoot+"/")
	if !ok {
		return "", object{}, false
	}
	generation, rest, _ = strings.Cut(rest, "/")
	repo, rest, ok := strings.Cut(rest, "/_") // the first component with an underscore ends the name
	if !ok || !validGeneration(generation) {
		return "", object{}, false
	}
	name, tail, _ := strings.Cut(rest, "/")
	k := kind("_" + name)
	if k != blobKind && k != manifestKind && k != originalKind {
		return "", object{}, false
	}
	digest, ok := objects.DigestOfTail(tail)
	if !ok {
		return "", object{}, false
	}
	o, err := newObject(repo, k, digest)
	return generation, o, err == nil
}

// uploadPath is the folder with the parts of one upload.
func uploadPath(generation, repo, id string) (string, error) {
	if err := objects.CheckRepository(repo); err != nil {
		return "", err
	}
	if !validGeneration(generation) {
		return "", fmt.Errorf("%w generation %q of an upload to repository %s", ErrInvalid, objects.Shortened(generation), repo)
	}
	if !uploadGrammar.MatchString(id) {
		return "", fmt.Errorf("%w upload id %q in repository %s", ErrInvalid, objects.Shortened(id), repo)
	}
	return below(quarantineRoot+"/"+generation, repo, partKind, id), nil
}

func partPath(upload string, n int) string { return upload + "/" + strconv.Itoa(n) }

// stagingPath is a fresh name: two writers of the same thing do not write into one file. What a crash leaves there goes
// with its generation.
func stagingPath(generation, repo string) string {
	return below(quarantineRoot+"/"+generation, repo, stagingKind, rand.Text())
}
