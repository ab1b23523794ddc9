/* attention_define.c: see attention_define.h. */
#define ISA plain
#define ISA_IS_plain
#include "base/v16.h"
#include "tests/unit/ops/attention_define.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 };

float get(const struct view *v, i64 i) {
    return v->dtype == BF16 ? bf16_to_f32(((u16 *)v->data)[i]) : ((float *)v->data)[i];
}
static void put(struct view *v, i64 i, float x) {
    if (v->dtype == BF16)
        ((u16 *)v->data)[i] = bf16_of_f32(x);
    else
        ((float *)v->data)[i] = x;
}

void view_make(struct view *v, enum dtype d, int rank, i64 rows, i64 cols, u32 stream) {
    *v = (struct view){.dtype = d, .rank = rank, .dim = {rows, rank > 1 ? cols : 0}};
    v->data = calloc((size_t)view_count(v) + 1, 4);
    const struct rng r = {3, RNG_TEST, 0, stream};
    for (i64 i = 0; d != I32 && i < view_count(v); i++) put(v, i, 4 * rng_uniform(&r, (u64)i) - 2);
}

struct problem problem_make(struct attention_attr a, enum dtype d, i64 queries, i64 keys,
                            i64 document) {
    struct problem p = {.attr = a};
    static const int rows[] = {DO, Q, K, V, O, DQ, DK, DV};
    for (int n = 0; n < COUNT(rows); n++) {
        const int i = rows[n];
        const bool key = i == K || i == V || i == DK || i == DV;
        const bool value = i == DO || i == V || i == O || i == DV;
        view_make(&p.view[i], d, 2, key ? keys : queries,
                  (key ? a.kv_heads : a.heads) * (value ? value_dim(&p) : a.head_dim), (u32)i);
    }
    view_make(&p.view[LSE], F32, 2, a.heads, queries, 0);
    view_make(&p.view[BEGIN], I32, 1, queries, 0, 0);
    view_make(&p.view[LAST], I32, 1, queries, 0, 0);
    for (i32 i = 0; i < queries; i++) {
        ints(&p.view[BEGIN])[i] = (i32)(i / document * document);
        ints(&p.view[LAST])[i] = i;
    }
    return p;
}
void problem_extend(struct problem *p, int sinks, bool slopes) {
    if (sinks) {
        view_make(&p->view[SINKS], sinks == 2 ? F32 : p->view[Q].dtype, 1, p->attr.heads, 0, SINKS);
        view_make(&p->view[DSINK], F32, 1, p->attr.heads, 0, DSINK);
    }
    if (!slopes) return;
    view_make(&p->view[SLOPES], F32, 1, p->attr.heads, 0, 0);
    alibi_slopes(p->view[SLOPES].data, p->attr.heads);
}
void problem_free(struct problem *p) {
    for (int i = 0; i < VIEWS; i++) free(p->view[i].data);
}

/* ---- the definition ---- */

/* acc + sum of a[k] * b[k] as a chain; in bf16 by pairs, the odd one first. n <= the buffers' 1024
 */
static float chain(float acc, const float *a, const float *b, i64 n, bool is_bf16) {
    if (!is_bf16)
        for (i64 k = 0; k < n; k++) acc = f32_fma(a[k], b[k], acc);
    for (i64 k = 0; is_bf16 && k < n; k += 2) {
        if (k + 1 < n) acc = f32_fma(a[k + 1], b[k + 1], acc);
        acc = f32_fma(a[k], b[k], acc);
    }
    return acc;
}
static float exp1(float x) {
    float y[16];
    v16_store(y, v16_exp(v16_set(x)));
    return y[0];
}
static float tanh1(float x) {
    float y[16];
    v16_store(y, v16_tanh(v16_set(x)));
    return y[0];
}
static float log1(float x) {
    float y[16];
    v16_store(y, v16_log(v16_set(x)));
    return y[0];
}
static float row_sum(const float *x, i64 n) {
    v16 sum = v16_set(0);
    for (i64 i = 0; i < n; i += 16) sum = v16_add(sum, v16_load_n(x + i, n - i));
    return v16_sum(sum);
}
static float rounded(float x, bool is_bf16) { return is_bf16 ? bf16_to_f32(bf16_of_f32(x)) : x; }

