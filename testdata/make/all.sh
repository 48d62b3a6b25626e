#!/bin/sh
# Makes testdata/rocksdb anew. Needs network (PyPI, Debian's archive), python3 with venv, gcc, zstd, curl, and the build
# environment of this project (scripts/setup.sh; ROCKSDB_LIB_DIR and a built target/release).
# Usage: testdata/make/all.sh WORK_DIRECTORY
set -eu
make=$(cd "$(dirname "$0")" && pwd); root=$(cd "$make/../.." && pwd); out=$root/testdata/rocksdb
mkdir -p "$1"; work=$(cd "$1" && pwd); cd "$work"
test -d venv || python3 -m venv venv

# Copies what the decoders are tested with. The SST and blob files are only listed, with their sizes.
keep() { # database name
    rm -rf "${out:?}/$2"; mkdir -p "$out/$2"
    cp "$1"/*.log "$1"/MANIFEST-* "$1"/CURRENT "$1"/IDENTITY "$out/$2/"
    cp "$(ls "$1"/OPTIONS-* | tail -1)" "$out/$2/"
    (cd "$1" && for f in *.sst *.blob; do test -f "$f" && echo "$f $(stat -c %s "$f")"; done || true) > "$out/$2/files.txt"
    python3 "$make/list.py" "$out/$2" > "$out/$2/expected.txt"
}

# RocksDB 6.29.5: the `ldb` of Debian's MariaDB (MyRocks).
test -x ldb/usr/bin/mariadb-ldb || {
    apt-get download mariadb-plugin-rocksdb libsnappy1v5
    for package in *.deb; do dpkg -x "$package" ldb; done
}
ldb() { LD_LIBRARY_PATH=ldb/usr/lib/x86_64-linux-gnu ldb/usr/bin/mariadb-ldb "$@" > ldb.out; }
rm -rf db; ldb put first 1 --db=db --create_if_missing
ldb create_column_family --db=db users
ldb batchput --db=db --column_family=users a 1 b 2 c 3
ldb deleterange --db=db --column_family=users a b
seq 1 3000 | sed 's/.*/key & ==> value &/' | ldb load --db=db
ldb batchput --db=db x 1 y "$(printf '%040000d' 7)"
keep db 6.29.5-ldb

# RocksDB 7.5.3, 8.0.0 and 9.8.4 in releases of rocksdict.
for pair in 0.3.3:7.5.3 0.3.10:8.0.0 0.3.29:9.8.4; do
    release=${pair%:*}; version=${pair#*:}
    test -d "rocksdict-$release" ||
        venv/bin/pip install -q --only-binary :all: --no-deps --target "rocksdict-$release" "rocksdict==$release"
    rm -rf db; PYTHONPATH=rocksdict-$release python3 "$make/python_db.py" db
    keep db "$version-rocksdict"
done
rm -rf db; PYTHONPATH=rocksdict-0.3.29 python3 "$make/python_db.py" db recycle
keep db 9.8.4-recycled
for pair in 0.3.3:7.5.3 0.3.29:9.8.4; do
    rm -rf db; PYTHONPATH=rocksdict-${pair%:*} python3 "$make/python_db.py" db
    cp db/MANIFEST-* .; PYTHONPATH=rocksdict-${pair%:*} python3 "$make/python_db.py" db reopen
    cp -n MANIFEST-* db/; rm MANIFEST-*
    keep db "${pair#*:}-reopened"
done

# RocksDB 11.0.4 in Oxigraph 0.5.13.
test -x venv/bin/oxigraph || venv/bin/pip install -q oxigraph==0.5.13
rm -rf db; sh "$make/oxigraph.sh" venv/bin/oxigraph "$work/db"
keep db 11.0.4-oxigraph

# RocksDB 11.8.1 as this project builds it.
built=$root/target/release/build
first() { ls $1 | head -1; }
gcc -O1 -o shapes "$make/shapes.c" -I"$ROCKSDB_INCLUDE_DIR" -Wl,--start-group "$ROCKSDB_LIB_DIR/librocksdb.a" \
    "$(first "$built/zstd-sys-*/out/libzstd.a")" "$(first "$built/lz4-sys-*/out/liblz4.a")" \
    "$(first "$built/bzip2-sys-*/out/lib/libbz2.a")" "$(first "$built/libz-sys-*/out/lib/libz.a")" \
    "$(first "$built/librocksdb-sys-*/out/libsnappy.a")" -Wl,--end-group -lstdc++ -lpthread -ldl -lm
for case in zstd-timestamps zstd-recycled write-committed write-prepared write-unprepared manifest; do
    rm -rf db; ./shapes $case "$work/db"
    keep db "11.8.1-$case"
done
# The last one again: the old MANIFEST beside the one that the reopen began.
cp db/MANIFEST-* .; ./shapes reopen "$work/db"; cp -n MANIFEST-* db/; rm MANIFEST-*
keep db 11.8.1-reopened
