#!/usr/bin/env python3
"""What Axolotl trains of a row by its dataset types, recorded for tests/unit/data/test_prompts.c.

    record_prompts.py AXOLOTL            # a checkout; writes tests/golden/rows/axolotl.jsonl

Axolotl's own classes write and tokenise the prompts; the packages around them are not needed and are
put in place here by empty modules. The tokenizer is one of a few lines: bos `^`, eos `$`, a `:`, `>` or line end and
a letter behind it are the token `A`, so that it shows whether prompt and answer are tokenised apart. Each line is a type,
a row, and the tokens as text, those that are trained in brackets. The rows are ours.
"""
import importlib
import json
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOS, EOS = "^", "$"


class Anything(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"CYAN": "", "RESET": ""})


def stubs(root):
    for name in ["colorama", "datasets", "transformers", "transformers.processing_utils", "axolotl.utils",
                 "axolotl.utils.logging", "axolotl.utils.dict", "axolotl.datasets"]:
        sys.modules[name] = Anything(name)
    sys.modules["transformers"].BatchEncoding = lambda data: data
    quiet = types.SimpleNamespace(warning=print, warning_once=print, info=print, error=print)
    sys.modules["axolotl.utils.logging"].get_logger = lambda *a: quiet
    for name, folder in [("axolotl", "."), ("axolotl.prompt_strategies", "prompt_strategies"),
                         ("axolotl.utils.data", "utils/data")]:
        package = types.ModuleType(name)
        package.__path__ = [str(root / folder)]
        sys.modules[name] = package


class Tokenizer:
    bos_token_id, eos_token_id = BOS, EOS

    def __call__(self, text, **_):
        ids, i = [BOS], 0
        while i < len(text):
            two = i + 1 < len(text) and text[i] in ":>\n" and text[i + 1] >= "a"
            ids.append("A" if two else text[i])
            i += 1 + two
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def strategy_of(kind, cfg):
    module, _, load = kind.partition(".")
    if not (ROOT_OF / "prompt_strategies" / f"{module}.py").exists():  # the types without a module of their own
        prompters = importlib.import_module("axolotl.prompters")
        tokenizers = importlib.import_module("axolotl.prompt_tokenizers")
        base, _, style = kind.partition(":")
        names = {"alpaca": ("AlpacaPrompter", "AlpacaPromptTokenizingStrategy"),
                 "gpteacher": ("GPTeacherPrompter", "GPTeacherPromptTokenizingStrategy"),
                 "jeopardy": ("JeopardyPrompter", "JeopardyPromptTokenizingStrategy"),
                 "oasst": ("AlpacaPrompter", "OpenAssistantPromptTokenizingStrategy"),
                 "summarizetldr": ("SummarizeTLDRPrompter", "SummarizeTLDRPromptTokenizingStrategy")}[base]
        return getattr(tokenizers, names[1])(getattr(prompters, names[0])(style or None), Tokenizer(),
                                             cfg.train_on_inputs, cfg.sequence_len)
    return getattr(importlib.import_module("axolotl.prompt_strategies." + module), load or "load")(Tokenizer(), cfg)


ALPACA = [{"instruction": "name it", "input": "a cat", "output": "tom"},
          {"instruction": "name it", "input": "", "output": "tom$"}]
SYSTEM = [{"instruction": "name", "input": "cat", "output": "tom", "system": "be kind"},
          {"instruction": "name", "input": "", "output": "tom", "system": ""}]
ORCA = [{"question": "who", "response": "me", "system_prompt": "be kind"},
        {"question": "who", "response": "me", "system_prompt": ""}]
CASES = {"alpaca": ALPACA, "alpaca:instruct": ALPACA, "alpaca:chat": ALPACA, "alpaca:chatml": ALPACA,
         "alpaca:phi": ALPACA, "alpaca_instruct": ALPACA, "alpaca_instruct.load_no_prompt": ALPACA,
         "alpaca_chat": ALPACA, "alpaca_chat.load_no_prompt": ALPACA, "alpaca_chat.load_concise": ALPACA,
         "alpaca_chat.load_qa": [{"question": "who", "answer": "me"}],
         "alpaca_chat.load_camel_ai": [{"message_1": "who", "message_2": "me"}],
         "alpaca_w_system": SYSTEM, "alpaca_w_system.load_chat": SYSTEM, "alpaca_w_system.load_instruct": SYSTEM,
         "alpaca_w_system.load_open_orca": ORCA, "alpaca_w_system.load_open_orca_chatml": ORCA,
         "gpteacher": [{"instruction": "name it", "input": "a cat", "response": "tom"}],
         "jeopardy": [{"question": "it purrs", "category": "pets", "answer": "a cat"}],
         "oasst": [{"INSTRUCTION": "name it", "RESPONSE": "tom"}],
         "summarizetldr": [{"article": "a long one", "summary": "short"}]}


def main():
    out = []
    for kind, rows in CASES.items():
        for inputs in (False, True):
            cfg = types.SimpleNamespace(train_on_inputs=inputs, sequence_len=4096)
            for row in rows:
                made = strategy_of(kind, cfg).tokenize_prompt(row)
                text, before = "", False
                for token, label in zip(made["input_ids"], made["labels"]):
                    text += "[" if label != -100 and not before else "]" if label == -100 and before else ""
                    before = label != -100
                    text += token
                out.append({"type": kind, "train_on_inputs": inputs, "row": row, "tokens": text + ("]" if before else "")})
    target = ROOT / "tests/golden/rows/axolotl.jsonl"
    target.write_text("".join(json.dumps(one) + "\n" for one in out))
    print(f"{target}: {len(out)} rows")


if __name__ == "__main__":
    ROOT_OF = Path(sys.argv[1]) / "src/axolotl"
    stubs(ROOT_OF)
    main()
