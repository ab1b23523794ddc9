/* scaled_link.c: when a folder is opened, tensors of few bits (scaled.c) and their scales are found
 * by name and linked. Y_blocks and Y_scales become a tensor Y of its own. */
#include "checkpoints/checkpoints_int.h"
#include <string.h>

static struct stored *beside(const struct safetensors *s, const char *name, i64 size,
                             const char *end) {
    char text[512];
    snprintf(text, sizeof text, "%.*s%s", (int)i64_min(size, 400), name, end);
    return (struct stored *)safetensors_find(s, text);
}

/* The length of a name without `end`; 0: it ends otherwise. */
static i64 stem(const char *name, const char *end) {
    const size_t n = strlen(name), k = strlen(end);
    return n > k && !strcmp(name + n - k, end) ? (i64)(n - k) : 0;
}

static int float8_link(const struct safetensors *s, struct stored *t, const i64 block[2],
                       struct err *e) {
    struct stored *scale = beside(s, t->name, (i64)strlen(t->name), "_scale_inv");
    char text[192], wanted[192];
    if (!scale) return 0;
    i64 dim[STORED_RANK];
    memcpy(dim, t->dim, sizeof dim);
    if (t->rank >= 2) {
        dim[t->rank - 2] = (dim[t->rank - 2] + block[0] - 1) / block[0];
        dim[t->rank - 1] = (dim[t->rank - 1] + block[1] - 1) / block[1];
    }
    if (t->rank < 2 || scale->dtype != F32 || scale->rank != t->rank ||
        memcmp(dim, scale->dim, sizeof *dim * (size_t)t->rank))
        return err_input(e,
                         "tensor %.200s is %s %s; the blocks of its weight, %lld by %lld, ask for "
                         "F32 %s",
                         scale->name, scale->type, shape_text(text, scale->rank, scale->dim),
                         (long long)block[0], (long long)block[1],
                         shape_text(wanted, t->rank, dim));
    t->scale = scale, t->block[0] = block[0], t->block[1] = block[1];
    scale->part = true;
    return 0;
}

/* Appends Y for Y_blocks and Y_scales. */
static int mxfp4_add(struct safetensors *s, i64 i, struct err *e) {
    struct stored *blocks = &s->tensor[i];
    const i64 size = stem(blocks->name, "_blocks");
    const struct stored *scales = size ? beside(s, blocks->name, size, "_scales") : NULL;
    const int r = blocks->rank;
    char text[192], of[192];
    if (!scales) return 0;
    bool good = r >= 3 && blocks->dtype == U8 && scales->dtype == U8 && scales->rank == r - 1 &&
                blocks->dim[r - 1] == 16;
    for (int k = 0; good && k < r - 1; k++) good = scales->dim[k] == blocks->dim[k];
    if (!good)
        return err_input(e, "tensor %.150s is %s %s, its scales %s; expected U8 [.., 16] and [..]",
                         blocks->name, blocks->type, shape_text(text, r, blocks->dim),
                         shape_text(of, scales->rank, scales->dim));
    if (beside(s, blocks->name, size, "")) return 0; /* the values are there as well */
    const i64 bytes = (i64)sizeof *s->tensor;
    struct stored *more = mem_grow(s->tensor, s->count * bytes, (s->count + 1) * bytes, e);
    if (!more) return -1;
    s->tensor = more, blocks = &more[i];
    struct stored *t = &more[s->count++];
    *t = (struct stored){.type = "MXFP4",
                         .dtype = DTYPE_COUNT,
                         .rank = r - 1,
                         .data = blocks->data,
                         .bytes = blocks->bytes};
    if (!(t->name = arena_printf(&s->memory, e, "%.*s", (int)size, blocks->name))) return -1;
    for (int k = 0; k < r - 3; k++) t->dim[k] = blocks->dim[k];
    t->dim[r - 3] = blocks->dim[r - 2] * 32, t->dim[r - 2] = blocks->dim[r - 3];
    return 0;
}

int safetensors_link(struct safetensors *s, const i64 block[2], const char *path, struct err *e) {
    const i64 before = s->count;
    for (i64 i = 0; i < before; i++)
        if (mxfp4_add(s, i, e)) return err_frame(e, "opening %s", path);
    /* those added are not in order yet: the search needs them sorted, the scales found anew */
    if (safetensors_index(s, path, e)) return -1;
    for (i64 i = 0; i < s->count; i++) {
        struct stored *t = &s->tensor[i];
        const i64 size = (i64)strlen(t->name);
        if (is_float8(t) && float8_link(s, t, block, e)) return err_frame(e, "opening %s", path);
        if (is_float8(t) && !t->scale && beside(s, t->name, size, "_scale"))
            t->foreign_scale = true;
        if (!t->type || strcmp(t->type, "MXFP4")) continue;
        t->scale = beside(s, t->name, size, "_scales");
        struct stored *blocks = beside(s, t->name, size, "_blocks");
        if (t->scale && blocks) blocks->part = ((struct stored *)t->scale)->part = true;
    }
    return 0;
}
