#!/usr/bin/env bash
# Counts the instructions that each stage of the pure core (read, encode, decode, archive, COPY)
# spends on the same rows, and compares them with the figures in bench/instructions.txt. Unlike
# seconds, instruction counts do not depend on the load of the machine. Another compiler or another
# kind of processor may change them a little. `--update` writes new figures.
#
# The script fails if a stage needs MARGIN percent more instructions. It only reports a stage that
# needs MARGIN percent less: store the new figure, or a later loss goes unnoticed. The margin is
# wide because inlining and memory layout change a stage by several percent with the same code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

margin=${MARGIN:-15}
target=${CARGO_TARGET_DIR:-target}
figures=bench/instructions.txt
stages=(read encode decode archive copy)
# Enough repetitions to make the start of the process negligible.
times=8

cargo build --locked --workspace --bins --quiet
"$target/debug/carga-testkit" install valgrind
core=$(cargo build --locked --profile instructions -p carga-intake --bench core --message-format json-render-diagnostics |
  sed -n 's/.*"name":"core".*"executable":"\([^"]*\)".*/\1/p')
measured=$target/instructions.txt
out=$target/instructions.callgrind
: >"$measured"
before=0
for stage in "${stages[@]}"; do
  valgrind --tool=callgrind --callgrind-out-file="$out" "$core" "$stage" "$times" >/dev/null 2>"$out.log" ||
    { cat "$out.log" >&2; exit 1; }
  # The program runs all stages up to the named one, so the cost of a stage is the difference to the
  # stage before it.
  until_here=$(sed -n 's/^summary: //p' "$out")
  echo "$stage $((until_here - before))" >>"$measured"
  before=$until_here
done
rustc=$(rustc --version)
if [[ ${1:-} == --update ]]; then
  { echo "# Instructions of each stage, as bench/instructions.sh --update counted them with $rustc."; cat "$measured"; } >"$figures"
fi
awk -v margin="$margin" -v rustc="$rustc" '
  /^#/ { next }
  FILENAME == ARGV[1] { stored[$1] = $2; next }
  !(stored[$1] > 0) { print $1 ": no stored figure in bench/instructions.txt; store it with bench/instructions.sh --update" > "/dev/stderr"; failed = 1; next }
  {
    change = ($2 / stored[$1] - 1) * 100
    verdict = change > margin ? "MORE" : change < -margin ? "LESS" : ""
    if (verdict == "MORE") failed = 1
    printf "%-8s %12d  stored %12d  %+6.2f %% %s\n", $1, $2, stored[$1], change, verdict
  }
  END {
    if (failed) print "a stage needs over " margin " % more instructions than stored, or has no stored figure (" rustc "); fix the stage, or store the new figures with bench/instructions.sh --update and give the reason" > "/dev/stderr"
    exit failed
  }' "$figures" "$measured"
