#!/usr/bin/env bash
# A real change stream: PostgreSQL, Kafka Connect with Debezium's PostgreSQL connector, Apache Kafka; on loopback.
# In: JDK 17+, mvn and curl (first run only), Debian's postgresql. Out: all three running and one line
# `bootstrap=127.0.0.1:P postgres=127.0.0.1:P rest=http://127.0.0.1:P`.
# Never: a port other than loopback, PostgreSQL as root, a download that is not of the pinned checksum.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/debezium.sh COMMAND [--dir D] [ARGS...]
  start              start all, wait until all answer; keeps data and ports of an earlier start in D
  stop [--now]       stop all (--now: kill) and wait
  clean              stop all at once and remove their data
  status             print what runs (exit 0 when all do, else 3)
  worker stop|start  only the Kafka Connect worker (stop --now: kill)
  connector NAME     create or change a connector: its settings as JSON on stdin; waits until it runs
  restart NAME       restart a connector and its task
  remove NAME        remove a connector
  psql ARGS...       psql in the database `shop`
  jars               only fetch
options: --dir D     data, pids and logs (default: .cache/debezium/data)
TEXT
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here="$root/scripts/debezium"
cache="$root/.cache/debezium"
kafka_version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$root/scripts/kafka/pom.xml")
debezium_version=3.6.3.Final
debezium_sha256=68dfbd3aa0e22cbc164017311449f69dfe6b96b70e72c72c7a3a24ef5c7810e0
libs="$cache/connect-$kafka_version"
plugins="$cache/plugins-$debezium_version"

command=${1:-}
[ -n "$command" ] || usage
shift
dir="$cache/data" now="" rest=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --now) now=--now; shift ;;
    *) rest+=("$1"); shift ;;
  esac
done

