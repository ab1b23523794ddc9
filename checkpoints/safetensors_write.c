/* safetensors_write.c: writing tensors as safetensors files, byte for byte as the reference library
 * does.
 *
 * The reference sorts by element type (its own order, widest alignment first), then by name; writes
 * {"__metadata__":{"format":"pt"},NAME:{"dtype":..,"shape":..,"data_offsets":..},...} without
 * spaces; pads the header with spaces to a multiple of 8. Bit-reproducible runs need one order
 * anyway, and its order makes files comparable with anybody's. Each tensor is hashed as it is
 * written, piece by piece while it is in the cache. */
#include "checkpoints/checkpoints_int.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20 }; /* bytes hashed, then written */

/* The reference's order of types, first written first. */
static const enum dtype type_order[] = {I64, F64, F32, U32, I32, BF16, F16, U16, I8, U8};
static int type_rank(enum dtype d) {
    int i = 0;
    while (type_order[i] != d) i++;
    return i;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(struct stored *const *)a)->name, (*(struct stored *const *)b)->name);
}
static int by_type_and_name(const void *a, const void *b) {
    int x = type_rank((*(struct stored *const *)a)->dtype),
        y = type_rank((*(struct stored *const *)b)->dtype);
    return x != y ? x - y : by_name(a, b);
}

static int header_text(struct text *out, struct stored **tensor, i64 count, i64 *data_bytes,
                       struct err *e) {
    i64 at = 0;
    int status = text_printf(out, e, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (i64 i = 0; i < count && !status; at += tensor[i++]->bytes) {
        const struct stored *t = tensor[i];
        status =
            text_add(out, ",", 1, e) || json_text_add(out, t->name, (i64)strlen(t->name), e) ||
            text_printf(out, e, ":{\"dtype\":\"%s\",\"shape\":[", dtype_info[t->dtype].safetensors);
        for (int d = 0; d < t->rank && !status; d++)
            status = text_printf(out, e, d ? ",%lld" : "%lld", (long long)t->dim[d]);
        status = status || text_printf(out, e, "],\"data_offsets\":[%lld,%lld]}", (long long)at,
                                       (long long)(at + t->bytes));
    }
    status = status || text_add(out, "}", 1, e);
    while (!status && out->size % 8) status = text_add(out, " ", 1, e);
    *data_bytes = at;
    return status ? -1 : 0;
}

static int tensor_write(int fd, struct stored *t, const char *path, struct err *e) {
    struct sha256 hash;
    if (sha256_begin(&hash, e)) return -1;
    int status = 0;
    for (i64 at = 0; at < t->bytes && !status; at += PIECE) {
        i64 size = i64_min(PIECE, t->bytes - at);
        sha256_add(&hash, t->data + at, size);
        status = file_write_all(fd, t->data + at, size, path, e);
    }
    sha256_end(&hash, t->sha256);
    return status ? err_frame(e, "writing tensor %.120s", t->name) : 0;
}

static int file_write_tensors(const char *path, struct stored **tensor, i64 count, struct err *e) {
    struct text header = {0};
    i64 data_bytes = 0;
    if (count > 1) qsort(tensor, (size_t)count, sizeof *tensor, by_type_and_name);
    int status = header_text(&header, tensor, count, &data_bytes, e);
    int fd = status || fault_hit(FAULT_OPEN)
                 ? -1
                 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!status && fd < 0) status = err_system(e, "create", path);
    u8 length[8];
    for (int i = 0; i < 8; i++) length[i] = (u8)((u64)header.size >> 8 * i);
    status = status || file_write_all(fd, length, 8, path, e) ||
             file_write_all(fd, header.data, header.size, path, e);
    for (i64 i = 0; i < count && !status; i++) status = tensor_write(fd, tensor[i], path, e);
    status = status || file_sync(fd, path, e);
    if (fd >= 0 && close(fd) && !status) status = err_system(e, "close", path);
    if (status)
        err_frame(e, "writing %s, %lld bytes", path, (long long)(8 + header.size + data_bytes));
    text_free(&header);
    return status ? -1 : 0;
}

/* What the caller gives must be writable: our types, bytes as the shape says, plain unique names.
 */
