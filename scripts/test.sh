#!/usr/bin/env bash
# All checks, as `make test` runs them: lints, the packs' contracts, every test.
# In: cargo, make. Out: what they print; the exit code of the first that fails, whose output comes last.
#
# What tests run beside the product is fetched while the lints are at work. Then three lanes go side by side: random
# cases (CPU), tests with brokers and catalogs (they mostly wait), all others. `cargo test` runs the same tests in one.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
logs=target/lanes
mkdir -p "$logs"

# An end before its time ends the lanes, too.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

# What cannot be had is told again, by the test that wants it.
fetch() {
  set +e
  scripts/debezium.sh jars
  scripts/registry.sh jars
  scripts/catalogs.sh fetch
  scripts/lake.sh fetch
  scripts/fixtures.sh
}
fetch >"$logs/fetch.log" 2>&1 &
fetching=$!

make --no-print-directory lint
make --no-print-directory contracts
"$cargo" test --workspace --no-run
wait "$fetching" || true

declare -A lanes
lane() { # NAME COMMAND...
  local name=$1
  shift
  "$@" >"$logs/$name.log" 2>&1 &
  lanes[$name]=$!
}
cores=$(nproc)
lane property env "JOBS=${JOBS:-$(((cores + 1) / 2))}" "$cargo" test --package tests --test property
lane brokers "$cargo" test --package connectors --package lake
status=0
"$cargo" test --workspace --exclude connectors --exclude lake -- --skip engine_and_oracle_agree || status=$?

failed=()
for name in "${!lanes[@]}"; do
  if wait "${lanes[$name]}"; then
    echo "--- $name ($logs/$name.log)"
    grep -E '^( +Running| +Doc-tests|test result)' "$logs/$name.log"
  else
    status=$?
    failed+=("$name")
  fi
done
for name in "${failed[@]}"; do
  echo "--- $name failed"
  cat "$logs/$name.log"
done
exit "$status"
