package ocidoc

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ValidDigest reports whether s is a digest in its one canonical form:
// "sha256:" and 64, or "sha512:" and 128 lower-case hexadecimal digits, the
// registered algorithms of image-spec "descriptor.md". Such a string is safe
// as a part of a path and of a URL.
func ValidDigest(s string) bool {
	algorithm, encoded, ok := strings.Cut(s, ":")
	if !ok {
		return false
	}
	switch algorithm {
	case "sha256":
		return len(encoded) == 64 && lowerHex(encoded)
	case "sha512":
		return len(encoded) == 128 && lowerHex(encoded)
	}
	return false
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Digest returns "sha256:<hex>" of the document's bytes. It is computed at
// each call.
func (d *Document) Digest() string { return DigestOf(d.Bytes) }

// DigestOf returns "sha256:<hex>" of b.
func DigestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
