// Package filters decides what becomes of a pushed document. It is a function
// of bytes: no I/O, no clock, no log, no state, so that two replicas and a
// retry come to the same result. It imports [sluice/filters/ocidoc] and
// the standard library only.
//
// # Model
//
// A client pushes blobs, manifests and at last an index. What the index lists
// is judged entry by entry: [Judge] asks the filters of one literal table, and
// the first with an opinion returns a [Verdict]. [Rewrite] then makes the
// [Plan] of the whole index: which bytes go upstream under the tag, what was
// taken out, whether the one image that is left takes the index's place.
//
// The first filter, and the reason for the program, takes out BuildKit's
// attestations. They are recognised by the manifest itself ([IsAttestation]),
// never by the index entry alone: buildah drops the entry's annotations, and an
// image labelled wrongly must not be lost. The entry only tells whether the
// manifest has to be read ([NeedsChild]).
//
// Two conversions change the form of a document, and nothing else about it:
// images become Docker schema 2 for consumers that take no OCI types
// ([MediaTypesDocker]), and BuildKit's cache index a manifest for registries that
// take no index of blobs ([CacheIndexManifest]). Both give the bytes that
// BuildKit itself writes when it is told to.
//
// While a blob is on its way nobody knows yet what it is for. [Peek] guesses
// from its first bytes whether it should wait; a wrong guess costs a detour,
// never a blob.
//
// # What holds
//
//   - An index that needs no rewrite is forwarded as the very bytes received.
//   - Otherwise bytes are cut out or replaced in place, never marshalled, so the
//     result is what the client would have sent without the attestations:
//     the digest equals that of a build with provenance and SBOM turned off
//     (and OCI media types, or Docker's if the policy wants them).
//   - No digest goes upstream that was not in the index or in the map of what it
//     lists and was rewritten.
//   - Documents of other tools are left alone: cosign's, foreign referrers,
//     indexes of blobs (BuildKit's registry cache), Helm charts, Docker schema 2.
//
// A new filter is one file with a type that has Name and Judge, and one line
// in the table in filter.go.
package filters
