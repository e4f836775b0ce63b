#!/usr/bin/env bash
# Runs the tests that depend on the servers' versions on newer servers, one run per row. Arguments
# go to `cargo test` instead of the choice of tests below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Each row: the packages of PostgreSQL, RabbitMQ and Redis; `-` is this system's.
declare -A rows=(
  [new]="postgresql-18 trixie trixie"
  [testing]="forky forky forky"
  [postgres]="postgresql-18 - -"
  [rabbitmq]="- trixie -"
  [redis]="- - trixie"
)
read -ra chosen <<<"${ROWS:-new}"
for row in "${chosen[@]}"; do
  [[ -n ${rows[$row]:-} ]] ||
    { echo "test-matrix: ROWS=$row: not one of ${!rows[*]}" >&2; exit 1; }
done
[[ $EUID -eq 0 ]] || { echo "test-matrix: run as root, because newer servers need a mount" >&2; exit 1; }

# Everything that no server's version can change is left out: the embedded mode and its adapters,
# the archive, and the tests that start other servers.
tests=(--test contract --test servers --test system --no-fail-fast --
  --skip embedded:: --skip ::sqlite:: --skip archive:: --skip limiter::local::
  --skip localstack --skip s3_ --skip prometheus)
[[ $# -eq 0 ]] || tests=("$@")

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
servers=$CARGO_TARGET_DIR/newer-servers
cargo build --workspace --bins
"$CARGO_TARGET_DIR/debug/carga-testkit" install
mkdir -p "$servers"
# Postgres runs as the user `postgres`, who cannot enter every path to a repository.
servers=$(realpath "$servers")
setpriv --reuid=postgres --regid=postgres --clear-groups test -x "$servers" ||
  servers=/var/cache/carga-newer-servers

# choose VARIABLE NAME: names the directory of a server's programs, and installs them if necessary.
choose() {
  if [[ $2 = - ]]; then
    unset "$1"
    return
  fi
  scripts/newer-servers.sh "$servers" "$2"
  export "$1=$servers/$2/bin"
}

failed=()
for row in "${chosen[@]}"; do
  read -r postgres rabbit redis <<<"${rows[$row]}"
  choose CARGA_TEST_POSTGRES_BIN "$postgres"
  choose CARGA_TEST_RABBITMQ_BIN "$rabbit"
  choose CARGA_TEST_REDIS_BIN "$redis"
  printf '\n>>> row %s: PostgreSQL %s, RabbitMQ %s, Redis %s\n' "$row" "$postgres" "$rabbit" "$redis"
  without=()
  # This build of PostgreSQL has no ICU, and these tests compare keys by a collation of ICU.
  if [[ $# -eq 0 && $postgres = postgresql-18 ]]; then
    without=(--skip a_key_needs_a_unique_index_on_exactly_its_columns
      --skip keys_are_compared_by_the_collation_of_the_table)
  fi
  scripts/test.sh "${tests[@]}" "${without[@]}" || failed+=("$row")
done
[[ ${#failed[@]} -eq 0 ]] || { echo "test-matrix: failed: ${failed[*]}" >&2; exit 1; }
