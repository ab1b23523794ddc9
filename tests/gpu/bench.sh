#!/bin/sh
# bench.sh: on a machine with an NVIDIA GPU, in the folder that bundle.sh packed: each operation against the measured
# copy bandwidth and product rate, training steps of three sizes, PyTorch beside them where it can be imported. Within
# 8 minutes; a table last. The figures belong into ops/README.md, with the command and the date.
set -u
here=$(pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
out=${OUT:-$here/out}
mkdir -p "$out"
bench() { timeout "$1" ./hone bench --device cuda --seconds 0.05 $2; }
{
    bench 200 "ops"
    bench 60 "linear attention attention_back --numerics portable --precision fp32"
    bench 60 "train --batch 32 --length 1024 --precision bf16"
    bench 60 "train --batch 8 --length 1024 --precision fp32 --numerics portable --steps 2"
    bench 90 "train-0.6b --batch 16 --length 1024 --precision bf16"
    bench 120 "train-8b-lora --batch 4 --length 4096 --precision bf16"
    if python3 -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
        timeout 120 python3 tests/peer.py
    else
        echo "PyTorch cannot be imported here"
    fi
} 2>&1 | tee "$out/bench.txt"
