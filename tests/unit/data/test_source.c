/* test_source.c: documents, splits and compression; every refusal with its message. */
#include "tests/unit/data/dataset_fixture.h"
#include <zlib.h>
#include <zstd.h>

/* All documents of a file, one a line: "[trained](prompt)", or "! primary" on an error. */
static char *documents_of(const char *path, const struct source_options *options, struct err *e) {
    static char out[1 << 16];
    struct document d;
    struct source *s = source_open(path, options, e);
    i64 n = 0;
    int r = s ? 1 : -1;
    out[0] = 0;
    while (r > 0 && (r = source_next(s, &d, e)) > 0)
        for (i64 k = 0, at = 0; k < d.segments; at += d.segment[k++].size)
            n += snprintf(out + n, sizeof out - (size_t)n,
                          d.segment[k].trained ? "[%.*s]%s" : "(%.*s)%s", (int)d.segment[k].size,
                          d.text + at, k + 1 == d.segments ? "\n" : "");
    if (r < 0) snprintf(out, sizeof out, "! %s", e->primary);
    source_close(s);
    return out;
}

struct source_case {
    const char *name, *content, *want;
    struct source_options options;
};

static void source_expect(const struct source_case *c) {
    struct err e = {0};
    char want[1024];
    const char *path = file_put(c->name, c->content, (i64)strlen(c->content));
    const char *found = documents_of(path, &c->options, &e);
    if (strstr(c->want, "%s")) {
        const char *mark = strstr(c->want, "%s");
        snprintf(want, sizeof want, "%.*s%s%s", (int)(mark - c->want), c->want, path, mark + 2);
    } else {
        snprintf(want, sizeof want, "%s", c->want);
    }
    assert_string_equal(found, want);
}

static void test_forms(void **state) {
    (void)state;
    static const struct source_case cases[] = {
        {"a.txt", "one\n\ntwo\n", "[one\n\ntwo\n]\n", {0}},
        {"a.txt", "", "", {0}},
        {"a.txt", "\xef\xbb\xbfx", "[x]\n", {0}},
        {"a.txt", "a\nb\n\nc\n\n\n\nd", "[a\nb]\n[c]\n[d]\n", {.document_separator = "\n\n"}},
        {"a.txt", "\n\n\n\na\n\n", "[a]\n", {.document_separator = "\n\n"}},
        {"a.txt", "a<|end|>\nb<|end|>", "[a]\n[b]\n", {.document_separator = "<|end|>"}},
        {"a.data", "x", "[x]\n", {.type = "text"}},
        {"a.jsonl",
         "{\"text\": \"one\"}\n\n {\"text\": \"\"}\n{\"id\": 123456789012345678901, \"text\": "
         "\"t\\u00e9\"}",
         "[one]\n[t\xc3\xa9]\n",
         {0}},
        {"a.json", "{\"prompt\": \"p\", \"completion\": \"c\"}\n", "[p][c]\n", {0}},
        {"a.json",
         "\n [ {\"text\":\n\"a]\\\\\\\"}\"}\n,{\"x\": [{}], \"text\": \"b\"} ]\n",
         "[a]\\\"}]\n[b]\n",
         {0}},
        {"a.json", "[]", "", {0}},
        {"a.json",
         "{\"prompt\": \"p\", \"completion\": \"c\"}\n{\"prompt\": \"\", \"completion\": "
         "\"d\"}\r\n",
         "(p)[c]\n[d]\n",
         {.completion_only_loss = true}},
        {"a.jsonl",
         "{\"instruction\": \"i\", \"input\": \"n\", \"output\": \"o\"}\n{\"instruction\": \"i\", "
         "\"input\": null, \"output\": \"o\"}",
         "(### Instruction:\ni\n\n### Input:\nn\n\n### Response:\n)[o]\n(### "
         "Instruction:\ni\n\n### Response:\n)[o]\n",
         {.completion_only_loss = true}},
        {"a.jsonl",
         "{\"instruction\": \"i\", \"instances\": [{\"input\": \"\", \"output\": \"o\"}, "
         "{\"input\": \"n\", \"output\": \"p\"}]}\n{\"text\": \"t\"}",
         "(### Instruction:\ni\n\n### Response:\n)[o]\n(### Instruction:\ni\n\n### "
         "Input:\nn\n\n### Response:\n)[p]\n[t]\n",
         {.completion_only_loss = true}},
        {"a.jsonl", "{\"instruction\": \"i\", \"instances\": []}\n{\"text\": \"t\"}", "[t]\n", {0}},
    };
    for (i64 i = 0; i < COUNT(cases); i++) source_expect(&cases[i]);
}

