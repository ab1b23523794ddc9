#!/usr/bin/env python3
"""Does every family's model come back from hone as transformers has it?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_families.py [FAMILY ...]
    python tests/interop/check_families.py --record           # also writes tests/golden/interop/families/sha256.txt

Each model of tests/golden/models, three ways round: (1) loaded and exported untouched, file for file the same names,
shapes, types and bytes; (2) trained by hone for three steps, every weight, and its checkpoint read by transformers: the logits
that `hone forward` has; (3) saved by transformers in its own newest spelling: the logits that transformers has. Where
transformers is missing the script says so and exits 0. The recorded SHA-256 of the trained weights let
tests/test_interop.c hold hone to the same ones there.
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
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
except ModuleNotFoundError as missing:
    print(f"skipped: {missing.name} is not installed (tests/interop/requirements.txt)")
    sys.exit(0)

ROOT = Path(__file__).resolve().parents[2]
HONE = ROOT / "hone"
RECORDED = ROOT / "tests/golden/interop/families"
LOGITS = 2e-5  # of the largest logit, f32
rows = []


def check(what, measured, bound):
    rows.append((what, measured, bound, measured <= bound))
    print(f"{'ok  ' if measured <= bound else 'MISS'}  {what:<58} {measured:9.2e}  at most {bound:.1e}", flush=True)


def hone(*words):
    run = subprocess.run([HONE, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    if run.returncode:
        raise RuntimeError(f"hone {' '.join(map(str, words))}: exit {run.returncode}\n{run.stdout}{run.stderr}")


def tensors(folder):
    out = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as f:
            out.update({k: f.get_tensor(k) for k in f.keys()})
    return out


def logits(folder, ids, work):
    save_file({"input_ids": ids}, work / "ids.safetensors")
    hone("forward", folder, "--ids", work / "ids.safetensors", "--out", work / "out.safetensors")
    return load_file(work / "out.safetensors")["logits"]


def loaded(folder, model_type):
    if model_type == "kimi_k2":  # the hub's type: its own code there, DeepSeek V3 here
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "deepseek_v3"}))
    how = {"attn_implementation": "sdpa" if model_type == "falcon" else "eager"}  # eager adds Falcon's ALiBi twice
    if "experts" in json.dumps(json.loads((folder / "config.json").read_text())):
        how["experts_implementation"] = "eager"  # torch's grouped products need rows of whole 16 bytes
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()


def difference(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def family(source, work):
    name, golden = source.name, load_file(source / "golden.safetensors")
    ids = golden["input_ids"].contiguous()
    config = json.loads((source / "config.json").read_text())

    hone("export", source, "--output", work / "same", "--quiet")
    before, after = tensors(source), tensors(work / "same")
    same = before.keys() == after.keys() and all(
        before[k].dtype == after[k].dtype and torch.equal(before[k], after[k]) for k in before)
    check(f"{name}: exported untouched", 0.0 if same else 1.0, 0.0)

    hone("train", RECORDED / "run.yaml", f"model_name_or_path={source}", f"output_dir={work / 'run'}", "--quiet")
    trained = sorted((work / "run/checkpoints").glob("step-*"))[-1]
    mine, first = logits(trained, ids, work), golden["logits"]
    digest = hashlib.sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    model = loaded(trained, config["model_type"])
    with torch.no_grad():
        theirs = model(ids).logits.float()
    check(f"{name}: trained by hone, read by transformers", difference(mine, theirs), LOGITS)
    check(f"{name}: training changed it (1 / change)", 1e-2 / difference(mine, first), 1.0)

    model.save_pretrained(work / "resaved")
    check(f"{name}: saved by transformers, read by hone", difference(logits(work / "resaved", ids, work), theirs), LOGITS)
    return f"{name} {digest}\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true", help="write the SHA-256 of the trained weights")
    parser.add_argument("family", nargs="*")
    a, digests = parser.parse_args(), []
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for source in sorted((ROOT / "tests/golden/models").iterdir()):
        if not (source / "golden.safetensors").is_file() or (a.family and source.name not in a.family):
            continue
        with tempfile.TemporaryDirectory(prefix="hone-families-") as work:
            try:
                digests.append(family(source, Path(work)))
            except Exception as error:  # the other families are still to be seen
                check(f"{source.name}: {str(error).strip().splitlines()[-1][:300]}", 1.0, 0.0)
    missed = sum(not row[3] for row in rows)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{len(rows) - missed} passed, {missed} failed")
    if a.record and not missed and not a.family:
        (RECORDED / "sha256.txt").write_text("".join(digests))
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
