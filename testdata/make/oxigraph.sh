#!/bin/sh
# Makes a database with a running Oxigraph server (which recycles its WALs) and copies its files after kill -9.
# Usage: oxigraph.sh OXIGRAPH_PROGRAM DIRECTORY
set -eu
program=$1; dir=$2; port=${PORT:-17878}
start() {
    "$program" serve --location "$dir" --bind 127.0.0.1:$port >/dev/null 2>&1 &
    server=$!
    for _ in $(seq 100); do curl -s -o /dev/null "http://127.0.0.1:$port/" && break; sleep 0.1; done
}
trap 'kill -9 $server 2>/dev/null || true' EXIT
start
# A second open, so that the key that a new database writes once does not keep its WAL alive.
kill "$server"; wait "$server" || true
start
insert() { # first last
    i=$1
    while [ "$i" -le "$2" ]; do
        curl -sf -X POST -H 'Content-Type: application/sparql-update' \
            --data "INSERT DATA { <http://e/$i> <http://p> \"value $i\" . GRAPH <http://g> { <http://e/$i> <http://p> \"value $i\" } }" "http://127.0.0.1:$port/update"
        i=$((i + 1))
    done
}
# A bulk load ingests table files. Loading statements that are in the memtables flushes these first: the WAL is switched
# and, when no column family needs it, its file is recycled.
load() { # number
    printf '<http://e/%s> <http://p> "value %s" .\n<http://e/%s> <http://p> "value %s" <http://g> .\n' $1 $1 $1 $1 |
        curl -sf -X POST -H 'Content-Type: application/n-quads' --data-binary @- \
            "http://127.0.0.1:$port/store?no_transaction"
}
insert 1 60; load 60; insert 61 70; load 70; insert 71 80; load 80; insert 81 90; load 90; insert 91 95; load 95; insert 96 97
