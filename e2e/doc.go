// Package e2e drives real clients (BuildKit, buildx, Docker, crane, regctl, oras, skopeo, podman,
// buildah, containerd, cosign) against a real Sluice process in front of a real registry.
//
// The tests carry the build tag e2e and execute binaries only: those of tools/, which build.sh puts
// in the cache, and Debian's. `make test` prepares both and runs them:
//
//	go test -tags e2e -count=1 -timeout 60m ./e2e/...
//
// With SLUICE_E2E_FLEET=1 the same flows go through three processes that share a bucket, behind a balancer that gives each
// request to the next of them (fleet_test.go; fleetpass_test.go says what is left out, and why). `make fleet` is that.
//
// Every test has two base URLs: via, which is Sluice, and direct, which is the upstream registry
// behind it. It pushes with attestations to the one and the same thing without attestations to
// the other, and compares what the upstream registry then holds. With SLUICE_E2E_DIRECT=1 there is
// no Sluice and via is the upstream as well; the comparisons are then left out, so that it shows
// which clients work on a machine at all.
//
// What cannot run on a machine (no root, a missing program) is skipped with its reason; under CI=true
// that is a failure.
package e2e
