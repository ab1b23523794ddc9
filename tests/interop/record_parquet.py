"""Makes tests/golden/parquet: files that pyarrow writes, each beside the JSON lines of its rows. Usage:
record_parquet.py                 (from the repository's root)
record_parquet.py FOLDER COUNT    COUNT random tables in random forms (types, nesting, codecs, encodings, page versions and
                                  sizes), FOLDER/N.parquet and FOLDER/N.jsonl, for
HONE_PARQUET=FOLDER build/HASH/tests/test_parquet"""
import decimal
import json
import pathlib
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

TO = pathlib.Path("tests/golden/parquet")
MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
CODECS = ["none", "snappy", "gzip", "zstd", "lz4"]


def text(r):
    return "".join(r.choice(["a", "é", "日", "\n", '"', "b c", " "]) for _ in range(r.randint(0, 12)))


def value(r, t):
    if r.random() < 0.15:
        return None
    if pa.types.is_struct(t):
        return {f.name: value(r, f.type) for f in t}
    if pa.types.is_list(t):
        return [value(r, t.value_type) for _ in range(r.choice([0, 1, 2, 5]))]
    if pa.types.is_boolean(t):
        return r.random() < 0.5
    if pa.types.is_unsigned_integer(t):
        return r.randint(0, 2 ** min(t.bit_width, 63) - 1)
    if pa.types.is_integer(t):
        half = 2 ** (t.bit_width - 1)
        return r.choice([r.randint(-half, half - 1), r.randint(-5, 5)])
    if pa.types.is_floating(t):
        return r.choice([0.5, -1.25, 1e10, float(r.randint(-9, 9))])
    return text(r)


def kind(r, depth=0):
    k = r.random()
    if depth < 3 and k < 0.2:
        return pa.struct([pa.field(f"f{i}", kind(r, depth + 1)) for i in range(r.randint(1, 3))])
    if depth < 3 and k < 0.4:
        return pa.list_(kind(r, depth + 1))
    return r.choice([pa.string(), pa.large_string(), pa.int64(), pa.int32(), pa.int8(), pa.uint16(), pa.uint32(), pa.uint64(),
                     pa.bool_(), pa.float64(), pa.float32()])


def encodings(r, path, t, element, to):
    if pa.types.is_struct(t):
        for f in t:
            encodings(r, f"{path}.{f.name}", f.type, element, to)
    elif pa.types.is_list(t):
        encodings(r, f"{path}.list.{element}", t.value_type, element, to)
    elif pa.types.is_integer(t):
        to[path] = r.choice(["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"])
    elif pa.types.is_floating(t):
        to[path] = r.choice(["PLAIN", "BYTE_STREAM_SPLIT"])
    elif pa.types.is_boolean(t):
        to[path] = r.choice(["PLAIN", "RLE"])
    else:
        to[path] = r.choice(["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])


def write(table, path, **how):
    pq.write_table(table, f"{path}.parquet", **how)
    with open(f"{path}.jsonl", "w") as f:
        for row in table.to_pylist():
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def one(seed, path, rows=None, **fixed):
    r = random.Random(seed)
    fields = [pa.field("text", pa.string())] + [pa.field(f"c{i}", kind(r)) for i in range(r.randint(0, 4))]
    if seed % 5 == 0:
        fields.append(pa.field("messages", MESSAGES))
    made = [{f.name: value(r, f.type) if f.name != "text" else text(r) + "!" for f in fields}
            for _ in range(rows or r.choice([0, 1, 3, 50, 1000]))]
    how = dict(compression=r.choice(CODECS), data_page_version=r.choice(["1.0", "2.0"]), version=r.choice(["1.0", "2.4", "2.6"]),
               use_dictionary=r.random() < 0.5, data_page_size=r.choice([64, 1000, 1 << 20]),
               row_group_size=r.choice([7, 100, 1 << 20]), write_page_checksum=r.random() < 0.5,
               use_compliant_nested_type=r.random() < 0.7) | fixed
    if not how["use_dictionary"] and r.random() < 0.5:
        how["column_encoding"] = {}
        for f in fields:
            encodings(r, f.name, f.type, "element" if how["use_compliant_nested_type"] else "item", how["column_encoding"])
    write(pa.Table.from_pylist(made, schema=pa.schema(fields)), path, **how)


def goldens():
    TO.mkdir(exist_ok=True)
    chats = [{"messages": [{"role": "user", "content": f"q{i} é"}, {"role": "assistant", "content": f"a{i}"}] * (i % 3),
              "source": None if i % 2 else "s", "id": i * 10 ** 15} for i in range(20)]
    schema = pa.schema([pa.field("messages", MESSAGES), pa.field("source", pa.string()), pa.field("id", pa.int64())])
    table = pa.Table.from_pylist(chats, schema=schema)
    for codec in CODECS:
        write(table, TO / f"chat-{codec}", compression=codec, row_group_size=8)
    pq.write_table(table, TO / "brotli.parquet", compression="brotli")
    # What JSON has no form for: hone reads it as null and counts it (5 values); times as they are stored.
    odd = pa.table({"text": ["a", "b"], "image": pa.array([b"\xff\xd8", b"plain"], pa.binary()),
                    "nan": pa.array([float("nan"), 0.5], pa.float64()), "inf": pa.array([float("-inf"), 1.0], pa.float32()),
                    "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
                    "day": pa.array([1, 20000], pa.date32()), "big": pa.array([2 ** 63 - 1, 7], pa.uint64()),
                    "uuid": pa.array([b"0123456789abcdef", None], pa.binary(16)), "none": pa.nulls(2),
                    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))})
    pq.write_table(odd, TO / "odd.parquet")
    with open(TO / "odd.jsonl", "w") as f:
        for row in ({"text": "a", "image": None, "nan": None, "inf": None, "price": None, "day": 1, "big": 2 ** 63 - 1,
                     "uuid": None, "none": None, "map": [{"key": "k", "value": 1}]},
                    {"text": "b", "image": "plain", "nan": 0.5, "inf": 1.0, "price": None, "day": 20000, "big": 7, "uuid": None,
                     "none": None, "map": None}):
            f.write(json.dumps(row) + "\n")
    for seed in range(12):
        one(seed, TO / f"random-{seed}", rows=5, row_group_size=3, store_schema=False, write_statistics=False)


if len(sys.argv) == 3:
    for n in range(int(sys.argv[2])):
        one(n, pathlib.Path(sys.argv[1]) / str(n))
else:
    goldens()
