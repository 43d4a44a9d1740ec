# The verbs of the project; `make` alone prints them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

FILTERS := tenant-identification rate-limiting request-classification usage-events
FILTER_PACKAGES := $(FILTERS:%=-p weir-%)
NOT_NATIVE := --exclude weir-plugin-host $(FILTERS:%=--exclude weir-%)
CORES := -p weir-wire -p weir-dialects -p weir-pricing $(FILTERS:%=-p weir-%-core) -p weir-router-core -p weir-meter-core
WASM := target/wasm

# What is slow to install and the same for every checkout stays outside of it.
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/weir
WASM_BINDGEN_VERSION := 0.2.130
WASM_BINDGEN := $(TOOLS)/wasm-bindgen-$(WASM_BINDGEN_VERSION)

.PHONY: help
help: ## Print the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# Debian starts a cluster of its own at install, which nobody here needs.
POSTGRES = { apt-get update -q && apt-get install -qy postgresql-common && sed -i 's/^\#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && apt-get install -qy postgresql; }

.PHONY: setup
setup: .venv/.complete ## Install what is missing: compilers, OpenSSL, Node, Redis, toolchain, Envoy, the SDK
	@command -v cc >/dev/null || { apt-get update -q && apt-get install -qy build-essential; }
	@command -v node >/dev/null || { apt-get update -q && apt-get install -qy nodejs; }
	@pkg-config --exists openssl 2>/dev/null || { apt-get update -q && apt-get install -qy pkg-config libssl-dev; }
	@command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || $(POSTGRES)
	@command -v redis-server >/dev/null || { apt-get update -q && apt-get install -qy redis-server; }
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@rustup target list --installed | grep -q wasm32-wasip1 || rustup target add wasm32-wasip1
	@rustup target list --installed | grep -q wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
	@rustup component list --installed | grep -q clippy || rustup component add clippy rustfmt

.venv/.complete: tests/requirements.txt
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { apt-get update -q && apt-get install -qy python3-venv; }
	python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement tests/requirements.txt
	touch $@

$(WASM_BINDGEN)/bin/wasm-bindgen-test-runner:
	cargo install wasm-bindgen-cli --version $(WASM_BINDGEN_VERSION) --root $(WASM_BINDGEN)

.PHONY: wasm
wasm: setup ## Build the filters into target/wasm, those for Kong into target/wasm/kong
	cargo build --locked --profile filter --target wasm32-wasip1 $(FILTER_PACKAGES)
	cargo build --locked -p weir-trim
	@mkdir -p $(WASM)/kong
	@set -e; for f in $(FILTERS); do n=$${f//-/_}.wasm; b=target/wasm32-wasip1/filter/$$n; \
	  cmp -s $$b $(WASM)/kong/$$n || cp $$b $(WASM)/kong/$$n; \
	  target/debug/weir-trim --sources plugins/$$f/filter/src --sources plugins/host/src --module $$b --output $(WASM)/$$n; done

.PHONY: build
build: setup ## Build the services and the fakes
	cargo build --locked --workspace $(NOT_NATIVE) --bins

.PHONY: run
run: build wasm ## Run everything on the embedded defaults, until Ctrl-C
	@exec target/debug/weir-run run

.PHONY: close-hour
close-hour: ## Send Stripe what the running Weir has used until now
	@exec target/debug/weir-run close-hour

.PHONY: events
events: ## Show what the ledger of the running Weir holds of each request
	@exec target/debug/weir-run events

.PHONY: stop
stop: ## Stop a run that was left behind
	@if [ -x target/debug/weir-run ]; then exec target/debug/weir-run stop; else echo "no run is up"; fi

.PHONY: lint
lint: setup ## Check format and lints, natively and for the filters
	cargo fmt --all --check
	cargo clippy --locked --workspace $(NOT_NATIVE) --all-targets -- -D warnings
	cargo clippy --locked --target wasm32-wasip1 -p weir-plugin-host $(FILTER_PACKAGES) -- -D warnings

.PHONY: test
test: build wasm test-wasm ## Run every test
	cargo test --locked --workspace $(NOT_NATIVE)

.PHONY: test-wasm
test-wasm: setup $(WASM_BINDGEN)/bin/wasm-bindgen-test-runner ## Run the core crates' tests in Node
	PATH="$(WASM_BINDGEN)/bin:$$PATH" cargo test --locked --target wasm32-unknown-unknown $(CORES) --lib

.PHONY: bench
bench: setup wasm ## Measure what the filters cost, and what a flood of tokens does
	cargo run --locked --release -p weir-bench
	cargo run --locked --release -p weir-bench -- --identity --starts 3 --rounds 30 --requests 100
	cargo run --locked --release -p weir-bench -- --flood 1000 --rounds 12 --requests 1000
	cargo run --locked --release -p weir-bench -- --usage --rounds 6 --starts 2
	cargo build --locked --release -p router-service && cargo run --locked --release -p weir-bench -- --quota
	cargo build --locked --release -p weir-router-store --example budget && cargo run --locked --release -p weir-bench -- --budget
	cargo build --locked --release -p meter-aggregator && cargo run --locked --release -p weir-bench -- --aggregator
	cargo run --locked --release -p weir-bench -- --fleet 200000 --rounds 3
	ulimit -n $$(ulimit -Hn) && cargo run --locked --release -p weir-bench -- --inference --rounds 9

.PHONY: clean
clean: ## Remove what was built
	cargo clean
	rm -rf .venv
