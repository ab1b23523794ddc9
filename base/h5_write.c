/* h5_write.c: writes an HDF5 file: data first, then an object header for each array and group, and
 * the superblock last, so that a file that was not finished has no signature.
 *
 * Every header is one chunk ("OHDR", version 2): messages of type, size and content, and a
 * checksum. Links and attributes are messages of the header, however many there are; the library
 * would move them to a heap with a B-tree beyond eight, and reads both. A chunked array's index is
 * a fixed array in one block: a table of addresses and sizes with a checksum.
 * Nothing depends on time: equal contents give equal files. */
#include "base/h5_int.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUPERBLOCK = 48 };

struct out { /* bytes of structure; a failure is kept until it is asked for */
    struct text t;
    bool failed;
    struct err *err;
};
struct h5_writer {
    int fd;
    char *path;
    i64 size; /* of the file so far */
    struct out root;
    struct h5_node *node;
    i64 nodes, room;
};

static void put_bytes(struct out *o, const void *data, i64 size) {
    if (!o->failed) o->failed = text_add(&o->t, data, size, o->err);
}
static void put(struct out *o, u64 value, int bytes) { put_bytes(o, &value, bytes); }
static void put_many(struct out *o, const u8 *values, int count) { put_bytes(o, values, count); }

static void put_checksum(struct out *o, i64 from) {
    if (!o->failed) put(o, h5_checksum(o->t.data + from, o->t.size - from), 4);
}

/* A message: its head now, its size when its content is there. */
static i64 message_begin(struct out *o, int type) {
    put(o, (u64)type, 1), put(o, 0, 2), put(o, 0, 1);
    return o->t.size;
}
static void message_end(struct out *o, i64 from) {
    if (o->failed) return;
    i64 size = o->t.size - from;
    if (size > 65535)
        o->failed = err_failed(o->err, "an HDF5 message of %lld bytes", (long long)size);
    u16 stored = (u16)size;
    if (!o->failed) memcpy(o->t.data + from - 3, &stored, 2);
}

/* ---- what describes an array ----------------------------------------------------------------- */

static void put_type(struct out *o, enum h5_type type, i64 size) {
    const int bits = 8 * h5_size[type];
    if (type == H5_TEXT) { /* ends with a NUL, ASCII as the library's C strings */
        put(o, 0x13, 1), put(o, 0, 3), put(o, (u64)size, 4);
    } else if (type == H5_F32 || type == H5_F64) { /* sign first, exponent, implied 1, mantissa */
        const bool wide = type == H5_F64;
        put(o, 0x11, 1), put(o, 0x20, 1), put(o, (u64)bits - 1, 1), put(o, 0, 1);
        put(o, (u64)bits / 8, 4), put(o, 0, 2), put(o, (u64)bits, 2), put(o, wide ? 52 : 23, 1);
        put(o, wide ? 11 : 8, 1), put(o, 0, 1), put(o, wide ? 52 : 23, 1);
        put(o, wide ? 1023 : 127, 4);
    } else {
        put(o, 0x10, 1), put(o, type == H5_I64 ? 8 : 0, 1), put(o, 0, 2);
        put(o, (u64)bits / 8, 4), put(o, 0, 2), put(o, (u64)bits, 2);
    }
}

/* A chunk may be larger than its array only if the array may grow to that size: `chunk` or NULL. */
static void put_space(struct out *o, int rank, const i64 *dim, const i64 *chunk) {
    bool grows = false;
    for (int d = 0; chunk && d < rank; d++) grows |= chunk[d] > dim[d];
    put_many(o, (const u8[]){2, (u8)rank, grows, rank ? 1 : 0}, 4);
    for (int d = 0; d < rank; d++) put(o, (u64)dim[d], 8);
    for (int d = 0; grows && d < rank; d++) put(o, (u64)i64_max(dim[d], chunk[d]), 8);
}

