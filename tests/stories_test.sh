#!/bin/sh
# A model that others trained, in the folder others would make of it, says what its authors say it says: the greedy
# text of stories260K to the last character, and its loss on a story to six digits (tests/golden/stories260K).
set -eu
cd "$(dirname "$0")/.."
hone=${HONE_BUILD:-.}/hone model=recipes/data/stories260K golden=tests/golden/stories260K
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

$hone generate $model --prompt "" --greedy --max-new-tokens 256 --quiet > "$folder/greedy.txt"
diff "$folder/greedy.txt" $golden/greedy_256.txt

$hone tokenize $golden/story.txt --tokenizer $model --add-bos add_eos=false --output "$folder/story.h5"
$hone eval $model --data "$folder/story.h5" --json > "$folder/eval.json"
cat "$folder/eval.json"
grep -q '"tokens": 373' "$folder/eval.json"
sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$folder/eval.json" |
    awk '{ d = $1 - 1.31598924; exit !(d < 3e-6 && d > -3e-6) }'
