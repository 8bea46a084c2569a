#!/bin/bash
# Brings what the tests use from Debian 12 (bookworm).
#
# Clients that get along with anything are installed. Docker 20.10, its containerd and runc, and the proxies of the
# benchmark are only unpacked into the cache: installing them would start daemons and remove the Docker that a
# developer may have from elsewhere.
set -euo pipefail

cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}/tools
out=$cache/debian

# gcc, libnftables-dev and pkg-config build the race detector's tests and the modern engine, which links
# libnftables; the libraries are what the unpacked programs load, and jq is what the help texts pipe into. Compose, the
# network tools of an engine that runs containers, and a shell for its base image are for the demo.
installed=(ca-certificates gcc libc6-dev pkg-config libnftables-dev skopeo podman buildah libdevmapper1.02.1 libseccomp2 jq
	docker-compose iptables iproute2 busybox-static systemd awscli amazon-ecr-credential-helper)
# prometheus has promtool, for the alert rules. nginx, HAProxy and Caddy are what `make bench` compares with; the libraries are HAProxy's.
unpacked=(docker.io containerd runc nginx haproxy caddy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 prometheus)

# The unpacked programs load this release's libraries, and the tests expect its Docker 20.10: later releases
# have another, with the client in a package of its own.
release=$(. /etc/os-release && echo "${ID:-unknown} ${VERSION_ID:-}")
if [ "$release" != "debian 12" ]; then
	echo "this is $release, and Debian 12 (bookworm) is expected: nothing was installed." >&2
	echo "What needs Docker 20.10 is skipped, and so is what needs any of these, unless you install them:" >&2
	echo "${installed[*]}" >&2
	exit 1
fi
stamp="$release: ${unpacked[*]}"
stamped() { [ -f "$out/.stamp" ] && [ "$(cat "$out/.stamp")" = "$stamp" ]; }

missing=()
for package in "${installed[@]}"; do
	status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ] || ! stamped; then
	if ! command -v apt-get >/dev/null; then
		echo "no apt-get: what needs ${missing[*]} ${unpacked[*]} is skipped" >&2
		exit 1
	fi
	root=()
	if [ "$(id -u)" != 0 ]; then
		root=(sudo -n)
	fi
	"${root[@]}" apt-get update -qq
fi

if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	# env, since sudo does not hand variables on
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! stamped; then
	echo "unpacking ${unpacked[*]}"
	rm -rf "$out.new"
	mkdir -p "$out.new/packages"
	(cd "$out.new/packages" && apt-get -o APT::Sandbox::User=root download -qq "${unpacked[@]}")
	for package in "$out.new"/packages/*.deb; do
		dpkg-deb -x "$package" "$out.new"
	done
	rm -rf "$out.new/packages" "$out"
	echo "$stamp" >"$out.new/.stamp"
	mv "$out.new" "$out"
fi
