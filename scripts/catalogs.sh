#!/usr/bin/env bash
# What a lake can be kept in, for real, on loopback: a PostgreSQL database, Apache Iceberg's REST catalog (from Maven
# Central), and an S3 store (moto from PyPI; its objects are in memory and gone when it stops).
# In: JDK 17+, mvn and python3 (first run only), Debian's postgresql. Out: all running and one line
# `postgres=postgres://... rest=http://... s3=http://... warehouse=file:///... bucket=lake`.
# Never: a port other than loopback, but for the REST catalog, whose server listens on all addresses.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/catalogs.sh COMMAND [--dir D] [ARGS...]
  start          start all, wait until all answer; keeps data and ports of an earlier start in D
  stop [--now]   stop all (--now: kill) and wait
  clean          stop all at once and remove their data
  rest stop|start  only the REST catalog (stop --now: kill)
  s3 stop|start    only the S3 store
  psql ARGS...   psql in the database `lake`
  fetch          only fetch
options: --dir D data, pids and logs (default: .cache/catalogs/data)
TEXT
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here="$root/scripts/catalogs"
cache="$root/.cache/catalogs"
. "$root/scripts/common.sh"
. "$root/scripts/postgres.sh"
version=$(sed -n 's:.*<iceberg.version>\(.*\)</iceberg.version>.*:\1:p' "$here/pom.xml")
rest_jars="$cache/rest-$version"
moto="$cache/moto"
moto_version=5.2.5

command=${1:-}
[ -n "$command" ] || usage
shift
dir="$cache/data" now="" rest=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --now) now=1; shift ;;
    *) rest+=("$1"); shift ;;
  esac
done

fetch() {
  jars "Apache Iceberg's REST catalog $version" "$here/pom.xml" "$rest_jars"
  [ ! -e "$moto/.$moto_version" ] || return 0
  need python3 "apt-get install python3-venv"
  say "fetching moto $moto_version from PyPI into $moto"
  { python3 -m venv "$moto" &&
    "$moto/bin/pip" --quiet --disable-pip-version-check install "moto[s3]==$moto_version" flask flask-cors; } >&2 ||
    fail "moto cannot be installed: is there Debian's python3-venv, and is PyPI reached?"
  touch "$moto/.$moto_version"
}

# port NAME: the one used in $dir before, or a free one.
port() {
  [ -s "$dir/$1.port" ] || free_port >"$dir/$1.port"
  cat "$dir/$1.port"
}

s3_pid() { alive "$dir/s3.pid" moto_server; }

s3_start() {
  local pid port
  if s3_pid >/dev/null; then return; fi
  port=$(port s3)
  setsid "$moto/bin/moto_server" -H 127.0.0.1 -p "$port" </dev/null >"$dir/s3.log" 2>&1 &
  pid=$!
  echo "$pid" >"$dir/s3.pid"
  started "$pid" "$dir/s3.log" "the S3 store" curl -fs -m 5 -X PUT "http://127.0.0.1:$port/lake" \
    -H "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
}

rest_pid() { alive "$dir/rest.pid" "-Dcatalog=$dir"; }

rest_start() {
  local pid port
  if rest_pid >/dev/null; then return; fi
  port=$(port rest)
  mkdir -p "$dir/warehouse"
  AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 \
    CATALOG_REST_PORT="$port" CATALOG_URI="jdbc:sqlite:$dir/rest.db" CATALOG_WAREHOUSE="file://$dir/warehouse" \
    CATALOG_IO__IMPL=org.apache.iceberg.io.ResolvingFileIO CATALOG_S3_ENDPOINT="http://127.0.0.1:$(port s3)" \
    CATALOG_S3_PATH__STYLE__ACCESS=true \
    setsid java -XX:+UseSerialGC -Xmx256m "-Dcatalog=$dir" -cp "$rest_jars/*" \
    org.apache.iceberg.rest.RESTCatalogServer </dev/null >>"$dir/rest.log" 2>&1 &
  pid=$!
  echo "$pid" >"$dir/rest.pid"
  started "$pid" "$dir/rest.log" "the REST catalog" curl -fs -m 5 "http://127.0.0.1:$port/v1/config"
}

stop_one() {
  local pid
  pid=$("$1_pid") || return 0
  end "$pid" "$now"
  rm -f "$dir/$1.pid"
}

case "$command" in
  start)
    need java "apt-get install openjdk-17-jre-headless"
    need curl "apt-get install curl"
    locked "$cache" fetch
    mkdir -p "$dir" && dir=$(cd "$dir" && pwd)
    pg_start lake
    s3_start
    rest_start
    echo "postgres=postgres://shop@127.0.0.1:$(cat "$dir/pg_port")/lake rest=http://127.0.0.1:$(port rest)" \
      "s3=http://127.0.0.1:$(port s3) warehouse=file://$dir/warehouse bucket=lake"
    ;;
  stop | clean)
    [ -d "$dir" ] || exit 0
    dir=$(cd "$dir" && pwd)
    [ "$command" = stop ] || now=1
    stop_one rest
    stop_one s3
    pg_stop
    if [ "$command" = clean ]; then
      [ ! -s "$dir/pg_data" ] || rm -rf "$(cat "$dir/pg_data")"
      rm -rf "$dir"
    fi
    ;;
  rest | s3)
    dir=$(cd "$dir" && pwd)
    case "${rest[0]:-}" in stop) stop_one "$command" ;; start) "${command}_start" ;; *) usage ;; esac
    ;;
  psql)
    find_postgres
    psql_run -d lake "${rest[@]}"
    ;;
  fetch)
    locked "$cache" fetch
    find_postgres
    ;;
  *) usage ;;
esac
