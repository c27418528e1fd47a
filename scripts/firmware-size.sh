#!/usr/bin/env bash
# Builds the node's images and prints what each takes of its budget: 48 KiB of flash, 8 KiB of RAM with the stack.
# The linker refuses an image beyond its memory.x; this also refuses one whose variables leave the stack too little, and one whose memory.x
# was made larger.
set -euo pipefail
cd "$(dirname "$0")/.."
flash_max=$((48 * 1024))
ram_max=$((8 * 1024))
# The deepest stack seen in QEMU is 6,220 bytes (hil-tests/tests/cortex_m3.rs measures it and wants a reserve). On the STM32F411, which has no
# emulator, the linker gives the stack all of the chip's 128 KiB, and the same figures bound the variables.
stack_min=$((7 * 1024))
target_dir=${CARGO_TARGET_DIR:-target}

# The boot loader's own budget: its 32 KiB without the page of keys, and the RAM beyond the image's.
boot=gengfu-boot-cortex-m3
boot_flash_max=$((31 * 1024))
boot_ram_max=$((12 * 1024))
# The deepest stack seen in QEMU is 7,612 bytes (hil-tests/tests/cortex_update.rs measures it and wants a reserve).
boot_stack_min=$((11 * 1024))

# build BOARD TARGET TARGET_DIR [ARGUMENT...]
build() {
  "${CARGO:-cargo}" build --locked --release --manifest-path "firmware/$1/Cargo.toml" --target "$2" --target-dir "$3" "${@:4}"
}

# Sections that are in memory (flag A): what has bytes in the file is in flash, what is written (W) is in RAM; .data is in both.
sizes() {
  readelf --sections --wide "$1" | sed 's/^ *\[ *[0-9]*\]//' | awk '
    function hex(text,   n, i) { for (i = 1; i <= length(text); i++) n = n * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1; return n }
    $7 ~ /A/ { size = hex($5); if ($2 == "PROGBITS") flash += size; if (hex($3) >= hex("20000000")) ram += size }
    END { print flash + 0, ram + 0 }'
}

row() { printf '%-22s %6d of %6d bytes  %3d %%\n' "$1" "$2" "$3" $(($2 * 100 / $3)); }

# check FILE FLASH_MAX RAM_MAX STACK_MIN
check() {
  local flash ram stack
  read -r flash ram < <(sizes "$1")
  [ "$flash" -gt 0 ] || { echo "firmware: no sections found in $1" >&2; exit 1; }
  stack=$(($3 - ram))
  row "flash" "$flash" "$2"
  row "RAM: variables" "$ram" "$3"
  printf '%-22s %6d bytes, %d needed\n' "RAM: left for the stack" "$stack" "$4"
  [ "$flash" -le "$2" ] || { echo "firmware: $flash bytes of flash are more than $2: make it smaller" >&2; exit 1; }
  [ "$stack" -ge "$4" ] || { echo "firmware: the variables leave the stack $stack bytes, it needs $4: make them smaller" >&2; exit 1; }
}

for board in node-cortex-m3:thumbv7m-none-eabi node-stm32f411:thumbv7em-none-eabihf; do
  name=${board%:*} target=${board#*:}
  echo "==> building gengfu-$name for $target"
  build "$name" "$target" "$target_dir"
  check "$target_dir/$target/release/gengfu-$name" $flash_max $ram_max $stack_min
done

board=node-cortex-m3 target=thumbv7m-none-eabi
for slot in a b; do
  echo "==> building gengfu-$board for slot $slot behind the boot loader"
  # A folder of its own, so that nothing is built again when nothing has changed.
  GENGFU_SLOT=$slot build $board $target "$target_dir/slot-$slot"
  check "$target_dir/slot-$slot/$target/release/gengfu-$board" $flash_max $ram_max $stack_min
done
echo "==> building $boot for $target"
build $board $target "$target_dir" --package $boot
check "$target_dir/$target/release/$boot" $boot_flash_max $boot_ram_max $boot_stack_min
