/* weight.c: weights of products that may be 4-bit codes: shape rule, reference, samples (weight.h).
 *
 * The codes come as one more dtype of the same argument, and what decodes them as three optional
 * arguments, so that a product of quantised weights is not another operation. The block size is in
 * no attribute: the number of scales says it. */
#include "ops/weight.h"

int need_sizes(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e) {
    return need_rank(c, at, 2, e) || (rows >= 0 && need_dim(c, at, 0, rows, e)) ||
                   (cols >= 0 && need_dim(c, at, 1, cols, e))
               ? -1
               : 0;
}

int need_weight(const struct op_call *c, i64 rows, i64 cols, int at, struct err *e) {
    const bool coded = c->in[1].dtype == U4, twice = coded && c->in[at].dtype == U8;
    const enum dtype sums = c->in[0].dtype == F64 ? F64 : F32;
    if (need_dtype(c, 1, coded ? U4 : c->in[0].dtype, e) || need_sizes(c, 1, rows, cols, e))
        return -1;
    for (int i = 0; i < 3; i++)
        if (is_present(&c->in[at + i]) != (coded && (i < 2 || twice)))
            return err_failed(e, "operation %s: a weight of %s %s what decodes it", c->op->name,
                              dtype_info[c->in[1].dtype].name, coded ? "lacks" : "has");
    if (!coded) return 0;
    if (need_rank(c, at, 1, e) || (!twice && need_dtype(c, at, sums, e)) ||
        need_rank(c, at + 1, 1, e) || need_dtype(c, at + 1, sums, e) ||
        need_dim(c, at + 1, 0, twice ? QUANT_TABLE_DOUBLE : QUANT_TABLE, e) ||
        (twice && (need_rank(c, at + 2, 1, e) || need_dtype(c, at + 2, sums, e))))
        return -1;
    const i64 blocks = view_count(&c->in[at]);
    if (quant_shift(view_count(&c->in[1]), blocks) < 0 ||
        (twice && quant_shift(blocks, view_count(&c->in[at + 2])) < 0))
        return err_failed(e, "operation %s: %lld scales for %lld 4-bit codes", c->op->name,
                          (long long)blocks, (long long)view_count(&c->in[1]));
    return 0;
}
struct quant weight_quant(const struct op_call *c, int at) {
    const i64 blocks = view_count(&c->in[at]);
    return (struct quant){
        .absmax = c->in[at].data,
        .code = c->in[at + 1].data,
        .absmax2 = c->in[at + 2].data,
        .shift = quant_shift(view_count(&c->in[1]), blocks),
        .shift2 = is_present(&c->in[at + 2]) ? quant_shift(blocks, view_count(&c->in[at + 2])) : 0};
}
i64 weight_scratch_cuda(const struct op_call *c) {
    return c->in[1].dtype == U4 ? view_count(&c->in[1]) * dtype_size(c->in[0].dtype) : 0;
}
const double *weight_ref(const struct op_call *c, int at, double **own) {
    struct err e = {0};
    const i64 n = view_count(&c->in[1]);
    *own = c->in[1].dtype == U4 ? mem_new_array(n, sizeof **own, &e) : NULL;
    if (!*own) return c->in[1].data;
    const struct quant q = weight_quant(c, at);
    const double *code = c->in[at + 1].data, *absmax2 = c->in[at + 2].data;
    const u8 *packed = c->in[1].data;
    for (i64 i = 0; i < n; i++) {
        const i64 b = i >> q.shift;
        const double scale =
            absmax2 ? code[QUANT_TABLE + ((const u8 *)q.absmax)[b]] * absmax2[b >> q.shift2] +
                          code[QUANT_TABLE_DOUBLE - 1]
                    : ((const double *)q.absmax)[b];
        (*own)[i] = code[i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4] * scale;
    }
    return *own;
}
static void table_fill(void *data, const struct view *v) {
    double *to = data;
    for (int i = 0; i < 16; i++) to[i] = (double)quant4_code[QUANT_NF4][i];
    if (view_count(v) == QUANT_TABLE) return;
    float map[256];
    quant8_map(map, true);
    for (int i = 0; i < 256; i++) to[QUANT_TABLE + i] = (double)map[i];
    to[QUANT_TABLE_DOUBLE - 1] = 0.625;
}
void sample_weight(struct sample *s, int at, i64 rows, i64 cols, bool twice) {
    const i64 blocks = (rows * cols + 63) / 64;
    sample_codes(&s->in[1], U4, DIMS(rows, cols));
    if (twice)
        sample_codes(&s->in[at], U8, DIMS(blocks));
    else
        sample_f32(&s->in[at], 0.25, 1, DIMS(blocks));
    sample_f32(&s->in[at + 1], 0, 1, DIMS(twice ? QUANT_TABLE_DOUBLE : QUANT_TABLE));
    s->in[at + 1].fill = FILL_CUSTOM, s->in[at + 1].custom = table_fill;
    if (twice) sample_f32(&s->in[at + 2], 0.125, 0.375, DIMS((blocks + 255) / 256));
}
