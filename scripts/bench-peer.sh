#!/usr/bin/env bash
# Makes the Python that `make bench` measures the camera side against: ONNX Runtime of the gateway's own version and numpy, in a folder of
# its own (target/gengfu/peer). A second run changes nothing and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(cat target/gengfu/onnxruntime/libonnxruntime.so.version)
peer=target/gengfu/peer
if [ "$(cat "$peer/version" 2>/dev/null || true)" != "$version" ]; then
  echo "==> Python with ONNX Runtime $version, to measure against"
  python3 -m venv "$peer"
  "$peer/bin/pip" install --quiet --disable-pip-version-check "onnxruntime==$version" "numpy==2.4.6"
  echo "$version" > "$peer/version"
fi