say() { echo "debezium.sh: $*" >&2; }
fail() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing: $2"; }
kafka() { "$root/scripts/kafka.sh" "$@" --dir "$dir/kafka"; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below Linux's range for outgoing connections (32768...), so that none of those takes it in between.
free_port() {
  local p
  for _ in $(seq 200); do
    p=$((20000 + RANDOM % 12000))
    if ! answers "$p"; then echo "$p"; return; fi
  done
  fail "no free port between 20000 and 32000"
}

# Kafka Connect's jars and Debezium's, once per version. A lock, because several tests may start at once.
fetch() {
  "$root/scripts/kafka.sh" jars
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock 9
  if [ ! -e "$libs/.complete" ] || [ "$here/pom.xml" -nt "$libs/.complete" ]; then
    need mvn "apt-get install maven"
    say "fetching Kafka Connect $kafka_version from Maven Central into $libs"
    rm -rf "$libs"
    mvn -q -B -C -f "$here/pom.xml" "-Dkafka.version=$kafka_version" "-Dmaven.repo.local=$root/.cache/kafka/m2" \
      org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DincludeScope=runtime "-DoutputDirectory=$libs" >&2 || fail "mvn could not resolve scripts/debezium/pom.xml"
    touch "$libs/.complete"
  fi
  if [ ! -e "$plugins/.avro" ] || [ "$here/avro.xml" -nt "$plugins/.avro" ]; then
    need mvn "apt-get install maven"
    say "fetching the Avro converter from Maven Central into $plugins/avro"
    rm -rf "$plugins/avro" && mkdir -p "$plugins/avro"
    mvn -q -B -C -f "$here/avro.xml" "-Dmaven.repo.local=$root/.cache/kafka/m2" \
      org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DincludeScope=runtime "-DoutputDirectory=$plugins/avro" >&2 || fail "mvn could not resolve scripts/debezium/avro.xml"
    touch "$plugins/.avro"
  fi
  if [ ! -e "$plugins/.complete" ]; then
    need curl "apt-get install curl"
    local name="debezium-connector-postgres"
    local archive="$cache/$name-$debezium_version-plugin.tar.gz"
    say "fetching Debezium $debezium_version from Maven Central into $plugins"
    curl -fsSL --retry 3 -o "$archive.part" \
      "https://repo.maven.apache.org/maven2/io/debezium/$name/$debezium_version/$name-$debezium_version-plugin.tar.gz" ||
      fail "Maven Central does not give $name $debezium_version"
    echo "$debezium_sha256  $archive.part" | sha256sum --check --quiet >&2 || fail "$archive.part is not what it was"
    rm -rf "$plugins/$name" && mkdir -p "$plugins"
    tar xzf "$archive.part" -C "$plugins"
    rm -f "$archive.part"
    touch "$plugins/.complete"
  fi
  flock -u 9
  exec 9>&-
}

# --- PostgreSQL ---------------------------------------------------------------------------------------------

# The newest installed; as root it is installed when there is none, without Debian's own cluster.
find_postgres() {
  local found
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -1) || true
  if [ -z "$found" ] || [ ! -x "$found/initdb" ]; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "PostgreSQL is missing: sudo apt-get install postgresql"
    say "installing Debian's postgresql"
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
      echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      -o Dpkg::Options::=--force-confold postgresql >/dev/null; } >&2 || fail "apt-get could not install postgresql"
    found=$(ls -d /usr/lib/postgresql/*/bin | sort -t/ -k5 -n | tail -1)
  fi
  bin="$found"
}

# PostgreSQL refuses to run as root, and its user must reach its folder, which a test's temporary one does not let it.
pg_user() { if [ "$(id -u)" = 0 ]; then echo postgres; else id -un; fi; }
as_pg() { if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid postgres --regid postgres --init-groups "$@"); else "$@"; fi; }

pg_start() {
  find_postgres
  local data port
  if [ -s "$dir/pg_data" ]; then
    data=$(cat "$dir/pg_data")
  elif [ "$(id -u)" = 0 ]; then
    data=$(mktemp -d "${TMPDIR:-/tmp}/streamgauge-postgres.XXXXXX")
    chown postgres: "$data"
  else
    data="$dir/postgres" && mkdir -p "$data" && chmod 700 "$data"
  fi
  echo "$data" >"$dir/pg_data"
  port=$(cat "$dir/pg_port" 2>/dev/null) || port=$(free_port)
  echo "$port" >"$dir/pg_port"
  if [ ! -e "$data/cluster/PG_VERSION" ]; then
    as_pg "$bin/initdb" -D "$data/cluster" -U shop -A trust -E UTF8 --locale=C --no-sync >"$dir/postgres.log" 2>&1 ||
      { tail -5 "$dir/postgres.log" >&2; fail "initdb failed: see $dir/postgres.log"; }
    as_pg tee -a "$data/cluster/postgresql.conf" >/dev/null <<TEXT
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
wal_level = logical
max_wal_senders = 8
max_replication_slots = 8
fsync = off
shared_buffers = 32MB
timezone = 'UTC'
TEXT
  fi
  if ! as_pg "$bin/pg_ctl" -D "$data/cluster" status >/dev/null 2>&1; then
    as_pg "$bin/pg_ctl" -D "$data/cluster" -l "$data/postgres.log" -w -t 60 start >/dev/null 2>&1 9>&- ||
      { tail -5 "$data/postgres.log" >&2; fail "PostgreSQL did not start: see $data/postgres.log"; }
  fi
  psql_run -d postgres -tAc "SELECT 1 FROM pg_database WHERE datname = 'shop'" | grep -q 1 ||
    psql_run -d postgres -qc "CREATE DATABASE shop"
  say "PostgreSQL $("$bin/postgres" --version | sed 's/.*) //'), data in $data"
}

pg_stop() {
  [ -s "$dir/pg_data" ] || return 0
  find_postgres
  local data mode=fast
  data=$(cat "$dir/pg_data")
  [ -z "$now" ] || mode=immediate
  if as_pg "$bin/pg_ctl" -D "$data/cluster" status >/dev/null 2>&1; then
    as_pg "$bin/pg_ctl" -D "$data/cluster" -m "$mode" -w -t 60 stop >/dev/null || fail "PostgreSQL does not end"
  fi
}

psql_run() {
  local host=127.0.0.1 port
  port=$(cat "$dir/pg_port" 2>/dev/null) || fail "no PostgreSQL runs in $dir: scripts/debezium.sh start"
  PGOPTIONS='--client-min-messages=warning' "$bin/psql" -X -v ON_ERROR_STOP=1 -h "$host" -p "$port" -U shop "$@"
}

# --- Kafka Connect ------------------------------------------------------------------------------------------

worker_pid() {
  local pid
  pid=$(cat "$dir/connect.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$dir/connect.properties" || return 1
  echo "$pid"
}

rest_url() { echo "http://127.0.0.1:$(cat "$dir/connect_port")"; }

worker_start() {
  local pid port
  if pid=$(worker_pid); then return; fi
  port=$(cat "$dir/connect_port" 2>/dev/null) || port=$(free_port)
  echo "$port" >"$dir/connect_port"
  cat >"$dir/connect.properties" <<TEXT
bootstrap.servers=$(bootstrap)
group.id=connect
listeners=http://127.0.0.1:$port
rest.advertised.host.name=127.0.0.1
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic=connect-configs
config.storage.replication.factor=1
offset.storage.topic=connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic=connect-status
status.storage.replication.factor=1
status.storage.partitions=1
offset.flush.interval.ms=500
scheduled.rebalance.max.delay.ms=0
plugin.path=$plugins
plugin.discovery=hybrid_warn
TEXT
  setsid java -XX:+UseSerialGC -Xms64m "-Xmx${CONNECT_HEAP:-384m}" -cp "$libs/*" \
    "-Dlog4j2.configurationFile=$root/scripts/kafka/log4j2.properties" \
    org.apache.kafka.connect.cli.ConnectDistributed "$dir/connect.properties" </dev/null >>"$dir/connect.log" 2>&1 9>&- &
  pid=$!
  echo "$pid" >"$dir/connect.pid"
  for _ in $(seq 900); do
    kill -0 "$pid" 2>/dev/null || { tail -5 "$dir/connect.log" >&2; fail "Kafka Connect ended while starting: see $dir/connect.log"; }
    # The root answers before the worker has joined its group; the list of connectors does not.
    if curl -fs -m 5 "$(rest_url)/connectors" >/dev/null 2>&1; then
      say "Kafka Connect $kafka_version with Debezium $debezium_version, pid $pid, log in $dir"
      return
    fi
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  fail "Kafka Connect did not answer within 90 s: see $dir/connect.log"
}

worker_stop() {
  local pid
  pid=$(worker_pid) || return 0
  if [ -n "$now" ]; then kill -9 "$pid"; else kill "$pid"; fi
  for i in $(seq 400); do
    if ! kill -0 "$pid" 2>/dev/null || grep -q '^State:\sZ' "/proc/$pid/status" 2>/dev/null; then
      rm -f "$dir/connect.pid"
      return
    fi
    [ "$i" != 300 ] || kill -9 "$pid" 2>/dev/null || true
    sleep 0.1
  done
  fail "Kafka Connect, pid $pid, does not end"
}

wait_running() {
  local states
  for _ in $(seq 600); do
    states=$(curl -fs -m 5 "$(rest_url)/connectors/$1/status" 2>/dev/null | grep -o '"state":"[A-Z]*"' | sort | uniq -c) || states=""
    case "$states" in
      *FAILED*) curl -s "$(rest_url)/connectors/$1/status" >&2; fail "connector $1 failed" ;;
      *"2 "*RUNNING*) return ;;
    esac
    sleep 0.1
  done
  fail "connector $1 does not run: $states"
}

bootstrap() { kafka status | sed -n 's/.*bootstrap=\([^ ]*\).*/\1/p'; }

dir_made() { mkdir -p "$dir" && dir=$(cd "$dir" && pwd); }
dir_known() { dir=$(cd "$dir" 2>/dev/null && pwd) || fail "nothing runs in $dir"; }

case "$command" in
  start)
    need java "apt-get install openjdk-17-jre-headless"
    fetch
    dir_made
    kafka start >/dev/null
    pg_start
    worker_start
    echo "bootstrap=$(bootstrap) postgres=127.0.0.1:$(cat "$dir/pg_port") rest=$(rest_url)"
    ;;
  stop | clean)
    [ -d "$dir" ] || exit 0
    dir_known
    [ "$command" = stop ] || now=--now
    worker_stop
    pg_stop
    # The broker keeps its own arguments.
    if [ -n "$now" ]; then kafka stop --now; else kafka stop; fi
    if [ "$command" = clean ]; then
      [ ! -s "$dir/pg_data" ] || rm -rf "$(cat "$dir/pg_data")"
      rm -rf "$dir"
    fi
    ;;
  status)
    dir_known
    find_postgres
    ok=0
    kafka status || ok=3
    if [ -s "$dir/pg_data" ] && as_pg "$bin/pg_ctl" -D "$(cat "$dir/pg_data")/cluster" status >/dev/null 2>&1; then
      echo "running postgres=127.0.0.1:$(cat "$dir/pg_port")"
    else
      echo "stopped postgres" && ok=3
    fi
    if pid=$(worker_pid); then echo "running pid=$pid rest=$(rest_url)"; else echo "stopped connect" && ok=3; fi
    exit $ok
    ;;
  worker)
    dir_known
    case "${rest[0]:-}" in stop) worker_stop ;; start) worker_start ;; *) usage ;; esac
    ;;
  connector)
    dir_known
    name=${rest[0]:?name the connector}
    curl -sS -m 60 --fail-with-body -X PUT -H 'content-type: application/json' --data-binary @- \
      "$(rest_url)/connectors/$name/config" >"$dir/answer" || { cat "$dir/answer" >&2; fail "Kafka Connect refuses $name"; }
    wait_running "$name"
    ;;
  restart)
    dir_known
    curl -fsS -m 60 -X POST "$(rest_url)/connectors/${rest[0]:?name the connector}/restart?includeTasks=true" >/dev/null
    wait_running "${rest[0]}"
    ;;
  remove)
    dir_known
    curl -fsS -m 60 -X DELETE "$(rest_url)/connectors/${rest[0]:?name the connector}"
    ;;
  psql)
    dir_known
    find_postgres
    psql_run -d shop "${rest[@]}"
    ;;
  jars) fetch ;;
  *) usage ;;
esac
