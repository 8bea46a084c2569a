package proxy

import (
	"net/http"
	"sync"
	"time"

	"sluice/proxy/config"
)

// maxHolders bounds the memory of heldQuota. Identities that may push are few; beyond it one is forgotten.
const maxHolders = 4096

// heldQuota counts what each identity has put in quarantine and nothing has taken out again: what an index claims is
// given back, and so is what is released, since a pusher who finishes fills nothing. What is left goes with its
// generation, as the bytes themselves do.
//
// It counts in this process, and from its start: replicas share only the storage, which has no counter that many can
// add to, and the quota is there against one client that fills the storage, not for bills. With n replicas the bound is n
// times as high. Requests that run at once may together exceed it by max_held_blob each.
type heldQuota struct {
	limit config.Size // 0: none
	days  int64       // how long the quarantine keeps what nobody claims
	now   func() time.Time

	*heldCounts
}

// heldCounts is what heldQuota has counted: it stays when the configuration changes.
type heldCounts struct {
	mu   sync.Mutex
	held map[string]map[int64]int64 // bytes by Identity.Key and UTC day
}

func newHeldCounts() *heldCounts { return &heldCounts{held: map[string]map[int64]int64{}} }

func newHeldQuota(c *config.Config, now func() time.Time, counted *heldCounts) *heldQuota {
	// One day more, as the sweeper has it.
	return &heldQuota{limit: c.Access.MaxHeldPerIdentity, days: int64(c.Retention) + 1, now: now, heldCounts: counted}
}

func (q *heldQuota) today() int64 { return q.now().Unix() / 86400 }

// full is true when the identity may not hold n bytes more.
func (q *heldQuota) full(identity string, n int64) bool {
	if q.limit == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	total := max(n, 0)
	for day, bytes := range q.held[identity] {
		if q.today()-day > q.days {
			delete(q.held[identity], day)
			continue
		}
		total += bytes
	}
	return total > int64(q.limit)
}

func (q *heldQuota) charge(identity string, n int64) {
	if q.limit == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[identity] == nil {
		if len(q.held) >= maxHolders {
			for other := range q.held {
				delete(q.held, other)
				break
			}
		}
		q.held[identity] = map[int64]int64{}
	}
	q.held[identity][q.today()] += n
}

// credit gives back, newest first: what is claimed is nearly always what was pushed a moment ago.
func (q *heldQuota) credit(identity string, n int64) {
	if q.limit == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	days := q.held[identity]
	for day := q.today(); n > 0 && len(days) > 0 && q.today()-day <= q.days; day-- {
		back := min(n, days[day])
		if n -= back; days[day] == back {
			delete(days, day)
		} else {
			days[day] -= back
		}
	}
	if days != nil && len(days) == 0 {
		delete(q.held, identity)
	}
}

// roomFor refuses to hold more for an identity that has pushed what no index has asked for.
func (ex *exchange) roomFor(n int64) error {
	if !ex.p.heldQuota.full(ex.id.Key, n) {
		return nil
	}
	return refuse(http.StatusForbidden, codeDenied,
		"%s has pushed attestations of more than %s that no index has named: finish those pushes, wait %d days, or raise access.max_held_per_identity of sluice",
		ex.id.Name, ex.p.cfg.Access.MaxHeldPerIdentity, int(ex.p.cfg.Retention)+1)
}

func (ex *exchange) holds(n int64) { ex.p.heldQuota.charge(ex.id.Key, n) }

func (ex *exchange) holdsNoMore(n int64) { ex.p.heldQuota.credit(ex.id.Key, n) }

// claimed gives back what an index has taken out of its quarantine.
func (ex *exchange) claimed(rw *rewriting) {
	var n int64
	for _, t := range rw.plan.Taken {
		if t.Manifest == nil {
			continue
		}
		n += int64(len(t.Manifest.Bytes))
		for _, b := range blobsOf(t.Manifest) {
			n += max(b.Size, 0)
		}
	}
	ex.holdsNoMore(n)
	for _, inner := range rw.nested {
		ex.claimed(inner)
	}
}
