package proxytest

import (
	"context"
	"net/http"
	"time"
)

// Pusher pushes a tree as one real client does: the same requests in the same order, the same checks of what comes back,
// and errors in the client's own words. A refused push leaves its error; nothing is undone, as with the real ones.
type Pusher func(ctx context.Context, o Options) (Result, error)

// Options of one push.
type Options struct {
	BaseURL    string // http://127.0.0.1:1234, without /v2/
	Repository string
	Tags       []string
	ByDigest   bool // the root is put under its digest and no tag (push-by-digest=true)
	Tree       *Tree

	Client        *http.Client // nil: one of its own with DisableCompression, as containerd's requests show none
	Authorization string       // sent, as clients do, only after a 401 has asked for it
	Sequential    bool         // one request at a time in a fixed order, for goldens; else as concurrent as the client
	ImagesFirst   bool         // BuildKit: children in the order of the index; else the last first, so that
	//                            attestation manifests come before their images, as its stack of manifests has it
	MountFrom string // repository that is said to have every blob

	// Retries is how often an answer that the client retries (429 or 503, as its file says) is tried again, and a
	// lost connection where it retries those. 0, so that a test sees each failure. Wait is called before each.
	Retries int
	Wait    func(attempt int) error

	Sources []Source // ImagetoolsCreate: what the new index is made of; Tree is then not used
}

// Source is an image that imagetools create reads.
type Source struct{ BaseURL, Repository, Reference string }

// Result is what the client would tell its user, and what it did.
type Result struct {
	Digest    string   // as reported: the digest of the bytes sent, whatever the registry made of them
	Pushed    *Tree    // what was pushed: Options.Tree, or what the client made of it (Docker 20.10, imagetools)
	Requests  int      // sent, authentication's second tries included
	Uploaded  []string // names of the blobs whose bytes were sent, in order of completion
	Mounted   []string
	Existing  []string // blobs that a HEAD found
	Manifests []string // references that were PUT, in order of completion
	Skipped   []string // references not PUT since a HEAD said they are there
	Took      time.Duration
}

// Client is a pusher with the name of the program it imitates.
type Client struct {
	Name    string
	Push    Pusher
	Indexes bool // pushes indexes; Docker 20.10 pushes the first image only
	// What the answers must be, as the real client was seen to want it.
	NeedsManifestDigest bool // fails without Docker-Content-Digest on a manifest PUT
	NeedsBlobs          bool // fails when a blob it pushed is then not found by HEAD
}

// Clients are all pushers that take a Tree.
func Clients() []Client {
	return []Client{
		{Name: "buildkit", Push: BuildKit, Indexes: true},
		{Name: "docker-29", Push: Docker29, Indexes: true},
		{Name: "containerd-1.6", Push: Containerd16, Indexes: true, NeedsManifestDigest: true},
		{Name: "docker-20.10", Push: Docker20, NeedsManifestDigest: true, NeedsBlobs: true},
		{Name: "skopeo", Push: Skopeo, Indexes: true},
		{Name: "crane", Push: Crane, Indexes: true},
		{Name: "oras", Push: Oras, Indexes: true},
		{Name: "regctl", Push: Regctl, Indexes: true},
		{Name: "imagetools", Push: ImagetoolsCreate, Indexes: true},
	}
}
