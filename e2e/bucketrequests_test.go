//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Of a line of the gateway's log, which has Amazon's format: bucket, what was asked, and of which object.
var bucketLine = regexp.MustCompile(`(?m)^\S+ (\S+) \[[^\]]*\] \S+ \S+ \S+ s3_(\w+) (\S+) `)

// requests are those that the gateway answered for this bucket.
func (b *bucket) requests(t testing.TB) []string {
	t.Helper()
	log, err := os.ReadFile(b.log)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range bucketLine.FindAllStringSubmatch(string(log), -1) {
		if m[1] == b.name {
			found = append(found, m[2]+" "+m[3])
		}
	}
	return found
}

// settled is requests when no more come: what follows a start, and a push, is over.
func (b *bucket) settled(t testing.TB) []string {
	t.Helper()
	const quiet = time.Second
	found, since := b.requests(t), time.Now()
	for tick := time.NewTicker(quiet / 20); ; <-tick.C {
		if now := b.requests(t); len(now) != len(found) {
			found, since = now, time.Now()
		} else if time.Since(since) > quiet {
			tick.Stop()
			return found
		}
	}
}

// What a gateway sees of a push by BuildKit of 2 platforms with 3 layers each, beside what proxy's
// TestAPushMakesFewRequestsToObjectStorage finds that the driver's calls come to. README has the numbers.
func TestAPushMakesAsFewRequestsToARealBucketAsCounted(t *testing.T) {
	now := time.Now().UTC()
	noon := now.Truncate(24 * time.Hour).Add(36 * time.Hour).Sub(now) // in the last hours of a day there are more
	dir := newApplication(t, 86)
	dockerfile, err := os.OpenFile(filepath.Join(dir, "Dockerfile"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dockerfile.WriteString("COPY common /third\n"); err != nil {
		t.Fatal(err)
	}
	if err := dockerfile.Close(); err != nil {
		t.Fatal(err)
	}
	k := needBuilder(t, "new")
	for _, replicas := range []int{1, 3} {
		for _, c := range []struct {
			action, image string
			most          int // as there
		}{
			{"store", "without attestations", 50},
			{"store", "with two attestations", 155},
			{"strip", "with two attestations", 120},
		} {
			t.Run(fmt.Sprintf("%s %s, %d replicas", c.action, c.image, replicas), func(t *testing.T) {
				each := make([]replicaOption, replicas)
				for i := range each {
					each[i] = replicaOption{settings: "attestations: " + c.action, clock: noon}
				}
				w := newFleet(t, fleetOptions{each: each})
				b := w.sluice.bucket
				before := len(b.settled(t))
				args := append(push(w.via+"/app:1"), "--provenance=mode=max")
				if c.image == "without attestations" {
					args = withoutAttestations(w.via + "/app:1")
				}
				k.mustBuild(t, dir, bothPlatforms, args...)
				made := b.settled(t)[before:]
				t.Logf("%d requests to the bucket: %s", len(made), kindsOfRequests(made))
				if len(made) == 0 || len(made) > c.most {
					t.Errorf("%d requests to the bucket, want some and at most %d", len(made), c.most)
				}
			})
		}
	}
}

// kindsOfRequests is a table, the most frequent first.
func kindsOfRequests(requests []string) string {
	counts := map[string]int{}
	for _, r := range requests {
		operation, object, _ := strings.Cut(r, " ")
		kind, rest, _ := strings.Cut(object, "/")
		for part := range strings.SplitSeq(rest, "/") {
			if strings.HasPrefix(part, "_") {
				kind += "/" + part
				break
			}
		}
		counts[fmt.Sprintf("%-24s %s", operation, kind)]++
	}
	var table strings.Builder
	for _, what := range slices.SortedFunc(maps.Keys(counts), func(x, y string) int { return cmp.Or(counts[y]-counts[x], strings.Compare(x, y)) }) {
		fmt.Fprintf(&table, "\n%4d %s", counts[what], what)
	}
	return table.String()
}
