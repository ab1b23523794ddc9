/* linear_xent.c: the LM head with its loss, the logits never whole; and all gradients in one op.
 *
 *   x [N, D], w [V, D], targets [N] i32 (negative: not trained), bias [V] or absent; w may be
 *   packed if it is frozen
 *   linear_xent        loss [N] f32 = log(sum over v of e^(l[v] - max)) + max - l[target],
 *                      l = x·w^T + bias, with a softcap c > 0 then c * tanh(l * (1/c))
 *   lora_xent          the same with an adapter: t [N, r], u [V, r]; l = x·w^T + t·u^T + bias; with
 *                      DoRA's m [V] and norm [V] f32: l = (x·w^T + t·u^T) * (m / norm) + bias; and
 *                      with rest [N, D], which m leaves alone: + rest·w^T
 *   linear_xent_train  weight [N] f32, d objective / d loss of each row. Also d = (softmax(l) -
 *                      onehot(target)) * weight, with a softcap * (1 - (l * (1/c))^2), dx = d·w, dw
 * += d^T·x, dbias += the sum of d over tokens lora_xent_train    also dx, dt = d·u, du += d^T·t: w
 * is frozen; with m, q = x·w^T + t·u^T: dm += the sum of d * q / norm over tokens, drest = d·w, and
 * d * (m / norm) is what dx, dt and du are made of
 *
 * For the mean over an optimizer step the weight of each row is 1 / (its trained tokens). The loss
 * itself has no weight; it is 0 where nothing is trained, and so is d there, whatever the weight.
 * Roundings: l by the chain of the dtype from 0, kept in f32; + t·u^T, a chain of its own; with m
 * times m / norm, or fma with rest·w^T; + bias and the softcap in f32, 1/c rounded to f32; max
 * exact; e = exp(l - max); the sum s by NUMERICS.md 7; loss = (log s + max) - l[target] in f32,
 * with log s computed in f64 and rounded; d = (e * (1/s)) * weight, for the target (e * (1/s) - 1)
 * * weight, then the softcap's factor, rounded to the dtype of x, 0 where nothing is trained; dx
 * and dt one chain over the whole vocabulary, rounded; dw, du and dbias chains over tokens that
 * start from what is there, and so dm, fma of d and q * (1 / norm); d * (m / norm) rounded again.
 *
 * Rows go through in chunks (xent_rows): a chunk's logits are the scratch, its d takes their
 * place. Rejected: chunks of the vocabulary (they need the logits twice: a third more work);
 * leaving out rows that are not trained (fma(0, x, -0) is 0: bits would change). */
#include "ops/gemm/gemm.h"
#include "ops/linear_xent.h"

#include <math.h>

/* More rows share one pass over w and dw, fewer use less memory. 32 Mi logits are 128 MiB: 640 rows
 * of a vocabulary of 50,304. Chosen for its memory; other sizes were not compared. To measure:
 * change LOGITS, then `hone bench linear_xent_train`. Even, because bf16 takes tokens in pairs. */
i64 xent_rows(i64 rows, i64 vocab) {
    enum { LOGITS = 32 << 20, STEP = 64, MOST = 1024 };
    return i64_min(rows, i64_max(STEP, i64_min(MOST, LOGITS / vocab / STEP * STEP)));
}

/* On a GPU each chunk reads w and reads and writes dw: 10 bytes per weight in bf16, hidden behind 6
 * operations per weight and row only if the rows are many. 128 Mi logits are 512 MiB: 1,024 rows of
 * a vocabulary of 128,256, 2,560 of 50,304. Counted, not measured; to measure: change it, then
 * `hone bench linear_xent_train` with --device cuda. Even, as above. */
i64 xent_logits_cuda = 128 << 20;
i64 xent_rows_cuda(i64 rows, i64 vocab) {
    enum { STEP = 128, MOST = 4096 };
    return i64_min(rows, i64_max(STEP, i64_min(MOST, xent_logits_cuda / vocab / STEP * STEP)));
}

