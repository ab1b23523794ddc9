#!/bin/sh
# test.sh: on a machine with an NVIDIA GPU, in the folder that bundle.sh packed: every operation on its samples and on
# the large shapes of the benchmark, goldens, whole runs whose hashes are the CPU's, the demo's start. Within 8
# minutes; a table last.
set -u
here=$(pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" HONE_GPU_PROGRAM="$here/hone"
out=${OUT:-$here/out}
mkdir -p "$out"
table=""
failed=0
part() { # NAME SECONDS COMMAND ...
    name=$1 limit=$2 begin=$(date +%s)
    shift 2
    if [ "$1" = demo ]; then demo; else timeout "$limit" "$@"; fi > "$out/$name.log" 2>&1
    status=$?
    if [ $status = 0 ]; then word=ok; else word=FAIL failed=$((failed + 1)); fi
    table="$table$(printf '%-5s %-16s %4d s  %s' $word "$name" $(($(date +%s) - begin)) "$(tail -n 1 "$out/$name.log" | cut -c1-80)")
"
    [ $status = 0 ] || grep -vE '^\[ RUN|^\[ +OK' "$out/$name.log" | tail -n 25
}
recipe=recipes/shakespeare-pretrain.yaml
data() {
    ./hone tokenizer train recipes/data/shakespeare.txt --vocab-size 2048 --output runs/demo/data/tokenizer.json &&
        ./hone tokenize recipes/data/shakespeare.txt --tokenizer runs/demo/data/tokenizer.json --validation 0.1 \
            --output runs/demo/data/shakespeare-train.h5 --validation-output runs/demo/data/shakespeare-valid.h5
}
demo() { # portable on the GPU, replayed on the CPU; fast twice
    rm -rf runs && mkdir -p runs/demo/data && data &&
        ./hone train $recipe --device cuda numerics=portable max_steps=20 save_steps=10 eval_steps=20 eval_batches=4 \
            output_dir=runs/portable && ./hone verify runs/portable --replay --from 10 &&
        ./hone train $recipe --device cuda numerics=fast eval_steps=200 output_dir=runs/fast precision=bf16 &&
        ./hone verify runs/fast --replay --device cuda &&
        ./hone generate "$(ls -d runs/fast/checkpoints/step-* | tail -n 1)" --prompt ROMEO: --device cuda
}
part doctor 60 ./hone doctor
part flush 30 tests/test_cuda_ftz
part ops 150 tests/test_cuda
part golden 60 tests/test_golden
part runs 120 tests/test_cuda_run
part demo 150 demo
part large 180 tests/test_cuda large
echo "$table"
grep -h "cuda:0" "$out/doctor.log"
[ $failed = 0 ] && echo "all passed" || { echo "$failed failed"; exit 1; }