/* Rows as others write them: over several lines, with NaN, in CSV, in UTF-16. */
static void test_files_of_others(void **state) {
    (void)state;
    static const struct source_case cases[] = {
        {"a.jsonl",
         "{\n \"text\": \"one\"\n}\n{\"text\":\n\"{two\"} \n\n{\"text\": \"three\"}",
         "[one]\n[{two]\n[three]\n",
         {0}},
        {"a.json", "{\n\"text\": \"one\", \"x\": [\n[], {}]\n}\n", "[one]\n", {0}},
        {"a.jsonl",
         "{\"a\": NaN, \"text\": \"NaN -Infinity\"}\n{\"text\": \"b\", \"x\": [Infinity,-Infinity, "
         "1]}",
         "[NaN -Infinity]\n[b]\n",
         {0}},
        {"a.json", "[{\"x\": [NaN,\n{\"y\":-Infinity}], \"text\": \"a\"}]", "[a]\n", {0}},
        {"a.ndjson", "{\"text\": \"a\"}", "[a]\n", {0}},
        {"a.jsonl",
         "\xef\xbb\xbf"
         "{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}\r\n",
         "[a]\n[b]\n",
         {0}},
        {"a.jsonl",
         "{\"text\": \"\\ud83d\\ude00\\u2028\"}",
         "[\xf0\x9f\x98\x80\xe2\x80\xa8]\n",
         {0}},
        {"a.md", "# a\n\nb", "[# a\n\nb]\n", {0}},
        {"a.MD", "b", "[b]\n", {0}},
        {"a.csv", "text,id\na,1\n", "[a]\n", {0}},
        {"a.csv",
         "\xef\xbb\xbftext,id\r\n\"a, \"\"b\"\"\r\n\",1\r\n\r\n c ,2",
         "[a, \"b\"\r\n]\n[ c ]\n",
         {0}},
        {"a.csv", ",text\n0,007\n1,NA\n", "[007]\n[NA]\n", {0}}, /* as pandas writes an index */
        {"a.csv", "\"text\"\na b \"c\"\n", "[a b \"c\"]\n", {0}},
        {"a.csv", "text\n", "", {0}},
        {"a.csv", "", "", {0}},
        {"a.tsv", "prompt\tcompletion\np, q\t\"c\td\"\n", "[p, q][c\td]\n", {0}},
        {"a.csv",
         "instruction,input,output\ni,,o\ni,n,o",
         "[### Instruction:\ni\n\n### Response:\n][o]\n[### Instruction:\ni\n\n### "
         "Input:\nn\n\n### Response:\n][o]\n",
         {0}},
    };
    for (i64 i = 0; i < COUNT(cases); i++) source_expect(&cases[i]);
}

/* A zero byte is text, and a line may be as long as memory. */
static void test_odd_texts(void **state) {
    (void)state;
    enum { LONG = 5000000 };
    struct err e = {0};
    struct document d;
    static const char nul[] = "{\"text\": \"a\\u0000b\"}\n{\"text\": \"";
    char *file = mem_new(sizeof nul + LONG + 3, &e);
    memcpy(file, nul, sizeof nul - 1), memset(file + sizeof nul - 1, 'x', LONG);
    memcpy(file + sizeof nul - 1 + LONG, "\"}", 2);
    const char *path = file_put("long.jsonl", file, (i64)sizeof nul - 1 + LONG + 2);
    struct source *s = source_open(path, &(struct source_options){0}, &e);
    assert_int_equal(source_next(s, &d, &e), 1);
    assert_memory_equal(d.text, "a\0b", d.size == 3 ? 3 : 4);
    assert_int_equal(source_next(s, &d, &e), 1);
    assert_int_equal(d.size, LONG);
    assert_int_equal(source_next(s, &d, &e), 0);
    source_close(s), mem_free(file);
}

