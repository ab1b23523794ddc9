/* linear_xent_cpu.c: logits of a chunk of rows, their softmax and loss, the two gradient products.
 * Roundings: linear_xent.c. */
#include "base/v16.h"
#include "ops/gemm/gemm.h"
#include "ops/linear_xent.h"

#include <string.h>

struct chunk {
    const struct op_call *call;
    float *logits; /* [rows][vocab]; d in the dtype of x takes the place of each row */
    i64 first, rows, vocab;
    bool train;
    float cap; /* softcap; 0: none */
    float *q;  /* [rows][vocab]: products before DoRA's magnitudes; NULL: none */
};

static int targets_check(const struct op_call *c, struct err *e) {
    const i32 *target = c->in[2].data;
    const i64 vocab = c->in[1].dim[0];
    for (i64 n = 0; n < c->in[2].dim[0]; n++)
        if (target[n] >= vocab) {
            err_input(e, "target id %d at position %lld is outside the vocabulary of %lld",
                      target[n], (long long)n, (long long)vocab);
            return err_hint(e, "the data was made with another tokenizer than the model's");
        }
    return 0;
}

/* m / norm, and in *inverse 1 / norm, of 16 rows of w. */
V16_FN v16 magnitude(const struct chunk *k, i64 v, bool is_bf16, v16 *inverse) {
    const i64 left = k->vocab - v;
    const v16 one = v16_set(1),
              norm = v16_select(m16_first(left),
                                v16_load_n((const float *)k->call->in[8].data + v, left), one);
    *inverse = v16_div(one, norm);
    return v16_div(v16_get_n(k->call->in[7].data, v, left, is_bf16), norm);
}

/* What magnitudes, a bias and a softcap make of a row of products. */
V16_FN void row_finish(const struct chunk *k, float *l, const float *q, bool is_bf16) {
    const void *bias = k->call->in[4].data, *rest = k->call->in[9].data;
    const v16 cap = v16_set(k->cap), inverse = v16_set((float)(1 / (double)k->cap));
    for (i64 v = 0; v < k->vocab; v += 16) {
        v16 x = v16_load_n(q && !rest ? q + v : l + v, k->vocab - v), by;
        if (q) {
            const v16 g = magnitude(k, v, is_bf16, &by);
            x = rest ? v16_fma(v16_load_n(q + v, k->vocab - v), g, x) : v16_mul(x, g);
        }
        if (bias) x = v16_add(x, v16_get_n(bias, v, k->vocab - v, is_bf16));
        if (k->cap > 0) x = v16_mul(cap, v16_tanh(v16_mul(x, inverse)));
        v16_store_n(l + v, x, k->vocab - v);
    }
}
V16_FN v16 cap_slope(float cap, v16 l) { /* 1 - (l / cap)^2 */
    const v16 t = v16_mul(l, v16_set((float)(1 / (double)cap)));
    return v16_fma(v16_sub(v16_set(0), t), t, v16_set(1));
}

/* l[v] becomes e^(l[v] - max), if it is not to be `kept`; returns the sum. */
V16_FN float row_exp(float *l, i64 vocab, bool kept, float *max) {
    const v16 low = v16_set(-__builtin_inff());
    v16 top = low, sum = v16_set(0);
    for (i64 v = 0; v < vocab; v += 16)
        top = v16_max(top, v16_select(m16_first(vocab - v), v16_load_n(l + v, vocab - v), low));
    *max = v16_top(top);
    for (i64 v = 0; v < vocab; v += 16) {
        const v16 e = v16_exp(v16_sub(v16_load_n(l + v, vocab - v), v16_set(*max)));
        if (!kept) v16_store_n(l + v, e, vocab - v);
        sum = v16_add(sum, v16_select(m16_first(vocab - v), e, v16_set(0)));
    }
    return v16_sum(sum);
}

/* e^(l - max), or with a softcap l, becomes d, in place: element v of a bf16 row is written after
 * element v was read. */
