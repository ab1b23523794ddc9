#!/usr/bin/env python3
"""Are adapters on the experts of mixtures the same to hone and to PEFT?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_experts.py [--record]          # also writes tests/golden/interop/experts/sha256.txt

For mixtures of tests/golden/models and each recipe of tests/golden/interop/experts, both ways round: an adapter that hone
trained has the tensors that PEFT makes of the same targets, and read by PEFT the logits that `hone forward` has; one that
PEFT wrote, with random numbers, has in hone PEFT's logits and gradients. Where PEFT is missing the script says so and exits
0. The recorded SHA-256 of the trained adapters let tests/test_interop.c hold hone to the same ones there.
"""
import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import torch
    import transformers
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file
except ModuleNotFoundError as missing:
    print(f"skipped: {missing.name} is not installed (tests/interop/requirements.txt)")
    sys.exit(0)

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests/golden/interop/experts"
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe", "deepseek_v2", "deepseek_v3", "gpt_oss"]
CASES = {  # as the recipes of that name
    "all": dict(target_modules="all-linear"),
    "named": dict(target_modules=["q_proj", "o_proj"], rank_pattern={"gate_up_proj": 4},
                  target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
}
LOGITS, GRADIENTS = 2e-5, 2e-4  # of the largest, f32
missed = 0


def check(what, measured, bound):
    global missed
    missed += not measured <= bound
    print(f"{'ok  ' if measured <= bound else 'MISS'}  {what:<58} {measured:9.2e}  at most {bound:.1e}", flush=True)


def hone(*words):
    subprocess.run([ROOT / "hone", *map(str, words)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def base(source):
    return transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")


def made(source, case):
    return get_peft_model(base(source), LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, **CASES[case]))


def difference(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)).item()


def forward(source, adapter, work, ids, *more):
    save_file({"input_ids": ids, "labels": ids.clone()}, work / "ids.safetensors")
    hone("forward", source, "--adapter", adapter, "--ids", work / "ids.safetensors", "--out", work / "out.safetensors", *more)
    return load_file(work / "out.safetensors")


def trained(source, case, work, ids):
    hone("train", RECORDED / f"{case}.yaml", f"model_name_or_path={source}", f"output_dir={work / 'run'}", "--quiet")
    adapter = sorted((work / "run/checkpoints").glob("step-*"))[-1]
    made(source, case).save_pretrained(work / "empty")
    shapes = [{k: t.shape for k, t in load_file(folder / "adapter_model.safetensors").items()}
              for folder in (adapter, work / "empty")]
    check(f"{source.name}, {case}: trained by hone, tensors as PEFT's", float(shapes[0] != shapes[1]), 0)
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        theirs = PeftModel.from_pretrained(base(source), adapter).eval()(ids).logits
    strange = [w for w in said if "adapter keys" in str(w.message)]  # others: of patterns, which it looks for in modules only
    check(f"{source.name}, {case}: PEFT finds all tensors and no other", float(len(strange)), 0)
    check(f"{source.name}, {case}: logits in PEFT", difference(forward(source, adapter, work, ids)["logits"], theirs), LOGITS)
    with torch.no_grad():
        plain = base(source).eval()(ids).logits
    check(f"{source.name}, {case}: training changed them (1 / change)", 1e-2 / difference(plain, theirs), 1)
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


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
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    lines = []
    for name in MIXTURES:
        source = ROOT / "tests/golden/models" / name
        ids = load_file(source / "golden.safetensors")["input_ids"].contiguous()
        for case in CASES:
            with tempfile.TemporaryDirectory(prefix="hone-experts-") as work:
                lines.append(f"{name} {case} {trained(source, case, Path(work), ids)}\n")
                written(source, case, Path(work), ids)
    print(f"{missed} failed")
    if "--record" in sys.argv[1:] and not missed:
        (RECORDED / "sha256.txt").write_text("".join(lines))
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
