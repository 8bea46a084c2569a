// Package quarantine keeps what nobody can place yet: blobs and manifests that wait until something that goes upstream
// refers to them (invariant I1), originals of rewritten documents, and the aliases from an original to what was
// forwarded in its place.
//
// # The model
//
// Everything lives in one storage driver of the distribution registry, which may be a folder or a bucket: no locks, no
// compare-and-swap, no reference counts, no state in memory. What is held is content-addressed and stands below the
// generation, the UTC day, in which it was written:
//
//	/format                                                                  "sluice 1"
//	/quarantine/<day>/<repository>/_blobs/<algorithm>/<hex>
//	/quarantine/<day>/<repository>/_manifests/<algorithm>/<hex>              media type and blobs, line feed, exact bytes
//	/quarantine/<day>/<repository>/_originals/<algorithm>/<hex>              the same
//	/quarantine/<day>/<repository>/_about/<algorithm>/<hex>/<algorithm>-<hex>      subject, manifest: one is about the other
//	/quarantine/<day>/<repository>/_parts/<upload>/<number>
//	/quarantine/<day>/<repository>/_staging/<random>                         written, not yet checked
//	/quarantine/<day>/<repository>/_referrers/<algorithm>/<hex>/<algorithm>-<hex>  subject, referrer: to be listed, or not any more
//	/aliases/<repository>/_aliases/<algorithm>/<hex>/<algorithm>-<hex>       original -> forwarded, kept for good
//	/aliases/<repository>/_tags/<tag>/<algorithm>-<hex>                      forwarded -> original under that tag
//	/keys/<time>-<random>                                                    keys that seal upload sessions
//
// No component of a repository name starts with an underscore (distribution-spec, "Pulling manifests"), so the first
// one that does ends the name and no repository can reach into another.
//
// Reads look at every generation there is, at all of them at once, and the newest that has it counts. A generation goes as a whole, when the storage says that
// its newest object is older than the retention plus a day. A Stat that finds something in a generation which may go
// within a day or so copies it into today's before it says so: the client then does not send it again, so it has to
// be there when the push comes to its end. A manifest takes the held blobs that it refers to along.
//
// Records of referrers are the exception to that: they are not content, and only count for a few hours, while replicas
// change the list of a subject's referrers at the same time. Nobody copies, moves or rescues them, and they go with their
// generation.
//
// Every write either happens as a whole or not at all, and writing something again changes nothing, so an operation
// that failed at any point may simply be repeated (invariant I7).
//
// # Other versions
//
// Programs of different versions share a storage during an upgrade, and a newer one may be gone back from. So what a version
// writes all later ones read, and of what a later one says more an earlier one keeps its hands off: fields of JSON, words behind
// a media type, folders whose names it does not know, here (but in a generation, which goes as a whole) and in package attest.
// A digest in any field of a stored attestation's record keeps what has it. What an earlier version would read wrong, or
// sweep, needs another format, see CheckFormat. The tests called TestWhatANewerProgram... hold that, and
// TestWhatAProgramWroteEveryLaterOneReads.
package quarantine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

var (
	// ErrNotFound says that no live generation holds it.
	ErrNotFound = errors.New("not held")
	// ErrInvalid says that a repository, tag, digest or other name is outside its grammar.
	ErrInvalid = objects.ErrInvalid
	// ErrDigest says that content does not have the digest that was announced; the message names both.
	ErrDigest = objects.ErrDigest
	// ErrTooLarge says that there were more bytes than allowed.
	ErrTooLarge = errors.New("too large")
	// ErrTooMany says that an upload has as many parts as it may have.
	ErrTooMany = errors.New("too many parts")
	// ErrStorage says that the storage driver failed, and not the client and not the data: `on_storage_error` applies.
	ErrStorage = objects.ErrStorage
)

// DefaultRetention in days, for Options that do not say.
const DefaultRetention = 2

// Options of a Store. The zero value is usable.
type Options struct {
	Retention int              // days that held things live after they were written; below 1: DefaultRetention
	Now       func() time.Time // nil: time.Now

	// Copied is told that something was copied into a younger generation; kind is "blob", "manifest" or "original". It is
	// called while the copy is made, by many at once. nil: nobody wants to know.
	Copied func(kind, repo, digest, generation string)
}

