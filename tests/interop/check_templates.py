"""check_templates.py HONE [--record] TEMPLATE...: does hone render chat templates as Jinja2 does?

Each TEMPLATE is a .jinja file, or JSON with "chat_template" (text or list of named ones). All are rendered by
`hone render` and by Jinja2 with transformers' settings over the conversations below, with and without tools and
generation prompt, and so are the small templates of tests/golden/jinja/snippets.jsonl. Equal means the same bytes and
the same generation spans, or that both refuse (and hone not because it does not know a construct). Exit code 1 if
anything differs. --record writes what tests/unit/data/test_jinja.c replays: Jinja2's texts of the snippets into that file, rows.jsonl
and, for each TEMPLATE that lies in tests/golden/jinja, NAME.sha256 with the text's hash for each row. Needs jinja2 alone.
"""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from datetime import datetime, timezone

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1767225600  # 2026-01-01 00:00:00 UTC
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class Generation(jinja2.ext.Extension):
    """{% generation %}: a scope of its own; notes where its text lands."""

    tags = {"generation"}
    noted = None

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("note"), [], [], body).set_lineno(line)

    def note(self, caller):
        text = caller()
        blocks, spans = Generation.noted
        begin = len("".join(blocks).encode())
        if text:
            spans.append([begin, begin + len(text.encode())])
        return text


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    class Namespace(jinja2.utils.Namespace):
        def __setitem__(self, name, value):
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(name)
            super().__setitem__(name, value)

    env.globals["namespace"] = Namespace
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.fromtimestamp(NOW, timezone.utc).strftime(form)
    return env


def render(template, row):
    blocks, spans = [], []
    Generation.noted = (blocks, spans)
    messages = []
    for message in row["messages"]:  # what transformers does to messages first
        message = {k: v for k, v in message.items() if v is not None}
        reasoning = next((message[k] for k in ("reasoning_content", "thinking", "reasoning") if k in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        messages.append(message)
    try:
        for block in template.generate(
            **{**SPECIAL, "tools": row.get("tools"), "documents": row.get("documents"),
               **row.get("chat_template_kwargs", {})},
            messages=messages, add_generation_prompt=row.get("add_generation_prompt", False),
        ):
            blocks.append(block)
    except Exception as error:  # any: a template's own refusal, a type error of Python, ...
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": "".join(blocks), "generation": spans}


def conversations():
    user = {"role": "user", "content": "What is 2 + 2? <b>\"quoted\"</b> 'single' 中文 🙂\n"}
    answer = {"role": "assistant", "content": "It is 4.\n\n  Really."}
    system = {"role": "system", "content": "  You are \\terse\\.  "}
    call = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "abcdef123", "type": "function", "function": {
            "name": "get_weather", "arguments": {"city": "Zürich", "days": 3, "exact": True, "at": 1.5, "x": None}}}]}
    call_text = json.loads(json.dumps(call))
    call_text["content"] = ""
    call_text["tool_calls"][0]["function"]["arguments"] = json.dumps({"city": "Zürich", "days": 3})
    two_calls = json.loads(json.dumps(call))
    two_calls["tool_calls"].append({"id": "ghijkl456", "type": "function", "function": {"name": "now", "arguments": {}}})
    result = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"rain\": [1, 2.0]}"}
    result_object = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123",
                     "content": {"rain": [1, 2.0, 1e-7, 1e22], "deep": {"a": {"b": []}, "e": {}}}}
    second = {"role": "tool", "name": "now", "tool_call_id": "ghijkl456", "content": "noon"}
    think = {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nYes."}
    reasoning = {"role": "assistant", "content": "Yes.", "reasoning_content": "hmm"}
    parts = {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}
    image = {"role": "user", "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": "what?"}]}
    sets = {
        "one": [user], "turn": [user, answer], "turns": [user, answer, user], "system": [system, user],
        "system_turns": [system, user, answer, {**user, "content": "again"}, answer],
        "calls": [user, call, result, answer], "calls_text": [system, user, call_text, result, answer, user],
        "two_calls": [user, two_calls, result, second, answer, user, call, result_object],
        "call_last": [user, call], "think": [user, think, user, think], "reasoning": [user, reasoning, user],
        "parts": [parts], "image": [system, image, answer], "developer": [{**system, "role": "developer"}, user],
        "channel": [user, {**answer, "channel": "analysis"}, user], "twice": [user, user], "answer_first": [answer],
        "odd_role": [{"role": "bystander", "content": "?"}], "empty_text": [{"role": "user", "content": ""}],
        "null": [user, {"role": "assistant", "content": None}], "spaces": [{"role": "user", "content": " \t x\r\n "}],
        "none": [],
    }
    function = {"type": "function", "function": {
        "name": "get_weather", "description": "Weather <now> & 'later'.\nTwo lines.", "parameters": {
            "type": "object", "properties": {
                "city": {"type": "string", "description": "A city", "enum": ["Zürich", "Oslo"]},
                "days": {"type": "integer", "description": "How many", "default": 3},
                "ratio": {"type": ["number", "null"], "description": "r", "nullable": True},
                "list": {"type": "array", "items": {"type": "string"}, "description": "l"},
                "one": {"oneOf": [{"type": "string", "description": "s", "default": "q"}, {"type": "number"}], "description": "o"},
                "deep": {"type": "object", "properties": {"y": {"type": "boolean"}, "x": {"type": "array"}}, "description": "d"}},
            "required": ["city"]},
        "return": {"type": "string", "description": "text"}}}
    plain = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {}}}
    for name, messages in sets.items():
        for tools in (None, [function], [function, plain])[: 3 if "call" in name else 2]:
            for prompt in (False, True):
                yield {"name": name, "messages": messages, "tools": tools, "add_generation_prompt": prompt}
    documents = [{"title": "T", "text": "t\nu"}, {"title": "U", "text": "v"}]
    extras = [
        {"enable_thinking": False}, {"enable_thinking": True}, {"thinking": True}, {"date_string": "01 Jan 2030"},
        {"builtin_tools": ["browser", "python"], "reasoning_effort": "high", "model_identity": "You are X."},
        {"builtin_tools": ["code_interpreter", "brave_search"], "tools_in_user_message": False},
        {"functions": "f()", "datetime": "today", "citation_mode": "off", "safety_mode": "none"},
        {"custom_tools": [plain], "grounding_options": {"enabled": True}},
    ]
    for extra in extras:
        for tools in (None, [function]):
            yield {"name": "extra", "messages": [system, user, answer, user], "tools": tools, "documents": documents,
                   "add_generation_prompt": True, "chat_template_kwargs": extra}


