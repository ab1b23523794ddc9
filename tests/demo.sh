#!/bin/sh
# The main job, start to end: tokenise, pretrain, adapt, generate, merge, verify, report. About 9 minutes on 2 cores.
# DEMO_STEPS=fast does every step with little training (a check that all works; its numbers mean nothing).
# Everything is written to runs/demo, which is made anew.
set -eu
cd "$(dirname "$0")/.."
hone=./hone data=runs/demo/data results=runs/demo/results.txt
steps=$(sed -n 's/^max_steps: //p' recipes/shakespeare-pretrain.yaml) pretrain="" adapt=""
lora_steps=$(sed -n 's/^max_steps: //p' recipes/shakespeare-lora.yaml)
fast=${DEMO_STEPS:-full}
if [ "$fast" = fast ]; then
    steps=8 lora_steps=4
    pretrain="max_steps=8 save_at=0,1,2,4 save_steps=8 eval_steps=4 eval_batches=4 warmup_steps=2 sample_tokens=16"
    adapt="max_steps=4 save_steps=2 eval_steps=4 warmup_steps=1 sample_tokens=16"
elif [ "$fast" != full ]; then
    echo "demo: DEMO_STEPS is '$fast'; it may be fast or full" >&2
    exit 2
fi
[ -x "$hone" ] || { echo "demo: there is no ./hone; type make" >&2; exit 2; }
base=runs/demo/shakespeare/checkpoints/step-$(printf %06d "$steps")
adapter=runs/demo/shakespeare-lora/checkpoints/step-$(printf %06d "$lora_steps")
stories=recipes/data/stories260K
stories_adapter=runs/demo/stories-lora/checkpoints/step-$(printf %06d "$lora_steps")
began=$(date +%s)

step() {
    now=$(($(date +%s) - began))
    printf '\n==== %s   [%d:%02d]\n' "$1" $((now / 60)) $((now % 60))
}
run() { # shows the command, then runs it
    printf '$ %s\n' "$*"
    "$@"
}
number() { # KEY: its value in the JSON on standard input, the last one
    sed -n "s/.*\"$1\": *\([-+.0-9e]*\).*/\1/p" | tail -n 1
}
fail() {
    echo "demo: $1" >&2
    exit 1
}
less() { # A B: A < B
    awk "BEGIN { exit !($1 < $2) }"
}
perplexity() { # MODEL DATA [FLAG ...]
    model=$1 set=$2
    shift 2
    "$hone" eval "$model" --data "$set" packing=false --json "$@" | number perplexity
}

rm -rf runs/demo
mkdir -p "$data"

step "1 of 7  train a byte-level BPE tokenizer"
run $hone tokenizer train recipes/data/shakespeare.txt --vocab-size 4096 --output $data/tokenizer.json

step "2 of 7  tokenise: training and held-out parts"
run $hone tokenize recipes/data/shakespeare.txt --tokenizer $data/tokenizer.json --validation 0.1 \
    --output $data/shakespeare-train.h5 --validation-output $data/shakespeare-valid.h5
run $hone tokenize recipes/data/instructions.jsonl --tokenizer $data/tokenizer.json --completion-only-loss \
    --validation 0.1 --output $data/instructions-train.h5 --validation-output $data/instructions-valid.h5
run $hone tokenize recipes/data/instructions.jsonl --tokenizer $stories --add-bos --completion-only-loss \
    --validation 0.1 --output $data/instructions-stories-train.h5 \
    --validation-output $data/instructions-stories-valid.h5

step "3 of 7  pretrain an OLMo 2 model from random weights"
run $hone train recipes/shakespeare-pretrain.yaml $pretrain

step "4 of 7  LoRA: adapt it to instructions, and a model that others trained too"
before=$(perplexity "$base" $data/instructions-valid.h5)
stories_before=$(perplexity $stories $data/instructions-stories-valid.h5)
run $hone train recipes/shakespeare-lora.yaml model_name_or_path="$base" $adapt
run $hone train recipes/stories-lora.yaml $adapt
after=$(perplexity "$base" $data/instructions-valid.h5 --adapter "$adapter")
stories_after=$(perplexity $stories $data/instructions-stories-valid.h5 --adapter "$stories_adapter")
echo "perplexity of held-out answers: shakespeare $before -> $after, stories260K $stories_before -> $stories_after"

