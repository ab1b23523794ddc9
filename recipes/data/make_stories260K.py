"""Makes stories260K/ from llama2.c's stories260K.bin (legacy layout: seven int32, then f32 weights).

    python3 make_stories260K.py stories260K.bin stories260K

Only the standard library. llama2.c turns pairs (2i, 2i+1) of a head, Hugging Face's Llama pairs (i, i + size/2): the rows of
q and k are put in that order. The tokenizer (tok512.bin) was converted to a tokenizer.json apart: pieces in the order of
their scores give the merges, as Hugging Face converts Llama 2's.
"""
import array, json, os, struct, sys

source, target = sys.argv[1:]
data = open(source, "rb").read()
dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("<7i", data[:28])
weights, at = array.array("f", data[28:]), 0


def take(*shape):
    global at
    count = 1
    for n in shape:
        count *= n
    at += count
    return weights[at - count:at]


def halves(rows, n_heads):  # [n_heads * size, dim], pairs side by side -> first halves, then second halves
    size, out = len(rows) // dim // n_heads, array.array("f")
    for h in range(n_heads):
        for part in range(2):
            for i in range(size // 2):
                row = h * size + 2 * i + part
                out += rows[row * dim:(row + 1) * dim]
    return out


kv = dim // heads * kv_heads
names = [("input_layernorm", (dim,)), ("self_attn.q_proj", (dim, dim)), ("self_attn.k_proj", (kv, dim)),
         ("self_attn.v_proj", (kv, dim)), ("self_attn.o_proj", (dim, dim)), ("post_attention_layernorm", (dim,)),
         ("mlp.gate_proj", (hidden, dim)), ("mlp.down_proj", (dim, hidden)), ("mlp.up_proj", (hidden, dim))]
tensors = {"model.embed_tokens.weight": ((vocab, dim), take(vocab, dim))}
for name, shape in names:
    for layer in range(layers):
        rows = take(*shape)
        if "q_proj" in name or "k_proj" in name:
            rows = halves(rows, heads if "q_proj" in name else kv_heads)
        tensors[f"model.layers.{layer}.{name}.weight"] = (shape, rows)
tensors["model.norm.weight"] = ((dim,), take(dim))

header, body = {"__metadata__": {"format": "pt"}}, b""
for name in sorted(tensors):
    shape, values = tensors[name]
    header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + 4 * len(values)]}
    body += values.tobytes()
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
os.makedirs(target, exist_ok=True)
open(os.path.join(target, "model.safetensors"), "wb").write(struct.pack("<Q", len(text)) + text + body)

config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": dim,
          "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
          "num_key_value_heads": kv_heads, "hidden_act": "silu", "max_position_embeddings": length, "rms_norm_eps": 1e-05,
          "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "bos_token_id": 1,
          "eos_token_id": 2, "torch_dtype": "float32"}
json.dump(config, open(os.path.join(target, "config.json"), "w"), indent=2)
json.dump({"bos_token_id": 1, "eos_token_id": 2}, open(os.path.join(target, "generation_config.json"), "w"), indent=2)
