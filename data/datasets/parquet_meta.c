/* parquet_meta.c: the footer of a Parquet file: its columns and where their pages lie.
 *
 * Everything is checked here once: the tree is whole, each row group has a chunk for each column,
 * of its type and path, and chunks lie between the file's magic and its footer. */
#include "data/datasets/parquet.h"
#include <string.h>

enum { DEPTH = 32, NODES = 1 << 16, NAME = 1000 };

static int malformed(const char *path, const char *what, struct err *e) {
    if (e->code) return -1;
    err_input(e, "'%s' is not valid Parquet: %s", path, what);
    return err_hint(e, "download or copy it again");
}

/* ---- the tree of columns --------------------------------------------------------------------- */

struct element { /* as the file has it */
    i64 type, size, repetition, children, converted;
    int logical; /* which member of the union; 0: none */
    bool is_signed;
    const u8 *name;
    i64 name_size;
};
enum {
    LOGICAL_STRING = 1,
    LOGICAL_MAP,
    LOGICAL_LIST,
    LOGICAL_ENUM,
    LOGICAL_DECIMAL,
    LOGICAL_INTEGER = 10,
    LOGICAL_JSON = 12,
    LOGICAL_BSON,
    LOGICAL_UUID,
    LOGICAL_FLOAT16
};
enum {
    CONVERTED_UTF8,
    CONVERTED_MAP,
    CONVERTED_MAP_KEY_VALUE,
    CONVERTED_LIST,
    CONVERTED_ENUM,
    CONVERTED_DECIMAL,
    CONVERTED_U8 = 11,
    CONVERTED_U64 = 14,
    CONVERTED_JSON = 19,
    CONVERTED_BSON,
    CONVERTED_INTERVAL
};

static void logical_read(struct thrift *t, struct element *to) {
    for (struct thrift_field f = {0}; thrift_field(t, &f);) {
        to->logical = f.id;
        if (f.id != LOGICAL_INTEGER || f.type != T_STRUCT) {
            thrift_skip(t, &f);
            continue;
        }
        for (struct thrift_field g = {0}; thrift_field(t, &g);)
            if (g.id == 2)
                to->is_signed = thrift_int(t, &g);
            else
                thrift_skip(t, &g);
    }
}

static void element_read(struct thrift *t, struct element *to) {
    *to = (struct element){.type = -1, .repetition = -1, .converted = -1, .is_signed = true};
    for (struct thrift_field f = {0}; thrift_field(t, &f);) switch (f.id) {
        case 1: to->type = thrift_int(t, &f); break;
        case 2: to->size = thrift_int(t, &f); break;
        case 3: to->repetition = thrift_int(t, &f); break;
        case 4: to->name = thrift_bytes(t, &f, &to->name_size); break;
        case 5: to->children = thrift_int(t, &f); break;
        case 6: to->converted = thrift_int(t, &f); break;
        case 10:
            if (thrift_struct(t, &f)) logical_read(t, to);
            break;
        default: thrift_skip(t, &f);
        }
}

static enum meaning meaning_of(const struct element *x) {
    const i64 c = x->converted;
    switch (x->logical) {
    case LOGICAL_STRING:
    case LOGICAL_ENUM:
    case LOGICAL_JSON: return UTF8_TEXT;
    case LOGICAL_DECIMAL:
    case LOGICAL_BSON:
    case LOGICAL_UUID:
    case LOGICAL_FLOAT16: return NO_JSON;
    case LOGICAL_INTEGER: return x->is_signed ? PLAIN_VALUE : UNSIGNED;
    }
    if (c == CONVERTED_UTF8 || c == CONVERTED_ENUM || c == CONVERTED_JSON) return UTF8_TEXT;
    if (c == CONVERTED_DECIMAL || c == CONVERTED_BSON || c == CONVERTED_INTERVAL) return NO_JSON;
    return c >= CONVERTED_U8 && c <= CONVERTED_U64 ? UNSIGNED : PLAIN_VALUE;
}

struct tree {
    struct parquet_meta *m;
    struct thrift *t;
    const char *path;
    i64 used, room;
    struct err *e;
};

