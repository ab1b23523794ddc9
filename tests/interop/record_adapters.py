"""Makes tests/golden/adapters: what PEFT computes with adapters that golden/models has not: several at once,
LM heads, PiSSA, DoRA wherever it goes. On the golden Llama, whose heads are untied, unless named otherwise. Usage:
record_adapters.py (from the repository's root)."""
import pathlib
import re
import shutil

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

MODELS, TO = "tests/golden/models/", pathlib.Path("tests/golden/adapters")
IDS = torch.randint(0, 131, (1, 16), generator=torch.Generator().manual_seed(5))
CASES = {
    "first": dict(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj", "embed_tokens"]),
    "second": dict(r=5, lora_alpha=7, use_rslora=True, rank_pattern={"up_proj": 2},
                   target_modules=["down_proj", "up_proj", "embed_tokens"]),
}


def base(name="llama"):
    return AutoModelForCausalLM.from_pretrained(MODELS + name, attn_implementation="eager")


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
    roles = re.search(r"enum role {(.*?)};", pathlib.Path("recipes/models/models.h").read_text(), re.S)[1]
    roles = re.findall(r"ROLE_\w+(?=,|$|\s*$)", re.sub(r"/\*.*?\*/", "", roles, flags=re.S))
    model = make("dora_dropout", 6, r=2, use_dora=True, lora_dropout=0.25, target_modules=["q_proj", "down_proj"])
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_dropout"):
            role = roles.index("ROLE_Q" if "q_proj" in name else "ROLE_DOWN")
            number = int(name.split("layers.")[1].split(".")[0])
            layer.lora_dropout["default"] = Drop(0.25, (number + 1) * roles.index("ROLE_COUNT") + role)
    steps("dora_dropout", model.train(), torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0))


torch.set_num_threads(1)
stack()
plus()
dora_dropout()
pissa()
single("head", 2, r=3, lora_alpha=6, keep=True, target_modules=["lm_head", "q_proj"])
single("head_tied", 3, "llama_rope3_tied", r=2, keep=True, target_modules=["lm_head", "embed_tokens"])
