#!/usr/bin/env python3
"""Does what hone writes mean the same to transformers, peft and tokenizers, and the other way round?

    pip install -r tests/interop/requirements.txt
    python tests/interop/check_checkpoint.py                   # checks, prints a table, 1 on a miss
    python tests/interop/check_checkpoint.py --record          # also writes tests/golden/interop

Everything is made on the spot by ./hone: a tokenizer, tiny models of both families, adapters. Each
row of the table is one comparison: what was measured, and the most it may be. Where a library is
missing the script says so and exits 0, because `make test` must pass without Python; the recorded
results let tests/e2e/test_interop.c hold hone to the same numbers there.
"""
import argparse
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import common
from common import LOGITS, ROOT, check, difference, forward, hone, loaded

torch, transformers, peft, tokenizers = common.need("torch", "transformers", "peft", "tokenizers")
from safetensors.torch import load_file, save_file  # noqa: E402

CORPUS = ROOT / "tests/golden/tokenizers/corpus.txt"
RECORDED = ROOT / "tests/golden/interop"
STORIES = ROOT / "recipes/data/stories260K"
FAMILIES = ("olmo2", "llama")
TEXTS = ["First Citizen:\nBefore we proceed any further, hear me speak.",
         " it's 1234567 o'clock\t\n\n",
         "naïve café, 漢字かな交じり文, Ελληνικά, हिन्दी", "🙂👩‍👩‍👧 e\u0301 \u200b", "<|endoftext|>", "",
         "    indented\r\n  code = {1: 'x'}  ", "a" * 70, "\x00\x7f\ufeff"]

def same(what, a, b):
    check(what, 0.0 if a == b else math.inf, 0.0)


