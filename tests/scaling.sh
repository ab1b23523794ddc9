#!/bin/bash
# scaling.sh [AXIS ...]: how the cost of each kind of input grows. Every axis runs hone on n, 2n and 4n of something and counts
# instructions under valgrind (cachegrind without caches), libraries included: the same numbers on every run, so nothing depends on
# a quiet machine. What the second doubling adds may be at most 2.5 times what the first adds: n log n passes, n squared (4.0) does
# not, and what the program does anyhow does not hide it. HONE: the program; KEEP=1 leaves the folder.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
hone=${HONE:-$root/hone} golden=$root/tests/golden
command -v valgrind > /dev/null || { echo "scaling: valgrind is not installed; on Debian: apt-get install valgrind" >&2; exit 2; }
work=$(mktemp -d /tmp/hone-scaling-XXXXXX) || exit 2
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
cd "$work" || exit 2
export LC_ALL=C

# count ARGUMENTS: instructions of `hone ARGUMENTS`, standard input from ./in; -1 and its message if it fails with another code
# than $wanted.
count() {
    valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null --log-file=refs "$hone" "$@" --isa plain \
        --threads 1 < in > out 2> err
    local code=$?
    [ $code = "${wanted:-0}" ] || { echo "hone $*: exit $code: $(head -n 3 err)" >&2; echo -1; return; }
    sed -n 's/.*I *refs: *//p' refs | tr -d ,
}

# axis NAME N COMMAND: `make_NAME n` writes the input of size n, or adds it to the command as `more`.
passed=0 failed=0
axis() {
    local name=$1 n=$2 size found=() verdict
    shift 2
    case " $only " in *" $name "*) ;; *) [ -n "$only" ] && return ;; esac
    : > in
    more=()
    for size in "$n" $((2 * n)) $((4 * n)); do
        "make_$name" "$size" && found+=("$(count "$@" "${more[@]}")")
    done
    verdict=$(awk -v a="${found[0]:--1}" -v b="${found[1]:--1}" -v c="${found[2]:--1}" 'BEGIN {
        if (a < 0 || b < 0 || c < 0) { print "FAIL did not run"; exit }
        first = b - a; second = c - b
        if (c - a < 0.01 * a) { printf "ok   constant\n"; exit }
        ratio = second / (first > 0 ? first : 1)
        printf "%s x %.2f\n", ratio <= 2.5 ? "ok  " : "FAIL", ratio }')
    case $verdict in ok*) passed=$((passed + 1)) ;; *) failed=$((failed + 1)) ;; esac
    printf '%-22s %7d %12s %12s %12s  %s\n' "$name" "$n" "${found[@]/#/}" "$verdict"
}

repeat() { # N TEXT: the text so often
    awk -v n="$1" -v s="$2" 'BEGIN { for (i = 0; i < n; i++) printf "%s", s }'
}
numbered() { # N FORMAT SEPARATOR: printf FORMAT with 0 .. N - 1, %d once or twice
    awk -v n="$1" -v f="$2" -v s="$3" 'BEGIN { for (i = 0; i < n; i++) { if (i) printf "%s", s; printf f, i, i, i } }'
}

tokenizer=$golden/tokenizers/gpt2.json stories=$root/recipes/data/stories260K
cat > chatml.jinja << 'T'
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}
T
cat > plain.jinja << 'T'
{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</s>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}
T

