#!/usr/bin/env bash
# Reads a lake with other people's programs: PyIceberg and DuckDB from PyPI.
#
#   scripts/lake.sh read CATALOG.db WAREHOUSE [--snapshots]   counts, sums and duplicates per table, as JSON
#   scripts/lake.sh sql CATALOG.db WAREHOUSE TABLE QUERY      what DuckDB answers about a table, as JSON
#   scripts/lake.sh compact CATALOG.db WAREHOUSE TABLE         rewrites a table as a foreign writer would
#   scripts/lake.sh expire CATALOG.db WAREHOUSE TABLE          lets all snapshots but the newest expire
#   scripts/lake.sh rollback CATALOG.db WAREHOUSE TABLE        back to the snapshot before the current one
#   scripts/lake.sh fetch                                     only installs the programs
#
# The programs are installed into .cache/lake once. Exit code 69: they cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=.cache/lake
python="$cache/bin/python"
if ! [ -x "$python" ] || ! "$python" -c 'import pyiceberg, pyiceberg_core, duckdb, pyarrow' 2> /dev/null; then
    command -v python3 > /dev/null || { echo "lake: python3 is missing. Type:  sudo apt-get install python3-venv" >&2; exit 69; }
    python3 -m venv "$cache" >&2 || { echo "lake: python3 has no venv. Type:  sudo apt-get install python3-venv" >&2; exit 69; }
    "$cache/bin/pip" --quiet --disable-pip-version-check install \
        'pyiceberg[sql-sqlite,pyarrow,pyiceberg-core]==0.12.0' 'duckdb==2.0.0' >&2 || {
        echo "lake: PyIceberg and DuckDB cannot be installed from PyPI" >&2
        exit 69
    }
fi
[ "${1:-}" != fetch ] || exit 0
exec "$python" scripts/lake/lake.py "$@"
