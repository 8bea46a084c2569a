package proxy

import (
	"crypto/sha256"
	"strconv"
	"sync"
)

// What the bookkeeping of heldLedger may cost: some 100 bytes for each thing, whoever pushes what.
const (
	maxHolders = 4096
	maxThings  = 1 << 16
)

// A heldThing is one object in the quarantine.
type heldThing struct {
	kind string // as the quarantine calls it: "blob", "manifest"; and "part" of an upload
	repo string
	id   string // digest, or upload and number
}

func heldBlobOf(repo, digest string) heldThing     { return heldThing{"blob", repo, digest} }
func heldManifestOf(repo, digest string) heldThing { return heldThing{"manifest", repo, digest} }

func heldPart(repo, upload string, n int) heldThing {
	return heldThing{"part", repo, upload + "/" + strconv.Itoa(n)}
}

// A chargeKey is a heldThing in one generation, shortened: names are long, and there may be many.
type chargeKey [16]byte

func (t heldThing) in(generation string) chargeKey {
	h := sha256.New()
	for _, part := range []string{generation, t.kind, t.repo, t.id} { // no line feed is in any
		h.Write([]byte(part))
		h.Write([]byte{'\n'})
	}
	return chargeKey(h.Sum(nil)[:16])
}

// A charge is what one thing costs the identity that holds it.
type charge struct {
	holder     *holder
	generation string
	bytes      int64
}

// A holder is an identity that holds something, or is about to.
type holder struct {
	identity string
	total    int64            // of its charges, of lasting, and what is being written
	writing  int              // reservations that have not ended
	charges  int              // in the table
	lasting  map[string]int64 // by generation: things that are not in the table any more, which cost until they are swept
}

// heldLedger knows what each identity holds in the quarantine that nothing has asked for, thing by thing: its bytes as they
// were written, whatever a client says of them. A charge ends once, when its thing is taken, deleted or swept.
//
// Its memory is bounded, and what no longer fits errs on the side of the storage: the identity with the most things
// pays for some of them until they are swept, whatever becomes of them.
type heldLedger struct {
	mu          sync.Mutex
	holders     map[string]*holder
	charges     map[chargeKey]charge
	generations map[string]int // how many charges of each are in the table
	most        int            // charges in the table
}

func newHeldLedger() *heldLedger {
	return &heldLedger{holders: map[string]*holder{}, charges: map[chargeKey]charge{}, generations: map[string]int{}, most: maxThings}
}

// A reservation is room for something that is being written, so that requests that run at once cannot exceed the limit
// together. nil is one without a limit, that counts nothing. It is for one goroutine, and is ended once.
type reservation struct {
	ledger *heldLedger
	holder *holder
	limit  int64
	bytes  int64
	ended  bool
}

// reserve begins to hold something of a size that is not known yet.
func (l *heldLedger) reserve(identity string, limit int64) *reservation {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holder(identity)
	h.writing++
	return &reservation{ledger: l, holder: h, limit: limit}
}

