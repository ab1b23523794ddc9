#!/usr/bin/env python3
"""Do GGUF files that hone writes mean the same to llama.cpp?

    pip install -r tests/interop/requirements-gguf.txt
    python tests/interop/check_gguf.py                   # checks, prints a table, 1 on a miss
    python tests/interop/check_gguf.py --record          # also writes tests/golden/gguf/llama_cpp.json

The golden models and stories260K are exported in every type; llama.cpp loads each and computes. f32: logits are
those of `hone forward`, greedy ids equal; other types: logits near those of the decoded weights (llama.cpp's
products quantise activations too). The vocabulary: llama.cpp's ids of texts are hone's. An adapter: logits of base
and adapter. Where the library is missing the script says so and exits 0. The recorded greedy ids and the files'
SHA-256 let tests/unit/models/test_gguf_model.c hold hone to the same files without it.
"""
import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import common
from common import HONE, MODELS, ROOT, check, hone, sha256

L, np, _ = common.need("llama_cpp", "numpy", "safetensors.numpy", requirements="requirements-gguf.txt")
from safetensors.numpy import load_file, save_file  # noqa: E402

STORIES = ROOT / "recipes/data/stories260K"
RECORD = ROOT / "tests/golden/gguf/llama_cpp.json"
# the families, and the positions that a window without counterpart or short RoPE factors let llama.cpp compute alike
FAMILIES = {name: 24 for name in (
    "llama", "llama_rope3_tied", "llama_linear", "qwen3", "smollm3", "olmo", "olmo2", "gemma", "gemma2", "gemma3_text", "phi",
    "gpt2", "gpt_neox", "gpt_neox_seq", "falcon_7b", "falcon_40b", "bloom", "stablelm", "stablelm_parallel", "glm4",
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "apertus", "glm4_moe", "deepseek_v2", "deepseek_v3", "kimi_k2")}
FAMILIES.update(mistral=7, qwen2=7, phi3=60, gpt_oss=24, ministral=7, ministral3=24)  # phi3: longer than the original length: the long factors
# llama.cpp's GELU is a table of f16
GELU = {"gemma", "gemma2", "gemma3_text", "phi", "gpt2", "gpt_neox", "gpt_neox_seq", "falcon_7b", "falcon_40b", "bloom"}
# what llama.cpp derives from the architecture's name, and the goldens have otherwise
ADJUST = {"gemma2": {"query_pre_attn_scalar": 12}, "gemma3_text": {"query_pre_attn_scalar": 12, "sliding_window_pattern": 6},
          "qwen2_moe": {"num_hidden_layers": 1, "mlp_only_layers": []},  # the layer that has experts, alone
          "qwen3_moe": {"num_hidden_layers": 1, "mlp_only_layers": []}}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0, "mscale_all_dim": 1.0}
