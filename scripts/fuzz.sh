#!/usr/bin/env bash
# Fuzzes everything that is decoded: each target, or each that is named, for MINUTES (default 10) or FUZZ_SECONDS, one
# after the other.
#
#   scripts/fuzz.sh [TARGET...]
#
# Runs add up: what a target has learnt stays in $PITR_CACHE/fuzz/TARGET, beside the corpus in fuzz/corpus, which is only
# read. `scripts/fuzz.sh keep` puts what is worth keeping of it into the checkout. A finding ends the run: its input is in
# fuzz/artifacts/TARGET; once it is fixed it belongs into fuzz/regressions/TARGET, which `make test` replays.
# Needs no nightly compiler: the coverage that libFuzzer wants is a pass of the stable one's LLVM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091
[ ! -f .env.make ] || . ./.env.make

cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}
seconds=${FUZZ_SECONDS:-$((${MINUTES:-10} * 60))}
# What `keep` puts into the checkout: so many inputs of a target, none longer than this.
keep_most=150
keep_bytes=2048

sancov=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  sancov+=("-Cllvm-args=-sanitizer-coverage-$option")
done
host=$(rustc -vV | sed -n 's/^host: //p')
# Flags of its own need a directory of its own; with --target they are not applied to build scripts.
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
build() {
  RUSTFLAGS="--cfg fuzzing ${sancov[*]}" CARGO_TARGET_DIR=$target \
    cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --bins
}

mapfile -t all < <(cd fuzz/targets && printf '%s\n' *.rs | sed 's/\.rs$//')

# Puts a sample of the inputs that together reach every edge into the checkout, small and larger ones alike.
keep() {
  local name=$1 seen=$cache/fuzz/$1 here=fuzz/corpus/$1 cover file count=0
  [ -d "$seen" ] || return 0
  cover=$(mktemp -d)
  "$target/$host/release/$name" -set_cover_merge=1 -use_counters=0 -max_len=$keep_bytes "$cover" "$here" "$seen" >/dev/null 2>&1
  # What fuzzing found is named by its sha1; the seeds are there already.
  local seeds
  seeds=$(sha1sum "$here"/seed-* 2>/dev/null | cut -c1-40)
  find "$here" -type f ! -name 'seed-*' -delete
  while read -r file; do
    case $seeds in *"$file"*) continue ;; esac
    cp "$cover/$file" "$here/$file"
    count=$((count + 1))
  done < <(find "$cover" -type f -printf '%s %f\n' | sort -n |
    awk -v most=$keep_most '{ name[NR] = $2 } END { for (i = 1; i <= NR; i += (NR > most ? NR / most : 1)) print name[int(i)] }')
  rm -rf "$cover"
  echo "fuzz: $name: $count inputs beside the seeds in $here"
}

run() {
  local name=$1 seen=$cache/fuzz/$1 log=$cache/fuzz/$1.log
  mkdir -p "$seen" "fuzz/artifacts/$name"
  # An input longer than a block and a little costs more than it finds.
  if ! nice "$target/$host/release/$name" "$seen" "fuzz/corpus/$name" -max_total_time=$seconds -max_len=36900 \
    -len_control=20 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 "-artifact_prefix=fuzz/artifacts/$name/" \
    >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fuzz: $name found something: its input is in fuzz/artifacts/$name, the whole log is $log" >&2
    return 1
  fi
  local runs coverage
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -o 'cov: [0-9]*' "$log" | sed -n '1p;$p' | sed 's/cov: //' | paste -sd ' ' | sed 's/ / to /')
  echo "fuzz: $name: $runs inputs in $seconds s, coverage $coverage edges, $(find "$seen" -type f | wc -l) inputs kept"
}

build
if [ "${1:-}" = keep ]; then
  for name in "${all[@]}"; do keep "$name"; done
  exit
fi
for name in "${@:-${all[@]}}"; do
  [ -f "fuzz/targets/$name.rs" ] || { echo "fuzz: $name is no target; there are: ${all[*]}" >&2; exit 2; }
  run "$name"
done
