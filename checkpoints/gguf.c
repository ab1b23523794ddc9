/* gguf.c: reading GGUF files: metadata and tensors of one file, as llama.cpp keeps models.
 *
 *   "GGUF", u32 version, u64 tensors, u64 values
 *   values:   key, u32 kind, value            a text is u64 bytes and the bytes; a list is u32
 * kind, tensors:  name, u32 rank, u64 dim[rank],  u64 members, the members u32 type, u64 offset
 * dim[0] is the fastest here; reversed when handed out padding to general.alignment (32), then the
 * data, each tensor padded to it
 *
 * The file is mapped, and tensors and values point into it. Nothing in it is trusted: each length
 * is compared with what is left of the file before it is used, counts before memory is asked for,
 * and tensors must follow each other as llama.cpp requires, so that every byte has one owner.
 * A model may be split over NAME-00001-of-0000N.gguf and so on: the first has the metadata, each
 * has split.no, split.count and split.tensors.count, and tensors of its own. Opened is the first.
 *
 * Rejected: reading version 1 (32-bit lengths; no file of it is left in use) and big-endian files,
 * each by name. */
#include "checkpoints/checkpoints_int.h"
#include <stdlib.h>
#include <string.h>

enum {
    PARTS_MAX = 99999,
    NAME_MAX_BYTES = 255,
    GGUF_RANK = 4,
    LIST_DEPTH = 4,
    ALIGNMENT_MAX = 1 << 20
};

