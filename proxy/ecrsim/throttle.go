package ecrsim

import (
	"math"
	"sync"
	"time"
)

// Quotas are ECR's calls per second, for a whole account in a region. Actions that are not here have none.
func Quotas() map[string]float64 {
	return map[string]float64{
		"BatchCheckLayerAvailability": 1000,
		"BatchGetImage":               2000,
		"CompleteLayerUpload":         100,
		"GetAuthorizationToken":       500,
		"GetDownloadUrlForLayer":      3000,
		"InitiateLayerUpload":         100,
		"PutImage":                    10,
		"UploadLayerPart":             500,
	}
}

// buckets are one token bucket per action. Each holds one second's worth, and starts full.
type buckets struct {
	mu sync.Mutex
	by map[string]*bucket
}

type bucket struct {
	left float64
	at   time.Time
}

func (b *buckets) take(action string, now time.Time, sw *Switches) bool {
	rate, set := sw.Rates[action]
	if !set {
		rate, set = Quotas()[action]
	}
	if !set || sw.NoThrottling {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	size := math.Max(rate, 1)
	k := b.by[action]
	if k == nil {
		if b.by == nil {
			b.by = map[string]*bucket{}
		}
		k = &bucket{left: size, at: now}
		b.by[action] = k
	}
	if d := now.Sub(k.at); d > 0 {
		k.left = math.Min(size, k.left+rate*d.Seconds())
	}
	k.left, k.at = math.Min(k.left, size), now
	if k.left < 1 {
		return false
	}
	k.left--
	return true
}
