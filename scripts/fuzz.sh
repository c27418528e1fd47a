#!/usr/bin/env bash
# Fuzzes the decoders with libFuzzer, guided by coverage: scripts/fuzz.sh [SECONDS-EACH] [TARGET...]. Stable Rust: the instrumentation is
# LLVM's own. What is found lies in target/fuzz/artifacts; new inputs that reach new code are kept in target/fuzz/corpus, and
# `scripts/fuzz.sh merge` takes the smallest set of them into the committed corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/target/fuzz
seconds=${1:-600}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in hil-tests/fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# Coverage counters and comparisons of all our code, as libFuzzer wants them.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
RUSTFLAGS=${RUSTFLAGS//$'\n'/}
# An own --target keeps the instrumentation away from build scripts.
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --locked --manifest-path hil-tests/fuzz/Cargo.toml --target "$triple" --target-dir "$work/build"

for target in "${targets[@]}"; do
    program=$work/build/$triple/release/$target
    own=$work/corpus/$target
    committed=hil-tests/fuzz/corpus/$target
    mkdir -p "$own" "$committed" "$work/artifacts"
    if [ "$seconds" = merge ]; then
        small=$(mktemp -d)
        "$program" -merge=1 -max_len=4096 "$small" "$committed" "$own" 2>&1 | tail -n 1
        rm -f "$committed"/*
        # Small enough to commit: the shortest inputs first.
        find "$small" -type f -size -2k -printf '%s %p\n' | sort -n | head -n 120 | cut -d' ' -f2- | xargs -r -I{} cp {} "$committed/"
        rm -rf "$small"
        continue
    fi
    echo "==> $target: $seconds s"
    "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 \
        -artifact_prefix="$work/artifacts/$target-" "$own" "$committed" 2>"$work/$target.log" ||
        { tail -n 40 "$work/$target.log"; echo "$target: found something; see target/fuzz/artifacts"; exit 1; }
    grep -E 'stat::(number_of_executed_units|new_units_added)|^#[0-9]+.*DONE' "$work/$target.log" || true
done
