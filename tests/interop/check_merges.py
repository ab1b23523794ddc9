#!/usr/bin/env python3
"""Is a merged model what PEFT computes with the adapter?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_merges.py [--models FOLDER] [FAMILY ...]
    python tests/interop/check_merges.py --record             # also writes tests/golden/interop/merges/sha256.txt

Every adapter beside a model of FOLDER (tests/golden/models: lora, lora_dora, lora_experts, ...): PEFT loads it on the base;
`hone export` merges it into a Hugging Face folder; transformers loads that folder, and its logits are PEFT's. Names of PEFT's
modules that a family has otherwise on disk are those of golden.json (lora.renamed_targets). Where PEFT or transformers is
missing the script says so and exits 0. The recorded SHA-256 of the merged weights let tests/test_interop.c hold hone to
them there.
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import torch
    import transformers
    from peft import PeftModel
    from safetensors.torch import load_file
except ModuleNotFoundError as missing:
    print(f"skipped: {missing.name} is not installed (tests/interop/requirements.txt)")
    sys.exit(0)

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests/golden/interop/merges"
BOUND = 2e-5  # of the largest logit, f32


def load(folder, family):
    config = json.loads((folder / "config.json").read_text())
    golden = json.loads((family / "golden.json").read_text())
    # Falcon's eager attention adds ALiBi twice (golden/models/README.md)
    kind = {"attn_implementation": "sdpa" if family.name == "falcon_rw" else "eager", "dtype": torch.float32}
    if "num_experts" in config or "num_local_experts" in config or "n_routed_experts" in config:
        kind["experts_implementation"] = "eager"  # grouped products want aligned sizes
    if golden.get("load_as"):
        kind["config"] = transformers.AutoConfig.for_model(**{**config, **golden["load_as"]})
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **kind).eval()


def check(folder, adapter, work):
    ids = load_file(folder / "golden.safetensors")["input_ids"]
    command = [ROOT / "hone", "export", folder, "--adapter", adapter, "--output", work / "merged", "--quiet"]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    if run.returncode:
        return run.stderr.strip().splitlines()[0], None
    with torch.no_grad():
        want = PeftModel.from_pretrained(load(folder, folder), adapter).eval()(ids).logits
        got = load(work / "merged", folder)(ids).logits
        plain = load(folder, folder)(ids).logits
    error, moved = ((x - want).abs().max().item() / want.abs().max().item() for x in (got, plain))
    digest = hashlib.sha256((work / "merged/model.safetensors").read_bytes()).hexdigest()
    if moved < 100 * BOUND:
        return f"the adapter moves nothing: {moved:.1e}", None
    return error, digest


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--models", type=Path, default=ROOT / "tests/golden/models")
    flags.add_argument("--record", action="store_true")
    flags.add_argument("family", nargs="*")
    flags = flags.parse_args()
    torch.set_num_threads(1)
    missed, digests = 0, []
    for adapter in sorted(flags.models.glob("*/lora*")):
        folder = adapter.parent
        if flags.family and folder.name not in flags.family or not (adapter / "adapter_config.json").exists():
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                error, digest = check(folder, adapter, Path(work))
            except Exception as reason:
                error, digest = f"{type(reason).__name__}: {str(reason)[:300]}", None
        name = f"{folder.name}/{adapter.name}"
        if not digest and "is not supported" in str(error):
            print(f"left  {name:<32} {error}")
            continue
        good = digest and error <= BOUND
        missed += not good
        digests.append(f"{name} {digest}\n")
        print(f"{'ok  ' if good else 'MISS'}  {name:<32} {error:.2e}" if digest else f"MISS  {name:<32} {error}", flush=True)
    if flags.record and not missed:
        RECORDED.mkdir(parents=True, exist_ok=True)
        (RECORDED / "sha256.txt").write_text("".join(digests))
    print(f"{len(digests) - missed} of {len(digests)} merged models are what PEFT computes, torch {torch.__version__}, "
          f"transformers {transformers.__version__}")
    sys.exit(missed > 0)


main()
