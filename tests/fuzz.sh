#!/bin/sh
# fuzz.sh NAME SECONDS: runs tests/fuzz/fuzz_NAME.c with clang's libFuzzer for a while, from the corpus in build/fuzz/NAME (which
# it fills with seeds and goes on filling). What crashes is left there as crash-*; give it to build/fuzz/NAME/run again.
set -eu
cd "$(dirname "$0")/.."
name=${1:?usage: tests/fuzz.sh NAME SECONDS; names: $(ls tests/fuzz/fuzz_*.c | sed 's/.*fuzz_//;s/\.c//' | tr '\n' ' ')}
seconds=${2:-60}
[ -f "tests/fuzz/fuzz_$name.c" ] || { echo "there is no tests/fuzz/fuzz_$name.c"; exit 2; }
options="CC=clang SAN=fuzzer-no-link,address,undefined"
build=$(make -pn $options 2> /dev/null | sed -n 's/^BUILD := //p' | head -n 1)
make -s -j"$(nproc)" $options "$build/libhone.a" > build/fuzz.log 2>&1 || { tail -n 5 build/fuzz.log; exit 1; }
at=build/fuzz/$name
mkdir -p "$at/corpus"
libraries=$(make -pn 2> /dev/null | sed -n 's/^LIBS *:= //p' | head -n 1)
clang -std=c17 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I. \
    $(pkg-config --cflags $libraries) "tests/fuzz/fuzz_$name.c" "$build/libhone.a" $(pkg-config --libs $libraries) -lpthread -lm \
    -o "$at/run"

# Seeds: small, whole examples in the form that the target reads.
golden=tests/golden
case $name in
safetensors) for file in $golden/models/*/lora/adapter_model.safetensors $golden/layouts/*/*.safetensors; do
        cp "$file" "$at/corpus/$(echo "${file#"$golden"/}" | tr / -)"
    done ;;
gguf) printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0a\4\0\0\0\1\0\0\0' > "$at/corpus/value"
    cp $golden/gguf/*.gguf "$at/corpus" 2> /dev/null || true ;;
model) { tr -d '\0' < $golden/models/llama/config.json; printf '\0'; cat $golden/models/llama/model.safetensors; } > "$at/corpus/llama"
    { tr -d '\0' < $golden/models/olmo2/config.json; printf '\0'; cat $golden/models/olmo2/model.safetensors; } > "$at/corpus/olmo2" ;;
recipe) i=0
    for kind in 0 1 2; do
        printf "\\$kind" > "$at/corpus/seed-$kind"
    done
    printf 'seed: 1\nmodel_name_or_path: m\ndataset: [{path: d.h5, weight: 2}]\nsave_at: [1, 2]\nlr: 1e-3\n' >> "$at/corpus/seed-0"
    { printf '\000base_model: a/b\nsequence_len: 8\nadapter: qlora\ndatasets: [{path: json, data_files: [x], type: alpaca, split: "train[:1%%]", '
        printf 'message_property_mappings: {role: from, content: v}}]\nspecial_tokens: {pad_token: x, eos_token: y}\nval_set_size: 0.1\n'
        printf 'plugins: [a.LigerPlugin, b]\nrl: dpo\nreport_to: [wandb]\nlora_target_linear: true\nlora_target_modules: [q]\n'
    } > "$at/corpus/axolotl"
    { printf '\004output_dir: o\nmodel: {_component_: t.lora_x, lora_attn_modules: [q_proj], lora_rank: 4}\ndataset: {_component_: '
        printf 'torchtune.datasets.alpaca_dataset, packed: true, split: "train[:5]"}\ncheckpointer: {checkpoint_dir: ${output_dir}}\n'
        printf 'optimizer: {_component_: torch.optim.AdamW, lr: 1e-4}\nmax_steps_per_epoch: 3\nepochs: 2\n'
    } > "$at/corpus/torchtune"
    printf '\003A=1 swift sft --model m \\\n --dataset "a b"#5 c --lora_rank=4 # x\n --tuner_type lora --packing $(expr 1)\n' > "$at/corpus/script"
    printf '\000stage: sft\nfinetuning_type: lora\ndataset: a,b\ncutoff_len: 8\nneat_packing: true\nquantization_bit: 8\n' > "$at/corpus/factory"
    { printf '\000dataset_mixture: {datasets: [{id: a, weight: 0.5}], test_split_size: 10}\nlog_level: x\n'
        printf 'lr_scheduler_kwargs: {min_lr_rate: 0.1}\n'
    } > "$at/corpus/trl"
    printf '\000model: m\niters: 5\nfine_tune_type: lora\ndata: d\nlora_parameters: {rank: 2, scale: 3, keys: [q]}\n' > "$at/corpus/mlx"
    printf '{"format": "hone recipe lock 1", "recipe": {"seed": 1}, "environment": {}, "files": []}' >> "$at/corpus/seed-1"
    printf '{"hone_log":1,"run":"a","lock":"00"}\n{"step":1,"tokens":2,"loss":1.5,"prev":""}\n' >> "$at/corpus/seed-2"
    printf '\002{"hone_log":2,"digests":2,"metrics":["m"],"run":"a"}\n{"step":1,"m_hex":"0x1p+1"}\n' > "$at/corpus/seed-3" ;;
tokenizer) for file in stories260K.json unigram.model unigram-map.model bpe.model ranks/small.tiktoken; do
        { cat $golden/tokenizers/$file && printf '\0~\0\0the <s>cat\t1  '; } > "$at/corpus/$(basename $file)"
    done
    for file in unigram.model bpe.model ranks/small.tiktoken; do
        { cat $golden/tokenizers/ranks/tokenizer_config.json && printf '\0~\0\0' && cat $golden/tokenizers/$file &&
            printf '\0~\0\0the <s>cat\t1  '; } > "$at/corpus/folder-$(basename $file)"
    done
    for more in '"extra_special_tokens": ["<|x|>", {"content": "<y>", "lstrip": true}]' \
        '"added_tokens_decoder": {"512": {"content": "<|x|>"}, "7": {"content": "t"}}, "pad_token": "<p>", "end_token": "<e>"'; do
        { printf '{%s}\0~\0\0' "$more" && cat $golden/tokenizers/stories260K.json && printf '\0~\0\0a<|x|><y>  cat'; } \
            > "$at/corpus/extra-$(echo "$more" | cut -c2-6)"
    done
    i=0
    sed -n 's/^{"base":"[a-z0-9A-Z]*","patch":\(.*"model":{.*\),"add":false}$/\1/p' $golden/tokenizers/random.jsonl |
        while read -r file; do
            i=$((i + 1))
            printf '%s\0~\0\0the <s>cat\t1  ' "$file" > "$at/corpus/random-$i"
        done
    printf 'the \303\251\377cat  123' > "$at/corpus/text" ;;
jinja) cp $golden/jinja/*.jinja "$at/corpus"
    sed 's/^{"template": "//; s/", "[teug][a-z]*": .*//; s/\\"/"/g; s/\\n/ /g' $golden/jinja/snippets.jsonl |
        split -l 1 -a 3 - "$at/corpus/snippet-" ;;
