#!/usr/bin/env bash
# Who keeps the contracts: counts the cases of each adapter, and fails if the adapters of a port do not all have the same, or if
# an adapter has none. It looks at the names of the tests and runs none of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A port's folder, which is also its module in the tests, and the trait that its adapters implement. The store has a trait per
# subject; an adapter without one of them is no `Store` and does not compile where it is connected.
ports=(queue:BatchQueue progress:ProgressStore archive:BatchArchive store:UploadStore)

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
complain() {
  printf 'contracts: %s\n' "$*" >&2
  status=1
}

while read -r case; do
  [[ -z $case ]] || complain "${case%: test} is ignored: a promise is kept or it is none"
done <<<"$ignored"

printf '%-10s %-12s %s\n' port adapter cases
for port in "${ports[@]}"; do
  trait=${port#*:} port=${port%:*}
  adapters=$({ adapters_in_source "$port" "$trait"; adapters_in_tests "$port"; } | sort -u | sed '/^$/d')
  [[ -n $adapters ]] || complain "nothing implements $trait in common/src/$port"
  all=$(for adapter in $adapters; do cases_of "$port" "$adapter"; done | sort -u)
  for adapter in $adapters; do
    cases=$(cases_of "$port" "$adapter")
    if [[ -z $cases ]]; then
      complain "$port::$adapter has no cases"
      continue
    fi
    printf '%-10s %-12s %5d\n' "$port" "$adapter" "$(wc -l <<<"$cases")"
    while read -r lacking; do
      complain "$port::$adapter lacks $lacking"
    done < <(comm -23 <(printf '%s\n' "$all") <(printf '%s\n' "$cases"))
  done
done
exit "$status"
