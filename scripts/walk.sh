#!/usr/bin/env bash
# The walk in the README, for real: an Oxigraph server that is written to without pause, archived to S3 (moto), robbed of
# its data, killed, and brought back to a tag, to a time and to the end. Prints each command and what it answered.
#
#   make build tools && scripts/walk.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$(./scripts/tools.sh)
bin=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
[ -x "$bin/pitr" ] || { echo "make build first" >&2; exit 2; }
for program in oxigraph moto_server; do
  [ -x "$tools/venv/bin/$program" ] || { echo "SKIPPED: $program is missing (make tools)" >&2; exit 0; }
done
export PATH=$bin:$tools/venv/bin:$PATH COLUMNS=120 NO_COLOR=1

work=$(mktemp -d "${TMPDIR:-/tmp}/pitr-walk.XXXXXX")
children=()
end() {
  for child in "${children[@]}"; do
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap end EXIT
cd "$work"

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
http() { # METHOD URL [TYPE BODY]
  python - "$@" <<'PY'
import sys, time, urllib.request
method, url, *rest = sys.argv[1:]
request = urllib.request.Request(url, method=method)
if rest:
    request.add_header("Content-Type", rest[0])
    request.data = rest[1].encode()
for attempt in range(100):
    try:
        urllib.request.urlopen(request).read()
        break
    except urllib.error.HTTPError:
        raise
    except OSError:
        time.sleep(0.1)
PY
}
show() { # prints a command as a person would type it, then what it says
  echo
  echo "\$ $*"
  eval "$*" 2>&1
}

s3=$(free_port)
server=$(free_port)
moto_server -H 127.0.0.1 -p "$s3" >moto.log 2>&1 &
children+=($!)
http PUT "http://127.0.0.1:$s3/backups"
oxigraph serve --location graph --bind "127.0.0.1:$server" >server.log 2>&1 &
oxigraph=$!
children+=("$oxigraph")
http POST "http://127.0.0.1:$server/update" application/sparql-update 'INSERT DATA {}'

# A client that never stops: one triple after the other.
python - "$server" >client.log 2>&1 <<'PY' &
import itertools, sys, urllib.request
for n in itertools.count():
    body = 'INSERT DATA { <http://example.com/%d> <http://example.com/is> "value %d" }' % (n, n)
    request = urllib.request.Request("http://127.0.0.1:%s/update" % sys.argv[1], data=body.encode(),
                                     headers={"Content-Type": "application/sparql-update"})
    urllib.request.urlopen(request).read()
PY
children+=($!)
sleep 1

export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=testtest AWS_EC2_METADATA_DISABLED=true
export PITR_DB=graph PITR_ARCHIVE="s3://backups/graph?region=us-east-1&endpoint=http://127.0.0.1:$s3"

show 'pitr check' || true
echo
echo '$ pitr run &'
pitr run >run.log 2>&1 &
archiver=$!
children+=("$archiver")
for _ in $(seq 100); do
  pitr plan --to-latest >/dev/null 2>&1 && break
  sleep 0.2
done
sleep 3
show 'pitr status'
show "pitr tag create before-migration --note 'release 4.2'"
sleep 2
show 'oops=$(date --utc +%Y-%m-%dT%H:%M:%S.%6NZ); echo $oops'
http POST "http://127.0.0.1:$server/update" application/sparql-update 'DELETE WHERE { ?s <http://example.com/is> ?o }'
echo '# ... somebody deletes everything; the client writes on ...'
sleep 2
show "kill -9 \$oxigraph    # and then the server dies"
sleep 2
show 'kill $archiver; wait $archiver; echo "exit code $?"'
show 'rm -rf graph'

count="SELECT (COUNT(*) AS ?n) { ?s ?p ?o }"
show 'pitr list'
show "pitr log --from \$oops --limit 5"
show "pitr plan --to-time \$oops"
show "pitr restore --to-time \$oops --into at-time"
show "oxigraph query --location at-time --results-format csv --query '$count'"
show 'pitr restore --to-tag before-migration --into at-tag'
show "oxigraph query --location at-tag --results-format csv --query '$count'"
show 'pitr restore --to-latest --into latest'
show "oxigraph query --location latest --results-format csv --query '$count'"
show 'pitr verify'