static int node_fill(struct tree *b, struct schema_node *n, const struct element *x, bool root) {
    struct arena *a = &b->m->arena;
    if (b->t->bad || !x->name || x->name_size > NAME || x->children < 0 ||
        utf8_bad((const char *)x->name, x->name_size) >= 0 ||
        memchr(x->name, 0, (size_t)x->name_size))
        return malformed(b->path, "a column's name", b->e);
    if (!(n->name = arena_printf(a, b->e, "%.*s", (int)x->name_size, (const char *)x->name)))
        return -1;
    const bool leaf = x->type >= 0;
    if (leaf == (x->children > 0) || x->type > P_FIXED || (leaf && root))
        return malformed(b->path, "the type of a column", b->e);
    if (!root && (x->repetition < REQUIRED || x->repetition > REPEATED))
        return malformed(b->path, "a column is neither required nor optional nor repeated", b->e);
    if (x->type == P_FIXED && (x->size < 1 || x->size > 1 << 20))
        return malformed(b->path, "the size of a column's values", b->e);
    n->type = leaf ? (enum parquet_type)x->type : P_GROUP, n->size = x->size;
    n->repetition = root ? REQUIRED : (enum repetition)x->repetition;
    n->meaning = leaf ? meaning_of(x) : PLAIN_VALUE, n->children = x->children;
    const bool listed =
        x->logical == LOGICAL_LIST || x->logical == LOGICAL_MAP ||
        (!x->logical && (x->converted == CONVERTED_LIST || x->converted == CONVERTED_MAP ||
                         x->converted == CONVERTED_MAP_KEY_VALUE));
    n->list = !leaf && !root && n->repetition != REPEATED && listed && x->children == 1;
    return 0;
}

/* Does the repeated child of a list only hold the element? By the format's rules for old files. */
static bool is_wrapper(const struct schema_node *list, const struct schema_node *child, bool map) {
    const i64 size = (i64)strlen(list->name);
    return child->type == P_GROUP && child->children == 1 && !map && strcmp(child->name, "array") &&
           !(!strncmp(child->name, list->name, (size_t)size) &&
             !strcmp(child->name + size, "_tuple"));
}

/* The node that comes next, with what is in it. */
static int node_read(struct tree *b, const struct schema_node *parent, const char *prefix,
                     int depth) {
    struct element x;
    if (b->used == b->room || depth > DEPTH) return malformed(b->path, "the tree of columns", b->e);
    struct schema_node *n = &b->m->node[b->used++];
    element_read(b->t, &x);
    if (node_fill(b, n, &x, !parent)) return -1;
    n->definition = (parent ? parent->definition : 0) + (n->repetition != REQUIRED);
    n->repeated = (parent ? parent->repeated : 0) + (n->repetition == REPEATED);
    n->leaf = b->m->leaves;
    const bool plain = !parent || !*prefix;
    n->path = arena_printf(&b->m->arena, b->e, "%s%s%s", plain ? "" : prefix, plain ? "" : ".",
                           parent ? n->name : "");
    if (!n->path) return -1;
    if (n->type != P_GROUP) b->m->leaf[b->m->leaves++] = n - b->m->node;
    for (i64 i = 0; i < n->children; i++) {
        struct schema_node *child = &b->m->node[b->used];
        if (node_read(b, n, n->path, depth + 1)) return -1;
        if (!n->list) continue;
        const bool map = x.logical == LOGICAL_MAP || x.converted == CONVERTED_MAP ||
                         x.converted == CONVERTED_MAP_KEY_VALUE;
        if (child->repetition != REPEATED) n->list = false; /* then it is a group like any other */
        child->wrapper = n->list && is_wrapper(n, child, map);
    }
    n->last = b->used, n->leaves = b->m->leaves - n->leaf;
    return 0;
}

static int schema_read(struct parquet_meta *m, struct thrift *t, i64 count, const char *path,
                       struct err *e) {
    struct tree b = {m, t, path, 0, count, e};
    if (m->node || count < 2 || count > NODES)
        return malformed(path, "the number of its columns", e);
    m->node = arena_new(&m->arena, count * (i64)sizeof *m->node, e);
    m->leaf = arena_new(&m->arena, count * (i64)sizeof *m->leaf, e);
    if (!m->node || !m->leaf || node_read(&b, NULL, "", 0)) return -1;
    m->nodes = count;
    return b.used == count ? 0 : malformed(path, "the tree of columns", e);
}

