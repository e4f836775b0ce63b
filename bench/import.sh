#!/usr/bin/env bash
# Measures a whole import beside what Postgres itself needs for the same rows, in turns, in one run:
#
#   copy         psql \copy of a file that is encoded already, into a table made like the landing table
#   distributed  curl to `completed`: parsing, broker, archive and landing table, with one worker
#   embedded     `carga import` into an empty data directory: the same on SQLite and plain files, from start to exit
#   sqlite       `sqlite3 .import` of the same file into a table of its columns: no queue, no archive, no accounts
#
# and then the API's memory while it takes 1 GiB. Only ratios mean anything: machines differ, and so does one machine from
# minute to minute. ROUNDS=3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
target=${CARGO_TARGET_DIR:-target}
bin=$target/release
services=$target/bench-services
work=$target/bench
flights=$work/flights.csv
tripled=$work/flights-3.csv
encoded=$work/flights-3.copy

for tool in curl jq bc psql sqlite3 python3; do
  command -v "$tool" >/dev/null || { echo "bench: $tool is missing; install it and try again" >&2; exit 1; }
done
cargo build --release --locked --workspace --bins
mkdir -p "$work"
gzip -dc testkit/fixtures/flights.csv.gz >"$flights"
{ cat "$flights"; tail -n +2 "$flights"; tail -n +2 "$flights"; } >"$tripled"
rows=$(($(wc -l <"$tripled") - 1))

"$bin/carga-testkit" install
variables=$("$bin/carga-testkit" services up --dir "$services")
pids=()
stop() {
  kill -TERM "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" 2>/dev/null || true
  "$bin/carga-testkit" services down --dir "$services"
}
trap stop EXIT
# Without the servers' variables, which `carga` would follow.
embedded_bin=(env -u DATABASE_URL -u AMQP_URL -u REDIS_URL -u ARCHIVE_URL CARGA_DATA_DIR="$work/carga-data" CARGA_LOG=warn "$bin/carga")
eval "$variables"
export CARGA_LISTEN=127.0.0.1:${PORT:-18080} CARGA_LOG=warn
url=http://$CARGA_LISTEN

"$bin/carga-api" &
pids+=("$!")
api=$!
"$bin/carga-worker" &
pids+=("$!")
worker=$!
until curl -sf "$url/readyz" >/dev/null; do sleep 0.1; done

sql() { psql -qAtX "$DATABASE_URL" -c "$1"; }
now() { date +%s.%N; }
since() { echo "$(now) - $1" | bc; }
peak_mib() { awk '/^VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$1/status"; }

# From the first byte sent to `completed`; sets `id` and `seconds`.
carga() {
  local start answer status=
  start=$(now)
  answer=$(curl -sS --fail-with-body -F "file=@$1" "$url/uploads")
  id=$(jq -r .id <<<"$answer")
  until [[ $status == completed ]]; do
    status=$(curl -sS "$url/uploads/$id" | jq -r .status)
    [[ $status != failed ]] || { echo "the upload failed" >&2; exit 1; }
    [[ $status == completed ]] || sleep 0.02
  done
  seconds=$(since "$start")
  [[ $(sql "SELECT count(*) FROM rows WHERE upload_id = '$id'") == "$rows" ]]
}

# Sets `seconds` and `mib`, the largest resident size, of a command that runs to its end.
measured() {
  read -r seconds mib < <(python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
took = time.monotonic() - start
assert done.returncode == 0, f"exit code {done.returncode}"
print(f"{took:.3f} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}")
PYTHON
  )
}

embedded() {
  rm -rf "$work/carga-data"
  measured "${embedded_bin[@]}" import "$tripled"
  [[ $(sqlite3 "$work/carga-data/carga.db" 'SELECT count(*) FROM rows') == "$rows" ]]
  [[ $("${embedded_bin[@]}" status last | jq -r .status) == completed ]]
}

sqlite() {
  rm -f "$work/plain.db"*
  measured sqlite3 "$work/plain.db" '.mode csv' ".import $tripled flights"
  [[ $(sqlite3 "$work/plain.db" 'SELECT count(*) FROM flights') == "$rows" ]]
}

copy() {
  sql 'DROP TABLE IF EXISTS landing; CREATE TABLE landing (LIKE rows INCLUDING ALL); CHECKPOINT'
  local start
  start=$(now)
  psql -qX "$DATABASE_URL" -c "\\copy landing (upload_id, row_number, fields) FROM '$encoded'"
  seconds=$(since "$start")
  [[ $(sql 'SELECT count(*) FROM landing') == "$rows" ]]
}

# The first import warms everything up and gives \copy its file.
carga "$tripled"
psql -qX "$DATABASE_URL" -c "\\copy (SELECT upload_id, row_number, fields FROM rows) TO '$encoded'"

median_of() { printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
ratio() { echo "scale=3; $1 / $2" | bc; }

copies=() distributed=() embedded=() sqlites=() ratios=() embedded_ratios=() sqlite_ratios=() embedded_mib=()
for ((round = 1; round <= rounds; round++)); do
  copy
  copies+=("$seconds")
  sql 'TRUNCATE rows; CHECKPOINT'
  carga "$tripled"
  distributed+=("$seconds")
  ratios+=("$(ratio "$seconds" "${copies[-1]}")")
  embedded
  embedded+=("$seconds")
  embedded_ratios+=("$(ratio "$seconds" "${copies[-1]}")")
  embedded_mib+=("$mib")
  sqlite
  sqlites+=("$seconds")
  sqlite_ratios+=("$(ratio "$seconds" "${copies[-1]}")")
  printf 'round %d: copy %.2f s, distributed %.2f s, embedded %.2f s, sqlite %.2f s\n' \
    "$round" "${copies[-1]}" "${distributed[-1]}" "${embedded[-1]}" "${sqlites[-1]}"
done
printf '\n%d rows, %d bytes; medians of %d rounds, ratios by round\n' "$rows" "$(stat -c %s "$tripled")" "$rounds"
arm() { printf '%-12s %6.2f s   %5.2f x \\copy   %s\n' "$@"; }
arm copy "$(median_of "${copies[@]}")" 1 ''
arm distributed "$(median_of "${distributed[@]}")" "$(median_of "${ratios[@]}")" \
  "peak memory: api $(peak_mib "$api") MiB, worker $(peak_mib "$worker") MiB"
arm embedded "$(median_of "${embedded[@]}")" "$(median_of "${embedded_ratios[@]}")" \
  "peak memory: $(median_of "${embedded_mib[@]}") MiB"
arm sqlite "$(median_of "${sqlites[@]}")" "$(median_of "${sqlite_ratios[@]}")" ''

# 1 GiB, never on disk: the header once and then the same rows over and over.
gibibyte() {
  head -n 1 "$flights"
  while tail -n +2 "$flights"; do :; done 2>/dev/null
}
sql 'TRUNCATE rows; CHECKPOINT'
flights_rows=$(($(wc -l <"$flights") - 1))
lines=$((1073741824 * flights_rows / $(stat -c %s "$flights") + 1000))
start=$(now)
answer=$(gibibyte | head -n $((lines + 1)) |
  curl -sS --fail-with-body -X POST -H 'content-type: text/csv' -T - "$url/uploads")
printf '%d bytes received in %.1f s: peak memory api %d MiB, worker %d MiB\n' "$(jq .bytes.received <<<"$answer")" \
  "$(since "$start")" "$(peak_mib "$api")" "$(peak_mib "$worker")"