ADJUST.update({name: {"rope_scaling": YARN} for name in ("deepseek_v2", "deepseek_v3", "kimi_k2")})
ADJUST["deepseek_v2"]["num_hidden_layers"] = 27
ADJUST["gpt_oss"] = {"swiglu_limit": 7.0, "rope_scaling": None}
ADJUST["ministral3"] = {"model_type": "ministral3", "sliding_window": None, "head_dim": 8, "rope_theta": 10000.0,
                        "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1}}
BASE = {"ministral3": "mistral"}  # the golden model that has its shape
EXPERTS = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2", "kimi_k2"}  # rounded activations may choose others
TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k")
TEXTS = ["Once upon a time, there was a little girl named Lily.", " two  spaces\n\nand lines\t", "naïve café 漢字 🙂", "x"]

def refused(*arguments):
    """What hone says if it does not write a model because llama.cpp would compute another."""
    r = subprocess.run([str(HONE), *map(str, arguments)], capture_output=True, text=True)
    if r.returncode == 0:
        return None
    if "llama.cpp's" not in r.stderr and "cannot be written as GGUF" not in r.stderr:
        raise SystemExit(f"hone {' '.join(map(str, arguments))}: exit {r.returncode}\n{r.stderr}")
    return r.stderr.split("\n")[0]


class Model:
    """llama.cpp, one thread, f32 cache, plain attention."""

    def __init__(self, path, adapter=None, length=512):
        self.model = L.llama_model_load_from_file(str(path).encode(), L.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        p = L.llama_context_default_params()
        p.n_ctx = p.n_batch = length
        p.n_threads, p.type_k, p.type_v, p.flash_attn_type = 1, 0, 0, 0
        self.context = L.llama_init_from_model(self.model, p)
        self.vocab = L.llama_model_get_vocab(self.model)
        self.size = L.llama_vocab_n_tokens(self.vocab)
        if adapter:
            a = L.llama_adapter_lora_init(self.model, str(adapter).encode())
            if not a:
                raise SystemExit(f"llama.cpp does not load {adapter}")
            list_of = (L.llama_adapter_lora_p_ctypes * 1)(ctypes.cast(a, L.llama_adapter_lora_p_ctypes))
            L.llama_set_adapters_lora(self.context, list_of, 1, (ctypes.c_float * 1)(1.0))

    def logits(self, ids):
        L.llama_memory_clear(L.llama_get_memory(self.context), True)
        b = L.llama_batch_init(len(ids), 0, 1)
        b.n_tokens = len(ids)
        for i, t in enumerate(ids):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = int(t), i, 1, 1
            b.seq_id[i][0] = 0
        assert L.llama_decode(self.context, b) == 0
        out = np.stack([np.ctypeslib.as_array(L.llama_get_logits_ith(self.context, i), (self.size,)).copy()
                        for i in range(len(ids))])
        L.llama_batch_free(b)
        return out

    def greedy(self, ids, count):
        ids = list(ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[-count:]

    def encode(self, text):
        data = text.encode()
        out = (L.llama_token * (len(data) + 8))()
        n = L.llama_tokenize(self.vocab, data, len(data), out, len(out), True, True)
        return list(out[:n])


def forward(model, ids, work, *more):
    save_file({"input_ids": np.array([ids], np.int64)}, work / "ids.safetensors")
    hone("forward", model, "--ids", work / "ids.safetensors", "--out", work / "out.safetensors", *more)
    return load_file(work / "out.safetensors")


def source(name, work):
    if name not in ADJUST:
        return MODELS / name
    folder = work / name
    if not folder.is_dir():
        folder.mkdir()
        base = MODELS / BASE.get(name, name)
        config = json.loads((base / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **ADJUST[name]}))
        weights = load_file(base / "model.safetensors")
        if ADJUST[name].get("num_hidden_layers") == 1:
            layer = next(k for k in weights if "experts" in k).split(".")[2]
            weights = {k.replace(f"layers.{layer}.", "layers.0."): v for k, v in weights.items()
                       if not k.startswith("model.layers.") or k.startswith(f"model.layers.{layer}.")}
        if name == "deepseek_v2":  # llama.cpp knows models without latent queries by their 27 layers
            for i in range(2, 27):
                weights.update({k.replace("layers.1.", f"layers.{i}."): v for k, v in weights.items() if "layers.1." in k})
        save_file(weights, folder / "model.safetensors")
    return folder


def family(name, length, work, record):
    rng = np.random.default_rng(1)
    vocabulary = json.loads((source(name, work) / "config.json").read_text())["vocab_size"]
    ids = [int(i) for i in rng.integers(3, vocabulary, length)]
    few = max(1, min(8, length - 1))
    for kind in TYPES:
        path = work / f"{name}-{kind}.gguf"
        why = refused("export", source(name, work), "--format", "gguf", "--type", kind, "--output", path, "--max-kl", 1,
                      "--quiet")
        if why:
            print(f"     {name}: {why}")
            return False
        theirs = Model(path)
        ours = forward(path, ids, work)["logits"][0]
        top = float(np.abs(ours).max())
        bound = {"f32": 5e-3 if name in GELU else 2e-5, "f16": 5e-3, "bf16": 2e-2, "q8_0": 0.1}.get(kind, 0.2)
        if name in EXPERTS and kind != "f32":
            bound = 1.0
        check(f"{name} {kind}: logits, of the largest", float(np.abs(theirs.logits(ids) - ours).max()) / top, bound)
        if kind == "f32":
            greedy = theirs.greedy(ids[:length - few], few)
            mine = forward(path, ids[:length - few], work, "--generate", few)["generated"].tolist()
            check(f"{name} {kind}: greedy ids", 0.0 if greedy == mine else np.inf, 0.0)
            if "num_hidden_layers" in ADJUST.get(name, {}):
                continue  # its weights are not the golden model's
            record[name] = {"prompt": ids[:length - few], "greedy": greedy,
                            "sha256": sha256(path)}
            if name in ADJUST:
                record[name].update(model=BASE.get(name, name), config=ADJUST[name])
    return True


def adapter(name, length, work):
    ids = [int(i) for i in np.random.default_rng(2).integers(3, 120, length)]
    base, out = work / f"{name}-f32.gguf", work / f"{name}-adapter"
    why = refused("export", source(name, work), "--adapter", MODELS / name / "lora", "--format", "gguf", "--adapter-only",
                  "--output", out)
    if why:
        print(f"     {name}: {why}")
        return
    ours = forward(source(name, work), ids, work, "--adapter", MODELS / name / "lora")["logits"][0]
    theirs = Model(base, out / "adapter.gguf").logits(ids)
    check(f"{name} with adapter: logits", float(np.abs(theirs - ours).max() / np.abs(ours).max()),
          5e-3 if name in GELU else 2e-5)


def wide(work):
    """Rows of 256 and 512: whole blocks of Q4_K."""
    rng, folder = np.random.default_rng(3), work / "wide"
    folder.mkdir()
    shape = {"model.embed_tokens.weight": (64, 256), "model.norm.weight": (256,), "lm_head.weight": (64, 256)}
    layer = {"input_layernorm": (256,), "post_attention_layernorm": (256,), "self_attn.q_proj": (256, 256),
             "self_attn.k_proj": (128, 256), "self_attn.v_proj": (128, 256), "self_attn.o_proj": (256, 256),
             "mlp.gate_proj": (512, 256), "mlp.up_proj": (512, 256), "mlp.down_proj": (256, 512)}
    shape.update({f"model.layers.{i}.{k}.weight": v for i in range(2) for k, v in layer.items()})
    save_file({k: (rng.standard_normal(v) * (0.06 if len(v) > 1 else 0.1) + (len(v) == 1)).astype(np.float32)
               for k, v in shape.items()}, folder / "model.safetensors")
    config = {"model_type": "llama", "vocab_size": 64, "hidden_size": 256, "intermediate_size": 512,
              "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
              "max_position_embeddings": 128}
    (folder / "config.json").write_text(json.dumps(config))
    ids = [int(i) for i in rng.integers(0, 64, 32)]
    for kind in ("q4_k", "q4_0", "q8_0", "yarn"):
        path = work / f"wide-{kind}.gguf"
        if kind == "yarn":
            config["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                      "attention_factor": 1.3}
            (folder / "config.json").write_text(json.dumps(config))
        hone("export", folder, "--format", "gguf", "--type", "f32" if kind == "yarn" else kind,
             "--output", path, "--quiet")
        ours, theirs = forward(path, ids, work)["logits"][0], Model(path).logits(ids)
        check(f"wide {kind}: logits, of the largest", float(np.abs(theirs - ours).max() / np.abs(ours).max()),
              2e-5 if kind == "yarn" else 0.05)


def stories(work, record):
    path = work / "stories.gguf"
    hone("export", STORIES, "--format", "gguf", "--type", "f32", "--output", path, "--quiet")
    model = Model(path)
    for i, text in enumerate(TEXTS):
        ours = json.loads(hone("encode", STORIES, "--add-special-tokens", text=json.dumps({"text": text}) + "\n"))
        check(f"stories260K: ids of text {i}", 0.0 if model.encode(text) == ours["ids"] else np.inf, 0.0)
    ids = model.encode("")
    greedy = model.greedy(ids, 200)
    text = b""
    piece = ctypes.create_string_buffer(64)
    for t in greedy:
        n = L.llama_token_to_piece(model.vocab, t, piece, 64, 0, False)
        text += piece.raw[:n]
    ours = hone("generate", STORIES, "--prompt", "", "--greedy", "--max-new-tokens", 200, "--quiet")
    check("stories260K: 200 greedy tokens, the text", 0.0 if text.decode().strip() == ours.strip() else np.inf, 0.0)
    record["stories260K"] = {"sha256": sha256(path), "greedy": greedy[:40]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("family", nargs="*")
    arguments = parser.parse_args()
    if not arguments.verbose:
        global silent  # kept, so that it is not collected
        silent = L.llama_log_callback(lambda *_: None)
        L.llama_log_set(silent, ctypes.c_void_p(0))
    L.llama_backend_init()
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, length in FAMILIES.items():
            if arguments.family and name not in arguments.family:
                continue
            written = family(name, length, work, record)
            if written and (MODELS / name / "lora").is_dir() and name not in EXPERTS:
                adapter(name, length, work)
        wide(work)
        stories(work, record)
    failed = common.finish(L)
    if arguments.record and not failed and not arguments.family:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
