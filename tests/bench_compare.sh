#!/bin/bash
# bench_compare.sh OLD NEW ROUNDS [ARGUMENTS]: two programs' `hone bench ARGUMENTS`, each first as often as the other, so that a
# noisy machine is as noisy to both; for each row the least time of each, and their ratio (above 1: NEW is slower). Rows are matched
# by what they are and by how many of that kind came before; those of one program alone are not printed. Nothing else may run
# meanwhile.
set -eu
old=${1:?} new=${2:?} rounds=${3:?}
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for round in $(seq "$rounds"); do
    [ $((round % 2)) = 1 ] && sides='old new' || sides='new old'
    for side in $sides; do
        "${!side}" bench "$@" --json |
            sed 's/^{"name": "\([^"]*\)", "shape": "\([^"]*\)", "dtype": "\([^"]*\)", "ms": \([^,]*\),.*/\1\t\2\t\3\t\4/' |
            awk -F '\t' -v side=$side '{ sub(/, [0-9]+ tokens\/s.*/, "", $2); shape = $2; sub(/\] [a-z0-9_-]+$/, "]", shape)
                key = $1 FS shape FS $3; print side FS key FS (++seen[key]) FS $2 FS $4 }' >> "$work/rows"
    done
done
awk -F '\t' '
    { key = $2 FS $3 FS $4 FS $5; if (!(key in order)) { order[key] = ++n; at[n] = key }
      if (!(($1, key) in best) || $7 < best[$1, key]) best[$1, key] = $7; shape[key] = $6 }
    END { printf "%-18s %-40s %-5s %10s %10s %7s\n", "", "", "", "old ms", "new ms", "ratio"
          for (i = 1; i <= n; i++) { k = at[i]; if (!(("old", k) in best) || !(("new", k) in best)) continue
              split(k, part, FS)
              printf "%-18s %-40s %-5s %10.3f %10.3f %7.3f\n", part[1], shape[k], part[3], best["old", k], best["new", k],
                  best["new", k] / best["old", k] } }' "$work/rows"