def train(folder, **keys):
    """Runs a recipe (JSON is YAML) and returns the last checkpoint."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(json.dumps({"output_dir": str(folder), **keys}, indent=1))
    hone("train", recipe, "--quiet")
    return common.last_checkpoint(folder)


def encode(tokenizer, texts, *words):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    return [json.loads(line)["ids"] for line in hone("encode", tokenizer, *words, text=lines).splitlines()]


def batch_of(vocab, rows=3, length=40, seed=7):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (rows, length), generator=generator)
    labels = ids.clone()
    labels[torch.rand(ids.shape, generator=generator) < 0.25] = -100
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def reference(model, batch, new_tokens=0):
    out = model(**batch)
    result = {"logits": out.logits.float(), "loss": out.loss.float()}
    if new_tokens:
        model.generation_config.eos_token_id = None  # like hone forward --generate: past the end
        first = batch["input_ids"][:1]
        more = model.generate(first, attention_mask=torch.ones_like(first), do_sample=False,
                              max_new_tokens=new_tokens, pad_token_id=0)
        result["generated"] = more[0, first.shape[1]:]
    return result


def compare(what, mine, theirs):
    check(f"{what}: logits", difference(mine["logits"], theirs["logits"]), LOGITS)
    check(f"{what}: loss", abs(mine["loss"].item() - theirs["loss"].item()), 2e-6 * max(1, theirs["loss"].item()))
    if "generated" in theirs:
        same(f"{what}: greedy text", mine["generated"].tolist(), theirs["generated"].tolist())


# ---- models and tokenizers that hone makes

def model_of(family, size):
    shape = {"hidden_size": size, "intermediate_size": size * 5 // 2, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
             "initializer_range": 0.1}
    extra = {"olmo2": {"rope_theta": 500000.0},
             "llama": {"rope_theta": 10000.0, "tie_word_embeddings": True}}
    return {"model_type": family, **shape, **extra[family]}


def tokenizer_made(work, vocab):
    path = work / f"tokenizer-{vocab}.json"
    hone("tokenizer", "train", CORPUS, "--output", path, "--vocab-size", vocab, "--quiet")
    return path


def pretrained(work, family, tokenizer, name, size=48, precision="fp32"):
    return train(work / name, model=model_of(family, size), tokenizer=str(tokenizer), dataset=[str(CORPUS)],
                 precision=precision, max_seq_length=64, micro_batch_size=4, max_steps=12, learning_rate=0.01,
                 save_at=[0])


# ---- the checks

def check_model(work, family, tokenizer):
    folder = pretrained(work, family, tokenizer, f"{family}-fp32")
    model, batch = loaded(folder), batch_of(512)
    compare(f"{family} fp32", forward(folder, batch, "--generate", 24, work=work), reference(model, batch, 24))
    same(f"{family} fp32: dtype of config.json", str(loaded(folder, "auto").dtype), "torch.float32")
    ids = [getattr(model.config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")]
    same(f"{family} fp32: special ids", ids, [None, 0, None])  # not those of the family's vocabulary
    model.save_pretrained(work / f"{family}-resaved")
    compare(f"{family} saved by transformers", forward(work / f"{family}-resaved", batch, work=work),
            reference(model, batch))

    half = pretrained(work, family, tokenizer, f"{family}-bf16", precision="bf16")
    compare(f"{family} bf16", forward(half, batch, "precision=fp32", work=work), reference(loaded(half), batch))
    same(f"{family} bf16: dtype of config.json", str(loaded(half, "auto").dtype), "torch.bfloat16")
    # Weights and config.json must agree where the precision is not the base's.
    again = train(work / f"{family}-again", model_name_or_path=str(half), dataset=[str(CORPUS)], precision="fp32",
                  max_seq_length=64, micro_batch_size=4, max_steps=2, learning_rate=0.01)
    compare(f"{family} bf16, then fp32", forward(again, batch, work=work), reference(loaded(again, "auto"), batch))
    return folder


def check_tokenizer(what, folder):
    path = folder / "tokenizer.json"
    theirs, auto = tokenizers.Tokenizer.from_file(str(path)), transformers.AutoTokenizer.from_pretrained(folder)
    texts = TEXTS + [CORPUS.read_text()]
    mine = encode(path, texts)
    same(f"{what}: tokenizers encodes", mine, [theirs.encode(t, add_special_tokens=False).ids for t in texts])
    same(f"{what}: AutoTokenizer encodes", mine, [auto.encode(t, add_special_tokens=False) for t in texts])
    same(f"{what}: with special tokens", encode(path, texts, "--add-special-tokens"), [auto.encode(t) for t in texts])
    lines = "".join(json.dumps({"ids": ids}) + "\n" for ids in mine)
    decoded = [json.loads(line)["text"] for line in hone("decode", path, text=lines).splitlines()]
    same(f"{what}: tokenizers decodes", decoded, [theirs.decode(ids, skip_special_tokens=False) for ids in mine])
    same(f"{what}: AutoTokenizer decodes", decoded,
         [auto.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) for ids in mine])


def check_adapter(work, family, base):
    what, batch = f"{family} LoRA", batch_of(512)
    folder = train(work / f"{family}-lora", model_name_or_path=str(base), dataset=[str(CORPUS)], use_peft=True,
                   lora_r=4, lora_alpha=8, max_seq_length=64, micro_batch_size=4, max_steps=12, learning_rate=0.02)
    mine, plain = forward(folder, batch, work=work), reference(loaded(base), batch)
    adapted = peft.PeftModel.from_pretrained(loaded(base), folder).eval()
    theirs = reference(adapted, batch)
    compare(f"{what} by hone", mine, theirs)
    check(f"{what} by hone: changes the model (1 / change)", 1e-2 / difference(theirs["logits"], plain["logits"]), 1.0)
    auto = peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    compare(f"{what} by hone, base found", mine, reference(auto.eval(), batch))

    merged = adapted.merge_and_unload()
    hone("export", folder, "--output", work / f"{family}-merged", "--quiet")
    exported, weights = load_file(work / f"{family}-merged" / "model.safetensors"), merged.state_dict()
    check(f"{what} merged: weights", max(difference(exported[k], weights[k]) for k in exported), 1e-6)
    compare(f"{what} merged", forward(work / f"{family}-merged", batch, work=work), reference(merged, batch))
    compare(f"{what} merged, loaded", mine, reference(loaded(work / f"{family}-merged"), batch))

    kinds = {"all-linear": {"target_modules": "all-linear"},
             "rslora q, v": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True}}
    for name, keys in kinds.items():
        torch.manual_seed(3)
        config = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **keys)
        other = peft.get_peft_model(loaded(base), config).eval()
        for key, weight in other.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.05)
        other.save_pretrained(work / f"{family}-peft")
        mine = forward(base, batch, "--adapter", work / f"{family}-peft", work=work)
        compare(f"{what} by peft, {name}", mine, reference(other, batch))
        shutil.rmtree(work / f"{family}-peft")


STEPS = {"max_steps": 6, "learning_rate": 0.01, "lr_scheduler_type": "cosine", "min_lr_ratio": 0.1,
         "warmup_steps": 2, "weight_decay": 0.1, "adam_beta2": 0.95, "max_grad_norm": 0.5}


def torch_steps(model, batch):
    """The optimizer of STEPS as PyTorch users write it."""
    weights = [w for w in model.parameters() if w.requires_grad]
    groups = [{"params": [w for w in weights if w.dim() > 1], "weight_decay": STEPS["weight_decay"]},
              {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=STEPS["learning_rate"], betas=(0.9, STEPS["adam_beta2"]), eps=1e-8)
    schedule = transformers.get_cosine_with_min_lr_schedule_with_warmup(
        adam, STEPS["warmup_steps"], STEPS["max_steps"], min_lr_rate=STEPS["min_lr_ratio"])
    model.train()
    log = []
    for _ in range(STEPS["max_steps"]):
        adam.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, STEPS["max_grad_norm"])
        log.append((loss.item(), norm.item(), schedule.get_last_lr()[0]))
        adam.step()
        schedule.step()
    return log


def compare_steps(what, run, theirs):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    mine = [(r["loss"], r["grad_norm"], r["lr"]) for r in lines if "loss" in r]
    assert len(mine) == len(theirs) == STEPS["max_steps"]
    check(f"{what}: loss of every step", max(abs(a[0] - b[0]) for a, b in zip(mine, theirs)), 1e-5)
    check(f"{what}: gradient norm", max(abs(a[1] - b[1]) / b[1] for a, b in zip(mine, theirs)), 1e-4)
    check(f"{what}: learning rate", max(abs(a[2] - b[2]) for a, b in zip(mine, theirs)), 1e-10)
    check(f"{what}: loss falls (last / first)", mine[-1][0] / mine[0][0], 0.99)


def one_batch(work, tokenizer, eos):
    """Four documents of unequal length, as hone's data and as a padded batch. The second has a prompt."""
    lines = CORPUS.read_text().split("\n\n")
    texts = [lines[1], lines[2] + lines[3], lines[4], lines[5] + "!" + lines[6]]  # "!" is token 1
    source = work / "batch.jsonl"
    split = len(texts[1]) // 2
    records = [{"text": t} for t in texts]
    records[1] = {"prompt": texts[1][:split], "completion": texts[1][split:]}
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    ids = encode(tokenizer, [texts[0], texts[1][:split], texts[1][split:], texts[2], texts[3]])
    prompt = len(ids[1])
    documents = [d + [eos] for d in (ids[0], ids[1] + ids[2], ids[3], ids[4])]
    width = max(map(len, documents))
    batch = {"input_ids": torch.zeros(4, width, dtype=torch.long), "labels": torch.full((4, width), -100)}
    for i, d in enumerate(documents):
        batch["input_ids"][i, :len(d)] = batch["labels"][i, :len(d)] = torch.tensor(d)
    batch["labels"][1, :prompt] = -100
    return source, batch, width, sum(map(len, documents))


