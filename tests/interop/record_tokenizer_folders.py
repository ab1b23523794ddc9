"""Records tests/golden/tokenizers/folders.json: what transformers makes of folders whose tokens are spread over several
files, and of vocab.json with merges.txt. test_tokenizer_folder.c builds the same folders.

usage: record_tokenizer_folders.py    (transformers as in requirements.txt)"""
import json
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoTokenizer  # noqa: E402

STORIES = "recipes/data/stories260K"
PAIR = json.load(open("tests/golden/tokenizers/gpt2.json"))["model"]
CONFIG = json.load(open(STORIES + "/tokenizer_config.json"))
TEXTS = ["Once a cat sat.<|im_start|>user\nhi <|im_end|>  x", "<s>uns </s> a<pad>", " the<|endoftext|> it's 12345  all"]


def token(content, special=True, **more):
    plain = dict(content=content, lstrip=False, rstrip=False, single_word=False, normalized=False, special=special)
    return {**plain, **more}


CONFIGS = {
    "decoder": {"added_tokens_decoder": {"512": token("<|im_start|>"), "513": token("<|im_end|>")}, "eos_token": "<|im_end|>"},
    "decoder_gap": {"added_tokens_decoder": {"515": token("<|im_start|>"), "517": token("<|im_end|>", False)}},
    "decoder_strip": {"added_tokens_decoder": {"512": token("<|im_start|>", lstrip=True), "513": token("<|im_end|>", rstrip=True)}},
    "extra": {"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]},
    "extra_named": {"extra_special_tokens": {"image_token": "<|im_start|>", "end": "<|im_end|>"}},
    "additional": {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
    "both": {"extra_special_tokens": ["<|im_start|>"], "additional_special_tokens": ["<|im_end|>"]},
    "after_decoder": {"extra_special_tokens": ["<|im_start|>"], "added_tokens_decoder": {"512": token("<|im_end|>", False)}},
    "role": {"image_token": "<|im_start|>", "end_token": "<|im_end|>"},
    "roles_first": {"pad_token": "<pad>", "end_token": "<|im_end|>", "extra_special_tokens": ["<|im_start|>"]},
    "of_vocabulary": {"extra_special_tokens": ["once", "\u2581a", "cat"]},
}
FILES = {
    "added": {"added_tokens.json": {"<|im_end|>": 513, "<|im_start|>": 512}},
    "added_special": {"added_tokens.json": {"<|im_end|>": 513, "<|im_start|>": 512},
                      "special_tokens_map.json": {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}},
}
PAIRS = {
    "gpt2": {"tokenizer_class": "GPT2Tokenizer"},
    "gpt2_more": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "extra_special_tokens": ["<|im_start|>"]},
    "qwen2": {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"600": token("<|im_start|>")}},
}


def record(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            with open(os.path.join(folder, name), "w") as file:
                file.write(content if isinstance(content, str) else json.dumps(content))
        t = AutoTokenizer.from_pretrained(folder)
        return {"ids": [t(x, add_special_tokens=False)["input_ids"] for x in TEXTS], "eos": t.eos_token_id}


rows = []
for name, more in CONFIGS.items():
    rows.append((name, "tokenizer.json", {"tokenizer_config.json": {**CONFIG, **more}}))
for name, files in FILES.items():
    rows.append((name, "tokenizer.json", {"tokenizer_config.json": CONFIG, **files}))
for name, config in PAIRS.items():
    rows.append((name, "pair", {"tokenizer_config.json": config}))
own = {"tokenizer.json": {"tokenizer.json": open(STORIES + "/tokenizer.json").read()},
       "pair": {"vocab.json": PAIR["vocab"],
                "merges.txt": "#version: 0.2\n" + "\n".join(" ".join(m) if isinstance(m, list) else m for m in PAIR["merges"])}}
out = {"texts": TEXTS, "folders": [{"name": n, "of": of, "files": f, **record({**own[of], **f})} for n, of, f in rows]}
with open("tests/golden/tokenizers/folders.json", "w") as file:
    json.dump(out, file, indent=1)
    file.write("\n")
print(len(out["folders"]), "folders")
