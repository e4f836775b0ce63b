#!/usr/bin/env bash
# Counts the instructions that the pure core (read, encode, decode, archive, COPY) spends on the same rows, and compares them with the
# figures in bench/instructions.txt. Unlike seconds they are the same on a busy machine. `--update` writes the figures anew.
#
# More than MARGIN percent more is a failure; as much less is one too, so that what was gained is not lost unnoticed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

margin=${MARGIN:-5}
target=${CARGO_TARGET_DIR:-target}
figures=bench/instructions.txt
# Often enough that what a process does once does not count.
times=8

"$target/debug/carga-testkit" install valgrind
core=$(cargo build --locked --profile instructions -p carga-api --bench core --message-format json |
  sed -n 's/.*"name":"core".*"executable":"\([^"]*\)".*/\1/p')
measured=$target/instructions.txt
out=$target/instructions.callgrind
: >"$measured"
for stage in read encode decode archive copy; do
  valgrind --tool=callgrind --callgrind-out-file="$out" "$core" "$stage" "$times" >/dev/null 2>"$out.log" ||
    { cat "$out.log" >&2; exit 1; }
  echo "$stage $(sed -n 's/^summary: //p' "$out")" >>"$measured"
done
rustc=$(rustc --version)
if [[ ${1:-} == --update ]]; then
  { echo "# Instructions up to and with each stage, as bench/instructions.sh --update counted them with $rustc."; cat "$measured"; } >"$figures"
fi
awk -v margin="$margin" -v rustc="$rustc" '
  /^#/ { next }
  NR == FNR { stored[$1] = $2; next }
  {
    change = ($2 / stored[$1] - 1) * 100
    verdict = change > margin ? "MORE" : change < -margin ? "LESS" : ""
    if (verdict != "") failed = 1
    printf "%-8s %12d  stored %12d  %+6.2f %% %s\n", $1, $2, stored[$1], change, verdict
  }
  END {
    if (failed) print "the core needs " margin " % more or less than in bench/instructions.txt (" rustc "): mend it, or store the new figures with bench/instructions.sh --update and say why" > "/dev/stderr"
    exit failed
  }' "$figures" "$measured"
