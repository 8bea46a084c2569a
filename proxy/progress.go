package proxy

import (
	"slices"
	"sync"

	"sluice/proxy/session"
)

// maxProgress bounds how many uploads are remembered; the oldest go first.
const maxProgress = 4096

// progress remembers how far uploads in several requests have come, so that an upload URL of an
// earlier answer tells the truth (distribution-spec, "Pushing a blob in chunks": a repeated chunk is
// 416, the status is what has arrived). It is a hint of this process: on another replica an old URL
// begins again where it was given out, and upstream's check of the digest guards the end.
type progress struct {
	mu    sync.Mutex
	byID  map[string]remembered
	order []string
}

type remembered struct {
	state     session.State
	cancelled bool
}

func newProgress() *progress { return &progress{byID: map[string]remembered{}} }

func (p *progress) put(st session.State) { p.remember(remembered{state: st}) }

// cancel ends an upload that exists in its URL only.
func (p *progress) cancel(st session.State) { p.remember(remembered{state: st, cancelled: true}) }

func (p *progress) remember(r remembered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.byID[r.state.ID]; !known {
		p.order = append(p.order, r.state.ID)
		if len(p.order) > maxProgress {
			delete(p.byID, p.order[0])
			p.order = p.order[1:]
		}
	}
	p.byID[r.state.ID] = r
}

// newest is the later of a sealed state and what is remembered of its upload.
func (p *progress) newest(st session.State) (newest session.State, stale, cancelled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.byID[st.ID]
	if !ok || !known.cancelled && known.state.Offset <= st.Offset {
		return st, false, false
	}
	return known.state, true, known.cancelled
}

func (p *progress) done(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.byID[id]; known {
		delete(p.byID, id)
		p.order = slices.DeleteFunc(p.order, func(other string) bool { return other == id })
	}
}
