#!/bin/sh
# tests/run.sh BUILD: runs every test program of a build folder and every tests/*_test.sh, as many at a time as there are
# cores (JOBS), prints a line each, in order, and ends with 'N passed, N failed'. A cmocka program counts as many tests as
# it reports; one that dies counts one failure more. Seconds are those of the clock: beside another program they are more.
# tests/run.sh BUILD FOLDER NAME is what it calls for one: output, exit code and seconds go to FOLDER/NAME.*.
set -u
build=${1:?usage: tests/run.sh BUILD}
cd "$(dirname "$0")/.." || exit 2
export HONE_BUILD="$build"

if [ $# = 3 ]; then
    case $3 in *.sh) command=tests/$3 ;; *) command=$build/tests/$3 ;; esac
    begin=$(date +%s%N)
    "$command" > "$2/$3.output" 2>&1 < /dev/null
    echo "$? $(awk "BEGIN { printf \"%.1f\", ($(date +%s%N) - $begin) / 1e9 }")" > "$2/$3.new"
    mv "$2/$3.new" "$2/$3.ended"
    exit 0
fi

if [ -n "$(cat "$build/cuda_folder" 2> /dev/null)" ]; then # what this nvcc made of the kernels, for the shim
    tests/gpu/cuda_table.sh "$build" > "$build/kernels.tsv" && export HONE_KERNELS="$PWD/$build/kernels.tsv"
fi
folder=$(mktemp -d) || exit 2
names=$(for source in tests/unit/*/test_*.c tests/e2e/test_*.c; do basename "$source" .c; done; cd tests && ls | grep '_test\.sh$')
# What takes longest begins first, so that no core waits for it at the end.
first="test_cuda test_cuda_run test_cuda_launches test_golden_run test_bits test_resume"
queue=$(for name in $first $names; do echo "$names" | grep -xF "$name"; done | awk '!seen[$0]++')
passed=0 failed=0

count() { # OUTPUT KIND: the number in cmocka's line '[ KIND ] N test(s)...'
    sed -n "s/^\[ *$2 *\] *\([0-9][0-9]*\) test(s).*/\1/p" "$1" | awk '{ n += $1 } END { print n + 0 }'
}

line() { # NAME, once it has ended
    output="$folder/$1.output"
    read -r status seconds < "$folder/$1.ended"
    case $1 in
    *.sh) if [ "$status" = 0 ]; then good=1 bad=0; else good=0 bad=1; fi ;;
    *)
        good=$(count "$output" PASSED) bad=$(count "$output" FAILED)
        [ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
        [ "$status" = 0 ] && [ "$good" = 0 ] && bad=1 && echo "no test ran" >> "$output"
        ;;
    esac
    passed=$((passed + good)) failed=$((failed + bad))
    if [ "$bad" = 0 ]; then
        printf 'ok    %-28s %4d tests %6s s\n' "$1" "$good" "$seconds"
    else
        printf 'FAIL  %-28s %4d passed, %d failed, exit code %s, %s s\n' "$1" "$good" "$bad" "$status" "$seconds"
        sed 's/^/      | /' "$output" | tail -n 60
    fi
}

print_all() {
    for name in $names; do
        until [ -e "$folder/$name.ended" ]; do
            if [ -e "$folder/all" ] && [ ! -e "$folder/$name.ended" ]; then
                echo "it was not run" > "$folder/$name.output" && echo "127 0" > "$folder/$name.ended"
            else
                sleep 0.2
            fi
        done
        line "$name"
    done
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

print_all &
printer=$!
trap 'rm -rf "$folder"' EXIT
trap 'kill $printer 2> /dev/null; exit 130' INT TERM HUP
echo "$queue" | xargs -n 1 -P "${JOBS:-$(nproc)}" tests/run.sh "$build" "$folder"
touch "$folder/all"
wait $printer
