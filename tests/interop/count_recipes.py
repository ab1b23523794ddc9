#!/usr/bin/env python3
"""count_recipes.py: how many published recipes of other tools `hone import` takes, and why not the others.

    count_recipes.py HONE NAME=FOLDER[:GLOB[,GLOB]] ... [--list]

prints a table NAME x (files | runs | objective | vision | GPUs | plugin | other | no training). A file that cannot run is
counted by the first of objective, vision, GPUs, plugin that one of its problems is of; "other" are those with problems that
are of none of these; "no training" trains nothing, or names neither model nor data. "also other" counts the files of the four
columns that have a problem of none of them, too. `--list` prints each file and what is wrong with it, and then, for each NAME, each
reason, its column, and in how many files it is. The folders are checkouts of the projects; nothing of theirs is kept here.
train/recipe/README.md has the table and the commits."""
import collections
import glob
import os
import re
import subprocess
import sys

KINDS = {
    "another objective or method of training": "objective",
    "a model that sees or hears": "vision",
    "several GPUs": "GPUs",
    "a plugin": "plugin",
    "it trains nothing": "no training",
}
COLUMNS = ["files", "runs", "objective", "vision", "GPUs", "plugin", "other", "no training"]
SHOWN = COLUMNS + ["also other"]


def problems(text):
    """The lines below "NOT CARRIED OVER"."""
    inside, found = False, []
    for line in text.splitlines():
        if line.startswith("# NOT CARRIED OVER"):
            inside = True
        elif inside and line.startswith("#   ") and not line.startswith("#     "):
            found.append(line[4:])
    return found


def kind_of(problem):
    for words, kind in KINDS.items():
        if "changes the result: " + words in problem:
            return kind
    if "is not available in this version" in problem and "task:" in problem:
        return "objective"
    return "other"


def reason(problem):
    """A problem without its place and value."""
    text = problem.split(": ", 1)[-1] if re.match(r"\S+:\d+: ", problem) else problem.rsplit("yaml: ", 1)[-1]
    text = text.rsplit(".sh: ", 1)[-1].split("; did you mean")[0]
    return re.sub(r"^'([^':]+): [^']*'", r"'\1'", text)[:90]


def column(found):
    """Where a file with these problems is counted, and whether some other kind is among them."""
    kinds = [kind_of(p) for p in found] or ["other"]
    missing = [p for p in found if p.endswith((": no model", ": no dataset"))]
    if "no training" in kinds or len(missing) == 2:
        return "no training", False
    kind = next((k for k in COLUMNS[2:6] if k in kinds), "other")
    return kind, kind != "other" and "other" in kinds


def main():
    listed = "--list" in sys.argv
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    hone, table = words[0], []
    for word in words[1:]:
        name, place = word.split("=", 1)
        folder, _, pattern = place.partition(":")
        row, reasons = collections.Counter(), collections.Counter()
        files = []
        for one in (pattern or "**/*.y*ml").split(","):
            files += glob.glob(os.path.join(folder, one), recursive=True)
        for file in sorted(files):
            run = subprocess.run([hone, "import", file, "--quiet"], capture_output=True, text=True)
            row["files"] += 1
            found = problems(run.stdout) if run.returncode else []
            kind, strange = column(found) if run.returncode else ("runs", False)
            row[kind] += 1
            row["also other"] += strange
            for one in {(kind_of(p), reason(p)) for p in found} if kind != "no training" else ():
                reasons[one] += 1
            if listed:
                print(f"{kind:11} {file}")
                for p in found:
                    print("             ", p)
        table.append((name, row, reasons))
    print("| tool | " + " | ".join(SHOWN) + " |")
    print("|---|" + "---|" * len(SHOWN))
    for name, row, _ in table:
        print(f"| {name} | " + " | ".join(str(row[c]) for c in SHOWN) + " |")
    for name, _, reasons in table if listed else ():
        print(f"\n{name}: reasons of files that are recipes and do not run")
        for (kind, text), n in sorted(reasons.items(), key=lambda one: (one[0][0], -one[1], one[0][1])):
            print(f"  {kind:10} {n:4} {text}")


if __name__ == "__main__":
    main()