rows) i=0
    sed -n 's/^{"tokenizer".* "row": \(.*\), "input_ids".*$/\1/p' $golden/rows/trl.jsonl | while read -r row; do
        i=$((i + 1))
        printf '\202\20%s\n{"messages": [{"from": "Human", "value": [{"type": "text", "text": "q"}], "weight": 0}, {"from": "bard", "value": "a"}], "system": "s", "history": [["a", "b"]]}\n{"input_ids": [1, 2], "labels": [-100, 2]}\n' "$row" > "$at/corpus/row-$i"
    done ;;
source) printf '\1{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n{"text": "t"}\n' > "$at/corpus/lines"
    printf '\2[{"instruction": "i", "input": "", "output": "o"},\n {"prompt": "p", "completion": "c"}]\n' > "$at/corpus/array"
    printf '\101{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s", "tools": "[]"}' > "$at/corpus/sharegpt"
    printf '\7text,id\r\n"a, ""b""\n",1\r\n' > "$at/corpus/csv"
    printf '\10text\tid\na\t1\n' > "$at/corpus/tsv"
    printf '\1{\n "text": "a",\n "x": [NaN, -Infinity]\n}\n{"text": "b"}\n' > "$at/corpus/pretty"
    { printf '\1' && printf '\377\376{\0"\0t\0e\0x\0t\0"\0:\0"\0a\0"\0}\0'; } > "$at/corpus/utf16"
    printf '\100one\n\ntwo' > "$at/corpus/text"
    { printf '\4' && printf '[{"text": "a"}]' | gzip; } > "$at/corpus/gzip"
    { printf '\3' && printf 'text' | gzip; } > "$at/corpus/text-gzip" ;;
parquet) cp $golden/parquet/*.parquet "$at/corpus"
    # 1 to 3: pages behind a footer of the target's own; here two of a column of texts, one compressed
    printf '\001\006\003\025\000\025\036\025\036\054\025\006\025\000\025\006\025\006\000\000\001\000\000\000a\001\000\000\000b\001\000\000\000c' > "$at/corpus/pages" ;;
state) for file in "\1\0\0\0\0" "\1\40\0\0\1\60\0\0\2" "\2\140\0\0\0" "\2\0\1\0\1"; do
        printf "$file" > "$at/corpus/seed-$(printf "$file" | cksum | cut -d' ' -f1)"
    done
    { printf '\0'; zstd -dcq $golden/hdf5/dataset.h5.zst || true; } > "$at/corpus/old-dataset"
    { printf '\0'; zstd -dcq $golden/hdf5/state.h5.zst || true; } > "$at/corpus/old-state" ;;
serve) printf '\000{"prompt": ["a", "b"], "stop": ["x"], "seed": 1, "temperature": 0.5, "logprobs": 2, "echo": true, "n": 2, "stream_options": {"include_usage": true}}' > "$at/corpus/text"
    printf '\000{"prompt": [[1, 2], [3]], "max_tokens": 0, "stop_token_ids": [2], "presence_penalty": 0, "logit_bias": {}}' > "$at/corpus/ids"
    printf '\001{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]}], "tools": [{"a": 1}], "tool_choice": "auto", "chat_template_kwargs": {"x": 1}, "top_logprobs": 3, "logprobs": true}' > "$at/corpus/chat"
    printf '\002{"content": "a b", "add_special": true}' > "$at/corpus/tokenize"
    printf '\003{"tokens": [1, 403, 407]}' > "$at/corpus/detokenize"
    printf '\004{"messages": [{"role": "user", "content": "q"}], "add_generation_prompt": false}' > "$at/corpus/template"
    printf '\005 <think>\na b\n</think>\n\nc' > "$at/corpus/thought" ;;
dataset) { printf '\0'; zstd -dcq $golden/hdf5/dataset.h5.zst || true; } > "$at/corpus/old"
    for kind in 0 1 2; do printf "\\${kind}abcdefgh" > "$at/corpus/seed-$kind"; done ;;
esac
# -malloc_limit_mb: hone asks for what a file says it needs and takes no for an answer.
exec env ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=2048 \
    "$at/run" -max_total_time="$seconds" -malloc_limit_mb=4096 -rss_limit_mb=6000 -timeout=25 -print_final_stats=0 -verbosity=0 \
    -max_len=300000 -artifact_prefix="$at/" "$at/corpus"
