package proxy_test

import (
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/upstream"
)

// The configuration and the package that paces know the same actions, though neither imports the other.
func TestEveryConfiguredRateIsKnownUpstream(t *testing.T) {
	all := map[string]int{}
	for _, key := range config.RateKeys() {
		all[key] = 1
	}
	r, err := upstream.New(upstream.Options{URL: "https://registry.example", Credentials: upstream.Anonymous, Rates: all})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
