/* csv.c: rows of comma or tab separated values (RFC 4180), the first of which names the columns.
 *
 * A field in quotes may hold the separator, line ends and doubled quotes. Every value is a text, as
 * it stands there: "NA", "None" and 007 are what somebody wrote, and are not made a missing value
 * or a number. A field that is empty without quotes is null, which is an absent column; one of two
 * quotes is the empty text. Rejected: guessing the separator, whether there is a header, or where a
 * row with too few fields lost one. */
#include "data/datasets/readers.h"
#include <string.h>

enum { COLUMNS = 10000 };

void csv_rows_free(struct csv_rows *r) {
    for (i64 i = 0; i < r->header.count; i++) mem_free(r->header.item[i]);
    mem_free(r->header.item);
    text_free(&r->field);
    *r = (struct csv_rows){0};
}

/* Where a byte of the row is: its line, and its column in bytes. */
static int csv_wrong(const struct csv_rows *r, i64 i, const char *what, struct err *e) {
    const struct input *in = r->in;
    const char *p = in->buffer.data + in->at;
    i64 line = in->line, column = 1;
    for (i64 k = 0; k < i; k++) line += p[k] == '\n', column = p[k] == '\n' ? 1 : column + 1;
    return err_input(e, "%s:%lld:%lld: %s", in->path, (long long)line, (long long)column, what);
}

struct field {
    bool quoted;
    int end; /* the separator, '\n' or INPUT_END */
};

static int csv_quoted(struct csv_rows *r, i64 *i, struct err *e) {
    const i64 from = (*i)++;
    for (;;) {
        const int c = input_peek(r->in, (*i)++, e);
        const char byte = (char)c;
        if (c == INPUT_ERROR) return -1;
        if (c == INPUT_END) return csv_wrong(r, from, "a quote that is never closed", e);
        if (c == '"') {
            const int next = input_peek(r->in, *i, e);
            if (next == INPUT_ERROR) return -1;
            if (next != '"') return 0;
            (*i)++;
        }
        if (text_add(&r->field, &byte, 1, e)) return -1;
    }
}

/* The field that begins at byte *i of the row, into r->field; *i is then what ended it. */
static int csv_field(struct csv_rows *r, i64 *i, struct field *f, struct err *e) {
    int c = input_peek(r->in, *i, e);
    r->field.size = 0;
    *f = (struct field){.quoted = c == '"'};
    if (f->quoted && csv_quoted(r, i, e)) return -1;
    for (;; (*i)++) {
        if ((c = input_peek(r->in, *i, e)) == INPUT_ERROR) return -1;
        if (c == r->delimiter || c == '\n' || c == INPUT_END) return f->end = c, 0;
        if (c == '\r') {
            c = input_peek(r->in, *i + 1, e);
            if (c == INPUT_ERROR) return -1;
            if (c == '\n' || c == INPUT_END) return (*i)++, f->end = c, 0;
            return csv_wrong(r, *i, "a carriage return without a newline, outside of quotes", e),
                   err_hint(e, "put the field in quotes, or end lines with a newline");
        }
        const char byte = (char)c;
        if (f->quoted)
            return csv_wrong(r, *i, "text behind a closing quote", e),
                   err_hint(e, "a quote in a quoted field is written twice: \"\"");
        if (text_add(&r->field, &byte, 1, e)) return -1;
    }
}

static int header_add(struct csv_rows *r, i64 at, struct err *e) {
    struct text_list *h = &r->header;
    char name[24];
    snprintf(name, sizeof name, "Unnamed: %lld", (long long)h->count); /* as pandas calls them */
    const char *text = r->field.size ? r->field.data : name;
    if (r->field.size && strlen(text) != (size_t)r->field.size)
        return csv_wrong(r, at, "a column's name holds a NUL", e);
    if (utf8_bad(text, (i64)strlen(text)) >= 0) return input_utf8(r->in, at, e);
    for (i64 i = 0; i < h->count; i++)
        if (!strcmp(h->item[i], text))
            return csv_wrong(r, at, "two columns have one name", e),
                   err_detail(e, "both are '%.100s'", text);
    if (h->count == COLUMNS) return csv_wrong(r, at, "more than 10,000 columns", e);
    if (h->count == r->header_room) {
        const i64 more = r->header_room ? 2 * r->header_room : 16, size = (i64)sizeof *h->item;
        char **grown = mem_grow(h->item, r->header_room * size, more * size, e);
        if (!grown) return -1;
        h->item = grown, r->header_room = more;
    }
    if (!(h->item[h->count] = mem_text(text, e))) return -1;
    return h->count++, 0;
}

