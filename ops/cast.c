/* cast.c: a matrix times a number, in another type or turned: what stands between the products of
 * Muon's iteration (train/loop/muon.c).
 *
 *   x [R, C] f32 or bf16, square_sum [1] f64 or absent -> y [R, C], or [C, R] if `transposed`;
 *   bf16 if `is_bf16`, else f32
 *
 *   f = factor, or f32(factor / max(sqrt(square_sum), eps)), in f64;  y = round(x * f) */
#include "ops/ops_int.h"

#include <math.h>

static int cast_shape(struct op_call *c, struct err *e) {
    const struct cast_attr *a = c->attr;
    const struct view *x = &c->in[0];
    if (need_float(c, 0, e) || need_rank(c, 0, 2, e)) return -1;
    if (is_present(&c->in[1]) && (need_dtype(c, 1, F64, e) || need_dim(c, 1, 0, 1, e))) return -1;
    set_out(c, 0,
            x->dtype == F64 ? F64
            : a->is_bf16    ? BF16
                            : F32,
            2, (i64[]){x->dim[a->transposed], x->dim[!a->transposed]});
    return 0;
}
static void cast_ref(const struct op_call *c) {
    const struct cast_attr *a = c->attr;
    const i64 rows = c->in[0].dim[0], cols = c->in[0].dim[1];
    const double *x = c->in[0].data, *sum = c->in[1].data;
    const double f = sum ? a->factor / fmax(sqrt(*sum), a->eps) : a->factor;
    for (i64 i = 0; i < rows * cols; i++)
        ((double *)c->out[0].data)[a->transposed ? i % cols * rows + i / cols : i] = x[i] * f;
}
static bool cast_sample(int index, struct sample *s) {
    static const i64 size[][2] = {{1, 1},    {3, 5},   {17, 33},    {64, 16},
                                  {5, 4100}, {40, 37}, {4096, 4096}};
    if (index >= 8 * COUNT(size) - 4) return false; /* of the last, without the sum */
    const i64 *n = size[index / 8];
    *(struct cast_attr *)s->attr =
        (struct cast_attr){3.4445, 1e-7, (index & 1) != 0, (index & 2) != 0};
    sample_float(&s->in[0], -1, 1, DIMS(n[0], n[1]));
    if (index & 4) {
        sample_f32(&s->in[1], 0.25, 4, DIMS(1));
        s->in[1].dtype = F64;
    }
    s->bench = n[0] > 4000;
    s->no_gradient_check = true;
    return true;
}
const struct op op_cast = {
    .name = "cast",
    .in = "x square_sum?",
    .out = "y",
    .attr_size = sizeof(struct cast_attr),
    .shape = cast_shape,
    .ref = cast_ref,
    .cpu = CPU(cast),
    .cuda = CUDA(cast),
    .sample = cast_sample,
    .bound = {4, 2},
};
