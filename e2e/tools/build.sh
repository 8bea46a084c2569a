#!/bin/bash
# Builds one tool module of this folder into the cache, once per version.
#
#   build.sh NAME...              NAME is a folder here with a go.mod whose `tool` lines say what to build
#   build.sh --download NAME...   only bring the sources
#
# The binaries land in $SLUICE_CACHE/tools/NAME/. A stamp holds the hash of what went in (go.mod,
# go.sum and the Go release), so that a second run costs a few milliseconds and an upgrade of one
# tool rebuilds that tool only. Each tool has a module of its own because their requirements clash:
# BuildKit 0.30 and 0.33, cosign 2 and 3 and the Docker engine cannot share one build list.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}/tools

download=false
if [ "$1" = --download ]; then
	download=true
	shift
fi

for name in "$@"; do
	module=$here/$name
	out=$cache/$name
	key=$({ go env GOVERSION GOARCH; cat "$module/go.mod" "$module/go.sum"; } | sha256sum | cut -c1-64)
	if [ -f "$out/.stamp" ] && [ "$(cat "$out/.stamp")" = "$key" ]; then
		continue
	fi
	if $download; then
		(cd "$module" && GOWORK=off go list -mod=readonly -deps tool >/dev/null 2>&1) || true
		continue
	fi
	start=$SECONDS
	echo "building $name"
	rm -rf "$out.new"
	mkdir -p "$out.new"
	# No symbol tables: linking and the disk are what these cost. GOWORK is off since a developer's
	# workspace must not choose the versions. The readonly module mode keeps go.sum an assertion.
	(cd "$module" && GOWORK=off nice go build -p "${SLUICE_BUILD_JOBS:-2}" -mod=readonly -trimpath \
		-buildvcs=false -ldflags="-s -w" -o "$out.new/" tool)
	echo "$key" >"$out.new/.stamp"
	rm -rf "$out"
	mv "$out.new" "$out"
	echo "built $name in $((SECONDS - start)) s"
done