static const int kind_size[GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct reader {
    const u8 *data;
    i64 size, at;
    const char *file;
};

static int number_read(struct reader *r, int bytes, u64 *out, const char *what, struct err *e) {
    *out = 0;
    if (r->size - r->at < bytes)
        return err_input(e, "%s: the file ends at byte %lld, within %s", r->file,
                         (long long)r->size, what);
    for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | r->data[r->at + i];
    r->at += bytes;
    return 0;
}

static int length_read(struct reader *r, i64 *out, i64 each, const char *what, struct err *e) {
    const i64 at = r->at;
    u64 n;
    if (number_read(r, 8, &n, what, e)) return -1;
    if (n > (u64)(r->size - r->at) / (u64)each)
        return err_input(e, "%s: byte %lld: %s has length %llu, but %lld bytes follow", r->file,
                         (long long)at, what, (unsigned long long)n, (long long)(r->size - r->at));
    *out = (i64)n;
    return 0;
}

/* Keys and tensor names: printable UTF-8. */
static char *name_read(struct reader *r, struct arena *a, const char *what, struct err *e) {
    const i64 at = r->at;
    i64 n;
    if (length_read(r, &n, 1, what, e)) return NULL;
    const char *text = (const char *)r->data + r->at;
    if (n < 1 || n > NAME_MAX_BYTES) {
        err_input(e, "%s: byte %lld: %s has %lld bytes; expected 1 to %d", r->file, (long long)at,
                  what, (long long)n, NAME_MAX_BYTES);
        return NULL;
    }
    for (i64 i = 0; i < n; i++)
        if ((u8)text[i] < 32 || text[i] == 127) {
            err_input(e, "%s: byte %lld: %s holds control character 0x%02x", r->file,
                      (long long)(r->at + i), what, (u8)text[i]);
            return NULL;
        }
    if (utf8_bad(text, n) >= 0) {
        err_input(e, "%s: byte %lld: %s is not UTF-8", r->file, (long long)at, what);
        return NULL;
    }
    r->at += n;
    return arena_printf(a, e, "%.*s", (int)n, text);
}

static int kind_read(struct reader *r, enum gguf_kind *kind, const char *key, struct err *e) {
    const i64 at = r->at;
    u64 n;
    if (number_read(r, 4, &n, "the kind of a value", e)) return -1;
    if (n >= GGUF_KINDS)
        return err_input(e, "%s: byte %lld: value %.150s is of kind %llu; kinds are 0 to %d",
                         r->file, (long long)at, key, (unsigned long long)n, GGUF_KINDS - 1);
    *kind = (enum gguf_kind)n;
    return 0;
}

/* Moves over one value of a kind. */
static int value_skip(struct reader *r, enum gguf_kind kind, const char *key, int depth,
                      struct err *e) {
    i64 n;
    u64 scalar;
    if (kind == GGUF_TEXT) {
        if (length_read(r, &n, 1, key, e)) return -1;
        return r->at += n, 0;
    }
    if (kind != GGUF_LIST) {
        if (number_read(r, kind_size[kind], &scalar, key, e)) return -1;
        if (kind == GGUF_BOOL && scalar > 1)
            return err_input(e, "%s: byte %lld: value %.150s is truth value %llu; expected 0 or 1",
                             r->file, (long long)r->at - 1, key, (unsigned long long)scalar);
        return 0;
    }
    if (depth == LIST_DEPTH)
        return err_input(e, "%s: byte %lld: value %.150s nests lists more than %d deep", r->file,
                         (long long)r->at, key, LIST_DEPTH);
    enum gguf_kind item;
    if (kind_read(r, &item, key, e)) return -1;
    const int least = item == GGUF_TEXT ? 8 : item == GGUF_LIST ? 12 : kind_size[item];
    if (length_read(r, &n, least, key, e)) return -1;
    if (kind_size[item] && item != GGUF_BOOL) return r->at += n * kind_size[item], 0;
    for (i64 i = 0; i < n; i++)
        if (value_skip(r, item, key, depth + 1, e)) return -1;
    return 0;
}

static int value_read(struct reader *r, struct gguf_value *v, struct arena *a, struct err *e) {
    if (!(v->key = name_read(r, a, "the key of a value", e)) || kind_read(r, &v->kind, v->key, e))
        return -1;
    const i64 at = r->at;
    i64 head = v->kind == GGUF_TEXT ? 8 : v->kind == GGUF_LIST ? 12 : 0;
    if (value_skip(r, v->kind, v->key, 0, e)) return -1;
    v->count = 1;
    if (v->kind == GGUF_LIST) { /* checked by value_skip */
        v->item = (enum gguf_kind)r->data[at];
        v->count = 0;
        for (int i = 7; i >= 0; i--) v->count = v->count << 8 | r->data[at + 4 + i];
    }
    v->data = r->data + at + head, v->bytes = r->at - at - head;
    return 0;
}

static const struct gguf_type *type_numbered(u64 number) {
    for (const struct gguf_type *t = gguf_types; t->name; t++)
        if ((u64)t->number == number) return t;
    return NULL;
}

/* The description of a tensor; its data is found later, when the header's end is known. */
static int tensor_read(struct reader *r, struct stored *t, u64 *offset, struct arena *a,
                       struct err *e) {
    u64 rank, number;
    if (!(t->name = name_read(r, a, "the name of a tensor", e)) ||
        number_read(r, 4, &rank, t->name, e))
        return -1;
    if (rank > GGUF_RANK)
        return err_input(e, "%s: tensor %.200s has %llu dimensions; at most %d are allowed",
                         r->file, t->name, (unsigned long long)rank, GGUF_RANK);
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) {
        u64 n;
        if (number_read(r, 8, &n, t->name, e)) return -1;
        if (n > (u64)1 << 56)
            return err_input(e, "%s: tensor %.200s: a dimension of %llu is too large", r->file,
                             t->name, (unsigned long long)n);
        t->dim[i] = (i64)n;
    }
    if (number_read(r, 4, &number, t->name, e) || number_read(r, 8, offset, t->name, e)) return -1;
    const struct gguf_type *type = type_numbered(number);
    if (!type) {
        err_input(e, "%s: tensor %.200s has element type %llu, which is not known", r->file,
                  t->name, (unsigned long long)number);
        return err_hint(e, "convert the file to F16, BF16, Q8_0, Q4_0 or a Q4_K to Q6_K");
    }
    char shape[192];
    i64 count;
    const i64 row = t->rank ? t->dim[t->rank - 1] : 1;
    if (shape_count(t->rank, t->dim, &count))
        return err_input(e, "%s: tensor %.200s: shape %s is too large", r->file, t->name,
                         shape_text(shape, t->rank, t->dim));
    if (row % type->elements)
        return err_input(e, "%s: tensor %.200s: shape %s is %s, whose rows are whole blocks of %d",
                         r->file, t->name, shape_text(shape, t->rank, t->dim), type->name,
                         type->elements);
    t->type = type->name, t->dtype = type->dtype;
    t->bytes = count / type->elements * type->size; /* at most 2^56 * 8 */
    return 0;
}

