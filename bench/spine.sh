#!/usr/bin/env bash
# Measures a whole import beside what Postgres itself needs for the same rows, in turns, in one run:
#
#   copy   psql \copy of a file that is encoded already, into a table made like the landing table
#   carga  curl to `completed`: parsing, broker, archive and landing table, with one worker
#
# and then the API's memory while it takes 1 GiB. Only the ratio means anything: machines differ, and so does one machine
# from minute to minute. ROUNDS=3.
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

for tool in curl jq bc psql; do
  command -v "$tool" >/dev/null || { echo "bench: $tool is missing; install it and try again" >&2; exit 1; }
done
cargo build --release --locked -p carga-api -p carga-worker -p carga-testkit
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

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
copies=() imports=() ratios=()
for ((round = 1; round <= rounds; round++)); do
  copy
  copies+=("$seconds")
  sql 'TRUNCATE rows; CHECKPOINT'
  carga "$tripled"
  imports+=("$seconds")
  ratios+=("$(echo "scale=3; ${imports[-1]} / ${copies[-1]}" | bc)")
  printf 'round %d: copy %.2f s, carga %.2f s, ratio %.2f\n' "$round" "${copies[-1]}" "${imports[-1]}" "${ratios[-1]}"
done
printf '%d rows, %d bytes: copy %.2f s, carga %.2f s, ratio %.2f (medians; ratio by round)\n' "$rows" "$(stat -c %s "$tripled")" \
  "$(printf '%s\n' "${copies[@]}" | median)" "$(printf '%s\n' "${imports[@]}" | median)" "$(printf '%s\n' "${ratios[@]}" | median)"
printf 'peak memory so far: api %d MiB, worker %d MiB\n' "$(peak_mib "$api")" "$(peak_mib "$worker")"

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
