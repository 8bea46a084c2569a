//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Invariant I7: killed at any instruction, started again, pushed again, and nothing shows that it ever happened.
//
// SLUICE_E2E_SEED repeats the moments of an earlier run as well as timing allows; SLUICE_E2E_KILLS sets their number.
func TestKilledAtAnyMomentOfAPushTheNextOneEndsTheSame(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SLUICE_E2E_SEED"), 10, 64); err == nil {
		seed = s
	}
	kills := 10
	if n, err := strconv.Atoi(os.Getenv("SLUICE_E2E_KILLS")); err == nil {
		kills = n
	}
	t.Logf("SLUICE_E2E_SEED=%d SLUICE_E2E_KILLS=%d", seed, kills)
	random := rand.New(rand.NewPCG(seed, 0))
	m, crane := needImages(t), tool(t, "crane")

	pushes := []struct {
		name string
		// push sends the image of a round, and clean the same one without attestations.
		push  func(round int, ref string) error
		clean func(t testing.TB, round int, ref string)
	}{
		{"crane", func(_ int, ref string) error {
			_, err := tryRun(crane, "copy", "--insecure", m.attested["artifact"], ref)
			return err
		}, func(t testing.TB, _ int, ref string) {
			run(t, crane, "copy", "--insecure", m.clean["artifact"], ref)
		}},
	}
	for _, form := range forms {
		k := needBuilder(t, form.builder)
		dirs := map[int]string{}
		dir := func(round int) string { // an application per round: layers that were pushed once are mounted the next time
			if dirs[round] == "" {
				dirs[round] = newApplication(t, seed+uint64(round))
			}
			return dirs[round]
		}
		pushes = append(pushes, struct {
			name  string
			push  func(round int, ref string) error
			clean func(t testing.TB, round int, ref string)
		}{"BuildKit " + form.name, func(round int, ref string) error {
			_, err := k.build(dir(round), bothPlatforms, push(ref)...)
			return err
		}, func(t testing.TB, round int, ref string) {
			k.mustBuild(t, dir(round), bothPlatforms, withoutAttestations(ref)...)
		}})
	}

	for _, p := range pushes {
		t.Run(p.name, func(t *testing.T) {
			w := newWorld(t)
			w.needSluice(t)
			var usual time.Duration // of the second, since the first push of all builds and connects
			for round := -2; round < 0; round++ {
				p.clean(t, round, fmt.Sprintf("%s/undisturbed%d-reference:1", w.direct, round))
				started := time.Now()
				if err := p.push(round, fmt.Sprintf("%s/undisturbed%d:1", w.via, round)); err != nil {
					t.Fatal(err)
				}
				usual = time.Since(started)
			}
			interrupted, failed := 0, 0
			for round := range kills {
				repository := fmt.Sprintf("app-%d", round)
				p.clean(t, round, w.direct+"/"+repository+"-reference:1")
				finished := make(chan error, 1)
				go func() { finished <- p.push(round, w.via+"/"+repository+":1") }()
				moment := time.Duration(random.Int64N(int64(usual)))
				select {
				case <-time.After(moment):
					interrupted++
				case err := <-finished:
					finished <- err
				}
				w.sluice.one(t).proc.kill()
				w.sluice.start(t) // at once, so that the client's own retries meet the new process
				if err := <-finished; err != nil {
					failed++
				}
				if err := p.push(round, w.via+"/"+repository+":1"); err != nil {
					t.Fatalf("round %d, killed after %s: the push after the restart fails: %v", round, moment, err)
				}
				w.same(t, repository, repository+"-reference")
				if t.Failed() {
					t.Fatalf("round %d, killed after %s", round, moment)
				}
			}
			t.Logf("a push takes %s; %d of %d were interrupted, %d of those failed, the others survived by retrying", usual, interrupted, kills, failed)
			if interrupted == 0 {
				t.Error("no push was interrupted, so this shows nothing")
			}
		})
	}
}
