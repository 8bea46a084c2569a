#!/bin/bash
# Makes a machine ready for `make test`: Debian's packages and the tools of this folder. The second run does
# nothing and takes under a second.
#
# Under CI=true everything must succeed. Elsewhere a tool that cannot be had is reported, and the
# tests that need it are skipped with that reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Small ones first. cosign links most cloud SDKs and takes the longest.
modules=(crane gofumpt registry buildkit33 buildx regctl oras golangci buildkit30 containerd docker compose helm dockerd versitygw cosign2 cosign3)

failed=()
./debian.sh || failed+=("Debian's packages")
# Downloading waits for the network and compiling for the processor: do both at once.
./build.sh --download "${modules[@]}" &
for module in "${modules[@]}"; do
	./build.sh "$module" || failed+=("$module")
done
wait || true # a download that failed was said again, louder, by the build
if [ ${#failed[@]} -gt 0 ]; then
	echo "not available: ${failed[*]}" >&2
	[ "${CI:-}" != true ]
fi
