#!/usr/bin/env bash
# Coverage-guided fuzzing of decode (connectors/fuzz) for FUZZ seconds, with libFuzzer and the Rust of rust-toolchain.toml.
# In: cargo-fuzz. Out: exit code 0 when nothing was found; an input that fails stays in .cache/fuzz/.
# Never: versions other than those of the main Cargo.lock; a build outside of ./target. And no address sanitizer: there is
# no `unsafe` to watch in this code, librdkafka does not build with it, and it would need nightly Rust.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${FUZZ:-60}

if ! cargo fuzz --version > /dev/null 2>&1; then
    echo "fuzz.sh: cargo-fuzz is missing. Type:  cargo install cargo-fuzz --locked" >&2
    exit 69
fi

root=$PWD
mkdir -p .cache/fuzz/decode
# Given the main lock file, cargo keeps its versions and adds only what is new here.
cp Cargo.lock connectors/fuzz/Cargo.lock
cd connectors/fuzz
# New inputs go to the corpus in .cache; one that fails is written beside it.
exec cargo fuzz run --fuzz-dir . --dev --sanitizer none --target-dir "$root/target/fuzz" decode \
    "$root/.cache/fuzz/decode" "$root/connectors/fuzz/seeds/decode" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -artifact_prefix="$root/.cache/fuzz/"