def check_training(work, family, tokenizer, base):
    source, batch, width, tokens = one_batch(work, tokenizer, eos=0)
    start = {"model": model_of(family, 48), "tokenizer": str(tokenizer)}
    keys = {"dataset": [str(source)], "precision": "fp32", "task": "sft", "save_at": [0], **STEPS}
    runs = {"documents, 2 x 2": {"packing": False, "max_seq_length": width, "micro_batch_size": 2,
                                 "gradient_accumulation_steps": 2},
            "packed": {"max_seq_length": tokens - 1, "micro_batch_size": 1}}
    for name, how in runs.items():
        run = work / f"{family}-steps-{len(name)}"
        train(run, **start, **keys, **how)
        theirs = torch_steps(loaded(run / "checkpoints/step-000000"), batch)
        compare_steps(f"{family} training, {name}", run, theirs)
    run = work / f"{family}-steps-lora"
    train(run, model_name_or_path=str(base), use_peft=True, lora_r=4, lora_alpha=8, **keys, **runs["documents, 2 x 2"])
    adapted = peft.PeftModel.from_pretrained(loaded(base), run / "checkpoints/step-000000", is_trainable=True)
    compare_steps(f"{family} training, LoRA", run, torch_steps(adapted, batch))


def check_stories(work):
    """A model others trained: 256 greedy tokens are the text that llama2.c prints."""
    text = (RECORDED / "stories260K" / "greedy_256.txt").read_text().rstrip("\n")
    start = encode(STORIES / "tokenizer.json", [""], "--add-special-tokens")[0]
    same("stories260K: a text begins with <s>", start, [1])
    ids = torch.tensor([start])
    batch = {"input_ids": ids}
    model, auto = loaded(STORIES), transformers.AutoTokenizer.from_pretrained(STORIES)
    model.generation_config.eos_token_id = None
    made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=256, pad_token_id=0)
    mine = forward(STORIES, batch, "--generate", 256, work=work)["generated"].tolist()
    same("stories260K: greedy ids, transformers and hone", made[0, 1:].tolist(), mine)
    said = auto.decode(mine, skip_special_tokens=True).strip()
    same("stories260K: greedy text, llama2.c and hone", said, text)
    check_tokenizer("stories260K", STORIES)
    longer = batch_of(512, length=120)
    compare("stories260K", forward(STORIES, longer, work=work), reference(model, longer))


