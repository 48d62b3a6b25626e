#!/usr/bin/env bash
# Random programs for MINUTES (default 30), one seed after the other, each in its own process.
#
# Runs add up: what has passed is appended to $PITR_CACHE/soak.log with the commit, and the next run goes on with the
# following seed. A failure ends it and names the seed: PITR_SEED=... cargo test --release --test property
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091
. ./.env.make

cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}
log=$cache/soak.log
minutes=${MINUTES:-30}
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

cargo test --quiet --release --workspace --features pitr-archiver/embedded --no-run --test property
test_program() {
  cargo test --quiet --release --workspace --features pitr-archiver/embedded --test property
}

# Seeds below this are the ones that `make test` runs anyway.
seed=$(awk 'BEGIN { last = 99999999 } $1 == "passed" && $2 > last { last = $2 } END { print last + 1 }' "$log" 2>/dev/null || echo 100000000)
passed=0
while [ "$SECONDS" -lt $((minutes * 60)) ]; do
  if ! output=$(PITR_SEED=$seed test_program 2>&1); then
    printf '%s\n' "$output"
    echo "failed $seed $commit" >>"$log"
    echo "soak: seed $seed failed after $passed that passed: PITR_SEED=$seed cargo test --release --test property" >&2
    exit 1
  fi
  echo "passed $seed $commit" >>"$log"
  passed=$((passed + 1))
  seed=$((seed + 1))
done
echo "soak: $passed seeds passed in $minutes minutes; $(grep -c '^passed' "$log") in all ($log)"
