// Package attest keeps what a rule with `attestations: store` takes out of a push, for good: the originals, the
// attestation manifests, their statements, and records by which they are found again.
//
// With `store.to: repository` or `referrers` the statements, which are nearly all of the bytes, are in a registry, and
// a note here says in which repository. The rest stays here with every destination: an original can be served by its
// digest only from its own bytes, since no registry has them, and so can the attestation manifests that it lists.
//
// # The model
//
// Everything lives below one prefix of a storage driver of the distribution registry, per repository, content-addressed,
// without locks:
//
//	/attestations/<repository>/_documents/<algorithm>/<hex>      media type, line feed, exact bytes
//	/attestations/<repository>/_blobs/<algorithm>/<hex>          statements, configs
//	/attestations/<repository>/_elsewhere/<algorithm>/<hex>      in which repository a statement is, if not here
//	/attestations/<repository>/_records/<attestation>/<key>      one record for every time an attestation was pushed
//	/attestations/<repository>/_subjects/<image>/<attestation>-<key>     the same record, by image,
//	/attestations/<repository>/_originals/<original>/<attestation>-<key>     by original
//	/attestations/<repository>/_tags/<tag>/<attestation>-<key>               and by tag
//	/attestations/<repository>/_unclaimed/<attestation>/...      attestations that no index ever named
//	/attestations/<repository>/_staging/<random>                 written, not yet checked
//	/attestations/<repository>/_aside/<day>/<kind>/...           named by nothing when a sweep came by on that day
//
// What a record names is written before it, and the record below _records before those that lookups find, so whatever
// can be found can be read, and whatever can be found can be deleted. Every write happens as a whole or not at all, and
// writing something again changes nothing, so an operation that failed at any point may simply be repeated.
//
// A record is what keeps the rest: Sweep deletes documents and blobs that none names, once they are old, in two steps a
// day apart. What a push finds here it does not send, so it is written again when it is a day old.
package attest

import (
	"errors"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

var (
	// ErrNotFound says that it is not kept here.
	ErrNotFound = errors.New("not stored")
	// ErrInvalid says that a repository, tag, digest or media type is outside its grammar.
	ErrInvalid = objects.ErrInvalid
	// ErrDigest says that content does not have the digest or the size that was announced.
	ErrDigest = objects.ErrDigest
	// ErrStorage says that the storage driver failed, and not the client and not the data: `on_storage_error` applies.
	ErrStorage = objects.ErrStorage
)

// Store is safe for use by many goroutines, and by many processes on the same storage.
type Store struct {
	storage objects.Storage
	now     func() time.Time
	written objects.Recent // blobs
}

// New makes a Store. now, for records without a time of their own, may be nil.
func New(d storagedriver.StorageDriver, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{storage: objects.Storage{Driver: d}, now: now}
}