/* ---- row groups ------------------------------------------------------------------------------ */

struct chunk_facts {
    i64 type, codec, values, size, data_at, dictionary_at;
    struct text name;
    bool elsewhere, encrypted, has_meta;
};

static int path_read(struct thrift *t, const struct thrift_field *f, struct text *to,
                     struct err *e) {
    const struct thrift_field item = {.type = T_BINARY};
    i64 n = thrift_list(t, f, T_BINARY), size;
    for (to->size = 0; n > 0 && !t->bad; n--) {
        const u8 *part = thrift_bytes(t, &item, &size);
        if ((to->size && text_add(to, ".", 1, e)) || text_add(to, part, size, e)) return -1;
    }
    return 0;
}

static int chunk_meta_read(struct thrift *t, struct chunk_facts *c, struct err *e) {
    int r = 0;
    c->has_meta = true;
    for (struct thrift_field f = {0}; !r && thrift_field(t, &f);) switch (f.id) {
        case 1: c->type = thrift_int(t, &f); break;
        case 3: r = path_read(t, &f, &c->name, e); break;
        case 4: c->codec = thrift_int(t, &f); break;
        case 5: c->values = thrift_int(t, &f); break;
        case 7: c->size = thrift_int(t, &f); break;
        case 9: c->data_at = thrift_int(t, &f); break;
        case 11: c->dictionary_at = thrift_int(t, &f); break;
        default: thrift_skip(t, &f);
        }
    return r;
}

static int chunk_read(struct thrift *t, struct chunk_facts *c, struct err *e) {
    struct text name = c->name;
    int r = 0;
    *c = (struct chunk_facts){.type = -1, .codec = -1, .name = name};
    c->name.size = 0;
    for (struct thrift_field f = {0}; !r && thrift_field(t, &f);) {
        if (f.id == 1) c->elsewhere = true;
        if (f.id == 8 || f.id == 9) c->encrypted = true;
        if (f.id == 3 && thrift_struct(t, &f))
            r = chunk_meta_read(t, c, e);
        else if (f.id != 3)
            thrift_skip(t, &f);
    }
    return r;
}

static int chunk_check(const struct chunk_facts *c, const struct schema_node *leaf, i64 group,
                       i64 end, struct chunk *to, const char *path, struct err *e) {
    const char *name = c->name.size ? c->name.data : "";
    if (c->encrypted)
        return err_input(e, "'%s': column '%s' is encrypted", path, leaf->path),
               err_hint(e, "write the file without encryption");
    if (c->elsewhere)
        return err_input(e, "'%s': column '%s' lies in another file", path, leaf->path),
               err_hint(e, "read it and write it as one file, for instance with pyarrow");
    if (!c->has_meta || c->type != leaf->type || strcmp(name, leaf->path))
        return err_input(e,
                         "'%s' is not valid Parquet: row group %lld has '%.100s' where column "
                         "'%.100s' belongs",
                         path, (long long)group, name, leaf->path);
    const bool before = c->dictionary_at > 0 && c->dictionary_at < c->data_at;
    *to = (struct chunk){before ? c->dictionary_at : c->data_at, c->size, c->values, (int)c->codec};
    if (!c->values && to->offset < 4) to->offset = 4, to->size = 0; /* of no rows: nowhere */
    if (c->values < 0 || to->size < 0 || to->offset < 4 || to->offset > end ||
        to->size > end - to->offset || c->codec < 0 || c->codec > 100)
        return err_input(e,
                         "'%s' is not valid Parquet: column '%s' of row group %lld lies outside "
                         "of the file's %lld bytes of pages",
                         path, leaf->path, (long long)group, (long long)end),
               err_hint(e, "download or copy it again");
    return 0;
}

