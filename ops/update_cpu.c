/* update_cpu.c: one pass over gradient, masters (or bf16 parameters) and moments; formulas in
 * update.c. Random words come from the plain generator: a step of training is a thousand times the
 * work. */
#include "base/v16.h"
#include "ops/ops_int.h"

enum { CHUNK = 4096 };

V16_FN u16 bf16_at_random(float x, u32 word) {
    union {
        float f;
        u32 u;
    } w = {.f = x};
    return (w.u & 0x7f800000u) == 0x7f800000u ? bf16_of_f32(x) : (u16)((w.u + (word >> 16)) >> 16);
}
/* The first n of 16 elements from i on, a multiple of 4. */
V16_FN void put_at_random(u16 *param, i64 i, v16 w, i64 n, const struct rng *r) {
    float x[16];
    u32 word[16];
    v16_store(x, w);
    for (int k = 0; k < 16; k += 4) rng_block(r, (u64)(i + k) / 4, word + k);
    for (int k = 0; k < 16 && k < n; k++) param[i + k] = bf16_at_random(x[k], word[k]);
}

/* `stochastic`: without masters. The rule is asked for each 16 elements, which memory hides. */
V16_FN void update_span(const struct op_call *c, i64 begin, i64 end, bool is_bf16,
                        bool stochastic) {
    const struct update_attr *a = c->attr;
    const enum update_rule rule = a->rule;
    const float *grad = c->in[0].data, *hyper = c->in[1].data;
    float *m = c->out[1].data, *v = c->out[2].data, *x = c->out[4].data;
    void *weight = c->out[stochastic ? 3 : 0].data; /* where the update reads it */
    const struct rng rng = {a->seed, RNG_ROUND, stochastic ? *(u32 *)c->in[2].data : 0, a->stream};
    const v16 scale = v16_set(hyper[0]), decay = v16_set(hyper[1]), rate = v16_set(-hyper[2]),
              own = v16_set(hyper[3]), l2 = v16_set(hyper[4]), most = v16_set(hyper[5]),
              least = v16_set(-hyper[5]);
    const v16 b1 = v16_set((float)a->beta1), c1 = v16_set((float)(1 - a->beta1)),
              b2 = v16_set((float)a->beta2), c2 = v16_set((float)(1 - a->beta2)),
              eps = v16_set((float)a->eps), zero = v16_set(0), one = v16_set(1);
    for (i64 i = begin; i < end; i += 16) {
        const i64 n = end - i;
        const v16 old = v16_get_n(weight, i, n, stochastic);
        v16 g = v16_max(least, v16_min(most, v16_mul(v16_load_n(grad + i, n), scale))), step;
        if (rule != UPDATE_ADAMW && rule != UPDATE_LION) g = v16_fma(l2, old, g);
        if (rule == UPDATE_ADAGRAD) {
            const v16 v1 = v16_fma(g, g, v16_load_n(v + i, n));
            step = v16_div(g, v16_add(v16_sqrt(v1), eps));
            v16_store_n(v + i, v1, n);
        } else if (rule == UPDATE_RMSPROP) {
            v16 v1 = v16_fma(b2, v16_load_n(v + i, n), v16_mul(v16_mul(c2, g), g));
            v16_store_n(v + i, v1, n);
            if (x) {
                const v16 mean = v16_fma(b2, v16_load_n(x + i, n), v16_mul(c2, g));
                v1 = v16_max(v16_fma(v16_sub(zero, mean), mean, v1), zero);
                v16_store_n(x + i, mean, n);
            }
            step = v16_div(g, v16_add(v16_sqrt(v1), eps));
            if (m) v16_store_n(m + i, step = v16_fma(b1, v16_load_n(m + i, n), step), n);
        } else if (rule == UPDATE_ADAMW || rule == UPDATE_ADAM) {
            const v16 m1 = v16_fma(b1, v16_load_n(m + i, n), v16_mul(c1, g));
            v16 v1 = v16_fma(b2, v16_load_n(v + i, n), v16_mul(v16_mul(c2, g), g));
            v16_store_n(m + i, m1, n), v16_store_n(v + i, v1, n);
            if (x) v16_store_n(x + i, v1 = v16_max(v16_load_n(x + i, n), v1), n);
            step = v16_div(m1, v16_fma(v16_sqrt(v1), own, eps));
        } else if (rule == UPDATE_LION) {
            const v16 m0 = v16_load_n(m + i, n), s = v16_fma(b1, m0, v16_mul(c1, g));
            step = v16_select(v16_lt(zero, s), one, v16_select(v16_lt(s, zero), v16_set(-1), zero));
            v16_store_n(m + i, v16_fma(b2, m0, v16_mul(c2, g)), n);
        } else {
            step = g;
            if (m) {
                step = v16_fma(b1, v16_load_n(m + i, n), v16_mul(own, g));
                v16_store_n(m + i, step, n);
                if (a->nesterov) step = v16_fma(b1, step, g);
            }
        }
        const v16 w = v16_fma(rate, step, v16_mul(old, decay));
        if (stochastic)
            put_at_random(weight, i, w, n, &rng);
        else
            v16_put_n(weight, i, w, n, false);
        if (!stochastic && c->out[3].data) v16_put_n(c->out[3].data, i, w, n, is_bf16);
    }
}
static void update_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const i64 first = begin * CHUNK, last = i64_min(end * CHUNK, view_count(&c->in[0]));
    if (!c->out[0].data)
        update_span(c, first, last, true, true);
    else if (view_is_bf16(&c->out[3]))
        update_span(c, first, last, true, false);
    else
        update_span(c, first, last, false, false);
}
CPU_KERNEL(update) {
    return (void)e, pool_run((view_count(&c->in[0]) + CHUNK - 1) / CHUNK, update_task, (void *)c),
           0;
}

static void square_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    for (i64 chunk = begin; chunk < end; chunk++) {
        const i64 last = i64_min((chunk + 1) * CHUNK, view_count(&c->in[0]));
        v16 sum = v16_set(0);
        for (i64 i = chunk * CHUNK; i < last; i += 16) {
            const v16 a = v16_get_n(c->in[0].data, i, last - i, is_bf16);
            sum = v16_fma(a, a, sum);
        }
        ((float *)c->scratch)[chunk] = v16_sum(sum);
    }
}
CPU_KERNEL(square_sum) {
    (void)e;
    const i64 chunks = (view_count(&c->in[0]) + CHUNK - 1) / CHUNK;
    pool_run(chunks, square_task, (void *)c);
    double sum = 0;
    for (i64 i = 0; i < chunks; i++) sum += (double)((float *)c->scratch)[i];
    *(double *)c->out[0].data = sum;
    return 0;
}
