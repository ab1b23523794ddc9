"""What the scripts of this folder share: libraries that may be missing, ./hone, a model in transformers, a table of
comparisons. Each row of the table says what was measured and the most it may be; NaN fails."""
import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is to be looked up elsewhere
ROOT = Path(__file__).resolve().parents[2]
HONE = ROOT / "hone"
MODELS = ROOT / "tests/golden/models"
LOGITS = 2e-5  # of the largest logit, f32: the rule of tests/golden/models
rows = []


def need(*names, requirements="requirements.txt"):
    """The modules. Where one is missing the script ends with 0: `make test` must pass without Python."""
    try:
        return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as missing:
        print(f"skipped: {missing.name} is not installed (tests/interop/{requirements})")
        sys.exit(0)


def quiet():
    import torch
    import transformers
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def check(what, measured, bound):
    rows.append(measured <= bound)
    print(f"{'ok  ' if rows[-1] else 'MISS'}  {what:<58} {measured:9.2e}  at most {bound:.1e}", flush=True)


def finish(*libraries):
    """The closing lines; the exit code."""
    print(", ".join(f"{library.__name__} {library.__version__}" for library in libraries))
    print(f"{sum(rows)} passed, {len(rows) - sum(rows)} failed")
    return not all(rows)


def hone(*words, text=None):
    run = subprocess.run([HONE, *map(str, words)], input=text, capture_output=True, text=True, cwd=ROOT)
    if run.returncode:
        raise RuntimeError(f"hone {' '.join(map(str, words))}: exit {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


def forward(model, batch, *words, work):
    from safetensors.torch import load_file, save_file
    save_file(batch, work / "in.safetensors")
    hone("forward", model, "--ids", work / "in.safetensors", "--out", work / "out.safetensors", *words)
    return load_file(work / "out.safetensors")


def last_checkpoint(run):
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def loaded(folder, dtype="float32"):
    """The model in transformers, f32 unless told otherwise, without its faults."""
    import transformers
    config = json.loads((folder / "config.json").read_text())
    # eager attention adds Falcon's ALiBi twice; torch's grouped products need rows of whole 16 bytes
    how = {"attn_implementation": "sdpa" if config["model_type"] == "falcon" else "eager", "dtype": dtype}
    if any("experts" in key for key in config):
        how["experts_implementation"] = "eager"
    if config["model_type"] == "kimi_k2":  # the hub's type: its own code there, DeepSeek V3 here
        how["config"] = transformers.AutoConfig.for_model(**{**config, "model_type": "deepseek_v3"})
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **how).eval()


def logits(model, ids):
    import torch
    with torch.no_grad():
        return model(ids).logits.float()


def difference(a, b):
    """Largest absolute difference, of the largest value of b."""
    if a.shape != b.shape:
        return float("inf")
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)).item()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
