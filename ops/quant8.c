/* quant8.c: f32 values in 8 bits with a scale per block of 256, and back: the state of 8-bit
 * optimizers (Dettmers et al., "8-bit optimizers via block-wise quantization", 2022).
 *
 *   x [n] f32, map [256] f32 ascending -> codes [n] u8, absmax [ceil(n / 256)] f32
 *   quant8    absmax = largest magnitude of the block; codes = how many of the 255 middles between
 *             neighbours of the map, (map[i] + map[i+1]) * 0.5, lie below x / absmax (a block of
 *             zeros: below 0), which is the nearest entry, of two equally near the lower
 *   dequant8  x = map[codes] * absmax
 *
 * The maps are base/quant.h's: signed, dense near zero, for means; unsigned for mean squares.
 * bitsandbytes finds the same codes on a GPU; on a CPU it looks up small values more coarsely. */
#include "base/quant.h"
#include "ops/ops_int.h"

#include <math.h>

static i64 blocks_of(const struct view *v) {
    return (view_count(v) + QUANT_BLOCK2 - 1) / QUANT_BLOCK2;
}
static int quant8_shape(struct op_call *c, struct err *e) {
    const enum dtype d = c->in[0].dtype == F64 ? F64 : F32;
    if (need_rank(c, 0, 1, e) || need_dtype(c, 0, d, e) || need_dtype(c, 1, d, e) ||
        need_dim(c, 1, 0, 256, e))
        return -1;
    set_out(c, 0, U8, 1, c->in[0].dim);
    set_out(c, 1, d, 1, (i64[]){blocks_of(&c->in[0])});
    return 0;
}
static void quant8_ref(const struct op_call *c) {
    const double *x = c->in[0].data, *map = c->in[1].data;
    double *absmax = c->out[1].data;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        double *top = &absmax[i / QUANT_BLOCK2];
        if (i % QUANT_BLOCK2 == 0) *top = 0;
        *top = fmax(*top, fabs(x[i]));
    }
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const double top = absmax[i / QUANT_BLOCK2], z = top > 0 ? x[i] / top : 0;
        int code = 0;
        while (code < 255 && (map[code] + map[code + 1]) / 2 < z) code++;
        ((u8 *)c->out[0].data)[i] = (u8)code;
    }
}
static int dequant8_shape(struct op_call *c, struct err *e) {
    const enum dtype d = c->in[1].dtype == F64 ? F64 : F32;
    if (need_rank(c, 0, 1, e) || need_dtype(c, 0, U8, e) || need_dtype(c, 1, d, e) ||
        need_dim(c, 1, 0, blocks_of(&c->in[0]), e) || need_dtype(c, 2, d, e) ||
        need_dim(c, 2, 0, 256, e))
        return -1;
    set_out(c, 0, d, 1, c->in[0].dim);
    return 0;
}
static void dequant8_ref(const struct op_call *c) {
    const u8 *codes = c->in[0].data;
    const double *absmax = c->in[1].data, *map = c->in[2].data;
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i] = map[codes[i]] * absmax[i / QUANT_BLOCK2];
}
static void map_fill(void *data, const struct view *v) {
    (void)v;
    float map[256];
    quant8_map(map, true);
    for (int i = 0; i < 256; i++) ((double *)data)[i] = (double)map[i];
}
static i64 size_at(int index, struct sample *s) {
    static const i64 size[] = {1, 255, 256, 1000, 1 << 24};
    s->no_gradient_check = true;
    if (index >= COUNT(size)) return 0;
    s->bench = size[index] > 1000000;
    return size[index];
}
static void sample_map(struct sample_in *in) {
    sample_f32(in, -1, 1, DIMS(256));
    in->fill = FILL_CUSTOM, in->custom = map_fill;
}
static bool quant8_sample(int index, struct sample *s) {
    const i64 n = size_at(index, s);
    sample_f32(&s->in[0], -3, 3, DIMS(i64_max(n, 1)));
    sample_map(&s->in[1]);
    return n > 0;
}
static bool dequant8_sample(int index, struct sample *s) {
    const i64 n = size_at(index, s);
    sample_codes(&s->in[0], U8, DIMS(i64_max(n, 1)));
    sample_f32(&s->in[1], 0, 2, DIMS((n + QUANT_BLOCK2 - 1) / QUANT_BLOCK2));
    sample_map(&s->in[2]);
    return n > 0;
}
const struct op op_quant8 = {
    .name = "quant8",
    .in = "x map",
    .out = "codes absmax",
    .shape = quant8_shape,
    .ref = quant8_ref,
    .cpu = CPU(quant8),
    .cuda = CUDA(quant8),
    .sample = quant8_sample,
    .bound = {1, 1},
};
const struct op op_dequant8 = {
    .name = "dequant8",
    .in = "codes absmax map",
    .out = "x",
    .shape = dequant8_shape,
    .ref = dequant8_ref,
    .cpu = CPU(dequant8),
    .cuda = CUDA(dequant8),
    .sample = dequant8_sample,
    .bound = {1, 1},
};
