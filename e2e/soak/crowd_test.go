//go:build soak

package soak

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/proxy/proxytest"
)

const crowd = 20

// crowds push one tag from twenty places at once, now and then. It ends as what one of them pushed (I6).
func (c *client) crowds(ctx context.Context, w *world) {
	c.n.expect("crowds on one tag")
	for i := 0; ctx.Err() == nil; i++ {
		c.pause(ctx, 10*time.Second)
		repo, tag := c.repository(), fmt.Sprintf("crowd-%d-%d", w.loads, i)
		var everybody sync.WaitGroup
		var mu sync.Mutex
		forwarded := map[string]bool{}
		for k := range crowd {
			one := newClient(c.t, k, w.sluices[k%2], w, c.n) // those of one registry
			o := proxytest.SyntheticOptions{Seed: uint64(1_000_000 + k%5), LayerSize: 4 << 10}
			plain := proxytest.Synthetic(o)
			o.Form, o.Build = proxytest.FormLegacy, i*crowd+k
			tree, p := proxytest.Synthetic(o), c.pusher()
			everybody.Go(func() {
				defer one.http.CloseIdleConnections()
				if one.arrives(ctx, p, repo, tag, tree, plain) {
					mu.Lock()
					defer mu.Unlock()
					forwarded[plain.Digest()] = true
				}
			})
		}
		everybody.Wait()
		if got := c.up.has(repo, "manifests/"+tag); !forwarded[got] {
			c.t.Errorf("%s:%s upstream is %q, which nobody of the crowd pushed (I6)", repo, tag, got)
		}
		c.n.did("crowds on one tag")
	}
}
