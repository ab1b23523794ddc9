/* source.c: documents out of text files and JSON, and the split into training and validation.
 *
 * The split is a property of the row, not of the reader: a row is held out when a hash of (seed,
 * row number) falls under the fraction, so the two parts are disjoint whatever is read first, and
 * all documents made of one row stay on one side. A text file that is a single document is cut
 * instead, at the start of a line. Rejected: "the last n rows" (files are often sorted) and a hash
 * of the content (one typo moves a row to the other side). */
#include "data/datasets/datasets_int.h"
#include <string.h>

enum { COMPACT = 1 << 20 };
static const i64 document_limit = (i64)1 << 30; /* bytes; also what a decompression bomb can take */

struct source {
    char *path;
    struct source_options options;
    bool jsonl, opened;
    enum { UNKNOWN, LINES, FIRST, NEXT, AFTER } form; /* of JSON: lines; or where in an array */
    struct byte_stream stream;
    struct source_facts facts;
    struct text buffer; /* decompressed and not yet yielded, from `at` on */
    i64 at;
    i64 offset, line; /* of buffer.data[at] in the decompressed file: bytes from 0, lines from 1 */
    i64 row;          /* of the next row */
    struct rows rows; /* of JSON: what the last one holds */
};

static int source_type(struct source *s, struct err *e) {
    const char *type = s->options.type, *path = s->path;
    if (!type) {
        size_t n = strlen(path);
        if (n > 3 && !strcmp(path + n - 3, ".gz"))
            n -= 3;
        else if (n > 4 && !strcmp(path + n - 4, ".zst"))
            n -= 4;
        const char *name = memrchr(path, '/', n), *dot = memrchr(path, '.', n);
        i64 size = dot && dot > (name ? name : path) ? path + n - dot : 0;
        if (size == 4 && !memcmp(dot, ".txt", 4))
            type = "text";
        else if (size == 6 && !memcmp(dot, ".jsonl", 6))
            type = "jsonl";
        else if (size == 5 && !memcmp(dot, ".json", 5))
            type = "jsonl";
    }
    if (!type || (strcmp(type, "text") && strcmp(type, "jsonl"))) {
        if (type)
            err_input(e, "'%s': there is no source type '%s'", path, type);
        else
            err_input(e, "'%s': its name does not say what it holds", path);
        err_detail(e, "known are .txt (text), .jsonl and .json (one JSON object per line, or one "
                      "array of them), each also with .gz or .zst");
        return err_hint(e, "rename it or give type: text or type: jsonl");
    }
    s->jsonl = !strcmp(type, "jsonl");
    return 0;
}

struct source *source_open(const char *path, const struct source_options *options, struct err *e) {
    struct source *s = mem_new(sizeof *s, e);
    if (!s) return NULL;
    s->options = *options, s->line = 1;
    s->rows = (struct rows){.options = &s->options, .facts = &s->facts};
    if (!(s->path = mem_text(path, e)) || source_type(s, e) ||
        byte_stream_open(&s->stream, s->path, e)) {
        source_close(s);
        return NULL;
    }
    s->opened = true, s->rows.path = s->path;
    return s;
}

void source_close(struct source *s) {
    if (!s) return;
    if (s->opened) byte_stream_close(&s->stream);
    rows_free(&s->rows);
    text_free(&s->buffer);
    mem_free(s->path);
    mem_free(s);
}

const struct source_facts *source_facts(const struct source *s) { return &s->facts; }
const struct row_notes *source_notes(const struct source *s) { return &s->rows.notes; }

static bool source_wanted(const struct source *s, i64 row) {
    const struct source_options *o = &s->options;
    if (o->split == SPLIT_ALL) return true;
    const struct rng rng = {.seed = o->seed, .purpose = RNG_ORDER, .stream = UINT32_MAX};
    bool held_out = rng_uniform_f64(&rng, (u64)row) < o->validation_fraction;
    return held_out == (o->split == SPLIT_VALIDATION);
}

/* ---- text in rows ---------------------------------------------------------------------------- */

static int source_fill(struct source *s, struct err *e) {
    i64 left = s->buffer.size - s->at;
    if (s->at >= COMPACT && s->at > left) {
        memmove(s->buffer.data, s->buffer.data + s->at, (size_t)left);
        s->buffer.size = left, s->at = 0;
    }
    if (left < document_limit) return byte_stream_read(&s->stream, &s->buffer, e);
    err_input(e, "%s:%lld: a document of more than %lld bytes", s->path, (long long)s->line,
              (long long)document_limit);
    return err_hint(e, "split the file, or give document_separator if it holds several documents");
}

