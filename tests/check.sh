#!/bin/sh
# check.sh: rules of the house that a compiler does not enforce. Prints what breaks them; silent and 0 if nothing does.
set -eu
cd "$(dirname "$0")/.."
files=$(find base ops autograd data checkpoints recipes train tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' | sort)

# By the table layers.txt: which folders a folder may include, and what of another one it may see: public headers. The
# folders in one line are one unit, whose files see each other's headers.
awk -v table="tests/layers.txt" '
function unit(name,   at) { # the longest folder of the table that the file lies in
    for (at = name; sub(/\/[^\/]*$/, "", at);) if (at in unit_of) return unit_of[at]
    return ""
}
BEGIN {
    while ((getline line < table) > 0) {
        if (line ~ /^#/ || line == "") continue
        count = split(line, field, /[ \t]*\|[ \t]*/)
        folders = split(field[1], list, " ")
        for (i = 1; i <= folders; i++) unit_of[list[i]] = list[1]
        headers = split(field[2], list, " ")
        split(field[1], first, " ")
        for (i = 1; i <= headers; i++) public[list[i]] = 1
        known = split(field[3], list, " ")
        for (i = 1; i <= known; i++) may[first[1], list[i]] = 1
        budget[first[1]] = field[4]
    }
}
FNR == 1 { own = FILENAME ~ /^tests\// ? "tests" : unit(FILENAME) }
FNR == 1 && own == "" { printf "%s: tests/layers.txt does not have its folder\n", FILENAME; bad = 1 }
{ lines[FILENAME]++; of[own]++ }
{ line = $0; gsub(/[\300-\377][\200-\277]*/, "x", line) } # columns, not bytes
length(line) > 100 { printf "%s:%d: %d columns; at most 100\n", FILENAME, FNR, length(line); bad = 1 }
/[ \t]$/ { printf "%s:%d: trailing space\n", FILENAME, FNR; bad = 1 }
/^#include "/ {
    split($2, quoted, "\""); header = quoted[2]; folder = unit(header)
    if (own == "tests" || folder == own || (FILENAME == "ops/device/cuda.h" && header ~ /^tests\//)) next # the shim
    if (!((own, folder) in may)) { printf "%s:%d: %s/ may not know %s/\n", FILENAME, FNR, own, folder; bad = 1 }
    else if (!(header in public)) { printf "%s:%d: %s is not a public header\n", FILENAME, FNR, header; bad = 1 }
}
FNR == 1 && !/^\/\*/ { printf "%s: does not open with what it is and why\n", FILENAME; bad = 1 }
/(TODO|FIXME|(^|[^X])XXX([^X]|$))/ { printf "%s:%d: unfinished business\n", FILENAME, FNR; bad = 1 }
/[^_a-z](abort|exit)\(/ && own != "tests" && FILENAME != "train/commands/main.c" { printf "%s:%d: only main ends the program\n", FILENAME, FNR; bad = 1 }
END {
    for (f in lines) if (lines[f] > 500) { printf "%s: %d lines; at most 500\n", f, lines[f]; bad = 1 }
    for (f in budget) if (of[f] > budget[f]) printf "note: %s/ has %d lines; its budget is %d (tests/README.md)\n", f, of[f], budget[f]
    exit bad
}' $files

# Every folder says what it is and names every file it holds; but for ops/, none holds more than 40.
for folder in $(sed 's/^#.*//; s/|.*//' tests/layers.txt); do
    [ -f "$folder/README.md" ] || { echo "$folder: no README.md"; exit 1; }
    for file in $(ls "$folder"/*.[ch] "$folder"/*.cu 2> /dev/null); do
        name=$(basename "$file")
        grep -q "$name" "$folder/README.md" || { echo "$folder/README.md does not mention $name"; exit 1; }
    done
done
find base ops autograd data checkpoints recipes train tests -path tests/golden -prune -o -type f -print | sed 's|/[^/]*$||' |
    sort | uniq -c | awk '$1 > 40 && $2 != "ops" { print $2 ": " $1 " files; at most 40"; bad = 1 } END { exit bad }'

# The libm of the platform is on no path that reaches a result: kernels and math may not call it.
if grep -nE '[^_a-z0-9](expf?|logf?|powf?|sinf?|cosf?|tanhf?|erff?)\(' ops/*_cpu.c ops/*/*_cpu.c base/*.c base/v16.h recipes/models/*.c recipes/models/*/*.c train/*.c train/*/*.c 2>/dev/null |
    grep -vE '^\S+:[0-9]+:\s*(\*|/\*|//)|m_(exp|log|pow|sin|cos|tanh|erf)\('; then
    echo "a function of libm is used where results are computed"
    exit 1
fi
