// Package proxy is the shell around the filters: an OCI registry that clients push to, and that
// passes everything on to the registry behind it except what a filter takes out.
//
// # The life of a push
//
// Layers stream to the upstream registry while they arrive. The first bytes of every blob are
// looked at: an in-toto statement, or the config of an attestation manifest, waits in quarantine
// instead, because at this moment nobody knows yet whether anything that goes upstream refers to
// it. A manifest that is an attestation waits there too. When the index arrives, everything about
// it is known: its attestation entries are cut out of its bytes, what is left goes upstream, and
// the client is told the digest of the bytes that it sent.
//
// An artifact about an attestation that was taken out, such as its signature, is kept beside it: its manifest says what it
// is about. A sigstore bundle waits for that too, since a registry may not give it back, but only where it can be kept:
// most are signatures of images, and these go upstream whatever becomes of the storage.
//
// # Where attestations are kept
//
// With store.to: repository and referrers the statements go to a registry, after the image's own manifest, which
// clients send before the index, and before the index or the tag: 201 means that they are there. An OCI 1.1 artifact may
// be there before its subject, and each is put by its digest, so a push that breaks off leaves nothing dangling, and its
// retry finds what is there. The originals' documents, the attestation manifests, the derived referrers, and the records
// of what is where stay in the storage: no registry has their bytes, and without them no original could be served. An
// original is shown while the registry has its statements, and an attestation is listed while the registry lists it.
//
// # Invariants
//
// The tests name them.
//
//	I1  Nothing in quarantine goes upstream until something that goes upstream refers to it, and then it goes first.
//	I2  Under strip and store no index and no untagged manifest upstream is or lists an attestation. With
//	    store.to: repository this is about the repositories of images. With store.to: referrers attestations are
//	    untagged artifacts in them, and only the referrers tag of an image (sha256-<hex>) lists them.
//	I3  A rewrite is a deterministic function of bytes and policy.
//	I4  What needs no rewrite is forwarded as the very bytes received, whatever its media type.
//	I5  Every answer to a push carries the digest of the bytes received; Sluice-Forwarded-Digest carries the other.
//	I6  201 for a tag means that the tag upstream resolves to the rewrite, and that the alias can be read.
//	I7  Any step may fail: the client sees an error, its retry converges, nothing dangling is referenced.
//	I8  Layers stream: constant memory, no disk, no hashing, back-pressure end to end.
//	I9  No local answer without authority.
//	I10 Any replica can serve the next request of any push.
package proxy