/* Takes `size` bytes of the buffer, keeping count of lines. */
static void source_take(struct source *s, i64 size) {
    const char *p = s->buffer.data + s->at, *end = p + size;
    for (; p < end && (p = memchr(p, '\n', (size_t)(end - p))); p++) s->line++;
    s->at += size, s->offset += size;
}

/* Finds the next row: [*from, *from + *size) of the buffer, *whole with the separator. 1, 0 at the
 * end, or -1. */
static int source_row(struct source *s, const char *separator, i64 *size, i64 *whole,
                      struct err *e) {
    const i64 n = (i64)strlen(separator);
    i64 seen = 0;
    for (;;) {
        const char *data = s->buffer.data + s->at, *hit = NULL;
        i64 have = s->buffer.size - s->at;
        if (n && have) hit = memmem(data + seen, (size_t)(have - seen), separator, (size_t)n);
        if (hit) return *size = hit - data, *whole = *size + n, 1;
        if (s->stream.ended) return *size = *whole = have, have > 0;
        seen = i64_max(0, have - n + 1);
        if (source_fill(s, e)) return -1;
    }
}

static int source_utf8(struct source *s, const char *text, i64 size, struct err *e) {
    i64 bad = utf8_bad(text, size), line = s->line, column = 1;
    if (bad < 0) return 0;
    for (i64 i = 0; i < bad; i++)
        line += text[i] == '\n', column = text[i] == '\n' ? 1 : column + 1;
    err_input(
        e, "%s:%lld: invalid UTF-8: byte 0x%02x at byte %lld of the line (byte %lld of the text)",
        s->path, (long long)line, (unsigned char)text[bad], (long long)column,
        (long long)(s->offset + bad));
    return err_hint(e, "convert the file, for instance with: iconv -f latin1 -t utf-8");
}

/* One document that is the whole file: its split is a cut. */
static void source_cut(const struct source *s, i64 *begin, i64 *size) {
    const char *data = s->buffer.data + s->at;
    if (s->options.split == SPLIT_ALL) return;
    i64 cut = i64_max(0, *size - (i64)(s->options.validation_fraction * (double)*size));
    if (cut > 0 && cut < *size && data[cut - 1] != '\n') {
        const char *end = memchr(data + cut, '\n', (size_t)(*size - cut));
        cut = end ? end + 1 - data : *size;
    }
    *begin = s->options.split == SPLIT_TRAIN ? 0 : cut;
    *size = (s->options.split == SPLIT_TRAIN ? cut : *size) - *begin;
}