step "5 of 7  generate from base, base + adapter, and the merged model"
exported=$($hone export "$base" --adapter "$adapter" --output runs/demo/merged --data $data/instructions-valid.h5 --json)
kl=$(echo "$exported" | number kl)
agreement=$(echo "$exported" | number top1_agreement)
run $hone generate "$base" --prompt "ROMEO:" --max-new-tokens 60
prompt=$(printf '### Instruction:\nWhat should I do before a long walk?\n\n### Response:\n_')
prompt=${prompt%_}
for model in "$base" "$base --adapter $adapter" runs/demo/merged; do
    printf '$ hone generate %s --greedy\n' "$model"
    $hone generate $model --prompt "$prompt" --max-new-tokens 40 --greedy --quiet
done
one=$($hone generate "$base" --adapter "$adapter" --prompt "$prompt" --max-new-tokens 40 --greedy --quiet)
two=$($hone generate runs/demo/merged --prompt "$prompt" --max-new-tokens 40 --greedy --quiet)
[ "$one" = "$two" ] && same="the same text" || same="another text"

step "6 of 7  verify: files, hash chain, data order, and a random segment computed again"
run $hone verify runs/demo/shakespeare --replay

step "7 of 7  report"
run $hone report runs/demo/shakespeare runs/demo/shakespeare-lora runs/demo/stories-lora --output runs/demo/report.html

loss=$(sed -n 's/.*"eval_loss":\([-+.0-9e]*\).*/\1/p' runs/demo/shakespeare/log.jsonl | tail -n 1)
unigram=$(number unigram_nats < runs/demo/shakespeare/run.json)
bigram=$(number bigram_nats < runs/demo/shakespeare/run.json)
replay=$(sed -n 's/.*"check": "replay".*"result": "\([^"]*\)".*/\1/p' runs/demo/shakespeare/verify.jsonl | tail -n 1)
now=$(($(date +%s) - began))
{
    printf '\n==== Results   [%d:%02d]\n' $((now / 60)) $((now % 60))
    printf '%-44s %8.3f  nats a token\n' "held-out Shakespeare: unigram model" "$unigram"
    printf '%-44s %8.3f\n' "                      bigram model" "$bigram"
    printf '%-44s %8.3f\n' "                      this model" "$loss"
    printf '%-44s %8.2f  before, %.2f after\n' "held-out answers, perplexity: Shakespeare" "$before" "$after"
    printf '%-44s %8.2f  before, %.2f after\n' "                              stories260K" \
        "$stories_before" "$stories_after"
    printf '%-44s %8.1e  nats KL, top token equal at %.1f %%, %s\n' "merged model against base + adapter" "$kl" \
        "$(awk "BEGIN { print 100 * $agreement }")" "$same"
    echo "replay: $replay"
    echo "report: $PWD/runs/demo/report.html (open it in any browser)"
} | tee $results

[ -n "$replay" ] || fail "the replay left no result"
less "$kl" 1e-6 || fail "the merged model differs from base + adapter: KL $kl nats"
if [ "$fast" = full ]; then
    less "$loss" "$bigram - 0.3" || fail "the model does not clearly beat a bigram model (by 0.3 nats: a quarter of the perplexity)"
    less "$after" "0.8 * $before" || fail "the adapter does not help on held-out answers"
    less "$stories_after" "0.8 * $stories_before" || fail "the adapter of stories260K does not help on held-out answers"
fi
cat <<END

Try next:
  ./hone generate $base --prompt "JULIET:"
  ./hone inspect $base
  ./hone verify runs/demo/shakespeare --replay --from 4 --threads 1 --isa avx2   # the same bits, in another way
  ./hone train recipes/shakespeare-pretrain.yaml max_steps=8 save_steps=8 output_dir=runs/mine
  ./hone help train
END