V16_FN void row_gradient(const struct chunk *k, i64 row, float *l, float max, float sum, i32 target,
                         bool is_bf16) {
    const i64 vocab = k->vocab;
    const v16 each = v16_set(1.0f / sum),
              weight = v16_set(((const float *)k->call->in[3].data)[row]);
    float at_target[16];
    const v16 x = v16_set(l[target]), e = k->cap > 0 ? v16_exp(v16_sub(x, v16_set(max))) : x;
    const v16 t = v16_mul(v16_sub(v16_mul(e, each), v16_set(1.0f)), weight);
    v16_put(at_target, 0, k->cap > 0 ? v16_mul(t, cap_slope(k->cap, x)) : t, is_bf16);
    for (i64 v = 0; v < vocab; v += 16) {
        const i64 n = i64_min(16, vocab - v);
        v16 a = v16_load_n(l + v, vocab - v), slope = v16_set(1);
        if (k->cap > 0) slope = cap_slope(k->cap, a), a = v16_exp(v16_sub(a, v16_set(max)));
        v16 d = v16_mul(v16_mul(a, each), weight);
        if (k->cap > 0) d = v16_mul(d, slope);
        float copy[16]; /* through bytes: the row changes its type */
        v16_put(copy, 0, d, is_bf16);
        memcpy((u8 *)l + v * (is_bf16 ? 2 : 4), copy, (size_t)(is_bf16 ? 2 * n : 4 * n));
    }
    memcpy((u8 *)l + target * (is_bf16 ? 2 : 4), at_target, is_bf16 ? 2 : 4);
}

static void rows_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct chunk *k = arg;
    const struct op_call *c = k->call;
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    for (i64 i = begin; i < end; i++) {
        const i32 target = ((const i32 *)c->in[2].data)[k->first + i];
        float *l = k->logits + i * k->vocab, *loss = (float *)c->out[0].data + k->first + i;
        *loss = 0;
        if (target < 0) {
            if (k->train) memset(l, 0, (size_t)k->vocab * sizeof *l);
            continue;
        }
        if (c->in[4].data || k->cap > 0 || k->q)
            row_finish(k, l, k->q ? k->q + i * k->vocab : NULL, is_bf16);
        const float at_target = l[target];
        float max;
        const float sum = row_exp(l, k->vocab, k->cap > 0, &max);
        *loss = ((float)m_log((double)sum) + max) - at_target;
        if (k->train) row_gradient(k, k->first + i, l, max, sum, target, is_bf16);
    }
}

/* dm += d * (q / norm), tokens ascending, and d times m / norm takes d's place. */
static void magnitude_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct chunk *k = arg;
    const bool is_bf16 = view_is_bf16(&k->call->in[0]);
    const i64 ld = is_bf16 ? 2 * k->vocab : k->vocab;
    float *dm = k->call->out[4].data;
    for (i64 v = begin * 16; v < i64_min(end * 16, k->vocab); v += 16) {
        const i64 left = k->vocab - v;
        v16 by, sum = dm ? v16_load_n(dm + v, left) : v16_set(0);
        const v16 g = magnitude(k, v, is_bf16, &by);
        for (i64 n = 0; n < k->rows; n++) {
            const v16 d = v16_get_n(k->logits, n * ld + v, left, is_bf16);
            sum = v16_fma(d, v16_mul(v16_load_n(k->q + n * k->vocab + v, left), by), sum);
            v16_put_n(k->logits, n * ld + v, v16_mul(d, g), left, is_bf16);
        }
        if (dm) v16_store_n(dm + v, sum, left);
    }
}

/* dbias += d, tokens ascending: 16 columns a task. */
static void bias_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct chunk *k = arg;
    const bool is_bf16 = view_is_bf16(&k->call->in[0]);
    const i64 ld = is_bf16 ? 2 * k->vocab : k->vocab;
    for (i64 v = begin * 16; v < i64_min(end * 16, k->vocab); v += 16) {
        float *to = (float *)k->call->out[3].data + v;
        v16 sum = v16_load_n(to, k->vocab - v);
        for (i64 n = 0; n < k->rows; n++)
            sum = v16_add(sum, v16_get_n(k->logits, n * ld + v, k->vocab - v, is_bf16));
        v16_store_n(to, sum, k->vocab - v);
    }
}

