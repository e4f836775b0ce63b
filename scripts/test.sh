#!/usr/bin/env bash
# Runs all tests on one set of real servers, which is taken down again whatever happens. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
testkit=$target/debug/carga-testkit
services=$target/test-services

# The tests start these binaries as processes, and `cargo test` alone would not build them.
cargo build --workspace --bins
"$testkit" install
# For LocalStack, which one end-to-end test runs.
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
# By name, so that a set that dies half way is a failure; without it the tests would start another one.
CARGA_TEST_SERVICES=$(realpath "$services")
export CARGA_TEST_SERVICES
# The AWS SDK reads who it is from the environment, which a test cannot set for itself.
eval "$("$testkit" services env --dir "$services" | grep -E '^export AWS_(REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY)=')"
cargo test "$@"
# Of a whole run: every adapter has run its port's whole contract.
[[ $# -gt 0 ]] || scripts/contracts.sh
