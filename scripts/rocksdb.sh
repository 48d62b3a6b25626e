#!/usr/bin/env bash
# Builds RocksDB's C++ library once and keeps it outside the checkout.
#
# Compiling RocksDB takes 15 minutes on two cores; everything else a few. cargo would compile it again for every
# clone, every target directory and every change of an unrelated flag, so it is built here, in a scratch project with the
# same version, features and compiler flags as the workspace, and later builds only link it (ROCKSDB_LIB_DIR).
#
#   scripts/rocksdb.sh build   build it unless the cache has it, and print its directory
#   scripts/rocksdb.sh dir     print the directory it has, or would have
#   scripts/rocksdb.sh env     print the variables a build needs, as shell exports
#
# Safe against a second run at the same time (flock) and against being killed: a finished directory appears by one rename,
# and cargo resumes the scratch build at the last complete object.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}

locked_version() { # of one package, from Cargo.lock
  awk -v name="$1" '$1 == "name" { hit = ($3 == "\"" name "\"") } hit && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' \
    "$root/Cargo.lock"
}

sys_version=$(locked_version librocksdb-sys)
crate_version=$(locked_version rocksdb)
features=$(sed -n 's/^rocksdb = .*features = \[\([^]]*\)\].*/\1/p' "$root/Cargo.toml" | tr -d ' ')
target=$(rustc -vV | sed -n 's/^host: //p')
# What the compiler is told reaches RocksDB through the Rust flags: build.rs of librocksdb-sys reads target-cpu and features.
flags="$(grep -A3 "^\[target.$target\]" "$root/.cargo/config.toml" 2>/dev/null | grep rustflags || true) ${RUSTFLAGS:-}"
compiler=$(${CXX:-c++} --version 2>/dev/null | head -n 1 || true)
if [ -z "$sys_version" ] || [ -z "$crate_version" ] || [ -z "$features" ]; then
  echo "rocksdb.sh: cannot read the rocksdb version and features from Cargo.lock and Cargo.toml" >&2
  exit 1
fi
key=${sys_version#*+}-$(printf '%s\n' "$sys_version" "$features" "$target" "$flags" "$compiler" ${CXXFLAGS:+"$CXXFLAGS"} | sha256sum | cut -c1-16)
dir=$cache/rocksdb/$key

install_library() { # LIBRARY INCLUDE_DIR: the directory appears complete or not at all
  local staged=$dir.new.$$
  rm -rf "$staged"
  mkdir -p "$staged"
  cp "$1" "$staged/librocksdb.a"
  cp -R "$2" "$staged/include"
  printf 'librocksdb-sys %s\nfeatures %s\ntarget %s\nflags %s\ncompiler %s\n' \
    "$sys_version" "$features" "$target" "$flags" "$compiler" >"$staged/built-from"
  mv -T "$staged" "$dir"
}

build() {
  if [ -f "$dir/librocksdb.a" ]; then
    return
  fi
  mkdir -p "$cache/rocksdb"
  exec 9>"$cache/rocksdb/lock"
  if ! flock -n 9; then
    echo "rocksdb.sh: another build of RocksDB is running; waiting for it" >&2
    flock 9
  fi
  if [ -f "$dir/librocksdb.a" ]; then
    return
  fi
  local scratch=$cache/rocksdb/$key.build
  mkdir -p "$scratch/src" "$scratch/.cargo"
  cp "$root/.cargo/config.toml" "$scratch/.cargo/config.toml"
  # The lock file of the workspace goes along, so that exactly its versions are built (cargo drops what is not needed).
  cp "$root/Cargo.lock" "$scratch/Cargo.lock"
  : >"$scratch/src/lib.rs"
  cat >"$scratch/Cargo.toml" <<TOML
[package]
name = "rocksdb-build"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
rocksdb = { version = "=$crate_version", features = [$features] }
TOML
  echo "rocksdb.sh: compiling RocksDB ${sys_version#*+} into $dir (once; about 15 minutes on two cores)" >&2
  (
    cd "$scratch"
    # A leftover setting would make the build link a library instead of compiling one.
    unset ROCKSDB_LIB_DIR ROCKSDB_STATIC ROCKSDB_INCLUDE_DIR
    CARGO_TARGET_DIR=$scratch/target cargo build --release -p librocksdb-sys >&2 9>&-
  )
  local library include
  library=$(find "$scratch/target/release/build" -path '*/librocksdb-sys-*/out/librocksdb.a' | head -n 1)
  # `cargo metadata` names the unpacked crate wherever CARGO_HOME is.
  include=$(cd "$scratch" && cargo metadata --format-version 1 --quiet |
    grep -o '"manifest_path":"[^"]*librocksdb-sys-[^"]*Cargo.toml"' | head -n 1 | cut -d'"' -f4)
  include=${include%/Cargo.toml}/rocksdb/include
  if [ -z "$library" ] || [ ! -f "$include/rocksdb/c.h" ]; then
    echo "rocksdb.sh: cargo ended without librocksdb.a or the crate's headers were not found" >&2
    exit 1
  fi
  install_library "$library" "$include"
  rm -rf "$scratch"
}

case "${1:-build}" in
build)
  build
  echo "$dir"
  ;;
dir)
  echo "$dir"
  ;;
env)
  printf 'export ROCKSDB_LIB_DIR=%q\nexport ROCKSDB_STATIC=1\nexport ROCKSDB_INCLUDE_DIR=%q\n' "$dir" "$dir/include"
  ;;
install) # LIBRARY INCLUDE_DIR: adopt a library built elsewhere with the same version, features and flags
  mkdir -p "$cache/rocksdb"
  [ -f "$dir/librocksdb.a" ] || install_library "$2" "$3"
  echo "$dir"
  ;;
*)
  echo "usage: rocksdb.sh [build|dir|env|install LIBRARY INCLUDE_DIR]" >&2
  exit 2
  ;;
esac
