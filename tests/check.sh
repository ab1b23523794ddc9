#!/bin/sh
# check.sh: rules of the house that a compiler does not enforce. Prints what breaks them; silent and 0 if nothing does.
set -eu
cd "$(dirname "$0")/.."
files=$(find base ops autograd data checkpoints recipes train tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' | sort)

# Which folders a folder may include. A folder includes its own headers and the one public header of a lower folder.
awk '
BEGIN {
    may["base"] = "base"; may["ops"] = "base ops"; may["autograd"] = "base ops autograd"; may["data"] = "base data"
    may["checkpoints"] = "base ops checkpoints"; may["recipes"] = "base ops autograd checkpoints recipes"
    may["train"] = "base ops autograd data checkpoints recipes train"
    public = " base/base.h base/h5.h base/v16.h base/v16_math.h base/math_f64.h base/philox.h base/quant.h ops/ops.h autograd/autograd.h data/data.h checkpoints/checkpoints.h recipes/models/models.h recipes/models/pass.h "
}
FNR == 1 { split(FILENAME, part, "/"); own = part[1] }
{ line = $0; gsub(/[\300-\377][\200-\277]*/, "x", line) } # columns, not bytes
length(line) > 100 { printf "%s:%d: %d columns; at most 100\n", FILENAME, FNR, length(line); bad = 1 }
/[ \t]$/ { printf "%s:%d: trailing space\n", FILENAME, FNR; bad = 1 }
/^#include "/ {
    split($2, quoted, "\""); header = quoted[2]; split(header, part, "/"); folder = part[1]
    if (own == "tests" || folder == own || (FILENAME == "ops/cuda.h" && folder == "tests")) next # the shim
    if (index(" " may[own] " ", " " folder " ") == 0) { printf "%s:%d: %s/ may not know %s/\n", FILENAME, FNR, own, folder; bad = 1 }
    else if (index(public, " " header " ") == 0) { printf "%s:%d: %s is not a public header\n", FILENAME, FNR, header; bad = 1 }
}
FNR == 1 && !/^\/\*/ { printf "%s: does not open with what it is and why\n", FILENAME; bad = 1 }
/(TODO|FIXME|(^|[^X])XXX([^X]|$))/ { printf "%s:%d: unfinished business\n", FILENAME, FNR; bad = 1 }
/[^_a-z](abort|exit)\(/ && own != "tests" && FILENAME != "train/main.c" { printf "%s:%d: only main ends the program\n", FILENAME, FNR; bad = 1 }
{ lines[FILENAME]++; if (own != "tests") total++ }
END {
    for (f in lines) if (lines[f] > 500) { printf "%s: %d lines; at most 500\n", f, lines[f]; bad = 1 }
    if (total > 52000) { printf "%d lines of program; the budget is 52,000 (tests/README.md)\n", total; bad = 1 }
    exit bad
}' $files

# Every folder says what it is and names every file it holds.
for folder in base ops autograd data checkpoints recipes/models train; do
    [ -f "$folder/README.md" ] || { echo "$folder: no README.md"; exit 1; }
    for file in "$folder"/*.[ch] $(ls "$folder"/*.cu 2> /dev/null); do
        name=$(basename "$file")
        grep -q "$name" "$folder/README.md" || { echo "$folder/README.md does not mention $name"; exit 1; }
    done
done
# The libm of the platform is on no path that reaches a result: kernels and math may not call it.
if grep -nE '[^_a-z0-9](expf?|logf?|powf?|sinf?|cosf?|tanhf?|erff?)\(' ops/*_cpu.c base/*.c base/v16.h recipes/models/*.c train/*.c 2>/dev/null |
    grep -vE '^\S+:[0-9]+:\s*(\*|/\*|//)|m_(exp|log|pow|sin|cos|tanh|erf)\('; then
    echo "a function of libm is used where results are computed"
    exit 1
fi
