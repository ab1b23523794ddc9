/* h5_read.c: opens an HDF5 file, lists its arrays, and finds where the data of each lies.
 *
 * All groups are walked when a file is opened; each array's header is read, and checked, then and
 * again when it is asked for. Structure that is read is counted against a budget of twice the
 * file's size while opening and again for each array, so that headers, trees and groups that lead
 * back to themselves end in an error. */
#include "base/h5_int.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the arrays of all groups ---------------------------------------------------------------- */

static int node_add(struct h5_file *f, const char *name, u64 at, struct err *e) {
    if (f->nodes == f->room) {
        i64 size = (i64)sizeof *f->node, more = f->room ? 2 * f->room : 64;
        struct h5_node *grown = mem_grow(f->node, f->room * size, more * size, e);
        if (!grown) return -1;
        f->node = grown, f->room = more;
    }
    f->node[f->nodes] = (struct h5_node){arena_text(&f->arena, name, e), at};
    return f->node[f->nodes].name ? (f->nodes++, 0) : -1;
}

static int group_walk(struct h5_file *f, const struct h5_object *group, const char *prefix,
                      int deep, struct err *e) {
    if (deep > H5_DEEP) return h5_bad(f, e, "groups nest deeper than %d", H5_DEEP);
    for (const struct h5_link *l = group->link; l; l = l->next) {
        char name[H5_NAME];
        struct h5_object o;
        const int size = snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "/" : "", l->name);
        if (size >= (int)sizeof name)
            return h5_bad(f, e, "a name of %d bytes; at most %d", size, H5_NAME - 1);
        if (h5_object(f, l->at, &o, e)) return -1;
        if (o.is_group ? group_walk(f, &o, name, deep + 1, e) : node_add(f, name, l->at, e))
            return -1;
    }
    return 0;
}

static int node_compare(const void *a, const void *b) {
    return strcmp(((const struct h5_node *)a)->name, ((const struct h5_node *)b)->name);
}

