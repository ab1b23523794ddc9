/* state_read.c: reading training state back.
 *
 * Nothing is converted or guessed: an array must have the type, shape and chunks that the trainer
 * would write, and its bytes the hash it was written with. Chunks are decompressed on all threads.
 */
#include "checkpoints/checkpoints_int.h"
#include <string.h>
#include <zstd.h>

struct state_reader {
    struct h5_file *file;
    char *path;
    u8 *scratch; /* STATE_SLOTS times: planes, a compressed chunk; made when first needed */
};

/* ---- attributes ------------------------------------------------------------------------------ */

static const struct h5_attribute *attribute_find(struct state_reader *r,
                                                 const struct h5_attribute *list, const char *name,
                                                 enum h5_type type, struct err *e) {
    const struct h5_attribute *a = h5_attribute(list, name);
    if (!a) return err_input(e, "%s has no attribute %.150s", r->path, name), NULL;
    if (a->type == type && (type != H5_TEXT || !a->data[a->size - 1])) return a;
    err_input(e, "%s: attribute %.150s is not one %s", r->path, name,
              type == H5_TEXT  ? "text"
              : type == H5_I64 ? "whole number"
                               : "number");
    return NULL;
}

static int number_get(struct state_reader *r, const char *name, enum h5_type type, void *to,
                      struct err *e) {
    const struct h5_attribute *a = attribute_find(r, h5_root(r->file), name, type, e);
    if (a) memcpy(to, a->data, 8);
    return a ? 0 : -1;
}
int state_get_i64(struct state_reader *r, const char *name, i64 *value, struct err *e) {
    return number_get(r, name, H5_I64, value, e);
}
int state_get_f64(struct state_reader *r, const char *name, double *value, struct err *e) {
    return number_get(r, name, H5_F64, value, e);
}
char *state_get_text(struct state_reader *r, const char *name, struct err *e) {
    const struct h5_attribute *a = attribute_find(r, h5_root(r->file), name, H5_TEXT, e);
    return a ? mem_text((const char *)a->data, e) : NULL;
}

/* ---- arrays ---------------------------------------------------------------------------------- */

bool state_has(struct state_reader *r, const char *name) { return h5_has(r->file, name); }

static int array_find(struct state_reader *r, const char *name, struct h5_array *a,
                      enum dtype *dtype, struct err *e) {
    static const enum dtype held[] = {F32, F64, I64, U8};
    int found = h5_find(r->file, name, a, e);
    if (found > 0) return err_input(e, "%s has no array %.200s", r->path, name);
    if (found) return -1;
    *dtype = DTYPE_COUNT;
    for (i64 i = 0; i < COUNT(held); i++)
        if (state_type(held[i]) == a->type) *dtype = held[i];
    return a->rank < 1 || *dtype == DTYPE_COUNT
               ? err_input(e, "%s: array %.200s has a type or shape that state files do not hold",
                           r->path, name)
               : 0;
}

int state_shape(struct state_reader *r, const char *name, enum dtype *dtype, int *rank,
                i64 dim[STORED_RANK], struct err *e) {
    struct h5_array a;
    if (array_find(r, name, &a, dtype, e)) return -1;
    *rank = a.rank;
    memcpy(dim, a.dim, (size_t)a.rank * sizeof *dim);
    return 0;
}

/* Some chunks of an array, compressed in the slots, on their way to `to`. */
struct unpacking {
    const struct state_cut *cut;
    const struct h5_piece *piece; /* of slot 0 */
    u8 *to, *scratch;
    i64 size, dim_at, first; /* bytes of an element; dim[cut->at]; piece of slot 0 */
    bool bad[STATE_SLOTS];
};

static void unshuffle(u8 *to, const u8 *from, i64 have, i64 full, i64 size) {
    for (i64 b = 0; b < size; b++)
        for (i64 i = 0; i < have; i++) to[i * size + b] = from[b * full + i];
}

static void unpack(void *arg, i64 begin, i64 end, int worker) {
    struct unpacking *u = arg;
    const struct state_cut *c = u->cut;
    (void)worker;
    for (i64 i = begin; i < end; i++) {
        const u8 *packed = u->scratch + i * STATE_SLOT + STATE_CHUNK;
        u8 *planes = u->scratch + i * STATE_SLOT;
        i64 index = u->first + i, row = index % c->per * c->rows, full = c->rows * c->inner,
            have = i64_min(c->rows, u->dim_at - row) * c->inner;
        u8 *to = u->to + (index / c->per * u->dim_at + row) * c->inner * u->size;
        u->bad[i] = ZSTD_decompress(planes, STATE_CHUNK, packed, u->piece[i].size) !=
                    (size_t)(full * u->size);
        if (!u->bad[i]) unshuffle(to, planes, have, full, u->size);
    }
}

