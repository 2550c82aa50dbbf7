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
. "$root/scripts/common.sh"
. "$root/scripts/postgres.sh"
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

kafka() { "$root/scripts/kafka.sh" "$@" --dir "$dir/kafka"; }

# Kafka Connect's jars and Debezium's, once per version.
fetch() {
  "$root/scripts/kafka.sh" jars
  locked "$cache" fetch_all
}

fetch_all() {
  jars "Kafka Connect $kafka_version" "$here/pom.xml" "$libs" "-Dkafka.version=$kafka_version"
  jars "the Avro converter" "$here/avro.xml" "$plugins/avro"
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
}

# --- Kafka Connect ------------------------------------------------------------------------------------------

worker_pid() { alive "$dir/connect.pid" "$dir/connect.properties"; }

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
  # The root answers before the worker has joined its group; the list of connectors does not.
  started "$pid" "$dir/connect.log" "Kafka Connect" curl -fs -m 5 "$(rest_url)/connectors"
  say "Kafka Connect $kafka_version with Debezium $debezium_version, pid $pid, log in $dir"
}

worker_stop() {
  local pid
  pid=$(worker_pid) || return 0
  end "$pid" "$now"
  rm -f "$dir/connect.pid"
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
    pg_start shop
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