/* Tensors follow each other, each padded to the alignment. */
static int data_place(struct gguf *g, const struct reader *r, const u64 *offset, struct err *e) {
    const i64 begin = round_up(r->at, g->alignment);
    i64 at = begin;
    for (i64 i = 0; i < g->count; i++) {
        struct stored *t = &g->tensor[i];
        if (offset[i] != (u64)(at - begin))
            return err_input(e, "%s: tensor %.200s is at byte %llu of the data; expected %lld",
                             r->file, t->name, (unsigned long long)offset[i],
                             (long long)(at - begin));
        if (at > r->size || t->bytes > r->size - at)
            return err_input(e,
                             "%s: tensor %.200s takes %lld bytes from byte %lld, but the file has "
                             "%lld bytes",
                             r->file, t->name, (long long)t->bytes, (long long)at,
                             (long long)r->size);
        t->data = r->data + at;
        at = round_up(at + t->bytes, g->alignment);
    }
    if (r->size > at)
        return err_input(e, "%s: bytes %lld to %lld belong to no tensor", r->file, (long long)at,
                         (long long)r->size);
    return 0;
}

static int key_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* `name(i)`: keys or tensor names, which are unique. */
static int unique(const struct gguf *g, bool tensors, const char *file, struct err *e) {
    const i64 n = tensors ? g->count : g->values;
    const char **name = mem_new_array(n + 1, sizeof *name, e);
    if (!name) return -1;
    for (i64 i = 0; i < n; i++) name[i] = tensors ? g->tensor[i].name : g->value[i].key;
    if (n > 1) qsort(name, (size_t)n, sizeof *name, key_order);
    int status = 0;
    for (i64 i = 1; i < n && !status; i++)
        if (!strcmp(name[i - 1], name[i]))
            status = err_input(e, "%s: %s %.200s is given twice", file,
                               tensors ? "tensor" : "value", name[i]);
    mem_free(name);
    return status;
}

static int head_read(struct gguf *g, struct reader *r, struct err *e) {
    u64 version;
    if (r->size < 24 || memcmp(r->data, "GGUF", 4))
        return err_input(e, "%s: not a GGUF file: it does not begin with 'GGUF' and 20 more bytes",
                         r->file);
    r->at = 4;
    if (number_read(r, 4, &version, "the version", e)) return -1;
    if (version >> 16 && !(version & 0xffff)) {
        err_input(e, "%s: a big-endian GGUF file", r->file);
        return err_hint(e, "gguf_convert_endian.py of llama.cpp converts it");
    }
    if (version < 2 || version > 3)
        return err_input(e, "%s: GGUF version %llu; versions 2 and 3 are read", r->file,
                         (unsigned long long)version);
    g->version = (u32)version;
    /* least sizes: a name, a rank, a type, an offset; a key, a kind, a byte */
    return length_read(r, &g->count, 25, "the list of tensors", e) ||
                   length_read(r, &g->values, 14, "the list of values", e)
               ? -1
               : 0;
}

static int part_parse(struct gguf *g, const u8 *data, i64 size, const char *file, struct err *e) {
    struct reader r = {data, size, 0, file};
    if (head_read(g, &r, e)) return -1;
    g->value = arena_new(&g->memory, (g->values + 1) * (i64)sizeof *g->value, e);
    g->tensor = arena_new(&g->memory, (g->count + 1) * (i64)sizeof *g->tensor, e);
    u64 *offset = arena_new(&g->memory, (g->count + 1) * (i64)sizeof *offset, e);
    if (!g->value || !g->tensor || !offset) return -1;
    for (i64 i = 0; i < g->values; i++)
        if (value_read(&r, &g->value[i], &g->memory, e)) return -1;
    for (i64 i = 0; i < g->count; i++)
        if (tensor_read(&r, &g->tensor[i], &offset[i], &g->memory, e)) return -1;
    if (unique(g, false, file, e) || unique(g, true, file, e)) return -1;
    g->alignment = gguf_i64(g, "general.alignment", 32, file, e);
    if (e->code) return -1;
    if (g->alignment < 8 || g->alignment > ALIGNMENT_MAX || (g->alignment & (g->alignment - 1)))
        return err_input(e, "%s: general.alignment is %lld; expected a power of two from 8 to %d",
                         file, (long long)g->alignment, ALIGNMENT_MAX);
    const i64 parts = gguf_i64(g, "split.count", 0, file, e);
    if (!e->code && (parts < 0 || parts > PARTS_MAX))
        return err_input(e, "%s: split.count is %lld; expected 0 to %d", file, (long long)parts,
                         PARTS_MAX);
    g->parts = parts > 1 ? parts : 0;
    return e->code ? -1 : data_place(g, &r, offset, e);
}

