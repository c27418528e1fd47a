# The few verbs of this project. `make` lists them. Every one fails when a step of it fails.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# The steps of a verb follow each other; cargo itself uses all cores.
.NOTPARALLEL:
.PHONY: evaluate pictures district-year fuzz link-lives simulate help setup setup-demo setup-test demo test bench firmware firmware-check fmt lint clean test-kill test-matrix test-power-cut test-soak test-cluster test-clips test-cameras test-rtsp

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
CARGO ?= cargo
# What the tests run with: cargo-nextest where it is installed (one process a test, heavy ones in turn), else cargo's own runner.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
# Where `make evaluate` finds litter/valid and street.
DATA ?= ../shared/data
# Rounds of the long runs below.
ROUNDS ?= 1000
# Lives that `make link-lives` lives.
SEEDS ?= 10000
# Spoiled copies of each clip that `make test-clips` makes.
VARIANTS ?= 100
# How long `make test-cluster` kills nodes.
MINUTES ?= 10
# Seconds that `make fuzz` gives each decoder.
FUZZ_SECONDS ?= 600

help: ## list the verbs
	@echo "Gengfu: make VERB"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 18 | sed 's/^/  /'

setup: setup-test ## install what building, the demo and the tests need (Debian)

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

demo: setup-demo ## see the whole road on this machine: smoke, a door, a parked vehicle
	@echo "==> building the gateway (optimised; the first time takes minutes)"
	@$(CARGO) build --locked --profile demo -p gengfu
	@exec $(TARGET_DIR)/demo/gengfu demo

test: setup-test firmware ## everything CI runs, against real parts
	@echo "==> building the workspace and its tests; examples in the documentation"
	@$(CARGO) test --locked --workspace --doc --quiet
	@$(CARGO) build --locked --workspace --bins
ifeq ($(NEXTEST),yes)
	@$(CARGO) nextest run --locked --workspace --profile ci
else
	@$(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast
endif

bench: setup-test ## our figures beside the machine's own limits, from one run
	@scripts/bench-peer.sh
	@$(CARGO) build --locked --release -p gengfu
	@$(CARGO) bench --locked -p gengfu-outbox -p gengfu-vision -p hil-tests --bench '*'

evaluate: ## AP and AP50 per class of both of our models on the validation folders of DATA, by the gateway's own detector
	@scripts/fetch-models.sh
	@$(CARGO) run --locked --quiet -p gengfu-vision --example evaluate -- $(DATA)

pictures: setup-demo ## make the documents' pictures of what a camera sees anew, from Debian's footage
	@$(CARGO) build --locked --release -p gengfu
	@mkdir -p target/gengfu/demo/data
	@rm -f docs/images/camera-test.jpg docs/images/camera-test-street.jpg
	@$(TARGET_DIR)/release/gengfu camera test cam-forecourt --config config/demo.toml --for 20s --draw docs/images/camera-test.jpg
	@$(TARGET_DIR)/release/gengfu camera test cam-forecourt --config config/demo.toml --for 20s --model nanodet_street --draw docs/images/camera-test-street.jpg
	@chmod 644 docs/images/camera-test*.jpg

firmware: firmware-check ## build the node's images for its boards and check their sizes
	@scripts/firmware-size.sh
	@echo "==> the boards' own tests, here"
	@$(CARGO) test --locked --quiet --manifest-path firmware/node-cortex-m3/Cargo.toml --lib --target-dir $(TARGET_DIR)
	@$(CARGO) test --locked --quiet --manifest-path firmware/node-stm32f411/Cargo.toml --lib --target-dir $(TARGET_DIR)

district-year: ## a simulated year of 1,000 homes judges the care rules (not in CI: a quarter of an hour)
	@$(CARGO) run --locked --release -p gengfu-alarm --example district_year

firmware-check: ## build the node's logic for a Cortex-M3 and a Cortex-M4
	@scripts/firmware-check.sh
	@scripts/firmware-check.sh thumbv7em-none-eabihf

fmt: ## format all Rust
	@$(CARGO) fmt --all

lint: ## formatting and clippy, warnings are errors
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

clean: ## remove all that was built and downloaded here
	@$(CARGO) clean

link-lives: ## simulated lives of nodes, wires, gateway and disk, SEEDS of them (not in CI; `make test` lives 200)
	@GENGFU_SEEDS=$(SEEDS) $(CARGO) test --locked -p gengfu --lib link::tests::simulation::w20 -- --nocapture

simulate: ## simulated lives of a whole gateway with brokers, centre and power cuts, SEEDS of them on all cores (not in CI; `make test` lives 300)
	@GENGFU_SEEDS=$(SEEDS) $(CARGO) test --locked -p gengfu --lib tests::whole_gateway::what_a_node -- --nocapture

fuzz: setup-test ## fuzz every decoder for FUZZ_SECONDS each (not in CI; `make test` runs a short share)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

# The four long runs repeat a scenario of hil-tests/tests more often than `make test` does.
test-kill: setup-test ## kill -9 the gateway ROUNDS times while events flow
	@$(CARGO) build --locked --workspace --bins
	@GENGFU_ROUNDS=$(ROUNDS) $(CARGO) test --locked -p hil-tests --test kill -- --nocapture

test-power-cut: setup-test ## cut the gateway's disk ROUNDS times (needs root)
	@$(CARGO) build --locked --workspace --bins
	@GENGFU_ROUNDS=$(ROUNDS) $(CARGO) test --locked -p hil-tests --test power_cut -- --nocapture

test-matrix: setup-test ## every fault between gateway and centre, ROUNDS times (3 unless said)
	@$(CARGO) build --locked --workspace --bins
	@GENGFU_ROUNDS=$(if $(filter-out file,$(origin ROUNDS)),$(ROUNDS),3) $(CARGO) test --locked -p hil-tests --test fault_matrix -- --nocapture --test-threads 1

test-rtsp: setup-test ## cameras of every codec, transport and login, and ROUNDS reconnects that leave nothing behind
	@GENGFU_ROUNDS=$(ROUNDS) $(CARGO) test --locked -p hil-tests --test rtsp_matrix -- --nocapture --test-threads 1

test-soak: setup-test ## events, outages and camera faults for ROUNDS rounds
	@$(CARGO) build --locked --workspace --bins
	@GENGFU_ROUNDS=$(ROUNDS) $(CARGO) test --locked -p hil-tests --test soak -- --nocapture

test-clips: setup-test ## VARIANTS spoiled copies of each clip: exactly the standing vehicles are told (`make test` tries 3)
	@GENGFU_VARIANTS=$(VARIANTS) $(CARGO) test --locked -p hil-tests --test clips -- --nocapture spoiled

test-cameras: setup-test ## 16 cameras of 1080p while smoke alarms flow, for MINUTES; then more than the machine can do
	@$(CARGO) build --locked --workspace --bins
	@GENGFU_MINUTES=$(MINUTES) $(CARGO) test --locked -p hil-tests --test camera_load -- --nocapture

test-cluster: setup-test ## 200 gateways against NATS of three nodes, one killed every 30 s, for MINUTES (then RabbitMQ)
	@$(CARGO) build --locked --workspace --bins
	@GENGFU_MINUTES=$(MINUTES) $(CARGO) test --locked -p hil-tests --test cluster -- --nocapture --test-threads 1 killed