static int group_read(struct parquet_meta *m, struct thrift *t, i64 group, i64 end,
                      struct chunk_facts *c, const char *path, struct err *e) {
    bool columns = false;
    for (struct thrift_field f = {0}; thrift_field(t, &f);) {
        if (f.id == 3) {
            m->group_rows[group] = thrift_int(t, &f);
        } else if (f.id == 1 && !columns) {
            columns = true;
            const i64 n = thrift_list(t, &f, T_STRUCT);
            if (n != m->leaves) return malformed(path, "a row group lacks columns", e);
            for (i64 i = 0; i < n; i++)
                if (chunk_read(t, c, e) || t->bad ||
                    chunk_check(c, &m->node[m->leaf[i]], group, end, &m->chunk[group * n + i], path,
                                e))
                    return malformed(path, "a column of a row group", e);
        } else
            thrift_skip(t, &f);
    }
    return columns && m->group_rows[group] >= 0 ? 0 : malformed(path, "a row group", e);
}

static int groups_read(struct parquet_meta *m, struct thrift *t, i64 count, i64 end,
                       const char *path, struct err *e) {
    struct chunk_facts c = {0};
    if (!m->node || m->chunk) return malformed(path, "row groups without columns", e);
    /* each column of each group takes more bytes than this in the footer */
    if (m->leaves && count > (t->end - t->at) / m->leaves)
        return malformed(path, "the number of its row groups", e);
    m->group_rows = arena_new(&m->arena, (count + 1) * (i64)sizeof *m->group_rows, e);
    m->chunk = arena_new(&m->arena, (count * m->leaves + 1) * (i64)sizeof *m->chunk, e);
    int r = m->group_rows && m->chunk ? 0 : -1;
    for (i64 i = 0; i < count && !r; i++) r = group_read(m, t, i, end, &c, path, e);
    text_free(&c.name);
    m->groups = count;
    return r;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int footer_read(struct parquet_meta *m, struct thrift *t, i64 end, const char *path,
                       struct err *e) {
    int r = 0;
    m->rows = -1;
    for (struct thrift_field f = {0}; !r && thrift_field(t, &f);) switch (f.id) {
        case 2: r = schema_read(m, t, thrift_list(t, &f, T_STRUCT), path, e); break;
        case 3: m->rows = thrift_int(t, &f); break;
        case 4: r = groups_read(m, t, thrift_list(t, &f, T_STRUCT), end, path, e); break;
        case 8:
            r = err_input(e, "'%s' is encrypted", path);
            err_hint(e, "write the file without encryption");
            break;
        default: thrift_skip(t, &f);
        }
    if (!r && (t->bad || !m->chunk)) r = malformed(path, "its footer", e);
    i64 rows = 0;
    for (i64 i = 0; !r && i < m->groups; i++)
        if (m->group_rows[i] > m->rows - rows)
            r = malformed(path, "its row groups have more rows than it", e);
        else
            rows += m->group_rows[i];
    return r || rows == m->rows ? r : malformed(path, "its row groups have fewer rows than it", e);
}

int parquet_meta_read(struct parquet_meta *m, const u8 *file, i64 size, const char *path,
                      struct err *e) {
    const u8 *tail = file + size - 8;
    if (size >= 12 && !memcmp(tail + 4, "PARE", 4))
        return err_input(e, "'%s' is encrypted", path),
               err_hint(e, "write the file without encryption");
    if (size < 12 || memcmp(file, "PAR1", 4) || memcmp(tail + 4, "PAR1", 4)) {
        const bool begun = size >= 4 && !memcmp(file, "PAR1", 4);
        err_input(e, "'%s' is not Parquet: it does not %s with PAR1", path,
                  begun ? "end" : "begin");
        return err_hint(e, begun ? "it was cut: download or copy it again"
                                 : "give its type: jsonl, csv, tsv or text");
    }
    const u32 footer = tail[0] | (u32)tail[1] << 8 | (u32)tail[2] << 16 | (u32)tail[3] << 24;
    if (footer > size - 12) return malformed(path, "its footer is larger than the file", e);
    struct thrift t = {tail - footer, tail, false};
    return footer_read(m, &t, size - 8 - footer, path, e);
}
