#!/usr/bin/env bash
# Installs the programs that the end-to-end tests run against into $PITR_CACHE/tools: real servers that keep their data in
# RocksDB, and object stores. None of them is needed to build or use pitr.
#
#   venv/            Python: moto (S3), oxigraph and pyoxigraph (a server on RocksDB), rocksdict (RocksDB from Python)
#   rocksdict-*/     older releases of rocksdict, for the RocksDB that each brings
#   node_modules/    Azurite (Azure Blob Storage) and a binding to RocksDB 6, where node and npm are there
#   hdfs/            the jars of a real HDFS (NameNode and DataNode 2.7.3), out of an older pyspark; Java 11 or later runs it
#   mariadb/         MariaDB with MyRocks (RocksDB 6.29): unpacked, not installed
#   openssh/         sshd, where the system has none: unpacked, not installed
#
# And, by apt where this user may: strace (an fsync that fails) and xfsprogs (power cuts on xfs; ext4's tools are always there).
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

# Releases of rocksdict that bring RocksDB 7.5.3, 7.7.3, 8.1.1, 8.6.7, 8.10.0 and 9.7.3, each in a directory of its own.
rocksdict_releases=(0.3.3 0.3.5 0.3.12 0.3.15 0.3.22 0.3.24)
older_rocksdb() {
  [ -x "$tools/venv/bin/pip" ] || return 0
  local release
  for release in "${rocksdict_releases[@]}"; do
    local target=$tools/rocksdict-$release
    [ -e "$target/installed" ] && continue
    say "installing rocksdict $release"
    rm -rf "$target"
    if "$tools/venv/bin/pip" install --quiet --only-binary :all: --no-deps --target "$target" "rocksdict==$release" >&2; then
      touch "$target/installed"
    else
      skip "pip could not install rocksdict $release: its RocksDB is not tested"
    fi
  done
}

# Azurite, and a binding to RocksDB 6.17.3 with prebuilt binaries.
node_packages=(azurite@3.35.0 rocksdb@5.2.1)
node_tools() {
  local package missing=()
  for package in "${node_packages[@]}"; do
    grep -qs "\"version\": \"${package#*@}\"" "$tools/node_modules/${package%@*}/package.json" || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    skip "node and npm are missing: no Azurite, so Azure Blob Storage is not tested, nor is RocksDB 6 (Debian: apt-get install nodejs npm)"
    return
  fi
  say "installing ${missing[*]}"
  # All are named: npm removes what is not.
  npm install --silent --no-fund --no-audit --prefix "$tools" "${node_packages[@]}" >&2 9>&- ||
    skip "npm could not install ${missing[*]}"
}

# What makes disks fail.
fault_tools() {
  local program package
  for program in strace:strace mkfs.xfs:xfsprogs; do
    package=${program#*:}
    PATH=$PATH:/usr/sbin:/sbin command -v "${program%:*}" >/dev/null && continue
    if [ "$(id -u)" = 0 ]; then as_root=(); else as_root=(sudo -n); fi
    say "installing $package"
    command -v apt-get >/dev/null &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2 9>&- ||
      skip "$package could not be installed (Debian: apt-get install $package): what needs ${program%:*} is not tested"
  done
}

# A NameNode and a DataNode: no registry of this machine's has Hadoop itself, but pyspark brings its server. What it lacks
# is the part for HTTP (Jersey 1), so WebHDFS cannot be started from it.
pyspark=2.4.8
hdfs_tools() {
  local target=$tools/hdfs
  [ "$(cat "$target/installed" 2>/dev/null)" = "$pyspark" ] && return 0
  command -v java >/dev/null || { skip "java is missing: no HDFS (Debian: apt-get install default-jre-headless)"; return; }
  command -v python3 >/dev/null || { skip "python3 is missing: no HDFS"; return; }
  say "downloading the jars of HDFS (220 MB, of which 30 MB are kept)"
  local work
  work=$(mktemp -d "$tools/hdfs-download.XXXXXX") || return
  # Its source package wants old tools of its own, which must not get into the other environment.
  if python3 -m venv "$work/venv" >&2 &&
    "$work/venv/bin/pip" install --quiet 'pypandoc==1.7.5' 'setuptools<66' wheel >&2 &&
    "$work/venv/bin/pip" download --quiet --no-deps --no-build-isolation --dest "$work" "pyspark==$pyspark" >&2 &&
    tar -xzf "$work/pyspark-$pyspark.tar.gz" -C "$work" --strip-components=3 --wildcards "pyspark-$pyspark/deps/jars/*"; then
    rm -rf "$target"
    mkdir -p "$target"
    local jar
    for jar in hadoop-{annotations,auth,common,hdfs} commons-{beanutils,cli,codec,collections,configuration,digester} \
      commons-{httpclient,io,lang,logging,math3,net} guava protobuf-java jetty log4j-1 slf4j htrace netty \
      jackson-{core-asl,mapper-asl} xmlenc xercesImpl leveldbjni javax.servlet-api javax.ws.rs-api; do
      cp "$work/$jar"*.jar "$target/" 2>/dev/null
    done
    echo "$pyspark" >"$target/installed"
  else
    skip "pip could not download pyspark $pyspark: HDFS is not tested"
  fi
  rm -rf "$work"
}

# Debian's packages, unpacked and not installed (installing them would start a server): whether all were there.
unpack_packages() {
  local target=$1 package
  shift
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  rm -rf "$target"
  mkdir -p "$target"
  (cd "$target" && apt-get download -qq "$@" 2>&1 | grep -v unsandboxed >&2)
  for package in "$@"; do
    dpkg-deb -x "$target/${package}"_*.deb "$target" || return 1
    rm "$target/${package}"_*.deb
  done
  touch "$target/installed"
}

# MariaDB with MyRocks, which keeps its tables in RocksDB 6.29, and the libraries that a small system lacks.
mariadb_packages=(mariadb-server mariadb-server-core mariadb-client-core mariadb-plugin-rocksdb libmariadb3 libaio1 libnuma1
  liburing2 libsnappy1v5 liblz4-1 libpcre2-8-0)
mariadb_tools() {
  [ -e "$tools/mariadb/installed" ] && return 0
  say "downloading MariaDB (15 MB)"
  unpack_packages "$tools/mariadb" "${mariadb_packages[@]}" ||
    skip "apt-get could not download MariaDB with MyRocks: it is not tested"
}

# An SSH server: the system's own, else Debian's package unpacked (installing it would start a server).
ssh_tools() {
  local target=$tools/openssh
  if [ -x /usr/sbin/sshd ] || [ -e "$target/installed" ]; then return 0; fi
  command -v ssh >/dev/null || { skip "ssh is missing: no SFTP (Debian: apt-get install openssh-client)"; return; }
  say "downloading sshd"
  unpack_packages "$target" openssh-server libwrap0 || skip "apt-get could not download openssh-server: SFTP is not tested"
}

python_tools
older_rocksdb
node_tools
fault_tools
hdfs_tools
ssh_tools
mariadb_tools
echo "$tools"
