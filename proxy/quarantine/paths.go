package quarantine

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
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

var (
	// distribution-spec 1.1, "Pulling manifests": <name> and <reference>. The driver refuses a path component with any
	// other character than these, and none of these names can be ".." or start with an underscore or a dot, but a tag
	// can start with an underscore, which is why it never stands where a repository's component may stand.
	repositoryGrammar = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	uploadGrammar     = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
)

// maxRepository is the limit that the spec says many clients have, host name included. A file name may have 255 bytes.
const maxRepository = 255

func checkRepository(repo string) error {
	if len(repo) > maxRepository || !repositoryGrammar.MatchString(repo) {
		return fmt.Errorf("%w repository name %q", ErrInvalid, shortened(repo))
	}
	return nil
}

func checkTag(tag string) error {
	if !tagGrammar.MatchString(tag) {
		return fmt.Errorf("%w tag %q", ErrInvalid, shortened(tag))
	}
	return nil
}

// splitDigest checks a digest. The driver's paths do not allow the colon.
func splitDigest(digest string) (algorithm, hex string, err error) {
	algorithm, hex, _ = strings.Cut(digest, ":")
	var want int
	switch algorithm {
	case "sha256":
		want = 64
	case "sha512":
		want = 128
	default:
		return "", "", fmt.Errorf("%w digest %q: only sha256 and sha512 are known", ErrInvalid, shortened(digest))
	}
	if len(hex) != want || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", "", fmt.Errorf("%w digest %q: %s has %d lower case hexadecimal digits", ErrInvalid, shortened(digest), algorithm, want)
	}
	return algorithm, hex, nil
}

// leaf is a digest as one path component, and digestOfLeaf the way back; false for what a driver left behind, such as
// the filesystem driver's `<name>.<uuid>.tmp`.
func leaf(algorithm, hex string) string { return algorithm + "-" + hex }

func digestOfLeaf(name string) (string, bool) {
	algorithm, hex, ok := strings.Cut(name, "-")
	if !ok {
		return "", false
	}
	digest := algorithm + ":" + hex
	_, _, err := splitDigest(digest)
	return digest, err == nil
}

func validGeneration(name string) bool {
	t, err := time.Parse(dayFormat, name)
	return err == nil && t.Format(dayFormat) == name
}

func shortened(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
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
	if err := checkRepository(repo); err != nil {
		return object{}, err
	}
	algorithm, hex, err := splitDigest(digest)
	if err != nil {
		return object{}, fmt.Errorf("%w in repository %s", err, repo)
	}
	return object{repo: repo, digest: digest, kind: k, tail: algorithm + "/" + hex}, nil
}

func (o object) String() string {
	return o.kind.noun() + " " + o.digest + " of repository " + o.repo
}

func (o object) in(generation string) string {
	return below(quarantineRoot+"/"+generation, o.repo, o.kind, o.tail)
}

// parseHeld is the way back from a path in the quarantine. False for parts, staging, and what a driver left behind.
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
	name, digest, _ := strings.Cut(rest, "/")
	k := kind("_" + name)
	if k != blobKind && k != manifestKind && k != originalKind {
		return "", object{}, false
	}
	o, err := newObject(repo, k, strings.Replace(digest, "/", ":", 1))
	return generation, o, err == nil
}

// uploadPath is the folder with the parts of one upload.
func uploadPath(generation, repo, id string) (string, error) {
	if err := checkRepository(repo); err != nil {
		return "", err
	}
	if !validGeneration(generation) {
		return "", fmt.Errorf("%w generation %q of an upload to repository %s", ErrInvalid, shortened(generation), repo)
	}
	if !uploadGrammar.MatchString(id) {
		return "", fmt.Errorf("%w upload id %q in repository %s", ErrInvalid, shortened(id), repo)
	}
	return below(quarantineRoot+"/"+generation, repo, partKind, id), nil
}

func partPath(upload string, n int) string { return upload + "/" + strconv.Itoa(n) }