struct at {
    const struct problem *p;
    bool is_bf16;
    i64 dim, values, begin, high, low; /* visible keys from begin */
};
static struct at at_query(const struct problem *p, i64 i) {
    const i64 begin = ints(&p->view[BEGIN])[i], high = ints(&p->view[LAST])[i] + 1 - begin;
    const i64 low = p->attr.window ? i64_max(0, high - p->attr.window) : 0;
    return (struct at){p,  p->view[Q].dtype == BF16, p->attr.head_dim, value_dim(p), begin, high,
                       low};
}
static void row_get(float *to, const struct view *v, i64 row, i64 head, i64 dim) {
    for (i64 d = 0; d < dim; d++) to[d] = get(v, row * v->dim[1] + head * dim + d);
}
static i64 kv_head(const struct problem *p, i64 head) {
    return head / (p->attr.heads / p->attr.kv_heads);
}
static float score_scale(const struct problem *p) {
    return p->attr.softcap > 0 ? 1 : (float)p->attr.scale;
}
static float score(const struct problem *p, i64 i, i64 head, i64 key, float *h) {
    float q[256], k[256];
    row_get(q, &p->view[Q], i, head, p->attr.head_dim);
    row_get(k, &p->view[K], key, kv_head(p, head), p->attr.head_dim);
    float s = chain(0, q, k, p->attr.head_dim, p->view[Q].dtype == BF16);
    const float slope = p->view[SLOPES].rank ? get(&p->view[SLOPES], head) : 0;
    const bool linear = p->view[SLOPES].rank && !p->attr.alibi_bf16;
    if (p->view[SLOPES].rank && p->attr.alibi_bf16)
        s += rounded(rounded(slope, true) * rounded((float)(key - ints(&p->view[BEGIN])[i]), true),
                     true);
    if (p->attr.softcap > 0) {
        *h = tanh1(s * (float)p->attr.scale * (float)(1 / p->attr.softcap));
        s = *h * (float)p->attr.softcap;
    }
    const float place = (float)(key - ints(&p->view[LAST])[i]);
    return linear ? f32_fma(slope / score_scale(p), place, s) : s;
}

void define_forward(struct problem *p) {
    for (i64 i = 0; i < p->view[Q].dim[0]; i++)
        for (i64 head = 0; head < p->attr.heads; head++) {
            const struct at x = at_query(p, i);
            const float z = score_scale(p);
            const bool sink = p->view[SINKS].rank > 0;
            float m = sink ? get(&p->view[SINKS], head) : -FLT_MAX, l = sink ? 1 : 0, o[256] = {0},
                  h;
            for (i64 at = 0; at < x.high; at += BLOCK) { /* no block is skipped */
                float s[BLOCK], pr[BLOCK] = {0}, was = m, v[256], column[BLOCK];
                for (i64 j = 0; j < BLOCK; j++)
                    if (at + j >= x.low && at + j < x.high)
                        s[j] = score(p, i, head, x.begin + at + j, &h), m = fmaxf(m, s[j] * z);
                for (i64 j = 0; j < BLOCK; j++)
                    if (at + j >= x.low && at + j < x.high) pr[j] = exp1(f32_fma(s[j], z, -m));
                const float alpha = exp1(was - m);
                l = f32_fma(l, alpha, row_sum(pr, BLOCK));
                for (i64 d = 0; d < x.values; d++) {
                    for (i64 j = 0; j < BLOCK; j++) {
                        column[j] = 0;
                        if (at + j >= x.high) continue;
                        row_get(v, &p->view[V], x.begin + at + j, kv_head(p, head), x.values);
                        column[j] = v[d];
                    }
                    float w[BLOCK];
                    for (i64 j = 0; j < BLOCK; j++) w[j] = rounded(pr[j], x.is_bf16);
                    o[d] = chain(o[d] * alpha, w, column, BLOCK, x.is_bf16);
                }
            }
            for (i64 d = 0; d < x.values; d++)
                put(&p->view[O], i * p->view[O].dim[1] + head * x.values + d,
                    l > 0 ? (o[d] + 0) / l : 0);
            put(&p->view[LSE], head * p->view[Q].dim[0] + i, l > 0 ? m + log1(l) : -FLT_MAX);
        }
}

