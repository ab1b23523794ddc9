/* source.c: documents out of text files and files of rows, and the split into training and
 * validation.
 *
 * The split is a property of the row, not of the reader: a row is held out when a hash of (seed,
 * row number) falls under the fraction, so the two parts are disjoint whatever is read first, and
 * all documents made of one row stay on one side. A text file that is a single document is cut
 * instead, at the start of a line. Rejected: "the last n rows" (files are often sorted) and a hash
 * of the content (one typo moves a row to the other side). */
#include "data/datasets/readers.h"
#include <string.h>

struct source {
    char *path;
    struct source_options options;
    enum source_form form;
    struct source_facts facts;
    struct input in; /* all forms but Parquet */
    i64 row;         /* of the next row */
    struct json_rows json;
    struct csv_rows csv;
    struct parquet *parquet;
    struct rows rows; /* what the last row holds */
};

static int source_type(struct source *s, struct err *e) {
    const char *type = s->options.type;
    s->form = type ? source_form_named(type) : source_form(s->path);
    if (s->form != FORM_NONE) return 0;
    if (!type && !path_exists(s->path)) {
        err_input(e, "cannot open %s: No such file or directory", s->path);
        return err_hint(e, "download the data set, and name its folder or its files");
    }
    if (type)
        err_input(e, "'%s': there is no source type '%s'", s->path, type);
    else
        err_input(e, "'%s': its name does not say what it holds", s->path);
    err_detail(e,
               "known are .txt and .md (text), .jsonl and .json (objects, or one array of them), "
               ".csv, .tsv, each also with .gz or .zst, and .parquet");
    return err_hint(e, "rename it or give type: text, jsonl, csv, tsv or parquet");
}

struct source *source_open(const char *path, const struct source_options *options, struct err *e) {
    struct source *s = mem_new(sizeof *s, e);
    if (!s) return NULL;
    s->options = *options, s->row = options->first_row;
    s->rows = (struct rows){.options = &s->options, .facts = &s->facts};
    bool opened = (s->path = mem_text(path, e)) && !source_type(s, e);
    if (opened && s->form == FORM_PARQUET)
        opened = (s->parquet = parquet_open(s->path, e)) != NULL;
    else if (opened)
        opened = !input_open(&s->in, s->path, e);
    if (!opened) return source_close(s), NULL;
    s->json.options = &s->options, s->json.in = s->csv.in = &s->in,
    s->csv.delimiter = s->form == FORM_TSV ? '\t' : ',';
    s->rows.path = s->path;
    return s;
}

void source_close(struct source *s) {
    if (!s) return;
    input_close(&s->in), csv_rows_free(&s->csv), parquet_close(s->parquet);
    rows_free(&s->rows), json_decref(s->json.around);
    mem_free(s->path);
    mem_free(s);
}

const struct source_facts *source_facts(const struct source *s) { return &s->facts; }
const struct row_notes *source_notes(const struct source *s) { return &s->rows.notes; }

double source_draw(u64 seed, i64 row) {
    const struct rng rng = {.seed = seed, .purpose = RNG_ORDER, .stream = UINT32_MAX};
    return rng_uniform_f64(&rng, (u64)row);
}

static bool source_wanted(const struct source *s, i64 row) {
    const struct source_options *o = &s->options;
    if (row < o->from_row || (o->end_row && row >= o->end_row)) return false;
    if (o->split == SPLIT_ALL) return true;
    const bool held_out = source_draw(o->seed, row) < o->validation_fraction;
    return held_out == (o->split == SPLIT_VALIDATION);
}

/* ---- text in rows ---------------------------------------------------------------------------- */

/* One document that is the whole file: its split is a cut. */
static void source_cut(const struct source *s, i64 *begin, i64 *size) {
    const char *data = s->in.buffer.data + s->in.at;
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
        int r = input_row(&s->in, separator, &size, &whole, e);
        if (r <= 0) return r;
        const char *text = s->in.buffer.data + s->in.at;
        if (input_utf8(&s->in, size, e)) return -1;
        begin = 0;
        if (!*separator) source_cut(s, &begin, &size);
        /* A run of more than one blank line is one border, not an empty document. */
        while (*separator && begin < size && text[begin] == '\n') begin++, size--;
        input_take(&s->in, whole);
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

static int file_row(struct source *s, struct file_row *row, struct err *e) {
    if (s->form == FORM_PARQUET) return parquet_next(s->parquet, row, e);
    return s->form == FORM_JSON ? json_rows_next(&s->json, row, e) : csv_rows_next(&s->csv, row, e);
}

static i64 nulled(const struct source *s) {
    return s->parquet ? parquet_nulled(s->parquet) : s->json.nulled;
}

/* What stands around the rows of a file. */
static void around_note(struct source *s) {
    const char *key;
    json_t *value;
    char what[120];
    json_object_foreach(s->json.around, key, value) {
        if (json_is_string(value))
            snprintf(what, sizeof what, "the rows are the list '%.60s' of one object", key);
        else
            snprintf(what, sizeof what, "'%.60s', beside the list of rows, is not used", key);
        row_note(&s->rows.notes.said, what, 1);
    }
    json_decref(s->json.around), s->json.around = NULL;
}

static int source_next_row(struct source *s, struct document *out, struct err *e) {
    for (;;) {
        const int found = rows_next(&s->rows, out, e);
        if (found) return found;
        struct file_row row = {.skip = !source_wanted(s, s->row)};
        const i64 before = nulled(s);
        const int r = file_row(s, &row, e);
        if (s->json.around) around_note(s);
        if (!r) return 0;
        if (nulled(s) > before)
            row_note(&s->rows.notes.said,
                     "values that JSON has no form for (NaN, bytes that are "
                     "no text) are read as null",
                     row.line);
        if (r < 0 && !(row.passed && rows_skip(&s->rows, row.line, e))) return -1;
        if (row.json) rows_take(&s->rows, row.json, s->row, row.line, row.inexact);
        s->row++;
    }
}

static int source_ended(struct source *s, struct err *e) {
    s->facts.rows = s->row - s->options.first_row;
    if (s->parquet) return parquet_facts(s->parquet, &s->facts, e);
    return input_facts(&s->in, &s->facts), 0;
}

int source_next(struct source *s, struct document *out, struct err *e) {
    int r = s->form == FORM_TEXT ? source_next_text(s, out, e) : source_next_row(s, out, e);
    if (r > 0) s->facts.documents++;
    s->facts.rows = s->row - s->options.first_row;
    if (!r && !s->facts.sha256[0] && source_ended(s, e)) r = -1;
    return r;
}

static int texts_of_file(const char *path, text_fn *each, void *arg, struct err *e) {
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

int source_texts(const char *path, text_fn *each, void *arg, struct err *e) {
    struct data_files files;
    int rc = data_files_find(&files, path, NULL, NULL, e);
    for (i64 i = 0; !rc && i < files.count; i++)
        rc = texts_of_file(files.item[i].path, each, arg, e);
    data_files_free(&files);
    return rc ? -1 : 0;
}