/* The forms that also give gradients. */
static bool is_train(const struct op_call *c) {
    return c->op == &op_linear_xent_train || c->op == &op_lora_xent_train;
}
static int xent_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0], *w = &c->in[1];
    const enum dtype sum = x->dtype == F64 ? F64 : F32;
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_rank(c, 1, 2, e) ||
        need_dtype(c, 1, x->dtype, e) || need_dim(c, 1, 1, x->dim[1], e) || need_rank(c, 2, 1, e) ||
        need_dtype(c, 2, I32, e) || need_dim(c, 2, 0, x->dim[0], e) ||
        (is_present(&c->in[4]) && (need_rank(c, 4, 1, e) || need_dtype(c, 4, x->dtype, e) ||
                                   need_dim(c, 4, 0, w->dim[0], e))))
        return -1;
    if (w->dim[0] < 1) return err_failed(e, "operation %s: 'w' has no rows", c->op->name);
    if (w->packing && c->op == &op_linear_xent_train && is_present(&c->out[2]))
        return err_failed(e, "operation %s: 'w' is packed as %s, and has no gradient", c->op->name,
                          w->packing->name);
    if (is_present(&c->in[3]) && !is_train(c))
        return err_failed(e, "operation %s: 'weight' is for the training form", c->op->name);
    if (is_train(c) &&
        (need_rank(c, 3, 1, e) || need_dtype(c, 3, sum, e) || need_dim(c, 3, 0, x->dim[0], e)))
        return -1;
    set_out(c, 0, sum, 1, (i64[]){x->dim[0]});
    return 0;
}
static int magnitude_check(const struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0], *m = &c->in[7], *rest = &c->in[9];
    if (is_present(m) != is_present(&c->in[8]) || (is_present(rest) && !is_present(m)))
        return err_failed(e, "operation %s: 'm' and 'norm' come together, 'rest' with them",
                          c->op->name);
    for (int i = 7; is_present(m) && i < 9; i++)
        if (need_rank(c, i, 1, e) || need_dim(c, i, 0, c->in[1].dim[0], e) ||
            need_dtype(c, i, i == 7 || x->dtype == F64 ? x->dtype : F32, e))
            return -1;
    return is_present(rest) ? need_same(c, 0, 9, e) : 0;
}
static int lora_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0], *t = &c->in[5];
    return xent_shape(c, e) || need_rank(c, 5, 2, e) || need_dtype(c, 5, x->dtype, e) ||
                   need_dim(c, 5, 0, x->dim[0], e) || need_rank(c, 6, 2, e) ||
                   need_dtype(c, 6, x->dtype, e) || need_dim(c, 6, 0, c->in[1].dim[0], e) ||
                   need_dim(c, 6, 1, t->dim[1], e)
               ? -1
               : magnitude_check(c, e);
}
static int lora_train_shape(struct op_call *c, struct err *e) {
    if (lora_shape(c, e)) return -1;
    set_out_like(c, 1, &c->in[0]), set_out_like(c, 2, &c->in[5]);
    c->out[5] = (struct view){.data = c->out[5].data};
    if (is_present(&c->in[9])) set_out_like(c, 5, &c->in[9]);
    if (is_present(&c->out[4]) && need_out(c, 4, c->out[0].dtype, 1, c->in[1].dim, e)) return -1;
    return is_present(&c->out[3]) ? need_out(c, 3, c->out[0].dtype, 2, c->in[6].dim, e) : 0;
}
static int xent_train_shape(struct op_call *c, struct err *e) {
    if (xent_shape(c, e)) return -1;
    set_out_like(c, 1, &c->in[0]);
    for (int i = 2; i < 4; i++)
        if (is_present(&c->out[i]) && need_out(c, i, c->out[0].dtype, 4 - i, c->in[1].dim, e))
            return -1;
    return 0;
}