/* Row sum of do * o. */
static float define_delta(const struct problem *p, i64 i, i64 head) {
    const i64 dim = value_dim(p);
    float dout[256], o[256];
    v16 sum = v16_set(0);
    row_get(dout, &p->view[DO], i, head, dim), row_get(o, &p->view[O], i, head, dim);
    for (i64 d = 0; d < dim; d += 16)
        sum = v16_fma(v16_load_n(dout + d, dim - d), v16_load_n(o + d, dim - d), sum);
    return v16_sum(sum);
}
static void define_sinks(struct problem *p) {
    const i64 n = p->view[Q].dim[0];
    for (i64 head = 0; head < p->attr.heads; head++) {
        float sum = 0;
        for (i64 i = 0; i < n; i++) {
            const float lse = get(&p->view[LSE], head * n + i);
            sum += -exp1(get(&p->view[SINKS], head) - lse) * define_delta(p, i, head);
        }
        put(&p->view[DSINK], head, sum);
    }
}

/* p and ds of all pairs of one head, [query][key], unrounded p too small to matter elsewhere */
static void define_pairs(const struct problem *p, i64 head, float *prob, float *ds) {
    const i64 n = p->view[Q].dim[0];
    for (i64 i = 0; i < n; i++) {
        const struct at x = at_query(p, i);
        float dout[256], v[256], h = 0;
        row_get(dout, &p->view[DO], i, head, x.values);
        for (i64 j = 0; j < n; j++) prob[i * n + j] = ds[i * n + j] = 0;
        for (i64 j = x.begin + x.low; j < x.begin + x.high; j++) {
            const float s = score(p, i, head, j, &h);
            const float e = exp1(f32_fma(s, score_scale(p), -get(&p->view[LSE], head * n + i)));
            row_get(v, &p->view[V], j, kv_head(p, head), x.values);
            float g = e * (chain(0, dout, v, x.values, x.is_bf16) - define_delta(p, i, head));
            if (p->attr.softcap > 0) g *= f32_fma(-h, h, 1);
            prob[i * n + j] = rounded(e, x.is_bf16);
            ds[i * n + j] = rounded(g * (float)p->attr.scale, x.is_bf16);
        }
    }
}

/* A column (or row) of weights times a column of x, from begin to the document's end. */
static float weighted(float acc, const float *w, i64 step, const struct view *x, i64 column,
                      i64 begin, i64 count, bool is_bf16) {
    float a[1024], b[1024];
    for (i64 i = 0; i < count; i++) {
        a[i] = w[(begin + i) * step];
        b[i] = get(x, (begin + i) * x->dim[1] + column);
    }
    return chain(acc, a, b, count, is_bf16);
}
void define_backward(struct problem *p) {
    const i64 n = p->view[Q].dim[0], dim = p->attr.head_dim, values = value_dim(p), pairs = n * n;
    const bool is_bf16 = p->view[Q].dtype == BF16;
    float *prob = calloc((size_t)(p->attr.heads * pairs), 4),
          *ds = calloc((size_t)(p->attr.heads * pairs), 4);
    for (i64 h = 0; h < p->attr.heads; h++) define_pairs(p, h, prob + h * pairs, ds + h * pairs);
    const i64 group = p->attr.heads / p->attr.kv_heads;
    for (i64 j = 0; j < n; j++) {
        const i64 begin = ints(&p->view[BEGIN])[j];
        i64 end = j;
        while (end < n && ints(&p->view[BEGIN])[end] == begin) end++;
        for (i64 c = 0; c < p->attr.heads * dim; c++) {
            const float dq =
                weighted(0, ds + c / dim * pairs + j * n, 1, &p->view[K],
                         kv_head(p, c / dim) * dim + c % dim, begin, end - begin, is_bf16);
            put(&p->view[DQ], j * p->attr.heads * dim + c, dq + 0);
        }
        for (i64 c = 0; c < p->attr.kv_heads * dim; c++) {
            float dk = 0;
            for (i64 h = c / dim * group; h < (c / dim + 1) * group; h++)
                dk = weighted(dk, ds + h * pairs + j, n, &p->view[Q], h * dim + c % dim, begin,
                              end - begin, is_bf16);
            put(&p->view[DK], j * p->attr.kv_heads * dim + c, dk + 0);
        }
        for (i64 c = 0; c < p->attr.kv_heads * values; c++) {
            float dv = 0;
            for (i64 h = c / values * group; h < (c / values + 1) * group; h++)
                dv = weighted(dv, prob + h * pairs + j, n, &p->view[DO], h * values + c % values,
                              begin, end - begin, is_bf16);
            put(&p->view[DV], j * p->attr.kv_heads * values + c, dv + 0);
        }
    }
    if (p->view[SINKS].rank) define_sinks(p);
    free(prob), free(ds);
}
