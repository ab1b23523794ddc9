/* scaled.c: tensors of few bits that keep their scales in a tensor beside them.
 *
 *   X f8_e4m3 or f8_e5m2, X_scale_inv f32
 *       DeepSeek V3: value * scale of its block of the matrix, blocks as `weight_block_size` says
 *       (128 by 128)
 *   Y_blocks u8 [.., out, G, 16], Y_scales u8 [.., out, G]
 *       GPT-OSS: MXFP4, 32 values to a scale, the first in the low half. What the model calls Y is
 *       [.., in, out]
 *
 * Linked once when a folder is opened (scaled_link.c), so that whoever reads a tensor (stored.c)
 * sees its values and nothing of this. A float8 tensor with scales of another kind beside it is not
 * readable: without them its numbers are wrong. */
#include "base/quant.h"
#include "checkpoints/checkpoints_int.h"
#include <string.h>

bool is_float8(const struct stored *t) {
    return t->type && (!strcmp(t->type, "F8_E4M3") || !strcmp(t->type, "F8_E5M2"));
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