int gguf_parse(struct gguf *g, const u8 *data, i64 size, const char *file, struct err *e) {
    if (part_parse(g, data, size, file, e)) return -1;
    if (!g->parts) return 0;
    return err_input(e, "%s: one of %lld parts of a split model", file, (long long)g->parts);
}

static i64 digits_at(const char *text) { /* five; -1: they are not */
    i64 n = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        n = 10 * n + text[i] - '0';
    }
    return n;
}

char *gguf_part_path(const char *path, i64 i, i64 *parts, struct err *e) {
    static const char end[] = "-00001-of-00001.gguf";
    const size_t n = strlen(path), k = sizeof end - 1;
    const char *at = n > k ? path + n - k : NULL;
    if (!at || *at != '-' || strncmp(at + 6, "-of-", 4) || strcmp(at + 15, ".gguf") ||
        digits_at(at + 1) < 1 || (*parts = digits_at(at + 10)) < 1)
        return NULL;
    return mem_printf(e, "%.*s-%05lld-of-%05lld.gguf", (int)(at - path), path, (long long)i + 1,
                      (long long)*parts);
}

/* The tensors of one more file; what it says of its place in the split must be so. */
static int part_add(struct gguf *g, i64 i, const char *path, struct err *e) {
    struct gguf more = {0};
    if (map_open(&more.map, path, e)) return -1;
    g->part[i - 1] = more.map; /* stays with the whole */
    int rc = part_parse(&more, more.map.data, more.map.size, path, e);
    const i64 no = rc ? 0 : gguf_i64(&more, "split.no", -1, path, e);
    if (!rc && !e->code && (no != i || more.parts != g->parts))
        rc = err_input(e, "%s: says that it is part %lld of %lld; expected %lld of %lld", path,
                       (long long)no + 1, (long long)more.parts, (long long)i + 1,
                       (long long)g->parts);
    struct stored *all =
        rc || e->code ? NULL
                      : arena_new(&g->memory, (g->count + more.count + 1) * (i64)sizeof *all, e);
    if (all) {
        memcpy(all, g->tensor, (size_t)g->count * sizeof *all);
        for (i64 k = 0; k < more.count && !rc; k++) {
            all[g->count + k] = more.tensor[k];
            rc = (all[g->count + k].name = arena_text(&g->memory, more.tensor[k].name, e)) ? 0 : -1;
        }
        g->tensor = all, g->count += more.count;
    }
    more.map = (struct map){0};
    gguf_close(&more);
    return rc || !all ? -1 : 0;
}

static int parts_open(struct gguf *g, const char *path, struct err *e) {
    i64 named = 0;
    char *first = gguf_part_path(path, 0, &named, e);
    const i64 no = gguf_i64(g, "split.no", -1, path, e);
    int rc = e->code ? -1 : 0;
    if (!rc && (no || !first || named != g->parts || strcmp(first, path))) {
        rc = err_input(e, "%s: part %lld of %lld of a split model", path, (long long)no + 1,
                       (long long)g->parts);
        err_hint(e, "name the first part, as NAME-00001-of-%05lld.gguf, with the others beside it",
                 (long long)g->parts);
    }
    mem_free(first);
    if (!rc && !(g->part = mem_new_array(g->parts, sizeof *g->part, e))) rc = -1;
    for (i64 i = 1; !rc && i < g->parts; i++) {
        char *file = gguf_part_path(path, i, &named, e);
        rc = !file || part_add(g, i, file, e);
        mem_free(file);
    }
    const i64 count = rc ? 0 : gguf_i64(g, "split.tensors.count", g->count, path, e);
    if (!rc && !e->code && count != g->count)
        rc = err_input(e, "%s: its %lld parts hold %lld tensors; split.tensors.count is %lld", path,
                       (long long)g->parts, (long long)g->count, (long long)count);
    return rc || e->code || unique(g, true, path, e) ? -1 : 0;
}

int gguf_open(struct gguf *g, const char *path, struct err *e) {
    *g = (struct gguf){0};
    if (map_open(&g->map, path, e)) return -1;
    if (part_parse(g, g->map.data, g->map.size, path, e)) return -1;
    return g->parts ? parts_open(g, path, e) : 0;
}

void gguf_close(struct gguf *g) {
    for (i64 i = 0; g->part && i + 1 < g->parts; i++)
        if (g->part[i].data) map_close(&g->part[i]);
    mem_free(g->part);
    if (g->map.data) map_close(&g->map);
    arena_free(&g->memory);
    *g = (struct gguf){0};
}
