package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// An act is what one actor does, and what came of it.
type act struct {
	proxytest.Actor
	kind   string // "push", "delete", "image", "sign", "read", "sweep"
	repo   string
	tag    string
	tree   *proxytest.Tree // that is pushed, read or signed
	digest string          // that is deleted
	signed *signature
	o      proxytest.Options
	client proxytest.Client
	by     []*replica // whom it asks, the next when one fails
	misfortune

	begun, ended time.Time
	put          time.Time // the document that comes last was sent
	err          error
	sent         bool // a delete
	answer       *answer
}

// action is that of the rule that a push meets.
func (a *act) action() filters.Action {
	if a.now != nil {
		return a.now.config.Attestations
	}
	return a.by[0].config.Attestations
}

func (a *act) beside(b *act) bool { return a.begun.Before(b.ended) && b.begun.Before(a.ended) }

// noting notes when the last document of a push is sent.
type noting struct {
	http.RoundTripper
	a    *act
	mu   sync.Mutex
	last string
}

func (n *noting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/"+n.last) {
		n.mu.Lock()
		n.a.put = time.Now()
		n.mu.Unlock()
	}
	return n.RoundTripper.RoundTrip(r)
}

func (l *woven) pushActor(at place, tree *proxytest.Tree) *act {
	r := draw(l, l.replicas...)
	a := &act{kind: "push", repo: at.repo, tag: at.ref, tree: tree, client: draw(l, proxytest.Clients()...), by: l.order(r)}
	if !a.client.Indexes || (a.client.Name == "crane" || a.client.Name == "oras") && l.noAPI {
		a.client = proxytest.Clients()[0]
	}
	a.o = proxytest.Options{BaseURL: wovenURL, Repository: at.repo, Tags: []string{at.ref}, Tree: tree, Sequential: draw(l, true, false), ByDigest: l.IntN(5) == 0}
	last := at.ref
	if a.o.ByDigest {
		a.o.Tags, last = nil, tree.Digest()
	}
	if l.IntN(4) == 0 {
		a.o.MountFrom = map[string]string{"app": "lib", "lib": "app"}[at.repo]
	}
	a.Name = fmt.Sprintf("%s pushes %.15s to %s:%s by %s, by digest: %t, mount from %q", a.client.Name, tree.Digest(), at.repo, at.ref, r.name, a.o.ByDigest, a.o.MountFrom)
	a.Do = func(ctx context.Context) {
		l.tries(ctx, a, func(ctx context.Context, r *replica) bool {
			a.o.Client = &http.Client{Transport: &noting{RoundTripper: r, a: a, last: last}}
			_, a.err = a.client.Push(ctx, a.o)
			return a.err == nil
		})
	}
	return a
}

// deleteActor deletes an attestation, by the one or the other of its digests.
func (l *woven) deleteActor(repo string, tree *proxytest.Tree) *act {
	i := l.IntN(len(tree.Attestations()))
	digest := draw(l, tree.Attestations()[i].Digest, l.asListed(tree, i))
	return l.deleting(repo, tree.Attestations()[i].Digest, digest)
}

func (l *woven) deleteOriginalActor(repo string, tree *proxytest.Tree) *act {
	return l.deleting(repo, tree.Digest(), tree.Digest())
}

func (l *woven) deleting(repo, what, digest string) *act {
	r := draw(l, l.replicas...)
	a := &act{kind: "delete", repo: repo, digest: what, by: l.order(r)}
	a.Name = fmt.Sprintf("delete of %.15s as %.15s in %s by %s", what, digest, repo, r.name)
	a.Do = func(ctx context.Context) {
		l.tries(ctx, a, func(ctx context.Context, r *replica) bool {
			send, path := l.send(ctx, r), "/v2/"+repo+"/manifests/"+digest
			if a.sent || send(http.MethodGet, path, nil, acceptAll...).StatusCode == http.StatusOK {
				a.sent = true
				a.answer = send(http.MethodDelete, path, nil)
			}
			return !a.sent || a.answered()
		})
	}
	return a
}

func (l *woven) sweepActor() *act {
	r := draw(l, l.replicas...)
	return &act{kind: "sweep", by: []*replica{r}, Actor: proxytest.Actor{Name: "sweep by " + r.name, Do: func(ctx context.Context) { l.sweep(ctx, r) }}}
}

// deleteImageActor deletes what upstream has in an original's place, if it is an index: what it lists stays.
func (l *woven) deleteImageActor(repo string, tree *proxytest.Tree) *act {
	r := draw(l, l.replicas...)
	a := &act{kind: "image", repo: repo, tree: tree, by: []*replica{r}}
	a.Name = fmt.Sprintf("delete of the image of %.15s in %s by %s", tree.Digest(), repo, r.name)
	a.Do = func(ctx context.Context) {
		send, path := l.send(ctx, r), "/v2/"+repo+"/manifests/"
		h := send(http.MethodHead, path+tree.Digest(), nil, acceptAll...)
		a.digest = h.Header.Get("Sluice-Forwarded-Digest")
		if t := send(http.MethodHead, path+a.digest, nil, acceptAll...).Header.Get("Content-Type"); h.StatusCode == http.StatusOK && a.digest != "" && t == ociIndex {
			a.sent = true
			a.answer = send(http.MethodDelete, path+a.digest, nil)
		}
	}
	return a
}

