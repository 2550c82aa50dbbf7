# Debian's PostgreSQL as the user postgres (it refuses to be root); sourced by debezium.sh and catalogs.sh.
# Needs common.sh, and $dir and $now of the script.

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

# pg_start DATABASE: runs it with its data in $dir, on loopback, and makes the database.
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
  psql_run -d postgres -tAc "SELECT 1 FROM pg_database WHERE datname = '$1'" | grep -q 1 ||
    psql_run -d postgres -qc "CREATE DATABASE $1"
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
  port=$(cat "$dir/pg_port" 2>/dev/null) || fail "no PostgreSQL runs in $dir: scripts/$(basename "$0") start"
  PGOPTIONS='--client-min-messages=warning' "$bin/psql" -X -v ON_ERROR_STOP=1 -h "$host" -p "$port" -U shop "$@"
}
