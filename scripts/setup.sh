#!/usr/bin/env bash
# Makes this machine able to build pitr, and writes .env.make, which the Makefile sources before every step.
#
# Installs what is missing: a C++ compiler and libclang (for the RocksDB bindings), with apt where this user may, otherwise
# libclang from the Python package index into a private environment. Builds RocksDB once (scripts/rocksdb.sh). Says what
# it does; touches nothing but this checkout, $PITR_CACHE and, through apt, the system's packages. A second run takes a second.
set -euo pipefail
PATH_AT_START=$PATH

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PITR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pitr}
mkdir -p "$cache"

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

apt_updated=no
# Installs Debian packages; false where this user may not or apt has no answer.
install_packages() {
  local as_root=()
  have apt-get || return 1
  if [ "$(id -u)" != 0 ]; then
    # -n: a password prompt in the middle of make would look like a hang.
    have sudo && sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  say "installing $*"
  if [ $apt_updated = no ]; then
    "${as_root[@]}" apt-get update -qq >&2 || true
    apt_updated=yes
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# 1. Rust. Not installed by us: which toolchain to trust is the owner's choice.
if ! have cargo; then
  for candidate in "${CARGO_HOME:-$HOME/.cargo}/bin" /usr/local/cargo/bin; do
    if [ -x "$candidate/cargo" ]; then
      export PATH="$candidate:$PATH"
      break
    fi
  done
fi
if ! have cargo; then
  say "cargo is missing: install Rust from https://rustup.rs, then run this again"
  exit 2
fi
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
found=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" != "$wanted" ]; then
  say "Rust $wanted or newer is needed, this is $found: rustup update stable"
  exit 2
fi

# 2. C and C++ compilers.
if ! have "${CXX:-c++}" || ! have "${CC:-cc}"; then
  install_packages g++ libc6-dev || { say "a C++20 compiler is missing (Debian: apt-get install g++)"; exit 2; }
fi

# 3. libclang, which bindgen loads at build time.
clang_lines=""
# libclang-cpp, which comes with clang alone, is another library: bindgen does not take it.
has_libclang() {
  compgen -G "$1/libclang*.so*" | grep -qv '/libclang-cpp'
}
find_libclang() {
  local place
  for place in ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
    has_libclang "$place" && return 0
  done
  have llvm-config && has_libclang "$(llvm-config --libdir)"
}
libclang_from_python() {
  local venv=$cache/libclang
  if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import clang' 2>/dev/null; then
    have python3 || return 1
    python3 -m venv "$venv" >&2 || { install_packages python3-venv && python3 -m venv "$venv" >&2; } || return 1
    say "installing libclang into $venv"
    "$venv/bin/pip" install --quiet libclang==18.1.1 >&2 || return 1
  fi
  local native
  native=$("$venv/bin/python" -c 'import clang, os; print(os.path.join(list(clang.__path__)[0], "native"))')
  # The Python package has the library but not the compiler's own headers (stdbool.h): borrow gcc's.
  clang_lines=$(printf 'export LIBCLANG_PATH=%q\nexport BINDGEN_EXTRA_CLANG_ARGS=%q\n' \
    "$native" "-I$("${CC:-cc}" -print-file-name=include)")
}
if ! find_libclang; then
  install_packages libclang-dev || true
  if ! find_libclang; then
    libclang_from_python || { say "libclang is missing (Debian: apt-get install libclang-dev)"; exit 2; }
  fi
elif [ -n "${LIBCLANG_PATH:-}" ]; then
  clang_lines=$(printf 'export LIBCLANG_PATH=%q\n' "$LIBCLANG_PATH")
fi

# 4. The environment of every later step, and RocksDB.
write_env() {
  local staged=$root/.env.make.new
  {
    echo "# Written by scripts/setup.sh; source it to build by hand."
    "$root/scripts/rocksdb.sh" env
    [ -z "$clang_lines" ] || echo "$clang_lines"
    case ":$PATH_AT_START:" in
    *":$(dirname "$(command -v cargo)"):"*) ;;
    *) printf 'export PATH=%q:"$PATH"\n' "$(dirname "$(command -v cargo)")" ;;
    esac
  } >"$staged"
  mv "$staged" "$root/.env.make"
}
[ -z "$clang_lines" ] || eval "$clang_lines"
"$root/scripts/rocksdb.sh" build >/dev/null
write_env

# 5. Compiled dependencies of an earlier checkout.
"$root/scripts/seed.sh" plant
