#!/usr/bin/env bash
# Builds the node's image for the Cortex-M3 and prints what it takes of its budget: 48 KiB of flash, 8 KiB of RAM with the stack.
# The linker refuses an image beyond it (firmware/node-cortex-m3/memory.x); this also refuses one whose variables leave the
# stack too little, and one whose memory.x was made larger.
set -euo pipefail
cd "$(dirname "$0")/.."
target=thumbv7m-none-eabi
name=gengfu-node-cortex-m3
flash_max=$((48 * 1024))
ram_max=$((8 * 1024))
# The deepest stack seen in QEMU is 6,840 bytes (hil-tests/tests/cortex_m3.rs measures it and wants a reserve).
stack_min=$((7 * 1024))
target_dir=${CARGO_TARGET_DIR:-target}

echo "==> building $name for $target"
"${CARGO:-cargo}" build --locked --release --manifest-path firmware/node-cortex-m3/Cargo.toml --target $target \
  --target-dir "$target_dir"
image=$target_dir/$target/release/$name

# Sections that are in memory (flag A): what has bytes in the file is in flash, what is written (W) is in RAM; .data is in both.
read -r flash ram < <(readelf --sections --wide "$image" | sed 's/^ *\[ *[0-9]*\]//' | awk '
  function hex(text,   n, i) { for (i = 1; i <= length(text); i++) n = n * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1; return n }
  $7 ~ /A/ { size = hex($5); if ($2 == "PROGBITS") flash += size; if (hex($3) >= hex("20000000")) ram += size }
  END { print flash + 0, ram + 0 }')
[ "$flash" -gt 0 ] || { echo "firmware: no sections found in $image" >&2; exit 1; }
stack=$((ram_max - ram))

row() { printf '%-22s %6d of %6d bytes  %3d %%\n' "$1" "$2" "$3" $(($2 * 100 / $3)); }
row "flash" "$flash" "$flash_max"
row "RAM: variables" "$ram" "$ram_max"
printf '%-22s %6d bytes, %d needed\n' "RAM: left for the stack" "$stack" "$stack_min"
[ "$flash" -le "$flash_max" ] || { echo "firmware: $flash bytes of flash are more than $flash_max: make it smaller" >&2; exit 1; }
[ "$stack" -ge "$stack_min" ] || { echo "firmware: the variables leave the stack $stack bytes, it needs $stack_min: make them smaller" >&2; exit 1; }
