#!/bin/sh
# demo.sh [FLAG ...]: the main job, start to end: tokenise, pretrain, adapt, generate, merge, verify, report. within 6 minutes on 2 cores.
# DEMO_STEPS=fast does every step with little training (a check that all works; its numbers mean nothing).
# Flags go to every command of hone: tests/demo.sh --isa avx2 --threads 2.
# Everything is written to runs/demo, which is made anew. What it ends with, texts and numbers, is in results.txt there.
set -eu
cd "$(dirname "$0")/.."
flags="$*" data=runs/demo/data results=runs/demo/results.txt
steps=$(sed -n 's/^max_steps: //p' recipes/shakespeare-pretrain.yaml) pretrain="" adapt=""
lora_steps=$(sed -n 's/^max_steps: //p' recipes/shakespeare-lora.yaml)
stories_steps=$(sed -n 's/^max_steps: //p' recipes/stories-lora.yaml)
fast=${DEMO_STEPS:-full}
if [ "$fast" = fast ]; then
    steps=8 lora_steps=4 stories_steps=4
    pretrain="max_steps=8 save_at=0,1,2,4 save_steps=8 eval_steps=4 eval_batches=4 warmup_steps=2 sample_tokens=16"
    adapt="max_steps=4 save_steps=2 eval_steps=4 eval_batches=4 warmup_steps=1 sample_tokens=16"
elif [ "$fast" != full ]; then
    echo "demo: DEMO_STEPS is '$fast'; it may be fast or full" >&2
    exit 2
fi
[ -x ./hone ] || { echo "demo: there is no ./hone; type make" >&2; exit 2; }
base=runs/demo/shakespeare/checkpoints/step-$(printf %06d "$steps")
adapter=runs/demo/shakespeare-lora/checkpoints/step-$(printf %06d "$lora_steps")
stories=recipes/data/stories260K
stories_adapter=runs/demo/stories-lora/checkpoints/step-$(printf %06d "$stories_steps")
task="Tell a story about a dog named Max."
prompt=$(printf '### Instruction:\n%s\n\n### Response:\n_' "$task")
prompt=${prompt%_}
romeo=$(printf 'ROMEO:\n_')
romeo=${romeo%_}
began=$(date +%s)

step() {
    now=$(($(date +%s) - began))
    printf '\n==== %s   [%d:%02d]\n' "$1" $((now / 60)) $((now % 60))
}
hone() { # $flags is left to split
    ./hone "$@" $flags
}
run() { # shows the command of hone, then runs it
    printf '$ ./hone %s\n' "$*${flags:+ $flags}"
    hone "$@"
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
    hone eval "$model" --data "$set" --json "$@" | number perplexity
}
text() { # HEADING PROMPT MODEL [FLAG ...]: what the model writes, under the heading
    heading=$1 start=$2
    shift 2
    printf '\n---- %s\n' "$heading"
    hone generate "$@" --prompt "$start" --temperature 0.5 --max-new-tokens 180 --quiet |
        sed '/^### Instruction:$/,/^### Response:$/d' | fold -s -w 100
}

rm -rf runs/demo
mkdir -p "$data"

step "1 of 7  train a byte-level BPE tokenizer"
run tokenizer train recipes/data/shakespeare.txt --vocab-size 2048 --output $data/tokenizer.json

step "2 of 7  tokenise: training and held-out parts"
run tokenize recipes/data/shakespeare.txt --tokenizer $data/tokenizer.json --validation 0.1 \
    --output $data/shakespeare-train.h5 --validation-output $data/shakespeare-valid.h5
run tokenize recipes/data/stories.jsonl --tokenizer $data/tokenizer.json --completion-only-loss \
    --validation 0.1 --output $data/tasks-train.h5 --validation-output $data/tasks-valid.h5
run tokenize recipes/data/shakespeare.txt --tokenizer $stories --add-bos --validation 0.1 \
    --output $data/plays-train.h5 --validation-output $data/plays-valid.h5