/* Exports that hold their rows in an object. */
static void test_rows_in_an_object(void **state) {
    (void)state;
    static const struct source_case cases[] = {
        {"a.json", "{\"data\": [{\"text\": \"a\"},\n{\"text\": \"b\"}]}\n", "[a]\n[b]\n", {0}},
        {"a.json",
         "\n{\"version\": 1, \"x\": {\"rows\": []}, \"rows\": [ {\"id\": 1, \"text\": \"}]\"} ] , "
         "\"next\": null }",
         "[}]]\n",
         {0}},
        {"a.json",
         "{\"SELECT * FROM t\": [{\"text\": \"a\"}], \"meta\": [{\"name\": \"text\"}]}",
         "[a]\n",
         {0}},
        {"a.json", "{\"text\": \"a\", \"data\": [{\"text\": \"b\"}]}", "[a]\n", {0}},
        {"a.jsonl", "{\"text\": \"a\", \"data\": [{}]}\n{\"text\": \"b\"}", "[a]\n[b]\n", {0}},
        {"a.jsonl",
         "{\"data\": [{\"text\": \"a\"}]}\n{\"text\": \"b\"}",
         "! %s:1: no text found; the keys are: 'data'",
         {0}},
        {"a.json",
         "{\"data\": [{\"text\": \"a\"},\n{\"text\": 3}]}",
         "! %s:2: 'text' is an integer",
         {0}},
        {"a.json",
         "{\"data\": [{\"text\": \"a\"},\n{\"text\": \"b\", \"text\": \"c\"}]}",
         "! %s:2:20: not valid JSON: duplicate object key near '\"text\"'",
         {0}},
        {"a.json",
         "{\"data\": [{\"title\": \"a\"}]}",
         "! %s:1: no text found; the keys are: 'title'",
         {0}},
        {"a.json",
         "{\"data\": [{\"text\": \"a\"}], \"rows\": [{\"text\": \"b\"}]}",
         "! %s:1: no text found; the keys are: 'data', 'rows'",
         {0}},
        {"a.json", "{\"data\": []}", "! %s:1: no text found; the keys are: 'data'", {0}},
        {"a.json", "{\"data\": [[\"a\"]]}", "! %s:1: no text found; the keys are: 'data'", {0}},
        {"a.json", "{\"data\": [{\"text\": \"a\"}, 3]}", "! %s:1: not a JSON object", {0}},
    };
    for (i64 i = 0; i < COUNT(cases); i++) source_expect(&cases[i]);
}

