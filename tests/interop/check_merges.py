#!/usr/bin/env python3
"""Is a merged model what PEFT computes with the adapter?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_merges.py [--models FOLDER] [FAMILY ...]
    python tests/interop/check_merges.py --record             # also writes tests/golden/interop/merges/sha256.txt

Every adapter beside a model of FOLDER (tests/golden/models: lora, lora_dora, lora_experts, ...): PEFT loads it on the base;
`hone export` merges it into a Hugging Face folder; transformers loads that folder, and its logits are PEFT's. Names of PEFT's
modules that a family has otherwise on disk are those of golden.json (lora.renamed_targets). Where PEFT or transformers is
missing the script says so and exits 0. The recorded SHA-256 of the merged weights let tests/e2e/test_interop.c hold hone to
them there.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import common
from common import LOGITS, MODELS, ROOT, check, difference, hone, loaded, logits

torch, transformers, peft = common.need("torch", "transformers", "peft")
from safetensors.torch import load_file  # noqa: E402

RECORDED = ROOT / "tests/golden/interop/merges"


def merged(name, adapter, work):
    folder = adapter.parent
    ids = load_file(folder / "golden.safetensors")["input_ids"]
    hone("export", folder, "--adapter", adapter, "--output", work / "merged", "--quiet")
    theirs = logits(peft.PeftModel.from_pretrained(loaded(folder), adapter).eval(), ids)
    check(f"{name}: merged", difference(logits(loaded(work / "merged"), ids), theirs), LOGITS)
    check(f"{name}: the adapter moves something (1 / change)", 2e-3 / difference(logits(loaded(folder), ids), theirs), 1.0)
    return f"{name} {common.sha256(work / 'merged/model.safetensors')}\n"


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--models", type=Path, default=MODELS)
    flags.add_argument("--record", action="store_true")
    flags.add_argument("family", nargs="*")
    flags = flags.parse_args()
    common.quiet()
    digests = []
    for adapter in sorted(flags.models.glob("*/lora*")):
        name = f"{adapter.parent.name}/{adapter.name}"
        if flags.family and adapter.parent.name not in flags.family or not (adapter / "adapter_config.json").exists():
            continue
        with tempfile.TemporaryDirectory(prefix="hone-merges-") as work:
            try:
                digests.append(merged(name, adapter, Path(work)))
            except Exception as error:
                why = str(error).strip().splitlines()
                if any("is not supported" in line for line in why):  # a family of another folder than ours
                    print(f"left  {name}: {why[-1]}")
                else:
                    check(f"{name}: {why[-1][:300]}", 1.0, 0.0)
    missed = common.finish(torch, transformers, peft)
    if flags.record and not missed:
        RECORDED.mkdir(parents=True, exist_ok=True)
        (RECORDED / "sha256.txt").write_text("".join(digests))
    return missed


if __name__ == "__main__":
    sys.exit(main())