static double dot(const double *a, const double *b, i64 n) {
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
static double at(const struct view *v, i64 i) { return ((const double *)v->data)[i]; }
static double row_dot(const struct op_call *c, int a, i64 token, int b, i64 v) {
    const i64 n = c->in[b].dim[1];
    if (!is_present(&c->in[a])) return 0;
    return dot((double *)c->in[a].data + token * n, (double *)c->in[b].data + v * n, n);
}
static double product_ref(const struct op_call *c, i64 token, i64 v) {
    return row_dot(c, 0, token, 1, v) + row_dot(c, 5, token, 6, v);
}
static double magnitude_ref(const struct op_call *c, i64 v) {
    return is_present(&c->in[7]) ? at(&c->in[7], v) / at(&c->in[8], v) : 1;
}
static double logit_ref(const struct op_call *c, i64 token, i64 v) {
    const double cap = ((const struct xent_attr *)c->attr)->softcap;
    const double l = product_ref(c, token, v) * magnitude_ref(c, v) + row_dot(c, 9, token, 1, v) +
                     (is_present(&c->in[4]) ? at(&c->in[4], v) : 0);
    return cap > 0 ? cap * tanh(l / cap) : l;
}
static double token_ref(const struct op_call *c, i64 token, i32 target) {
    const i64 width = c->in[0].dim[1], vocab = c->in[1].dim[0];
    const double weight = is_present(&c->in[3]) ? at(&c->in[3], token) : 0,
                 cap = ((const struct xent_attr *)c->attr)->softcap;
    double top = -INFINITY, sum = 0;
    const bool lora = is_present(&c->in[5]);
    const i64 rank = lora ? c->in[5].dim[1] : 0;
    double *dx = c->out[1].data, *dw = lora ? NULL : c->out[2].data,
           *dt = lora ? c->out[2].data : NULL, *last = c->out[3].data;
    double *dbias = lora || !is_present(&c->out[3]) ? NULL : last, *du = lora ? last : NULL,
           *dm = lora ? c->out[4].data : NULL, *drest = lora ? c->out[5].data : NULL;
    if (target < 0) return 0;
    for (i64 v = 0; v < vocab; v++) top = fmax(top, logit_ref(c, token, v));
    for (i64 v = 0; v < vocab; v++) sum += exp(logit_ref(c, token, v) - top);
    for (i64 v = 0; v < vocab && (dx || dw || dbias || dt || du || dm || drest); v++) {
        const double l = logit_ref(c, token, v), p = exp(l - top) / sum;
        const double all = (p - (v == target)) * weight * (cap > 0 ? 1 - l / cap * l / cap : 1),
                     d = all * magnitude_ref(c, v);
        if (dm) dm[v] += all * product_ref(c, token, v) / at(&c->in[8], v);
        for (i64 i = 0; i < width; i++) {
            if (dx) dx[token * width + i] += d * at(&c->in[1], v * width + i);
            if (dw) dw[v * width + i] += d * at(&c->in[0], token * width + i);
            if (drest) drest[token * width + i] += all * at(&c->in[1], v * width + i);
        }
        for (i64 i = 0; i < rank; i++) {
            if (dt) dt[token * rank + i] += d * at(&c->in[6], v * rank + i);
            if (du) du[v * rank + i] += d * at(&c->in[5], token * rank + i);
        }
        if (dbias) dbias[v] += d;
    }
    return log(sum) + top - logit_ref(c, token, target);
}
static void xent_ref(const struct op_call *call) {
    static const int made[] = {1, 2, 5}; /* 2 and 5: with an adapter */
    struct op_call plain = *call, *c = &plain;
    double *own;
    plain.in[1].data = (void *)weight_ref(&call->in[1], &own), plain.in[1].packing = NULL;
    for (int k = 0; k < (is_present(&c->in[5]) ? 3 : 1); k++)
        for (i64 i = 0; c->out[made[k]].data && i < view_count(&c->out[made[k]]); i++)
            ((double *)c->out[made[k]].data)[i] = 0;
    for (i64 n = 0; n < c->in[0].dim[0]; n++)
        ((double *)c->out[0].data)[n] = token_ref(c, n, ((i32 *)c->in[2].data)[n]);
    mem_free(own);
}

static i64 xent_scratch(const struct op_call *c) { /* logits, with m also q, then packing */
    const i64 rank = is_present(&c->in[5]) ? c->in[5].dim[1] : 0, vocab = c->in[1].dim[0],
              width = i64_max(c->in[0].dim[1], rank), rows = xent_rows(c->in[0].dim[0], vocab);
    return round_up(rows * vocab * (i64)sizeof(float), 64) * (1 + is_present(&c->in[7])) +
           i64_max(
               gemm_scratch(rows, vocab, width, rank),
               i64_max(gemm_scratch(rows, width, vocab, 0), gemm_scratch(vocab, width, rows, 0)));
}
static i64 xent_scratch_cuda(const struct op_call *c) { /* as above; then the decoded w */
    const i64 vocab = c->in[1].dim[0];
    return round_up(xent_rows_cuda(c->in[0].dim[0], vocab) * xent_ld_cuda(vocab) *
                        (i64)sizeof(float) * (1 + is_present(&c->in[7])),
                    64) +
           weight_scratch_cuda(c);
}
static double xent_flops(const struct op_call *c) {
    return 2 * (double)view_count(&c->in[0]) * (double)c->in[1].dim[0];
}
static double lora_train_flops(const struct op_call *c) {
    return xent_flops(c) * (1 + (c->out[1].data != NULL)) +
           6 * (double)view_count(&c->in[5]) * (double)c->in[1].dim[0];
}
static double xent_train_flops(const struct op_call *c) {
    return xent_flops(c) * (1 + (c->out[1].data != NULL) + is_present(&c->out[2]));
}

/* N, D, V, bias, softcap; the last: for each packing. */
static bool xent_sample(int index, struct sample *s) {
    static const i64 sizes[][5] = {
        {1, 1, 1},      {3, 5, 2},          {7, 16, 33},        {67, 9, 50},
        {5, 40, 1000},  {2, 8, 4107},       {133, 3, 5},        {7, 16, 33, 1, 2},
        {67, 9, 50, 1}, {65, 24, 71, 0, 3}, {2048, 768, 50304}, {2048, 768, 50304, 1, 30},
        {7, 70, 33, 1}};
    enum { PLAIN = COUNT(sizes) - 1 };
    const int packed = index - PLAIN;
    if (packed >= packing_count) return false;
    const i64 *d = sizes[packed < 0 ? index : PLAIN];
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1]));
    sample_float(&s->in[1], -1, 1, DIMS(d[2], d[1]));
    if (packed >= 0) s->in[1].packing = packing_table[packed];
    sample_int(&s->in[2], d[0] > 1 ? -1 : 0, d[2], DIMS(d[0]));
    if (d[0] == 2)
        s->in[2].low = (double)d[2] - 3; /* near the end of dx's chain, which stays small */
    if (d[3]) sample_float(&s->in[4], -1, 1, DIMS(d[2]));
    *(struct xent_attr *)s->attr = (struct xent_attr){(double)d[4]};
    s->no_gradient_check = d[2] > 1000; /* for its cost */
    s->bench = d[2] > 10000;
    return true;
}
static bool xent_train_sample(int index, struct sample *s) {
    if (!xent_sample(index, s)) return false;
    sample_f32(&s->in[3], -0.2, 0.2, 1, s->in[2].dim);
    if (!s->in[1].packing) sample_out(&s->out[2], 2, s->in[1].dim);
    if (s->in[4].present) sample_out(&s->out[3], 1, s->in[4].dim);
    return true;
}
static bool lora_sample(int index, struct sample *s) {    /* ranks 1 to 9 */
    static const int again[] = {1, 2, 4, 6, 7, 8, 9, 10}; /* with magnitudes, every second a rest */
    const int plain = 12, dora = index - plain;
    if (dora >= COUNT(again) || !xent_sample(dora < 0 ? index : again[dora], s)) return false;
    if (dora >= 0) {
        sample_float(&s->in[7], 0.5, 1, DIMS(s->in[1].dim[0]));
        sample_f32(&s->in[8], 1, 2, DIMS(s->in[1].dim[0]));
        if (dora % 2) sample_float(&s->in[9], -1, 1, 2, s->in[0].dim);
    }
    const i64 rank = 1 + (index * 4) % 9;
    sample_float(&s->in[5], -1, 1, DIMS(s->in[0].dim[0], rank));
    sample_float(&s->in[6], -1, 1, DIMS(s->in[1].dim[0], rank));
    return true;
}
static bool lora_train_sample(int index, struct sample *s) {
    if (!lora_sample(index, s)) return false;
    sample_f32(&s->in[3], -0.2, 0.2, 1, s->in[2].dim);
    sample_out(&s->out[3], 2, s->in[6].dim);
    if (s->in[7].present) sample_out(&s->out[4], 1, s->in[7].dim);
    return true;
}

