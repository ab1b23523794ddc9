#!/bin/sh
# tests/run.sh BUILD: runs every test program of a build folder and every tests/*_test.sh, a line each, and ends with
# 'N passed, N failed'. A cmocka program counts as many tests as it reports; one that dies counts one failure more.
set -u
build=${1:?usage: tests/run.sh BUILD}
cd "$(dirname "$0")/.." || exit 2
export HONE_BUILD="$build"
if [ -n "$(cat "$build/cuda_folder" 2> /dev/null)" ]; then # what this nvcc made of the kernels, for the shim
    tests/cuda_table.sh "$build" > "$build/kernels.tsv" && export HONE_KERNELS="$PWD/$build/kernels.tsv"
fi
passed=0 failed=0
output=$(mktemp) || exit 2
trap 'rm -f "$output"' EXIT

count() { # the number in cmocka's line '[ KIND ] N test(s)...'
    sed -n "s/^\[ *$1 *\] *\([0-9][0-9]*\) test(s).*/\1/p" "$output" | awk '{ n += $1 } END { print n + 0 }'
}

line() { # NAME STATUS SECONDS PASSED FAILED
    passed=$((passed + $4)) failed=$((failed + $5))
    if [ "$5" = 0 ]; then
        printf 'ok    %-28s %4d tests %6s s\n' "$1" "$4" "$3"
    else
        printf 'FAIL  %-28s %4d passed, %d failed, exit code %s, %s s\n' "$1" "$4" "$5" "$2" "$3"
        sed 's/^/      | /' "$output" | tail -n 60
    fi
}

run() { # NAME COMMAND: sets status and seconds
    begin=$(date +%s%N)
    "$2" > "$output" 2>&1 < /dev/null
    status=$?
    seconds=$(awk "BEGIN { printf \"%.1f\", ($(date +%s%N) - $begin) / 1e9 }")
}

for source in tests/test_*.c; do
    name=$(basename "$source" .c)
    run "$name" "$build/tests/$name"
    good=$(count PASSED) bad=$(count FAILED)
    [ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
    [ "$status" = 0 ] && [ "$good" = 0 ] && bad=1 && echo "no test ran" >> "$output"
    line "$name" "$status" "$seconds" "$good" "$bad"
done
for script in tests/*_test.sh; do
    [ -e "$script" ] || continue
    run "$script" "$script"
    if [ "$status" = 0 ]; then good=1 bad=0; else good=0 bad=1; fi
    line "$(basename "$script")" "$status" "$seconds" "$good" "$bad"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
