// Package conformance holds a registry to the OCI Distribution Specification 1.1.
//
// Every MUST and SHOULD of its four workflows (pull, push, content discovery, content management) is a case. A case names the
// section of the specification (spec.md of opencontainers/distribution-spec, tag v1.1.1) that it was read from; the few that
// were specified later say so in their name. A case is a sentence about the registry, uses repositories of its own, and needs
// nothing from any other case.
//
// [Run] holds one registry to all of them. No registry passes everything: what one is known not to do is listed in its
// [Profile], and a listed case that passes after all is a failure too, so a profile cannot outlive its reasons.
//
// [Compare] is for a proxy. It runs every case twice, against the registry itself and against the same registry through the
// proxy, and fails for each one that passes only without the proxy. It needs no profile: the registry is its own yardstick.
//
// Beyond the specification, the cases upload contents that a proxy might treat in a special way (the empty JSON object,
// in-toto statements, nothing at all, chunks of a few bytes), by every way of uploading: whatever a proxy makes of them, the
// specification's promises about what was pushed stay.
package conformance
