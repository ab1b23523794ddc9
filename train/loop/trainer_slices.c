/* trainer_slices.c: which rows of a text are read: a slice (`rows` of an item of a dataset),
 * the first max_samples, and what val_set_size holds out.
 *
 * Held out is a row whose draw (source_draw) is less than a threshold: val_set_size itself where it
 * is a share, else the draw that so many rows are below. So a row stays on its side whatever is
 * added behind it, as long as the threshold does. */
#include "train/loop/loop.h"

#include <stdlib.h>
#include <string.h>

/* Counts the rows of a file without making anything of them. */
static i64 file_rows(const char *path, const struct source_options *o, struct err *e) {
    struct source_options none = *o;
    none.from_row = INT64_MAX, none.end_row = 0, none.split = SPLIT_ALL;
    struct source *s = source_open(path, &none, e);
    struct document d;
    int more = s ? 1 : -1;
    while (more > 0) more = source_next(s, &d, e);
    const i64 rows = s ? source_facts(s)->rows : 0;
    source_close(s);
    return more < 0 ? -1 : rows;
}

/* Of all files that an item means, in their order. */
static i64 count_rows(const struct data_item *item, const struct source_options *o, struct err *e) {
    struct data_files files = {0};
    i64 rows = data_files_find(&files, item->path, item->name, item->split, e) ? -1 : 0;
    for (i64 i = 0; rows >= 0 && i < files.count; i++) {
        const i64 more = file_rows(files.item[i].path, o, e);
        rows = more < 0 ? -1 : rows + more;
    }
    data_files_free(&files);
    return rows;
}

/* "10%", "-500", "": a row from 0 to `rows`. */
static int slice_end(const char *text, i64 size, i64 rows, i64 otherwise, i64 *to, struct err *e) {
    char number[32], *end;
    snprintf(number, sizeof number, "%.*s", (int)size, text);
    const double x = strtod(number, &end);
    const bool share = *end == '%' && !end[1] && end != number;
    if (!size) return *to = otherwise, 0;
    if ((*end && !share) || size >= (i64)sizeof number || x - x != 0)
        return err_input(e, "rows: '%.*s' is neither a number nor a percentage", (int)size, text);
    /* Shares are rounded as datasets rounds them: to the closest row */
    double at = share ? x / 100 * (double)rows : x;
    if (at < 0) at += (double)rows;
    at = at < 0 ? 0 : at > (double)rows ? (double)rows : at;
    return *to = (i64)(at + 0.5), 0;
}

static int slice(const struct data_item *item, struct source_options *o, struct err *e) {
    const char *text = item->rows, *colon = strchr(text, ':');
    const i64 size = (i64)strlen(text);
    if (*text != '[' || !colon || text[size - 1] != ']') {
        err_input(e, "%s: rows: found '%.100s'", item->path, text);
        return err_hint(e, "rows: '[:500]', '[:1%%]', '[10%%:20%%]' or '[-500:]'");
    }
    const i64 rows = count_rows(item, o, e);
    if (rows < 0 || slice_end(text + 1, colon - text - 1, rows, 0, &o->from_row, e) ||
        slice_end(colon + 1, text + size - 1 - colon - 1, rows, rows, &o->end_row, e))
        return -1;
    if (o->from_row < o->end_row) return 0;
    return err_input(e, "%s: rows: '%.100s' are none of its %lld", item->path, text,
                     (long long)rows);
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int rows_of(const struct trainer *t, const struct data_item *item, struct source_options *o,
                   struct err *e) {
    const i64 most = t->r->max_samples;
    if (item->rows && slice(item, o, e)) return -1;
    if (most && (!o->end_row || o->end_row > o->from_row + most)) o->end_row = o->from_row + most;
    return 0;
}

/* The threshold that val_set_size rows of all datasets are below. */
static int threshold(struct trainer *t, const struct source_options *plain, struct err *e) {
    const struct recipe *r = t->r;
    double *draw = NULL;
    i64 count = 0, held = (i64)r->val_set_size;
    int rc = 0;
    for (i64 i = 0; !rc && i < r->dataset.count; i++) {
        struct source_options o = *plain;
        const i64 rows = count_rows(&r->dataset.item[i], &o, e);
        rc = rows < 0 || rows_of(t, &r->dataset.item[i], &o, e);
        const i64 end = o.end_row && o.end_row < rows ? o.end_row : rows;
        double *more = rc || end <= o.from_row
                           ? NULL
                           : mem_new_array(count + end - o.from_row, sizeof *more, e);
        rc = rc || (end > o.from_row && !more);
        if (more && count) memcpy(more, draw, (size_t)count * sizeof *more);
        if (more) mem_free(draw), draw = more;
        for (i64 k = o.from_row; more && k < end; k++) draw[count++] = source_draw(o.seed, k);
    }
    if (!rc && held >= count) {
        rc = err_input(e, "val_set_size: %lld rows held out of %lld leave none to train",
                       (long long)held, (long long)count);
        err_hint(e, "below 1 it is a share: val_set_size: 0.05");
    }
    if (!rc) qsort(draw, (size_t)count, sizeof *draw, by_size), t->held_out = draw[held];
    mem_free(draw);
    return rc ? -1 : 0;
}

int trainer_slices(struct trainer *t, const struct data_item *item, struct source_options *o,
                   struct err *e) {
    const double size = t->r->val_set_size;
    if (rows_of(t, item, o, e)) return -1;
    if (!item->split) return 0;
    o->split = !strcmp(item->split, "validation") ? SPLIT_VALIDATION : SPLIT_TRAIN;
    o->validation_fraction = size > 0 && size < 1 ? size : 0.05;
    if (size < 1) return 0;
    struct source_options plain = *o;
    plain.from_row = plain.end_row = 0;
    if (t->held_out <= 0 && threshold(t, &plain, e)) return -1;
    return o->validation_fraction = t->held_out, 0;
}

/* Recipes of others name the special tokens that they set. Here the tokenizer's own are taken, so
 * that they must be those: another end would be trained and saved as what it is not. */
int trainer_tokens_named(const struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    const struct {
        const char *key, *token;
        i64 own;
    } row[] = {{"bos_token", r->bos_token, t->tokenizer ? tokenizer_bos(t->tokenizer) : -1},
               {"eos_token", r->eos_token, t->tokenizer ? tokenizer_eos(t->tokenizer) : -1},
               {"unk_token", r->unk_token, -2}};
    for (int i = 0; i < COUNT(row); i++) {
        if (!row[i].token) continue;
        if (!t->tokenizer)
            return err_input(e, "%s: '%s', and there is no tokenizer", row[i].key, row[i].token);
        const i64 id = tokenizer_id(t->tokenizer, row[i].token);
        if (id >= 0 && (id == row[i].own || row[i].own == -2)) continue;
        struct text own = {0};
        const u32 one = (u32)row[i].own;
        if (row[i].own >= 0 && tokenizer_decode(t->tokenizer, &one, 1, false, &own, e))
            return text_free(&own), -1;
        err_input(e, "%s: '%s' is %s of %s", row[i].key, row[i].token,
                  id < 0 ? "no token" : "another token than that", tokenizer_path(t->tokenizer));
        if (own.size) err_detail(e, "its own: '%.*s'", (int)i64_min(own.size, 100), own.data);
        err_hint(e,
                 "tokenizer_config.json of the model's folder names its special tokens; leave "
                 "%s out to take them",
                 row[i].key);
        return text_free(&own), -1;
    }
    return 0;
}
