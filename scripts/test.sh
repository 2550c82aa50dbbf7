#!/usr/bin/env bash
# All checks, as `make test` runs them: lints, the packs' contracts, every test.
# In: cargo, make, python3. Out: what each test program says in short; the output of those that failed, whole, at the end.
#
# What tests run beside the product is fetched while the lints are at work. Then the test programs run side by side, one
# more than there are cores, for many of them wait. `cargo test --workspace` runs the same ones in turn.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
export LOGS=$PWD/target/lanes
rm -rf "$LOGS"
mkdir -p "$LOGS"

# An end before its time ends what runs, too.
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
fetch >"$LOGS/fetch.log" 2>&1 &
fetching=$!

make --no-print-directory lint
make --no-print-directory contracts
"$cargo" test --workspace --no-run --message-format=json-render-diagnostics >"$LOGS/built.json"
wait "$fetching" || true

# Name, folder and program of each test program; those that take longest come first.
programs() {
  python3 - "$LOGS/built.json" <<'PYTHON'
import json, os, sys

FIRST = ["tests/property", "connectors/kafka", "connectors/debezium", "lake/lake", "server/crashloop", "server/debezium"]
found = []
for line in open(sys.argv[1]):
    told = json.loads(line)
    if told["reason"] == "compiler-artifact" and told["profile"]["test"] and told["executable"]:
        folder = os.path.dirname(told["manifest_path"])
        found.append((f"{os.path.basename(folder)}/{told['target']['name']}", folder, told["executable"]))
place = lambda one: FIRST.index(one[0]) if one[0] in FIRST else len(FIRST)
for one in sorted(found, key=lambda one: (place(one), one[0])):
    print(*one, sep="\0", end="\0")
PYTHON
}

one() { # NAME FOLDER PROGRAM
  local name=$1 folder=$2 log=$LOGS/${1//\//-}.log began=$SECONDS result
  shift 2
  if (cd "$folder" && "$@") >"$log" 2>&1 </dev/null; then
    result=$(grep '^test result' "$log" || true)
  else
    result=FAILED
    echo "$name" >>"$LOGS/failed"
  fi
  printf '%s (%s s)\n%s\n' "$name" $((SECONDS - began)) "$result"
}
export -f one

programs | xargs -0 -n 3 -P $(($(nproc) + 1)) bash -c 'one "$@"' _

[ -e "$LOGS/failed" ] || exit 0
while read -r name; do
  echo "--- $name failed"
  cat "$LOGS/${name//\//-}.log"
done <"$LOGS/failed"
exit 1
