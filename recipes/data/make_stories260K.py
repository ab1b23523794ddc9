#!/usr/bin/env python3
"""Converts stories260K (llama2.c) into the Hugging Face Llama folder next to this file.

    python3 recipes/data/make_stories260K.py stories260K.bin tok512.bin recipes/data/stories260K

Needs nothing but Python. The folder in the repository is its output; training never runs this.

Weights (llama2.c, legacy export): seven int32 (dim, hidden_dim, layers, heads, kv_heads, vocab, seq_len), then float32
tensors in the order below, each for all layers. llama2.c rotates neighbouring pairs of a head's query and key; Hugging
Face rotates its two halves, so rows of q and k are reordered. vocab > 0: the embedding is the output matrix too.

Tokenizer: SentencePiece BPE of llama2.c (int32 longest, then per token float32 score, int32 length, bytes), written as
Hugging Face writes Llama 2's: merges are all splits of a piece into two pieces, best score first.
"""
import array
import hashlib
import json
import os
import struct
import sys


def halves(rows, heads):
    """Rows of interleaved pairs (2i, 2i + 1) per head -> first halves, then second halves."""
    size = len(rows) // heads
    return [rows[h * size + 2 * i + j] for h in range(heads) for j in (0, 1) for i in range(size // 2)]


def read_weights(path):
    data = open(path, "rb").read()
    dim, hidden, layers, heads, kv_heads, vocab, seq = struct.unpack_from("<7i", data)
    values = array.array("f", data[28:])
    if sys.byteorder == "big":
        values.byteswap()
    at = 0

    def take(rows, cols):
        nonlocal at
        at += rows * cols
        return [values[at - rows * cols + r * cols : at - rows * cols + (r + 1) * cols] for r in range(rows)]

    kv = dim // heads * kv_heads
    embed = take(vocab, dim)
    parts = [("input_layernorm", 1, dim), ("self_attn.q_proj", dim, dim), ("self_attn.k_proj", kv, dim),
             ("self_attn.v_proj", kv, dim), ("self_attn.o_proj", dim, dim), ("post_attention_layernorm", 1, dim),
             ("mlp.gate_proj", hidden, dim), ("mlp.down_proj", dim, hidden), ("mlp.up_proj", hidden, dim)]
    tensors = {"model.embed_tokens.weight": embed}
    for name, rows, cols in parts:
        for layer in range(layers):
            tensor = take(rows, cols)
            if name.endswith(("q_proj", "k_proj")):
                tensor = halves(tensor, heads if name.endswith("q_proj") else kv_heads)
            tensors[f"model.layers.{layer}.{name}.weight"] = tensor
    tensors["model.norm.weight"] = take(1, dim)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": dim,
        "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "hidden_act": "silu", "max_position_embeddings": seq, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "initializer_range": 0.02, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    }
    return config, tensors


def write_safetensors(path, tensors):
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        rows = tensors[name]
        blob = b"".join(struct.pack(f"<{len(r)}f", *r) for r in rows)
        shape = [len(rows[0])] if name.endswith("norm.weight") else [len(rows), len(rows[0])]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_pieces(path):
    data, at, pieces = open(path, "rb").read(), 4, []
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        pieces.append((data[at + 8 : at + 8 + size].decode().replace(" ", "\u2581"), score))
        at += 8 + size
    for i, name in enumerate(["<unk>", "<s>", "</s>"]):
        pieces[i] = (name, 0.0)
    return pieces


def tokenizer_json(pieces):
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces[259:]:
        splits = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        splits = [s for s in splits if s[0] in vocab and s[1] in vocab]
        merges += [(score, *s) for s in sorted(splits, key=lambda s: (vocab[s[0]], vocab[s[1]]))]
    merges.sort(key=lambda m: -m[0])
    space = "\u2581"
    special = [{"id": i, "content": pieces[i][0], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i in range(3)]
    bos = [{"SpecialToken": {"id": "<s>", "type_id": i}} for i in range(2)]
    text = [{"Sequence": {"id": "AB"[i], "type_id": i}} for i in range(2)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": space}, {"type": "Replace", "pattern": {"String": " "}, "content": space}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [bos[0], text[0]],
                           "pair": [bos[0], text[0], bos[1], text[1]],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": space}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [[a, b] for _, a, b in merges]},
    }


def main(weights, tokens, folder):
    os.makedirs(folder, exist_ok=True)
    config, tensors = read_weights(weights)
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    files = {
        "config.json": config,
        # llama2.c trained documents that begin with <s> and have no end: the next <s> ends a story.
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": [2, 1]},
        "tokenizer.json": tokenizer_json(read_pieces(tokens)),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False, "model_max_length": config["max_position_embeddings"]},
    }
    for name, content in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
            json.dump(content, out, ensure_ascii=False, indent=1 if name == "tokenizer.json" else 2)
            out.write("\n")
    for name in ["model.safetensors", *files]:
        print(hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest(), name)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