// errDamaged says that what is stored does not have its digest any more.
var errDamaged = errors.New("damaged in the storage")

// Store is safe for use by many goroutines, and by many processes on the same storage.
type Store struct {
	storage   objects.Storage
	retention int
	now       func() time.Time
	copied    func(kind, repo, digest, generation string)
	listing   listing
	written   objects.Recent // in today's generation
	days      [4]atomic.Pointer[dayName]
}

// New opens the storage, and marks an empty one with the format that this package writes. It refuses a storage that
// was written in a newer format.
func New(d storagedriver.StorageDriver, o Options) (*Store, error) {
	if o.Retention < 1 {
		o.Retention = DefaultRetention
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{storage: objects.Storage{Driver: d}, retention: o.Retention, now: o.Now, copied: o.Copied}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.mark(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

const (
	formatPath   = "/format"
	formatWord   = "sluice"
	formatNumber = 1
)

// CheckFormat fails when the storage has a format that this program does not know. A running one has to ask again before it
// sweeps: during an upgrade a newer one may have raised the format, and what that writes looks like garbage here.
func (s *Store) CheckFormat(ctx context.Context) error {
	_, err := s.marked(ctx)
	return err
}

// mark says which format an empty storage will have.
func (s *Store) mark(ctx context.Context) error {
	marked, err := s.marked(ctx)
	if marked || err != nil {
		return err
	}
	// Two processes that start together write the same bytes.
	if err := s.storage.Put(ctx, formatPath, fmt.Appendf(nil, "%s %d\n", formatWord, formatNumber)); err != nil {
		return fmt.Errorf("mark the storage with its format: %w", err)
	}
	return nil
}

// marked is false for a storage without a format.
func (s *Store) marked(ctx context.Context) (bool, error) {
	b, err := s.storage.Get(ctx, formatPath)
	if objects.Absent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the format of the storage: %w", err)
	}
	word, number, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	n, err := strconv.Atoi(number)
	if word != formatWord || err != nil || n < 1 {
		return true, fmt.Errorf("%s in the storage does not say \"%s %d\": this is not Sluice's storage, or it is damaged",
			formatPath, formatWord, formatNumber)
	}
	if n > formatNumber {
		return true, fmt.Errorf("the storage has format %d, written by a newer Sluice; this one knows format %d: upgrade it, or give it a storage of its own",
			n, formatNumber)
	}
	return true, nil
}

const (
	day       = 24 * time.Hour
	dayFormat = "2006-01-02"
)

// Generation is the one that is written now: the UTC day. An upload stays in the generation in which it began.
func (s *Store) Generation() string { return s.dayOf(s.now()) }

// dayOf is the name of a time's generation. The last ones are remembered: every request asks for the same two or three.
func (s *Store) dayOf(t time.Time) string {
	number := t.Unix() / int64(day/time.Second)
	slot := &s.days[number&3]
	if known := slot.Load(); known != nil && known.number == number {
		return known.name
	}
	name := t.UTC().Format(dayFormat)
	slot.Store(&dayName{number, name})
	return name
}

type dayName struct {
	number int64 // since 1970, in UTC
	name   string
}

// Generations lists those that exist, newest first.
func (s *Store) Generations(ctx context.Context) ([]string, error) { return s.generations(ctx) }

// generations lists those that exist, newest first. Which ones should exist is not asked: clocks and retentions of
// other replicas may differ.
func (s *Store) generations(ctx context.Context) ([]string, error) {
	names, err := s.storage.List(ctx, "/"+quarantineRoot)
	if err != nil {
		return nil, fmt.Errorf("list the generations of the quarantine: %w", err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !validGeneration(n) })
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// dying: the oldest one, and any that reaches the end of its retention tomorrow at the latest. The second matters
// when an older one is still there: both may go in the same sweep. The first matters when another replica is
// configured with a shorter retention.
func (s *Store) dying(generation, today string, oldest bool) bool {
	if generation >= today {
		return false
	}
	return oldest || generation <= s.now().UTC().Add(-time.Duration(s.retention)*day).Format(dayFormat)
}
