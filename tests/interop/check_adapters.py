"""Adapters that PEFT writes mean the same to hone: logits, and those of the merged model that hone
exports, loaded by transformers. Usage: check_adapters.py [MODEL_FOLDER] (a small model; the golden Llama)."""
import sys
import tempfile
from pathlib import Path

import common
from common import LOGITS, MODELS, check, difference, forward, hone, loaded, logits

torch, transformers, peft = common.need("torch", "transformers", "peft")

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


def adapter(name, base, folder, settings):
    torch.manual_seed(0)
    model = peft.get_peft_model(loaded(base), peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for key, p in model.named_parameters():
        if "magnitude" in key:
            p.data *= 1.3
        elif "lora_" in key:
            torch.nn.init.normal_(p, std=0.2)
        elif "modules_to_save" in key:
            p.data += 0.05 * torch.randn_like(p)
    ids = torch.randint(0, model.config.vocab_size, (2, 24))
    want = logits(model, ids)
    model.save_pretrained(folder / "adapter")
    got = forward(base, {"input_ids": ids, "labels": ids.clone()}, "--adapter", folder / "adapter", work=folder)
    check(f"{name}: logits", difference(got["logits"], want), LOGITS)
    hone("export", base, "--adapter", folder / "adapter", "--output", folder / "merged", "--quiet")
    check(f"{name}: merged", difference(logits(loaded(folder / "merged"), ids), want), LOGITS)


def main():
    common.quiet()
    base = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else MODELS / "llama"
    for name, settings in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            adapter(name, base, Path(folder), settings)
    return common.finish(torch, transformers, peft)


if __name__ == "__main__":
    sys.exit(main())