static int source_next_text(struct source *s, struct document *out, struct err *e) {
    const char *separator = s->options.document_separator ? s->options.document_separator : "";
    for (i64 size, whole, begin;;) {
        int r = source_row(s, separator, &size, &whole, e);
        if (r <= 0) return r;
        const char *text = s->buffer.data + s->at;
        if (source_utf8(s, text, size, e)) return -1;
        begin = 0;
        if (!*separator) source_cut(s, &begin, &size);
        /* A run of more than one blank line is one border, not an empty document. */
        while (*separator && begin < size && text[begin] == '\n') begin++, size--;
        source_take(s, whole);
        if (size <= 0) continue;
        i64 row = s->row++;
        if (*separator && !source_wanted(s, row)) continue;
        *out = (struct document){.text = text + begin,
                                 .size = size,
                                 .row = row,
                                 .segments = 1,
                                 .segment = {{size, true}}};
        return 1;
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Byte i of what follows, 0 at the end, or -1. */
static int peek(struct source *s, i64 i, struct err *e) {
    while (s->at + i >= s->buffer.size) {
        if (s->stream.ended) return 0;
        if (source_fill(s, e)) return -1;
    }
    return (unsigned char)s->buffer.data[s->at + i];
}

/* Takes white space; what follows, as peek. */
static int peek_past(struct source *s, struct err *e) {
    int c;
    while ((c = peek(s, 0, e)) > 0 && strchr(" \t\r\n", c)) source_take(s, 1);
    return c;
}

static int array_wrong(struct source *s, const char *expected, struct err *e) {
    if (e->code) return -1;
    err_input(e, "%s:%lld: after element %lld of the array there is no %s", s->path,
              (long long)s->line, (long long)s->row, expected);
    return peek(s, 0, e) ? -1 : err_hint(e, "the file ends there: download or copy it again");
}

/* The next element of an array, *size bytes from here on; 1, 0 after the last, or -1. */
static int array_element(struct source *s, i64 *size, struct err *e) {
    if (s->form == AFTER) return 0;
    int c = peek_past(s, e);
    if (c == ']') {
        source_take(s, 1), s->form = AFTER;
        return peek_past(s, e) ? array_wrong(s, "end of the file", e) : 0;
    }
    if (s->form == NEXT && c != ',') return array_wrong(s, "',' or ']'", e);
    if (s->form == NEXT) source_take(s, 1), c = peek_past(s, e);
    s->form = NEXT;
    i64 i = 0, depth = 0;
    for (bool text = false, more = true; more; i++) {
        if ((c = peek(s, i, e)) <= 0) return array_wrong(s, "complete one and ']'", e);
        if (text) {
            if (c == '\\') i++;
            text = c != '"';
            continue;
        }
        if (!depth && (c == ',' || c == ']')) break; /* no object: row_parse says so */
        text = c == '"', depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        more = depth || text || (c != '}' && c != ']');
    }
    return *size = i, i ? 1 : array_wrong(s, "other element", e);
}

/* The next object, or a blank line: *size bytes, *whole with what ends it. */
static int json_row(struct source *s, i64 *size, i64 *whole, struct err *e) {
    if (s->form == UNKNOWN) {
        const int c = peek_past(s, e);
        if (c < 0) return -1;
        s->form = c == '[' ? FIRST : LINES;
        if (c == '[') source_take(s, 1);
    }
    if (s->form == LINES) return source_row(s, "\n", size, whole, e);
    const int r = array_element(s, size, e);
    return *whole = *size, r;
}

static int row_parse(struct source *s, const char *data, i64 size, struct err *e) {
    if (source_utf8(s, data, size, e)) return -1;
    json_error_t fault;
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY;
    json_t *row = json_loadb(data, (size_t)size, flags, &fault);
    const bool inexact = !row && json_error_code(&fault) == json_error_numeric_overflow;
    if (inexact) row = json_loadb(data, (size_t)size, flags | JSON_DECODE_INT_AS_REAL, &fault);
    if (!row)
        return err_input(e, "%s:%lld:%d: not valid JSON: %s", s->path,
                         (long long)s->line + i64_max(fault.line - 1, 0),
                         fault.line > 1 ? fault.column : fault.position, fault.text);
    if (json_is_object(row)) return rows_take(&s->rows, row, s->row, s->line, inexact), 0;
    json_decref(row);
    err_input(e, "%s:%lld: not a JSON object", s->path, (long long)s->line);
    return err_detail(e, "expected one object per line, or one array of objects");
}

static bool blank(const char *p, i64 size) {
    while (size && strchr(" \t\r\n", *p) && *p) p++, size--;
    return !size;
}

static int source_next_json(struct source *s, struct document *out, struct err *e) {
    for (;;) {
        const int found = rows_next(&s->rows, out, e);
        if (found) return found;
        i64 size = 0, whole = 0;
        const int r = json_row(s, &size, &whole, e);
        if (r <= 0) return r ? r : rows_end(&s->rows, e);
        const char *data = s->buffer.data + s->at;
        const bool empty = blank(data, size), skip = empty || !source_wanted(s, s->row);
        if (!skip && row_parse(s, data, size, e) && !rows_skip(&s->rows, s->line, e)) return -1;
        s->row += !empty;
        source_take(s, whole);
    }
}

int source_next(struct source *s, struct document *out, struct err *e) {
    if (!s->offset && !s->buffer.size) { /* a byte order mark is not text */
        while (s->buffer.size < 3 && !s->stream.ended)
            if (source_fill(s, e)) return -1;
        if (s->buffer.size >= 3 && !memcmp(s->buffer.data, "\xef\xbb\xbf", 3)) source_take(s, 3);
    }
    int r = s->jsonl ? source_next_json(s, out, e) : source_next_text(s, out, e);
    if (r > 0) s->facts.documents++;
    if (!r && !s->facts.sha256[0]) {
        s->facts.bytes = s->stream.bytes;
        sha256_end(&s->stream.sha256, s->facts.sha256);
        s->stream.sha256.context = NULL;
    }
    return r;
}

int source_texts(const char *path, text_fn *each, void *arg, struct err *e) {
    struct source *s = source_open(path, &(struct source_options){0}, e);
    struct document d;
    int found = s ? 0 : -1;
    while (s && (found = source_next(s, &d, e)) > 0) {
        int rc = 0;
        i64 at = 0;
        for (int i = 0; !rc && i < d.segments; at += d.segment[i++].size)
            rc = each(arg, d.text + at, d.segment[i].size, e);
        if (rc) break;
    }
    source_close(s);
    return found ? -1 : 0;
}
