# Every target installs what it needs besides Go, make and, for some, root:
# tools come from the Go module proxy and Debian's packages.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= dev
CONTROLLERS ?= on
PORT ?= 16443
STATE := .cluster

CLUSTER := go run ./tests/cluster/cmd/cluster
LDFLAGS := -s -w -X github.com/metawire/metawire/internal/version.Version=$(VERSION)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/metawire
# Tools are built once for each version of their module.
TOOLS = $(eval TOOLS := $(CACHE)/tools-$(shell go env GOVERSION | cat .ci/tools/go.mod .ci/tools/go.sum - | sha256sum | head -c 16))$(TOOLS)
TEST := go test -count=1 -timeout 60m

# kubectl and helm keep caches in the home directory; tests leave it alone.
export KUBECACHEDIR := $(abspath bin/home/kube)
export HELM_CACHE_HOME := $(abspath bin/home/helm/cache)
export HELM_CONFIG_HOME := $(abspath bin/home/helm/config)
export HELM_DATA_HOME := $(abspath bin/home/helm/data)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r target does; do printf '  %-22s %s\n' "$$target" "$$does"; done

##### Build

.PHONY: build
build: ## the programs, to bin/ (VERSION=dev)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: image
image: ## the container image, to bin/image/metawire.tar; offline too, then as root (VERSION=dev)
	go run ./tests/image -version '$(VERSION)' -o bin/image/metawire.tar

.PHONY: release
release: tool-cyclonedx-gomod ## all files of a release, to bin/release/; as root where make image is (VERSION=x.y.z, DRAFT=1 with what is not committed)
	go run ./tests/release -version '$(VERSION:dev=)' -draft=$(if $(DRAFT),true,false) -cyclonedx-gomod $(TOOLS)/cyclonedx-gomod -o bin/release

.PHONY: release-verify
release-verify: tool-cyclonedx-gomod ## builds the commit again, elsewhere and with nothing built before, and compares it with bin/release/
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; git clone -q . "$$tmp/source"; cd "$$tmp/source"; go build -o "$$tmp/make" ./tests/release; \
	GOCACHE="$$tmp/cache" "$$tmp/make" -version '$(VERSION:dev=)' -cyclonedx-gomod $(TOOLS)/cyclonedx-gomod -o "$$tmp/release"; \
	diff "$$tmp/release/SHA256SUMS" '$(abspath bin/release/SHA256SUMS)'; \
	cd '$(abspath bin/release)'; sha256sum --quiet -c SHA256SUMS; echo "bin/release/ is what the commit gives"

.PHONY: generate
generate: $(addprefix tool-,protoc-gen-go protoc-gen-go-grpc helm-docs) protoc ## the generated files
	PATH="$(TOOLS):$$PATH" go generate ./...

.PHONY: verify
verify: ## fails if the generated files are not those that generate makes
	@before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; \
	git ls-files -z -co --exclude-standard | xargs -0 cp --parents -t "$$before" 2>/dev/null || true; \
	$(MAKE) generate; \
	git ls-files -z -co --exclude-standard | { stale=; while IFS= read -r -d '' f; do \
		diff -u -I '^//.*protoc ' "$$before/$$f" "$$f" || { stale=1; echo "$$f is not current: make generate" >&2; }; \
	done; [ -z "$$stale" ]; }

##### Test

PARTS := lint unit fuzz chart integration e2e

.PHONY: test
test: ## all tests, with the time that each part took: lint unit fuzz chart integration e2e
	@mkdir -p bin; go build -o bin/cluster ./tests/cluster/cmd/cluster; \
	nice -n 19 bin/cluster binaries control-plane certmanager node >bin/binaries.log 2>&1 & builder=$$!; \
	trap 'kill $$builder 2>/dev/null || true' EXIT; \
	failed=; report=; \
	for part in $(PARTS); do \
		echo "=== $$part"; began=$$SECONDS; result=ok; \
		$(MAKE) $$part || { result=FAILED; failed=1; }; \
		report+=$$(printf '%-12s %-6s %5d s' $$part $$result $$((SECONDS - began)))$$'\n'; \
	done; \
	printf '=== all\n%s%-19s %5d s\n' "$$report" total $$SECONDS; [ -z "$$failed" ]

