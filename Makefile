SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CLOSURE ?= curl
SECONDS_EACH ?= 60
FUZZ_TARGETS ?=
MUSL := x86_64-unknown-linux-musl
MUSL_BINARY := target/$(MUSL)/dist/firn

.PHONY: help setup packages build test soak lint fmt demo bench bench-ci bench-layers dist fuzz clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what tests, demo and benches need (Debian, root); at once when all is there
	@tools/setup

packages:
	@tools/setup packages

build: ## Build target/release/firn
	cargo build --release --locked -p firn-cli

test: setup lint ## Everything a change must pass: setup, lint, all tests, those with real clients too
	cargo test --workspace --locked

soak: setup ## The long forms of the tests of reliability, some 45 minutes: SOAK_SECONDS=1800, SOAK_KILLS=200
	cargo test --release --locked -p firn-store --test it failpoints::rules -- --include-ignored
	cargo test --release --locked -p firn-store --test it power:: -- --include-ignored --nocapture
	cargo run --release --locked -p firn-store --example collect_many
	cargo test --release --locked -p firn-cli --test soak -- --test-threads=1 --nocapture

lint: setup ## Formatting, clippy, licences and sources of the dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	.cache/tools/bin/cargo-deny --all-features --locked check licenses bans sources

fmt: ## Format the sources
	cargo fmt --all

demo: ## Show the whole job on real input: CLOSURE=curl (default), ffmpeg or a store path
	@tools/demo "$(CLOSURE)"

bench: setup build ## Measure against the peers, paired and interleaved
	tools/bench

bench-ci: setup build ## Act a CI's jobs by Firn and by tarball with the real @actions/cache
	tools/bench-ci

bench-layers: packages build ## Replay series of image revisions with every layer algorithm
	tools/bench-layers

dist: packages ## Build dist/firn, one static binary
	rustup target list --installed | grep -qx $(MUSL) || rustup target add $(MUSL)
	cargo build --profile dist --locked --target $(MUSL) -p firn-cli
	install -D $(MUSL_BINARY) dist/firn
	@ldd dist/firn 2>&1 | grep -E 'statically linked|not a dynamic executable' || { ldd dist/firn; echo 'error: dist/firn is not static' >&2; exit 1; }
	@printf 'dist/firn: %s bytes\n' "$$(stat -c %s dist/firn)"

fuzz: ## Fuzz each parser of foreign bytes for SECONDS_EACH=60 (nightly Rust); FUZZ_TARGETS="nar tar" for some
	@tools/setup fuzz
	tools/fuzz $(SECONDS_EACH) $(FUZZ_TARGETS)

clean: ## Remove what was built, but not what setup fetched (that is .cache)
	cargo clean
	rm -rf dist
