/* json_rows.c: JSON objects out of a file: one a line, each over several lines, or one array, be it
 * in an object around it.
 *
 * A line is parsed as it is: that is what nearly all rows are. Where it is no complete value, a
 * scan says why. It follows the grammar, not only braces, so it ends at the first token that may
 * not stand there: one broken row costs its own bytes, not the rest of the file. NaN, Infinity and
 * -Infinity, which Python's json.dumps writes, become null and are counted. */
#include "data/datasets/readers.h"
#include <string.h>

enum { LEVELS = 2048, EXCERPT = 200 }; /* as many as Jansson reads; bytes behind a fault */

/* ---- where a value ends ---------------------------------------------------------------------- */

enum expected { VALUE, FIRST_VALUE, KEY, FIRST_KEY, COLON, COMMA, DONE };
struct scan {
    i64 at; /* bytes of the value so far */
    enum expected next;
    int depth;
    i64 nonfinite;
    u8 object[LEVELS]; /* what each level is */
};

static const char *const nonfinite[] = {"NaN", "Infinity", "-Infinity"};

/* The length of one of these words at p, or 0. */
static i64 nonfinite_at(const char *p, i64 size) {
    for (int i = 0; i < COUNT(nonfinite); i++) {
        const i64 n = (i64)strlen(nonfinite[i]);
        if (size >= n && !memcmp(p, nonfinite[i], (size_t)n)) return n;
    }
    return 0;
}

static bool in_word(int c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '+' ||
           c == '.';
}

static void scan_ended(struct scan *s) { s->next = s->depth ? COMMA : DONE; }

/* The end of a text or of a word (number, true, NaN) that begins here; what follows it, or <0. */
static int scan_text(struct input *in, struct scan *s, struct err *e) {
    for (s->at++;; s->at++) {
        const int c = input_peek(in, s->at, e);
        if (c == '\n') return INPUT_END;
        if (c < 0) return c;
        if (c == '\\')
            s->at++;
        else if (c == '"')
            return s->at++, 0;
    }
}
static int scan_word(struct input *in, struct scan *s, struct err *e) {
    const i64 from = s->at;
    int c;
    while (in_word(c = input_peek(in, s->at, e))) s->at++;
    if (c == INPUT_ERROR) return c;
    const i64 size = s->at - from;
    s->nonfinite += nonfinite_at(in->buffer.data + in->at + from, size) == size && size;
    return 0;
}

static bool scan_open(struct scan *s, int c) {
    if (s->depth == LEVELS) return false;
    s->object[s->depth++] = c == '{';
    s->next = c == '{' ? FIRST_KEY : FIRST_VALUE;
    return true;
}

/* One token that begins with c. 1: right, 0: not what may stand here, -1: an error. */
static int scan_token(struct input *in, struct scan *s, int c, struct err *e) {
    const bool inner = s->depth && s->object[s->depth - 1];
    if ((c == '}' && inner && (s->next == COMMA || s->next == FIRST_KEY)) ||
        (c == ']' && s->depth && !inner && (s->next == COMMA || s->next == FIRST_VALUE)))
        return s->at++, s->depth--, scan_ended(s), 1;
    if (c == ',' && s->next == COMMA) return s->at++, s->next = inner ? KEY : VALUE, 1;
    if (c == ':' && s->next == COLON) return s->at++, s->next = VALUE, 1;
    const bool key = s->next == KEY || s->next == FIRST_KEY;
    const bool value = s->next == VALUE || s->next == FIRST_VALUE;
    if ((c == '{' || c == '[') && value && scan_open(s, c)) return s->at++, 1;
    int r = INPUT_END;
    if (c == '"' && (key || value))
        r = scan_text(in, s, e);
    else if (in_word(c) && value)
        r = scan_word(in, s, e);
    if (r) return r == INPUT_ERROR ? -1 : 0;
    if (key)
        s->next = COLON;
    else
        scan_ended(s);
    return 1;
}

/* A value that begins `from` bytes from here. 1: it ends at s->at; 0: what stands at s->at may not;
 * -1: an error. */
static int scan_from(struct input *in, struct scan *s, i64 from, struct err *e) {
    *s = (struct scan){.next = VALUE, .at = from};
    while (s->next != DONE) {
        const int c = input_peek(in, s->at, e);
        if (c < 0) return c == INPUT_ERROR ? -1 : 0;
        if (c && strchr(" \t\r\n", c))
            s->at++;
        else {
            const int r = scan_token(in, s, c, e);
            if (r <= 0) return r;
        }
    }
    return 1;
}

static int scan(struct input *in, struct scan *s, struct err *e) { return scan_from(in, s, 0, e); }

/* From byte i to the end of its line: before the newline, or the file's end. */
static int line_end(struct input *in, i64 i, i64 *end, struct err *e) {
    int c;
    while ((c = input_peek(in, i, e)) >= 0 && c != '\n') i++;
    *end = i;
    return c == INPUT_ERROR ? -1 : 0;
}

