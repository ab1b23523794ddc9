#!/usr/bin/env python3
"""What TRL trains of a row: its ids and labels, recorded for tests/unit/data/test_rows_trl.c.

    pip install -r tests/interop/requirements.txt trl==1.16.0 datasets==5.2.0
    python tests/interop/record_rows.py            # writes tests/golden/rows/trl.jsonl

Each line of that file is one row: the tokenizer, the chat template (null: none), the row, the ids, and
the labels, -100 where a token is not trained. The rows are ours. TRL needs {% generation %} to know
what the assistant says, so each template has it.
"""
import json
import sys
import tempfile
from pathlib import Path

try:
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(0)

ROOT = Path(__file__).resolve().parents[2]
TOKENIZERS = {
    "recipes/data/stories260K/tokenizer.json": {"bos_token": "<s>", "eos_token": "</s>"},
    "tests/golden/tokenizers/gpt2.json": {"eos_token": "<|endoftext|>"},
    "tests/golden/tokenizers/qwen2.json": {"eos_token": "<|endoftext|>"},
}
PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALLS = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{% generation %}{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
    "{% else %}{{ '<think>' if think is defined and think }}{{ m.content }}{% endif %}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def say(role, content):
    return {"role": role, "content": content}


def turns(*texts):
    return [say("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
ROWS = [
    (None, {"text": "Once upon a time, there was a cat."}),
    (None, {"text": "The dog ran."}),
    (None, {"text": " The dog ran.\n"}),
    (None, {"prompt": "Q: capital of Norway?\nA:", "completion": " Oslo"}),
    (None, {"prompt": "2+2=", "completion": "4"}),
    (None, {"prompt": "The cat sat on the ma", "completion": "t."}),
    (None, {"prompt": "Lily went to the pa", "completion": "rk and played."}),
    (None, {"prompt": "One day ", "completion": "a bird came."}),
    (None, {"prompt": "One day", "completion": "\nA bird came.\n"}),
    (PLAIN, {"messages": turns("hi", "yo")}),
    (PLAIN, {"messages": turns("Who is Tom?", "A boy.", "And Lily?", "A girl.")}),
    (PLAIN, {"messages": [say("system", "You help.")] + turns("hi", "yo")}),
    (PLAIN, {"prompt": turns("hi"), "completion": turns("hi", "yo")[1:]}),
    (PLAIN, {"prompt": turns("hi", "yo", "again"), "completion": [say("assistant", "yo yo")]}),
    (CALLS, {"messages": turns("hi", "yo"), "tools": json.dumps([{"name": "f"}])}),
    (CALLS, {"messages": turns("hi", "yo"), "chat_template_kwargs": {"think": True}}),
    (CALLS, {"messages": [say("user", "hi"), {"role": "assistant", "content": "", "tool_calls": [CALL]},
                          say("tool", "5"), say("assistant", "yo")]}),
]


def prepared(tokenizer, template, row, folder):
    """The row as SFTTrainer prepares it, and the labels that its collator makes."""
    tokenizer.chat_template = template
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2))
    config = SFTConfig(output_dir=folder, report_to="none", use_cpu=True, bf16=False,
                       assistant_only_loss=template is not None)
    trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list([row]),
                         processing_class=tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    return batch["input_ids"][0].tolist(), batch["labels"][0].tolist()


def main():
    lines = []
    for path, special in TOKENIZERS.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / path), **special)
        tokenizer.pad_token = tokenizer.eos_token
        for template, row in ROWS:
            with tempfile.TemporaryDirectory() as folder:
                ids, labels = prepared(tokenizer, template, row, folder)
            lines.append(json.dumps({"tokenizer": path, "special": special, "template": template,
                                     "row": row, "input_ids": ids, "labels": labels}))
            print(lines[-1][:150])
    out = ROOT / "tests/golden/rows/trl.jsonl"
    out.write_text("\n".join(lines) + "\n")
    print(f"{out}: {len(lines)} rows")


main()
