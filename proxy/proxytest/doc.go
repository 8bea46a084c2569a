// Package proxytest is what the tests and benchmarks of Sluice push with and push into: image trees (the genuine
// documents of BuildKit's pushes, and generated ones with layers), pushers that speak to a registry as each real client
// does, recorders of what was said, registries to push into, ways to make storage and upstream fail, and a scheduler that
// says who goes on of several that run at once.
//
// Nothing here imports sluice/proxy: everything is tried without Sluice first, so that a check that finds nothing is
// known to find something (AssertClean after a direct push), and a request count is known to be a direct push's.
//
// # A test in short
//
//	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Layers: 3, Form: proxytest.FormLegacy, SBOM: true})
//	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
//	result, err := proxytest.BuildKit(ctx, proxytest.Options{BaseURL: up.URL, Repository: "app", Tags: []string{"1"}, Tree: tree})
//	back, err := proxytest.PullAll(ctx, up.URL, "app", "1")
//	proxytest.AssertComplete(t, up)
//
// The evidence for what a pusher sends and refuses is in the comment of each: a client's source file, or the captures
// the project keeps of real clients.
package proxytest