# ---- recorded results

def record(work):
    for family in FAMILIES:
        made = pretrained(work, family, tokenizer_made(work, 288), f"{family}-recorded", size=16)
        to, batch = RECORDED / family, batch_of(288, rows=2, length=24)
        to.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
            shutil.copyfile(made / name, to / name)
        save_file(batch, to / "ids.safetensors")
        save_file(reference(loaded(to), batch, 16), to / "logits.safetensors")
        for name in ("ids.safetensors", "logits.safetensors"):
            (to / name).chmod(0o644)  # safetensors writes for the owner alone
        theirs = transformers.AutoTokenizer.from_pretrained(to)
        (to / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
        (to / "texts_ids.jsonl").write_text("".join(json.dumps({"ids": theirs.encode(t)}) + "\n" for t in TEXTS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write tests/golden/interop")
    arguments = parser.parse_args()
    common.quiet()
    with tempfile.TemporaryDirectory(prefix="hone-interop-") as name:
        work = Path(name)
        tokenizer = tokenizer_made(work, 512)
        for family in FAMILIES:
            base = check_model(work, family, tokenizer)
            check_tokenizer(f"{family} tokenizer", base)
            check_adapter(work, family, base)
            check_training(work, family, tokenizer, base)
        if STORIES.is_dir():
            check_stories(work)
        else:
            print(f"skipped: {STORIES.relative_to(ROOT)} is not there")
        if arguments.record:
            record(work)
    return common.finish(torch, transformers, peft, tokenizers)


if __name__ == "__main__":
    sys.exit(main())
