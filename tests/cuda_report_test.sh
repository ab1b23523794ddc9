#!/bin/sh
# The bounds of the CUDA kernels' registers, spills and instructions; and tests/shim/kernels.tsv, by which the shim
# refuses launches, is what nvcc says: kernels and static memory whatever its version, registers if it is the version
# that the table names. Nothing to check where nvcc is missing.
set -eu
said=$(tests/gpu/cuda_report.sh "${HONE_BUILD:?}" check)
[ -z "$said" ] || { echo "$said"; exit 1; }
[ -n "$(cat "$HONE_BUILD/cuda_folder")" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests/gpu/cuda_table.sh "$HONE_BUILD" > "$work/made"
cp tests/shim/kernels.tsv "$work/kept"
if [ "$(head -n 1 "$work/made")" != "$(head -n 1 "$work/kept")" ]; then
    for name in made kept; do
        sed 1d "$work/$name" | cut -f 1,2,5 > "$work/cut" && mv "$work/cut" "$work/$name"
    done
fi
diff "$work/kept" "$work/made" > "$work/diff" || {
    echo "tests/shim/kernels.tsv (<) is not what nvcc says (>); tests/gpu/cuda_table.sh $HONE_BUILD > tests/shim/kernels.tsv"
    cat "$work/diff"
    exit 1
}