static void put_attribute(struct out *o, const char *name, enum h5_type type, i64 size,
                          const void *data) {
    i64 from = message_begin(o, MESSAGE_ATTRIBUTE);
    struct out described = {.err = o->err};
    put_type(&described, type, size);
    put(o, 3, 1), put(o, 0, 1), put(o, strlen(name) + 1, 2);
    put(o, (u64)described.t.size, 2), put(o, 4, 2), put(o, 0, 1);
    put_bytes(o, name, (i64)strlen(name) + 1);
    put_bytes(o, described.t.data, described.t.size);
    put_space(o, 0, NULL, NULL), put_bytes(o, data, size);
    o->failed |= described.failed;
    text_free(&described.t);
    message_end(o, from);
}

static void put_filters(struct out *o, const struct h5_array *a) {
    static const char name[] = "Zstandard compression: http://www.zstd.net";
    i64 from = message_begin(o, MESSAGE_FILTERS);
    put(o, 2, 1), put(o, a->shuffled ? 2 : 1, 1);
    if (a->shuffled)
        put(o, FILTER_SHUFFLE, 2), put(o, 0, 2), put(o, 1, 2), put(o, (u64)h5_size[a->type], 4);
    put(o, FILTER_ZSTD, 2), put(o, sizeof name, 2), put(o, 0, 2), put(o, 1, 2);
    put_bytes(o, name, sizeof name), put(o, (u64)a->level, 4);
    message_end(o, from);
}

static int page_bits(i64 pieces) { /* one page: all of them */
    int bits = 10;
    while ((i64)1 << bits < pieces) bits++;
    return bits;
}

static void put_layout(struct out *o, const struct h5_array *a, u64 index) {
    i64 from = message_begin(o, MESSAGE_LAYOUT);
    if (!a->chunked) {
        put(o, 4, 1), put(o, LAYOUT_CONTIGUOUS, 1);
        put(o, a->pieces ? a->piece->at : H5_NOWHERE, 8), put(o, a->pieces ? a->piece->size : 0, 8);
    } else {
        int bytes = 1; /* as few as the largest dimension needs: HDF5 2.0 checks it */
        for (int d = 0; d < a->rank; d++)
            while (a->chunk[d] >> 8 * bytes) bytes++;
        put_many(o, (const u8[]){4, LAYOUT_CHUNKED, 0, (u8)(a->rank + 1), (u8)bytes}, 5);
        for (int d = 0; d < a->rank; d++) put(o, (u64)a->chunk[d], bytes);
        put(o, (u64)h5_size[a->type], bytes);
        put(o, INDEX_FIXED, 1), put(o, (u64)page_bits(a->pieces), 1), put(o, index, 8);
    }
    message_end(o, from);
}

/* ---- appending ------------------------------------------------------------------------------- */

int h5_append(struct h5_writer *w, const void *data, i64 size, struct h5_piece *piece,
              struct err *e) {
    if (piece) *piece = (struct h5_piece){(u64)w->size, (u64)size};
    w->size += size;
    return file_write_all(w->fd, data, size, w->path, e);
}

static int out_end(struct h5_writer *w, struct out *o, u64 *at, struct err *e) {
    struct h5_piece piece = {0};
    int status = o->failed ? -1 : h5_append(w, o->t.data, o->t.size, &piece, e);
    text_free(&o->t);
    *at = piece.at;
    return status;
}

static int header_write(struct h5_writer *w, struct out *messages, u64 *at, struct err *e) {
    struct out o = {.err = e, .failed = messages->failed};
    put_bytes(&o, "OHDR", 4), put(&o, 2, 1), put(&o, 2, 1); /* version; 4 bytes of size follow */
    put(&o, (u64)messages->t.size, 4), put_bytes(&o, messages->t.data, messages->t.size);
    put_checksum(&o, 0);
    if (messages->t.size > UINT32_MAX)
        o.failed = err_failed(e, "%s: too many arrays for one HDF5 group", w->path);
    text_free(&messages->t);
    return out_end(w, &o, at, e);
}

