#!/usr/bin/env bash
# Counts the contract cases of each adapter. Fails if the adapters of a port have different cases,
# or if an adapter has no cases. It lists the tests without running them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The folder of each port, which is also its module in the tests, and the trait that its adapters
# implement. The store has one trait per subject, but one trait is enough here: an adapter that
# lacks another one is not a `Store`, and connecting it does not compile.
ports=(queue:BatchQueue progress:ProgressStore archive:BatchArchive store:UploadStore limiter:RateLimiter)

tests=$(cargo test --locked --workspace --test contract -- --list)
ignored=$(cargo test --locked --workspace --test contract -- --list --ignored | grep ': test$' || true)

# The files and folders of the port that implement its trait.
adapters_in_source() {
  local files
  files=$(grep -rlE --include='*.rs' "^impl $2 for " "common/src/$1" || true)
  sed -E "s|^common/src/$1/([^/.]+).*|\1|" <<<"$files"
}

adapters_in_tests() {
  sed -nE "s/^$1::([^:]+)::.*: test\$/\1/p" <<<"$tests"
}

cases_of() {
  sed -nE "s/^$1::$2::(.*): test\$/\1/p" <<<"$tests" | sort -u
}

status=0
report_failure() {
  printf 'contracts: %s\n' "$*" >&2
  status=1
}

while read -r case; do
  [[ -z $case ]] || report_failure "${case%: test} is ignored; a contract case must run on every adapter"
done <<<"$ignored"

printf '%-10s %-12s %s\n' port adapter cases
for port in "${ports[@]}"; do
  trait=${port#*:} port=${port%:*}
  adapters=$({ adapters_in_source "$port" "$trait"; adapters_in_tests "$port"; } | sort -u | sed '/^$/d')
  [[ -n $adapters ]] || report_failure "no adapter implements $trait in common/src/$port"
  all=$(for adapter in $adapters; do cases_of "$port" "$adapter"; done | sort -u)
  for adapter in $adapters; do
    cases=$(cases_of "$port" "$adapter")
    if [[ -z $cases ]]; then
      report_failure "$port::$adapter has no cases; add contract!($adapter on …) to common/tests/contract/$port/mod.rs"
      continue
    fi
    printf '%-10s %-12s %5d\n' "$port" "$adapter" "$(wc -l <<<"$cases")"
    while read -r missing; do
      report_failure "$port::$adapter lacks the case $missing; list it in common/tests/contract/$port/mod.rs"
    done < <(comm -23 <(printf '%s\n' "$all") <(printf '%s\n' "$cases"))
  done
done
exit "$status"
