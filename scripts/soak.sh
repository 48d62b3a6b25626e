#!/usr/bin/env bash
# The fuzz targets and random programs for MINUTES (default 30), the latter in batches; before them a thousand kills of the
# archiver and a hundred and twenty power cuts, whatever MINUTES says (about twenty minutes), and SOAK_MINUTES (default 60)
# of everything at once: load, outages, restarts, kills, bases, pruning (tests/soak.rs; needs root).
#
# Every fuzz target gets as many seconds as there are minutes, together a fifth of the time (scripts/fuzz.sh). Their
# corpora grow in $PITR_CACHE/fuzz, so that the next run goes on where this one ended.
#
# Runs add up: every batch that passed is appended to $PITR_CACHE/soak.log with its first and last seed and the commit, and
# the next run goes on behind the highest. A failure ends it and names the seed, which `make hunt` (PITR_FIRST, PITR_SEED)
# replays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091
. ./.env.make

cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}
log=$cache/soak.log
minutes=${MINUTES:-30}
soak_minutes=${SOAK_MINUTES:-60}
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

property() {
  cargo test --quiet --release --workspace --features pitr-archiver/embedded --test property "$@"
}
property --no-run

if ! FUZZ_SECONDS=$minutes ./scripts/fuzz.sh; then
  echo "fuzz-failed $minutes $commit" >>"$log"
  exit 1
fi
echo "fuzzed $minutes $commit" >>"$log"

# A seed of their own each time, so that runs add up.
crashes=$(awk '$1 == "crashes" { n++ } END { print n + 2 }' "$log" 2>/dev/null || echo 2)
crash() {
  PITR_SEED=$crashes cargo test --quiet --release --workspace --features pitr-archiver/embedded --test "$@" -- --nocapture
}
if ! PITR_KILLS=1000 crash kills || ! PITR_POWER_CUTS=20 crash power_loss ||
  ! PITR_SOAK_MINUTES=$soak_minutes crash soak; then
  echo "crashes-failed $crashes $commit" >>"$log"
  echo "soak: the kills, the power cuts or the soak of PITR_SEED=$crashes failed" >&2
  exit 1
fi
echo "crashes $crashes $commit" >>"$log"

batch=500
# `make test` runs the seeds below this anyway.
seed=$(awk 'BEGIN { last = 499 } $1 == "passed" && $3 > last { last = $3 } END { print last + 1 }' "$log" 2>/dev/null || echo 500)
passed=0
while [ "$SECONDS" -lt $(((minutes + soak_minutes) * 60)) ]; do
  last=$((seed + batch - 1))
  if ! output=$(PITR_FIRST=$seed PITR_PROGRAMS=$batch property 2>&1); then
    printf '%s\n' "$output" | tail -200
    echo "failed $seed $last $commit" >>"$log"
    echo "soak: a seed of $seed to $last failed after $passed that passed; it is named above" >&2
    exit 1
  fi
  echo "passed $seed $last $commit" >>"$log"
  passed=$((passed + batch))
  seed=$((last + 1))
done
total=$(awk '$1 == "passed" { n += $3 - $2 + 1 } END { print n }' "$log")
echo "soak: $passed seeds passed in $minutes minutes, up to $((seed - 1)); $total in all ($log)"