const struct op op_linear_xent = {
    .name = "linear_xent",
    .in = "x #w targets weight? bias?",
    .out = "loss",
    .attr_size = sizeof(struct xent_attr),
    .shape = xent_shape,
    .root = {"linear_xent_train", "x w targets dloss bias", "loss dx +dw +dbias"},
    .ref = xent_ref,
    .scratch = xent_scratch,
    .scratch_cuda = xent_scratch_cuda,
    .cpu = CPU(linear_xent),
    .cuda = CUDA(linear_xent),
    .sample = xent_sample,
    .bound = {8, 1},
    .flops = xent_flops,
};
const struct op op_linear_xent_train = {
    .name = "linear_xent_train",
    .in = "x #w targets weight bias?",
    .out = "loss dx +dw +dbias?",
    .attr_size = sizeof(struct xent_attr),
    .shape = xent_train_shape,
    .ref = xent_ref,
    .scratch = xent_scratch,
    .scratch_cuda = xent_scratch_cuda,
    .cpu = CPU(linear_xent_train),
    .cuda = CUDA(linear_xent_train),
    .sample = xent_train_sample,
    .bound = {16, 2}, /* an error of the logits goes into d through e^l, whole */
    .flops = xent_train_flops,
};
const struct op op_lora_xent = {
    .name = "lora_xent",
    .in = "x #w targets weight? bias? t u m? norm? rest?",
    .out = "loss",
    .attr_size = sizeof(struct xent_attr),
    .shape = lora_shape,
    .root = {"lora_xent_train", "x w targets dloss bias t u m norm rest",
             "loss dx dt +du +dm drest"},
    .ref = xent_ref,
    .scratch = xent_scratch,
    .scratch_cuda = xent_scratch_cuda,
    .cpu = CPU(lora_xent),
    .cuda = CUDA(lora_xent),
    .sample = lora_sample,
    .bound = {8, 1},
    .flops = xent_flops,
};
const struct op op_lora_xent_train = {
    .name = "lora_xent_train",
    .in = "x #w targets weight bias? t u m? norm? rest?",
    .out = "loss dx dt +du +dm? drest",
    .attr_size = sizeof(struct xent_attr),
    .shape = lora_train_shape,
    .ref = xent_ref,
    .scratch = xent_scratch,
    .scratch_cuda = xent_scratch_cuda,
    .cpu = CPU(lora_xent_train),
    .cuda = CUDA(lora_xent_train),
    .sample = lora_train_sample,
    .bound = {16, 2},
    .flops = lora_train_flops,
};
