// Package ecrsim is a double of a private Amazon ECR registry, for tests and for the demo. It is not Amazon ECR: it does what is
// documented, what users and authors of clients have reported, and where these are silent one of the things that ECR may do.
// What passes against it may fail against ECR.
//
// A [Simulator] is one account in one region. It has three handlers: the registry API ([Simulator.Registry]), the control
// plane in AWS JSON 1.1 ([Simulator.ControlPlane]), and the address that layers are downloaded from ([Simulator.Blobs]), which
// is S3 in real life and refuses a request with credentials. Package ecrsimtest serves them in a test, `sluice ecrsim` for
// other programs.
//
// Layers are kept by the storage package of distribution's registry, with its upload sessions and its checks of digests.
// Around them distribution's app would be in the way: it opens its storage by a name in a configuration, keeps the state of a
// session in a query that ECR's Location does not have, and knows no referrers, immutable tags, or times of pushing. So the rest
// is here, in memory, behind one lock: small enough to be read against the facts.
//
// # Where it is certain
//
// These come from AWS's documentation and SDK, or from reports with what was on the wire:
//
//   - The 401 in plain text, the 403 of a denial with the IAM action, HEAD with neither. Rights and quotas follow the action
//     that a request stands for ([Quotas], 10 manifests per second).
//   - 404 NAME_UNKNOWN on the POST of a push, and a cut connection in the middle of a body; repositories that are created on
//     push where a template says so.
//   - 405 UNSUPPORTED "Invalid parameter at ..." for everything that ECR does not like: unknown documents, BuildKit's cache
//     index, too many layers, n above 1000, a cursor of one's own.
//   - PATCH answers 201 with a Range that stays where the first part ended. Parts of 5 MiB but for the last, at most 4,200.
//   - GET of a layer is 307, and only if an image refers to the layer. Mounts only with the account setting BLOB_MOUNTING,
//     and from an image; else 202.
//   - GET by tag has no Docker-Content-Digest, and converts OCI images to Docker's and back as Accept says. GET by digest
//     does neither.
//   - Immutable tags, with exclusion filters; 403 at the number of images per repository; 429 "Rate exceeded".
//   - Every child of an index is an image of its own to DescribeImages, and cannot be deleted before the index.
//
// # Where it is not
//
// Each of these is a field of [Switches]; the zero value is named first. Use both.
//
//	ExpiredToken         an expired token is 403, or 401
//	ForeignToken         a token of another region is 403, or the 401 of none
//	RelativeLocation     Location is an absolute URL, or a path
//	Monolithic           POST ?digest= with a body opens a session, or stores the layer
//	TrueRange            Range is stale, or true
//	SmallPartCuts        a part that is too small ends in 400, or in a cut connection, at the final PUT
//	BadRange             a part that does not follow is 416, or 400
//	CancelUploads        DELETE of a session is 405, or 204
//	AnonymousMount       mount= without from= is 202, or looks everywhere
//	HideUnreferenced     HEAD of a layer without an image is 200, or 404
//	UnreferencedGet      GET of it is 404 BLOB_UNKNOWN, or anything
//	RequireMediaType     OCI documents without mediaType are taken, or 405, as they once were
//	RefuseSubject        a subject is taken, or 405
//	RefuseEmptyConfig    the empty config is taken, or 405
//	CacheIndex           an index of blobs is 405, or 400
//	MissingLayer         400 MANIFEST_BLOB_UNKNOWN, or anything
//	MissingChild         400 MANIFEST_BLOB_UNKNOWN, or anything
//	DigestMismatch       PUT by the digest of other bytes is 400, or 405
//	OldImmutableText     the tag is immutable, or the repository is
//	AcceptSameImage      the same image under its immutable tag again is refused, or 201
//	ReferencedByIndex    DELETE of what an index lists is 400 DENIED, or anything
//	NoReferrers          the referrers API is there, or 404
//	ReferrersPage        50 to a page, or as many as you say
//	NoOCISubject         OCI-Subject is said, or not
//	NoFiltersApplied     OCI-Filters-Applied is said, or not
//	IgnoreArtifactType   artifactType= is obeyed, or not
//	RefuseAbsentSubject  a subject that is not there is taken, or refused (with AbsentSubject)
//	NoDelete             manifests can be deleted, or "404 page not found", as it once was
//	ReadAfterWriteGap    a manifest can be read at once, or after a while (in time, or in ReadAfterWriteReads)
//	Limits               4 MiB for a manifest is the usual figure, 4,200 layers for an image a guess
//
// What else may go wrong is a [Fault]: latency, throttling, refusals, cut connections, and a token that expires under a push.
//
// # What is left out
//
// Conversion to Docker schema 1, ECR Public and its Bearer tokens, scanning, lifecycle rules (they are kept, and nothing
// expires), the archive, replication, pull-through caches, checking of signatures (any secret key will do), and repository
// policies (they are kept, and allow nothing). The repositories of another account do not exist.
package ecrsim