// grow is false when that would be too much.
func (r *reservation) grow(n int64) bool {
	if r == nil || n <= 0 {
		return true
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	if r.holder.total+n > r.limit {
		return false
	}
	r.holder.total += n
	r.bytes += n
	return true
}

// hold turns a reservation into the charge for a thing of n bytes that was written. A thing that was written again is in
// the place of the one before.
func (r *reservation) hold(t heldThing, generation string, n int64) {
	if r == nil || r.ended {
		return
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.ledger.put(t.in(generation), charge{r.holder, generation, n})
	r.end()
}

// drop ends a reservation of which nothing is held.
func (r *reservation) drop() {
	if r == nil || r.ended {
		return
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.end()
}

// size is how much has been reserved.
func (r *reservation) size() int64 {
	if r == nil {
		return 0
	}
	return r.bytes
}

func (r *reservation) end() {
	r.ended = true
	r.holder.total -= r.bytes
	r.holder.writing--
	r.ledger.forgetIdle(r.holder)
}

// full is true when the identity may not hold n bytes more.
func (l *heldLedger) full(identity string, n, limit int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := max(n, 0)
	if h := l.holders[identity]; h != nil {
		total += h.total
	}
	return total > limit
}

// release ends the charges for a thing in all generations, if there are any.
func (l *heldLedger) release(t heldThing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releaseLocked(t)
}

func (l *heldLedger) releaseLocked(t heldThing) (any bool) {
	for generation := range l.generations { // there are as many as days of retention
		if key := t.in(generation); l.remove(key) {
			any = true
		}
	}
	return any
}

// releaseParts ends the charges for an upload that is known to have had n parts, and may have more.
func (l *heldLedger) releaseParts(repo, upload string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; l.releaseLocked(heldPart(repo, upload, i)) || i < n; i++ { //nolint:revive // the condition does the work
	}
}

// copied charges for a copy in a younger generation, which lives on when the first is swept.
func (l *heldLedger) copied(t heldThing, generation string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.charges[t.in(generation)]; there {
		return
	}
	for g := range l.generations {
		if c, ok := l.charges[t.in(g)]; ok {
			c.generation = generation
			l.put(t.in(generation), c)
			return
		}
	}
}

// swept ends the charges of generations that are not in the storage any more. Which ones those are the storage says, and
// not the clock: any replica may have swept them, and one that is written to lives longer. Those that may only just have
// come into being are spared.
func (l *heldLedger) swept(live func(generation string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, c := range l.charges {
		if !live(c.generation) {
			l.remove(key)
		}
	}
	for _, h := range l.holders {
		for g, n := range h.lasting {
			if !live(g) {
				h.total -= n
				delete(h.lasting, g)
			}
		}
		l.forgetIdle(h)
	}
}

// pressed is true when somebody has used up half of what each may hold, or the table is half full.
func (l *heldLedger) pressed(limit int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.holders {
		if h.total > limit/2 {
			return true
		}
	}
	return len(l.charges) > l.most/2
}

// keys are those of all charges in the table.
func (l *heldLedger) keys() map[chargeKey]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := make(map[chargeKey]bool, len(l.charges))
	for key := range l.charges {
		keys[key] = true
	}
	return keys
}

// end ends charges for what is not there any more.
func (l *heldLedger) end(gone map[chargeKey]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range gone {
		l.remove(key)
	}
}

// anyCharged is true when one of the things costs somebody something.
func (l *heldLedger) anyCharged(things []heldThing) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range things {
		for generation := range l.generations {
			if _, ok := l.charges[t.in(generation)]; ok {
				return true
			}
		}
	}
	return false
}

func (l *heldLedger) put(key chargeKey, c charge) {
	l.remove(key)
	if len(l.charges) >= l.most {
		l.makeRoom()
	}
	l.charges[key] = c
	l.generations[c.generation]++
	c.holder.charges++
	c.holder.total += c.bytes
	l.holders[c.holder.identity] = c.holder // it may have been forgotten in between
}

func (l *heldLedger) remove(key chargeKey) bool {
	c, ok := l.charges[key]
	if !ok {
		return false
	}
	l.untable(key, c)
	c.holder.total -= c.bytes
	l.forgetIdle(c.holder)
	return true
}

func (l *heldLedger) untable(key chargeKey, c charge) {
	delete(l.charges, key)
	if l.generations[c.generation]--; l.generations[c.generation] == 0 {
		delete(l.generations, c.generation)
	}
	c.holder.charges--
}

// makeRoom lets whoever has the most things in the table pay for an eighth of it until they are swept.
func (l *heldLedger) makeRoom() {
	var most *holder
	for _, h := range l.holders {
		if most == nil || h.charges > most.charges {
			most = h
		}
	}
	left := max(1, l.most/8)
	for key, c := range l.charges {
		if c.holder != most {
			continue
		}
		if most.lasting == nil {
			most.lasting = map[string]int64{}
		}
		most.lasting[c.generation] += c.bytes
		l.untable(key, c)
		if left--; left == 0 {
			return
		}
	}
}

// holder finds an identity's, and makes it. Of too many the one that holds least is forgotten.
func (l *heldLedger) holder(identity string) *holder {
	if h := l.holders[identity]; h != nil {
		return h
	}
	if len(l.holders) >= maxHolders {
		l.forgetLeast()
	}
	h := &holder{identity: identity}
	l.holders[identity] = h
	return h
}

func (l *heldLedger) forgetLeast() {
	var least *holder
	for _, h := range l.holders {
		if h.writing == 0 && (least == nil || h.total < least.total) {
			least = h
		}
	}
	if least == nil {
		return // all are writing: there are no more of them than requests
	}
	for key, c := range l.charges {
		if c.holder == least {
			l.untable(key, c)
		}
	}
	delete(l.holders, least.identity)
}

func (l *heldLedger) forgetIdle(h *holder) {
	if h.writing == 0 && h.charges == 0 && len(h.lasting) == 0 && l.holders[h.identity] == h {
		delete(l.holders, h.identity)
	}
}
