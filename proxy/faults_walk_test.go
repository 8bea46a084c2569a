package proxy_test

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

type kinds = []proxytest.Kind

// walks are the pushes that are broken off at every single call. Each kind of fault meets every call of the ordinary push,
// and the other kinds of pushes and clients have the kinds divided among them: what they do not share with it is the order
// of their requests, and how they go about it when one fails.
var walks = []struct {
	faultCase
	storage, upstream kinds
}{
	{ordinary, proxytest.DriverFaults(), proxytest.UpstreamFaults()},
	{
		faultCase{name: "buildkit artifact store", push: proxytest.BuildKit, form: proxytest.FormArtifact, act: filters.Store},
		kinds{proxytest.FaultPartial},
		kinds{proxytest.FaultError, proxytest.FaultPartial, proxytest.FaultCutAfter, proxytest.FaultTooMany},
	},
	{
		faultCase{name: "buildkit legacy strip", push: proxytest.BuildKit, form: proxytest.FormLegacy, act: filters.Strip},
		kinds{proxytest.FaultAfter, proxytest.FaultDead},
		kinds{proxytest.FaultAfter, proxytest.FaultCutAfter, proxytest.FaultTooMany},
	},
	{
		faultCase{
			name: "buildkit legacy store of two platforms as docker types", push: proxytest.BuildKit, form: proxytest.FormLegacy, act: filters.Store, docker: true,
			options: proxytest.SyntheticOptions{Platforms: []string{"linux/amd64", "linux/arm64"}},
		},
		kinds{proxytest.FaultDeadAfter},
		kinds{proxytest.FaultCutAfter},
	},
	{ // statements too large for one write, so that they are written in parts and put together
		faultCase{
			name: "buildkit legacy store of large statements", push: proxytest.BuildKit, form: proxytest.FormLegacy, act: filters.Store,
			options: proxytest.SyntheticOptions{StatementSize: 256 << 10},
		},
		kinds{proxytest.FaultPartial},
		nil,
	},
	{
		faultCase{name: "docker 29 legacy store, several at once", push: proxytest.Docker29, form: proxytest.FormLegacy, act: filters.Store, together: true},
		kinds{proxytest.FaultError},
		kinds{proxytest.FaultCut},
	},
	{
		faultCase{name: "containerd 1.6 dsse strip", push: proxytest.Containerd16, form: proxytest.FormDSSE, act: filters.Strip},
		kinds{proxytest.FaultPartial},
		kinds{proxytest.FaultAfter},
	},
	{
		faultCase{name: "docker 20.10, which sends no attestations", push: proxytest.Docker20, act: filters.Store, options: proxytest.SyntheticOptions{DockerTypes: true}},
		kinds{proxytest.FaultError, proxytest.FaultDead},
		kinds{proxytest.FaultPartial, proxytest.FaultCutAfter},
	},
	{
		faultCase{name: "skopeo legacy store", push: proxytest.Skopeo, form: proxytest.FormLegacy, act: filters.Store},
		kinds{proxytest.FaultDeadAfter},
		kinds{proxytest.FaultError, proxytest.FaultPartial, proxytest.FaultCut, proxytest.FaultDenied},
	},
	{
		faultCase{name: "crane artifact store", push: proxytest.Crane, form: proxytest.FormArtifact, act: filters.Store},
		kinds{proxytest.FaultDeadAfter},
		kinds{proxytest.FaultPartial, proxytest.FaultUnavailable},
	},
	{
		faultCase{name: "oras legacy store", push: proxytest.Oras, form: proxytest.FormLegacy, act: filters.Store},
		kinds{proxytest.FaultAfter},
		kinds{proxytest.FaultAfter, proxytest.FaultTooMany},
	},
	{
		faultCase{name: "regctl dsse store", push: proxytest.Regctl, form: proxytest.FormDSSE, act: filters.Store},
		kinds{proxytest.FaultDead},
		kinds{proxytest.FaultCutAfter},
	},
	{
		faultCase{name: "imagetools artifact store, several at once", push: proxytest.ImagetoolsCreate, form: proxytest.FormArtifact, act: filters.Store, together: true},
		kinds{proxytest.FaultDead},
		kinds{proxytest.FaultError},
	},
}

// I1, I2, I6, I7: the storage fails at its n-th call, for every n, in every way, and then works again.
func TestAPushSurvivesEveryFaultOfTheStorage(t *testing.T) {
	for _, c := range walks {
		for _, kind := range c.storage {
			t.Run(c.name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				tree, plain := c.trees()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					driver := proxytest.NewFailingDriver(inmemory.New())
					r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), c.settings(storage(driver))...)
					driver.Fault = fault // from here on: a proxy that cannot start is another matter
					c.check(r, tree, plain, heal)
				})
			})
		}
	}
}

// The same for upstream's n-th request.
func TestAPushSurvivesEveryFaultOfUpstream(t *testing.T) {
	for _, c := range walks {
		for _, kind := range c.upstream {
			t.Run(c.name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				tree, plain := c.trees()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(h http.Handler) http.Handler {
						f := proxytest.NewFailingUpstream(h)
						f.Fault = fault
						return f
					}})
					c.check(newRig(t, up, c.settings()...), tree, plain, heal)
				})
			})
		}
	}
}

// Every client that there is has a place in the walks, with a fault of the storage and one of upstream.
func TestEveryClientIsWalkedThrough(t *testing.T) {
	storage, upstream := map[uintptr]bool{}, map[uintptr]bool{}
	function := func(p proxytest.Pusher) uintptr { return reflect.ValueOf(p).Pointer() }
	for _, c := range walks {
		f := function(c.push)
		storage[f], upstream[f] = storage[f] || len(c.storage) > 0, upstream[f] || len(c.upstream) > 0
	}
	for _, client := range proxytest.Clients() {
		if f := function(client.Push); !storage[f] || !upstream[f] {
			t.Errorf("%s is broken off by the storage: %t, by upstream: %t", client.Name, storage[f], upstream[f])
		}
	}
}
