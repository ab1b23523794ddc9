#!/bin/sh
# bench_decode.sh TURNS FILE.gguf...: greedy decoding of 128 tokens by `hone generate` (which counts its first pass in), and, where
# PYTHON has llama-cpp-python, by llama.cpp: tokens a second, the best of so many turns each, taken in turn, and the ratio.
# HONE is the program (./hone), THREADS how many of both (2), TOKENIZER what hone encodes the prompt with. Nothing else may run.
set -eu
turns=${1:?usage: bench_decode.sh TURNS FILE.gguf...}
shift
cd "$(dirname "$0")/.."
hone=${HONE:-./hone} threads=${THREADS:-2} tokenizer=${TOKENIZER:-recipes/data/stories260K} tokens=128
printf '%-40s %10s %10s %7s\n' file hone llama.cpp ratio
for file in "$@"; do
    ours=0 theirs=0
    for turn in $(seq "$turns"); do
        now=$("$hone" generate "$file" --tokenizer "$tokenizer" --prompt The --max-new-tokens $tokens --greedy --ignore-eos \
            --threads "$threads" 2>&1 > /dev/null | sed -n 's/^[0-9]* tokens, \([0-9]*\) tokens\/s$/\1/p')
        ours=$(printf '%s\n%s\n' "$ours" "$now" | sort -g | tail -n 1)
        [ -z "${PYTHON:-}" ] || theirs=$(printf '%s\n%s\n' "$theirs" \
            "$("$PYTHON" tests/interop/bench_llamacpp.py "$file" $tokens "$threads")" | sort -g | tail -n 1)
    done
    awk -v f="$(basename "$file")" -v a="$ours" -v b="$theirs" \
        'BEGIN { if (b > 0) printf "%-40s %10.1f %10.1f %7.2f\n", f, a, b, a / b; else printf "%-40s %10.1f\n", f, a }'
done
