// Package ocidoc reads an OCI or Docker manifest or index as what it is to a
// registry: bytes whose digest matters.
//
// A [Document] keeps the bytes it was parsed from and, beside the few fields a
// proxy looks at, the place of every index entry in them. [Document.Rewrite]
// cuts entries out of those bytes and replaces values inside them; it never
// marshals. Unknown fields, the order of fields and the indentation survive,
// so an index that json.Marshal or json.MarshalIndent wrote becomes exactly
// what the same call would have written for the shorter list. That is how the
// digest of a cut index equals the digest of a build that never had the
// entries.
//
// # Strictness
//
// A proxy that decides by what it reads must read what everybody else reads.
// encoding/json lets a later "manifests" override an earlier one, and
// "MANIFESTS" override both; other parsers take the first, or tell the two
// apart. The decision and the registry would then be about different
// documents, so for the four known media types [Parse] refuses, with
// [ErrInvalid]:
//
//   - anything RFC 8259 does not allow, bytes after the value, invalid UTF-8
//   - two equal names in one object, at any depth
//   - a name that equals a known field but for its case ("Digest")
//   - `manifests`, `config` and `layers` where the media type says otherwise
//     (CVE-2021-41190, image-spec "manifest.md" and "image-index.md")
//   - a descriptor without mediaType, digest or size, all REQUIRED by
//     image-spec "descriptor.md"; a negative size; a digest that is not
//     sha256 or sha512
//   - nesting beyond [MaxDepth] and documents beyond [MaxBytes]
//
// A null where a field is optional means that it is absent, as in every JSON
// library. Everything else about a document is the registry's to judge: what
// is unknown here is kept, not refused.
//
// Documents of any other media type are opaque ([KindOther]): their bytes are
// kept and nothing but the size is checked.
//
// The package does no I/O, and a Document may be read by many goroutines.
package ocidoc
