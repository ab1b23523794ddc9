#!/usr/bin/env python3
"""Do hone's tokenizers give the ids, texts and offsets of Hugging Face tokenizers, sentencepiece and tiktoken?

    pip install -r tests/interop/requirements-tokenizers.txt
    python tests/interop/check_tokenizers.py --assets FOLDER           # its tok-*/ and golden-*/, data-*/ as text
    python tests/interop/check_tokenizers.py --fuzz 300                # seconds of random tokenizers and random strings
    python tests/interop/check_tokenizers.py --record                  # random.jsonl, files.jsonl and the models they need

FOLDER may hold any mix of tokenizer.json, *.model (SentencePiece or ranks), *.tiktoken(.gz) and GGUF vocabularies with
.inp and .out files; every text, JSON and source file below data-*/ is corpus, and so is Python's own library. Without
--assets only the fuzzer runs. Exit code 1 on any difference, each shown with the text that gives it.
"""
import argparse
import base64
import glob
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import unicodedata
from pathlib import Path

try:
    import tokenizers
    from tokenizers import Tokenizer
except ModuleNotFoundError as missing:
    print(f"skipped: {missing.name} is not installed (tests/interop/requirements-tokenizers.txt)")
    sys.exit(0)

ROOT = Path(__file__).resolve().parents[2]
HONE = os.environ.get("HONE", ROOT / "hone")
GOLDEN = ROOT / "tests/golden/tokenizers"
failures = 0


def hone(command, path, rows, *flags):
    """JSON rows through ./hone, in as many rows; None and the message if it refuses."""
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    done = subprocess.run([HONE, command, path, *flags], input=text.encode(), capture_output=True)
    if done.returncode:
        return None, done.stderr.decode(errors="replace").strip()
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]], ""


def as_row(text):
    return {"text": text} if isinstance(text, str) else {"hex": text.hex()}


def as_text(text):
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def fail(what, *lines):
    global failures
    failures += 1
    print(f"FAILED  {what}", *lines, sep="\n        ", flush=True)