static const void *rows_of(const struct chunk *k, const struct view *v) {
    const i64 at = k->first * v->dim[1] * dtype_size(v->dtype);
    return v->data ? (u8 *)v->data + at : NULL;
}
static i64 d_ld(const struct chunk *k) {
    return view_is_bf16(&k->call->in[0]) ? 2 * k->vocab : k->vocab;
}
/* to = d·w; to += d^T·x */
static void rows_back(const struct chunk *k, const struct view *w, const struct view *to,
                      void *scratch) {
    const struct gemm g = {.m = k->rows,
                           .n = w->dim[1],
                           .k = k->vocab,
                           .dtype = w->dtype,
                           .a = k->logits,
                           .lda = d_ld(k),
                           .b = w->data,
                           .ldb = w->dim[1],
                           .packed = w->packing ? w : NULL,
                           .c = (void *)rows_of(k, to),
                           .ldc = w->dim[1],
                           .c_dtype = w->dtype};
    if (to->data) CPU_NAME(gemm)(&g, scratch);
}
static void weight_back(const struct chunk *k, const struct view *x, const struct view *to,
                        void *scratch) {
    const struct gemm g = {.m = k->vocab,
                           .n = x->dim[1],
                           .k = k->rows,
                           .dtype = x->dtype,
                           .a = k->logits,
                           .lda = d_ld(k),
                           .a_t = true,
                           .b = rows_of(k, x),
                           .ldb = x->dim[1],
                           .c = to->data,
                           .ldc = x->dim[1],
                           .c_dtype = F32,
                           .accumulate = true};
    if (to->data) CPU_NAME(gemm)(&g, scratch);
}

static void chunk_run(const struct chunk *k, void *scratch) {
    const struct op_call *c = k->call;
    const struct view *x = &c->in[0], *w = &c->in[1], *t = &c->in[5], *u = &c->in[6];
    const bool lora = is_present(t);
    struct gemm logits = {.m = k->rows,
                          .n = k->vocab,
                          .k = x->dim[1],
                          .dtype = x->dtype,
                          .a = rows_of(k, x),
                          .lda = x->dim[1],
                          .b = w->data,
                          .ldb = x->dim[1],
                          .b_t = true,
                          .packed = w->packing ? w : NULL,
                          .c = k->q ? k->q : k->logits,
                          .ldc = k->vocab,
                          .c_dtype = F32,
                          .t = lora ? rows_of(k, t) : NULL,
                          .u = u->data,
                          .rank = lora ? t->dim[1] : 0,
                          .scale = 1};
    CPU_NAME(gemm)(&logits, scratch);
    if (c->in[9].data) {
        logits.a = rows_of(k, &c->in[9]), logits.c = k->logits, logits.t = NULL, logits.rank = 0;
        CPU_NAME(gemm)(&logits, scratch);
    }
    pool_run(k->rows, rows_task, (void *)k);
    if (!k->train) return;
    if (k->q) {
        rows_back(k, w, &c->out[5], scratch);
        pool_run((k->vocab + 15) / 16, magnitude_task, (void *)k);
    }
    rows_back(k, w, &c->out[1], scratch);
    if (lora) {
        rows_back(k, u, &c->out[2], scratch), weight_back(k, t, &c->out[3], scratch);
        return;
    }
    weight_back(k, x, &c->out[2], scratch);
    if (c->out[3].data) pool_run((k->vocab + 15) / 16, bias_task, (void *)k);
}

static int xent_run(const struct op_call *c, bool train, struct err *e) {
    if (targets_check(c, e)) return -1;
    const i64 rows = c->in[0].dim[0], vocab = c->in[1].dim[0], step = xent_rows(rows, vocab);
    const float cap = (float)((const struct xent_attr *)c->attr)->softcap;
    const i64 logits = round_up(step * vocab * (i64)sizeof(float), 64);
    float *q = is_present(&c->in[7]) ? (float *)((u8 *)c->scratch + logits) : NULL;
    u8 *packing = (u8 *)c->scratch + logits * (q ? 2 : 1);
    for (i64 first = 0; first < rows; first += step) {
        const struct chunk k = {c,     c->scratch, first, i64_min(step, rows - first),
                                vocab, train,      cap,   q};
        chunk_run(&k, packing);
    }
    return 0;
}
CPU_KERNEL(linear_xent) { return xent_run(c, false, e); }
CPU_KERNEL(linear_xent_train) { return xent_run(c, true, e); }
CPU_KERNEL(lora_xent) { return xent_run(c, false, e); }
CPU_KERNEL(lora_xent_train) { return xent_run(c, true, e); }
