package conformance

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// caseTimeout bounds one case: a registry that does not answer fails it instead of hanging the run.
const caseTimeout = 60 * time.Second

// check is one run of one case against one target. Its methods end the case when the registry does not do as it should.
type check struct {
	ctx    context.Context
	client *http.Client
	base   string
	prefix string // of this run's repositories, so that a registry can be used for many runs
	seed   *mathrand.Rand
}

// failed carries a case's end through the helpers that noticed it.
type failed struct {
	reason string
	status int // of the answer that ended the case; 0 if it was none
}

// try runs the case and returns why it failed.
func (tc testCase) try(t *testing.T, target Target) (err error) {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	defer cancel()
	h := fnv.New64a()
	_, _ = h.Write([]byte(tc.path()))
	// no two runs push the same bytes: olareg, for one, caches lists of referrers by their digest, and forgets the filter's header
	var unique [8]byte
	_, _ = rand.Read(unique[:]) // never fails, by its documentation
	c := &check{
		ctx: ctx, client: target.Client, base: strings.TrimSuffix(target.URL, "/"),
		prefix: "conformance/" + hex.EncodeToString(unique[:6]),
		seed:   mathrand.New(mathrand.NewPCG(h.Sum64(), binary.BigEndian.Uint64(unique[:]))), //nolint:gosec // test content
	}
	if c.client == nil {
		c.client = http.DefaultClient
	}
	defer func() {
		switch end := recover().(type) {
		case nil:
		case failed:
			err = fmt.Errorf("%s", end.reason)
		default:
			panic(end)
		}
	}()
	tc.run(c)
	return nil
}

func (c *check) failf(format string, args ...any) {
	panic(failed{reason: fmt.Sprintf(format, args...)})
}

// repo names a repository that only this run of this case uses.
func (c *check) repo(last string) string { return c.prefix + "/" + last }

// random makes n bytes that no other run has.
func (c *check) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.seed.Uint32())
	}
	return b
}

// atOnce runs f n times concurrently, and ends the case as the first failed one did.
func (c *check) atOnce(n int, f func(i int)) {
	ends := make([]any, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			defer func() { ends[i] = recover() }()
			f(i)
		})
	}
	wg.Wait()
	for _, end := range ends {
		if end != nil {
			panic(end)
		}
	}
}
