#!/usr/bin/env bash
# Builds the built-in steps into the folder $1 (this one without an argument). The committed modules come from Debian's clang 14.0.6.
set -euo pipefail
out=$(cd "${1:-$(dirname "$0")}" && pwd)
cd "$(dirname "$0")/src"
for f in *.c; do
  ${CLANG:-clang} --target=wasm32 -O2 -std=c11 -Wall -Wextra -Werror -nostdlib -ffreestanding -mbulk-memory -ffp-contract=off -fno-math-errno \
    -Wl,--no-entry -Wl,--strip-all -Wl,--export=__heap_base -Wl,-z,stack-size=65536 -Wl,--stack-first -o "$out/${f%.c}.wasm" "$f"
done
