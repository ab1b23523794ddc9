/* h5_tree.c: version 1 B-trees: the names of a group (with symbol table nodes and a local heap) and
 * the chunks of an array. Only training states that hone wrote through the HDF5 library have them;
 * they carry no checksums, so every address, count and level is checked. A tree's levels count
 * down, so that it ends; the file's budget bounds how much of it is read. */
#include "base/h5_int.h"
#include <string.h>

static int tree_bad(struct h5_file *f, u64 at, struct err *e) {
    return h5_bad(f, e, "the B-tree at %llu is damaged", (unsigned long long)at);
}

/* A node's keys and children; `kind` 0 for groups, 1 for chunks. Returns the number of children. */
static int node_read(struct h5_file *f, u64 at, int kind, int level, i64 key, struct h5_span *s,
                     struct err *e) {
    const u8 *head = h5_structure(f, at, 24, "a B-tree", e);
    if (!head) return -1;
    struct h5_span counts = {head + 5, 3, false};
    const int found = (int)h5_take(&counts, 1), children = (int)h5_take(&counts, 2);
    if (memcmp(head, "TREE", 4) || head[4] != kind || (level >= 0 && found != level) ||
        found > H5_DEEP || !children)
        return tree_bad(f, at, e);
    const i64 size = children * (key + 8) + key;
    const u8 *data = h5_structure(f, at + 24, size, "a B-tree", e);
    if (!data) return -1;
    *s = (struct h5_span){data, size, false};
    return children | found << 16;
}

/* ---- groups ---------------------------------------------------------------------------------- */

struct names {
    struct h5_file *f;
    struct h5_object *o;
    const u8 *heap;
    i64 size;
};

static int symbol_add(struct names *n, u64 name, u64 at, struct err *e) {
    const u8 *text = name < (u64)n->size ? n->heap + name : NULL,
             *end = text ? memchr(text, 0, (size_t)(n->size - (i64)name)) : NULL;
    if (!end || end == text || end - text >= H5_NAME)
        return h5_bad(n->f, e, "a group whose names are damaged");
    struct h5_link *l = arena_new(&n->f->arena, sizeof *l, e);
    if (!l) return -1;
    *l = (struct h5_link){n->o->link, (const char *)text, at};
    n->o->link = l;
    return 0;
}

static int symbols_read(struct names *n, u64 at, struct err *e) {
    const u8 *head = h5_structure(n->f, at, 8, "a symbol table", e);
    if (!head) return -1;
    const i64 count = head[6] | head[7] << 8;
    if (memcmp(head, "SNOD\1", 5))
        return h5_bad(n->f, e, "at %llu is no symbol table", (unsigned long long)at);
    const u8 *data = h5_structure(n->f, at + 8, 40 * count, "a symbol table", e);
    if (!data) return -1;
    for (i64 i = 0; i < count; i++) {
        struct h5_span s = {data + 40 * i, 40, false};
        const u64 name = h5_take(&s, 8), object = h5_take(&s, 8), kind = h5_take(&s, 4);
        if (kind > 1) return h5_bad(n->f, e, "a link that is no hard link");
        if (symbol_add(n, name, object, e)) return -1;
    }
    return 0;
}

static int names_read(struct names *n, u64 at, int level, struct err *e) {
    struct h5_span s;
    const int found = node_read(n->f, at, 0, level, 8, &s, e), children = found & 65535;
    if (found < 0) return -1;
    level = found >> 16;
    for (int i = 0; i < children; i++) {
        h5_take(&s, 8);
        const u64 child = h5_take(&s, 8);
        if (level ? names_read(n, child, level - 1, e) : symbols_read(n, child, e)) return -1;
    }
    return 0;
}

int h5_symbols(struct h5_file *f, struct h5_object *o, struct err *e) {
    const u8 *head = h5_structure(f, o->heap, 32, "a group's names", e);
    if (!head) return -1;
    struct h5_span s = {head + 8, 24, false};
    const u64 size = h5_take(&s, 8);
    h5_take(&s, 8);
    const u64 at = h5_take(&s, 8);
    if (memcmp(head, "HEAP\0", 5) || size > (u64)f->size)
        return h5_bad(f, e, "at %llu are no names of a group", (unsigned long long)o->heap);
    struct names n = {f, o, h5_structure(f, at, (i64)size, "a group's names", e), (i64)size};
    if (!n.heap) return -1;
    /* A group without names has a tree without entries. */
    const u8 *tree = h5_structure(f, o->tree, 8, "a B-tree", e);
    if (!tree) return -1;
    if (!memcmp(tree, "TREE\0\0\0\0", 8)) return 0;
    return names_read(&n, o->tree, -1, e);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static int chunk_place(struct h5_file *f, const struct h5_array *a, struct h5_span *s, i64 *index,
                       struct err *e) {
    *index = 0;
    for (int d = 0; d < a->rank; d++) {
        const u64 at = h5_take(s, 8);
        if (at >= (u64)a->dim[d] || at % (u64)a->chunk[d])
            return h5_bad(f, e, "a chunk that is not on its array's grid");
        *index = *index * ((a->dim[d] + a->chunk[d] - 1) / a->chunk[d]) + (i64)at / a->chunk[d];
    }
    return h5_take(s, 8) ? h5_bad(f, e, "a chunk that is not on its array's grid") : 0;
}

static int chunks_read(struct h5_file *f, const struct h5_array *a, struct h5_piece *piece, u64 at,
                       int level, struct err *e) {
    struct h5_span s;
    const i64 key = 8 + 8 * (a->rank + 1);
    const int found = node_read(f, at, 1, level, key, &s, e), children = found & 65535;
    if (found < 0) return -1;
    level = found >> 16;
    for (int i = 0; i < children; i++) {
        const u64 size = h5_take(&s, 4), skipped = h5_take(&s, 4);
        i64 index = 0;
        struct h5_span place = h5_cut(&s, key - 8);
        const u64 child = h5_take(&s, 8);
        if (level) {
            if (chunks_read(f, a, piece, child, level - 1, e)) return -1;
            continue;
        }
        if (chunk_place(f, a, &place, &index, e)) return -1;
        if (skipped || piece[index].size) return h5_bad(f, e, "a chunk that is there twice");
        piece[index] = (struct h5_piece){child, size};
    }
    return 0;
}

int h5_chunk_tree(struct h5_file *f, const struct h5_array *a, struct h5_piece *piece,
                  struct err *e) {
    return chunks_read(f, a, piece, a->index_at, -1, e);
}