static const struct h5_node *node_find(const struct h5_file *f, const char *name) {
    const struct h5_node key = {(char *)(uintptr_t)name, 0};
    return f->nodes ? bsearch(&key, f->node, (size_t)f->nodes, sizeof key, node_compare) : NULL;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The address of the root group. Version 0 has no checksum; version 2 and 3 are alike. */
static int superblock_read(struct h5_file *f, const u8 *head, i64 size, u64 *root, struct err *e) {
    struct h5_span s = {head + 8, size - 8, false};
    const u64 version = h5_take(&s, 1);
    u64 sizes, base, end;
    *root = 0;
    if (version == 0) {
        h5_take(&s, 4), sizes = h5_take(&s, 2), h5_take(&s, 5), h5_take(&s, 4);
        base = h5_take(&s, 8), h5_take(&s, 8), end = h5_take(&s, 8);
        const u64 driver = h5_take(&s, 8);
        h5_take(&s, 8), *root = h5_take(&s, 8);
        if (driver != H5_NOWHERE) return h5_bad(f, e, "it needs a driver of another program");
    } else if (version == 2 || version == 3) {
        sizes = h5_take(&s, 2), h5_take(&s, 1), base = h5_take(&s, 8);
        const u64 extension = h5_take(&s, 8);
        end = h5_take(&s, 8), *root = h5_take(&s, 8);
        const u64 sum = h5_take(&s, 4);
        if (s.bad || sum != h5_checksum(head, 44))
            return h5_bad(f, e, "its superblock's checksum does not fit");
        if (extension != H5_NOWHERE) return h5_bad(f, e, "it has a superblock extension");
    } else {
        return h5_bad(f, e, "superblock version %llu is unknown", (unsigned long long)version);
    }
    if (s.bad || sizes != 0x808 || base)
        return h5_bad(f, e, "its superblock is unknown or cut off");
    return end > (u64)f->size ? h5_bad(f, e, "it should have %llu bytes and has %lld",
                                       (unsigned long long)end, (long long)f->size)
                              : 0;
}

static int file_walk(struct h5_file *f, struct err *e) {
    u8 head[96] = {0};
    u64 at;
    struct h5_object root;
    const i64 size = i64_min(f->size, sizeof head);
    if (h5_read(f, 0, size, head, e)) return -1;
    if (size < 9 || memcmp(head, "\x89HDF\r\n\x1a\n", 8))
        return err_input(e, "'%s' is not an HDF5 file", f->path);
    if (superblock_read(f, head, size, &at, e)) return -1;
    f->budget = 2 * f->size + 4096;
    if (h5_object(f, at, &root, e)) return -1;
    if (!root.is_group) return h5_bad(f, e, "its root is no group");
    f->root = root.attribute;
    if (group_walk(f, &root, "", 0, e)) return -1;
    if (f->nodes) qsort(f->node, (size_t)f->nodes, sizeof *f->node, node_compare);
    for (i64 i = 1; i < f->nodes; i++)
        if (!strcmp(f->node[i].name, f->node[i - 1].name))
            return h5_bad(f, e, "array %.200s is there twice", f->node[i].name);
    return 0;
}

struct h5_file *h5_open(const char *path, struct err *e) {
    struct h5_file *f = mem_new(sizeof *f, e);
    struct stat info;
    if (!f) return NULL;
    f->fd = -1;
    int status = (f->path = mem_text(path, e)) ? 0 : -1;
    if (!status) status = (f->fd = file_source(path, e)) < 0 ? -1 : 0;
    if (!status && fstat(f->fd, &info)) status = err_system(e, "open", path);
    if (!status && !S_ISREG(info.st_mode))
        status = err_input(e, "cannot read %s: not a regular file", path);
    if (!status) f->size = info.st_size, status = file_walk(f, e);
    if (!status) return f;
    h5_close(f);
    return NULL;
}

void h5_close(struct h5_file *f) {
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    arena_free(&f->arena);
    mem_free(f->node), mem_free(f->path), mem_free(f);
}

int h5_fd(const struct h5_file *f) { return f->fd; }
i64 h5_bytes(const struct h5_file *f) { return f->size; }
const struct h5_attribute *h5_root(const struct h5_file *f) { return f->root; }
bool h5_has(const struct h5_file *f, const char *name) { return node_find(f, name); }

int h5_find(struct h5_file *f, const char *name, struct h5_array *a, struct err *e) {
    const struct h5_node *n = node_find(f, name);
    struct h5_object o;
    if (!n) return 1;
    f->budget = f->size + 4096;
    if (h5_object(f, n->at, &o, e)) return -1;
    *a = o.array, a->name = n->name;
    return 0;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* The fixed array that h5_write.c writes: one block, entries of address, size and filter mask. */
static int fixed_read(struct h5_file *f, const struct h5_array *a, struct h5_piece *piece,
                      struct err *e) {
    u64 chunk = (u64)h5_size[a->type];
    for (int d = 0; d < a->rank; d++) chunk *= (u64)a->chunk[d];
    const int bytes = h5_size_bytes(chunk);
    const u8 *head = h5_structure(f, a->index_at, 28, "a chunk index", e);
    if (!head) return -1;
    struct h5_span s = {head + 4, 24, false};
    const u64 kind = h5_take(&s, 2), entry = h5_take(&s, 1), bits = h5_take(&s, 1),
              count = h5_take(&s, 8), at = h5_take(&s, 8), sum = h5_take(&s, 4);
    if (memcmp(head, "FAHD", 4) || kind != 0x100 || sum != h5_checksum(head, 24) ||
        entry != (u64)(12 + bytes) || count != (u64)a->pieces || bits > 62 ||
        count > (u64)1 << bits)
        return h5_bad(f, e, "the chunk index at %llu is damaged or unknown",
                      (unsigned long long)a->index_at);
    const i64 size = 14 + a->pieces * (i64)entry;
    const u8 *data = h5_structure(f, at, size + 4, "a chunk index", e);
    if (!data) return -1;
    s = (struct h5_span){data + 4, size, false};
    if (memcmp(data, "FADB", 4) || h5_take(&s, 2) != 0x100 || h5_take(&s, 8) != a->index_at)
        return h5_bad(f, e, "the chunk index at %llu is damaged", (unsigned long long)at);
    for (i64 i = 0; i < a->pieces; i++) {
        piece[i].at = h5_take(&s, 8), piece[i].size = h5_take(&s, bytes);
        if (h5_take(&s, 4)) return h5_bad(f, e, "a chunk that is not compressed");
    }
    return h5_take(&s, 4) == h5_checksum(data, size)
               ? 0
               : h5_bad(f, e, "the chunk index at %llu: its checksum does not fit",
                        (unsigned long long)at);
}

struct h5_piece *h5_pieces(struct h5_file *f, struct h5_array *a, struct err *e) {
    i64 count = 1;
    if (!a->chunked) count = a->pieces;
    for (int d = 0; a->chunked && d < a->rank; d++)
        if (__builtin_mul_overflow(count, (a->dim[d] + a->chunk[d] - 1) / a->chunk[d], &count))
            count = INT64_MAX;
    if (a->type == H5_UNKNOWN) return h5_bad(f, e, "%.200s has an unknown type", a->name), NULL;
    if (count > f->size / 8) /* an index has more than that for each */
        return h5_bad(f, e, "%.200s claims %lld chunks in a file of %lld bytes", a->name,
                      (long long)count, (long long)f->size),
               NULL;
    struct h5_piece *piece = mem_new_array(count + 1, sizeof *piece, e);
    int status = piece ? 0 : -1;
    a->pieces = count;
    f->budget = 2 * f->size + 4096;
    if (!status && !a->chunked && count) piece[0] = a->piece[0];
    if (!status && a->chunked && count)
        status = a->index == INDEX_FIXED ? fixed_read(f, a, piece, e)
                 : a->index == INDEX_TREE
                     ? h5_chunk_tree(f, a, piece, e)
                     : h5_bad(f, e, "%.200s has an index of an unknown kind", a->name);
    for (i64 i = 0; i < count && !status; i++)
        if (!piece[i].size || piece[i].at > (u64)f->size ||
            piece[i].size > (u64)f->size - piece[i].at)
            status = h5_bad(f, e, "a chunk of %.200s is missing or not inside the file", a->name);
    if (!status) return piece;
    mem_free(piece);
    return NULL;
}
