#!/usr/bin/env bash
# Installs the programs that the end-to-end tests run against into $PITR_CACHE/tools: real servers that keep their data in
# RocksDB, and object stores. None of them is needed to build or use pitr.
#
#   venv/            Python: moto (S3), oxigraph and pyoxigraph (a server on RocksDB), rocksdict (RocksDB from Python)
#   node_modules/    Azurite (Azure Blob Storage), where node and npm are there
#
# What cannot be installed is named loudly and its tests skip themselves as loudly: this script never fails a build.
set -uo pipefail

cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}
tools=$cache/tools
mkdir -p "$tools"

say() { echo "tools: $*" >&2; }
skip() { echo "SKIPPED: $*" >&2; }

exec 9>"$tools/lock"
flock 9 # two checkouts may run this at once

python_packages=('moto[server]==5.2.5' 'oxigraph==0.5.13' 'pyoxigraph==0.5.13' 'rocksdict==0.3.29')
python_tools() {
  local stamp=$tools/venv/installed
  # The stamp is written last and names the versions: an interrupted or older installation is completed.
  [ "$(cat "$stamp" 2>/dev/null)" = "${python_packages[*]}" ] && return 0
  command -v python3 >/dev/null || { skip "python3 is missing: no moto, Oxigraph, rocksdict"; return; }
  if [ ! -x "$tools/venv/bin/pip" ]; then
    if ! python3 -m venv "$tools/venv" >&2; then
      if [ "$(id -u)" = 0 ]; then as_root=(); else as_root=(sudo -n); fi
      "${as_root[@]}" apt-get install -y -qq python3-venv >&2 && python3 -m venv "$tools/venv" >&2 ||
        { skip "python3 -m venv does not work (Debian: apt-get install python3-venv): no moto, Oxigraph, rocksdict"; return; }
    fi
  fi
  say "installing ${python_packages[*]}"
  if "$tools/venv/bin/pip" install --quiet "${python_packages[@]}" >&2; then
    echo "${python_packages[*]}" >"$stamp"
    return
  fi
  # One package without a wheel for this machine must not take the others along.
  local package
  for package in "${python_packages[@]}"; do
    "$tools/venv/bin/pip" install --quiet "$package" >&2 || skip "pip could not install $package"
  done
}

azurite=3.35.0
node_tools() {
  grep -qs "\"version\": \"$azurite\"" "$tools/node_modules/azurite/package.json" && return 0
  if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    skip "node and npm are missing: no Azurite, so Azure Blob Storage is not tested (Debian: apt-get install nodejs npm)"
    return
  fi
  say "installing azurite $azurite"
  npm install --silent --no-fund --no-audit --prefix "$tools" "azurite@$azurite" >&2 9>&- || skip "npm could not install azurite"
}

python_tools
node_tools
echo "$tools"
