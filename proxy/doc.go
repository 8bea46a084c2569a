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
// # Invariants
//
// The tests name them.
//
//	I1  Nothing in quarantine goes upstream until something that goes upstream refers to it, and then it goes first.
//	I2  Under strip and store no index and no untagged manifest upstream is or lists an attestation.
//	I3  A rewrite is a deterministic function of bytes and policy.
//	I4  What needs no rewrite is forwarded as the very bytes received, whatever its media type.
//	I5  Every answer to a push carries the digest of the bytes received; Sluice-Forwarded-Digest carries the other.
//	I6  201 for a tag means that the tag upstream resolves to the rewrite, and that the alias can be read.
//	I7  Any step may fail: the client sees an error, its retry converges, nothing dangling is referenced.
//	I8  Layers stream: constant memory, no disk, no hashing, back-pressure end to end.
//	I9  No local answer without authority.
//	I10 Any replica can serve the next request of any push.
package proxy
