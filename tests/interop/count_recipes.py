#!/usr/bin/env python3
"""count_recipes.py: how many published recipes of other tools `hone import` takes, and why not the others.

    count_recipes.py HONE NAME=FOLDER[:GLOB[,GLOB]] ... [--list]

prints a table NAME x (files | runs | objective | vision | GPUs | plugin | other). A file that cannot run is counted by the
first of objective, vision, GPUs, plugin that one of its problems is of; "other" are those with problems that are of none of
these; "no recipe" names neither model nor data. "also other" counts the files of the four columns that have such a problem, too. `--list` prints each file and what is wrong with it. The folders
are checkouts of the projects; nothing of theirs is kept here. train/recipe/README.md has the table and the commits."""
import collections
import glob
import os
import subprocess
import sys

KINDS = {
    "another objective or method of training": "objective",
    "a model that sees or hears": "vision",
    "several GPUs": "GPUs",
    "a plugin": "plugin",
}
COLUMNS = ["files", "runs", "objective", "vision", "GPUs", "plugin", "other", "no recipe"]
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


def main():
    listed = "--list" in sys.argv
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    hone, table, others = words[0], [], collections.Counter()
    for word in words[1:]:
        name, place = word.split("=", 1)
        folder, _, pattern = place.partition(":")
        row = collections.Counter()
        found = []
        for one in (pattern or "**/*.y*ml").split(","):
            found += glob.glob(os.path.join(folder, one), recursive=True)
        for file in sorted(found):
            run = subprocess.run([hone, "import", file, "--quiet"], capture_output=True, text=True)
            row["files"] += 1
            if run.returncode == 0:
                row["runs"] += 1
                kind = "runs"
            else:
                found = problems(run.stdout)
                kinds = [kind_of(p) for p in found] or ["other"]
                strange = any(k == "other" for k in kinds)
                kind = next((k for k in COLUMNS[2:6] if k in kinds), "other")
                if any(p.endswith(": no model") for p in found) and any(p.endswith(": no dataset") for p in found):
                    kind, strange = "no recipe", False
                row[kind] += 1
                row["also other"] += strange and kind != "other"
                for p, k in zip(found, kinds):
                    if k == "other":
                        others[p.split(": ", 1)[-1][:90]] += 1
            if listed:
                print(f"{kind:10} {file}")
                if kind != "runs":
                    for p in found:
                        print("             ", p)
        table.append((name, row))
    print("| tool | " + " | ".join(SHOWN) + " |")
    print("|---|" + "---|" * len(SHOWN))
    for name, row in table:
        print(f"| {name} | " + " | ".join(str(row[c]) for c in SHOWN) + " |")
    if listed:
        for p, n in others.most_common(60):
            print(n, p)


if __name__ == "__main__":
    main()
