#!/usr/bin/env bash
# Runs the API and some workers on the services that `make services` started. Ctrl-C stops them all and waits until they have
# finished what they were doing; a second Ctrl-C does not wait. If one of them ends by itself, the others are stopped too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

workers=${WORKERS:-2}
bin=${CARGO_TARGET_DIR:-target}/debug

cargo build --workspace --bins
if ! variables=$("$bin/carga-testkit" services env); then
  echo "run: start the services first: make services" >&2
  exit 1
fi
eval "$variables"

alive=$(mktemp -d)
trap 'rm -rf "$alive"' EXIT

pids=()
stopping=
stop() {
  if [[ -n $stopping ]]; then
    kill -KILL "${pids[@]}" 2>/dev/null || true
  else
    stopping=yes
    kill -TERM "${pids[@]}" 2>/dev/null || true
  fi
}

# Each in a process group of its own, so that a terminal's Ctrl-C reaches this script only and nobody is asked twice.
set -m
trap stop INT TERM HUP
"$bin/carga-api" </dev/null &
pids+=("$!")
for ((n = 1; n <= workers; n++)); do
  CARGA_HEARTBEAT_FILE=$alive/worker-$n "$bin/carga-worker" </dev/null &
  pids+=("$!")
done

status=0
wait -n "${pids[@]}" || status=$?
if [[ -z $stopping ]]; then
  echo "run: one of them ended by itself (exit code $status), stopping the others" >&2
  [[ $status -ne 0 ]] || status=1
  stop
else
  # A signal woke us up: what counts is how they end.
  status=0
fi

for pid in "${pids[@]}"; do
  # A signal interrupts the wait, so wait again until the process is gone.
  while code=0; wait "$pid" 2>/dev/null || code=$?; kill -0 "$pid" 2>/dev/null; do :; done
  [[ $status -ne 0 ]] || status=$code
done
exit "$status"
