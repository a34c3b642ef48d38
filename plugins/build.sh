#!/usr/bin/env bash
# Rebuilds the prebuilt components: plugins/build.sh [DESTINATION], default plugins/prebuilt.
#
# Takes the target wasm32-wasip2 from rustup where it is installed or can be added, else a compiler made by
# wasm-target.sh (PLUGINS_TOOLCHAIN=debian: in any case). Ends with 75 and says so loudly where this machine can
# have neither. Compiles into CARGO_TARGET_DIR, default plugins/target.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$here")
destination=$(mkdir -p "${1:-$here/prebuilt}" && cd "${1:-$here/prebuilt}" && pwd)
target=wasm32-wasip2
plugins=(high-value watchlist gatecamp bench-filter)
# No components: what the benches compare with.
modules=(bench-json)
built=${CARGO_TARGET_DIR:-$here/target}/guests

installed() { [ "${PLUGINS_TOOLCHAIN:-}" != debian ] && [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; }
added() { [ "${PLUGINS_TOOLCHAIN:-}" != debian ] && command -v rustup >/dev/null && timeout "${RUSTUP_SECS:-60}" rustup target add "$target" >&2; }

# A toolchain that stands there costs nothing; one that must be fetched comes after all that do.
compiler() {
  local environment status
  if installed; then return; fi
  if ! environment=$("$here/wasm-target.sh" --cached); then
    if added; then return; fi
    environment=$("$here/wasm-target.sh") || {
      status=$?
      [ $status = 75 ] || exit $status
      echo "*** NO PLUGINS WERE BUILT: no target $target. 'rustup target add $target' fails here, and so does plugins/wasm-target.sh. ***" >&2
      exit 75
    }
  fi
  # shellcheck source=/dev/null
  source "$environment"
  # Cargo sees that the compiler changed, but not that its standard library was made anew.
  built+=-$(cksum <"$environment" | cut -d ' ' -f 1)-$(date -r "$environment" +%s)
}

# Where things lay on this machine, and which registry they came from, is no part of a plugin.
remap() {
  local cargo=${CARGO_HOME:-$HOME/.cargo} flags sources
  cargo fetch -q --locked --manifest-path "$here/Cargo.toml" --target "$target"
  # The last that fits wins.
  flags="--remap-path-prefix=$cargo=/cargo"
  flags+=$'\x1f'"--remap-path-prefix=$repository=/killstream"
  flags+=$'\x1f'"--remap-path-prefix=$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/src/rust=/rust"
  for sources in "$cargo"/registry/src/*/; do flags+=$'\x1f'"--remap-path-prefix=${sources%/}=/crates"; done
  export CARGO_ENCODED_RUSTFLAGS=$flags
}

check() {
  local component=$1 kind=$2 words
  [ "$(od -An -tx1 -N8 "$component" | tr -d ' \n')" = "0061736d$kind" ] || { echo "$component is not what it should be" >&2; exit 1; }
  for words in "$HOME/" "$repository" "${CARGO_HOME:-$HOME/.cargo}" "$built"; do
    ! grep -aqF -- "$words" "$component" || { echo "$component names $words, a folder of this machine" >&2; exit 1; }
  done
}

compiler
remap
(cd "$here" && CARGO_TARGET_DIR=$built cargo build --release --locked --target "$target" "${plugins[@]/#/--package=}" "${modules[@]/#/--package=}")
for plugin in "${plugins[@]}" "${modules[@]}"; do
  component=$built/$target/release/${plugin//-/_}.wasm
  kind=0d000100
  case " ${modules[*]} " in *" $plugin "*) kind=01000000 ;; esac
  check "$component" "$kind"
  cp "$component" "$destination/$plugin.wasm"
done
(cd "$destination" && sha256sum "${plugins[@]/%/.wasm}" "${modules[@]/%/.wasm}" | tee SHA256SUMS)
