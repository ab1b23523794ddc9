"""Makes tests/golden/adapters: what PEFT computes with adapters that golden/models has not: several at once,
LM heads, PiSSA, DoRA wherever it goes. On the golden Llama, whose heads are untied, unless named otherwise. Usage:
record_adapters.py (from the repository's root)."""
import pathlib
import shutil

import torch
from peft import LoraConfig, PeftModel, get_peft_model
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


torch.set_num_threads(1)
stack()
single("head", 2, r=3, lora_alpha=6, keep=True, target_modules=["lm_head", "q_proj"])
single("head_tied", 3, "llama_rope3_tied", r=2, keep=True, target_modules=["lm_head", "embed_tokens"])