/* `size` bytes from here, without half a character. */
static i64 excerpt(const struct input *in, i64 size) {
    return utf8_whole(in->buffer.data + in->at, size);
}

/* ---- one value ------------------------------------------------------------------------------- */

static json_t *load(const char *data, i64 size, bool *inexact, json_error_t *fault) {
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY;
    json_t *made = json_loadb(data, (size_t)size, flags, fault);
    *inexact = !made && json_error_code(fault) == json_error_numeric_overflow;
    if (*inexact) made = json_loadb(data, (size_t)size, flags | JSON_DECODE_INT_AS_REAL, fault);
    return made;
}

/* The same with null for what is not finite. */
static json_t *load_finite(const char *data, i64 size, bool *inexact, json_error_t *fault,
                           struct err *e) {
    struct text copy = {0};
    bool text = false;
    int failed = 0;
    for (i64 i = 0; i < size && !failed;) {
        const i64 word = text ? 0 : nonfinite_at(data + i, size - i);
        i64 plain = word ? 0 : 1;
        if (text && data[i] == '\\')
            plain = i64_min(2, size - i);
        else if (!word && data[i] == '"')
            text = !text;
        failed = word ? text_add(&copy, "null", 4, e) : text_add(&copy, data + i, plain, e);
        i += word ? word : plain;
    }
    json_t *made = failed ? NULL : load(copy.data, copy.size, inexact, fault);
    text_free(&copy);
    return made;
}

static int invalid(const struct input *in, const json_error_t *fault, struct err *e) {
    if (e->code) return -1;
    if (json_error_code(fault) == json_error_out_of_memory)
        return err_memory(e, "%s:%lld: out of memory", in->path, (long long)in->line);
    err_input(e, "%s:%lld:%d: not valid JSON: %s", in->path,
              (long long)in->line + i64_max(fault->line - 1, 0),
              fault->line > 1 ? fault->column : fault->position, fault->text);
    if (fault->line < 2) return -1;
    return err_detail(e, "the value that is read there begins in line %lld", (long long)in->line);
}

static int parse(struct json_rows *r, i64 size, i64 nonfinite_count, struct file_row *row,
                 struct err *e) {
    const struct input *in = r->in;
    const char *data = in->buffer.data + in->at;
    json_error_t fault = {0};
    if (input_utf8(in, size, e)) return -1;
    json_t *made = nonfinite_count ? load_finite(data, size, &row->inexact, &fault, e)
                                   : load(data, size, &row->inexact, &fault);
    if (!made) return invalid(in, &fault, e);
    r->nulled += nonfinite_count;
    if (json_is_object(made)) return row->json = made, 0;
    json_decref(made);
    err_input(e, "%s:%lld: not a JSON object", in->path, (long long)in->line);
    return err_detail(e, "expected one object per line, or one array of objects");
}

/* ---- lines ----------------------------------------------------------------------------------- */

static bool blank(const char *p, i64 size) {
    while (size && strchr(" \t\r\n", *p) && *p) p++, size--;
    return !size;
}

/* A line that is no value by itself: the beginning of one, one with NaN, or broken. */
static int longer_row(struct json_rows *r, i64 size, struct file_row *row, i64 *taken,
                      struct err *e) {
    struct scan s;
    i64 end;
    const int whole = scan(r->in, &s, e);
    if (whole < 0 || line_end(r->in, s.at, &end, e)) return -1;
    const bool in_text = !whole && input_peek(r->in, s.at, e) == '\n'; /* which may not be there */
    if (!whole) end = excerpt(r->in, i64_max(size, i64_min(end, s.at + EXCERPT)) + in_text);
    *taken = end + (input_peek(r->in, end, e) == '\n');
    if (whole && row->skip) return 0;
    return parse(r, end, s.nonfinite, row, e);
}

static int line_next(struct json_rows *r, struct file_row *row, struct err *e) {
    for (i64 size, taken;;) {
        const int found = input_row(r->in, "\n", &size, &taken, e);
        if (found <= 0) return found;
        const char *data = r->in->buffer.data + r->in->at;
        if (blank(data, size)) {
            input_take(r->in, taken);
            continue;
        }
        row->line = r->in->line;
        json_error_t fault;
        if (!row->skip && utf8_bad(data, size) < 0)
            row->json = load(data, size, &row->inexact, &fault);
        if (row->json && !json_is_object(row->json)) json_decref(row->json), row->json = NULL;
        const i64 line = taken;
        const int failed = row->json ? 0 : longer_row(r, size, row, &taken, e);
        row->passed = failed != 0;
        input_take(r->in, failed ? line : taken);
        return r->rows++, failed ? -1 : 1;
    }
}

/* ---- an object around the rows --------------------------------------------------------------- */

/* The first byte from *at on that is no white space, as input_peek. */
static int solid(struct input *in, i64 *at, struct err *e) {
    int c;
    while ((c = input_peek(in, *at, e)) > 0 && strchr(" \t\r\n", c)) ++*at;
    return c;
}

