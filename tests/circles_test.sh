#!/bin/sh
# circles_test.sh: no two files of the program call each other, be it through others. Read from the object files: a call is
# a relocation in code; what tables of constants point to (kernels, operations, commands) is data. Two groups are one file
# each here: the template engine, whose statements hold expressions and expressions macros, and the device layer.
set -eu
cd "$(dirname "$0")/.."
build=${HONE_BUILD:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
find "$build" -name '*.o' ! -path '*/tests/*' ! -path '*/gpu/*' | sort > "$work/objects"
# What each object defines, and what its code calls: "D file symbol", "U file symbol".
while read -r object; do
    file=${object#"$build"/} file=${file%.o}
    for isa in plain avx2 avx512 avx512bf16; do file=${file%."$isa"}; done
    case $file in data/templates/jinja*) file=jinja ;; ops/device/*) file=device ;; esac
    nm "$object" | awk -v f="$file" 'NF == 3 && $2 == "T" { print "D", f, $3 }'
    objdump -r "$object" | awk -v f="$file" '
        /^RELOCATION RECORDS FOR/ { code = $4 ~ /^\[\.text/ }
        code && $2 ~ /PLT32|GOTPCREL/ { sub(/[-+]0x[0-9a-f]*$/, "", $3); print "U", f, $3 }' | sort -u
done < "$work/objects" > "$work/symbols"
awk '$1 == "D" { at[$3] = $2 } $1 == "U" { n++; from[n] = $2; what[n] = $3 }
    END { for (i = 1; i <= n; i++) if (at[what[i]] != "" && at[what[i]] != from[i]) print from[i], at[what[i]], what[i] }' \
    "$work/symbols" | sort -u > "$work/calls"
[ -s "$work/calls" ] || { echo "no call was found in $build"; exit 1; }
cut -d' ' -f1,2 "$work/calls" | sort -u | tsort > /dev/null 2> "$work/loops" || true
[ ! -s "$work/loops" ] || { sed 's/^tsort: -: //; s/^tsort: //' "$work/loops"; [ -z "${CALLS:-}" ] || cat "$work/calls"; exit 1; }
