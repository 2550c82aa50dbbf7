# What the scripts that run other people's programs share; they source it. Needs: root. Sets nothing but functions.

say() { echo "$(basename "$0"): $*" >&2; }
fail() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing: $2"; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below Linux's range for outgoing connections (32768...), so that none of those takes it in between. $1: not this one.
free_port() {
  local p
  for _ in $(seq 200); do
    p=$((20000 + RANDOM % 12000))
    if [ "$p" != "${1:-}" ] && ! answers "$p"; then echo "$p"; return; fi
  done
  fail "no free port between 20000 and 32000"
}

# locked CACHE COMMAND...: several tests may start at the same time, one of them fetches.
locked() {
  local cache=$1
  shift
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock 9
  "$@"
  flock -u 9
  exec 9>&-
}

# jars NAME POM FOLDER [MVN ARGS...]: what a pom.xml names, from Maven Central, once per version of the pom.
jars() {
  local name=$1 pom=$2 folder=$3
  shift 3
  [ ! -e "$folder/.complete" ] || [ "$pom" -nt "$folder/.complete" ] || return 0
  need mvn "apt-get install maven"
  say "fetching $name from Maven Central into $folder"
  rm -rf "$folder"
  mvn -q -B -C -f "$pom" "-Dmaven.repo.local=$root/.cache/kafka/m2" "$@" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$folder" >&2 || fail "mvn could not resolve $pom"
  touch "$folder/.complete"
}

# alive FILE MARK: the pid in FILE, if that process lives and has MARK in its arguments.
alive() {
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 1
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2" || return 1
  echo "$pid"
}

# end PID [NOW]: SIGTERM, after 30 s SIGKILL (with NOW: at once), and waits.
end() {
  if [ -n "${2:-}" ]; then kill -9 "$1"; else kill "$1"; fi
  for i in $(seq 400); do
    if ! kill -0 "$1" 2>/dev/null || grep -q '^State:\sZ' "/proc/$1/status" 2>/dev/null; then return; fi
    [ "$i" != 300 ] || kill -9 "$1" 2>/dev/null || true
    sleep 0.1
  done
  fail "pid $1 does not end"
}

# started PID LOG WHAT COMMAND...: waits until COMMAND succeeds; says why when it does not within 90 s.
started() {
  local pid=$1 log=$2 what=$3
  shift 3
  for _ in $(seq 900); do
    kill -0 "$pid" 2>/dev/null || { tail -5 "$log" >&2; fail "$what ended while starting: see $log"; }
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  fail "$what did not answer within 90 s: see $log"
}
