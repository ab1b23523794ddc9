/* safetensors.c: reading tensors from safetensors files.
 *
 * The file is mapped and the tensors point into it: opening 100 GB costs a header. The header is
 * untrusted: every rule of the format is checked before a tensor is handed out (lengths against the
 * file, types, shape times element against the byte range, ranges contiguous from 0 to the end,
 * unique names, metadata of strings only), as the reference library does, so that nothing behind
 * this file needs to check again. Element types that hone does not compute with are listed, not
 * refused: models carry mask buffers nobody reads. A file from an old writer whose data is not
 * aligned gets aligned copies of the tensors concerned, so that readers may always use plain loads.
 * Rejected: reading with pread into buffers (twice the memory), trusting the page cache less than
 * the manifest. */
#include "checkpoints/checkpoints_int.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER_MAX = 100000000 }; /* the reference library's limit, bytes */

static const struct {
    const char *name;
    int bits;
} foreign_type[] = {/* of the format, not among ours */
                    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6},
                    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},     {"I16", 16},
                    {"U64", 64},    {"C64", 64},    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};

int shape_count(int rank, const i64 *dim, i64 *count) {
    *count = 1;
    bool empty = false;
    for (int i = 0; i < rank; i++) empty |= dim[i] == 0;
    if (empty) return *count = 0, 0;
    for (int i = 0; i < rank; i++)
        if (dim[i] < 0 || __builtin_mul_overflow(*count, dim[i], count) || *count > (i64)1 << 56)
            return -1;
    return 0;
}

bool name_is_plain(const char *name) {
    return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < 256;
}

/* Where a tensor lies within its file's data, for the check that ranges tile it. */
struct range {
    i64 begin, end;
    const char *name;
};
static int range_order(const void *a, const void *b) {
    const struct range *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int ranges_check(struct range *range, i64 count, i64 data_size, const char *file,
                        struct err *e) {
    if (count > 1) qsort(range, (size_t)count, sizeof *range, range_order);
    i64 at = 0;
    const char *before = "the header";
    for (i64 i = 0; i < count; at = range[i].end, before = range[i++].name) {
        if (range[i].begin < at)
            return err_input(e,
                             "%s: tensors %.150s and %.150s overlap: one ends at byte %lld of the "
                             "data, the other "
                             "begins at %lld",
                             file, before, range[i].name, (long long)at, (long long)range[i].begin);
        if (range[i].begin > at)
            return err_input(e,
                             "%s: bytes %lld to %lld of the data belong to no tensor (between "
                             "%.150s and %.150s)",
                             file, (long long)at, (long long)range[i].begin, before, range[i].name);
    }
    if (at != data_size)
        return err_input(e,
                         "%s: the tensors take %lld bytes, but the file holds %lld bytes of data",
                         file, (long long)at, (long long)data_size);
    return 0;
}

static int metadata_check(json_t *metadata, const char *file, struct err *e) {
    if (json_is_null(metadata)) return 0; /* as the reference reads it */
    if (!json_is_object(metadata)) return err_input(e, "%s: __metadata__ is not an object", file);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return err_input(e, "%s: __metadata__ key %.150s is not a string", file, key);
    }
    return 0;
}

/* "dtype": sets t->type, t->dtype and the element's bits. */
static int type_read(struct stored *t, const json_t *entry, int *bits, struct safetensors *s,
                     const char *file, struct err *e) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name) return err_input(e, "%s: tensor %.200s has no dtype", file, t->name);
    int dtype = dtype_of_safetensors(name);
    *bits = 0;
    if (dtype >= 0) *bits = 8 * (int)dtype_size((enum dtype)dtype);
    for (i64 i = 0; dtype < 0 && i < COUNT(foreign_type); i++)
        if (!strcmp(name, foreign_type[i].name)) *bits = foreign_type[i].bits;
    if (!*bits)
        return err_input(e, "%s: tensor %.200s has dtype %.50s, which is not one of the format",
                         file, t->name, name);
    t->dtype = dtype < 0 ? DTYPE_COUNT : (enum dtype)dtype;
    t->type = arena_text(&s->memory, name, e);
    return t->type ? 0 : -1;
}

static int shape_read(struct stored *t, const json_t *entry, i64 *count, const char *file,
                      struct err *e) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return err_input(e, "%s: tensor %.200s has no shape", file, t->name);
    if (json_array_size(shape) > STORED_RANK)
        return err_input(e, "%s: tensor %.200s has %zu dimensions; at most %d are supported", file,
                         t->name, json_array_size(shape), STORED_RANK);
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return err_input(
                e, "%s: tensor %.200s: dimension %d of its shape is not a whole number from 0",
                file, t->name, i);
        t->dim[i] = json_integer_value(dim);
    }
    char text[192];
    if (shape_count(t->rank, t->dim, count))
        return err_input(e, "%s: tensor %.200s: shape %s is too large", file, t->name,
                         shape_text(text, t->rank, t->dim));
    return 0;
}

