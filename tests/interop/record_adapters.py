"""Makes tests/golden/adapters: what PEFT computes with adapters that golden/models has not: several at once,
LM heads, PiSSA, DoRA wherever it goes. On the golden Llama, whose heads are untied, unless named otherwise. Usage:
record_adapters.py [FOLDER ...] (from the repository's root; all, or those folders of one adapter)."""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

MODELS, TO = "tests/golden/models/", pathlib.Path("tests/golden/adapters")
IDS = torch.randint(0, 131, (1, 16), generator=torch.Generator().manual_seed(5))
CASES = {
    "first": dict(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj", "embed_tokens"]),
    "second": dict(r=5, lora_alpha=7, use_rslora=True, rank_pattern={"up_proj": 2},
                   target_modules=["down_proj", "up_proj", "embed_tokens"]),
}


def decoded(folder):
    """A model of 4-bit codes as a plain one, by the definition (tests/golden/quant/README.md)."""
    s = load_file(folder / "model.safetensors")
    out = {k: t for k, t in s.items() if ".weight." not in k}
    for name in [k.removesuffix(".quant_map") for k in s if k.endswith(".weight.quant_map")]:
        kind = next(k for k in s if k.startswith(name + ".quant_state"))
        state, absmax = json.loads(bytes(s[kind].tolist())), s[name + ".absmax"]
        if "nested_offset" in state:
            each = s[name + ".nested_absmax"].repeat_interleave(state["nested_blocksize"])[:len(absmax)]
            absmax = s[name + ".nested_quant_map"][absmax.long()] * each + state["nested_offset"]
        codes = torch.stack([s[name].flatten() >> 4, s[name].flatten() & 15], 1).flatten().long()
        scale = absmax.repeat_interleave(state["blocksize"])[:len(codes)]
        out[name] = (s[name + ".quant_map"][codes] * scale).view(state["shape"])
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing = model.load_state_dict(out, strict=False)
    assert not missing.unexpected_keys and missing.missing_keys in ([], ["lm_head.weight"]), missing
    return model


def base(name="llama"):
    folder = pathlib.Path(MODELS + name)
    if "quant/" in name:
        return decoded(folder)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def make(name, seed, on="llama", keep=False, **settings):
    torch.manual_seed(seed)
    model = get_peft_model(base(on), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for key, p in model.named_parameters():
        if "magnitude" in key:
            p.data *= 0.7 + 0.6 * torch.rand_like(p)
        elif "lora_" in key and "pissa" in name:
            p.data += 0.1 * torch.randn_like(p)
        elif "lora_" in key:
            torch.nn.init.normal_(p, std=0.3)
    shutil.rmtree(TO / name, ignore_errors=True)
    model.save_pretrained(TO / name, save_embedding_layers=keep)
    (TO / name / "README.md").unlink()
    return model


def key_of(name):
    name = name.replace(".default", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


def single(name, seed, on="llama", **settings):
    """One adapter with what a step of it gives, as golden/models/*/lora*."""
    model = make(name, seed, on, **settings)
    rows = load_file(f"{MODELS}{on}/golden.safetensors")
    out = model(input_ids=rows["input_ids"], labels=rows["labels"])
    out.loss.backward()
    result = {"logits": out.logits, "loss": out.loss}
    result |= {"grad." + key_of(k): p.grad for k, p in model.named_parameters() if p.grad is not None}
    save_file({k: t.detach().contiguous() for k, t in result.items()}, TO / name / "golden.safetensors")


def stack():
    out = {"input_ids": IDS}
    for i, (name, settings) in enumerate(CASES.items()):
        make(name, i, **settings)
    for key, weights in {"sum": [1.0, 1.0], "weighted": [0.5, -0.75]}.items():
        model = PeftModel.from_pretrained(base(), TO / "first", adapter_name="first")
        model.load_adapter(TO / "second", adapter_name="second")
        model.add_weighted_adapter(list(CASES), weights, "both", combination_type="cat")
        model.set_adapter("both")
        with torch.no_grad():
            out["logits." + key] = model.eval()(IDS).logits
    save_file(out, TO / "stack.safetensors")


def pissa():
    """What it starts from, scale * B·A and the residual; and one that is trained, as PEFT saves it."""
    settings = dict(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=["q_proj", "down_proj"])
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **settings))
    out = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and "layers.0" in name:
            name = name.removeprefix("base_model.model.")
            out["start." + name] = layer.get_delta_weight("default")
            out["residual." + name] = layer.get_base_layer().weight
    save_file({k: t.detach().contiguous() for k, t in out.items()}, TO / "pissa.safetensors")
    single("pissa", 4, **settings)


def steps(name, model, optimizer):
    rows, losses = load_file(MODELS + "llama/golden.safetensors"), []
    for _ in range(4):
        loss = model(input_ids=rows["input_ids"], labels=rows["labels"]).loss
        losses.append(loss.detach())
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    save_file({"losses": torch.stack(losses)}, TO / name / "golden.safetensors")


def plus():
    """LoRA+: B, a norm and the embedding's adapter each at their own rate."""
    model = make("plus", 5, r=2, target_modules=["embed_tokens", "q_proj"], modules_to_save=["model.norm"])
    steps("plus", model, create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=4,
                                                   loraplus_lr_embedding=2e-3))


