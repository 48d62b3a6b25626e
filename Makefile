# `make demo` and `make test` do everything on a fresh machine: install what is missing, build, run.
# One profile (release) for the binary and the tests, so that nothing is compiled twice.
#
#   make demo    build pitr and let it show itself: a database written, archived, destroyed and restored, in seconds
#   make test    formatting, lints, every test
#   make build   the binary, target/release/pitr
#   make hunt    many more random programs than `make test` runs (PITR_PROGRAMS, default 3000)
#   make bench   what pitr run costs the server beside it, how soon it has what was written, what it asks the store, twenty
#                idle databases; what the sequence model costs when a log is read; how fast a log is replayed, against RocksDB;
#                bases and their restores against RocksDB's BackupEngine and cp, a log's size in the archive against zstd;
#                how fast a base is restored, against cp. All tables as JSON, too, one a line: in target/bench.jsonl, or BENCH_JSON=FILE
#   make fuzz    every decoder against a coverage-guided fuzzer, MINUTES each (default 10); TARGETS names some only
#   make soak    a thousand kills, many power cuts and everything at once for SOAK_MINUTES (default 60), then the randomised
#                tests and the fuzzer for as long as MINUTES says (default 30); each seed is printed
#   make tools   the servers and stores that the end-to-end tests run against
#
# Settings: PITR_CACHE (default ~/.cache/pitr) holds RocksDB, compiled dependencies and the tools, for all checkouts.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# Every step runs in the environment that setup.sh found out.
ENV = . ./.env.make;
# The one set of features that is built and tested as a whole; others are linted on their own.
FEATURES = --features pitr-archiver/embedded

hunt: setup
	@$(ENV) PITR_PROGRAMS=$${PITR_PROGRAMS:-3000} cargo test --release --workspace $(FEATURES) --test property -- --nocapture

.PHONY: hunt setup tools build demo test lint deny features unit bench fuzz soak clean

setup:
	@./scripts/setup.sh

tools:
	@./scripts/tools.sh >/dev/null

# The test target is named so that cargo resolves features as it does for `make test`: without it, a third of the
# dependencies would be compiled a second time with slightly different features.
build: setup
	@$(ENV) cargo build --release --workspace --bin pitr --test readme $(FEATURES)

demo: build
	@$(ENV) "$${CARGO_TARGET_DIR:-target}"/release/pitr demo

test: setup tools
	@./scripts/test.sh all

lint: setup
	@./scripts/test.sh lint

bench: export BENCH_JSON := $(abspath $(or $(BENCH_JSON),target/bench.jsonl))
bench: build
	@mkdir -p "$$(dirname "$$BENCH_JSON")"; rm -f "$$BENCH_JSON"
	@$(ENV) cargo bench --workspace $(FEATURES) --bench sequence_model
	@failed=0; $(ENV) cargo bench --workspace $(FEATURES) --bench beside || failed=$$?; \
	$(ENV) cargo bench --workspace $(FEATURES) --bench restore || failed=$$?; \
	$(ENV) cargo bench --workspace $(FEATURES) --bench base || failed=$$?; \
	./scripts/bench.sh || failed=$$?; exit $$failed

fuzz: setup
	@MINUTES=$(or $(MINUTES),10) ./scripts/fuzz.sh $(TARGETS)

soak: setup tools
	@MINUTES=$(or $(MINUTES),30) SOAK_MINUTES=$(or $(SOAK_MINUTES),60) ./scripts/soak.sh

clean:
	rm -rf target .env.make
