#!/usr/bin/env bash
# How fast a base is restored, against copying the same files: `cp -r --reflink=never` plus `sync`, alternating, five
# rounds, medians. The promise is at least 0.8 of cp's rate.
#
#   make bench            a database of about 1 GiB
#   SIZE_MIB=4096 make bench
#
# Needs Python with rocksdict (make tools) to write the database. Everything lies in one temporary directory below
# ${BENCH_DIR:-/var/tmp}: source, archive and destination share a disk, as for cp. A disk that other programs use meanwhile
# moves single rounds by a factor of two and more: the figures of all rounds are printed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

size=${SIZE_MIB:-1024}
rounds=${ROUNDS:-5}
pitr=${CARGO_TARGET_DIR:-target}/release/pitr
tools=$(./scripts/tools.sh)
python=$tools/venv/bin/python
"$python" -c 'import rocksdict' 2>/dev/null || { echo "SKIPPED: rocksdict is missing" >&2; exit 0; }

place=${BENCH_DIR:-/var/tmp}
case $(stat -f -c %T "$place") in
  tmpfs | ramfs) echo "$place lies in memory: name a directory on a disk in BENCH_DIR" >&2; exit 2 ;;
esac
work=$(mktemp -d "$place/pitr-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$python" - "$work/db" "$size" <<'PY'
import os, sys
from rocksdict import Options, Rdict, WriteBatch, DBCompressionType
options = Options(raw_mode=True)
options.create_if_missing(True)
options.set_compression_type(DBCompressionType.none())
options.set_target_file_size_base(64 << 20)
db = Rdict(sys.argv[1], options)
for n in range(int(sys.argv[2])):
    batch = WriteBatch(raw_mode=True)
    for i in range(256):
        batch.put(b"%08d-%04d" % (n, i), os.urandom(4096))
    db.write(batch)
db.flush()
db.compact_range(None, None)
db.close()
PY
bytes=$(du -sb "$work/db" | cut -f1)
echo "database: $((bytes >> 20)) MiB in $(find "$work/db" -name '*.sst' | wc -l) SST files"

"$pitr" run --once --db "$work/db" --archive "file:$work/archive" >/dev/null
sync

now() { date +%s%N; }
median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }
cached() { # The page cache must treat both alike; without root both read what is cached.
  sync
  { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null || true
}
: >"$work/cp" >"$work/restore"
for _ in $(seq "$rounds"); do
  cached
  start=$(now)
  cp -r --reflink=never "$work/db" "$work/copied"
  sync
  echo $((($(now) - start) / 1000000)) >>"$work/cp"
  rm -rf "$work/copied"

  cached
  start=$(now)
  "$pitr" restore --to-latest --archive "file:$work/archive" --into "$work/restored" >/dev/null 2>"$work/log" || {
    cat "$work/log" >&2
    exit 1
  }
  sync
  echo $((($(now) - start) / 1000000)) >>"$work/restore"
  rm -rf "$work/restored"
done
cp_ms=$(median <"$work/cp")
restore_ms=$(median <"$work/restore")
echo "cp -r and sync: median $cp_ms ms of $(paste -sd' ' "$work/cp")"
echo "pitr restore:   median $restore_ms ms of $(paste -sd' ' "$work/restore")"
awk -v cp="$cp_ms" -v restore="$restore_ms" 'BEGIN { printf "rate: %.2f of cp (promised: at least 0.80)\n", cp / restore; exit !(cp / restore >= 0.8) }'