class Drop(torch.nn.Module):
    """Dropout by Philox: ops/dropout.c with seed 7 and place 0, 0."""

    def __init__(self, p, stream):
        super().__init__()
        self.p, self.stream = p, stream

    def forward(self, x):
        count, cols = x.numel(), x.shape[-1]
        index = np.arange(count // cols * ((cols + 3) // 4), dtype=np.uint64)
        c = [index, index * 0, index * 0 + self.stream, index * 0 + (3 << 26)]
        low, k0, k1 = np.uint64(0xFFFFFFFF), 7, 0
        for _ in range(10):
            a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
            c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
                 a & low]
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        words = np.stack(c, 1).reshape(count // cols, -1)[:, :cols].astype(np.float64)
        return x * torch.from_numpy((words >= self.p * 2**32) / (1 - self.p)).to(x.dtype).view(x.shape)


def dora_dropout():
    streams = {"q_proj": 14, "down_proj": 30, "lm_head": 3, "embed_tokens": 1}  # module_type.stream, of 40
    model = make("dora_dropout", 6, r=2, use_dora=True, lora_dropout=0.25,
                 target_modules=["q_proj", "down_proj", "lm_head", "embed_tokens"])
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_dropout"):
            number = int(name.split("layers.")[1].split(".")[0]) + 1 if "layers." in name else 0
            layer.lora_dropout["default"] = Drop(0.25, number * 40 + streams[name.split(".")[-1]])
    steps("dora_dropout", model.train(), torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0))


ATTENTION_MLP = ["q_proj", "v_proj", "down_proj"]
SINGLES = {
    "head": (2, "llama", dict(r=3, lora_alpha=6, keep=True, target_modules=["lm_head", "q_proj"])),
    "head_tied": (3, "llama_rope3_tied", dict(r=2, keep=True, target_modules=["lm_head", "embed_tokens"])),
    "dora_nf4": (7, "../quant/llama_nf4", dict(r=3, lora_alpha=6, use_dora=True, target_modules=ATTENTION_MLP)),
    "dora_fp4": (8, "../quant/llama_fp4", dict(r=5, lora_alpha=5, use_dora=True, target_modules=ATTENTION_MLP)),
    "dora_embedding": (9, "llama", dict(r=3, lora_alpha=6, use_dora=True, target_modules=["embed_tokens", "q_proj"])),
    "dora_embedding_tied": (10, "llama_rope3_tied", dict(r=2, use_dora=True, target_modules=["embed_tokens"])),
    "dora_embedding_gemma": (11, "gemma", dict(r=2, use_dora=True, target_modules=["embed_tokens"])),
    "dora_head": (12, "llama", dict(r=3, lora_alpha=6, use_dora=True, keep=True, target_modules=["lm_head", "q_proj"])),
    "dora_head_phi": (13, "phi", dict(r=2, use_dora=True, target_modules=["lm_head"])),
    "dora_head_gemma2": (14, "gemma2", dict(r=2, use_dora=True, target_modules=["lm_head", "embed_tokens"])),
}
torch.set_num_threads(1)
for record in (stack, plus, dora_dropout, pissa):
    if not sys.argv[1:] or record.__name__ in sys.argv:
        record()
for name, (seed, on, settings) in SINGLES.items():
    if not sys.argv[1:] or name in sys.argv:
        single(name, seed, on, **settings)
