package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// takeOverReferrer does what clients leave to a registry as soon as anything says "supported": where
// upstream has no referrers API, the fallback tag of the subject lists the new referrer before its
// push is answered (distribution-spec, "Pushing Manifests with Subject").
func (ex *exchange) takeOverReferrer(doc *ocidoc.Document, resp *http.Response) error {
	if doc.Subject == nil || ex.action() == filters.Forward {
		return nil
	}
	if listed, err := ex.listsItself(resp, doc.Subject.Digest); listed || err != nil {
		return err
	}
	return ex.changeFallback(referrerChange{
		subject: doc.Subject.Digest, entry: referrerDescriptor(doc, doc.Digest(), mediaTypeOf(doc)), allowed: true,
	})
}

// A referrerChange is one entry more or less in the list of a subject's referrers.
type referrerChange struct {
	subject string
	entry   ocispec.Descriptor // of one that is removed, the digest
	removed bool
	allowed bool // upstream has just let this client push the referrer
}

const (
	fallbackRounds = 10
	fallbackFirst  = 10 * time.Millisecond
	fallbackMost   = 200 * time.Millisecond
	fallbackTime   = 30 * time.Second
)

// changeFallback changes upstream's referrers tag of a subject. Within one process one change follows the other, but
// other replicas change the same tag, and the registry API has no compare-and-swap: of two that read the list and write
// it, the later one would undo what the first one wrote. So each tells the others by a record in the storage what it
// wants, writes all that is wanted, and looks again after each write. Since a record is there before its writer looks for
// the last time, whoever undoes a change after that look finds the record in its own next look, and repairs the list.
func (ex *exchange) changeFallback(c referrerChange) error {
	// A record has others write what it says, so it must not come from one who may not write that. Who has not shown it
	// yet shows it with the list.
	noted := c.allowed && ex.noteReferrer(c)
	unlock, err := ex.p.fallbackTags.lock(ex.ctx(), ex.repo+":"+filters.FallbackTag(c.subject))
	if err != nil {
		return err
	}
	defer unlock()
	var seen, gone []ocispec.Descriptor
	for round := 0; ; round++ {
		look, err := ex.lookAtFallback(c, noted, seen, gone)
		if err != nil || look.settled() {
			return err
		}
		if round == fallbackRounds && noted {
			// The record stands, and whoever has undone this change since looks again and finds it. Or this registry shows
			// for a while what a tag had before, and then nothing is wrong.
			ex.log.Warn("the list of referrers still does not show what was written to it", "subject", c.subject, "referrer", c.entry.Digest.String())
			return nil
		}
		if round == fallbackRounds {
			return transient(nil, "the list of referrers of %s in repository %s keeps changing, try again", c.subject, ex.repo)
		}
		if round == 0 {
			// From the first write on it does not end with a client that hangs up: what the write may have undone of
			// others' is found by the looks that follow.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ex.ctx()), fallbackTime)
			client := ex.ctx()
			defer func() { context.AfterFunc(client, cancel) }() // and not before: an answer of upstream may still be read
			detached := *ex
			detached.r = ex.r.WithContext(ctx)
			ex = &detached
		}
		lacks, err := ex.writeFallback(c, look)
		if err != nil {
			return err
		}
		if gone = append(gone, lacks...); len(lacks) == 0 {
			noted = noted || ex.noteReferrer(c)
		}
		seen = look.wanted
		if round > 0 { // others write too
			ex.pause(min(fallbackFirst<<(round-1), fallbackMost))
		}
	}
}

// pause sleeps about as long as that, but not as long as another that begins now.
func (ex *exchange) pause(d time.Duration) {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ex.ctx().Done():
	}
}

// noteReferrer tells other replicas of a change. Pushes do not depend on the storage here: without a record, one replica
// alone loses nothing.
func (ex *exchange) noteReferrer(c referrerChange) (noted bool) {
	err := ex.p.quarantine.PutReferrer(ex.ctx(), ex.repo, c.subject, quarantine.Referrer{Descriptor: c.entry, Removed: c.removed})
	if err != nil && !errors.Is(err, quarantine.ErrInvalid) { // a digest of an algorithm that is known to upstream alone
		ex.p.storageTrouble(ex.log, "tell other replicas of referrer "+c.entry.Digest.String(), err)
	}
	return err == nil
}

// A fallbackLook is what a referrers tag lists, and what it should.
type fallbackLook struct {
	index  ocispec.Index
	held   string // the digest of the list, "" for none
	wanted []ocispec.Descriptor
}

// settled says that the tag lists what is wanted, in whatever order.
func (l fallbackLook) settled() bool {
	return len(l.wanted) == len(l.index.Manifests) && !slices.ContainsFunc(l.wanted, func(d ocispec.Descriptor) bool { return !lists(l.index.Manifests, d) })
}

func lists(list []ocispec.Descriptor, d ocispec.Descriptor) bool {
	return slices.ContainsFunc(list, func(e ocispec.Descriptor) bool { return e.Digest == d.Digest })
}

