package objects

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"regexp"
	"strings"
)

// distribution-spec 1.1, "Pulling manifests": <name> and <reference>. The driver refuses a path component with any
// other character than these, and none of these names can be ".." or start with an underscore or a dot, but a tag
// can start with an underscore, which is why it never stands where a repository's component may stand.
var tagGrammar = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// MaxRepository is the limit that the spec says many clients have, host name included. A file name may have 255 bytes.
const MaxRepository = 255

// CheckRepository is ErrInvalid for a name outside the grammar.
func CheckRepository(repo string) error {
	if !ValidRepository(repo) {
		return fmt.Errorf("%w repository name %q", ErrInvalid, Shortened(repo))
	}
	return nil
}

// ValidRepository holds the name grammar of the distribution spec ("Pulling manifests"), without its regular
// expression, since every request asks several times.
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func ValidRepository(name string) bool {
	if len(name) == 0 || len(name) > MaxRepository {
		return false
	}
	for i := 0; ; {
		start := i
		for i < len(name) && lowerOrDigit(name[i]) {
			i++
		}
		if i == start {
			return false // nothing where letters or digits must be
		}
		if i == len(name) {
			return true
		}
		separator := i
		for i < len(name) && name[i] == name[separator] && (name[i] == '-' || name[i] == '_' && i-separator < 2) {
			i++
		}
		if i == separator {
			if name[i] != '.' && name[i] != '/' {
				return false
			}
			i++
		}
	}
}

func lowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// CheckTag is CheckRepository for a tag.
func CheckTag(tag string) error {
	if !tagGrammar.MatchString(tag) {
		return fmt.Errorf("%w tag %q", ErrInvalid, Shortened(tag))
	}
	return nil
}

// CheckMediaType: a media type shares its object with the document, on the first line, in which tabs may separate it
// from more.
func CheckMediaType(mediaType string) error {
	if len(mediaType) > 255 || strings.ContainsFunc(mediaType, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("%w media type %q", ErrInvalid, Shortened(mediaType))
	}
	return nil
}

// CheckDigest is ErrInvalid for what is not the digest of anything.
func CheckDigest(digest string) error {
	algorithm, hex, _ := strings.Cut(digest, ":")
	var want int
	switch algorithm {
	case "sha256":
		want = 2 * sha256.Size
	case "sha512":
		want = 2 * sha512.Size
	default:
		return fmt.Errorf("%w digest %q: only sha256 and sha512 are known", ErrInvalid, Shortened(digest))
	}
	if len(hex) != want || strings.ContainsFunc(hex, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) {
		return fmt.Errorf("%w digest %q: %s has %d lower case hexadecimal digits", ErrInvalid, Shortened(digest), algorithm, want)
	}
	return nil
}

// Tail is the path of a digest below a repository's folder, when both are valid: <algorithm>/<hex>, since a driver's
// paths do not allow the colon.
func Tail(repo, digest string) (string, error) {
	algorithm, hex, err := Parts(repo, digest)
	if err != nil {
		return "", err
	}
	return algorithm + "/" + hex, nil
}

// Parts are those of a digest in Tail, for who makes a longer path of them.
func Parts(repo, digest string) (algorithm, hex string, err error) {
	if err := CheckRepository(repo); err != nil {
		return "", "", err
	}
	if err := CheckDigest(digest); err != nil {
		return "", "", fmt.Errorf("%w in repository %s", err, repo)
	}
	algorithm, hex, _ = strings.Cut(digest, ":")
	return algorithm, hex, nil
}

// TagTail is the path of a tag below a repository's folder, when both are valid.
func TagTail(repo, tag string) (string, error) {
	if err := CheckRepository(repo); err != nil {
		return "", err
	}
	if err := CheckTag(tag); err != nil {
		return "", fmt.Errorf("%w in repository %s", err, repo)
	}
	return tag, nil
}

// DigestOfTail is the way back from Tail; false for what a driver left behind, such as the filesystem driver's
// `<name>.<uuid>.tmp`.
func DigestOfTail(tail string) (digest string, ok bool) {
	digest = strings.Replace(tail, "/", ":", 1)
	return digest, CheckDigest(digest) == nil
}

// Leaf is a digest as one path component, and DigestOfLeaf the way back.
func Leaf(digest string) string { return strings.Replace(digest, ":", "-", 1) }

func DigestOfLeaf(name string) (digest string, ok bool) {
	digest = strings.Replace(name, "-", ":", 1)
	return digest, CheckDigest(digest) == nil
}

// Shortened bounds what a client sent, for messages.
func Shortened(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

// NewHash is the one that makes a valid digest.
func NewHash(digest string) hash.Hash {
	if strings.HasPrefix(digest, "sha512:") {
		return sha512.New()
	}
	return sha256.New()
}

// CheckSum is ErrDigest unless what h has seen has the digest, and names both digests: a client's log then shows which
// one is on its side.
func CheckSum(h hash.Hash, digest string) error {
	var room [sha512.Size]byte
	return checkSum(h.Sum(room[:0]), digest)
}

func checkSum(sum []byte, digest string) error {
	algorithm, want, _ := strings.Cut(digest, ":")
	if !isHex(want, sum) {
		return fmt.Errorf("%w: the content is %s:%s and not %s", ErrDigest, algorithm, hex.EncodeToString(sum), digest)
	}
	return nil
}

// isHex compares without making a string.
func isHex(text string, b []byte) bool {
	const digits = "0123456789abcdef"
	if len(text) != 2*len(b) {
		return false
	}
	for i, c := range b {
		if text[2*i] != digits[c>>4] || text[2*i+1] != digits[c&15] {
			return false
		}
	}
	return true
}

// CheckBytes is CheckSum of bytes.
func CheckBytes(b []byte, digest string) error {
	if strings.HasPrefix(digest, "sha512:") {
		sum := sha512.Sum512(b)
		return checkSum(sum[:], digest)
	}
	sum := sha256.Sum256(b)
	return checkSum(sum[:], digest)
}
