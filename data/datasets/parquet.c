/* parquet.c: rows of a Parquet file as the JSON objects that JSON lines would give.
 *
 * Columns are read side by side, a page of each at a time, so memory does not grow with the file or
 * its row groups. Structs become objects, lists become arrays, absent ones null; maps are lists of
 * {key, value}. Text must be UTF-8. What JSON has no form for becomes null and is counted: bytes
 * that are no text (pictures), NaN, decimals, times of 96 bits. All columns of a list must agree on
 * where it ends: levels are the only thing that says which word belongs to which message. */
#include "data/datasets/parquet.h"
#include <string.h>

enum { ENTRIES = 1 << 24 }; /* values in a row */

struct parquet *parquet_open(const char *path, struct err *e) {
    struct parquet *p = mem_new(sizeof *p, e);
    if (!p) return NULL;
    p->path = path, p->group = -1;
    if (path_is_dir(path)) err_input(e, "'%s' is a folder, not a Parquet file", path);
    if (!e->code && !map_open(&p->map, path, e) &&
        !parquet_meta_read(&p->meta, p->map.data, p->map.size, path, e) &&
        (p->column = mem_new_array(p->meta.leaves, sizeof *p->column, e)))
        return p;
    parquet_close(p);
    return NULL;
}

void parquet_close(struct parquet *p) {
    if (!p) return;
    for (i64 i = 0; p->column && i < p->meta.leaves; i++) column_free(&p->column[i]);
    mem_free(p->column);
    arena_free(&p->meta.arena);
    if (p->map.data) map_close(&p->map);
    mem_free(p);
}

i64 parquet_nulled(const struct parquet *p) { return p->nulled; }

int parquet_facts(const struct parquet *p, struct source_facts *f, struct err *e) {
    f->bytes = p->map.size;
    return sha256_bytes(p->map.data, p->map.size, f->sha256, e);
}

/* ---- a value --------------------------------------------------------------------------------- */

static json_t *absent(struct parquet *p) { return p->nulled++, json_null(); }

static json_t *text_of(struct parquet *p, const struct column *c, const struct value *v,
                       struct err *e) {
    const char *bytes = v->bytes ? (const char *)v->bytes : "";
    const i64 bad = utf8_bad(bytes, v->size);
    if (bad >= 0 && c->node->meaning != UTF8_TEXT) return absent(p);
    if (bad >= 0) {
        parquet_wrong(c, e, "row %lld: invalid UTF-8: byte 0x%02x at byte %lld of the text",
                      (long long)p->row + 1, v->bytes[bad], (long long)bad);
        return NULL;
    }
    if ((p->bytes += v->size) <= DOCUMENT_LIMIT)
        return json_stringn_nocheck(bytes, (size_t)v->size);
    parquet_wrong(c, e, "row %lld has more than %d bytes", (long long)p->row + 1, DOCUMENT_LIMIT);
    return NULL;
}

static json_t *number_of(struct parquet *p, const struct column *c, const struct value *v) {
    const enum parquet_type type = c->node->type;
    if (type == P_FLOAT || type == P_DOUBLE)
        return v->real - v->real == 0 ? json_real(v->real) : absent(p);
    if (c->node->meaning != UNSIGNED) return json_integer(v->integer);
    if (type == P_INT32) return json_integer((u32)v->integer);
    if (v->integer >= 0) return json_integer(v->integer);
    p->inexact = true; /* as JSON's of more than 64 bits */
    return json_real((double)(u64)v->integer);
}

/* NULL: an error */
static json_t *leaf_value(struct parquet *p, const struct column *c, const struct value *v,
                          struct err *e) {
    json_t *made = NULL;
    if (c->node->meaning == NO_JSON || c->node->type == P_INT96 || c->node->type == P_FIXED)
        return absent(p);
    switch (c->node->type) {
    case P_BYTE_ARRAY: made = text_of(p, c, v, e); break;
    case P_BOOLEAN: made = json_boolean(v->integer); break;
    default: made = number_of(p, c, v);
    }
    if (!made && !e->code) err_memory(e, "out of memory");
    return made;
}

/* ---- a row ----------------------------------------------------------------------------------- */

static int levels_wrong(const struct parquet *p, i64 leaf, struct err *e) {
    return parquet_wrong(&p->column[leaf], e, "row %lld: its levels contradict those of its group",
                         (long long)p->row + 1);
}

/* Nothing of node n is there: one entry of each of its columns says so. */
static int take_absent(struct parquet *p, const struct schema_node *n, int repetition,
                       struct err *e) {
    const int definition = p->column[n->leaf].next_definition;
    for (i64 i = n->leaf; i < n->leaf + n->leaves; i++) {
        struct column *c = &p->column[i];
        if (c->next_definition != definition || c->next_repetition != repetition)
            return c->next_definition < 0 ? parquet_wrong(c, e, "it has too few rows")
                                          : levels_wrong(p, i, e);
        if (column_next(c, e)) return -1;
    }
    return 0;
}

