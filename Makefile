# make setup   what the tests need, once per machine: Debian packages, real clients into a cache
# make test    everything: set-up, lint, unit and conformance tests, end-to-end tests
# make sluice  the program itself
# make fuzz    every fuzz target for FUZZTIME (10m)
# make bench   what Sluice spends beside nginx, HAProxy, Caddy and Go's ReverseProxy; BENCH=quick for a short run
# make soak    10 minutes of faults, one upon another, after which nothing may be left of them; SOAK=60s for another time
#
# lint, unit, conformance, e2e and fleet are the parts of test and can be run on their own after a set-up.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := test

export SLUICE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice
TOOLS := $(SLUICE_CACHE)/tools
VERDICT := $(SLUICE_CACHE)/verdict

.PHONY: test setup lint format vet elsewhere golangci tidy unit conformance e2e fleet sluice bench fuzz soak

sluice:
	CGO_ENABLED=0 go build -trimpath -o sluice ./cmd/sluice

SOAK ?= 10m
soak:
	SOAK=$(SOAK) go test -tags soak -count=1 -v -timeout 0 -run TestSoak ./e2e/soak

bench:
	go run ./e2e/bench

setup:
	e2e/tools/setup.sh

# Every stage runs, also after one that failed: one run shows everything there is to mend.
test:
	@failed=(); summary=""; \
	for stage in setup lint unit conformance e2e fleet; do \
		echo "== $$stage"; start=$$SECONDS; word=passed; \
		$(MAKE) --no-print-directory $$stage || { failed+=($$stage); word=FAILED; }; \
		summary+=$$(printf '%-11s %s in %d s' $$stage $$word $$((SECONDS - start)))$$'\n'; \
	done; \
	echo "== summary"; printf '%s' "$$summary"; \
	[ $${#failed[@]} -eq 0 ]

# All of them, also after one that failed.
lint:
	@$(MAKE) --no-print-directory --keep-going format vet elsewhere golangci tidy

format:
	@unformatted=$$(find . -name '*.go' -not -path './.git/*' -print0 | xargs -0 $(TOOLS)/gofumpt/gofumpt -l) && \
		if [ -n "$$unformatted" ]; then echo "not formatted, run gofumpt -w on: $$unformatted"; exit 1; fi

vet:
	go vet ./...
	go vet -tags e2e,soak ./e2e/...

# Where developers have it, and where an int is of 32 bits. Nothing is run there. Each takes a minute and more the first time.
elsewhere:
	for on in darwin/arm64 windows/386; do \
		GOOS=$${on%/*} GOARCH=$${on#*/} go vet ./... || exit 1; \
	done

golangci:
	$(TOOLS)/golangci/golangci-lint run ./...

tidy:
	go mod tidy -diff

$(VERDICT): $(wildcard tools/verdict/*.go)
	go build -o $@ ./tools/verdict

# Temporary files in memory where that is possible: the storage drivers sync every file they write.
FAST_TMP := $(shell test -w /dev/shm && echo /dev/shm || echo $${TMPDIR:-/tmp})

unit: $(VERDICT)
	TMPDIR=$(FAST_TMP) go test -race -json -timeout 40m $$(go list ./... | grep -v /conformance) | $(VERDICT)

# A suite of requests one after another, for which the race detector finds nothing that unit does not.
conformance: $(VERDICT)
	TMPDIR=$(FAST_TMP) go test -count=1 -json -timeout 20m ./conformance | $(VERDICT)

e2e: $(VERDICT)
	go test -tags e2e -count=1 -json -timeout 60m ./e2e/... | $(VERDICT)

# The same flows once more, each request of which meets another of three replicas on a bucket.
fleet: $(VERDICT)
	SLUICE_E2E_FLEET=1 go test -tags e2e -count=1 -json -timeout 60m ./e2e | $(VERDICT)

# Each target for FUZZTIME, one after another. What one finds it writes to testdata/fuzz beside it, where the ordinary tests run
# it from then on.
FUZZTIME ?= 10m
FUZZ := \
	filters:FuzzPeek filters:FuzzParseStatement filters:FuzzRewrite filters/ocidoc:FuzzParse filters/ocidoc:FuzzRewrite filters/ocidoc:FuzzRetype filters:FuzzConvert \
	proxy:FuzzContentRange proxy:FuzzRoute proxy/access:FuzzAuthorization proxy/session:FuzzOpen \
	proxy/upstream:FuzzChallenges proxy/upstream:FuzzLocation proxy/upstream:FuzzTokenAnswer proxy/upstream:FuzzDockerConfiguration proxy/internal/h1:FuzzAnswer

fuzz:
	@failed=(); for target in $(FUZZ); do \
		echo "== $$target"; \
		go test ./$${target%%:*} -run '^$$' -fuzz "^$${target##*:}$$" -fuzztime $(FUZZTIME) || failed+=("$$target"); \
	done; \
	[ $${#failed[@]} -eq 0 ] || { echo "failed: $${failed[*]}"; exit 1; }
