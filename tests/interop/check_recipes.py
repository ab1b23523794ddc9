#!/usr/bin/env python3
"""Do the recipes of recipes/families run on models of real shapes, and do others read what they give?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_recipes.py [FAMILY ...]        # needs 16 GB of memory and 8 GB of disk

For each recipe: a model of the real width, heads, vocabulary and rotary scaling (tests/golden/configs) with one or two
layers of random bf16 weights; the recipe itself, its batch and length cut down, trains two steps of it; transformers or
PEFT reads the result and has the logits that `hone forward` has (QLoRA's adapter: on the 16-bit base). Full training of a
mixture has fewer experts: 18 bytes an element are too many here. B/element is the most memory that training had, for each
element of the model, the pages of its mapped file among it.
"""
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import common
from common import HONE, LOGITS, ROOT, check, difference, loaded, logits

torch, transformers, peft = common.need("torch", "transformers", "peft")

FAMILIES = ["llama", "mistral", "qwen", "gemma", "phi", "olmo", "mixtral", "qwen-moe", "deepseek"]
AS = {"Mistral-7B-v0.3": "Mistral-7B-Instruct-v0.3", "OLMo-2-1124-7B": "OLMo-2-1124-7B-Instruct"}  # one shape
LAYERS = {"mistral": 1, "mixtral": 1, "qwen-moe": 1, "phi": 1}
EXPERTS = {"mixtral": ("num_local_experts", 2), "qwen-moe": ("num_experts", 16), "deepseek": ("n_routed_experts", 8)}
SMALLER = ["max_seq_length=128", "global_batch_size=4", "max_steps=2", "save_steps=0", "logging_steps=1",
           "tokenizer=recipes/data/stories260K"]  # the models' own are not here
OLMO2_1B = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=16,
                num_key_value_heads=16)  # allenai/OLMo-2-0425-1B; the rest is as in the 7B


def config_of(recipe, kind, family):
    name = [line.split("models/")[1] for line in recipe.read_text().splitlines() if line.startswith("model_name_or_path")][0]
    file = ROOT / f"tests/golden/configs/{AS.get(name, name)}.json"
    config = json.loads((file if file.exists() else ROOT / "tests/golden/configs/OLMo-2-1124-7B-Instruct.json").read_text())
    if name == "OLMo-2-0425-1B":
        config.update(OLMO2_1B)
    config["num_hidden_layers"] = LAYERS.get(family, 2)
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:config["num_hidden_layers"]]
    if kind == "full" and family in EXPERTS:
        key, count = EXPERTS[family]
        config[key] = count
    config["dtype"] = "bfloat16"
    for key in "auto_map", "quantization_config", "torch_dtype":
        config.pop(key, None)
    return name, config


def model_of(config, folder):
    """Writes the folder; its number of elements."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def trained(recipe, model, run):
    """The checkpoint, the losses, and the most memory that it took."""
    words = [HONE, "train", recipe, f"model_name_or_path={model}", f"output_dir={run}", *SMALLER, "--quiet"]
    with open(run.with_suffix(".out"), "w+") as out:
        child, most = subprocess.Popen(list(map(str, words)), stdout=out, stderr=out, cwd=ROOT), 0
        while child.poll() is None:  # ru_maxrss would be this process's own, where that is more
            status = Path(f"/proc/{child.pid}/status").read_text()
            most = max([most, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
            time.sleep(0.02)
        out.seek(0)
        if child.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {out.read()}")
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return common.last_checkpoint(run), [s["loss"] for s in steps if "loss" in s], most


def main():
    common.quiet()
    warnings.simplefilter("ignore")
    for family in sys.argv[1:] or FAMILIES:
        for kind in "lora", "qlora", "full":
            with tempfile.TemporaryDirectory() as folder:
                work, recipe = Path(folder), ROOT / f"recipes/families/{family}-{kind}.yaml"
                name, config = config_of(recipe, kind, family)
                size = model_of(config, work / "model")
                checkpoint, losses, memory = trained(recipe, work / "model", work / "run")
                what = f"{recipe.stem}: {name}, {config['num_hidden_layers']} layers"
                # random weights, embeddings tied: Gemma is sure of the token that it has just read, up to its softcap of 30
                check(f"{what}: 2 losses that are numbers", float(len(losses) != 2 or not all(0 < x < 60 for x in losses)), 0)
                ids = torch.arange(3, 67).reshape(2, 32)
                batch = {"input_ids": ids, "labels": ids.clone()}
                if kind == "full":
                    ours = common.forward(checkpoint, batch, work=work)["logits"]
                    theirs = logits(loaded(checkpoint), ids)
                else:
                    ours = common.forward(work / "model", batch, "--adapter", checkpoint, "--quantize", "none", work=work)["logits"]
                    theirs = logits(peft.PeftModel.from_pretrained(loaded(work / "model"), checkpoint).eval(), ids)
                check(f"{what}: logits, {memory / size:.1f} B/element", difference(ours, theirs), LOGITS)
    return common.finish(torch, transformers, peft)


if __name__ == "__main__":
    sys.exit(main())
