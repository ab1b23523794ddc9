"""Makes the files of this folder from corpus.txt and tok512.bin; needs Hugging Face tokenizers 0.21.4 and, for the three
trained tokenizers, nothing else: they are trained here by its BpeTrainer, and hone's trainer must write the same bytes.

Newer releases (0.23) decode added tokens that have `normalized` set by their normalised text; 0.21.4 by their own."""
import json, random, struct, sys
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
ROOT = sys.argv[1]  # this folder
EOT = "<|endoftext|>"


def train(name, pattern):
    t = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    t.pre_tokenizer = byte_level if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    text = open(ROOT + "/corpus.txt", newline="").read()
    t.train_from_iterator([text], trainers.BpeTrainer(vocab_size=600, special_tokens=[EOT], show_progress=False,
                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.save(f"{ROOT}/{name}.json")


def stories(path):
    """llama2.c's tok512.bin as a tokenizer.json in the form transformers gives Llama 2."""
    raw, at, tokens = open(path, "rb").read(), 4, []
    while at < len(raw):
        score, size = struct.unpack_from("<fi", raw, at)
        tokens.append((raw[at + 8:at + 8 + size].decode(), score))
        at += 8 + size
    names = ["<unk>", "<s>", "</s>"] + [t.replace(" ", "▁") for t, _ in tokens[3:]]
    vocab = {t: i for i, t in enumerate(names)}
    assert len(vocab) == 512
    merges = []
    for i, t in enumerate(names):
        if i < 259 or len(t) < 2: continue
        splits = [(t[:k], t[k:]) for k in range(1, len(t)) if t[:k] in vocab and t[k:] in vocab]
        merges += [(-tokens[i][1], vocab[a], vocab[b], a, b) for a, b in splits]
    t = Tokenizer(models.BPE(vocab=vocab, merges=[(a, b) for *_, a, b in sorted(merges)], unk_token="<unk>",
                             fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in names[:3]])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    t.save(ROOT + "/stories260K.json")


def texts(r, many):
    fixed = ["", " ", "  ", "\n", "Hello world", " Hello  world ", "I'll don't WE'RE 'tis 'S", "12345 1234 x9",
             "a\n\n  b\t\tc \n", "\r\n\r\n x\r", "你好,世界 日本語", "😀👩‍👩‍👧🇩🇪", "naïve é ẹ́ e\u0323\u0301 가각",
             "x\u00a0y\u3000z\u2028w\u0085v", "'ſ 'S K", "½ ² Ⅷ ① ١٢٣", "<|endoftext|>", "a <|endoftext|> b",
             "<s>hi</s> there<s>", "▁▁a ▁b", "ilÖveyou", "\u0000\u0001x", "Ġthe Ċ", "a" * 150, "ab" * 130, " " * 40,
             "the king and the queen, " * 9, "\ufb01 Å \u212b \u1e9b\u0323 İI", "if (x) {\n\treturn 0;\n}\n"]
    pool = "abcdeXYZ 0123 \n\r\t'sdreLL  .,;!<>|[]()_-éèßñÇшИלم你好世カ한어😀\u0301\u0323\u200d\u00a0\u3000½²Ⅷ١ªʼſ\ufffd\u2581Ġİ"
    out = list(fixed)
    for i in range(many):
        out.append("".join(r.choice(pool) for _ in range(r.randint(1, 30))))
    raw = [x.encode() for x in out]
    for i in range(many // 3 + 3):  # broken UTF-8
        b = bytearray("".join(r.choice(pool) for _ in range(r.randint(1, 12))).encode())
        for _ in range(r.randint(1, 3)): b[r.randrange(len(b))] = r.choice([0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xed, 0xf0, 0xf4, 0xff, 0xa0])
        raw.append(bytes(b))
    return raw


def added(id, content, **flags):
    base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return dict(id=id, content=content, **{**base, **flags})


SPLIT = lambda p, b, i: {"type": "Split", "pattern": p, "behavior": b, "invert": i}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTES_GPT2 = {**BYTES, "use_regex": True}
SEQ = lambda key, *x: {"type": "Sequence", key: list(x)}
META = lambda w, s: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": w, "split": s}
MARKS = [added(0, EOT, special=True), added(600, "  ", normalized=True), added(601, "   ", normalized=True),
         added(602, "king", single_word=True), added(603, "<L>", lstrip=True, special=True),
         added(604, "<R>", rstrip=True), added(605, "e\u0323", normalized=True), added(606, "<LR>", lstrip=True, rstrip=True),
         added(607, "<L", normalized=True)]
STRING = {"String": " "}
TEMPLATE = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "E", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"B": {"id": "B", "ids": [5, 6], "tokens": ["a", "b"]},
                               "E": {"id": "E", "ids": [0], "tokens": [EOT]}}}
VARIANTS = [("gpt2", {}, 120), ("llama3", {}, 120), ("qwen2", {"normalizer": {"type": "NFC"}}, 60), ("stories260K", {}, 120),
            ("gpt2", {"added_tokens": MARKS, "normalizer": {"type": "NFC"}}, -1),
            ("llama3", {"pre_tokenizer": SEQ("pretokenizers", SPLIT({"Regex": O200K}, "Isolated", False), BYTES)}, 60),
            ("llama3", {"pre_tokenizer": SEQ("pretokenizers", SPLIT({"Regex": LLAMA3}, "Removed", True), BYTES)}, 10),
            ("llama3", {"model.ignore_merges": True, "post_processor": SEQ("processors", {**BYTES}, TEMPLATE)}, 10),
            ("gpt2", {"pre_tokenizer": {**BYTES_GPT2, "add_prefix_space": True}, "post_processor": TEMPLATE}, 10),
            ("gpt2", {"pre_tokenizer": SEQ("pretokenizers", BYTES_GPT2, {"type": "Digits", "individual_digits": False})}, 20),
            ("gpt2", {"pre_tokenizer": SEQ("pretokenizers", {"type": "Digits", "individual_digits": True}, BYTES_GPT2)}, 20),
            ("stories260K", {"normalizer": None, "pre_tokenizer": META("first", True), "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}}, 20),
            ("stories260K", {"normalizer": None, "pre_tokenizer": META("always", False), "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True}}, 20),
            ("stories260K", {"normalizer": None, "pre_tokenizer": META("never", True), "decoder": None}, 10),
            ("stories260K", {"model.byte_fallback": False}, 20),
            ("stories260K", {"model.byte_fallback": False, "model.fuse_unk": False}, 20),
            ("stories260K", {"model.unk_token": None, "model.byte_fallback": False}, 20),
            ("stories260K", {"decoder": SEQ("decoders", {"type": "Fuse"}, {"type": "Strip", "content": "▁", "start": 2, "stop": 1},
                             {"type": "Replace", "pattern": {"Regex": "[ei]|▁"}, "content": "-"})}, 20)]
VARIANTS += [("gpt2", {"normalizer": n}, 10) for n in (
    {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    SEQ("normalizers", {"type": "Lowercase"}, SEQ("normalizers", {"type": "Replace", "pattern": {"Regex": "[aeiou]+|x(?=y)"}, "content": "<v>"}), {"type": "Prepend", "prepend": "ab"}))]
VARIANTS += [("gpt2", {"pre_tokenizer": SEQ("pretokenizers", SPLIT(p, b, i), BYTES)}, 6)
             for p in (STRING, {"Regex": "[a-e]|(?=\\s)"}) for i in (False, True)
             for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")]


def patched(base, patch):
    j = json.load(open(f"{ROOT}/{base}.json"))
    for key, value in patch.items():
        at = j
        *path, last = key.split(".")
        for p in path: at = at[p]
        at[last] = value
    return Tokenizer.from_str(json.dumps(j))


def record(raw, t, add):
    text = raw.decode("utf-8", "replace")
    ids = t.encode(text, add_special_tokens=add).ids
    out = {"hex": raw.hex()} if text.encode() != raw else {"text": text}
    try:
        skip, plain = (t.decode(ids, skip_special_tokens=k) for k in (True, False))
    except BaseException:  # its Strip decoder panics on short text
        return {**out, "ids": ids}
    out.update(ids=ids, skip=skip)
    return {**out, "plain": plain} if plain != skip else out


def words(pattern, raw):
    text = raw.decode("utf-8", "replace")
    pieces = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)
    return {"text": text, "words": [len(p.encode()) for p, _ in pieces]}


def main():
    train("gpt2", None); train("llama3", LLAMA3); train("qwen2", QWEN2)
    stories(sys.argv[2])
    r = random.Random(11)
    extra = [s.encode() for s in ("a king's <L", "kings king, king", "x  <L>  <L> y", "<R>  \n z", " <LR>   <L>", "<LR> <LR>\u3000",
             "e\u0323 ẹ e", "king_ kingé", "   a     b", "<R>   <R>b<L>", "king king", "áking")]
    with open(ROOT + "/cases.jsonl", "w") as f:
        for k, (base, patch, many) in enumerate(VARIANTS):
            t = patched(base, patch)
            list_ = extra + texts(r, 20) if many < 0 else texts(r, many)
            rows = [record(x, t, k % 2 == 1) for x in list_]
            f.write(json.dumps({"base": base, "patch": patch, "add": k % 2 == 1}, ensure_ascii=False) + "\n")
            for row in rows: f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    with open(ROOT + "/words.jsonl", "w") as f:
        for p in (GPT2, LLAMA3, QWEN2, O200K):
            f.write(json.dumps({"pattern": p}) + "\n")
            for x in texts(r, 100): f.write(json.dumps(words(p, x), ensure_ascii=False, separators=(",", ":")) + "\n")


main()