func (l *woven) signActor(repo string, tree *proxytest.Tree) *act {
	r := draw(l, l.replicas...)
	a := &act{kind: "sign", repo: repo, tree: tree, by: []*replica{r}}
	if a.signed = bundleOf(draw(l, tree.Attestations()...)); l.IntN(2) == 0 {
		image := draw(l, tree.Images()...)
		a.signed = signatureOf(image.Digest, len(image.Bytes()), bundleType)
	}
	a.Name = fmt.Sprintf("signature %.15s of %.15s in %s by %s", a.signed.digest, a.signed.subject, repo, r.name)
	a.Do = func(ctx context.Context) { a.answer = a.signed.push(l.send(ctx, r), repo) }
	return a
}

// readActor reads what is kept, once and again.
func (l *woven) readActor(repo string, tree *proxytest.Tree) *act {
	k := l.kept[place{repo, tree.Digest()}]
	r := l.reader()
	a := &act{kind: "read", repo: repo, tree: tree, by: []*replica{r}}
	a.Name = fmt.Sprintf("read of %.15s in %s by %s", tree.Digest(), repo, r.name)
	a.Do = func(ctx context.Context) {
		for range 2 {
			if k == nil || a.err != nil {
				return
			}
			back, err := proxytest.Pull(ctx, proxytest.PullOptions{BaseURL: wovenURL, Repository: repo, Reference: tree.Digest(), Client: &http.Client{Transport: r}})
			if err == nil {
				err = back.Equal(tree)
			}
			if a.err = err; err == nil && !k.strip && !k.plain {
				a.err = l.listed(func(path string) *answer { return l.send(ctx, r)(http.MethodGet, path, nil) }, repo, tree)
			}
		}
	}
	return a
}

// together makes all of it at the same time, and says what is there by then.
func (l *woven) together(acts ...*act) {
	l.t.Helper()
	var actors []proxytest.Actor
	for _, a := range acts {
		do := a.Do
		actors = append(actors, proxytest.Actor{Name: a.Name, At: l.befalls(a), Do: func(ctx context.Context) {
			a.begun = time.Now()
			do(ctx)
			a.ended = time.Now()
		}})
	}
	l.begin()
	l.weave.Run(context.Background(), actors...)
	for _, r := range l.replicas {
		r.HandlersEnd()
		r.Settle()
	}
	l.calm(acts)
	if of := func(kind string) bool { return slices.ContainsFunc(acts, func(a *act) bool { return a.kind == kind }) }; of("sweep") && of("push") {
		// What is put aside in the moment in which it is pushed again is given back by the next sweep (attest.Sweep).
		l.sweep(context.Background(), draw(l, l.replicas...))
	}
	for _, a := range acts {
		status := ""
		if a.answer != nil {
			status = a.answer.Status + " " + string(bytes.TrimSpace(a.answer.body))
		}
		l.happens("%s: %s to %s, last document at %s: %v %s", a.Name, a.begun.Format("05.000"), a.ended.Format("05.000"), a.put.Format("05.000"), a.err, status)
	}
	if len(acts) > 1 {
		l.happens("woven as\n%s", l.weave.Log())
	}
	for _, a := range acts {
		if a.kind == "push" {
			l.pushedAgain(a)
		}
	}
	inTurn := func(a *act) string { // deletes, then store, then strip
		if a.kind == "push" || a.kind == "sign" {
			return string(a.action())
		}
		return ""
	}
	slices.SortStableFunc(acts, func(a, b *act) int { return strings.Compare(inTurn(a), inTurn(b)) })
	for _, a := range acts {
		switch a.kind {
		case "push":
			l.pushed(a, acts)
		case "delete", "image":
			l.deleted(a, acts)
		case "sign":
			if a.answer.StatusCode == http.StatusCreated && a.action() == filters.Store {
				l.signed[place{a.repo, a.signed.digest}] = a.signed
			} else if !a.excused && (a.answer.StatusCode >= 500 || a.answer.StatusCode == http.StatusTooManyRequests) {
				l.t.Errorf("%s: %s %s", a.Name, a.answer.Status, a.answer.body)
			}
		}
	}
	l.tagged(acts...)
	for _, a := range acts {
		deleted := func(d *act) bool { return d.about(a.repo, a.tree) && d.begun.Before(a.ended) }
		if a.kind == "read" && a.err != nil && !a.excused && !slices.ContainsFunc(acts, deleted) && !l.disturbed(a, acts) {
			l.t.Errorf("%s: %v", a.Name, a.err)
		}
	}
	for _, p := range inOrder(l.signed) {
		if slices.ContainsFunc(acts, func(d *act) bool { return d.kind == "delete" && d.repo == p.repo && d.digest == l.signed[p].subject }) {
			delete(l.signed, p)
		}
	}
}

