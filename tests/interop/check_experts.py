#!/usr/bin/env python3
"""Are adapters on the experts of mixtures the same to hone and to PEFT?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_experts.py [--record]          # also writes tests/golden/interop/experts/sha256.txt

For mixtures of tests/golden/models and each recipe of tests/golden/interop/experts, both ways round: an adapter that hone
trained has the tensors that PEFT makes of the same targets, and read by PEFT the logits that `hone forward` has; one that
PEFT wrote, with random numbers, has in hone PEFT's logits and gradients. Where PEFT is missing the script says so and exits
0. The recorded SHA-256 of the trained adapters let tests/e2e/test_interop.c hold hone to the same ones there.
"""
import sys
import tempfile
import warnings
from pathlib import Path

import common
from common import LOGITS, MODELS, ROOT, check, difference, hone, loaded, logits

torch, transformers, peft = common.need("torch", "transformers", "peft")
from safetensors.torch import load_file  # noqa: E402

RECORDED = ROOT / "tests/golden/interop/experts"
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe", "deepseek_v2", "deepseek_v3", "gpt_oss"]
CASES = {  # as the recipes of that name
    "all": dict(target_modules="all-linear"),
    "named": dict(target_modules=["q_proj", "o_proj"], rank_pattern={"gate_up_proj": 4},
                  target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
}
GRADIENTS = 2e-4  # of the largest, f32


def made(source, case):
    return peft.get_peft_model(loaded(source), peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, **CASES[case]))


def forward(source, adapter, work, ids, *more):
    return common.forward(source, {"input_ids": ids, "labels": ids.clone()}, "--adapter", adapter, *more, work=work)


def trained(source, case, work, ids):
    hone("train", RECORDED / f"{case}.yaml", f"model_name_or_path={source}", f"output_dir={work / 'run'}", "--quiet")
    adapter = common.last_checkpoint(work / "run")
    made(source, case).save_pretrained(work / "empty")
    shapes = [{k: t.shape for k, t in load_file(folder / "adapter_model.safetensors").items()}
              for folder in (adapter, work / "empty")]
    check(f"{source.name}, {case}: trained by hone, tensors as PEFT's", float(shapes[0] != shapes[1]), 0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        theirs = logits(peft.PeftModel.from_pretrained(loaded(source), adapter).eval(), ids)
    strange = [w for w in said if "adapter keys" in str(w.message)]  # others: of patterns, which it looks for in modules only
    check(f"{source.name}, {case}: PEFT finds all tensors and no other", float(len(strange)), 0)
    check(f"{source.name}, {case}: logits in PEFT", difference(forward(source, adapter, work, ids)["logits"], theirs), LOGITS)
    plain = logits(loaded(source), ids)
    check(f"{source.name}, {case}: training changed them (1 / change)", 1e-2 / difference(plain, theirs), 1)
    return common.sha256(adapter / "adapter_model.safetensors")


def written(source, case, work, ids):
    torch.manual_seed(3)
    model = made(source, case).eval()
    for key, p in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(work / "theirs")
    out = model(ids, labels=ids)
    out.loss.backward()
    gradients = {k.replace(".default", ""): p.grad for k, p in model.named_parameters() if p.grad is not None}
    got = forward(source, work / "theirs", work, ids, "--grad")
    check(f"{source.name}, {case}: written by PEFT, logits in hone", difference(got["logits"], out.logits), LOGITS)
    check(f"{source.name}, {case}: gradients in hone", max(difference(got["grad." + k], g) for k, g in gradients.items()),
          GRADIENTS)


def main():
    common.quiet()
    warnings.simplefilter("ignore")
    lines = []
    for name in MIXTURES:
        source = MODELS / name
        ids = load_file(source / "golden.safetensors")["input_ids"].contiguous()
        for case in CASES:
            with tempfile.TemporaryDirectory(prefix="hone-experts-") as work:
                lines.append(f"{name} {case} {trained(source, case, Path(work), ids)}\n")
                written(source, case, Path(work), ids)
    missed = common.finish(torch, transformers, peft)
    if "--record" in sys.argv[1:] and not missed:
        (RECORDED / "sha256.txt").write_text("".join(lines))
    return missed


if __name__ == "__main__":
    sys.exit(main())
