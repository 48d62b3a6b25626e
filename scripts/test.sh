#!/usr/bin/env bash
# Every check, cheapest first; stops at the first that fails. `make test` and `.ci/run` call it.
#
#   scripts/test.sh all    lints, then every test
#   scripts/test.sh lint   formatting, clippy, feature combinations, documentation, licences
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091
. ./.env.make

features=(--features pitr-archiver/embedded)

step() {
  echo "== $*" >&2
  local start=$SECONDS
  "$@"
  echo "== ${SECONDS}s so far, $((SECONDS - start))s for this" >&2
}
# A toolchain without this component: try to add it, else say that the check is missing.
component() {
  cargo "$1" --version >/dev/null 2>&1 && return 0
  command -v rustup >/dev/null && rustup component add "$2" >&2 && cargo "$1" --version >/dev/null 2>&1 && return 0
  echo "SKIPPED: $2 is missing (rustup component add $2): not checked" >&2
  return 1
}

lint() {
  if component fmt rustfmt; then
    step cargo fmt --all -- --check
  fi
  if component clippy clippy; then
    step cargo clippy --quiet --release --workspace --all-targets "${features[@]}" -- -D warnings
    # What others build from us: the archive crate without any cloud client, the archiver without RocksDB.
    step cargo clippy --quiet --release -p pitr-archive --all-targets --no-default-features -- -D warnings
    step cargo clippy --quiet --release -p pitr-archiver --all-targets -- -D warnings
  fi
  step env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --release --workspace --no-deps "${features[@]}"
  if cargo deny --version >/dev/null 2>&1; then
    step cargo deny --all-features check bans licenses sources
    # The database of advisories comes from the network, and a machine without it can still test everything else.
    if cargo deny --all-features fetch db >/dev/null 2>&1; then
      step cargo deny --all-features check advisories
    else
      echo "SKIPPED: the database of advisories cannot be fetched: advisories not checked" >&2
    fi
  else
    echo "SKIPPED: cargo-deny is not installed (cargo install cargo-deny): licences and advisories not checked" >&2
  fi
}

all() {
  lint
  step cargo test --release --workspace --no-run "${features[@]}"
  ./scripts/seed.sh keep
  # Last, so that the output ends with the test results.
  exec cargo test --release --workspace "${features[@]}"
}

case "${1:-all}" in
lint) lint ;;
all) all ;;
*)
  echo "usage: test.sh [all|lint]" >&2
  exit 2
  ;;
esac
