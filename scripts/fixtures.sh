#!/usr/bin/env bash
# Events and texts from npm that nobody here wrote, for tests (real GitHub webhooks, naughty strings).
# In: npm; scripts/fixtures/package-lock.json pins versions and SHA-512. Out: one line, the folder that holds them.
# Never: a script of a package run, a download once they are there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here="$root/scripts/fixtures"
lock="$here/package-lock.json"
to="$root/.cache/fixtures"

mkdir -p "$to"
# Several tests may start at the same time.
exec 9>"$to/.lock"
flock 9
if ! cmp -s "$lock" "$to/.complete"; then
    if ! command -v npm > /dev/null 2>&1; then
        echo "fixtures.sh: npm is missing. Type:  sudo apt-get install npm" >&2
        exit 69
    fi
    echo "fixtures.sh: fetching the test data of $lock" >&2
    rm -f "$to/.complete"
    cp "$here/package.json" "$lock" "$to/"
    # `ci` takes exactly what the lock file names and refuses what does not have its hash.
    npm ci --prefix "$to" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    cp "$lock" "$to/.complete"
fi
echo "$to/node_modules"
