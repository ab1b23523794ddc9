/* route_cpu.c: a row of scores at a time; formulas and order of sums in route.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

#include <string.h>

enum { ROOM = ROUTE_EXPERTS + 16 };

/* The largest of key[begin, end) that is not taken; the first of equals. */
static i64 best_of(const float *key, const bool *taken, i64 begin, i64 end) {
    i64 best = -1;
    for (i64 i = begin; i < end; i++)
        if (!taken[i] && (best < 0 || key[i] > key[best])) best = i;
    return best;
}

static void groups_mask(const struct route_attr *a, i64 experts, float *key) {
    float score[ROUTE_GROUPS];
    bool taken[ROUTE_EXPERTS] = {0}, kept[ROUTE_GROUPS] = {0};
    const i64 size = experts / a->groups;
    for (i64 g = 0; g < a->groups; g++) {
        const i64 first = best_of(key, taken, g * size, (g + 1) * size);
        score[g] = key[first], taken[first] = true;
        const i64 second = best_of(key, taken, g * size, (g + 1) * size);
        if (a->score == ROUTE_SIGMOID && second >= 0) score[g] += key[second];
    }
    for (i64 n = 0; n < a->top_groups; n++) kept[best_of(score, kept, 0, a->groups)] = true;
    for (i64 i = 0; i < experts; i++)
        if (!kept[i / size]) key[i] = -__builtin_inff();
}

/* One row's logits as f32, -inf up to the next multiple of 16. */
static void row_load(float *x, const struct view *logits, i64 n) {
    const i64 experts = logits->dim[1];
    for (i64 i = 0; i < experts; i += 16)
        v16_store(x + i,
                  v16_get_n(logits->data, n * experts + i, experts - i, view_is_bf16(logits)));
    for (i64 i = experts; i < round_up(experts, 16); i++) x[i] = -__builtin_inff();
}
/* p = exp(x - max) / sum over all experts; p has room for whole vectors. */
static void softmax_row(float *p, const float *x, i64 experts) {
    v16 top = v16_set(-__builtin_inff()), sum = v16_set(0);
    for (i64 i = 0; i < experts; i += 16) top = v16_max(top, v16_load(x + i));
    const v16 max = v16_set(v16_top(top));
    for (i64 i = 0; i < experts; i += 16) {
        const v16 e = v16_exp(v16_sub(v16_load(x + i), max));
        v16_store(p + i, e), sum = v16_add(sum, e);
    }
    const v16 by = v16_set(v16_sum(sum));
    for (i64 i = 0; i < experts; i += 16) v16_store(p + i, v16_div(v16_load(p + i), by));
}
/* The token's term of the balancing loss; p as above. */
static float balance_row(float *p, const float *x, const float *balance, i64 experts) {
    v16 sum = v16_set(0);
    softmax_row(p, x, experts);
    for (i64 i = 0; i < experts; i += 16)
        sum = v16_fma(v16_load(p + i), v16_load_n(balance + i, experts - i), sum);
    return v16_sum(sum);
}
static void sigmoid_row(float *s, const float *x, i64 experts) {
    for (i64 i = 0; i < experts; i += 16) v16_store(s + i, v16_sigmoid(v16_load(x + i)));
}

/* The weights of the chosen before scale, in w; what they were divided by. x: logits of the row, p:
 * room. */
static float weights_row(const struct route_attr *a, const float *x, const i32 *index, i64 experts,
                         float *w, float *p) {
    const bool sigmoids = a->score == ROUTE_SIGMOID;
    float sum = 0;
    if (sigmoids)
        sigmoid_row(p, x, experts);
    else if (!a->renorm)
        softmax_row(p, x, experts);
    if (sigmoids || !a->renorm)
        for (i64 s = 0; s < a->top_k; s++) w[s] = p[index[s]];
    else {
        for (i64 s = 0; s < a->top_k; s++) w[s] = x[index[s]] - x[index[0]];
        for (i64 s = 0; s < a->top_k; s += 16)
            v16_store_n(w + s, v16_exp(v16_load_n(w + s, a->top_k - s)), a->top_k - s);
    }
    if (!a->renorm) return 1;
    for (i64 s = 0; s < a->top_k; s++) sum += w[s];
    if (sigmoids) sum += 1e-20f;
    for (i64 s = 0; s < a->top_k; s++) w[s] /= sum;
    return sum;
}