// about is true for a delete that is about a tree, or about the image that it is forwarded as.
func (a *act) about(repo string, tree *proxytest.Tree) bool {
	if a.repo != repo {
		return false
	}
	switch a.kind {
	case "delete":
		return a.digest == tree.Digest() || slices.ContainsFunc(tree.Attestations(), func(m *proxytest.Manifest) bool { return m.Digest == a.digest })
	case "image": // builds of the same source have the same images
		return true
	}
	return false
}

// disturbed is true when what an act is about is deleted, or may expire, beside it.
func (l *woven) disturbed(a *act, acts []*act) bool {
	return slices.ContainsFunc(acts, func(d *act) bool {
		return d != a && d.beside(a) && (d.about(a.repo, a.tree) || d.kind == "sweep" && (l.expires > 0 || l.action == filters.Strip || l.theme == "rules"))
	})
}

// decides is when a push needs all that it has been told is there. Under `strip` nobody looks for statements any more, and who
// deletes them at the same time deletes them.
func (l *woven) decides(push *act) time.Time {
	if push.action() == filters.Strip {
		return push.begun
	}
	return push.put
}

// pushedAgain: what was deleted may be there again.
func (l *woven) pushedAgain(a *act) {
	for i, m := range a.tree.Attestations() {
		delete(l.gone, place{a.repo, m.Digest})
		delete(l.gone, place{a.repo, l.asListed(a.tree, i)})
	}
}

// pushAgain is what a client does that is told so: a blob that ECR has for nobody is sent when it was missed once.
func (l *woven) pushAgain(a *act) {
	if a.err != nil && !a.by[0].dead && l.up.Kind == "ecrsim" && strings.Contains(a.err.Error(), "push again") {
		a.most, a.put = 1, time.Time{}
		a.Do(context.Background())
		a.ended = time.Now()
		l.happens("%s, as it is told: %v", a.Name, a.err)
	}
}

func (l *woven) pushed(a *act, acts []*act) {
	l.t.Helper()
	l.pushAgain(a)
	if a.err != nil {
		l.owed = append(l.owed, a)
		if !l.disturbed(a, acts) && !a.excused {
			l.t.Errorf("%s: %v", a.Name, a.err)
		}
		return
	}
	original := place{a.repo, a.tree.Digest()}
	if a.put.IsZero() && !a.o.ByDigest { // it was there, and nothing was said again
		if l.kept[original] != nil {
			l.tags[place{a.repo, a.tag}] = true
		}
		return
	}
	if a.put.IsZero() {
		return
	}
	if a.action() != l.action && l.kept[original] != nil { // what is kept for longer stays
		return
	}
	k := &keptTree{tree: a.tree, at: a.ended, strip: a.action() == filters.Strip, plain: a.action() == filters.Forward}
	for _, d := range acts {
		if d.about(a.repo, a.tree) && d.sent && !d.ended.Before(l.decides(a)) {
			return // it is there or not, see open
		}
	}
	if k.strip && l.up.Kind == "ecrsim" && l.to != config.StoreToStorage && l.whole(a.repo, a.tree) != nil {
		// A statement that a destination has had is there for clients that look, and not given back. Under strip no index
		// needs it: the first who misses it has the next push send it.
		if b := l.pushActor(place{a.repo, a.tag}, a.tree); b.action() == filters.Strip {
			b.Do(context.Background())
			l.happens("once more: %s: %v", b.Name, b.err)
			l.tagged(b)
		} else {
			return
		}
	}
	l.kept[original] = k
	if !a.o.ByDigest {
		l.tags[place{a.repo, a.tag}] = true
	}
}

// deleted forgets what somebody has deleted; what ends beside a push of the same is open.
func (l *woven) deleted(a *act, acts []*act) {
	l.t.Helper()
	if !a.sent {
		return
	}
	if !a.answered() {
		l.owed = append(l.owed, a)
		again := a.answer != nil && a.answer.StatusCode == http.StatusTooManyRequests && slices.ContainsFunc(acts, func(b *act) bool {
			return b.kind == "push" && b.beside(a)
		})
		if !a.excused && !again {
			l.t.Errorf("%s: %s %s", a.Name, a.answer.Status, a.answer.body)
		}
	}
	for _, p := range inOrder(l.kept) {
		k := l.kept[p]
		if !a.about(p.repo, k.tree) || slices.ContainsFunc(acts, func(b *act) bool {
			return b.kind == "push" && b.err == nil && b.repo == p.repo && b.tree == k.tree && a.ended.Before(l.decides(b)) && (k.strip || b.action() == filters.Store)
		}) {
			continue
		}
		delete(l.kept, p)
	}
	for _, tree := range l.trees {
		for i, m := range tree.Attestations() {
			if !a.answered() || m.Digest != a.digest || slices.ContainsFunc(acts, func(b *act) bool {
				return b.kind == "push" && b.repo == a.repo && b.tree == tree && b.ended.After(a.begun)
			}) {
				continue
			}
			for _, digest := range []string{m.Digest, l.asListed(tree, i)} {
				l.gone[place{a.repo, digest}] = tree.Images()[i].Digest
			}
		}
	}
	if a.kind == "image" {
		for _, p := range inOrder(l.tags) {
			if p.repo == a.repo {
				delete(l.tags, p)
			}
		}
	}
}
