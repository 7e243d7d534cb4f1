# What each target is for: make help.
GO      ?= go
TOOL    := $(GO) tool -modfile=tools/go.mod
BUF     := tools/node_modules/@bufbuild/buf-linux-$(subst arm64,aarch64,$(subst amd64,x64,$(shell $(GO) env GOHOSTARCH)))/bin/buf
GOFILES := $(shell git ls-files -co --exclude-standard '*.go')
FUZZTIME ?= 20000x
NIGHTLY_COUNT    ?= 20
NIGHTLY_FUZZTIME ?= 1000000x
TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

.PHONY: build
build: ## build bin/tunneld
	$(GO) build -trimpath -ldflags '-s -w' -o bin/tunneld ./cmd/tunneld

.PHONY: test
test: ## run the tests
	$(GO) test ./...

.PHONY: race
race: ## run the tests with the race detector
	$(GO) test -race -timeout 15m ./...

.PHONY: interop
interop: ## run against software that was not written here
	$(GO) test -tags interop -count=1 -timeout 15m ./interop/...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME, inputs (20000x) or time (1m)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## format, vet, staticcheck, go.mod
	@test -z "$$(gofmt -l $(GOFILES))" || { echo 'gofmt would change:'; gofmt -l $(GOFILES); exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags interop ./interop/...
	$(TOOL) staticcheck ./...
	$(GO) mod tidy -diff

$(BUF): tools/package-lock.json
	cd tools && npm ci
	@touch $@

.PHONY: proto
proto: $(BUF) ## generate the code of proto/
	$(BUF) lint
	$(BUF) generate

.PHONY: proto-check
proto-check: proto ## fail if the generated code is stale, or proto/ breaks what is released
	@git diff --exit-code -- proto || { echo 'the generated code is stale: run make proto'; exit 1; }
	@test -z "$$(git ls-files -o --exclude-standard proto)" || { echo 'generated files are not in git'; exit 1; }
	scripts/proto-breaking.sh $(BUF)

.PHONY: proto-release
proto-release: $(BUF) ## at a release: freeze the contract of proto/
	$(BUF) build --exclude-source-info -o proto/released/v1.binpb

.PHONY: release
release: ## build a release from its tag, see docs/releasing.md: VERSION=1.2.3
	scripts/release.sh $(VERSION)

.PHONY: cross
cross: ## build for every supported system
	@set -e; for t in $(TARGETS); do echo "build $$t"; \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/tunneld; \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) vet ./cmd/... ./core/... ./plugins/... ./internal/...; done

.PHONY: bench
bench: ## measure beside HAProxy and socat, see docs/benchmarks.md
	$(GO) run ./bench

OLD ?= main
NEW ?= .
.PHONY: bench-compare
bench-compare: ## measure two builds in turns: OLD=main NEW=. (program, folder or revision) FLAGS='-only rr'
	$(GO) run ./bench compare $(FLAGS) $(OLD) $(NEW)

.PHONY: chaos
chaos: ## disturb a daemon under load, see docs/reliability.md (CHAOS=-short: two minutes)
	$(GO) run ./chaos $(CHAOS)

.PHONY: soak
soak: ## ten minutes of churn: nothing grows
	$(GO) run ./chaos -soak 10m

.PHONY: nightly
nightly: ## what is too long for ci: every test 20 times, long fuzzing, chaos and soak in full (hours)
	$(GO) test -race -count=$(NIGHTLY_COUNT) -timeout 6h ./...
	$(GO) test -tags interop -count=3 -timeout 2h ./interop/...
	@scripts/fuzz.sh $(NIGHTLY_FUZZTIME)
	$(MAKE) chaos soak

.PHONY: ci
ci: ## what the continuous integration runs
	bash .ci/run