/* A file of one column whose name holds another separator was most likely written with that. */
static int header_check(const struct csv_rows *r, struct err *e) {
    static const char other[] = ",\t;|";
    const char *name = r->header.item[0], *hit = r->header.count == 1 ? strpbrk(name, other) : NULL;
    if (!hit) return 0;
    const char *is = *hit == '\t' ? "tabs" : *hit == ',' ? "commas" : *hit == ';' ? "';'" : "'|'";
    err_input(e, "%s:%lld: the header names one column, '%.100s'", r->in->path,
              (long long)r->in->line, name);
    err_detail(e, "it looks as if columns were separated by %s; expected were %s", is,
               r->delimiter == ',' ? "commas" : "tabs");
    return *hit == '\t' || *hit == ',' ? err_hint(e, "give type: %s", *hit == ',' ? "csv" : "tsv")
                                       : err_hint(e, "write the file with commas");
}

static int header_read(struct csv_rows *r, struct err *e) {
    struct field f = {.end = r->delimiter};
    i64 i = 0;
    for (; f.end == r->delimiter; i++)
        if (csv_field(r, &i, &f, e) || header_add(r, i, e)) return -1;
    i -= f.end == INPUT_END;
    if (input_utf8(r->in, i, e) || header_check(r, e)) return -1;
    return input_take(r->in, i), 0;
}

static int count_wrong(const struct csv_rows *r, i64 fields, struct err *e) {
    err_input(e, "%s:%lld: %lld field%s, and the header names %lld column%s", r->in->path,
              (long long)r->in->line, (long long)fields, fields == 1 ? "" : "s",
              (long long)r->header.count, r->header.count == 1 ? "" : "s");
    err_detail(e, "the first line of a CSV file names its columns, and each row has one field for "
                  "each of them");
    return err_hint(e, "put fields in quotes that hold %s, quotes or line ends",
                    r->delimiter == ',' ? "commas" : "tabs");
}

/* The fields of a row from here on; *size with its line end. */
static int csv_read(struct csv_rows *r, json_t *to, i64 *size, struct err *e) {
    struct field f = {.end = r->delimiter};
    i64 i = 0, count = 0;
    for (; f.end == r->delimiter; i++, count++) {
        if (csv_field(r, &i, &f, e)) return -1;
        if (!to || count >= r->header.count) continue;
        if (utf8_bad(r->field.data, r->field.size) >= 0) return input_utf8(r->in, i, e);
        json_t *value =
            r->field.size || f.quoted
                ? json_stringn_nocheck(r->field.data ? r->field.data : "", (size_t)r->field.size)
                : json_null();
        /* the header has no name twice */
        if (json_object_set_new_nocheck(to, r->header.item[count], value))
            return err_memory(e, "out of memory");
    }
    *size = i - (f.end == INPUT_END);
    return count == r->header.count ? 0 : count_wrong(r, count, e);
}

/* Lines without anything are no rows. What follows, as input_peek. */
static int past_blank(struct csv_rows *r, struct err *e) {
    for (;;) {
        const int c = input_peek(r->in, 0, e);
        const int next = c == '\r' ? input_peek(r->in, 1, e) : 0;
        if (next == INPUT_ERROR) return next;
        if (c == '\n')
            input_take(r->in, 1);
        else if (c == '\r' && next == '\n')
            input_take(r->in, 2);
        else
            return c;
    }
}

int csv_rows_next(struct csv_rows *r, struct file_row *row, struct err *e) {
    int c = past_blank(r, e);
    if (c >= 0 && !r->header.count) c = header_read(r, e) ? INPUT_ERROR : past_blank(r, e);
    if (c < 0) return c == INPUT_END ? 0 : -1;
    i64 size = 0;
    json_t *made = row->skip ? NULL : json_object();
    if (!row->skip && !made) return err_memory(e, "out of memory");
    row->line = r->in->line;
    const int failed = csv_read(r, made, &size, e);
    row->passed = failed && size;
    input_take(r->in, size);
    if (failed) return json_decref(made), -1;
    return row->json = made, 1;
}