def templates(path):
    path = pathlib.Path(path)
    if path.suffix != ".json":
        return [(path.name, path.read_text())]
    found = json.loads(path.read_text())["chat_template"]
    return [(path.name, found)] if isinstance(found, str) else [(f"{path.name}:{t['name']}", t["template"]) for t in found]


def hone(program, source, rows):
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder, "chat_template.jinja")
        text.write_bytes(source.encode())
        pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps(SPECIAL))
        done = subprocess.run([program, "render", folder, "--as-is"], input="".join(json.dumps(r) + "\n" for r in rows),
                              capture_output=True, text=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(NOW), "TZ": "UTC"})
    if done.returncode:
        return None, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line], None


def compare(program, name, source, rows):
    """How many of the rows differ, how many Jinja2 refuses, and its results."""
    got, error = hone(program, source, rows)
    try:
        template = environment().from_string(source)
        theirs = [render(template, row) for row in rows]
    except jinja2.TemplateError as wrong:
        theirs = [{"error": str(wrong)} for _ in rows]
    if got is None:
        got = [{"error": error} for _ in rows]
    bad = 0
    for row, a, b in zip(rows, got, theirs):
        said = a.get("error", "")
        missing = "not supported" in said and "the template refuses" not in said
        same = missing == bool(row.get("unsupported")) and (missing or ("error" in b if "error" in a else a == b))
        bad += not same
        if not same and bad <= 2:
            print(f"{name} / {row['name']} tools={bool(row.get('tools'))} prompt={row.get('add_generation_prompt')}:")
            print("  hone:  ", json.dumps(a, ensure_ascii=False)[:1500])
            print("  jinja2:", json.dumps(b, ensure_ascii=False)[:1500])
    if bad:
        print(f"{name}: {bad} of {len(rows)} differ")
    return bad, sum("error" in b for b in theirs), theirs


def main():
    golden = pathlib.Path(__file__).resolve().parent.parent / "golden" / "jinja"
    args = [a for a in sys.argv[1:] if a != "--record"]
    record = len(args) < len(sys.argv) - 1
    program, files = args[0], args[1:]
    rows = list(conversations())
    total = refused = different = 0
    for file in files:
        for name, source in templates(file):
            bad, no, theirs = compare(program, name, source, rows)
            total, refused, different = total + len(rows), refused + no, different + bad
            if record and pathlib.Path(file).resolve().parent == golden:
                lines = ["refused" if "error" in t else hashlib.sha256(t["text"].encode()).hexdigest()[:16] for t in theirs]
                (golden / (name + ".sha256")).write_text("".join(line + "\n" for line in lines))
    snippets = [json.loads(line) for line in (golden / "snippets.jsonl").read_text().split("\n") if line]
    row = {"name": "snippet", "messages": [{"role": "user", "content": "hi"}], "tools": None, "add_generation_prompt": True}
    for s in snippets:
        bad, no, theirs = compare(program, s["template"], s["template"], [{**row, "unsupported": s.get("unsupported")}])
        total, refused, different = total + 1, refused + no, different + bad
        s.pop("text", None), s.pop("error", None), s.pop("generation", None)
        s.update(theirs[0] if not s.get("unsupported") else {"error": "unsupported"})
    print(f"{total} renderings, {refused} refused, {different} differ")
    if record:
        (golden / "rows.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
        (golden / "snippets.jsonl").write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in snippets))
    return different > 0


if __name__ == "__main__":
    sys.exit(main())
