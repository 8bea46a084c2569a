package filters

import (
	"strings"

	"sluice/filters/ocidoc"
)

// SignatureTag reports whether a tag is one of cosign's for the document with
// the digest that it names: `sha256-<hex>.sig`, `.att` or `.sbom`.
func SignatureTag(tag string) (digest string, ok bool) {
	for _, suffix := range [...]string{".sig", ".att", ".sbom"} {
		if stem, found := strings.CutSuffix(tag, suffix); found {
			return ParseFallbackTag(stem)
		}
	}
	return "", false
}

// FallbackTag returns the tag at which clients keep the index of a document's
// referrers when the registry has no referrers API: the digest with a hyphen,
// its encoded part cut to 64 characters (distribution-spec, "Referrers Tag
// Schema"). It is "" for what is no valid digest.
func FallbackTag(digest string) string {
	if !ocidoc.ValidDigest(digest) {
		return ""
	}
	algorithm, encoded, _ := strings.Cut(digest, ":")
	return algorithm + "-" + encoded[:64]
}

// IsFallbackTag reports whether a tag is the referrers fallback tag of some
// document.
func IsFallbackTag(tag string) bool {
	algorithm, encoded, _ := strings.Cut(tag, "-")
	return (algorithm == "sha256" || algorithm == "sha512") && ocidoc.ValidDigest("sha256:"+encoded) // both have 64 digits here
}

// ParseFallbackTag returns the digest that a referrers fallback tag is about.
// Those of sha512 digests are cut and do not tell it: ok is false.
func ParseFallbackTag(tag string) (digest string, ok bool) {
	encoded, found := strings.CutPrefix(tag, "sha256-")
	digest = "sha256:" + encoded
	if !found || !ocidoc.ValidDigest(digest) {
		return "", false
	}
	return digest, true
}
