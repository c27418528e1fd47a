#!/usr/bin/env bash
# Proves that what runs on a microcontroller builds for one: no operating system, no standard library.
# Gets the target's library from rustup, or else from Debian's source of it (install-thumb.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-thumbv7m-none-eabi}
packages=(gengfu-wire gengfu-node)

have_target() { compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/libcore-*.rlib" >/dev/null; }

if ! have_target; then
  echo "==> $target: asking rustup for it"
  timeout 120 rustup target add "$target" >/dev/null 2>&1 || true
fi
if ! have_target; then
  echo "==> $target: building it from Debian's source of the standard library (about a minute)"
  scripts/install-thumb.sh "$target"
fi
echo "==> building ${packages[*]} for $target"
cargo build --locked "${packages[@]/#/--package=}" --target "$target"
