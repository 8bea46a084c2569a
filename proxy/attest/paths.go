package attest

import (
	"fmt"
	"regexp"
	"strings"
)

const root = "attestations"

// kind is the folder below a repository. Each starts with an underscore, as no component of a repository name does.
type kind string

const (
	documentKind  kind = "_documents"
	blobKind      kind = "_blobs"
	recordKind    kind = "_records"
	subjectKind   kind = "_subjects"
	originalKind  kind = "_originals"
	tagKind       kind = "_tags"
	unclaimedKind kind = "_unclaimed"
	stagingKind   kind = "_staging"
)

var (
	// distribution-spec 1.1, "Pulling manifests": <name> and <reference>.
	repositoryGrammar = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	keyGrammar        = regexp.MustCompile(`^[0-9a-f]{32}$`)
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

func shortened(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

func below(repo string, k kind, rest string) string {
	return "/" + root + "/" + repo + "/" + string(k) + "/" + rest
}

// digestPath is where something with a digest is, or the folder that is named after it.
func digestPath(repo string, k kind, digest string) (string, error) {
	if err := checkRepository(repo); err != nil {
		return "", err
	}
	algorithm, hex, err := splitDigest(digest)
	if err != nil {
		return "", fmt.Errorf("%w in repository %s", err, repo)
	}
	return below(repo, k, algorithm+"/"+hex), nil
}

func tagPath(repo, tag string) (string, error) {
	if err := checkRepository(repo); err != nil {
		return "", err
	}
	if err := checkTag(tag); err != nil {
		return "", fmt.Errorf("%w in repository %s", err, repo)
	}
	return below(repo, tagKind, tag), nil
}

// leaf is a digest as one path component, and digestOfLeaf the way back; false for what a driver left behind, such as
// the filesystem driver's `<name>.<uuid>.tmp`.
func leaf(digest string) string { return strings.Replace(digest, ":", "-", 1) }

func digestOfLeaf(name string) (string, bool) {
	digest := strings.Replace(name, "-", ":", 1)
	_, _, err := splitDigest(digest)
	return digest, err == nil
}
