#!/usr/bin/env bash
# Compares the running API with its OpenAPI document, in one process and on servers: Schemathesis
# sends requests that fit the document and requests that do not, and compares the answers with it.
# Then clients that are generated from the document send a file. MAX_TIME is the time in seconds for
# each of the two servers (90), and SEED repeats the requests of a run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
bin=$target/debug
venv=$target/api-venv
work=$target/check-api
services=$work/services
document=docs/openapi.json
seed=${SEED:-$RANDOM}
key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

say() { printf '\n== %s\n' "$*"; }

# The list of packages is copied last, so an installation that was cut short is repeated.
install_python_tools() {
  local list=scripts/api/requirements.txt
  ! cmp -s "$list" "$venv/installed" || return 0
  rm -rf "$venv"
  scripts/ensure-python.sh
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list"
  cp "$list" "$venv/installed"
}

make_clients() {
  "$venv/bin/openapi-python-client" generate --path "$document" --fail-on-warning --overwrite \
    --config scripts/api/python-client.yml --output-path "$work/python"
  scripts/ensure-node.sh
  mkdir -p "$work/typescript"
  cp scripts/api/typescript/* "$work/typescript"
  npm --prefix "$work/typescript" ci --silent --no-audit --no-fund
  "$work/typescript/node_modules/.bin/openapi-typescript" "$document" \
    --output "$work/typescript/schema.d.ts"
  "$work/typescript/node_modules/.bin/tsc" --project "$work/typescript"
}

pids=()
stop_programs() {
  [[ ${#pids[@]} -eq 0 ]] || kill -TERM "${pids[@]}" 2>/dev/null || true
  # With arguments, `wait` returns the exit code of a program, which does not matter here.
  wait || true
  pids=()
}

finish() {
  local status=$?
  trap - EXIT INT TERM HUP
  stop_programs
  [[ ! -d $services ]] || "$bin/carga-testkit" services down --dir "$services" ||
    echo "check-api: the services did not stop" >&2
  [[ $status -eq 0 ]] || echo "check-api: failed; SEED=$seed repeats the requests, and $work has the logs" >&2
  exit "$status"
}

# start NAME [VARIABLE=VALUE…] PROGRAM [ARGUMENT…]: the log of the program goes to a file.
start() {
  env "${@:2}" </dev/null >"$work/$1.log" 2>&1 &
  pids+=("$!")
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_until_ready() {
  local attempt
  for ((attempt = 0; attempt < 150; attempt++)); do
    ! curl --silent --fail --output /dev/null "$1/readyz" || return 0
    kill -0 "${pids[@]}" || return 1
    sleep 0.2
  done
  echo "check-api: $1 is not ready" >&2
  return 1
}

check_server() {
  local url=$1
  wait_until_ready "$url"
  curl --silent --fail "$url/openapi.json" | cmp - "$document"
  PYTHONPATH=scripts/api PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=checks \
    "$venv/bin/schemathesis" --config-file scripts/api/schemathesis.toml run "$document" \
    --url "$url" --header "X-API-Key: $key" --checks all --max-examples 40 \
    --seed "$seed" --max-time "${MAX_TIME:-90}" --warnings off
  PYTHONPATH=$work/python PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" scripts/api/upload.py \
    "$url" "$key" examples/flights.csv 2500
  node "$work/typescript/upload.js" "$url" "$key" examples/flights.csv 2500
}

check_one_process() {
  local port
  port=$(free_port)
  start carga "CARGA_DATA_DIR=$work/data" "CARGA_LISTEN=127.0.0.1:$port" "$bin/carga" serve
  check_server "http://127.0.0.1:$port"
  stop_programs
}

check_servers() {
  local port
  port=$(free_port)
  "$bin/carga-testkit" services up --dir "$services" >/dev/null
  eval "$("$bin/carga-testkit" services env --dir "$services")"
  start api "CARGA_LISTEN=127.0.0.1:$port" "$bin/carga-api"
  start worker "CARGA_HEARTBEAT_FILE=$work/heartbeat" "$bin/carga-worker"
  check_server "http://127.0.0.1:$port"
  stop_programs
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

say "tools and programs"
cargo build --workspace --bins
"$bin/carga-testkit" install
install_python_tools
rm -rf "$work"
mkdir -p "$work"

say "the document"
"$venv/bin/openapi-spec-validator" "$document"
"$venv/bin/python" scripts/api/examples.py "$document"

say "generated clients"
make_clients

export CARGA_AUTH=on CARGA_ADMIN_KEY=$key CARGA_LOG=warn
say "carga serve, seed $seed"
check_one_process
say "carga-api and carga-worker on servers, seed $seed"
check_servers
printf '\nthe API is as its document says\n'