.PHONY: lint
lint: tool-golangci-lint ## golangci-lint, with the directions of imports
	$(TOOLS)/golangci-lint run ./...

.PHONY: unit
unit: gcc ## unit and property tests, with the race detector
	CGO_ENABLED=1 $(TEST) -race $$(go list ./... | grep -vE '/tests/(chart|cluster|integration|release|e2e)')

FUZZTIME ?= 20s

.PHONY: fuzz
fuzz: ## every fuzzer, for FUZZTIME (20s) each
	@grep -rE --include='*_test.go' -o '^func Fuzz\w+' . | while IFS=: read -r file fuzzer; do \
		go test -run '^$$' -fuzz "^$${fuzzer#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

.PHONY: chart
chart: prometheus binaries-control-plane ## the chart and its release: generated values, permissions, alerts, a real API server
	$(TEST) ./tests/chart/... ./tests/release/...

.PHONY: integration
integration: prometheus binaries-control-plane binaries-certmanager ## the collector on a real API server
	$(TEST) -skip '^TestNode' $$(go list ./tests/cluster/... ./tests/integration/... 2>/dev/null)

.PHONY: e2e
e2e: packages image tool-helm binaries-node binaries-certmanager ## image, chart and the README's commands on a real cluster with pods; as root
	METAWIRE_HELM=$(TOOLS)/helm METAWIRE_IMAGE='$(abspath bin/image/metawire.tar)' $(TEST) $$(go list ./tests/e2e/... 2>/dev/null)
	$(TEST) -run '^TestNode' ./tests/cluster

.PHONY: bench
bench: ## measures the collector with many nodes, as a table (ARGS=-h shows its flags)
	go run ./tests/bench $(ARGS)

##### A cluster

.PHONY: demo
demo: ## from nothing to a node's metadata, live (KUBECONFIG=... IMAGE=... uses that cluster)
	@[ -e bin/demo ] || echo "compiling the demo, the first time for a minute or two"
	@go build -o bin/demo ./tests/demo
	@bin/demo up $(ARGS)

.PHONY: demo-down
demo-down: ## removes what demo made
	@go build -o bin/demo ./tests/demo
	@bin/demo down

.PHONY: cluster
cluster: ## a Kubernetes node on which pods run; as root. Writes .cluster/kubeconfig
	$(CLUSTER) up -size node -dir $(STATE)

.PHONY: cluster-control-plane
cluster-control-plane: ## etcd, API server and controllers, without a node (CONTROLLERS=off, PORT=16443)
	$(CLUSTER) up -size control-plane -controllers=$(if $(filter off,$(CONTROLLERS)),false,true) -port $(PORT) -dir $(STATE)

.PHONY: cluster-down
cluster-down: ## ends either and leaves nothing
	$(CLUSTER) down -dir $(STATE)

.PHONY: clean
clean: ## removes bin/, not the caches
	rm -rf bin

##### What the targets need

.PHONY: tool-helm
tool-helm: ## Helm, which the chart is installed with, built here; writes where it is
	@$(MAKE) -s $(TOOLS)/helm >&2
	@echo $(TOOLS)/helm

# tool-NAME is a tool of .ci/tools.
tool-%: ; @$(MAKE) $(TOOLS)/$*

$(CACHE)/tools-%:
	@mkdir -p $(@D); echo "building $(@F), once"
	@cd .ci/tools && CGO_ENABLED=0 go build -trimpath -o $@.new $$(go list tool | grep '/$(@F)$$') && mv $@.new $@

binaries-%: # of a cluster; built here, so that no test's time limit counts it
	@$(CLUSTER) binaries $* >/dev/null

.PHONY: packages
packages: # what a cluster with a node needs
	@$(CLUSTER) packages

.PHONY: gcc
gcc: # the race detector needs it
	@command -v gcc >/dev/null || $(CLUSTER) packages gcc='gcc libc6-dev'

.PHONY: prometheus
prometheus: # with promtool: alerts and dashboard are tried by them
	@command -v promtool >/dev/null || $(CLUSTER) packages promtool=prometheus

.PHONY: protoc
protoc:
	@command -v protoc >/dev/null || $(CLUSTER) packages protoc=protobuf-compiler