/* The fixed array: a header, and right behind it the block with an entry for each chunk. */
static int index_write(struct h5_writer *w, const struct h5_array *a, u64 *at, struct err *e) {
    u64 chunk = (u64)h5_size[a->type];
    for (int d = 0; d < a->rank; d++) chunk *= (u64)a->chunk[d];
    const int bytes = h5_size_bytes(chunk);
    struct out o = {.err = e};
    put_bytes(&o, "FAHD", 4);
    put_many(&o, (const u8[]){0, 1, (u8)(8 + bytes + 4), (u8)page_bits(a->pieces)}, 4);
    put(&o, (u64)a->pieces, 8), put(&o, (u64)w->size + 28, 8);
    put_checksum(&o, 0);
    put_bytes(&o, "FADB", 4), put_many(&o, (const u8[]){0, 1}, 2), put(&o, (u64)w->size, 8);
    for (i64 i = 0; i < a->pieces; i++)
        put(&o, a->piece[i].at, 8), put(&o, a->piece[i].size, bytes), put(&o, 0, 4);
    put_checksum(&o, 28);
    return out_end(w, &o, at, e);
}

static int node_add(struct h5_writer *w, const char *name, u64 at, struct err *e) {
    if (!name[0] || strlen(name) >= H5_NAME)
        return err_failed(e, "array names have 1 to %d bytes: %.64s", H5_NAME - 1, name);
    if (w->nodes == w->room) {
        i64 size = (i64)sizeof *w->node, more = w->room ? 2 * w->room : 64;
        struct h5_node *grown = mem_grow(w->node, w->room * size, more * size, e);
        if (!grown) return -1;
        w->node = grown, w->room = more;
    }
    char *copy = mem_text(name, e);
    if (!copy) return -1;
    w->node[w->nodes++] = (struct h5_node){copy, at};
    return 0;
}

int h5_add(struct h5_writer *w, const struct h5_array *a, struct err *e) {
    u64 index = H5_NOWHERE, at;
    if (a->chunked && index_write(w, a, &index, e)) return -1;
    struct out o = {.err = e};
    i64 from = message_begin(&o, MESSAGE_SPACE);
    put_space(&o, a->rank, a->dim, a->chunked ? a->chunk : NULL), message_end(&o, from);
    from = message_begin(&o, MESSAGE_TYPE);
    put_type(&o, a->type, 1), message_end(&o, from);
    from = message_begin(&o, MESSAGE_FILL); /* space is allocated late or by chunk; never filled */
    put(&o, 3, 1), put(&o, a->chunked ? 3 | 1 << 2 : 2 | 1 << 2, 1), message_end(&o, from);
    put_layout(&o, a, index);
    if (a->chunked) put_filters(&o, a);
    if (a->sha256) put_attribute(&o, "sha256", H5_TEXT, (i64)strlen(a->sha256) + 1, a->sha256);
    return header_write(w, &o, &at, e) || node_add(w, a->name, at, e) ? -1 : 0;
}

int h5_put_array(struct h5_writer *w, const char *name, enum h5_type type, i64 rows, i64 columns,
                 const void *data, struct err *e) {
    struct h5_piece piece;
    const struct h5_array a = {.name = name,
                               .type = type,
                               .rank = columns > 1 ? 2 : 1,
                               .dim = {rows, columns > 1 ? columns : 0},
                               .piece = &piece,
                               .pieces = 1};
    return h5_append(w, data, rows * columns * h5_size[type], &piece, e) || h5_add(w, &a, e) ? -1
                                                                                             : 0;
}

static int root_put(struct h5_writer *w, const char *name, enum h5_type type, i64 size,
                    const void *value, struct err *e) {
    w->root.err = e;
    put_attribute(&w->root, name, type, size, value);
    return w->root.failed ? -1 : 0;
}
int h5_put_i64(struct h5_writer *w, const char *name, i64 value, struct err *e) {
    return root_put(w, name, H5_I64, 8, &value, e);
}
int h5_put_f64(struct h5_writer *w, const char *name, double value, struct err *e) {
    return root_put(w, name, H5_F64, 8, &value, e);
}
int h5_put_text(struct h5_writer *w, const char *name, const char *value, struct err *e) {
    const i64 size = (i64)strlen(value) + 1;
    if (size > 64000)
        return err_failed(e, "attribute %s has %lld bytes; the limit is 64000", name,
                          (long long)size);
    return root_put(w, name, H5_TEXT, size, value, e);
}

/* ---- groups and the end ---------------------------------------------------------------------- */

