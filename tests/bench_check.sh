#!/bin/sh
# bench_check.sh [MB]: a check of so many MB (1000) of conversations as JSON lines, made of Shakespeare, beside tokenising them:
# seconds, and the most memory. Needs /usr/bin/time and the disk. Nothing else may run meanwhile.
set -eu
cd "$(dirname "$0")/.."
hone=${HONE:-./hone} mb=${1:-1000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tr -cd 'A-Za-z .,\n' < recipes/data/shakespeare.txt | tr -s ' \n' ' ' | tr ' ' '\n' | awk -v most="$mb" '
    { word[n++] = $0 }
    END { srand(1)
          for (i = size = 0; size < most * 1e6; i++) {
              ask = said = ""; at = int(rand() * (n - 500)); a = 5 + int(rand() * 45); b = 20 + int(rand() * 380)
              for (k = 0; k < a; k++) ask = ask word[at + k] " "
              for (k = 0; k < b; k++) said = said word[at + 50 + k] " "
              row = "{\"messages\": [{\"role\": \"user\", \"content\": \"" ask i "?\"}, {\"role\": \"assistant\", \"content\": \"" said \
                  "\"}], \"id\": " i "}"
              size += length(row) + 1; print row } }' > "$work/rows.jsonl"
printf 'model_name_or_path: recipes/data/stories260K\ntask: sft\nchat_template: alpaca\nmax_seq_length: 512\ndataset: %s\noutput_dir: %s\n' \
    "$work/rows.jsonl" "$work/run" > "$work/check.yaml"
ls -l "$work/rows.jsonl" | awk '{ print $5 " bytes" }'
wc -l < "$work/rows.jsonl" | awk '{ print $1 " conversations" }'
/usr/bin/time -f "hone tokenize: %e s, %M KB" "$hone" tokenize "$work/rows.jsonl" --tokenizer recipes/data/stories260K \
    --chat-template alpaca --output "$work/rows.h5" --quiet
rm "$work/rows.h5"
TMPDIR=$work /usr/bin/time -f "hone check: %e s, %M KB" "$hone" check "$work/check.yaml" --quiet > /dev/null
