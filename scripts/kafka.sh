#!/usr/bin/env bash
# One Apache Kafka broker in KRaft mode, on loopback only, from Maven Central's jars and the machine's JDK.
# In: JDK 17+, mvn (first run only). Out: a running broker and one line `bootstrap=127.0.0.1:PORT`.
# Never: a port other than loopback, a download once .cache/kafka/<version> is complete.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/kafka.sh COMMAND [--dir D] [--port P] [ARGS...]
  start            start the broker, wait until it answers; keeps data and port of an earlier start in D
  stop [--now]     stop it (SIGTERM, then SIGKILL after 30 s; --now: SIGKILL at once) and wait
  status           print `running ...` (exit 0) or `stopped ...` (exit 3)
  topics ARGS...   Kafka's own kafka-topics tool, against this broker
  produce TOPIC    Kafka's console producer: one message per line of stdin
  consume TOPIC    Kafka's console consumer, from the beginning
  jars             only fetch the jars
options: --dir D   data, pid and log of the broker (default: .cache/kafka/data)
         --port P  the broker's port (default: the port used in D before, else a free one)
env:     KAFKA_HEAP  the broker's heap (default 384m)
TEXT
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here="$root/scripts/kafka"
. "$root/scripts/common.sh"
cache="$root/.cache/kafka"
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
libs="$cache/$version/libs"

command=${1:-}
[ -n "$command" ] || usage
shift
dir="$cache/data" port="" now="" rest=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --now) now=1; shift ;;
    *) rest+=("$1"); shift ;;
  esac
done

fetch_jars() { locked "$cache" jars "Apache Kafka $version" "$here/pom.xml" "$libs"; }

java_run() { java -XX:+UseSerialGC -cp "$libs/*" "-Dlog4j2.configurationFile=$here/log4j2.properties" "$@"; }

# The pid of the broker of $dir, if that process is alive and really is this broker.
pid_of() { alive "$dir/pid" "$dir/server.properties"; }

write_config() {
  cat >"$dir/server.properties" <<TEXT
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$2
listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$2
advertised.listeners=PLAINTEXT://127.0.0.1:$1
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/log
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=true
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=1
TEXT
}

start() {
  need java "apt-get install openjdk-17-jre-headless"
  fetch_jars
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  local pid
  if pid=$(pid_of); then
    port=$(cat "$dir/port")
    say "already running, pid $pid"
    echo "bootstrap=127.0.0.1:$port"
    return
  fi
  [ -n "$port" ] || port=$(cat "$dir/port" 2>/dev/null) || port=$(free_port)
  answers "$port" && fail "port $port is in use by another program: choose one with --port"
  local controller
  controller=$(cat "$dir/controller_port" 2>/dev/null) && ! answers "$controller" || controller=$(free_port "$port")
  echo "$port" >"$dir/port"
  echo "$controller" >"$dir/controller_port"
  write_config "$port" "$controller"
  if [ ! -e "$dir/log/meta.properties" ]; then
    local id
    id=$(java_run -Dkafka.log.level=error kafka.tools.StorageTool random-uuid)
    java_run -Dkafka.log.level=error kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" >&2 ||
      fail "could not format $dir/log"
  fi
  [ ! -e "$dir/kafka.log" ] || mv -f "$dir/kafka.log" "$dir/kafka.log.1"
  # A session of its own, no inherited descriptors: it outlives this script and holds no caller's pipe.
  setsid java -XX:+UseSerialGC -Xms64m "-Xmx${KAFKA_HEAP:-384m}" -cp "$libs/*" \
    "-Dlog4j2.configurationFile=$here/log4j2.properties" \
    kafka.Kafka "$dir/server.properties" </dev/null >"$dir/kafka.log" 2>&1 &
  pid=$!
  echo "$pid" >"$dir/pid"
  started "$pid" "$dir/kafka.log" "the broker" broker_answers
  say "Apache Kafka $version, pid $pid, data and log in $dir"
  echo "bootstrap=127.0.0.1:$port"
}

broker_answers() { grep -q "Kafka Server started" "$dir/kafka.log" && answers "$port"; }

stop() {
  local pid
  dir=$(cd "$dir" 2>/dev/null && pwd) || { say "nothing runs in $dir"; return; }
  pid=$(pid_of) || { say "nothing runs in $dir"; rm -f "$dir/pid"; return; }
  end "$pid" "$now"
  rm -f "$dir/pid"
  say "stopped, pid $pid"
}

bootstrap() {
  dir=$(cd "$dir" 2>/dev/null && pwd) && pid_of >/dev/null || fail "no broker runs in $dir: scripts/kafka.sh start"
  echo "127.0.0.1:$(cat "$dir/port")"
}

case "$command" in
  start) start ;;
  stop) stop ;;
  status)
    if dir=$(cd "$dir" 2>/dev/null && pwd) && pid=$(pid_of); then
      echo "running pid=$pid bootstrap=127.0.0.1:$(cat "$dir/port") dir=$dir"
    else
      echo "stopped"
      exit 3
    fi
    ;;
  jars) fetch_jars ;;
  topics) at=$(bootstrap); java_run -Dkafka.log.level=warn org.apache.kafka.tools.TopicCommand --bootstrap-server "$at" "${rest[@]}" ;;
  produce) at=$(bootstrap); java_run -Dkafka.log.level=warn org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$at" --topic "${rest[@]:?name a topic}" ;;
  consume) at=$(bootstrap); java_run -Dkafka.log.level=warn org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$at" --from-beginning --topic "${rest[@]:?name a topic}" ;;
  *) usage ;;
esac
