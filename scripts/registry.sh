#!/usr/bin/env bash
# A real schema registry, on loopback: Apicurio Registry from Maven Central, which speaks the API of Confluent's.
# In: JDK 11+, curl (first run only). Out: a running registry and one line `url=http://127.0.0.1:PORT/apis/ccompat/v7`.
# Never: a port other than loopback, a download that is not of the pinned checksum.
# (Karapace, which we would rather use, is on no package registry: its PyPI name is not taken.)
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/registry.sh COMMAND [--dir D]
  start          start the registry, wait until it answers; keeps the port of an earlier start in D.
                 Schemas are in memory only: register them again after a start.
  stop [--now]   stop it (--now: kill) and wait
  jars           only fetch
options: --dir D pid and log (default: .cache/registry/data)
TEXT
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="$root/.cache/registry"
. "$root/scripts/common.sh"
# The last version for Java below 21.
version=2.6.13.Final
sha256=3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba
app="$cache/apicurio-$version"

command=${1:-}
[ -n "$command" ] || usage
shift
dir="$cache/data" now=""
while [ $# -gt 0 ]; do
  case "$1" in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --now) now=1; shift ;;
    *) usage ;;
  esac
done

fetch() {
  if [ ! -e "$app/.complete" ]; then
    need curl "apt-get install curl"
    local archive="$cache/apicurio-$version.tar.gz"
    say "fetching Apicurio Registry $version from Maven Central into $app (142 MB)"
    curl -fsSL --retry 3 -o "$archive" \
      "https://repo.maven.apache.org/maven2/io/apicurio/apicurio-registry-app/$version/apicurio-registry-app-$version-all.tar.gz" ||
      fail "Maven Central does not give apicurio-registry-app $version"
    echo "$sha256  $archive" | sha256sum --check --quiet >&2 || fail "$archive is not what it was"
    rm -rf "$app" && mkdir -p "$app"
    tar xzf "$archive" -C "$app"
    rm -f "$archive"
    touch "$app/.complete"
  fi
}

pid_of() { alive "$dir/pid" apicurio-registry-app; }

start() {
  need java "apt-get install openjdk-17-jre-headless"
  need curl "apt-get install curl"
  locked "$cache" fetch
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  local pid port url
  port=$(cat "$dir/port" 2>/dev/null) || port=$(free_port)
  echo "$port" >"$dir/port"
  url="http://127.0.0.1:$port/apis/ccompat/v7"
  if pid=$(pid_of); then
    say "already running, pid $pid"
    echo "url=$url"
    return
  fi
  setsid java -XX:+UseSerialGC -Xms64m "-Xmx${REGISTRY_HEAP:-384m}" -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$port" \
    -jar "$app/apicurio-registry-app-$version-runner.jar" </dev/null >"$dir/registry.log" 2>&1 9>&- &
  pid=$!
  echo "$pid" >"$dir/pid"
  started "$pid" "$dir/registry.log" "the registry" curl -fs -m 5 "$url/subjects"
  say "Apicurio Registry $version, pid $pid, log in $dir"
  echo "url=$url"
}

stop() {
  local pid
  dir=$(cd "$dir" 2>/dev/null && pwd) || { say "nothing runs in $dir"; return; }
  pid=$(pid_of) || { rm -f "$dir/pid"; return; }
  end "$pid" "$now"
  rm -f "$dir/pid"
  say "stopped, pid $pid"
}

case "$command" in
  start) start ;;
  stop) stop ;;
  jars) locked "$cache" fetch ;;
  *) usage ;;
esac
