"""Makes tests/golden/adapters: what PEFT computes with several adapters at once on the golden Llama, whose
heads are untied. Usage: record_adapters.py (from the repository's root)."""
import pathlib
import shutil

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

BASE, TO = "tests/golden/models/llama", pathlib.Path("tests/golden/adapters")
IDS = torch.randint(0, 131, (1, 16), generator=torch.Generator().manual_seed(5))
CASES = {
    "first": dict(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj", "embed_tokens"]),
    "second": dict(r=5, lora_alpha=7, use_rslora=True, rank_pattern={"up_proj": 2},
                   target_modules=["down_proj", "up_proj", "embed_tokens"]),
}


def base():
    return AutoModelForCausalLM.from_pretrained(BASE, attn_implementation="eager")


def make(name, seed, **settings):
    torch.manual_seed(seed)
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for key, p in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(p, std=0.3)
    shutil.rmtree(TO / name, ignore_errors=True)
    model.save_pretrained(TO / name, save_embedding_layers=False)
    (TO / name / "README.md").unlink()
    return model


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