def shorter(text, differs):
    """A smaller text that still differs: halves, then single characters; for 20 seconds."""
    step, end = max(1, len(text) // 2), time.time() + 20
    while step:
        at = 0
        while at < len(text) and time.time() < end:
            less = text[:at] + text[at + step:]
            if len(text) > step and differs(less):
                text = less
            else:
                at += step
        step //= 2
    return text


def compare(what, path, texts, encode, flags=(), shrink=True):
    """hone's ids against encode's, for each text. Says where they part; returns the ids or None."""
    got, message = hone("encode", path, [as_row(t) for t in texts], *flags)
    if got is None:
        fail(what, message)
        return None
    got, want = [g["ids"] for g in got], encode([as_text(t) for t in texts])
    for t, g, w in zip(texts, got, want):
        if g == w:
            continue
        if shrink:
            def differs(x):
                one, _ = hone("encode", path, [as_row(x)], *flags)
                return one is None or one[0]["ids"] != encode([as_text(x)])[0]
            t = shorter(t, differs)
            one, message = hone("encode", path, [as_row(t)], *flags)
            g, w = (one[0]["ids"] if one else message), encode([as_text(t)])[0]
        fail(what, f"text {t!r}"[:400], f"hone      {g}"[:300], f"reference {w}"[:300])
        return None
    return got


# ---- corpus ----------------------------------------------------------------------------------------------------------

def strings(x):
    if isinstance(x, str):
        yield x
    elif isinstance(x, (dict, list)):
        for v in x.values() if isinstance(x, dict) else x:
            yield from strings(v)


def documents(folder):
    for path in sorted(glob.glob(str(folder / "data-*" / "**" / "*"), recursive=True)):
        if not path.endswith((".txt", ".json", ".jsonl", ".json.gz", ".jsonl.gz")):
            continue
        text = (gzip.open if path.endswith(".gz") else open)(path, "rb").read().decode("utf-8", "replace")
        if path.endswith(".txt"):
            yield text
            continue
        for line in [text] if path.endswith((".json", ".json.gz")) else text.split("\n"):
            try:
                yield from strings(json.loads(line))
            except ValueError:
                yield line
    for path in sorted(glob.glob(sysconfig.get_path("stdlib") + "/*.py")):
        yield open(path, encoding="utf-8", errors="replace").read()


SCRIPTS = [(0x4e00, 0x9fff, 60), (0x600, 0x6ff, 40), (0x3040, 0x30ff, 15), (0xac00, 0xd7a3, 20), (0x900, 0x97f, 20),
           (0x400, 0x4ff, 15), (0x370, 0x3ff, 10), (0xe00, 0xe7f, 15), (0x1f300, 0x1faff, 30), (0x590, 0x5ff, 10),
           (0x20000, 0x2a6df, 4), (0x80, 0x24f, 20), (0x2000, 0x2bff, 20), (0x10000, 0x1ffff, 6)]


def recent(c):
    """Marks, digits and punctuation younger than some of the reference's Unicode tables (README of data/)."""
    return unicodedata.ucd_3_2_0.category(c) == "Cn" and unicodedata.category(c)[0] in "CPMN"


def scripts(r, size):
    """Words of many scripts, with spaces and punctuation between."""
    out = []
    while size > 0:
        low, high, _ = r.choices(SCRIPTS, [w for *_, w in SCRIPTS])[0]
        word = "".join(c for c in (chr(r.randint(low, high)) for _ in range(r.randint(1, 8))) if not recent(c))
        if r.random() < 0.1:
            word = "".join(r.choice("\U0001f468\U0001f469\u200d\U0001f467\ufe0f\U0001f3fd\U0001f1e9\U0001f1ea\u2764") for _ in range(6))
        out.append(word + r.choice([" ", "", "，", "。", "، ", "\n", ". ", "  ", "1", " 2024 "]))
        size -= len(out[-1].encode())
    return "".join(out)


def corpus(folder, size):
    """About `size` bytes: nearly all as text, the rest as bytes that are not UTF-8."""
    r, texts, total = random.Random(5), [], 0
    for text in documents(folder):
        if total > size * 0.8:
            break
        for at in range(0, len(text), 1 << 16):
            texts.append(text[at:at + (1 << 16)])
            total += len(texts[-1].encode())
    while total < size:
        texts.append(scripts(r, 4096))
        total += 4096
    for text in r.sample(texts, min(400, len(texts))):
        raw = bytearray(text.encode()[:3000])
        for _ in range(1 + len(raw) // 40):
            if raw:
                raw[r.randrange(len(raw))] = r.choice([0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xed, 0xf0, 0xf4, 0xff, 0xa0])
        texts.append(bytes(raw))
    texts += ["", "a" * 20000, "thequickbrownfox" * 4000, "你好世界" * 5000, " " * 5000, "\n" * 3000, "\x00\x01"]
    return texts, total


# ---- references ------------------------------------------------------------------------------------------------------

def hugging_face(path_or_json, special=False):
    t = Tokenizer.from_str(path_or_json) if path_or_json.lstrip()[:1] == "{" else Tokenizer.from_file(path_or_json)
    t.no_truncation(), t.no_padding()
    return t, lambda texts: [e.ids for e in t.encode_batch(texts, add_special_tokens=special)]


def spans(text, encoding):
    """Offsets in bytes; the library's count characters."""
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [[at[b], at[e]] for b, e in encoding.offsets]


def offsets(what, path, t, texts):
    """The bytes each token comes from, where both mean the same by it (README of data/)."""
    j = json.loads(t.to_str())
    processor = j["post_processor"] or {}
    if any(p.get("trim_offsets") for p in (processor, *processor.get("processors", ()))) or any(x in json.dumps(j["normalizer"]) for x in ("NF", "]+", "{2,}")):
        return
    if j["model"]["type"] == "Unigram" or (j["model"]["type"] == "BPE" and not j["model"]["unk_token"] and not has_bytes(j)):
        return
    texts = [x for x in texts if isinstance(x, str)]
    got, message = hone("encode", path, [as_row(x) for x in texts], "--offsets")
    for x, g, e in zip(texts, got, t.encode_batch(texts, add_special_tokens=False)):
        if g["ids"] == e.ids and g["offsets"] != spans(x, e):
            return fail(what + ", offsets", f"text {x!r}"[:400], f"hone      {g['offsets']}"[:300], f"reference {spans(x, e)}"[:300])


def has_bytes(j):
    """No character is unknown, as far as pre-tokenizers make bytes of all."""
    last = j["pre_tokenizer"] or {}
    last = (last.get("pretokenizers") or [last])[-1]
    if last.get("type") != "ByteLevel":
        return j["model"]["byte_fallback"]
    return all(c in j["model"]["vocab"] for c in byte_characters().values())


def decodes(what, path, t, ids):
    """Texts of the ids, with and without special tokens."""
    for skip in (False, True):
        got, message = hone("decode", path, [{"ids": i} for i in ids], *(["--skip-special-tokens"] if skip else []))
        if got is None:
            return fail(what + ", decoding", message)
        for i, g in zip(ids, got):
            try:
                want = t.decode(i, skip_special_tokens=skip)
            except BaseException:  # its Strip decoder panics on short text
                continue
            if g["text"] != want:
                return fail(f"{what}, decoding, skip {skip}", f"ids {i}"[:300], f"hone      {g['text']!r}"[:300], f"reference {want!r}"[:300])


def sentencepiece_reference(path):
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return lambda texts: sp.encode(texts)


# As tiktoken's own definitions have them.
TIKTOKEN = {
    50256: r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    100256: r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
}


def tiktoken_reference(path):
    import tiktoken
    raw = (gzip.open if str(path).endswith(".gz") else open)(path, "rb").read()
    ranks = {base64.b64decode(t): int(n) for t, n in (line.split() for line in raw.split(b"\n") if line)}
    pattern = {**TIKTOKEN, 128000: LLAMA3, 151643: LLAMA3.replace("{1,3}", ""), 199998: O200K, 163584: KIMI}[len(ranks)]
    t = tiktoken.Encoding("reference", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    nfc = len(ranks) == 151643  # Qwen's tokenizer composes first
    return lambda texts: [t.encode_ordinary(unicodedata.normalize("NFC", x) if nfc else x) for x in texts]


def golden_rows(path):
    """(text, ids) of a llama.cpp vocabulary test."""
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().split("\n")
    return [(t, [int(x) for x in ids.split()]) for t, ids in zip(texts, lines)]


SAME = {"llama-bpe": "tok-llama3/tokenizer.model", "qwen2": "tok-qwen2/voyage3_base.tiktoken.gz", "llama-spm": "tok-llama2/tokenizer.model",
        "deepseek-r1-qwen": "tok-qwen2/voyage3_base.tiktoken.gz", "gpt-2": "tok-gpt2/tokenizer.json", "phi-3": "tok-phi3/tokenizer.json"}


def goldens(args):
    """llama.cpp's recorded ids, by the GGUF vocabulary and by the same model's own files."""
    for inp in sorted(args.assets.glob("golden-llamacpp/*.inp")):
        name = inp.name.removeprefix("ggml-vocab-").removesuffix(".gguf.inp")
        rows = golden_rows(str(inp)[:-4])
        files = [Path(str(inp)[:-4])] if Path(str(inp)[:-4]).exists() else []
        files += [args.assets / SAME[name]] if name in SAME else []
        for file in files:
            if args.only in str(file):
                want = {t: i for t, i in rows}
                got = compare(f"golden {name} by {file.name}", str(file), [t for t, _ in rows], lambda x: [want[t] for t in x], shrink=False)
                if got:
                    print(f"ok      golden {name:18} {file.name}, {len(rows)} texts", flush=True)


def mistral_chat(args):
    """Conversations as mistral-common encodes them, by its SentencePiece files as a model folder has them."""
    for model in sorted(args.assets.glob("tok-mistral/v[23].model")):
        want = {}
        for path in sorted(args.assets.glob(f"golden-mistral-chat/*/text_{model.stem}.txt")):
            text = path.read_text()  # shown with its spaces as U+2581 and line ends as bytes
            for mark in ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
                         "[/TOOL_RESULTS]", "</s>"):
                for space in "\u2581 ":
                    text = text.replace(mark + space, mark)  # the first of every part comes of itself
            want[text.replace("\u2581", " ").replace("<0x0A>", "\n")] = json.loads(
                path.with_name(f"tokens_{model.stem}.json").read_text())["tokens"]
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(model, f"{folder}/tokenizer.model")
            Path(folder, "tokenizer_config.json").write_text("{}")
            if want and compare(f"conversations by {model.name}", folder, list(want), lambda x: [want[t] for t in x], shrink=False):
                print(f"ok      conversations      {model.name}, {len(want)} texts", flush=True)


def assets(args):
    goldens(args)
    mistral_chat(args)
    texts, size = corpus(args.assets, args.megabytes * 1e6)
    print(f"corpus  {len(texts)} texts, {size / 1e6:.1f} MB", flush=True)
    for path in sorted(args.assets.glob("tok-*/*")):
        if args.only not in str(path):
            continue
        start, decoder = time.time(), None
        try:
            if path.suffix == ".json" and '"model"' in path.read_text() and '"added_tokens"' in path.read_text():
                decoder, encode = hugging_face(str(path))
            elif ".tiktoken" in path.name or (path.suffix == ".model" and path.read_bytes()[:1] != b"\n"):
                encode = tiktoken_reference(path)
            elif path.suffix == ".model":
                encode = sentencepiece_reference(path)
            else:
                continue
        except ModuleNotFoundError as missing:
            print(f"skipped {path.name}: {missing.name} is not installed")
            continue
        before = failures
        for at in range(0, len(texts), 2000):
            ids = compare(str(path), str(path), texts[at:at + 2000], encode)
            if ids is None:
                break
            if decoder:
                decodes(str(path), str(path), decoder, [i[:500] for i in ids[::5]])
                offsets(str(path), str(path), decoder, texts[at:at + 2000:5])
        if failures == before:
            print(f"ok      {path.parent.name}/{path.name}, {time.time() - start:.0f} s", flush=True)


# ---- random tokenizers -----------------------------------------------------------------------------------------------

ALPHABET = ("abcdeXYZ 0123 \n\r\t'sdreLL  .,;!<>|[]()_-éèßñÇшИלم你好世カ한어😀\u0301\u0323\u200d\u00a0\u3000½²Ⅷ١ªʼſ\ufffd\u2581Ġİ"
            "\u1e9b\u0327ﬁＡ\u00ad\u200b\u0000\x1f\x7f\u0085\u2028\U0001f469\U0001f1e9\ufe0fあ々〇ǅ'/#$~^`=+\u0345\u05d0\u05b0")


def random_text(r, most=40):
    kind = r.random()
    n = r.randint(0, most)
    if kind < 0.55:
        return "".join(r.choice(ALPHABET) for _ in range(n))
    if kind < 0.7:
        return "".join(r.choice(r.choice(WORDS)) if r.random() < 0.1 else r.choice(WORDS) for _ in range(n // 3))
    if kind < 0.85:
        return scripts(r, n)
    if kind < 0.92:
        return "".join(r.choice(ALPHABET) * r.randint(1, 6) for _ in range(n // 3))
    raw = bytearray("".join(r.choice(ALPHABET) for _ in range(n + 1)).encode())
    for _ in range(r.randint(1, 3)):
        raw[r.randrange(len(raw))] = r.choice([0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xed, 0xf0, 0xf4, 0xff, 0xa0])
    return bytes(raw)


WORDS = ["the ", "king ", "<|endoftext|>", "<s>", "</s>", "don't", "I'LL", "<mask>", "  ", "\n\n", "▁the", "and", "<0x0A>",
         "Hello", " world", "2024", "naïve", "你好", "##ing", "[CLS]", "x1", "king", "_", "▁", "e\u0301"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
UP, LOW, ENDS = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
LEAD, BLANK = r"[^\r\n\p{L}\p{N}]?", r"\s*[\r\n]+|\s+(?!\S)|\s+"
NOT_HAN = r"&&[^\p{Han}]"
O200K = rf"{LEAD}[{UP}]*[{LOW}]+{ENDS}|{LEAD}[{UP}]+[{LOW}]*{ENDS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANK}"
KIMI = (rf"[\p{{Han}}]+|{LEAD}[{UP}{NOT_HAN}]*[{LOW}{NOT_HAN}]+{ENDS}|{LEAD}[{UP}{NOT_HAN}]+[{LOW}{NOT_HAN}]*{ENDS}|"
        rf"\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{BLANK}")
TEKKEN = O200K.replace(ENDS, "").replace("{1,3}", "")
DEEPSEEK3 = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
             r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|""" + BLANK]
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
PATTERNS = [GPT2, LLAMA3, LLAMA3.replace("{1,3}", ""), O200K, KIMI, TEKKEN, *DEEPSEEK3, BLOOM, r"[a-e]|(?=\s)", r"\w+|[^\w\s]+",
            r"\s+", r"[\u4e00-\u9fff]", r"\h+", "[^\\S\r\n]+|.", r"\d{,2}x", "[0-9][0-9][0-9]"]
BEHAVIOURS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def pattern(r):
    return {"Regex": r.choice(PATTERNS)} if r.random() < 0.8 else {"String": r.choice([" ", "a", "▁", "'s", "  "])}


def component(r, table, nested, kind=None):
    """One component of a table of makers, or now and then a Sequence."""
    if kind is None and r.random() < 0.3:
        return {"type": "Sequence", nested: [component(r, table, nested, k) for k in r.sample(sorted(table), r.randint(0, 3))]}
    kind = kind or r.choice(sorted(table))
    return {"type": kind, **table[kind](r)}


def flag(r):
    return r.random() < 0.5


CHARSMAP = []  # filled from a SentencePiece model where the library is installed
NORMALIZERS = {
    "NFC": lambda r: {}, "NFD": lambda r: {}, "NFKC": lambda r: {}, "NFKD": lambda r: {}, "Lowercase": lambda r: {}, "StripAccents": lambda r: {},
    "ByteLevel": lambda r: {}, "Prepend": lambda r: {"prepend": r.choice(["▁", "ab"])},
    "Replace": lambda r: {"pattern": {"Regex": r.choice(["[aeiou]+", " {2,}", r"\s", "x(?=y)"])} if flag(r) else {"String": r.choice([" ", "a"])},
                          "content": r.choice(["▁", "", "xy"])},
    "Strip": lambda r: {"strip_left": flag(r), "strip_right": flag(r)},
    "BertNormalizer": lambda r: {"clean_text": flag(r), "handle_chinese_chars": flag(r), "strip_accents": r.choice([None, True, False]), "lowercase": flag(r)},
}
PRE_TOKENIZERS = {
    "ByteLevel": lambda r: {"add_prefix_space": flag(r), "trim_offsets": True, "use_regex": flag(r)},
    "Split": lambda r: {"pattern": pattern(r), "behavior": r.choice(BEHAVIOURS), "invert": flag(r)},
    "Metaspace": lambda r: {"replacement": "▁", "prepend_scheme": r.choice(["first", "always", "never"]), "split": flag(r)},
    "Digits": lambda r: {"individual_digits": flag(r)}, "Punctuation": lambda r: {"behavior": r.choice(BEHAVIOURS)},
    "Whitespace": lambda r: {}, "WhitespaceSplit": lambda r: {}, "BertPreTokenizer": lambda r: {},
    "CharDelimiterSplit": lambda r: {"delimiter": r.choice("a▁ ")},
}
DECODERS = {
    "ByteLevel": lambda r: {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}, "ByteFallback": lambda r: {}, "Fuse": lambda r: {},
    "Replace": lambda r: {"pattern": {"String": r.choice(["▁", "a"])}, "content": r.choice([" ", ""])},
    "Strip": lambda r: {"content": r.choice(" ▁a"), "start": r.randint(0, 1), "stop": r.randint(0, 1)},
    "Metaspace": lambda r: {"replacement": "▁", "prepend_scheme": r.choice(["first", "always", "never"]), "split": flag(r)},
    "WordPiece": lambda r: {"prefix": "##", "cleanup": flag(r)}, "BPEDecoder": lambda r: {"suffix": "</w>"},
}


def random_model(r):
    """A small model of each kind, its vocabulary drawn from the alphabet and words."""
    base = r.choice(["gpt2", "llama3", "stories260K", "unigram", "wordpiece", "wordlevel", "bpe"])
    if (GOLDEN / f"{base}.json").exists():
        j = json.loads((GOLDEN / f"{base}.json").read_text())
        j["model"]["ignore_merges"] = r.random() < 0.3
        return j
    chars = sorted({c for c in ALPHABET + "".join(WORDS) if r.random() < 0.8 and c != "\0"})  # no NUL in our keys
    pieces = list(dict.fromkeys(["<unk>", *chars] + ["".join(r.choice(chars) for _ in range(r.randint(2, 4))) for _ in range(120)] +
                                [w[:k] for w in WORDS for k in range(2, len(w) + 1)]))
    if base == "unigram":
        if flag(r):
            pieces += [f"<0x{b:02X}>" for b in range(256) if f"<0x{b:02X}>" not in pieces]
        model = {"type": "Unigram", "unk_id": 0, "vocab": [[p, -r.random() * 12] for p in pieces], "byte_fallback": flag(r)}
    elif base == "wordpiece":
        vocab = {p: i for i, p in enumerate(dict.fromkeys(pieces + ["##" + p for p in pieces if r.random() < 0.6]))}
        model = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
                 "max_input_chars_per_word": r.choice([100, 5]), "vocab": vocab}
    elif base == "wordlevel":
        model = {"type": "WordLevel", "unk_token": "<unk>", "vocab": {p: i for i, p in enumerate(pieces)}}
    else:
        prefix, suffix = r.choice([("", ""), ("##", ""), ("", "</w>")])
        tokens, merges = dict.fromkeys(["<unk>", *chars, *(prefix + c for c in chars), *(c + suffix for c in chars)]), []
        for _ in range(120):
            a, b = r.choice(list(tokens)), r.choice(list(tokens))
            joined = a + b[len(prefix):] if b.startswith(prefix) else ""
            if joined and joined not in tokens and len(joined) < 9 and "<unk>" not in joined:
                tokens[joined] = None
                merges.append([a, b])
        model = {"type": "BPE", "dropout": None, "unk_token": r.choice(["<unk>", None]), "continuing_subword_prefix": prefix or None,
                 "end_of_word_suffix": suffix or None, "fuse_unk": flag(r), "byte_fallback": False, "ignore_merges": flag(r),
                 "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None, "model": model}


def random_tokenizer(r):
    j = random_model(r)
    if r.random() < 0.8:
        j["normalizer"] = component(r, NORMALIZERS, "normalizers") if flag(r) else None
        j["pre_tokenizer"] = component(r, PRE_TOKENIZERS, "pretokenizers")
    if r.random() < 0.7:
        j["decoder"] = component(r, DECODERS, "decoders")
    vocab = j["model"]["vocab"]
    size = max(vocab.values()) + 1 if isinstance(vocab, dict) else len(vocab)
    known = set(vocab) if isinstance(vocab, dict) else {p for p, _ in vocab}
    used = {a["id"] for a in j["added_tokens"]} | ({0, 1, 2} if used_specials(j) else set())
    for content in r.sample(["<mask>", "<R>", "naïve", "  ", "<|endoftext|>", "king", "e\u0301", "Q#"], r.randint(0, 4)):
        if content in known or any(a["content"] == content for a in j["added_tokens"]):
            continue
        j["added_tokens"].append({"id": max([size, *(i + 1 for i in used)]), "content": content, "single_word": r.random() < 0.2,
                                  "lstrip": r.random() < 0.3, "rstrip": r.random() < 0.3, "normalized": r.random() < 0.4, "special": flag(r)})
        used.add(j["added_tokens"][-1]["id"])
    return j


def used_specials(j):
    return bool(j["added_tokens"])


def fuzz(seconds, seed):
    r, folder, rounds, refused, cases = random.Random(seed), Path(tempfile.mkdtemp(prefix="hone-fuzz-")), 0, 0, 0
    end = time.time() + seconds
    path = folder / "tokenizer.json"
    while time.time() < end and failures < 10:
        j = random_tokenizer(r)
        try:
            t, encode = hugging_face(json.dumps(j))
        except BaseException:
            refused += 1
            continue
        path.write_text(json.dumps(j, ensure_ascii=False))
        texts = [random_text(r, r.choice([8, 40, 200])) for _ in range(150)]
        try:
            encode([as_text(t) for t in texts])
        except BaseException as e:  # its panics are its own
            refused += 1
            continue
        def differing(texts):
            try:
                return encode(texts)
            except BaseException:
                return [None] * len(texts)
        shown = json.dumps({k: v for k, v in j.items() if k != "model"}, ensure_ascii=False)
        ids = compare(f"seed {seed} round {rounds}: {j['model']['type']} {shown}", str(path), texts, differing)
        if ids is None and failures:
            shutil.copy(path, f"/tmp/hone-fuzz-{seed}-{rounds}.json")
        if ids is not None:
            offsets(f"seed {seed} round {rounds}: {j['model']['type']} {shown}", str(path), t, texts)
        own_form = j["normalizer"] and any(a["normalized"] for a in j["added_tokens"])  # ours, knowingly (README of data/)
        if ids is not None and not own_form:
            decodes(f"seed {seed} round {rounds}: {shown}", str(path), t, ids)
        rounds += 1
        cases += len(texts)
    shutil.rmtree(folder)
    print(f"fuzz    {rounds} random tokenizers, {cases} strings; {refused} that the reference refused")


# ---- recorded goldens ------------------------------------------------------------------------------------------------

def recorded(text, ids, t=None):
    """A row as tests/golden/tokenizers/make.py writes them."""
    row = {"text": text} if isinstance(text, str) else {"hex": text.hex()}
    row["ids"] = ids
    try:
        skip, plain = (t.decode(ids, skip_special_tokens=k) for k in (True, False)) if t else (None, None)
    except BaseException:
        return row
    if t:
        row["skip"] = skip
        if plain != skip:
            row["plain"] = plain
    return row


def write_rows(name, rows):
    (GOLDEN / name).write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows))


def record_random(r):
    """Random tokenizers with the reference's ids and texts: random.jsonl, in the form of cases.jsonl."""
    rows, models = [], 0
    while len(rows) < 900:
        j = random_tokenizer(r)
        own = not any(j["model"].get("vocab") == json.loads((GOLDEN / f"{b}.json").read_text())["model"]["vocab"] for b in BASES)
        if own and models >= 9:
            continue
        try:
            t, encode = hugging_face(json.dumps(j))
            texts = [random_text(r, 30) for _ in range(18)]
            ids = encode([as_text(x) for x in texts])
        except BaseException:
            continue
        patch = {k: v for k, v in j.items() if k not in ("model", "version", "truncation", "padding")}
        base = "gpt2"
        if own:
            patch["model"] = j["model"]
            models += 1
        else:
            base = next(b for b in BASES if j["model"]["vocab"] == json.loads((GOLDEN / f"{b}.json").read_text())["model"]["vocab"])
            patch["model.ignore_merges"] = j["model"]["ignore_merges"]
        own_form = j["normalizer"] and any(a["normalized"] for a in j["added_tokens"])
        rows.append({"base": base, "patch": patch, "add": False})
        rows += [recorded(x, i, None if own_form else t) for x, i in zip(texts, ids)]
    greedy = [{"id": 512, "content": "  ", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": False}]
    t, encode = hugging_face(json.dumps({**json.loads((GOLDEN / "stories260K.json").read_text()), "added_tokens": greedy}))
    texts = ["     ", "a      b", "the   king  "]  # a token whose white space the one before has swallowed vanishes
    rows += [{"base": "stories260K", "patch": {"added_tokens": greedy}, "add": False}] + [recorded(x, i, t) for x, i in zip(texts, encode(texts))]
    write_rows("random.jsonl", rows)


def record_offsets(r):
    """The bytes each token comes from: offsets.jsonl, in the form of cases.jsonl."""
    rows = []
    qwen = {"normalizer": {"type": "NFC"}}
    replace = {"normalizer": {"type": "Replace", "pattern": {"Regex": "x(?=y)|e"}, "content": "z"}}
    for base, patch in (("gpt2", {}), ("llama3", {}), ("qwen2", qwen), ("stories260K", {}), ("qwen2", replace)):
        t, _ = hugging_face(json.dumps({**json.loads((GOLDEN / f"{base}.json").read_text()), **patch}))
        texts = [x for x in (random_text(r, 30) for _ in range(60)) if isinstance(x, str) and (patch != qwen or unicodedata.is_normalized("NFC", x))]
        encodings = t.encode_batch(["", "  you see  xy xx", *texts[:24]], add_special_tokens=False)
        rows += [{"base": base, "patch": patch, "add": False}]
        rows += [{"text": x, "ids": e.ids, "offsets": spans(x, e)} for x, e in zip(["", "  you see  xy xx", *texts], encodings)]
    write_rows("offsets.jsonl", rows)


def record_files(r):
    """Small SentencePiece models and a rank file, and what their libraries make of random strings: files.jsonl."""
    import sentencepiece
    import tiktoken
    lines = [line for line in (GOLDEN / "corpus.txt").read_text().split("\n") if line]
    rules = Path(tempfile.mkdtemp(prefix="hone-rules-")) / "rules.tsv"
    rules.write_text("FB01\t66 69\nFF21\t41\nAD\t\n65 301\tE9\n3000\t20\nBD\t31 2044 32\n")
    kinds = {
        "unigram.model": dict(model_type="unigram", byte_fallback=True, user_defined_symbols=["<sep>", "king", "▁▁"], vocab_size=520),
        "unigram-map.model": dict(model_type="unigram", normalization_rule_tsv=str(rules), vocab_size=300),
        "bpe.model": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True, remove_extra_whitespaces=False,
                          user_defined_symbols=["<sep>", "king", "  "], vocab_size=600),
        "bpe-suffix.model": dict(model_type="bpe", normalization_rule_tsv=str(rules), treat_whitespace_as_suffix=True, vocab_size=300),
    }
    rows = []
    for name, options in kinds.items():
        options = {"normalization_rule_name": "identity", **options} if "normalization_rule_tsv" not in options else options
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=str(GOLDEN / name.removesuffix(".model")),
                                                 minloglevel=2, num_threads=1, **options)
        (GOLDEN / name).with_suffix(".vocab").unlink()
        encode = sentencepiece_reference(GOLDEN / name)
        texts = [random_text(r, 30) for _ in range(60)] + lines[:3] + ["the kings  king <sep> a", " ﬁＡ\xade\u0301½ \u3000 x "]
        rows += [{"file": name}] + [recorded(x, i) for x, i in zip(texts, encode([as_text(x) for x in texts]))]
    j = json.loads((GOLDEN / "llama3.json").read_text())
    byte = {c: b for b, c in byte_characters().items()}
    tokens = sorted(((i, bytes(byte[c] for c in t)) for t, i in j["model"]["vocab"].items() if t != "<|endoftext|>"))
    ranks = {t: i for i, t in tokens}
    (GOLDEN / "ranks").mkdir(exist_ok=True)
    (GOLDEN / "ranks/small.tiktoken").write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in tokens))
    (GOLDEN / "ranks/tokenizer_config.json").write_text(json.dumps({"pat_str": KIMI, "added_tokens_decoder": {
        "0": {"content": "<|endoftext|>", "special": True}, "600": {"content": "<|user|>", "special": True, "lstrip": True}}}, ensure_ascii=False) + "\n")
    t = tiktoken.Encoding("small", pat_str=KIMI, mergeable_ranks=ranks, special_tokens={})
    texts = [random_text(r, 30) for _ in range(80)]
    texts = [x for x in texts if "<|" not in as_text(x)]
    rows += [{"file": "ranks"}] + [recorded(x, t.encode_ordinary(as_text(x))) for x in texts]
    write_rows("files.jsonl", rows)


def byte_characters():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


BASES = ("gpt2", "llama3", "stories260K")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--assets", type=Path)
    a.add_argument("--megabytes", type=float, default=24)
    a.add_argument("--only", default="", help="of the assets those whose path holds this")
    a.add_argument("--fuzz", type=float, default=0, help="seconds")
    a.add_argument("--seed", type=int, default=int(time.time()))
    a.add_argument("--record", action="store_true", help="write the goldens of tests/test_tokenizer*.c anew")
    args = a.parse_args()
    if args.record:
        record_random(random.Random(7))
        record_files(random.Random(8))
        record_offsets(random.Random(9))
    if args.assets:
        assets(args)
    if args.fuzz:
        fuzz(args.fuzz, args.seed)
    print(f"{failures} differences")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