// lookAtFallback compares the tag with the change and the records. What an earlier look of the same change has seen is
// wanted too, since the tag may be gone: whoever deletes the list that it has replaced does so by digest, and with it goes
// a tag that has come to hold the same list again. What is gone upstream is not wanted. When the change is noted, its record
// has the last word about it, so that two replicas which want the opposite agree.
func (ex *exchange) lookAtFallback(c referrerChange, noted bool, seen, gone []ocispec.Descriptor) (look fallbackLook, err error) {
	if look.index, look.held, err = ex.readFallbackTag(c.subject); err != nil {
		return look, err
	}
	records, err := ex.p.quarantine.Referrers(ex.ctx(), ex.repo, c.subject)
	if err != nil && !errors.Is(err, quarantine.ErrInvalid) {
		ex.p.storageTrouble(ex.log, "look up what other replicas change of the referrers of "+c.subject, err)
	}
	own := func(r quarantine.Referrer) bool { return r.Descriptor.Digest == c.entry.Digest }
	if look.held == "" && slices.ContainsFunc(records, func(r quarantine.Referrer) bool { return !own(r) }) {
		// A registry resolves a tag and reads the list after that. If the list was replaced and deleted in between, it says
		// that there is nothing.
		if look.index, look.held, err = ex.readFallbackTag(c.subject); err != nil {
			return look, err
		}
	}
	if i := slices.IndexFunc(records, own); i < 0 || !noted {
		if i >= 0 {
			records = slices.Delete(records, i, i+1)
		}
		records = append(records, quarantine.Referrer{Descriptor: c.entry, Removed: c.removed})
	}
	var added []ocispec.Descriptor
	removed := slices.Clone(gone)
	for _, r := range records {
		if r.Removed {
			removed = append(removed, r.Descriptor)
		} else {
			added = append(added, r.Descriptor)
		}
	}
	look.wanted = slices.DeleteFunc(mergeDescriptors(mergeDescriptors(look.index.Manifests, seen), added), func(d ocispec.Descriptor) bool { return lists(removed, d) })
	return look, nil
}

// writeFallback gives the tag the list that is wanted, and deletes the one that it held. A registry that looks for what a
// list names, as distribution does, refuses one with a referrer that was deleted a moment ago: gone is what it lacks.
func (ex *exchange) writeFallback(c referrerChange, look fallbackLook) (gone []ocispec.Descriptor, err error) {
	if len(look.wanted) == 0 && ex.deleted(look.held) {
		return nil, nil // nothing is listed by nothing
	}
	index := look.index
	index.Manifests = look.wanted
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	body, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	put, err := ex.sendManifest(filters.FallbackTag(c.subject), body, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	if put.StatusCode >= 300 {
		if missing(put) {
			gone, err = ex.lacking(look.wanted, c.entry)
		}
		if err == nil && len(gone) == 0 {
			err = &passed{put}
		}
		return gone, err
	}
	discard(put)
	if look.held != "" && look.held != ocidoc.DigestOf(body) {
		ex.deleted(look.held)
	}
	return nil, nil
}

// lacking are the entries, but for one, whose manifests upstream does not have.
func (ex *exchange) lacking(list []ocispec.Descriptor, but ocispec.Descriptor) (gone []ocispec.Descriptor, err error) {
	for _, d := range list {
		if d.Digest == but.Digest {
			continue
		}
		there, err := ex.exists(manifestPath(d.Digest.String()))
		if err != nil {
			return nil, err
		}
		if !there {
			gone = append(gone, d)
		}
	}
	return gone, nil
}

// deleted tries to delete the list that a tag held before: it would stay as an untagged index, and Amazon ECR deletes
// nothing that an index lists. oras-go does the same. A registry that does not delete keeps it.
func (ex *exchange) deleted(digest string) bool {
	if digest == "" {
		return false
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Path: manifestPath(digest), Push: true})
	if err != nil {
		return false
	}
	discard(resp)
	return resp.StatusCode < 300
}

// listsItself tells whether upstream lists a referrer by itself, of which resp is the answer to its push, nil if it was there.
// OCI-Subject says so, but Amazon ECR has sent it without having the API (sigstore-js pull request 1183), and clients that
// therefore look at the API (crane, actions/attest) find Sluice's. So each registry is asked once. It is believed by its
// header where it does not say: whoever pushes may have no right to list.
func (ex *exchange) listsItself(resp *http.Response, subject string) (bool, error) {
	says := resp != nil && resp.Header.Get("OCI-Subject") != ""
	if _, known := ex.p.selfListing.Load(ex.up); says && known {
		return true, nil
	}
	has, err := ex.upstreamHasReferrers(subject)
	if says && err != nil {
		forgo(err)
		return true, nil
	}
	if has {
		ex.p.selfListing.Store(ex.up, true)
	}
	return has, err
}

// upstreamHasReferrers asks; an upstream that answers the API but not OCI-Subject needs no tag.
func (ex *exchange) upstreamHasReferrers(digest string) (bool, error) {
	resp, b, err := askWhole(ex.do, upstream.Request{Method: http.MethodGet, Path: "referrers/" + digest}, ocidoc.MaxBytes)
	if resp == nil {
		return false, err
	}
	switch {
	case upstream.NoReferrersAPI(resp.StatusCode):
		discard(resp)
		return false, nil
	case resp.StatusCode != http.StatusOK: // a right that is missing, or trouble, says nothing about the API
		return false, &passed{resp}
	}
	if err != nil && !errors.Is(err, errLongDocument) { // it says nothing about the API either
		return false, ex.unreadReferrers(digest, err)
	}
	var index ocispec.Index
	return json.Unmarshal(b, &index) == nil && (index.Manifests != nil || index.MediaType != ""), nil
}

// A keyedMutex lets one goroutine of this process at a time change one fallback tag: those that wait find what they want
// listed already. The change takes as long as the registry does, so whoever hangs up waits no longer.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[string]*countedLock
}

type countedLock struct {
	held  chan struct{}
	users int
}

func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*countedLock{}
	}
	l := k.locks[key]
	if l == nil {
		l = &countedLock{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