/* Is this list one of rows? By its name, or by what its first object has. */
static bool lists_rows(struct json_rows *r, const char *name, i64 at, struct err *e) {
    static const char names[] = "data rows train items records examples samples results entries";
    struct scan s;
    bool inexact;
    json_error_t fault;
    at++;
    if (solid(r->in, &at, e) != '{' || scan_from(r->in, &s, at, e) <= 0) return false;
    json_t *first = load(r->in->buffer.data + r->in->at + at, s.at - at, &inexact, &fault);
    const bool rows = word_listed(names, name) ||
                      (json_object_size(first) && rows_is_row(&r->options->rules, first));
    json_decref(first);
    return rows;
}

/* Exports hold their rows in an object: {"version": 1, "data": [{...}, ...]}. 1: it begins here, is
 * no row by itself, all of the file, and has one such list: reading goes on inside. 0: it is not
 * so. */
static int wrapper_enter(struct json_rows *r, struct err *e) {
    struct input *in = r->in;
    struct scan s;
    i64 at = 1, list = 0, behind = 0, whole, after;
    int c = 0, lists = 0;
    if (scan(in, &s, e) <= 0 || (after = whole = s.at, solid(in, &after, e) != INPUT_END))
        return e->code ? -1 : 0;
    json_t *keys = json_object();
    while (solid(in, &at, e) == '"') {
        if (scan_from(in, &s, at, e) <= 0) break;
        json_t *name = json_loadb(in->buffer.data + in->at + at, (size_t)(s.at - at),
                                  JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        const char *key = json_string_value(name);
        at = s.at;
        if (!key || solid(in, &at, e) != ':') {
            json_decref(name);
            break;
        }
        at++, c = solid(in, &at, e);
        json_object_set_new(keys, key, json_true());
        const bool rows = c == '[' && lists_rows(r, key, at, e);
        if (scan_from(in, &s, at, e) > 0 && rows)
            lists++, list = at, behind = whole - s.at,
                     json_object_set_new(keys, key, json_string("rows"));
        json_decref(name);
        at = s.at;
        if (solid(in, &at, e) == ',') at++;
    }
    const bool enter = !e->code && lists == 1 && !rows_is_row(&r->options->rules, keys);
    if (enter) {
        input_take(in, list + 1);
        r->at = AT_FIRST, r->behind = behind, r->around = json_incref(keys);
    }
    json_decref(keys);
    return e->code ? -1 : enter;
}

/* ---- an array -------------------------------------------------------------------------------- */

/* Takes white space; what follows, as input_peek. */
static int peek_past(struct input *in, struct err *e) {
    int c;
    while ((c = input_peek(in, 0, e)) > 0 && strchr(" \t\r\n", c)) input_take(in, 1);
    return c;
}

static int array_wrong(struct json_rows *r, const char *expected, struct err *e) {
    if (e->code) return -1;
    err_input(e, "%s:%lld: after element %lld of the array there is no %s", r->in->path,
              (long long)r->in->line, (long long)r->rows, expected);
    return input_peek(r->in, 0, e) >= 0
               ? -1
               : err_hint(e, "the file ends there: download or copy it again");
}

static int element_next(struct json_rows *r, struct file_row *row, struct err *e) {
    struct input *in = r->in;
    struct scan s;
    if (r->at == AT_AFTER) return 0;
    int c = peek_past(in, e);
    if (c == ']' && r->at != AT_BEGIN) {
        input_take(in, 1 + r->behind), r->at = AT_AFTER;
        return peek_past(in, e) != INPUT_END ? array_wrong(r, "end of the file", e) : 0;
    }
    if (r->at == AT_NEXT && c != ',') return array_wrong(r, "',' or ']'", e);
    if (r->at == AT_NEXT) input_take(in, 1), c = peek_past(in, e);
    r->at = AT_NEXT;
    const int whole = c < 0 ? 0 : scan(in, &s, e);
    if (c < 0 || whole < 0 || (!whole && input_peek(in, s.at, e) < 0))
        return array_wrong(r, "complete one and ']'", e);
    if (!whole && !s.at) return array_wrong(r, "other element", e);
    i64 end = s.at;
    if (!whole && line_end(in, s.at, &end, e)) return -1;
    row->line = in->line;
    if (!whole) end = excerpt(in, i64_min(end, s.at + EXCERPT));
    if ((!row->skip || !whole) && parse(r, end, s.nonfinite, row, e)) return -1;
    if (!whole) return array_wrong(r, "valid JSON", e);
    input_take(in, end);
    return r->rows++, 1;
}

int json_rows_next(struct json_rows *r, struct file_row *row, struct err *e) {
    if (r->at == AT_BEGIN) {
        const int c = peek_past(r->in, e);
        if (c == INPUT_ERROR) return -1;
        r->at = c == '[' ? AT_FIRST : AT_LINES;
        if (c == '[') input_take(r->in, 1);
        if (c == '{' && wrapper_enter(r, e) < 0) return -1;
    }
    return r->at == AT_LINES ? line_next(r, row, e) : element_next(r, row, e);
}