# ---- conversations and rows
make_turns() {
    { printf '{"messages": ['; numbered "$1" '{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}' ', '; echo ']}'; } > t.jsonl
}
make_turns_plain() { make_turns "$1"; }
make_message() { { printf '{"messages": [{"role": "user", "content": "'; repeat "$1" 'some words '; echo '"}, {"role": "assistant", "content": "b"}]}'; } > t.jsonl; }
make_rows() { numbered "$1" '{"text": "row %d"}\n' '' > t.jsonl; }
make_conversations() { numbered "$1" '{"messages": [{"role": "user", "content": "%d"}, {"role": "assistant", "content": "b"}]}\n' '' > t.jsonl; }
make_keys() { { printf '{'; numbered "$1" '"key %d": 1' ', '; echo ', "text": "a"}'; } > t.jsonl; }
make_json_depth() { { printf '{"x": '; repeat "$1" '['; repeat "$1" ']'; echo ', "text": "a"}'; } > t.jsonl; }
make_json_array() { { printf '['; numbered "$1" '{"text": "row %d"}' ', '; echo ']'; } > t.json; }
make_document() { repeat "$1" 'some words and then. ' > t.txt; }
make_blocks() { numbered "$1" 'document %d\n\n' '' > t.txt; }
make_files() { rm -rf files; mkdir files; for ((i = 0; i < $1; i++)); do echo "file $i" > files/$i.txt; done; more=(files/*.txt); }

# ---- recipes
make_recipe() { echo "dataset: [t.h5]"; echo 'model: {model_type: olmo2, vocab_size: 600, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1,
  num_attention_heads: 2, max_position_embeddings: 64, rms_norm_eps: 1.0e-6, rope_theta: 10000.0, tie_word_embeddings: true}'; }
make_yaml_list() { { make_recipe; echo 'sample_prompts:'; numbered "$1" '  - prompt %d\n' ''; } > r.yaml; }
make_yaml_flow_list() { { make_recipe; printf 'sample_prompts: ['; numbered "$1" 'prompt %d' ', '; echo ']'; } > r.yaml; }
make_yaml_keys() { { make_recipe; numbered "$1" 'key_%d: 1\n' ''; } > r.yaml; }
make_yaml_flow_depth() { { make_recipe; printf 'x: '; repeat "$1" '['; repeat "$1" ']'; echo; } > r.yaml; }
make_yaml_block_depth() { { make_recipe; awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "%*sx:\n", i, "" }'; } > r.yaml; }
make_yaml_text() { { make_recipe; printf 'tokenizer: "'; repeat "$1" 'words '; echo '"'; } > r.yaml; }
make_yaml_include() { # each key of the model in the base is given again by who includes it
    { echo 'include: base.yaml'; echo 'model:'; numbered "$1" '  key_%d: 2\n' ''; } > r.yaml
    { echo 'dataset: [t.h5]'; echo 'model:'; numbered "$1" '  key_%d: 1\n' ''; } > base.yaml
}
make_overrides() { make_recipe > r.yaml; more=(); for ((i = 0; i < $1; i++)); do more+=(model.key_$i=1); done; }
make_override_list() { make_recipe > r.yaml; more=(); for ((i = 0; i < $1; i++)); do more+=(dataset.$i.path=t$i.h5); done; }

# ---- tokenizers: n strings of two, then three, letters, each merged from its start and its last letter
make_tokenizer() {
    awk -v n="$1" 'BEGIN {
        letters = "abcdefghijklmnopqrstuvwxyz"; k = 26
        for (i = 1; i <= 26; i++) all[i] = substr(letters, i, 1)
        for (from = 1; k < n + 26; from++)
            for (i = 1; i <= 26 && k < n + 26; i++) { all[++k] = all[from] substr(letters, i, 1); merge[k] = all[from] " " substr(letters, i, 1) }
        printf "{\"model\": {\"type\": \"BPE\", \"vocab\": {"
        for (i = 1; i <= k; i++) printf "%s\"%s\": %d", (i > 1 ? ", " : ""), all[i], i - 1
        printf "}, \"merges\": ["
        for (i = 27; i <= k; i++) printf "%s\"%s\"", (i > 27 ? ", " : ""), merge[i]
        print "]}}" }' > t.json
}
make_wordpiece() {
    { printf '{"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100000000, "vocab": {"[UNK]": 0'
      awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf ", \"%s%c%d\": %d", i % 2 ? "##" : "", 97 + i % 26, i, i + 1 }'
      echo '}}}'; } > t.json
}
make_unigram() {
    { printf '{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0]'
      awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf ", [\"%c%d\", -%d.5]", 97 + i % 26, i, i % 9 }'
      echo ']}}'; } > t.json
}
make_added() {
    { printf '{"added_tokens": ['
      awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "%s{\"id\": %d, \"content\": \"<%d>\", \"special\": true, \"normalized\": %s}", i ? ", " : "", i + 2, i, i % 2 ? "true" : "false" }'
      echo '], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}'; } > t.json
}
make_ranks() { awk -v n="$1" 'BEGIN { for (i = 0; i < n + 256; i++) print i < 256 ? "" : "" }' > /dev/null; }
make_long_word() { { printf '{"text": "'; repeat "$1" 'abcdefghij'; echo '"}'; } > in; }
for model in gpt2 stories bpe unigram unigram_map ranks wordpiece marks accents spaces digits; do
    eval "make_word_$model() { make_long_word \$1; }"
done
make_word_marks() { { printf '{"text": "a'; repeat "$1" '\\u0301\\u0323'; echo '"}'; } > in; }
make_word_accents() { { printf '{"text": "'; repeat "$1" '\\u00e9\\u4e2d'; echo '"}'; } > in; }
make_word_spaces() { { printf '{"text": "'; repeat "$1" '          '; echo '"}'; } > in; }
make_word_digits() { { printf '{"text": "'; repeat "$1" '1234567890'; echo '"}'; } > in; }
make_decode() { { printf '{"ids": ['; numbered "$1" '300' ', '; echo ']}'; } > in; }
make_offsets() { { printf '{"text": "'; repeat "$1" 'some words '; echo '"}'; } > in; }
make_corpus() { numbered "$1" 'word%d other%d ' '' > t.txt; }
make_corpus_word() { repeat "$1" 'abcdefghij' > t.txt; }

# ---- templates
make_template() { repeat "$1" "{{ 'a' }}b" > t.jinja; echo '{"messages": []}' > in; }
make_template_if() { { repeat "$1" "{% if messages %}a{% else %}b{% endif %}"; } > t.jinja; echo '{"messages": []}' > in; }
make_template_loop() { echo "{% for i in range($1) %}{% set x = i %}{{ x }}{% endfor %}" > t.jinja; echo '{"messages": []}' > in; }
make_template_join() { echo "{% set ns = namespace(x=[]) %}{% for i in range($1) %}{% set x = i|string %}{{ x }}{% endfor %}{{ range($1)|join(',') }}" > t.jinja; echo '{"messages": []}' > in; }
make_template_list() { echo "{% set ns = namespace(x=[]) %}{% for i in range($1) %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x|length }}" > t.jinja; echo '{"messages": []}' > in; }
make_template_tools() {
    echo "{{ tools|tojson }}{% for t in tools %}{{ t.name }}{% endfor %}" > t.jinja
    { printf '{"messages": [], "tools": ['; numbered "$1" '{"name": "tool %d", "parameters": {"a": {"type": "string"}}}' ', '; echo ']}'; } > in
}
make_template_text() { echo "{{ messages[0].content|trim|upper|replace('A', 'bb') }}{{ messages[0].content.split('a')|length }}" > t.jinja; { printf '{"messages": [{"role": "user", "content": "'; repeat "$1" 'ab '; echo '"}]}'; } > in; }
make_template_chars() { echo "{% for c in messages[0].content %}{{ c }}{% endfor %}{{ messages[0].content[::-1] }}" > t.jinja; { printf '{"messages": [{"role": "user", "content": "'; repeat "$1" 'ab '; echo '"}]}'; } > in; }

# ---- model files: numbers of k bytes, the lowest first
little() { awk -v x="$1" -v k="$2" 'BEGIN { for (i = 0; i < k; i++) { printf "%c", x % 256; x = int(x / 256) } }'; }
make_tensors() {
    awk -v n="$1" 'BEGIN { printf "{"; for (i = 0; i < n; i++) printf "%s\"tensor.%d\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [%d, %d]}", i ? ", " : "", i, 4 * i, 4 * i + 4; printf "}" }' > head
    { little "$(stat -c %s head)" 8; cat head; head -c $((4 * $1)) /dev/zero; } > t.safetensors
}
gguf() { # TENSORS KEYS: what `inspect --tensors` wants of a model, and so many more
    awk -v t="$1" -v k="$2" 'function le(x, n, i) { for (i = 0; i < n; i++) { printf "%c", x % 256; x = int(x / 256) } at += n }
        function str(s) { le(length(s), 8); printf "%s", s; at += length(s) }
        function key(name, value) { str(name); le(4, 4); le(value, 4) }
        function tensor(name, rows, from) { str(name); le(2, 4); le(8, 8); le(rows, 8); le(0, 4); le(from, 8) }
        BEGIN { printf "GGUF"; at = 4; le(3, 4); le(t + 1, 8); le(k + 7, 8)
            str("general.architecture"); le(8, 4); str("llama")
            key("llama.block_count", 1); key("llama.context_length", 64); key("llama.embedding_length", 8)
            key("llama.feed_forward_length", 8); key("llama.attention.head_count", 1)
            str("llama.attention.layer_norm_rms_epsilon"); le(6, 4); le(925353388, 4) # 1e-5
            for (i = 0; i < k; i++) key("some.key." i, i)
            tensor("token_embd.weight", 4, 0)
            for (i = 0; i < t; i++) tensor("tensor." i, 1, 128 + 32 * i)
            while (at % 32) le(0, 1) }' > t.gguf
    head -c $((128 + 32 * $1)) /dev/zero >> t.gguf
}
make_gguf_tensors() { gguf "$1" 1; }
make_gguf_keys() { gguf 1 "$1"; }

# ---- runs: trained without valgrind
small=(max_seq_length=16 global_batch_size=1 micro_batch_size=1 learning_rate=1e-3 --quiet)
train() { "$hone" train r.yaml "${small[@]}" "$@" || exit 2; }
run_of() { rm -rf run; make_recipe > r.yaml; make_document 2000; "$hone" tokenize t.txt --tokenizer "$tokenizer" --output t.h5 --quiet; train max_steps="$1" save_steps="$2" output_dir=run; }
make_log_verify() { run_of "$1" 1000000; }
make_log_report() { run_of "$1" 1000000; }
make_checkpoints_verify() { run_of "$1" 1; }
make_checkpoints_report() { run_of "$1" 1; }
make_checkpoints_inspect() { run_of "$1" 1; }
make_resume() { run_of "$1" 1; more=(max_steps=$(($1 + 1))); }
make_documents() { make_recipe > r.yaml; make_blocks "$1"; "$hone" tokenize t.txt --document-separator $'\n\n' --tokenizer "$tokenizer" --output t.h5 --quiet; rm -rf run; }
make_datasets() { make_recipe > r.yaml; make_document 50; for ((i = 0; i < $1; i++)); do "$hone" tokenize t.txt --tokenizer "$tokenizer" --output t$i.h5 --quiet; done; { make_recipe | sed 1d; echo 'dataset:'; numbered "$1" '  - t%d.h5\n' ''; } > r.yaml; rm -rf run; }

# ---- use
make_prompts() { numbered "$1" '{"prompt": "a %d"}\n' '' > p.jsonl; }
make_stops() { more=(--stop "$(numbered "$1" 'stop%d' ',')"); }
make_prompt_length() { more=(--prompt "$(repeat "$1" 'Once ')"); }

only=$*
[ $# = 0 ] || shift $#
printf '%-22s %7s %12s %12s %12s  %s\n' axis n 'n' '2n' '4n' 'second doubling against first'
chat() { axis "$1" "$2" tokenize t.jsonl --tokenizer "$tokenizer" --chat-template "$3" --output o.h5 --quiet; }
chat turns 400 chatml.jinja
chat turns_plain 50 plain.jinja
chat message 20000 chatml.jinja
chat conversations 200 chatml.jinja
for name in rows keys; do axis $name 1000 tokenize t.jsonl --tokenizer "$tokenizer" --output o.h5 --quiet; done
axis json_depth 400 tokenize t.jsonl --tokenizer "$tokenizer" --output o.h5 --quiet
axis json_array 1000 tokenize t.json --tokenizer "$tokenizer" --output o.h5 --quiet
axis document 40000 tokenize t.txt --tokenizer "$tokenizer" --output o.h5 --quiet
axis files 100 tokenize --tokenizer "$tokenizer" --output o.h5 --quiet
axis blocks 1000 tokenize t.txt --document-separator $'\n\n' --tokenizer "$tokenizer" --output o.h5 --quiet
for name in yaml_list yaml_flow_list yaml_text yaml_include; do axis $name 500 inspect r.yaml; done
wanted=2
axis yaml_keys 500 inspect r.yaml
for name in overrides override_list; do axis $name 200 train r.yaml output_dir=run; done # and then there is no t.h5
axis yaml_flow_depth 32000 inspect r.yaml # libyaml looks 1,024 characters ahead: up to there it is n squared, and no further
axis yaml_block_depth 100 inspect r.yaml
wanted=0
for name in tokenizer wordpiece unigram added; do axis $name 2000 encode t.json; done
for model in gpt2.json stories260K.json bpe.model unigram.model unigram-map.model ranks; do
    name=${model%.*} && name=${name/stories260K/stories} && name=${name/-/_}
    axis "word_$name" 2000 encode "$golden/tokenizers/$model"
done
make_wordpiece 100 && cp t.json wordpiece.json
axis word_wordpiece 1000 encode wordpiece.json
for name in word_marks word_accents word_spaces word_digits; do axis $name 1000 encode "$golden/tokenizers/qwen2.json"; done
axis decode 5000 decode "$golden/tokenizers/gpt2.json"
for model in gpt2.json unigram-map.model; do axis offsets 1000 encode "$golden/tokenizers/$model" --offsets; done
for name in corpus corpus_word; do axis $name 2000 tokenizer train t.txt --vocab-size 280 --output o.json --quiet; done
for name in template template_if template_loop template_join template_list template_tools template_text template_chars; do axis $name 1000 render t.jinja; done
axis tensors 1000 inspect t.safetensors
for name in gguf_tensors gguf_keys; do axis $name 1000 inspect t.gguf --tensors; done
axis log_verify 32 verify run --order-steps 0
axis log_report 32 report run
axis checkpoints_verify 8 verify run
axis checkpoints_report 8 report run
axis checkpoints_inspect 8 inspect run
axis documents 500 train r.yaml "${small[@]}" max_steps=1 output_dir=run
# In order: which dataset a drawn sample is of, and so how many have a chunk to decompress, is chance.
axis datasets 4 train r.yaml "${small[@]}" max_steps=1 shuffle=false output_dir=run
axis resume 8 train r.yaml "${small[@]}" save_steps=1 output_dir=run resume_from_checkpoint=auto
axis prompts 8 generate "$stories" --prompts p.jsonl --max-new-tokens 1 --quiet
axis stops 500 generate "$stories" --prompt Once --max-new-tokens 4 --quiet
axis prompt_length 25 generate "$stories" --max-new-tokens 1 --quiet
echo "$passed passed, $failed failed"
[ $failed = 0 ]