static int tensors_check(struct stored *tensor, struct stored **sorted, i64 count, struct err *e) {
    for (i64 i = 0; i < count; i++) {
        i64 elements;
        const struct stored *t = sorted[i] = &tensor[i];
        if ((u32)t->dtype >= DTYPE_COUNT || t->rank < 0 || t->rank > STORED_RANK ||
            shape_count(t->rank, t->dim, &elements) || elements * dtype_size(t->dtype) != t->bytes)
            return err_failed(
                e, "tensor %.200s cannot be written: its %lld bytes do not fit its shape and type",
                t->name, (long long)t->bytes);
        if (utf8_bad(t->name, (i64)strlen(t->name)) >= 0 || !strcmp(t->name, "__metadata__"))
            return err_failed(
                e, "tensor %.200s cannot be written: the name is reserved or not UTF-8", t->name);
    }
    if (count > 1) qsort(sorted, (size_t)count, sizeof *sorted, by_name);
    for (i64 i = 1; i < count; i++)
        if (!strcmp(sorted[i - 1]->name, sorted[i]->name))
            return err_failed(e, "tensor %.200s is given twice", sorted[i]->name);
    return 0;
}

/* Cuts in the order given; shard[i] of tensor i, ascending. Returns the number of shards. */
static i64 shards_cut(const struct stored *tensor, i64 count, i64 limit, i64 *shard) {
    i64 last = 0, size = 0;
    for (i64 i = 0; i < count; size += tensor[i].bytes, shard[i++] = last)
        if (size && size > limit - tensor[i].bytes) last++, size = 0;
    return last + 1;
}

static char *shard_name(struct arena *a, const char *stem, i64 shard, i64 shards, struct err *e) {
    if (shards == 1) return arena_printf(a, e, "%s.safetensors", stem);
    return arena_printf(a, e, "%s-%05lld-of-%05lld.safetensors", stem, (long long)shard + 1,
                        (long long)shards);
}

/* {"metadata": {"total_parameters", "total_size"}, "weight_map": {NAME: FILE}}, names sorted. */
static int index_write(const char *folder, const char *stem, const struct stored *tensor,
                       struct stored **sorted, i64 count, const i64 *shard, i64 shards,
                       struct arena *a, struct err *e) {
    struct text out = {0};
    i64 total = 0, elements = 0;
    for (i64 i = 0; i < count; i++) {
        total += tensor[i].bytes;
        elements += tensor[i].bytes / dtype_size(tensor[i].dtype);
    }
    int status = text_printf(&out, e,
                             "{\n  \"metadata\": {\n    \"total_parameters\": %lld,\n"
                             "    \"total_size\": %lld\n  },\n  \"weight_map\": {",
                             (long long)elements, (long long)total);
    if (count > 1) qsort(sorted, (size_t)count, sizeof *sorted, by_name);
    for (i64 i = 0; i < count && !status; i++) {
        const char *file = shard_name(a, stem, shard[sorted[i] - tensor], shards, e);
        status = !file || text_add(&out, i ? ",\n    " : "\n    ", i ? 6 : 5, e) ||
                 json_text_add(&out, sorted[i]->name, (i64)strlen(sorted[i]->name), e) ||
                 text_printf(&out, e, ": \"%s\"", file);
    }
    char *path = arena_printf(a, e, "%s/%s.safetensors.index.json", folder, stem);
    status = status || !path || text_printf(&out, e, "\n  }\n}\n") ||
             file_write(path, out.data, out.size, e);
    text_free(&out);
    return status ? -1 : 0;
}

int safetensors_write(const char *folder, const char *stem, struct stored *tensor, i64 count,
                      i64 shard_bytes, struct err *e) {
    struct arena a = {0};
    struct stored **sorted = arena_new(&a, (count + 1) * (i64)sizeof *sorted, e);
    i64 *shard = arena_new(&a, (count + 1) * (i64)sizeof *shard, e), shards = 0;
    int status = sorted && shard ? tensors_check(tensor, sorted, count, e) : -1;
    if (!status) shards = shards_cut(tensor, count, shard_bytes, shard);
    for (i64 s = 0, begin = 0; s < shards && !status; s++) {
        i64 end = begin;
        for (; end < count && shard[end] == s; end++) sorted[end] = &tensor[end];
        char *name = shard_name(&a, stem, s, shards, e),
             *path = name ? path_join(&a, folder, name, e) : NULL;
        status = path ? file_write_tensors(path, sorted + begin, end - begin, e) : -1;
        begin = end;
    }
    if (!status && shards > 1)
        status = index_write(folder, stem, tensor, sorted, count, shard, shards, &a, e);
    arena_free(&a);
    return status;
}
