#!/usr/bin/env bash
# Runs the API and some workers on the services that `make services` started. Ctrl-C stops all
# programs and waits until they have finished their work; a second Ctrl-C kills them. If one program
# ends unexpectedly, the others are stopped too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

workers=${WORKERS:-2}
bin=${CARGO_TARGET_DIR:-target}/debug

cargo build --workspace --bins
if ! variables=$("$bin/carga-testkit" services env); then
  echo "run: the services are not running; start them with make services" >&2
  exit 1
fi
eval "$variables"

heartbeats=$(mktemp -d)
trap 'rm -rf "$heartbeats"' EXIT

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

# Each program runs in its own process group, so that Ctrl-C in a terminal reaches this script only.
# Otherwise every program would get the signal twice.
set -m
trap stop INT TERM HUP
"$bin/carga-api" </dev/null &
pids+=("$!")
for ((n = 1; n <= workers; n++)); do
  CARGA_HEARTBEAT_FILE=$heartbeats/worker-$n "$bin/carga-worker" </dev/null &
  pids+=("$!")
done

status=0
wait -n "${pids[@]}" || status=$?
if [[ -z $stopping ]]; then
  echo "run: a program ended unexpectedly (exit code $status); stopping the others" >&2
  [[ $status -ne 0 ]] || status=1
  stop
else
  # A signal ended the wait, so the exit code comes from the programs.
  status=0
fi

for pid in "${pids[@]}"; do
  # A signal interrupts the wait, so wait again until the process is gone.
  while code=0; wait "$pid" 2>/dev/null || code=$?; kill -0 "$pid" 2>/dev/null; do :; done
  [[ $status -ne 0 ]] || status=$code
done
exit "$status"
