/* packed.c: weights that a file keeps in FP8 blocks (DeepSeek V3) or MXFP4 (GPT-OSS), as plain
 * numbers.
 *
 *   NAME e4m3fn [.., rows, cols] with NAME_scale_inv f32: one factor for each block of rows and
 *     columns (config: quantization_config.weight_block_size)
 *   NAME_blocks u8 [.., rows, groups, 16] with NAME_scales u8 [.., rows, groups]: groups of 32
 *     numbers along a row. Rows are outputs, whatever the plain form of the tensor has
 * What is saved of such a model is plain: its precision is not that of the file any more. */
#include "base/quant.h"
#include "recipes/models/models_int.h"

#include <string.h>

struct unpack {
    const u8 *codes, *scales;
    u8 *to;
    enum dtype type;
    i64 rows, cols, block_rows, block_cols; /* rows: of one matrix */
    bool mxfp4;
};
static float scale_at(const struct unpack *u, i64 row, i64 col) {
    const i64 across = (u->cols + u->block_cols - 1) / u->block_cols,
              down = (u->rows + u->block_rows - 1) / u->block_rows;
    float x;
    memcpy(&x,
           u->scales + 4 * ((row / u->rows * down + row % u->rows / u->block_rows) * across +
                            col / u->block_cols),
           4);
    return x;
}
static void put(const struct unpack *u, i64 at, float x) {
    const u16 half = bf16_of_f32(x);
    memcpy(u->to + at * dtype_size(u->type), u->type == BF16 ? (const void *)&half : &x,
           (size_t)dtype_size(u->type));
}
static void unpack_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct unpack *u = arg;
    for (i64 r = begin; r < end; r++)
        for (i64 c = 0; c < u->cols; c += 32) {
            float x[32];
            const i64 n = i64_min(32, u->cols - c), at = r * u->cols + c;
            if (u->mxfp4)
                mxfp4_block(x, u->codes + at / 2, u->scales[at / 32]);
            else
                for (i64 i = 0; i < n; i++)
                    x[i] = fp8_to_f32(u->codes[at + i], FP8_E4M3) * scale_at(u, r, c + i);
            for (i64 i = 0; i < n; i++) put(u, at + i, x[i]);
        }
}

/* The tensor NAME + `end`, marked as seen. NULL: there is none. */
static const struct stored *part(const struct safetensors *s, const char *name, const char *end,
                                 u8 *seen) {
    char text[300];
    snprintf(text, sizeof text, "%.255s%s", name, end);
    const struct stored *t = safetensors_find(s, text);
    if (t && seen) seen[t - s->tensor] = 1;
    return t;
}
static int wrong(const struct stored *t, const char *where, struct err *e) {
    err_input(e, "%s: '%s' and its scales have shapes or types that do not belong together", where,
              t->name);
    return err_hint(e, "the file is damaged, or its config.json is of another model");
}

static int run(struct stored *out, struct unpack *u, struct err *e) {
    out->dtype = u->type, out->type = dtype_info[u->type].safetensors;
    out->bytes = u->rows * u->cols * dtype_size(u->type);
    for (int i = 0; i + 2 < out->rank; i++) out->bytes *= out->dim[i];
    out->data = u->to = mem_new(i64_max(out->bytes, 1), e);
    if (!u->to) return -1;
    pool_run(out->bytes / dtype_size(u->type) / i64_max(u->cols, 1), unpack_rows, u);
    return 0;
}

static int fp8_unpack(const struct model *m, const struct stored *t, const struct stored *scale,
                      struct stored *out, const char *where, struct err *e) {
    const i64 *block = m->config.fp8_block;
    bool fits = scale && scale->dtype == F32 && t->rank >= 2 && scale->rank == t->rank;
    for (int i = 0; fits && i < t->rank; i++) {
        const i64 per = i + 2 < t->rank ? 1 : block[i + 2 - t->rank];
        fits = scale->dim[i] == (t->dim[i] + per - 1) / per;
    }
    if (!fits) return wrong(t, where, e);
    *out = *t;
    struct unpack u = {
        t->data,  scale->data, NULL, m->dtype, t->dim[t->rank - 2], t->dim[t->rank - 1],
        block[0], block[1],    false};
    return run(out, &u, e);
}
static int mxfp4_unpack(const struct model *m, const struct stored *t, const struct stored *scale,
                        struct stored *out, const char *where, struct err *e) {
    const int rank = t->rank;
    bool fits = scale && rank >= 3 && t->dtype == U8 && scale->dtype == U8 &&
                scale->rank == rank - 1 && t->dim[rank - 1] == 16;
    for (int i = 0; fits && i < rank - 1; i++) fits = scale->dim[i] == t->dim[i];
    if (!fits) return wrong(t, where, e);
    *out = *t, out->rank = rank - 1, out->dim[rank - 2] = t->dim[rank - 2] * 32;
    struct unpack u = {t->data, scale->data, NULL, m->dtype, t->dim[rank - 3], out->dim[rank - 2],
                       1,       32,          true};
    return run(out, &u, e);
}

int packed_read(const struct model *m, const struct safetensors *s, const char *name, u8 *seen,
                struct stored *out, const char *where, struct err *e) {
    const struct stored *t = safetensors_find(s, name);
    if (t && t->type && !strcmp(t->type, "F8_E4M3")) {
        if (seen) seen[t - s->tensor] = 1;
        return fp8_unpack(m, t, part(s, name, "_scale_inv", seen), out, where, e) ? -1 : PACKED_FP8;
    }
    if (t || !(t = part(s, name, "_blocks", seen))) return PACKED_NOT;
    return mxfp4_unpack(m, t, part(s, name, "_scales", seen), out, where, e) ? -1 : PACKED_MXFP4;
}
