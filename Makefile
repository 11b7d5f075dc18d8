# Targets that a contributor needs. `make check` is what CI runs; `make nightly` is what takes hours.
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT = github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X main.version=$(VERSION)
# Two thousand calls of fmt.Errorf and errors.New, each copied in by the compiler, are 260 kB of the device's binary.
SMALL = -gcflags=errors=-l -gcflags=fmt=-l

.PHONY: build test check fmt generate crossbuild release bench coldstart nightly new-op

build: ## the binaries into dist/
	$(GO) build -trimpath -o dist/waybill ./cmd/waybill
	$(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o dist/waybill-edge ./cmd/waybill-edge
	$(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o dist/waybill-serve ./cmd/waybill-serve

test: ## all that Go alone can run
	$(GO) test ./...

fmt:
	gofmt -w $$(git ls-files '*.go')

generate: ## docs/cli.md, docs/exit-codes.md, docs/operators.md ...
	$(GO) generate ./...

check: ## format, vet, staticcheck, tidy, generated files, import rules, workflows
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) generate ./...
	git diff --exit-code
	$(GO) test ./internal/deptest
	$(GO) run $(ACTIONLINT)

crossbuild: ## every platform of the design; android and the small CPUs run the edge binary only, images the serving one
	for t in linux/amd64 linux/arm64 darwin/arm64 windows/amd64; do \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/waybill || exit 1; done
	for t in linux/amd64 linux/arm64 linux/arm linux/riscv64 android/arm64 darwin/arm64 windows/amd64; do \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o /dev/null ./cmd/waybill-edge || exit 1; done
	for t in linux/amd64 linux/arm64; do \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o /dev/null ./cmd/waybill-serve || exit 1; done

release: ## stripped, reproducible binaries and their checksums in dist/
	rm -rf dist && mkdir -p dist
	for a in amd64 arm64; do \
	  GOOS=linux GOARCH=$$a CGO_ENABLED=0 $(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o dist/waybill-serve-linux-$$a ./cmd/waybill-serve || exit 1; done
	pins=; for a in amd64 arm64; do s=$$(sha256sum <dist/waybill-serve-linux-$$a) || exit 1; pins=$$pins,linux/$$a=$${s%% *}; done; \
	for t in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do o=$${t%/*}; a=$${t#*/}; e=; [ $$o = windows ] && e=.exe; \
	  GOOS=$$o GOARCH=$$a CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS) -X github.com/waybill-ml/waybill/deploy/image.pins=$${pins#,}" -o dist/waybill-$$o-$$a$$e ./cmd/waybill || exit 1; done
	for t in linux/amd64 linux/arm64 linux/arm linux/riscv64 android/arm64 darwin/arm64 windows/amd64; do o=$${t%/*}; a=$${t#*/}; e=; [ $$o = windows ] && e=.exe; \
	  GOOS=$$o GOARCH=$$a CGO_ENABLED=0 $(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o dist/waybill-edge-$$o-$$a$$e ./cmd/waybill-edge || exit 1; done
	cd dist && sha256sum waybill* > SHA256SUMS

new-op: ## the files of a new operator, which fail until they are filled in: make new-op OP=HardTanh
	$(GO) run ./internal/newop $(OP)

coldstart: ## first answers beside Python and ONNX Runtime; needs root and Python
	bench/coldstart/run.sh --rounds 20

bench:
	$(GO) test -run '^$$' -bench . -benchtime 0.5s ./packager/... ./edge-runtime/... ./oci/...

# About 13 hours on two cores: 6.6 of fuzzing (79 targets of 5 minutes), an hour each of random graphs and of damaged models, some 4 of
# the rest. It wants Debian's packages of .ci/run, root for the power cuts, and the corpora; what is not there fails instead of being skipped.
nightly: export WAYBILL_CORPORA ?= $(abspath ../shared/corpora)
nightly: ## long runs: fuzzing of every parser, random graphs, 150,000 faults, power cuts, and a soak of 1,000 updates
	@test -d "$$WAYBILL_CORPORA" || { echo "no corpora in $$WAYBILL_CORPORA: make nightly WAYBILL_CORPORA=DIR"; exit 1; }
	for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 5m -fuzzminimizetime 5x $$p || exit 1; done; done
	$(GO) test -count=1 ./packager/lineage/... -run Real -v # with WAYBILL_MLFLOW and WAYBILL_DVC only (docs/lineage.md)
	WAYBILL_GEN_SEED=$$(date +%s)000 WAYBILL_GEN_SECONDS=3600 $(GO) test -timeout 2h ./packager/codegen -run RandomGraphs -v
	WAYBILL_REQUIRE_TOOLS=1 WAYBILL_BITS_ALL=1 WAYBILL_BITS_MODELS='models*/*' $(GO) test -timeout 3h ./edge-runtime/engine/bits -v
	WAYBILL_MUTATE_SECONDS=3600 $(GO) test -timeout 2h ./packager/build -run MutatedModels -v
	WAYBILL_NIGHTLY=1 $(GO) test -timeout 1h ./deploy/awslambda ./deploy/sagemaker -v
	WAYBILL_POLICY_SWEEP=full $(GO) test -timeout 2h ./policy/library -v
	WAYBILL_SWITCHES=100 WAYBILL_SWITCH_REQUESTS=10000 $(GO) test -timeout 2h ./edge-runtime/serve -run SwitchUnderLoad -v
	WAYBILL_FAULT_RUNS=150000 $(GO) test -timeout 8h ./edge-runtime/... -run Faults -v
	WAYBILL_POWER_CUTS=3000 $(GO) test -timeout 4h ./edge-runtime/agent -run PowerCuts -v
	$(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o dist/waybill-edge ./cmd/waybill-edge
	WAYBILL_EDGE_BINARY=$(CURDIR)/dist/waybill-edge WAYBILL_REQUIRE_TOOLS=1 WAYBILL_KILL_RUNS=2000 $(GO) test -timeout 4h ./cmd/waybill-edge -run KillSweep -v
	WAYBILL_EDGE_BINARY=$(CURDIR)/dist/waybill-edge WAYBILL_SOAK_UPDATES=1000 $(GO) test -timeout 2h ./cmd/waybill-edge -run Soak -v
