package filters

import "strings"

// Guess is what the first bytes of a blob look like. It decides only when the
// blob travels, never whether.
type Guess int

const (
	Undecided Guess = iota // more bytes are needed
	Pass                   // a layer, or anything else that goes upstream at once
	Hold                   // a statement or an attestation's config: wait for a manifest that refers to it
	Bundle                 // a sigstore bundle: a signature, and what it signs may be an attestation or an image
	Empty                  // exactly `{}`, the config of OCI artifacts, which everybody knows
)

// String names the guess for logs.
func (g Guess) String() string {
	switch g {
	case Pass:
		return "pass"
	case Hold:
		return "hold"
	case Bundle:
		return "bundle"
	case Empty:
		return "empty"
	}
	return "undecided"
}

// held returns how the blobs begin that BuildKit writes for attestations and
// nothing else: a statement, a signed one, the config of the legacy manifest.
// All of them are compact JSON whose order of fields is fixed by Go structs.
// An image for an unknown platform begins like the third; it is released when
// its manifest comes.
func held() [3]string {
	return [...]string{
		`{"_type":"https://in-toto.io/`,
		`{"payloadType":"application/vnd.in-toto`,
		`{"architecture":"unknown","os":"unknown"`,
	}
}

// bundle is how a sigstore bundle begins (sigstore/protobuf-specs, sigstore_bundle.proto: mediaType is its first field).
// Go's protojson and JavaScript's JSON write it so; Go adds spaces at random, but only behind commas.
const bundle = `{"mediaType":"application/vnd.dev.sigstore.bundle`

// PeekLen is the number of bytes after which [Peek] is never Undecided.
const PeekLen = len(bundle)

// Peek guesses what a blob is from its first bytes. final means that there
// are no more; then the answer is not Undecided either.
func Peek(prefix []byte, final bool) Guess {
	s := string(prefix[:min(len(prefix), PeekLen+1)])
	if final && s == "{}" {
		return Empty
	}
	possible := s == "{}"
	for _, h := range held() {
		if strings.HasPrefix(s, h) {
			return Hold
		}
		possible = possible || strings.HasPrefix(h, s)
	}
	if strings.HasPrefix(s, bundle) {
		return Bundle
	}
	possible = possible || strings.HasPrefix(bundle, s)
	if possible && !final {
		return Undecided
	}
	return Pass
}
