#!/usr/bin/env python3
"""Makes stories.jsonl: tasks and answers, each answer a story that stories260K told.

    python3 recipes/data/make_stories.py ./hone > recipes/data/stories.jsonl

hone tells four stories for each beginning, the seed makes them the same everywhere, and those that come to an end
within 150 to 480 characters are kept.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

WHO = ("dog", "cat", "bird", "bear", "frog", "fish", "rabbit", "mouse", "duck", "bunny", "boy", "girl", "king", "princess", "fairy",
       "dragon", "monkey", "lion", "bee", "bug", "fox", "horse", "car", "train", "truck", "tree", "star", "doll", "robot", "owl")
NAMES = ("Max", "Lily", "Tom", "Sue", "Ben", "Mia", "Tim", "Lucy", "Sam", "Amy", "Jack", "Anna", "Spot", "Daisy", "Bob", "Sally")
ROUNDS, LONGEST, MODEL = 5, 300, str(pathlib.Path(__file__).parent / "stories260K")


def told(hone, beginnings, seed):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps({"prompt": b}) + "\n" for b in beginnings)
        f.flush()
        flags = f"--json --seed {seed} --temperature 0.6 --top-p 0.9 --max-new-tokens {LONGEST} --batch-size 96"
        out = subprocess.run([hone, "generate", MODEL, "--prompts", f.name, *flags.split()], check=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in out.stdout.decode().splitlines()]


def main():
    tasks = [(who, name) for who in WHO for name in NAMES]
    beginnings = [f"Once upon a time, there was a little {who} named {name}." for who, name in tasks]
    kept = 0
    for seed in range(1, ROUNDS + 1):
        for (who, name), start, line in zip(tasks, beginnings, told(sys.argv[1], beginnings, seed)):
            text = line["text"].strip()
            if len(line["ids"]) >= LONGEST or not 150 <= len(text) <= 480 or not text.isascii() or text[-1] not in '.!?"':
                continue
            kept += 1
            print(json.dumps({"instruction": f"Tell a story about a {who} named {name}.", "output": f"{start} {text}"}))
    print(f"{kept} stories of {ROUNDS * len(tasks)} kept", file=sys.stderr)


main()