static int name_check(const char *name, const char *file, struct err *e) {
    for (const char *p = name; *p; p++)
        if ((u8)*p < 32 || *p == 127)
            return err_input(e, "%s: byte %lld of a tensor name is control character 0x%02x", file,
                             (long long)(p - name), (u8)*p);
    return 0;
}

/* One entry of the header: {"dtype": "F32", "shape": [4, 32], "data_offsets": [begin, end]}. */
static int entry_read(struct stored *t, struct range *range, const char *name, const json_t *entry,
                      const u8 *data, i64 data_size, struct safetensors *s, const char *file,
                      struct err *e) {
    if (name_check(name, file, e)) return -1;
    if (!(t->name = arena_text(&s->memory, name, e))) return -1;
    if (!json_is_object(entry))
        return err_input(e, "%s: the entry of tensor %.200s is not an object", file, name);
    int bits;
    i64 count = 0;
    if (type_read(t, entry, &bits, s, file, e) || shape_read(t, entry, &count, file, e)) return -1;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return err_input(e, "%s: tensor %.200s: data_offsets is not two whole numbers", file, name);
    if (json_object_size(entry) != 3)
        return err_input(e, "%s: tensor %.200s: keys other than dtype, shape and data_offsets",
                         file, name);
    *range = (struct range){json_integer_value(begin), json_integer_value(end), t->name};
    if (range->begin < 0 || range->end < range->begin || range->end > data_size)
        return err_input(e,
                         "%s: tensor %.200s: data_offsets [%lld, %lld] are outside the file's %lld "
                         "bytes of data",
                         file, name, (long long)range->begin, (long long)range->end,
                         (long long)data_size);
    t->bytes = range->end - range->begin;
    char text[192];
    i64 total;
    if (__builtin_mul_overflow(count, (i64)bits, &total) || total % 8 || total / 8 != t->bytes)
        return err_input(
            e, "%s: tensor %.200s: data_offsets [%lld, %lld] hold %lld bytes, but %s %s takes %lld",
            file, name, (long long)range->begin, (long long)range->end, (long long)t->bytes,
            t->type, shape_text(text, t->rank, t->dim), (long long)(total / 8 + (total % 8 != 0)));
    t->data = data + range->begin;
    if (t->dtype == DTYPE_COUNT || (uintptr_t)t->data % (u64)dtype_size(t->dtype) == 0 || !t->bytes)
        return 0;
    u8 *aligned = arena_new(&s->memory, t->bytes, e);
    if (!aligned) return -1;
    t->data = memcpy(aligned, t->data, (size_t)t->bytes);
    return 0;
}

static int header_read(struct safetensors *s, const json_t *header, const u8 *data, i64 data_size,
                       const char *file, struct err *e) {
    const char *key;
    json_t *entry;
    i64 count = (i64)json_object_size(header) - (json_object_get(header, "__metadata__") != NULL),
        i = 0;
    struct range *range = mem_new_array(count + 1, sizeof *range, e);
    struct stored *grown = mem_grow(s->tensor, s->count * (i64)sizeof *grown,
                                    (s->count + count + 1) * (i64)sizeof *grown, e);
    if (grown) s->tensor = grown;
    int status = range && grown ? 0 : -1;
    json_object_foreach((json_t *)header, key, entry) {
        if (status) break;
        if (!strcmp(key, "__metadata__")) {
            status = metadata_check(entry, file, e);
            continue;
        }
        struct stored *t = &s->tensor[s->count + i];
        *t = (struct stored){0};
        status = entry_read(t, &range[i++], key, entry, data, data_size, s, file, e);
    }
    if (!status) status = ranges_check(range, count, data_size, file, e);
    if (!status) s->count += count;
    mem_free(range);
    return status;
}

int safetensors_parse(struct safetensors *s, const u8 *data, i64 size, const char *file,
                      struct err *e) {
    if (size < 8)
        return err_input(e,
                         "%s: %lld bytes; a safetensors file begins with 8 bytes of header length",
                         file, (long long)size);
    u64 length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | data[i];
    if (length > (u64)size - 8)
        return err_input(e, "%s: bytes 0 to 7 say that the header has %llu bytes, but %lld follow",
                         file, (unsigned long long)length, (long long)size - 8);
    if (length > HEADER_MAX)
        return err_input(e, "%s: the header has %llu bytes; the format's limit is %d", file,
                         (unsigned long long)length, HEADER_MAX);
    if (!length || data[8] != '{')
        return err_input(e, "%s: the header at byte 8 does not begin with '{'", file);
    json_t *header = json_parse((const char *)data + 8, (i64)length, file, e);
    if (!header) return err_frame(e, "reading the header of %s", file);
    int status = header_read(s, header, data + 8 + length, size - 8 - (i64)length, file, e);
    json_decref(header);
    return status;
}

