/* linear_int8.c: y = x·w^T (+ scale * (x·a^T)·b^T) (+ bias) with activations as whole numbers by
 * blocks, as NUMERICS.md 15 defines it: for models that are used, so without gradients.
 *
 *   x [N, I], w [O, I] packed in blocks that int8_codes.h knows, bias [O], a [r, I], b [O, r]
 *   -> y [N, O], t [N, r] (absent without adapter)
 *
 * The rows of w are whole blocks. t = x·a^T and u = t·b^T as in `linear`, from x itself. */
#include "base/v16.h"
#include "ops/gemm/gemm.h"
#include "ops/int8_codes.h"
#include "ops/linear_int8.h"

#include <string.h>

bool linear_int8_takes(const struct view *w) {
    const enum int8_form f = w->packing ? w->packing->int8 : INT8_NONE;
    return f && w->rank == 2 && w->dim[1] % int8_elements(f) == 0;
}

static int linear_int8_shape(struct op_call *c, struct err *e) {
    if (op_linear.shape(c, e)) return -1;
    const struct packing *p = c->in[1].packing;
    const enum int8_form form = p ? p->int8 : INT8_NONE;
    if (!form)
        return err_failed(e, "linear_int8: w is %s, which has no blocks of whole numbers",
                          p ? p->name : "not packed");
    const i64 block = int8_elements(form);
    if (c->in[1].dim[1] % block == 0) return 0;
    return err_failed(e, "linear_int8: rows of %lld are not whole blocks of %lld",
                      (long long)c->in[1].dim[1], (long long)block);
}

/* ---- the reference: whole numbers as they are defined, sums in f64 */

/* A block of activations: *e, and whole numbers. */
static void quantise_ref(i32 *to, double *e, const double *x, i64 count) {
    float a = 0;
    bool finite = true;
    for (i64 i = 0; i < count; i++) {
        const float f = (float)x[i], size = f < 0 ? -f : f;
        a = size > a ? size : a, finite &= f - f == 0;
    }
    const float inverse = 127 / a;
    const bool none = !(a > 0) || inverse - inverse != 0;
    *e = !finite ? __builtin_nan("") : none ? 0 : (double)(a / 127);
    for (i64 i = 0; i < count; i++)
        to[i] = finite && !none ? (i32)__builtin_rintf((float)x[i] * inverse) : 0;
}

static double block_ref(enum int8_form f, const u8 *w, const i32 *x, double e) {
    const i64 count = int8_elements(f);
    i64 sum = 0, least = 0;
    for (i64 i = 0; i < count; i++) {
        const i64 part = f >= INT8_Q4_K ? int8_part_scale(f, w, i) : 1;
        sum += part * int8_code(f, w, i) * x[i];
        if (int8_has_minima(f)) least += (f >= INT8_Q4_K ? -int8_part_min(w, i) : 1) * x[i];
    }
    const double c = (double)sum * (double)int8_d(f, w) * e;
    return int8_has_minima(f) ? c + (double)least * (double)int8_m(w) * e : c;
}

static void linear_int8_ref(const struct op_call *c) {
    const struct view *x = &c->in[0], *w = &c->in[1], *bias = &c->in[2], *a = &c->in[3];
    const enum int8_form f = w->packing->int8;
    const i64 n = x->dim[0], in = x->dim[1], out = w->dim[0], block = int8_elements(f),
              bytes = int8_bytes(f), rank = is_present(a) ? a->dim[0] : 0;
    double *y = c->out[0].data, *t = c->out[1].data, e;
    i32 whole[INT8_SUPER];
    for (i64 i = 0; i < n * out; i++)
        y[i] = is_present(bias) ? ((const double *)bias->data)[i % out] : 0;
    for (i64 r = 0; r < n; r++)
        for (i64 b = 0; b < in / block; b++) {
            quantise_ref(whole, &e, (const double *)x->data + r * in + b * block, block);
            for (i64 o = 0; o < out; o++)
                y[r * out + o] +=
                    block_ref(f, (const u8 *)w->data + (o * (in / block) + b) * bytes, whole, e);
        }
    for (i64 i = 0; i < n * rank; i++) {
        t[i] = 0;
        for (i64 k = 0; k < in; k++)
            t[i] += ((const double *)x->data)[i / rank * in + k] *
                    ((const double *)a->data)[i % rank * in + k];
    }
    for (i64 i = 0; i < n * out && rank; i++)
        for (i64 k = 0; k < rank; k++)
            y[i] += ((const struct lora_attr *)c->attr)->scale * t[i / out * rank + k] *
                    ((const double *)c->in[4].data)[i % out * rank + k];
}

/* ---- sizes */

static i64 linear_int8_scratch(const struct op_call *c) {
    const i64 n = c->in[0].dim[0], in = c->in[0].dim[1], out = c->in[1].dim[0],
              rank = is_present(&c->in[3]) ? c->in[3].dim[0] : 0;
    const i64 low = !rank ? 0
                          : 2 * round_up(n * out * 4, 64) + i64_max(gemm_scratch(n, rank, in, 0),
                                                                    gemm_scratch(n, out, rank, 0));
    return int8_scratch(n, in, c->in[1].packing->int8) + low;
}
static i64 linear_int8_scratch_cuda(const struct op_call *c) {
    const i64 n = c->in[0].dim[0], in = c->in[0].dim[1];
    return n * in + n * (in / INT8_BLOCK) * 4 + 2 * n * c->in[1].dim[0] * 4;
}
static double linear_int8_flops(const struct op_call *c) { return op_linear.flops(c); }

/* N, O, I in blocks of 32 or 256, r, bias */
static const i64 sizes[][5] = {{1, 1, 1, 0, 0},     {3, 5, 2, 0, 1},      {5, 19, 2, 4, 1},
                               {17, 33, 1, 0, 0},   {1, 8, 2, 3, 0},      {2, 97, 4, 0, 0},
                               {1, 4096, 16, 0, 0}, {16, 4096, 16, 0, 0}, {512, 4096, 16, 0, 0}};
static bool linear_int8_sample(int index, struct sample *s) {
    int at = index / COUNT(sizes), k = 0;
    while (k < packing_count && (!packing_table[k]->int8 || at-- > 0)) k++;
    if (k == packing_count) return false;
    const struct packing *p = packing_table[k];
    const i64 *d = sizes[index % COUNT(sizes)];
    const i64 in = d[1] > 1000 ? 4096 : d[2] * int8_elements(p->int8);
    *(struct lora_attr *)s->attr = (struct lora_attr){1.75};
    s->bench = d[1] > 1000;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], in));
    sample_float(&s->in[1], -1, 1, DIMS(d[1], in));
    s->in[1].packing = p;
    if (d[4]) sample_float(&s->in[2], -1, 1, DIMS(d[1]));
    if (d[3]) sample_float(&s->in[3], -1, 1, DIMS(d[3], in));
    if (d[3]) sample_float(&s->in[4], -1, 1, DIMS(d[1], d[3]));
    return true;
}

const struct op op_linear_int8 = {
    .name = "linear_int8",
    .in = "x #w bias? a? b?",
    .out = "y t",
    .attr_size = sizeof(struct lora_attr),
    .shape = linear_int8_shape,
    .ref = linear_int8_ref,
    .scratch = linear_int8_scratch,
    .scratch_cuda = linear_int8_scratch_cuda,
    .cpu = CPU(linear_int8),
    .cuda = CUDA(linear_int8),
    .sample = linear_int8_sample,
    .bound = {8, 2},
    .flops = linear_int8_flops,
};