step "3 of 7  pretrain an OLMo 2 model from random weights on Shakespeare"
run train recipes/shakespeare-pretrain.yaml $pretrain

step "4 of 7  LoRA: it learns to tell children's stories, and a model of children's stories to write plays"
before=$(perplexity "$base" $data/tasks-valid.h5 packing=false)
stories_before=$(perplexity $stories $data/plays-valid.h5)
run train recipes/shakespeare-lora.yaml model_name_or_path="$base" $adapt
run train recipes/stories-lora.yaml $adapt
after=$(perplexity "$base" $data/tasks-valid.h5 packing=false --adapter "$adapter")
stories_after=$(perplexity $stories $data/plays-valid.h5 --adapter "$stories_adapter")

step "5 of 7  merge the adapter into its base, and compare"
exported=$(hone export "$base" --adapter "$adapter" --output runs/demo/merged --data $data/tasks-valid.h5 --json)
kl=$(echo "$exported" | number kl)
agreement=$(echo "$exported" | number top1_agreement)
one=$(hone generate "$base" --adapter "$adapter" --prompt "$prompt" --max-new-tokens 40 --greedy --quiet)
two=$(hone generate runs/demo/merged --prompt "$prompt" --max-new-tokens 40 --greedy --quiet)
[ "$one" = "$two" ] && same="the same text" || same="another text"
echo "runs/demo/merged: $kl nats KL from base + adapter, $same"

step "6 of 7  verify: files, hash chain, data order, and a segment of steps computed again"
run verify runs/demo/shakespeare --replay --seconds 20

step "7 of 7  report"
run report runs/demo/shakespeare runs/demo/shakespeare-lora runs/demo/stories-lora --output runs/demo/report.html

loss=$(sed -n 's/.*"eval_loss":\([-+.0-9e]*\).*/\1/p' runs/demo/shakespeare/log.jsonl | tail -n 1)
unigram=$(number unigram_nats < runs/demo/shakespeare/run.json)
bigram=$(number bigram_nats < runs/demo/shakespeare/run.json)
replay=$(sed -n 's/.*"check": "replay".*"result": "\([^"]*\)".*/\1/p' runs/demo/shakespeare/verify.jsonl | tail -n 1)
{
    step "What the models write"
    text "pretrained on Shakespeare: ROMEO speaks" "$romeo" "$base"
    text "the same model before LoRA: \"$task\"" "$prompt" "$base"
    text "after LoRA on stories: \"$task\"" "$prompt" runs/demo/merged
    text "stories260K, which others trained on stories, before LoRA: ROMEO speaks" "$romeo" $stories
    text "after LoRA on Shakespeare: ROMEO speaks" "$romeo" $stories --adapter "$stories_adapter"
    step "Results"
    printf '%-44s %8.3f  nats a token\n' "held-out Shakespeare: unigram model" "$unigram"
    printf '%-44s %8.3f\n' "                      bigram model" "$bigram"
    printf '%-44s %8.3f\n' "                      this model" "$loss"
    printf '%-44s %8.2f  before, %.2f after\n' "perplexity, held out: Shakespeare on stories" "$before" "$after"
    printf '%-44s %8.2f  before, %.2f after\n' "                      stories260K on plays" \
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
    less "$after" "0.1 * $before" || fail "the adapter does not help on held-out stories"
    less "$stories_after" "0.4 * $stories_before" || fail "the adapter of stories260K does not help on held-out plays"
fi
cat <<END

Try next:
  ./hone chat runs/demo/merged --chat-template alpaca --max-new-tokens 150      # say: Tell a story about a cat named Lily.
  ./hone generate $base --prompt "JULIET:"
  ./hone inspect $base
  ./hone verify runs/demo/shakespeare --replay --from 4 --threads 1 --isa avx2   # the same bits, in another way
  ./hone train recipes/shakespeare-pretrain.yaml max_steps=8 save_steps=8 output_dir=runs/mine
  ./hone help train
END