static void route_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct route_attr *a = c->attr;
    const i64 experts = c->in[0].dim[1];
    const float *bias = c->in[1].data, scale = (float)a->scale;
    for (i64 n = begin; n < end; n++) {
        float x[ROOM], key[ROOM], *w = (float *)c->out[0].data + n * a->top_k;
        bool taken[ROUTE_EXPERTS] = {0};
        i32 *index = (i32 *)c->out[1].data + n * a->top_k;
        row_load(x, &c->in[0], n);
        if (a->score == ROUTE_SIGMOID)
            sigmoid_row(key, x, experts);
        else
            memcpy(key, x, sizeof *x * (size_t)experts);
        for (i64 i = 0; i < experts; i++) {
            if (bias) key[i] += bias[i];
            if (key[i] != key[i]) key[i] = -__builtin_inff();
        }
        if (a->groups > 1) groups_mask(a, experts, key);
        for (i64 s = 0; s < a->top_k; s++) {
            const i64 i = best_of(key, taken, 0, experts);
            taken[i] = true, index[s] = (i32)i;
        }
        weights_row(a, x, index, experts, w, key);
        for (i64 s = 0; s < a->top_k; s++) w[s] *= scale;
        if (c->in[2].data)
            ((float *)c->out[2].data)[n] = balance_row(key, x, c->in[2].data, experts);
    }
}
CPU_KERNEL(route) { return (void)e, pool_run(c->in[0].dim[0], route_rows, (void *)c), 0; }

static void back_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct route_attr *a = c->attr;
    const i64 experts = c->in[1].dim[1];
    const bool is_bf16 = view_is_bf16(&c->in[1]), sigmoids = a->score == ROUTE_SIGMOID;
    for (i64 n = begin; n < end; n++) {
        const float *given = (const float *)c->in[0].data + n * a->top_k;
        const i32 *index = (const i32 *)c->in[2].data + n * a->top_k;
        float x[ROOM], p[ROOM], dl[ROOM] = {0}, g[ROUTE_SLOTS], w[ROUTE_SLOTS], dot = 0;
        row_load(x, &c->in[1], n);
        const float by = weights_row(a, x, index, experts, w, p);
        for (i64 s = 0; s < a->top_k; s++) {
            g[s] = (float)a->scale * given[s];
            if (!sigmoids || a->renorm) dot = f32_fma(w[s], g[s], dot);
        }
        if (!sigmoids && !a->renorm)
            for (i64 i = 0; i < experts; i += 16)
                v16_store(dl + i, v16_mul(v16_load(p + i), v16_set(0.0f - dot)));
        for (i64 s = 0; s < a->top_k; s++) {
            const float h = g[s] - dot, y = sigmoids ? p[index[s]] : 0;
            dl[index[s]] = sigmoids ? (a->renorm ? h / by : h) * (y * (1 - y)) : w[s] * h;
        }
        const float *balance = c->in[4].data, *dterm = c->in[3].data;
        const float term = balance ? balance_row(p, x, balance, experts) : 0;
        for (i64 i = 0; balance && i < experts; i += 16) {
            const v16 apart = v16_sub(v16_load_n(balance + i, experts - i), v16_set(term));
            v16_store(dl + i, v16_fma(v16_set(dterm[n]), v16_mul(v16_load(p + i), apart),
                                      v16_load(dl + i)));
        }
        for (i64 i = 0; i < experts; i += 16)
            v16_put_n(c->out[0].data, n * experts + i, v16_load(dl + i), experts - i, is_bf16);
    }
}
CPU_KERNEL(route_back) { return (void)e, pool_run(c->in[1].dim[0], back_rows, (void *)c), 0; }

CPU_KERNEL(expert_plan) { return (void)e, expert_plan_run(c), 0; }
