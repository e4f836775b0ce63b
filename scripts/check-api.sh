#!/usr/bin/env bash
# Compares the running API with its OpenAPI document, in one process and on servers: Schemathesis
# sends requests that fit the document and requests that do not, and compares the answers with it.
# Then clients that are generated from the document send a file. MAX_TIME is the time in seconds for
# each of the two modes (90), and SEED repeats the requests of a run.
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

# The stamp is written last, so an installation that was cut short is repeated. It has the version of
# Python, because packages of one version do not run with another one.
install_python_tools() {
  local list=scripts/api/requirements.txt stamp
  scripts/ensure-python.sh
  stamp=$(python3 -V && cat "$list")
  [[ "$(cat "$venv/installed" 2>/dev/null)" != "$stamp" ]] || return 0
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list"
  printf '%s\n' "$stamp" >"$venv/installed"
}

make_clients() {
  "$venv/bin/openapi-python-client" generate --path "$document" --fail-on-warning --overwrite \
    --config scripts/api/python-client.yml --output-path "$work/python"
  scripts/ensure-node.sh
  mkdir -p "$work/typescript"
  cp scripts/api/typescript/* "$work/typescript"
  npm --prefix "$work/typescript" ci --loglevel=error --ignore-scripts --no-audit --no-fund
  "$work/typescript/node_modules/.bin/openapi-typescript" "$document" \
    --output "$work/typescript/schema.d.ts"
  "$work/typescript/node_modules/.bin/tsc" --project "$work/typescript"
}

pids=()
# Fails if a program does not stop within 60 s, or if its exit code is not 0.
stop_programs() {
  local pid code failed=0 deadline=$((SECONDS + 60))
  for pid in "${pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do
    while is_running "$pid" && ((SECONDS < deadline)); do
      sleep 0.2
    done
    if is_running "$pid"; then
      echo "check-api: process $pid did not stop within 60 s" >&2
      kill -KILL "$pid" 2>/dev/null || true
    fi
    code=0
    wait "$pid" || code=$?
    if ((code != 0)); then
      echo "check-api: process $pid has ended with exit code $code" >&2
      failed=1
    fi
  done
  pids=()
  return "$failed"
}

is_running() {
  kill -0 "$1" 2>/dev/null
}

stop_services() {
  [[ ! -d $services ]] || "$bin/carga-testkit" services down --dir "$services"
}

finish() {
  local status=$?
  trap - EXIT INT TERM HUP
  stop_programs || [[ $status -ne 0 ]] || status=1
  stop_services || echo "check-api: the services did not stop" >&2
  [[ $status -eq 0 ]] || echo "check-api: failed; SEED=$seed repeats the requests, and $work has the logs" >&2
  exit "$status"
}

# start NAME [VARIABLE=VALUE…] PROGRAM [ARGUMENT…]: the log of the program goes to a file. The
# program does not inherit the lock.
start() {
  env "${@:2}" </dev/null >"$work/$1.log" 2>&1 9>&- &
  pids+=("$!")
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_until_ready() {
  local attempt pid
  for ((attempt = 0; attempt < 150; attempt++)); do
    ! curl --silent --fail --output /dev/null "$1/readyz" || return 0
    for pid in "${pids[@]}"; do
      if ! is_running "$pid"; then
        echo "check-api: process $pid has ended before $1 was ready" >&2
        return 1
      fi
    done
    sleep 0.2
  done
  echo "check-api: $1 is not ready" >&2
  return 1
}

# check_server NAME URL
check_server() {
  local name=$1 url=$2 python=$venv/bin/python answers=$work/$1-answers.json
  wait_until_ready "$url"
  # The answer is not indented as the file is.
  curl --silent --fail "$url/openapi.json" | "$python" -m json.tool --sort-keys |
    cmp - <("$python" -m json.tool --sort-keys "$document")
  CARGA_ANSWERS=$answers PYTHONPATH=scripts/api PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=checks \
    "$venv/bin/schemathesis" --config-file scripts/api/schemathesis.toml run "$document" \
    --url "$url" --header "X-API-Key: $key" --checks all --max-examples 40 \
    --seed "$seed" --max-time "${MAX_TIME:-90}"
  "$python" scripts/api/answers.py "$document" "$answers" "$name"
  PYTHONPATH=$work/python PYTHONDONTWRITEBYTECODE=1 "$python" scripts/api/upload.py \
    "$url" "$key" examples/flights.csv 2500
  node "$work/typescript/upload.js" "$url" "$key" examples/flights.csv 2500
}

check_one_process() {
  local port
  port=$(free_port)
  start carga "CARGA_DATA_DIR=$work/data" "CARGA_LISTEN=127.0.0.1:$port" "$bin/carga" serve
  check_server carga "http://127.0.0.1:$port"
  stop_programs
}

check_servers() {
  local port
  "$bin/carga-testkit" services up --dir "$services" >/dev/null 9>&-
  eval "$("$bin/carga-testkit" services env --dir "$services")"
  # Chosen after the services have started, so that none of them takes this port.
  port=$(free_port)
  start api "CARGA_LISTEN=127.0.0.1:$port" "$bin/carga-api"
  start worker "CARGA_HEARTBEAT_FILE=$work/heartbeat" "$bin/carga-worker"
  check_server api "http://127.0.0.1:$port"
  stop_programs
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# One run at a time, because all runs use the same directory.
mkdir -p "$target"
exec 9>"$target/check-api.lock"
flock --nonblock 9 || {
  echo "check-api: waiting for another run" >&2
  flock 9
}

say "tools and programs"
cargo build --workspace --bins
"$bin/carga-testkit" install
install_python_tools
# Without this, services of a run that was killed would go on without their files.
stop_services
rm -rf "$work"
mkdir -p "$work"

say "the document"
"$venv/bin/openapi-spec-validator" "$document"
"$venv/bin/python" scripts/api/examples.py "$document"

say "generated clients"
make_clients

export CARGA_AUTH=on CARGA_ADMIN_KEY=$key CARGA_LOG=warn
# Schemathesis sends many requests per second.
export CARGA_LIMIT_ADDRESS=off CARGA_LIMIT_KEY=off CARGA_LIMIT_BURST=off
say "carga serve, seed $seed"
check_one_process
say "carga-api and carga-worker on servers, seed $seed"
check_servers
printf '\nthe API is as its document says\n'
