# fixture.sh REPOSITORY: what the rows of tests/bad/*.rows start from, made in the working directory; hone is on the
# PATH. Also tools for rows, in ../tools.
mkdir ../tools

# text.txt, val.txt: sentences of few words, the same each time
awk 'BEGIN { n = split("the a cat dog sees likes red old big small and or runs to from house tree", w, " "); x = 7
    for (i = 0; i < 3000; i++) { x = (x * 75 + 74) % 65537; printf "%s%s", w[1 + x % n], i % 9 == 8 ? ".\n" : " " } }' > text.txt
head -n 60 text.txt > val.txt
printf '{"prompt": "the cat", "completion": " runs"}\n{"prompt": "a dog", "completion": " sees the tree"}\n' > pairs.jsonl
hone tokenizer train text.txt --output tok.json --vocab-size 288 --quiet
hone tokenizer train val.txt --output other.json --vocab-size 280 --special-tokens '<|end|>' --quiet
hone tokenize text.txt --tokenizer tok.json --output train.h5 --quiet
hone tokenize val.txt --tokenizer tok.json --output val.h5 --quiet
hone tokenize val.txt --tokenizer other.json --output other.h5 --quiet

cat > tiny.yaml <<'YAML'
model:
  model_type: llama
  hidden_size: 32
  intermediate_size: 44
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  max_position_embeddings: 64
tokenizer: tok.json
dataset: train.h5
eval_dataset: val.h5
max_seq_length: 32
micro_batch_size: 2
max_steps: 3
save_steps: 2
eval_steps: 2
eval_batches: 1
learning_rate: 1e-3
YAML
hone train tiny.yaml output_dir=run --quiet
cp -r run/checkpoints/step-000003 model
rm model/state.h5 model/manifest.json
cat > lora.yaml <<'YAML'
task: sft
model_name_or_path: model
use_peft: true
lora_r: 4
dataset: pairs.jsonl
max_seq_length: 32
packing: false
micro_batch_size: 2
max_steps: 2
learning_rate: 1e-3
YAML
hone train lora.yaml output_dir=lora-run --quiet
cp -r lora-run/checkpoints/step-000002 adapter
rm adapter/state.h5 adapter/manifest.json

# The same weights under an index, and as GGUF.
cp -r model sharded
mv sharded/model.safetensors sharded/part.safetensors
hone inspect model --tensors | awk 'BEGIN { printf "{\"metadata\": {}, \"weight_map\": {" }
    $2 == "F32" { printf "%s\"%s\": \"part.safetensors\"", comma, $1; comma = ", " } END { print "}}" }' \
    > sharded/model.safetensors.index.json
hone export model --format gguf --type q8_0 --output model.gguf --quiet

# Tools for rows.
cat > ../tools/st <<'TOOL'
#!/bin/sh
# st FILE HEADER < DATA: a safetensors file
length=$(printf %s "$2" | wc -c)
printf "\\$(printf %o $((length % 256)))\\$(printf %o $((length / 256)))\\0\\0\\0\\0\\0\\0%s" "$2" > "$1"
cat >> "$1"
TOOL
cat > ../tools/poke <<'TOOL'
#!/bin/sh
# poke FILE OFFSET BYTES: overwrites bytes, given as for printf; a negative offset counts from the end
at=$2
[ "$at" -ge 0 ] || at=$(($(wc -c < "$1") + at))
printf "$3" | dd of="$1" bs=1 seek="$at" conv=notrunc 2> /dev/null
TOOL
cat > ../tools/swap <<'TOOL'
#!/bin/sh
# swap FILE OLD NEW: the first OLD of each line becomes NEW; the file must hold OLD
grep -q -a -F -- "$2" "$1" || { echo "swap: $1 holds no $2" >&2; exit 1; }
sed -i "s|$(printf %s "$2" | sed 's/[][\\.*^$]/\\&/g')|$3|" "$1"
TOOL
chmod +x ../tools/st ../tools/poke ../tools/swap

# ids.safetensors: input_ids [2, 3] of int64
printf '\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\6\0\0\0\0\0\0\0' |
    ../tools/st ids.safetensors '{"input_ids":{"dtype":"I64","shape":[2,3],"data_offsets":[0,48]}}'
cp ids.safetensors old.safetensors # an output that is there already
