#!/usr/bin/env bash
# Keeps compiled third-party crates outside the checkout, so that a fresh clone compiles only our own four.
#
#   scripts/seed.sh plant   fill an empty target directory from the cache
#   scripts/seed.sh keep    put a built target directory's third-party part into the cache
#
# Why a copy, and not one target directory for all checkouts: cargo names the artefacts of workspace crates by their path
# *within* the workspace and judges them by modification times, so a checkout whose sources are older than another
# checkout's build is taken for built. The copy therefore holds nothing of ours: no pitr crate, no test program.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}
target=${CARGO_TARGET_DIR:-$root/target}

# Artefacts are only good for one compiler, one set of flags and one profile; crates may differ (cargo sorts that out).
compiler=$({
  rustc -vV
  echo "${RUSTFLAGS:-}"
  cat "$root/.cargo/config.toml"
  sed -n '/^\[profile/,$p' "$root/Cargo.toml"
  "$root/scripts/rocksdb.sh" dir
} | sha256sum | cut -c1-16)
crates=$(sha256sum <"$root/Cargo.lock" | cut -c1-16)
seeds=$cache/seeds/$compiler
seed=$seeds/$crates

plant() {
  [ ! -e "$target/release/deps" ] || return 0
  local from=$seed
  if [ ! -d "$from" ]; then
    # A seed of another lock file still has most crates.
    from=$(ls -td "$seeds"/*/ 2>/dev/null | grep -v '\.new\.' | head -n 1 || true)
    [ -n "$from" ] || return 0
  fi
  echo "seed.sh: copying compiled dependencies into $target" >&2
  local staged=$target/release.new.$$
  mkdir -p "$target"
  # -a keeps modification times, which cargo compares.
  if cp -a --reflink=auto "${from%/}/release" "$staged"; then
    mv -T "$staged" "$target/release"
    cp -a "${from%/}/.rustc_info.json" "$target/" 2>/dev/null || true
  else
    rm -rf "$staged"
    echo "seed.sh: could not copy (disk full?); everything will be compiled" >&2
  fi
}

keep() {
  [ ! -d "$seed" ] && [ -d "$target/release/deps" ] || return 0
  local staged=$seed.new.$$
  mkdir -p "$staged/release"
  echo "seed.sh: keeping compiled dependencies in $seed" >&2
  cp -a --reflink=auto "$target/release/deps" "$target/release/build" "$target/release/.fingerprint" "$staged/release/"
  cp -a "$target/.rustc_info.json" "$staged/" 2>/dev/null || true
  # Ours are named pitr*, and so is what describes them; programs (tests, the binary) have no extension.
  find "$staged/release" -mindepth 2 -maxdepth 2 -name '*pitr*' -exec rm -rf {} +
  find "$staged/release/deps" -maxdepth 1 -type f ! -name '*.*' -delete
  mv -T "$staged" "$seed" 2>/dev/null || rm -rf "$staged" # another checkout was quicker
  # Each is about a gigabyte: the newest two stay.
  ls -td "$cache"/seeds/*/*/ 2>/dev/null | grep -v '\.new\.' | tail -n +3 | xargs -r rm -rf
}

case "${1:-}" in
plant) plant ;;
keep) keep ;;
*)
  echo "usage: seed.sh plant|keep" >&2
  exit 2
  ;;
esac