static int pieces_read(struct state_reader *r, const char *name, const struct h5_piece *piece,
                       struct unpacking *u, struct err *e) {
    const i64 room = STATE_SLOT - STATE_CHUNK;
    for (; u->first < u->cut->pieces; u->first += STATE_SLOTS) {
        const i64 count = i64_min(STATE_SLOTS, u->cut->pieces - u->first);
        u->piece = piece + u->first;
        for (i64 i = 0; i < count; i++)
            if ((i64)u->piece[i].size > room)
                return h5_bad(r->file, e, "array %.200s: a chunk of %lld bytes", name,
                              (long long)u->piece[i].size);
            else if (h5_read(r->file, u->piece[i].at, (i64)u->piece[i].size,
                             u->scratch + i * STATE_SLOT + STATE_CHUNK, e))
                return -1;
        pool_run(count, unpack, u);
        for (i64 i = 0; i < count; i++)
            if (u->bad[i])
                return h5_bad(r->file, e,
                              "array %.200s: chunk %lld does not decompress to its size", name,
                              (long long)(u->first + i));
    }
    return 0;
}

static int array_read(struct state_reader *r, struct h5_array *a, enum dtype dtype,
                      const struct state_cut *c, void *to, struct err *e) {
    struct unpacking u = {.cut = c, .to = to, .size = dtype_size(dtype), .dim_at = a->dim[c->at]};
    if (a->chunked != (c->elements > 0) ||
        (a->chunked &&
         (memcmp(a->chunk, c->chunk, sizeof a->chunk) || a->shuffled != (u.size > 1))))
        return err_input(e, "%s: array %.200s is not cut as state files are", r->path, a->name);
    if (!c->elements) return 0;
    if (!r->scratch) r->scratch = mem_new((i64)STATE_SLOTS * STATE_SLOT, e);
    u.scratch = r->scratch;
    struct h5_piece *piece = u.scratch ? h5_pieces(r->file, a, e) : NULL;
    const int status = piece ? pieces_read(r, a->name, piece, &u, e) : -1;
    mem_free(piece);
    return status;
}

static int hash_check(struct state_reader *r, const struct h5_array *a, const void *data, i64 size,
                      struct err *e) {
    char hex[65];
    const struct h5_attribute *written = attribute_find(r, a->attribute, "sha256", H5_TEXT, e);
    if (!written || sha256_bytes(data, size, hex, e)) return -1;
    if (!strcmp((const char *)written->data, hex)) return 0;
    err_failed(e, "%s: array %.200s is damaged", r->path, a->name);
    return err_detail(e, "SHA-256 written %.64s, read %s", (const char *)written->data, hex);
}

int state_get(struct state_reader *r, const char *name, enum dtype dtype, int rank, const i64 *dim,
              void *to, struct err *e) {
    enum dtype found;
    struct h5_array array;
    struct state_cut c;
    char a[192], b[192];
    if (array_find(r, name, &array, &found, e)) return -1;
    if (found != dtype || array.rank != rank || memcmp(array.dim, dim, (size_t)rank * sizeof *dim))
        return err_input(e, "%s: array %.150s is %s %s, expected %s %s", r->path, name,
                         dtype_info[found].name, shape_text(a, array.rank, array.dim),
                         dtype_info[dtype].name, shape_text(b, rank, dim));
    if (state_cut(&c, dtype, rank, dim))
        return err_input(e, "%s: array %.150s is too large", r->path, name);
    return array_read(r, &array, dtype, &c, to, e) ||
                   hash_check(r, &array, to, c.elements * dtype_size(dtype), e)
               ? -1
               : 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

struct state_reader *state_open(const char *path, struct err *e) {
    struct state_reader *r = mem_new(sizeof *r, e);
    if (!r) return NULL;
    if (!(r->path = mem_text(path, e))) return state_close(r), NULL;
    if (!path_exists(path)) return err_input(e, "%s is missing", path), state_close(r), NULL;
    if (!(r->file = h5_open(path, e))) return state_close(r), NULL;
    char *format = state_get_text(r, "format", e);
    bool ours = format && !strcmp(format, STATE_FORMAT);
    if (format && !ours) err_input(e, "%s has format %.100s; expected " STATE_FORMAT, path, format);
    mem_free(format);
    return ours ? r : (state_close(r), NULL);
}

void state_close(struct state_reader *r) {
    if (!r) return;
    h5_close(r->file);
    mem_free(r->scratch);
    mem_free(r->path);
    mem_free(r);
}
