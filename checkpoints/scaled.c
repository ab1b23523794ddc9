/* scaled.c: tensors of few bits that keep their scales in a tensor beside them.
 *
 *   X f8_e4m3 or f8_e5m2, X_scale_inv f32
 *       DeepSeek V3: value * scale of its block of the matrix, blocks as `weight_block_size` says
 *       (128 by 128)
 *   Y_blocks u8 [.., out, G, 16], Y_scales u8 [.., out, G]
 *       GPT-OSS: MXFP4, 32 values to a scale, the first in the low half. What the model calls Y is
 *       [.., in, out]
 *
 * Linked once when a folder is opened, so that whoever reads a tensor (stored.c) sees its values
 * and nothing of this. Y becomes a tensor of its own. A float8 tensor with scales of another kind
 * beside it is not readable: without them its numbers are wrong. */
#include "base/quant.h"
#include "checkpoints/checkpoints_int.h"
#include <string.h>

static struct stored *beside(const struct safetensors *s, const char *name, i64 size,
                             const char *end) {
    char text[512];
    snprintf(text, sizeof text, "%.*s%s", (int)i64_min(size, 400), name, end);
    return (struct stored *)safetensors_find(s, text);
}
static bool is_float8(const struct stored *t) {
    return t->type && (!strcmp(t->type, "F8_E4M3") || !strcmp(t->type, "F8_E5M2"));
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

bool scaled_readable(const struct stored *t) {
    return (is_float8(t) && !t->foreign_scale) ||
           (t->scale && t->type && !strcmp(t->type, "MXFP4"));
}

static float power_of_two(u8 x) { /* 2^(x - 127) */
    const union {
        u32 u;
        float f;
    } v = {.u = x ? (u32)x << 23 : 0x400000};
    return v.f;
}

static void float8_read(const struct stored *t, i64 begin, i64 count, float *to) {
    const enum fp8 type = t->type[4] == '4' ? FP8_E4M3 : FP8_E5M2;
    const i64 cols = t->rank ? t->dim[t->rank - 1] : 1,
              rows = t->rank > 1 ? t->dim[t->rank - 2] : 1;
    const struct stored *s = t->scale;
    const float *scale = s ? (const float *)s->data : NULL;
    for (i64 i = 0; i < count; i++) {
        const i64 at = begin + i, row = at / cols, r = row % rows, m = row / rows;
        to[i] = fp8_to_f32(t->data[at], type);
        if (s)
            to[i] *= scale[(m * s->dim[s->rank - 2] + r / t->block[0]) * s->dim[s->rank - 1] +
                           at % cols / t->block[1]];
    }
}

static void mxfp4_read(const struct stored *t, i64 begin, i64 count, float *to) {
    static const float e2m1[16] = {0,   .5f,  1,   1.5f,  2,   3,   4,   6,
                                   -0., -.5f, -1., -1.5f, -2., -3., -4., -6.};
    const i64 out = t->dim[t->rank - 1], in = t->dim[t->rank - 2], groups = in / 32;
    for (i64 n = 0; n < count; n++) {
        const i64 at = begin + n, o = at % out, i = at / out % in, m = at / out / in;
        const i64 block = (m * out + o) * groups + i / 32;
        const u8 pair = t->data[block * 16 + i % 32 / 2];
        to[n] = e2m1[i % 2 ? pair >> 4 : pair & 15] * power_of_two(t->scale->data[block]);
    }
}

void scaled_read(const struct stored *t, i64 begin, i64 count, float *to) {
    if (is_float8(t))
        float8_read(t, begin, count, to);
    else
        mxfp4_read(t, begin, count, to);
}
