#!/usr/bin/env bash
# Runs the tests on one set of real servers and stops these servers in any case. Arguments go to
# `cargo test`; all packages are tested unless an argument names some.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
testkit=$target/debug/carga-testkit
services=$target/test-services

# The tests start these binaries as processes, and `cargo test` does not build all of them.
cargo build --workspace --bins
"$testkit" install
# For the tests of the metrics, the board and the alerts.
"$testkit" install prometheus
# For LocalStack, which one end-to-end test starts.
scripts/ensure-python.sh

down() {
  local status=$?
  trap - EXIT INT TERM HUP
  "$testkit" services down --dir "$services" || echo "test: the services did not stop" >&2
  exit "$status"
}
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

"$testkit" services up --dir "$services" >/dev/null
# Named here, so that servers which stop half way are a failure: tests that have no such variable
# start servers of their own.
CARGA_TEST_SERVICES=$(realpath "$services")
export CARGA_TEST_SERVICES
# The AWS SDK reads its credentials from the environment, which a test must not change.
eval "$("$testkit" services env --dir "$services" | grep -E '^export AWS_(REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY)=')"
packages=(--workspace)
for argument in "$@"; do
  case $argument in
    --) break ;;
    -p* | --package | --package=* | --workspace | --all | --manifest-path*) packages=() ;;
  esac
done
cargo test "${packages[@]}" "$@"
# Only a run of everything can show that every adapter kept its whole contract.
[[ $# -gt 0 ]] || scripts/contracts.sh
