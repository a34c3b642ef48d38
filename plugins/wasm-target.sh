#!/usr/bin/env bash
# A private Rust compiler with the standard library for wasm32-wasip2, made from Debian packages: for machines
# where `rustup target add wasm32-wasip2` cannot fetch it, but Debian and the crate registry can be reached.
# Needs a Debian-like system on which rust-lld and wasm-component-ld came with the installed toolchain.
# No root: packages are unpacked, not installed. A minute or three once, then cached.
#
#   plugins/wasm-target.sh           makes it where it is missing, prints the file to source
#   plugins/wasm-target.sh --cached  only prints the file, fails where it is missing
#
# Ends with 75 where this machine cannot have it.
set -euo pipefail
export LC_ALL=C

target=wasm32-wasip2
home=${XDG_CACHE_HOME:-$HOME/.cache}/killstream/wasm-target
root=$home/root
ready=$home/env

say() { echo "wasm-target: $*" >&2; }
cannot() {
  say "$*"
  exit 75
}

# Package lists of our own where the system has none or old ones: apt needs no root for them.
apt() {
  apt-get -q -o Dir::State::lists="$home/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}
known() { apt-cache -o Dir::State::lists="$home/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@"; }

# The tools that link a component come with rustup's toolchain; Debian's compiler does not have them.
linkers() {
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  echo "$(rustc --print sysroot)/lib/rustlib/$host/bin"
}

fetch() {
  mkdir -p "$home/lists/partial" "$home/packages" "$root"
  apt update >&2 || cannot "Debian's package lists cannot be fetched"
  local version llvm package
  version=$(known policy rustc-web | sed -n 's/.*Candidate: \([0-9]*\.[0-9]*\).*/\1/p')
  [ -n "$version" ] || cannot "Debian offers no rustc-web here"
  llvm=$(known depends "libstd-rust-web-$version" | sed -n 's/.*Depends: \(libllvm[0-9]*\).*/\1/p' | head -n 1)
  # Some releases link LLVM into the compiler's own library, and then name none.
  for package in rustc-web "libstd-rust-web-$version" libstd-rust-web-dev rust-web-src wasi-libc $llvm; do
    say "fetching $package"
    (cd "$home/packages" && apt download "$package" >&2) || cannot "the package $package cannot be fetched"
  done
}

unpack() {
  local package
  for package in "$home"/packages/*.deb; do
    case $package in
      # Of 400 MB of sources only the standard library is needed.
      */rust-web-src_*) dpkg --fsys-tarfile "$package" | tar -x -C "$root" --wildcards './usr/src/rustc-*/library/*' './usr/lib/rustlib/src/*' ;;
      *) dpkg -x "$package" "$root" ;;
    esac
  done
}

# The standard library, small: optimised for size, without the machinery of backtraces.
standard_library() {
  local sources probe=$home/probe out=$root/usr/lib/rustlib/$target/lib
  sources=$(cd "$root"/usr/src/rustc-*/ && pwd)
  mkdir -p "$probe/src" "$out/self-contained"
  printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[lib]\n[workspace]\n' >"$probe/Cargo.toml"
  : >"$probe/src/lib.rs"
  local remap="--remap-path-prefix=$sources=/rust --remap-path-prefix=$root/usr/lib/rustlib/src/rust=/rust --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  (cd "$probe" && RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cembed-bitcode=yes $remap" CARGO_TARGET_DIR=$probe/target CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
    CARGO_PROFILE_RELEASE_DEBUG=false cargo build -q --release --target $target -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size >&2) ||
    cannot "the standard library does not build"
  cp "$probe/target/$target/release/deps/"*.rlib "$out"
  rm -f "$out"/libprobe-*
  cp "$root"/usr/lib/wasm32-wasi/{libc.a,crt1-command.o,crt1-reactor.o} "$out/self-contained/"
}

[ "${1:-}" != --cached ] || [ -f "$ready" ] || exit 1

# One at a time: another may be making it just now.
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [ ! -f "$ready" ]; then
  { command -v apt-get && command -v dpkg; } >/dev/null || cannot "this is no Debian-like system"
  bin=$(linkers)
  [ -x "$bin/wasm-component-ld" ] || cannot "the installed Rust has no wasm-component-ld"
  say "making a compiler for $target from Debian packages"
  rm -rf "$root" "$home/probe" "$home/packages"
  fetch
  unpack
  lib=$(dirname "$(find "$root/usr/lib" -name 'librustc_driver-*.so' -print -quit)")
  (
    export RUSTC=$root/usr/bin/rustc LD_LIBRARY_PATH=$lib
    standard_library
  )
  rm -rf "$home/probe" "$home/packages" "$home/lists"
  cat >"$ready.new" <<X
export RUSTC='$root/usr/bin/rustc' LD_LIBRARY_PATH='$lib'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export PATH='$bin:$bin/gcc-ld':"\$PATH"
X
  mv "$ready.new" "$ready"
fi
echo "$ready"