static void put_link(struct out *o, const char *name, i64 size, u64 at) {
    i64 from = message_begin(o, MESSAGE_LINK);
    put(o, 1, 1), put(o, 1, 1), put(o, (u64)size, 2), put_bytes(o, name, size), put(o, at, 8);
    message_end(o, from);
}

/* A group of the sorted nodes begin..end, whose names share `skip` bytes; `o` holds its attributes.
 */
static int group_write(struct h5_writer *w, struct out *o, i64 begin, i64 end, i64 skip, int deep,
                       u64 *at, struct err *e) {
    i64 from = message_begin(o, MESSAGE_LINK_INFO); /* no heap: links are in the header */
    put(o, 0, 2), put(o, H5_NOWHERE, 8), put(o, H5_NOWHERE, 8), message_end(o, from);
    from = message_begin(o, MESSAGE_GROUP_INFO);
    put(o, 0, 2), message_end(o, from);
    if (deep > H5_DEEP) return err_failed(e, "%s: groups nest deeper than %d", w->path, H5_DEEP);
    for (i64 i = begin, next; i < end; i = next) {
        const char *name = w->node[i].name + skip;
        const i64 size = (i64)strcspn(name, "/");
        u64 inner = w->node[i].at;
        next = i + 1;
        if (next < end && !strcmp(name, w->node[next].name + skip))
            return err_failed(e, "%s: array %.200s is written twice", w->path, w->node[i].name);
        if (name[size]) {
            struct out group = {.err = e};
            while (next < end && !strncmp(name, w->node[next].name + skip, (size_t)size + 1))
                next++;
            if (group_write(w, &group, i, next, skip + size + 1, deep + 1, &inner, e))
                return text_free(&group.t), -1;
        }
        put_link(o, name, size, inner);
    }
    return header_write(w, o, at, e);
}

static int node_compare(const void *a, const void *b) {
    return strcmp(((const struct h5_node *)a)->name, ((const struct h5_node *)b)->name);
}

static int write_end(struct h5_writer *w, struct err *e) {
    u64 root;
    struct out o = {.err = e};
    w->root.err = e;
    if (w->nodes) qsort(w->node, (size_t)w->nodes, sizeof *w->node, node_compare);
    if (group_write(w, &w->root, 0, w->nodes, 0, 0, &root, e)) return -1;
    put_bytes(&o, "\x89HDF\r\n\x1a\n", 8), put_many(&o, (const u8[]){3, 8, 8, 0}, 4);
    put(&o, 0, 8), put(&o, H5_NOWHERE, 8), put(&o, (u64)w->size, 8), put(&o, root, 8);
    put_checksum(&o, 0);
    int status = o.failed ? -1 : 0;
    if (!status && lseek(w->fd, 0, SEEK_SET)) status = err_system(e, "write", w->path);
    if (!status) status = file_write_all(w->fd, o.t.data, o.t.size, w->path, e);
    text_free(&o.t);
    return status ? -1 : file_sync(w->fd, w->path, e);
}

struct h5_writer *h5_create(const char *path, struct err *e) {
    struct h5_writer *w = mem_new(sizeof *w, e);
    if (!w) return NULL;
    w->fd = -1;
    if (!(w->path = mem_text(path, e))) return h5_finish(w, false, e), NULL;
    if (!fault_hit(FAULT_OPEN))
        w->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    static const u8 room[SUPERBLOCK];
    if (w->fd < 0) err_system(e, "create", path);
    if (w->fd < 0 || h5_append(w, room, SUPERBLOCK, NULL, e)) return h5_finish(w, false, e), NULL;
    return w;
}

int h5_finish(struct h5_writer *w, bool keep, struct err *e) {
    if (!w) return -1;
    int status = keep ? write_end(w, e) : -1;
    if (w->fd >= 0 && close(w->fd) && !status) status = err_system(e, "write", w->path);
    if (w->fd >= 0 && status) unlink(w->path);
    for (i64 i = 0; i < w->nodes; i++) mem_free(w->node[i].name);
    text_free(&w->root.t);
    mem_free(w->node), mem_free(w->path), mem_free(w);
    return status ? -1 : 0;
}