static int name_order(const void *a, const void *b) {
    return strcmp(((const struct stored *)a)->name, ((const struct stored *)b)->name);
}

int safetensors_index(struct safetensors *s, const char *path, struct err *e) {
    if (s->count > 1) qsort(s->tensor, (size_t)s->count, sizeof *s->tensor, name_order);
    for (i64 i = 1; i < s->count; i++)
        if (!strcmp(s->tensor[i - 1].name, s->tensor[i].name))
            return err_input(e, "%s: tensor %.200s is in two shards", path, s->tensor[i].name);
    return 0;
}

static int file_open(struct safetensors *s, const char *path, struct err *e) {
    struct map *grown =
        mem_grow(s->map, s->maps * (i64)sizeof *grown, (s->maps + 1) * (i64)sizeof *grown, e);
    if (!grown) return -1;
    s->map = grown;
    struct map *m = &s->map[s->maps];
    if (map_open(m, path, e)) return -1;
    s->maps++;
    return safetensors_parse(s, m->data, m->size, path, e);
}

/* Opens the shards an index names, each once, in the order of the map, and checks that every tensor
 * is there. */
static int shards_open(struct safetensors *s, const json_t *weights, const char *path,
                       struct err *e) {
    const char *name, *slash = strrchr(path, '/');
    char *folder =
        arena_printf(&s->memory, e, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    json_t *value, *opened = json_object();
    int status = folder && opened ? 0 : err_memory(e, "out of memory reading %s", path);
    json_object_foreach((json_t *)weights, name, value) {
        if (status) break;
        const char *shard = json_string_value(value);
        if (!shard || !name_is_plain(shard)) {
            status =
                err_input(e, "%s: weight_map of tensor %.200s does not name a file of its folder",
                          path, name);
        } else if (!json_object_get(opened, shard)) {
            char *file = path_join(&s->memory, folder, shard, e);
            if (!file || json_object_set_new(opened, shard, json_true()) || file_open(s, file, e))
                status = err_frame(e, "opening the shards of %s", path);
        }
    }
    json_decref(opened);
    if (status || safetensors_index(s, path, e)) return -1;
    json_object_foreach((json_t *)weights, name, value) {
        if (!safetensors_find(s, name))
            return err_input(e, "%s: tensor %.200s is not in %.200s", path, name,
                             json_string_value(value));
    }
    return 0;
}

int safetensors_open(struct safetensors *s, const char *path, struct err *e) {
    *s = (struct safetensors){0};
    if (!ends_with(path, ".json"))
        return file_open(s, path, e) ? -1 : safetensors_index(s, path, e);
    json_t *index = json_open(path, e);
    if (!index) return -1;
    const json_t *weights = json_object_get(index, "weight_map");
    int status = json_is_object(weights)
                     ? shards_open(s, weights, path, e)
                     : err_input(e, "%s: weight_map is missing or not an object", path);
    json_decref(index);
    return status;
}

/* Whole pages only: their neighbours belong to other tensors. */
static void pages_forget(const u8 *data, i64 bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
                    first = ((uintptr_t)data + page - 1) / page * page,
                    end = ((uintptr_t)data + (uintptr_t)bytes) / page * page;
    if (end > first) madvise((void *)first, end - first, MADV_DONTNEED);
}
void safetensors_forget(const struct safetensors *s, const struct stored *t) {
    for (i64 i = 0; i < s->maps; i++)
        if (t->data >= s->map[i].data && t->data < s->map[i].data + s->map[i].size)
            pages_forget(t->data, t->bytes);
}

void safetensors_close(struct safetensors *s) {
    for (i64 i = 0; i < s->maps; i++) map_close(&s->map[i]);
    mem_free(s->map);
    mem_free(s->tensor);
    arena_free(&s->memory);
    *s = (struct safetensors){0};
}

const struct stored *safetensors_find(const struct safetensors *s, const char *name) {
    struct stored key = {.name = name};
    return s->count ? bsearch(&key, s->tensor, (size_t)s->count, sizeof key, name_order) : NULL;
}

const struct stored *safetensors_need(const struct safetensors *s, const char *name,
                                      struct err *e) {
    const struct stored *t = safetensors_find(s, name);
    if (!t) return err_input(e, "tensor %.200s is missing", name), NULL;
    if (t->dtype == DTYPE_COUNT && !stored_readable(t)) {
        err_input(e, "dtype %s of tensor %.200s is not supported", t->type, name);
        return err_detail(e, "supported: F32, BF16, F16, F64, I32, I64, U8, U16, U32, I8"), NULL;
    }
    return t;
}