/* Each byte order of UTF-16, characters outside of its first plane, and ends inside of one. */
static void test_utf16(void **state) {
    (void)state;
    static const char text[] = "{\"text\": \"t\xc3\xa9 \xf0\x9f\x99\x82\"}\n";
    for (int big = 0; big < 2; big++) {
        struct err e = {0};
        u8 out[256] = {big ? 0xfe : 0xff, big ? 0xff : 0xfe};
        i64 n = 2;
        for (i64 at = 0; at < (i64)sizeof text - 1;) {
            const int code = utf8_next(text, sizeof text - 1, &at), pair = code > 0xffff;
            const int unit[] = {pair ? 0xd800 + ((code - 0x10000) >> 10) : code,
                                0xdc00 + (code & 0x3ff)};
            for (int k = 0; k <= pair; k++, n += 2)
                out[n + !big] = (u8)(unit[k] >> 8), out[n + big] = (u8)unit[k];
        }
        const struct source_options o = {0};
        assert_string_equal(documents_of(file_put("u.jsonl", out, n), &o, &e),
                            "[t\xc3\xa9 \xf0\x9f\x99\x82]\n");
        documents_of(file_put("u.jsonl", out, n - 1), &o, &e);
        assert_non_null(strstr(e.primary, "is UTF-16, and ends inside a character"));
        e = (struct err){0}; /* the second half of the pair is gone */
        documents_of(file_put("u.txt", out, n - 8), &o, &e);
        assert_non_null(strstr(e.primary, "is UTF-16, and ends inside a character"));
        e = (struct err){0}, out[n - 8 + !big] = 0;
        documents_of(file_put("u.txt", out, n), &o, &e);
        assert_non_null(strstr(e.primary, "u.txt:1: invalid UTF-16: half a pair of surrogates"));
        e = (struct err){0};
        documents_of(file_put("u.txt", out + 2, 20), &o, &e);
        assert_non_null(strstr(e.primary, "is UTF-16 without a byte order mark"));
        assert_non_null(strstr(e.hint, big ? "-f UTF-16BE" : "-f UTF-16LE"));
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct source_case cases[] = {
        {"a.xlsx", "x", "! '%s': its name does not say what it holds", {0}},
        {"a.parquet.gz", "x", "! '%s': its name does not say what it holds", {0}},
        {"a", "x", "! '%s': its name does not say what it holds", {0}},
        {"a.txt", "x", "! '%s': there is no source type 'arrow'", {.type = "arrow"}},
        {"a.txt",
         "ab\nc\xff"
         "d",
         "! %s:2: invalid UTF-8: byte 0xff at byte 2 of the line (byte 4 of the text)",
         {0}},
        {"a.txt",
         "ab\n\nc\n\xc3",
         "! %s:4: invalid UTF-8: byte 0xc3 at byte 1 of the line (byte 6 of the text)",
         {.document_separator = "\n\n"}},
        {"a.jsonl",
         "{\"text\": \"a\"}\n{\"text\": \"\xed\xa0\x80\"}",
         "! %s:2: invalid UTF-8: byte 0xed at byte 11 of the line (byte 24 of the text)",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\"}\n{\"text\": ",
         "! %s:2:9: not valid JSON: unexpected token near end of file",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\"} x",
         "! %s:1:15: not valid JSON: end of file expected near 'x'",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\", \"text\": \"b\"}",
         "! %s:1:20: not valid JSON: duplicate object key near '\"text\"'",
         {0}},
        {"a.json", "[\n1]", "! %s:2: not a JSON object", {0}},
        {"a.json", "{\"text\": \"a\"}\n[]", "! %s:2: not a JSON object", {0}},
        {"a.json",
         "[{\"text\": \"a\"},\n{\"text\":\n 1 x}]",
         "! %s:3:4: not valid JSON: '}' expected near 'x'",
         {0}},
        {"a.json",
         "[{\"text\": \"a\"},]",
         "! %s:1: after element 1 of the array there is no other element",
         {0}},
        {"a.json",
         "[{\"text\": \"a\"} {}",
         "! %s:1: after element 1 of the array there is no ',' or ']'",
         {0}},
        {"a.json",
         "[{\"text\": \"a\"}",
         "! %s:1: after element 1 of the array there is no ',' or ']'",
         {0}},
        {"a.json",
         "[{\"text\": \"a",
         "! %s:1: after element 0 of the array there is no complete one and ']'",
         {0}},
        {"a.json",
         "[{\"text\": \"a\"}]\n]",
         "! %s:2: after element 1 of the array there is no end of the file",
         {0}},
        {"a.jsonl", "{\"text\": 3}", "! %s:1: 'text' is an integer", {0}},
        {"a.jsonl",
         "{\"text\": \"a\",\n \"x\": 1\n{\"text\": \"b\"}",
         "! %s:3:1: not valid JSON: '}' expected near '{'",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\"}\n\n{\n\"text\": \"b\",\n\"x\": \"\n\"}\n",
         "! %s:5:6: not valid JSON: unexpected newline near '\"'",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\"}\n{\n\"text\": \"b\"\n",
         "! %s:4:0: not valid JSON: '}' expected near end of file",
         {0}},
        {"a.jsonl",
         "{\"text\": \"\\ud83d\"}",
         "! %s:1:17: not valid JSON: invalid Unicode '\\uD83D' near '\"\\ud83d\"'",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\", \"id\": 1e400}",
         "! %s:1:25: not valid JSON: real number overflow near '1e400'",
         {0}},
        {"a.jsonl",
         "{\"text\": \"a\", \"x\": nan}",
         "! %s:1:22: not valid JSON: invalid token near 'nan'",
         {0}},
        {"a.csv", "text,id\na,1\nb\n", "! %s:3: 1 field, and the header names 2 columns", {0}},
        {"a.csv", "text\na,1,2\n", "! %s:2: 3 fields, and the header names 1 column", {0}},
        {"a.csv", "id,text\n1,\"a\nb", "! %s:2:3: a quote that is never closed", {0}},
        {"a.csv", "id,text\n1,\"a\nb\"c\n", "! %s:3:3: text behind a closing quote", {0}},
        {"a.csv",
         "text\na\rb\n",
         "! %s:2:2: a carriage return without a newline, outside of quotes",
         {0}},
        {"a.csv", "a,b,a\n", "! %s:1:6: two columns have one name", {0}},
        {"a.csv", "text;id\n", "! %s:1: the header names one column, 'text;id'", {0}},
        {"a.csv",
         "text\na\xff\n",
         "! %s:2: invalid UTF-8: byte 0xff at byte 2 of the line (byte 6 of the text)",
         {0}},
        {"a.jsonl",
         "{\"prompt\": {}, \"completion\": \"c\"}",
         "! %s:1: 'prompt' is an object",
         {0}},
        {"a.jsonl",
         "\n{\"messages\": []}",
         "! %s:2: a conversation, and there is no chat template",
         {0}},
        {"a.jsonl",
         "{\"id\": 3, \"body\": \"b\"}",
         "! %s:1: no text found; the keys are: 'id', 'body'",
         {0}},
        {"a.jsonl", "{}", "! %s:1: no text found; the keys are: none", {0}},
        {"a.jsonl", "{\"instruction\": \"i\"}", "! %s:1: an instruction without 'output'", {0}},
        {"a.jsonl",
         "{\"instruction\": \"i\", \"input\": 4, \"output\": \"o\"}",
         "! %s:1: 'input' is an integer",
         {0}},
        {"a.jsonl",
         "{\"instruction\": \"i\", \"instances\": {}}",
         "! %s:1: 'instances' is not an array of objects",
         {0}},
        {"a.jsonl",
         "{\"instruction\": \"i\", \"instances\": [3]}",
         "! %s:1: 'instances' is not an array of objects",
         {0}},
        {"a.txt.gz",
         "not gzip",
         "! '%s' is not valid gzip data before byte 2: incorrect header check",
         {0}},
        {"a.txt.zst",
         "not zstd",
         "! '%s' is not valid zstd data before byte 0: Unknown frame descriptor",
         {0}},
    };
    for (i64 i = 0; i < COUNT(cases); i++) source_expect(&cases[i]);
    struct err e = {0};
    assert_null(source_open(in_folder("missing.txt"), &(struct source_options){0}, &e));
    assert_non_null(strstr(e.primary, "No such file or directory"));
    e = (struct err){0};
    assert_int_equal(dir_make(in_folder("sub.txt"), &e), 0);
    assert_null(source_open(in_folder("sub.txt"), &(struct source_options){0}, &e));
    assert_non_null(strstr(e.primary, "is a folder"));
}

/* ---- compression ----------------------------------------------------------------------------- */

static i64 gzip_add(u8 *out, i64 capacity, const char *text, i64 size) {
    z_stream z = {0};
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (u8 *)(uintptr_t)text, z.avail_in = (unsigned)size, z.next_out = out,
    z.avail_out = (unsigned)capacity;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return capacity - z.avail_out;
}

/* Two members or frames; sizes around the block size of the reader, where decoders hold output
 * back. */
static void test_compression(void **state) {
    (void)state;
    enum { LARGEST = 400000 };
    static char text[LARGEST + 1];
    static u8 packed[2 * LARGEST];
    const i64 sizes[] = {1, 1000, 131071, 131072, 131073, 262144, LARGEST};
    const struct source_options options = {0};
    for (i64 zst = 0; zst < 2; zst++)
        for (i64 k = 0; k < 2 * COUNT(sizes); k++) {
            i64 size = sizes[k / 2], half = size / 2, n = 0;
            for (i64 i = 0; i < size; i++) /* compressible or not */
                text[i] = (char)(k % 2 ? 'a' + i / 700 % 20
                                       : 32 + (i * i * 7919 + i / 3 * 104729) / 64 % 95);
            for (int part = 0; part < 2; part++) {
                const char *from = text + (part ? half : 0);
                i64 count = part ? size - half : half;
                if (zst)
                    n += (i64)ZSTD_compress(packed + n, sizeof packed - (size_t)n, from,
                                            (size_t)count, 3);
                else
                    n += gzip_add(packed + n, (i64)sizeof packed - n, from, count);
            }
            struct err e = {0};
            struct document d;
            const char *path = file_put(zst ? "b.txt.zst" : "b.txt.gz", packed, n);
            struct source *s = source_open(path, &options, &e);
            char hash[65];
            assert_int_equal(source_next(s, &d, &e), 1);
            assert_int_equal(d.size, size);
            assert_memory_equal(d.text, text, (size_t)size);
            assert_int_equal(source_next(s, &d, &e), 0);
            assert_int_equal(source_facts(s)->bytes, n);
            assert_int_equal(sha256_file(path, hash, &e), 0);
            assert_string_equal(source_facts(s)->sha256, hash);
            source_close(s);
            for (int cut = 1; cut < 9; cut += 3) { /* every truncation is seen */
                path = file_put(zst ? "c.txt.zst" : "c.txt.gz", packed, n - cut);
                assert_non_null(strstr(documents_of(path, &options, &e), "is truncated: its"));
                e = (struct err){0};
            }
        }
}

/* ---- the split ------------------------------------------------------------------------------- */

static void test_split(void **state) {
    (void)state;
    struct text all = {0};
    struct err e = {0};
    for (int i = 0; i < 1000; i++)
        assert_int_equal(text_printf(&all, &e, "{\"text\": \"%d\"}\n", i), 0);
    const char *path = file_put("rows.jsonl", all.data, all.size);
    text_free(&all);
    for (u64 seed = 0; seed < 3; seed++) {
        u8 part[1000] = {0};
        i64 held_out = 0;
        for (int split = SPLIT_TRAIN; split <= SPLIT_VALIDATION; split++) {
            struct source_options o = {
                .split = (enum split)split, .validation_fraction = 0.1, .seed = seed};
            struct source *s = source_open(path, &o, &e);
            struct document d;
            while (source_next(s, &d, &e) > 0) {
                int row = atoi(d.text);
                assert_int_equal(d.row, row);
                assert_false(part[row]);
                part[row] = (u8)split, held_out += split == SPLIT_VALIDATION;
            }
            source_close(s);
        }
        assert_true(held_out > 70 && held_out < 130);
        for (int i = 0; i < 1000; i++) assert_true(part[i]);
    }
}

static void test_split_of_one_text(void **state) {
    (void)state;
    static const struct source_case cases[] = {
        {"a.txt",
         "aaaa\nbbbb\ncccc\ndddd\n",
         "[aaaa\nbbbb\ncccc\n]\n",
         {.split = SPLIT_TRAIN, .validation_fraction = 0.25}},
        {"a.txt",
         "aaaa\nbbbb\ncccc\ndddd\n",
         "[dddd\n]\n",
         {.split = SPLIT_VALIDATION, .validation_fraction = 0.25}},
        {"a.txt",
         "aaaa\nbbbb\ncccc\ndddd\n",
         "[aaaa\nbbbb\ncccc\n]\n",
         {.split = SPLIT_TRAIN, .validation_fraction = 0.4}},
        {"a.txt",
         "aaaa\nbbbb\ncccc\ndddd\n",
         "[dddd\n]\n",
         {.split = SPLIT_VALIDATION, .validation_fraction = 0.4}},
        {"a.txt",
         "no line ends",
         "[no line ends]\n",
         {.split = SPLIT_TRAIN, .validation_fraction = 0.5}},
        {"a.txt", "no line ends", "", {.split = SPLIT_VALIDATION, .validation_fraction = 0.5}},
    };
    for (i64 i = 0; i < COUNT(cases); i++) source_expect(&cases[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_files_of_others),
                                       cmocka_unit_test(test_odd_texts),
                                       cmocka_unit_test(test_rows_in_an_object),
                                       cmocka_unit_test(test_utf16),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_compression),
                                       cmocka_unit_test(test_split),
                                       cmocka_unit_test(test_split_of_one_text)};
    return cmocka_run_group_tests_name("source", tests, folder_make, folder_remove);
}