static json_t *node_value(struct parquet *p, const struct schema_node *n, int repetition,
                          struct err *e);

static json_t *group_value(struct parquet *p, const struct schema_node *n, int repetition,
                           struct err *e) {
    const struct schema_node *child = n + 1;
    if (n->list || n->wrapper) return node_value(p, child, repetition, e);
    json_t *made = json_object();
    if (!made) err_memory(e, "out of memory");
    for (i64 i = 0; made && i < n->children; i++, child = &p->meta.node[child->last]) {
        json_t *value =
            json_object_get(made, child->name)
                ? (err_input(e, "'%s': two columns are named '%s'", p->path, child->path), NULL)
                : node_value(p, child, repetition, e);
        if (!value || json_object_set_new_nocheck(made, child->name, value)) {
            if (value) err_memory(e, "out of memory");
            json_decref(made), made = NULL;
        }
    }
    return made;
}

/* What a node that is there holds, once. */
static json_t *one_value(struct parquet *p, const struct schema_node *n, int repetition,
                         struct err *e) {
    if (n->type == P_GROUP) return group_value(p, n, repetition, e);
    struct column *c = &p->column[n->leaf];
    struct value v;
    if (c->next_definition != n->definition || c->next_repetition != repetition)
        return levels_wrong(p, n->leaf, e), NULL;
    if (++p->entries > ENTRIES) {
        parquet_wrong(c, e, "row %lld has more than %d values", (long long)p->row + 1, ENTRIES);
        return NULL;
    }
    json_t *made = column_value(c, &v, e) ? NULL : leaf_value(p, c, &v, e);
    if (made && column_next(c, e)) json_decref(made), made = NULL;
    return made;
}

/* Where something of list n is. NULL: an error. */
static json_t *list_value(struct parquet *p, const struct schema_node *n, int repetition,
                          struct err *e) {
    const struct column *c = &p->column[n->leaf];
    json_t *list = json_array();
    if (!list) return err_memory(e, "out of memory"), NULL;
    do {
        json_t *value = c->next_definition < n->definition ? (levels_wrong(p, n->leaf, e), NULL)
                                                           : one_value(p, n, repetition, e);
        if (!value || json_array_append_new(list, value)) {
            if (value) err_memory(e, "out of memory");
            return json_decref(list), NULL;
        }
        repetition = n->repeated;
    } while (c->next_definition >= 0 && c->next_repetition == n->repeated);
    return list;
}

/* The value of a node, whose entries begin with this repetition level. NULL: an error. */
static json_t *node_value(struct parquet *p, const struct schema_node *n, int repetition,
                          struct err *e) {
    const int found = p->column[n->leaf].next_definition; /* the first column stands for all */
    if (found >= n->definition)
        return n->repetition == REPEATED ? list_value(p, n, repetition, e)
                                         : one_value(p, n, repetition, e);
    if (found >= 0 && found < n->definition - (n->repetition != REQUIRED))
        return levels_wrong(p, n->leaf, e), NULL;
    if (++p->entries > ENTRIES)
        return parquet_wrong(&p->column[n->leaf], e, "row %lld has more than %d values",
                             (long long)p->row + 1, ENTRIES),
               NULL;
    if (take_absent(p, n, repetition, e)) return NULL;
    return n->repetition == REPEATED ? json_array() : json_null();
}

/* The next row group that has rows: 1, 0 after the last, or -1. */
static int group_next(struct parquet *p, struct err *e) {
    const struct parquet_meta *m = &p->meta;
    while (p->group < 0 || p->row_of_group == m->group_rows[p->group]) {
        for (i64 i = 0; p->group >= 0 && i < m->leaves; i++)
            if (p->column[i].next_definition >= 0)
                return parquet_wrong(&p->column[i], e, "it has more rows than its row group");
        if (p->group + 1 >= m->groups) return 0;
        p->group++, p->row_of_group = 0;
        for (i64 i = 0; i < m->leaves; i++)
            if (column_begin(&p->column[i], p, &m->node[m->leaf[i]], p->group,
                             &m->chunk[p->group * m->leaves + i], e))
                return -1;
    }
    return 1;
}

int parquet_next(struct parquet *p, struct file_row *row, struct err *e) {
    const int found = group_next(p, e);
    const i64 nulled = p->nulled;
    if (found <= 0) return found;
    p->entries = p->bytes = 0, p->inexact = false;
    json_t *made = group_value(p, &p->meta.node[0], 0, e);
    if (!made) return -1;
    p->row++, p->row_of_group++;
    row->line = p->row, row->inexact = p->inexact;
    if (row->skip)
        json_decref(made), p->nulled = nulled;
    else
        row->json = made;
    return 1;
}
