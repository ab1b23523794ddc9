#!/usr/bin/env python3
"""Does every family's model come back from hone as transformers has it?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_families.py [FAMILY ...]
    python tests/interop/check_families.py --record           # also writes tests/golden/interop/families/sha256.txt

Each model of tests/golden/models, three ways round: (1) loaded and exported untouched, file for file the same names,
shapes, types and bytes; (2) trained by hone for three steps, every weight, and its checkpoint read by transformers: the logits
that `hone forward` has; (3) saved by transformers in its own newest spelling: the logits that transformers has. Where
transformers is missing the script says so and exits 0. The recorded SHA-256 of the trained weights let
tests/e2e/test_interop.c hold hone to the same ones there.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import common
from common import LOGITS, MODELS, ROOT, check, difference, hone, loaded, logits

torch, transformers, _ = common.need("torch", "transformers", "safetensors.torch")
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

RECORDED = ROOT / "tests/golden/interop/families"


def tensors(folder):
    out = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as f:
            out.update({k: f.get_tensor(k) for k in f.keys()})
    return out


def family(source, work):
    name, golden = source.name, load_file(source / "golden.safetensors")
    ids = golden["input_ids"].contiguous()

    hone("export", source, "--output", work / "same", "--quiet")
    before, after = tensors(source), tensors(work / "same")
    same = before.keys() == after.keys() and all(
        before[k].dtype == after[k].dtype and torch.equal(before[k], after[k]) for k in before)
    check(f"{name}: exported untouched", float(not same), 0.0)

    hone("train", RECORDED / "run.yaml", f"model_name_or_path={source}", f"output_dir={work / 'run'}", "model_dropout=ignore",
         "--quiet")
    trained = common.last_checkpoint(work / "run")
    mine = common.forward(trained, {"input_ids": ids}, work=work)["logits"]
    model = loaded(trained)
    theirs = logits(model, ids)
    check(f"{name}: trained by hone, read by transformers", difference(mine, theirs), LOGITS)
    check(f"{name}: training changed it (1 / change)", 1e-2 / difference(mine, golden["logits"]), 1.0)

    model.save_pretrained(work / "resaved")
    mine = common.forward(work / "resaved", {"input_ids": ids}, work=work)["logits"]
    check(f"{name}: saved by transformers, read by hone", difference(mine, theirs), LOGITS)
    return f"{name} {common.sha256(trained / 'model.safetensors')}\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true", help="write the SHA-256 of the trained weights")
    parser.add_argument("family", nargs="*")
    a, digests = parser.parse_args(), []
    common.quiet()
    for source in sorted(MODELS.iterdir()):
        if not (source / "golden.safetensors").is_file() or (a.family and source.name not in a.family):
            continue
        with tempfile.TemporaryDirectory(prefix="hone-families-") as work:
            try:
                digests.append(family(source, Path(work)))
            except Exception as error:  # the other families are still to be seen
                check(f"{source.name}: {str(error).strip().splitlines()[-1][:300]}", 1.0, 0.0)
    missed = common.finish(torch, transformers)
    if a.record and not missed and not a.family:
        (RECORDED / "sha256.txt").write_text("".join(digests))
    return missed


if __name__ == "__main__":
    sys.exit(main())
