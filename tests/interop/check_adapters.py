"""Adapters that PEFT writes mean the same to hone: logits, and those of the merged model that hone
exports, loaded by transformers. Usage: check_adapters.py HONE MODEL_FOLDER (a small model)."""
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

CASES = {
    "embedding": dict(r=4, target_modules=["embed_tokens", "q_proj"]),
    "dora": dict(r=4, target_modules=["q_proj", "down_proj"], use_dora=True),
    "dora, embedding and LM head": dict(r=4, target_modules=["embed_tokens", "lm_head", "q_proj"], use_dora=True),
    "regex, patterns, whole modules": dict(
        r=3, target_modules=r".*layers\.[01]\.mlp\.(up|down)_proj", rank_pattern={"up_proj": 5},
        use_rslora=True, modules_to_save=["norm", "lm_head"]),
    "layers, exclusions": dict(r=3, target_modules=["q_proj", "o_proj", "up_proj"],
                               exclude_modules=["o_proj"], layers_to_transform=[0]),
}


def check(hone, base, folder, settings):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for name, p in peft.named_parameters():
        if "magnitude" in name:
            p.data *= 1.3
        elif "lora_" in name:
            torch.nn.init.normal_(p, std=0.2)
        elif "modules_to_save" in name:
            p.data += 0.05 * torch.randn_like(p)
    ids = torch.randint(0, model.config.vocab_size, (2, 24))
    with torch.no_grad():
        want = peft(ids).logits
    peft.save_pretrained(folder / "adapter")
    save_file({"input_ids": ids, "labels": ids.clone()}, folder / "ids.safetensors")
    run = [hone, "forward", base, "--adapter", folder / "adapter", "--ids", folder / "ids.safetensors",
           "--out", folder / "out.safetensors"]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    got = load_file(folder / "out.safetensors")["logits"]
    subprocess.run([hone, "export", base, "--adapter", folder / "adapter", "--output",
                    folder / "merged"], check=True, stdout=subprocess.DEVNULL)
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", attn_implementation="eager")
    with torch.no_grad():
        again = merged(ids).logits
    return (got - want).abs().max().item(), (again - want).abs().max().item()


def main():
    worst = 0
    for name, settings in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            off = check(sys.argv[1], sys.argv[2], pathlib.Path(folder), settings)
        worst = max(worst, *off)
        print(f"{name}: logits differ by {off[0]:.1e}, merged by {off[1]:.1e}")
    sys.exit(worst > 5e-5)


main()
