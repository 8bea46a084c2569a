package ecrsim

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Switches choose among the answers that Amazon ECR may give. The zero value of each is the likeliest one, or what is
// reported most; the other value is what else has been reported, or cannot be ruled out.
type Switches struct {
	// Authentication.
	TokenLife    time.Duration // 0 is 12 h
	ExpiredToken int           // status of an expired token: 0 is 403; 401
	ForeignToken int           // status of a token of another region: 0 is 403 DENIED; 401 is the plain text of no credentials
	Deny         []string      // actions that are denied to everybody, such as "ecr:BatchGetImage"

	// Uploads.
	RelativeLocation bool // Location without scheme and host
	Monolithic       bool // POST ?digest= with a body is an upload; else a session is opened and the body ignored
	TrueRange        bool // the Range of an answer to PATCH says what is stored; else it stays at the end of the first part
	SmallPartCuts    bool // the final PUT after a small part cuts the connection; else 400
	BadRange         int  // status of a part that does not start where the last one ended: 0 is 416; 400
	CancelUploads    bool // DELETE of a session is 204; else 405
	BlobMounting     bool // the account setting BLOB_MOUNTING is ENABLED, as PutAccountSetting also does
	AnonymousMount   bool // mount= without from= looks in every repository; else it opens a session

	// Layers that no manifest refers to.
	HideUnreferenced bool   // HEAD is 404; else 200 while they live
	UnreferencedGet  Answer // zero is 404 BLOB_UNKNOWN

	// Manifests.
	RequireMediaType    bool          // refuses an OCI document without mediaType, as ECR once did
	RefuseSubject       bool          // refuses a subject with 405
	RefuseEmptyConfig   bool          // refuses a config of type application/vnd.oci.empty.v1+json with 405
	CacheIndex          int           // status of an index of blobs (BuildKit's cache): 0 is 405; 400
	MissingLayer        Answer        // zero is 400 MANIFEST_BLOB_UNKNOWN
	MissingChild        Answer        // zero is 400 MANIFEST_BLOB_UNKNOWN
	DigestMismatch      int           // status of PUT by the digest of other bytes: 0 is 400; 405
	OldImmutableText    bool          // "because the repository is immutable."; else "because the tag is immutable."
	AcceptSameImage     bool          // the same digest under the same immutable tag again is 201; else it is refused
	ReadAfterWriteGap   time.Duration // a new manifest is 404 for as long
	ReadAfterWriteReads int           // a new manifest is 404 for as many reads
	NoDelete            bool          // DELETE of a manifest is "404 page not found", as it once was
	ReferencedByIndex   Answer        // DELETE of what an index lists: zero is 400 DENIED

	// Referrers.
	NoReferrers         bool   // GET of referrers is 404, and PUT says no OCI-Subject
	ReferrersPage       int    // entries per page: 0 is 50
	NoOCISubject        bool   // PUT of a manifest with a subject answers without OCI-Subject
	NoFiltersApplied    bool   // artifactType= is obeyed without OCI-Filters-Applied
	IgnoreArtifactType  bool   // artifactType= is not obeyed
	RefuseAbsentSubject bool   // a subject that is not there is refused, as GitLab does
	AbsentSubject       Answer // zero is 400 MANIFEST_BLOB_UNKNOWN

	// Quotas.
	NoThrottling bool
	Rates        map[string]float64 // calls per second by action, "PutImage"; missing ones are those of Quotas
	Limits       Limits
	Templates    []Template // create on push

	Faults []Fault
}

// Answer is a status and a code of the registry API; a zero field is the default that the switch names.
type Answer struct {
	Status int
	Code   string
}

// Limits of sizes and numbers. A zero is ECR's own.
type Limits struct {
	ManifestBytes       int64 // 4,194,304: the usual figure, not verified
	LayersPerImage      int   // 4,200: a guess, ECR publishes none
	ImagesPerRepository int   // 100,000
	TagsPerImage        int   // 1,000
	PartBytes           int64 // 5 MiB, of every part but the last
	Parts               int   // 4,200; a body counts one per 10 MiB
	LayerBytes          int64 // 52,000 MiB
}

func (l Limits) withDefaults() Limits {
	d := Limits{
		ManifestBytes: 4 << 20, LayersPerImage: 4200, ImagesPerRepository: 100_000, TagsPerImage: 1000,
		PartBytes: 5 << 20, Parts: 4200, LayerBytes: 52_000 << 20,
	}
	return Limits{
		ManifestBytes: or(l.ManifestBytes, d.ManifestBytes), LayersPerImage: or(l.LayersPerImage, d.LayersPerImage),
		ImagesPerRepository: or(l.ImagesPerRepository, d.ImagesPerRepository), TagsPerImage: or(l.TagsPerImage, d.TagsPerImage),
		PartBytes: or(l.PartBytes, d.PartBytes), Parts: or(l.Parts, d.Parts), LayerBytes: or(l.LayerBytes, d.LayerBytes),
	}
}

func or[T int | int64](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Template is a repository creation template that applies to CREATE_ON_PUSH. The longest prefix wins.
type Template struct {
	Prefix     string // "ROOT" matches every name
	Mutability string // "" is MUTABLE
	Exclusions []ExclusionFilter
	Encryption Encryption
	Lifecycle  string // policy text
	Policy     string // policy text
	Tags       []ResourceTag
}

// Fault is a misfortune of some calls. Several may befall one call; they do in the order of the list.
type Fault struct {
	Action     string // such as "UploadLayerPart"; "" is every call of the registry API
	Repository string // "" is every one
	Skip       int    // calls that pass first
	Times      int    // calls that it befalls; 0 is all further ones

	Latency      time.Duration // of real time, before anything else happens
	ExpireTokens bool          // every token issued so far expires with this call
	Throttle     bool          // 429
	Answer       Answer        // refuses the call, if Status is set
	Cut          bool          // cuts the connection after CutAfter bytes of the request's body, or of the answer's to a GET
	CutAfter     int64

	seen *atomic.Int64
}

func (s Switches) clone() *Switches {
	s.Deny, s.Rates, s.Templates, s.Faults = slices.Clone(s.Deny), maps.Clone(s.Rates), slices.Clone(s.Templates), slices.Clone(s.Faults)
	for i := range s.Faults {
		if s.Faults[i].seen == nil {
			s.Faults[i].seen = new(atomic.Int64)
		}
	}
	return &s
}
