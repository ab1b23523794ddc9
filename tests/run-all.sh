#!/bin/sh
# run-all.sh [PART ...]: the slow matrix behind `make test-all`, each part a line, then 'N passed, N failed'. What a part
# printed is in build/all/PART.log. Under an hour on 2 cores; FUZZ_SECONDS (60) is the time of each fuzzer.
#
#   test      the suite as everybody runs it            slow     every fault of every command, 1000 damaged models,
#                                                                  the families' bits on every instruction set
#   faults    every system call of every command that changes a file, made to fail
#   address   the suite under address, undefined, leak  thread   pool, loader, kernels, training under the thread sanitizer
#   clang     clang, warnings are errors                debug    DEBUG=1: NaN fills and red zones
#   valgrind  the parsers' tests under memcheck         fuzz-*   tests/fuzz.sh, one part a fuzzer
#   kills     1,000 kills and signals at random moments of a run; goes on where it was interrupted
#   scaling   instructions at n, 2n, 4n of every input
#   differential  2,000 random recipes under address and undefined; stopped, it goes on from build/all/differential.next
#   launches  every model's launches on four GPUs
set -u
cd "$(dirname "$0")/.." || exit 2
jobs=$(nproc) seconds=${FUZZ_SECONDS:-60}
mkdir -p build/all

folder() { make -pn "$@" 2> /dev/null | sed -n 's/^BUILD := //p' | head -n 1; }
programs() { for name in "$@"; do echo "$build/tests/test_$name"; done; } # of $build
suite() { make -s -j"$jobs" "$@" test; }

part_test() { suite; }
part_address() { suite CC=clang SAN=address,undefined; } # clang compiles the plain kernels faster than gcc, 7 s to 9 s a file
part_clang() { suite CC=clang WERROR=1; }
part_debug() { suite DEBUG=1; }
part_slow() {
    build=$(folder) && make -s -j"$jobs" hone $(programs bad_input family_bits) || return 1
    for program in $(programs bad_input family_bits); do HONE_SLOW=1 "$program" || return 1; done
}
part_kills() {
    build=$(folder) && make -s -j"$jobs" hone $(programs kills) && HONE_KILLS=${HONE_KILLS:-1000} $(programs kills)
}
part_launches() {
    build=$(folder) && make -s -j"$jobs" $(programs cuda_launches) && HONE_SLOW=1 $(programs cuda_launches)
}
part_faults() {
    build=$(folder) && make -s -j"$jobs" hone $(programs faults) && HONE_SLOW=1 $(programs faults)
}
part_thread() { # $list is left to split
    build=$(folder SAN=thread) list="base loader ops gemm attention optimizer golden"
    make -s -j"$jobs" SAN=thread $(programs $list) || return 1
    for program in $(programs $list); do echo "$program" && "$program" || return 1; done
}
part_scaling() { make -s -j"$jobs" hone && tests/scaling.sh; }
memcheck() { valgrind -q --error-exitcode=9 --suppressions=tests/bad/valgrind.supp "$@"; }
valgrind_runs() { # FOLDER: datasets and training states, written and read, by the program itself
    run=tests/golden/run say="--isa plain --threads 1 --quiet"
    train="train $run/run.yaml model.hidden_size=16 max_seq_length=16 global_batch_size=1 micro_batch_size=1"
    train="$train dataset=$1/d.h5 eval_dataset=$1/d.h5 eval_batches=1 output_dir=$1/run save_steps=1"
    head -c 3000 $run/corpus.txt > "$1/text.txt" &&
        memcheck ./hone tokenize "$1/text.txt" --tokenizer $run/tokenizer.json --output "$1/d.h5" $say &&
        memcheck ./hone inspect "$1/d.h5" --isa plain > /dev/null &&
        memcheck ./hone $train max_steps=1 $say &&
        memcheck ./hone $train max_steps=2 resume_from_checkpoint=auto $say
}
part_valgrind() { # AVX-512 is unknown to valgrind: tests that run no kernels
    build=$(folder) list="file safetensors gguf peft manifest recipe log tokenizer_bad source files parquet constants h5"
    make -s -j"$jobs" $(programs $list) || return 1
    for program in $(programs $list); do
        echo "$program" && memcheck "$program" || return 1
    done
    make -s -j"$jobs" hone $(programs differential) && # valgrind shows the processor as one with AVX2
        memcheck $(programs differential) 2000 20 && at=$(mktemp -d) && valgrind_runs "$at"
    status=$?
    rm -rf "$at"
    return $status
}
part_differential() {
    set -- CC=clang SAN=address,undefined
    build=$(folder "$@") next=build/all/differential.next
    make -s -j"$jobs" "$@" $(programs differential) && $(programs differential) 0 2000 "$next" && rm -f "$next"
}

if [ $# = 0 ]; then
    set -- test slow launches faults kills scaling address thread clang debug valgrind differential
    for fuzzer in tests/fuzz/fuzz_*.c; do set -- "$@" "fuzz-$(basename "$fuzzer" .c | sed 's/^fuzz_//')"; done
fi
passed=0 failed=0
for part in "$@"; do
    begin=$(date +%s)
    case $part in
    fuzz-*) tests/fuzz.sh "${part#fuzz-}" "$seconds" ;;
    *) "part_$part" ;;
    esac > "build/all/$part.log" 2>&1 < /dev/null
    status=$?
    if [ $status = 0 ]; then word=ok passed=$((passed + 1)); else word=FAIL failed=$((failed + 1)); fi
    printf '%-5s %-18s %5d s  %s\n' "$word" "$part" $(($(date +%s) - begin)) "$(tail -n 1 "build/all/$part.log" | cut -c1-70)"
    [ $status = 0 ] || tail -n 25 "build/all/$part.log" | sed 's/^/      | /'
done
build=$(folder) && make -s -j"$jobs" $(programs golden) && echo "model, errors of logits, gradients, LoRA logits, LoRA gradients" &&
    HONE_TABLE=1 $(programs golden) 2> /dev/null | grep '^|' # kept in recipes/models/README.md
make -s -j"$jobs" hone # a part may have left ./hone as its own build
echo "$passed passed, $failed failed"
[ $failed = 0 ]
