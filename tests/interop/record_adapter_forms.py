"""Makes tests/golden/adapters/forms: adapters as PEFT and training scripts leave them behind, and what PEFT computes with each, on
the tied golden Llama. Usage: record_adapter_forms.py (from the repository's root)."""
import json
import os
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

BASE, TO = "tests/golden/models/llama_rope3_tied", pathlib.Path("tests/golden/adapters/forms")
IDS = torch.randint(0, 131, (1, 16), generator=torch.Generator().manual_seed(5))
SAVED = "adapter_model.safetensors"


def renamed(change):
    def apply(folder):
        t = load_file(folder / SAVED)
        save_file({change(k): v.contiguous() for k, v in t.items()}, folder / SAVED)
    return apply


def unsaid(folder):
    """As a training script dumps it: with the adapter's name and the wrapper of what is saved whole."""
    t = load_file(folder / SAVED)
    out = {}
    for k, v in t.items():
        k = k.replace("lora_A.weight", "lora_A.default.weight").replace("lora_B.weight", "lora_B.default.weight")
        out[k.replace("lm_head.weight", "lm_head.modules_to_save.default.weight")] = v.contiguous()
    save_file(out, folder / SAVED)


LINEAR = ["q_proj", "down_proj"]
FORMS = {
    "default_names": (dict(target_modules=LINEAR), renamed(lambda k: k.replace(".weight", ".default.weight")), 0),
    "both_ends": (dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), None, 0),
    "head_saved": (dict(target_modules=["q_proj"], modules_to_save=["lm_head"]), unsaid, 0),
    "embedding_saved": (dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]), None, 0),
    "resized": (dict(target_modules=["q_proj"]), None, 5),
    "resized_embedding": (dict(target_modules=["q_proj", "embed_tokens"]), None, 5),
    "tokens": (dict(target_modules=["q_proj"], trainable_token_indices=[7, 3]), None, 0),
    "tokens_of": (dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 130]}), None, 0),
    "biases": (dict(target_modules=["q_proj"], bias="lora_only"), None, 0),
    "layers": (dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers"), None, 0),
    "orthogonal": (dict(target_modules=["q_proj"], init_lora_weights="orthogonal"), None, 0),
}
shutil.rmtree(TO, ignore_errors=True)
logits = {"input_ids": IDS}
for name, (settings, tweak, more) in FORMS.items():
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(BASE, attn_implementation="eager", dtype=torch.float32)
    if more:
        base.resize_token_embeddings(131 + more, mean_resizing=False)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=5, **settings)).eval()
    for _, p in model.named_parameters():
        if p.requires_grad:
            p.data += 0.05 * torch.randn_like(p)
    model.save_pretrained(TO / name)
    (TO / name / "README.md").unlink(missing_ok=True)
    config = json.loads((TO / name / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = BASE
    (TO / name / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    if tweak:
        tweak(TO / name)
    with torch.no_grad():
        logits[name] = model(IDS).logits.contiguous()
save_file(logits, TO / "logits.safetensors")
print(len(FORMS), "forms")
