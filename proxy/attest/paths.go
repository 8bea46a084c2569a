package attest

import (
	"crypto/rand"
	"regexp"
	"strings"
	"time"

	"sluice/proxy/internal/objects"
)

const root = "attestations"

// kind is the folder below a repository. Each starts with an underscore, as no component of a repository name does.
type kind string

const (
	documentKind  kind = "_documents"
	blobKind      kind = "_blobs"
	elsewhereKind kind = "_elsewhere"
	recordKind    kind = "_records"
	subjectKind   kind = "_subjects"
	originalKind  kind = "_originals"
	tagKind       kind = "_tags"
	unclaimedKind kind = "_unclaimed"
	stagingKind   kind = "_staging"
	asideKind     kind = "_aside"
)

const (
	day       = 24 * time.Hour
	dayFormat = "2006-01-02"
)

var keyGrammar = regexp.MustCompile(`^[0-9a-f]{32}$`)

func below(repo string, k kind, rest string) string {
	return "/" + root + "/" + repo + "/" + string(k) + "/" + rest
}

// digestPath is where something with a digest is, or the folder that is named after it.
func digestPath(repo string, k kind, digest string) (string, error) {
	algorithm, hex, err := objects.Parts(repo, digest)
	if err != nil {
		return "", err
	}
	return "/" + root + "/" + repo + "/" + string(k) + "/" + algorithm + "/" + hex, nil
}

func tagPath(repo, tag string) (string, error) {
	tail, err := objects.TagTail(repo, tag)
	if err != nil {
		return "", err
	}
	return below(repo, tagKind, tail), nil
}

// stagingPath is a fresh name: two writers of the same thing do not write into one file.
func stagingPath(repo string) string {
	return below(repo, stagingKind, rand.Text())
}

// split is the way back from a path: whose it is, of which kind, and what follows.
func split(p string) (repo string, k kind, rest string, ok bool) {
	p, ok = strings.CutPrefix(p, "/"+root+"/")
	if !ok {
		return "", "", "", false
	}
	repo, rest, ok = strings.Cut(p, "/_") // the first component with an underscore ends the name
	if !ok || objects.CheckRepository(repo) != nil {
		return "", "", "", false
	}
	name, rest, ok := strings.Cut(rest, "/")
	return repo, kind("_" + name), rest, ok
}
