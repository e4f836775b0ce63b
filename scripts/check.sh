#!/usr/bin/env bash
# Everything that can be said about the code without running it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

check_jsonschema=0.39.0
tools=${CARGO_TARGET_DIR:-target}/tools-venv

say() { printf '\n== %s\n' "$*"; }

# A Python with check-jsonschema. The stamp comes last: without it, an installation that was cut short starts again.
install_tools() {
  local stamp=$tools/check-jsonschema-$check_jsonschema.installed
  [[ ! -e $stamp ]] || return 0
  rm -rf "$tools"
  scripts/ensure-python.sh
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "check-jsonschema==$check_jsonschema"
  touch "$stamp"
}

# rustls takes its provider from what is compiled in: with ring beside aws-lc-rs it would panic at the first connection.
# And OpenSSL would be a library to install.
refuse_crates() {
  local tree found
  for package in carga carga-api carga-worker; do
    tree=$(cargo tree --locked -p "$package" -e normal --prefix none --format '{p}')
    found=$(awk '$1 == "ring" || $1 == "openssl-sys"' <<<"$tree" | sort -u)
    if [[ -n $found ]]; then
      printf '%s depends on:\n%s\n' "$package" "$found" >&2
      return 1
    fi
  done
}

say "formatting"
cargo fmt --all --check

say "dependencies: no ring, no openssl-sys"
refuse_crates

say "docker-compose.yml against the compose specification"
install_tools
"$tools/bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml

say "editor files are JSON"
for file in .vscode/*.json; do
  "$tools/bin/python" -m json.tool "$file" >/dev/null
done

say "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

say "carga-common without drivers, and with each alone"
cargo check --locked -p carga-common --no-default-features
drivers=$(cargo tree --locked -p carga-common --no-default-features -e normal --prefix none --format '{p}' |
  awk '$1 ~ /^(sqlx|lapin|redis|deadpool|aws-sdk|libsqlite3)/' | sort -u)
[[ -z $drivers ]] || { printf 'carga-common without features depends on:\n%s\n' "$drivers" >&2; exit 1; }
for feature in postgres rabbit redis s3 sqlite filesystem; do
  cargo check --locked -p carga-common --no-default-features --features "$feature"
done

printf '\nall checks passed\n'
