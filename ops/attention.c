/* attention.c: softmax attention over documents, with caches, windows, grouped heads and softcap;
 * online as in FlashAttention-2 (Dao, 2023), so that no score matrix is ever whole.
 *
 * q [Nq, heads * head_dim], k and v [Nk, kv_heads * head_dim] in f32 or bf16; begin, last [Nq] i32:
 * query i sees the keys begin[i] <= j <= last[i], and with a window W > 0 only j > last[i] - W. In
 * training Nq = Nk and last[i] = i, and documents are runs of equal begin; in decoding k and v are
 * caches, and several sequences may sit in one. Head h uses kv head h / (heads / kv_heads).
 *   o   [Nq, heads * head_dim] = softmax(scores) · v;  lse [heads, Nq] f32 = log(sum(e^score))
 * A query that sees no key gives o = 0 and lse = -FLT_MAX.
 *
 * Definition, per query and head. Keys are counted from begin and go by blocks of KEY_BLOCK; in
 * bf16, pairs of keys too are counted from begin. m = -FLT_MAX, l = 0, o = 0, then per block:
 *   s_j = chain over d ascending from 0 (NUMERICS.md 2, 3); z = scale
 *         softcap c > 0: s_j = c * tanh((s_j * scale) * (1/c)), 1/c rounded to f32; z = 1
 *         [the place for ALiBi: + slope * (j - i); and for a sink: m and l start from it]
 *   m' = max(m, s_j * z of visible keys);  alpha = exp(m - m')
 *   p_j = exp(fma(s_j, z, -m')), masked keys 0
 *   l = fma(l, alpha, row sum of p_j by NUMERICS.md 7)
 *   o = chain over visible keys ascending from o * alpha, of p_j * v_j; in bf16 p_j is rounded
 * first and at the end o = (o + 0) / l, one rounding to the dtype, and lse = m + log(l). Blocks and
 * keys that are masked may be skipped or not: for finite inputs they add p_j = 0, which can only
 * turn -0 into 0, and the last + 0 does that for all. So the bits depend on what a query sees and
 * on nothing else: not on the queries beside it (a cached step equals the whole forward pass), on
 * the neighbours in a pack, or on how the work is cut.
 *
 * Gradients (training form). delta = row sum of do * o by fma; with s_j as above, and dp_j = chain
 * over d ascending from 0 of do * v_j:
 *   p_j = exp(fma(s_j, z, -lse));  ds_j = (p_j * (dp_j - delta)) * scale, with softcap (p_j * (dp_j
 * - delta)) * fma(-t, t, 1) * scale, t the tanh; in bf16 p_j and ds_j are rounded (ds from the
 *   unrounded p)
 *   dv_j = chain over heads of the group ascending, then queries ascending, of p * do
 *   dk_j = likewise of ds * q;  dq_i = chain over keys ascending of ds_j * k_j
 * in f32 from 0, + 0, one rounding; in bf16 pairs of queries and keys are counted from begin, per
 * head.
 *
 * Block sizes, measured on two Zen 5 cores (48 KiB L1, 1 MiB L2), 16 heads of 64, 1,024 tokens, by
 * a driver that timed builds with one size changed against each other, and is not kept; to measure
 * again, change one and run `hone bench attention attention_back`. KEY_BLOCK 32: forward 3 % (f32)
 * and 11 % (bf16) slower; 128: 1 to 3 % faster, but too large for the L1 of older cores.
 * FORWARD_ROWS 240 to 480: within 1 %; FORWARD_PANEL 24: 2 % over 48 (less waste on the diagonal),
 * 5 % over 96. BACK_KEYS 64: 3 % slower; 256: 1 % faster for twice the memory. BACK_QUERIES 32: 3 %
 * slower; 96: the same.
 *
 * Rejected: the score matrix as an operation of its own (memory), a bias tensor (heads * T * T),
 * splitting one query's keys between threads (a merge would be a second definition). */
#include "ops/attention_int.h"

#include <float.h>
#include <math.h>

struct attention attention_of(const struct op_call *c, int first, int begin) {
    const struct attention_attr *a = c->attr;
    const struct view *q = &c->in[first], *k = q + 1;
    return (struct attention){
        .call = c,
        .attr = a,
        .q = q->data,
        .k = k->data,
        .v = q[2].data,
        .begin = c->in[begin].data,
        .last = c->in[begin + 1].data,
        .queries = q->dim[0],
        .keys = k->dim[0],
        .heads = a->heads,
        .kv_heads = a->kv_heads,
        .group = a->heads / a->kv_heads,
        .head_dim = a->head_dim,
        .q_row = q->dim[1],
        .k_row = k->dim[1],
        .lanes = round_up(a->head_dim, 16),
        .scale = a->softcap > 0 ? 1 : (float)a->scale,
        .cap = (float)a->softcap,
        .cap_inverse = a->softcap > 0 ? (float)(1 / a->softcap) : 0,
    };
}

int attention_indexes(const struct attention *t, struct err *e) {
    for (i64 i = 0; i < t->queries; i++)
        if (t->begin[i] < 0 || t->begin[i] > t->keys || t->last[i] < -1 || t->last[i] >= t->keys)
            return err_failed(
                e, "operation %s: query %lld asks for keys %d to %d, and there are %lld",
                t->call->op->name, (long long)i, t->begin[i], t->last[i], (long long)t->keys);
    return 0;
}

/* ---- shapes: q, k, v from in[first], then whatever stands between, then begin and last ---- */

static int attention_shapes(struct op_call *c, int first, int begin, struct err *e) {
    const struct attention_attr *a = c->attr;
    if (a->heads < 1 || a->kv_heads < 1 || a->head_dim < 1 || a->heads % a->kv_heads)
        return err_failed(e, "operation %s: %lld heads of size %lld cannot share %lld kv heads",
                          c->op->name, (long long)a->heads, (long long)a->head_dim,
                          (long long)a->kv_heads);
    if (!(a->scale > 0) || a->window < 0 || !(a->softcap >= 0)) {
        err_failed(e, "operation %s: scale %g, window %lld, softcap %g", c->op->name, a->scale,
                   (long long)a->window, a->softcap);
        return err_detail(e, "expected a scale above 0, a window and a softcap of 0 or more");
    }
    const int k = first + 1;
    if (need_rank(c, first, 2, e) || need_float(c, first, e) ||
        need_dim(c, first, 1, a->heads * a->head_dim, e) || need_rank(c, k, 2, e) ||
        need_dtype(c, k, c->in[first].dtype, e) ||
        need_dim(c, k, 1, a->kv_heads * a->head_dim, e) || need_same(c, k + 1, k, e))
        return -1;
    for (int i = begin; i < begin + 2; i++)
        if (need_rank(c, i, 1, e) || need_dtype(c, i, I32, e) ||
            need_dim(c, i, 0, c->in[first].dim[0], e))
            return -1;
    return 0;
}

static enum dtype sum_dtype(const struct view *v) { return v->dtype == F64 ? F64 : F32; }

static int attention_shape(struct op_call *c, struct err *e) {
    const struct attention_attr *a = c->attr;
    if (attention_shapes(c, 0, 3, e)) return -1;
    set_out_like(c, 0, &c->in[0]);
    set_out(c, 1, sum_dtype(&c->in[0]), 2, (i64[]){a->heads, c->in[0].dim[0]});
    return 0;
}

static int attention_back_shape(struct op_call *c, struct err *e) {
    const struct attention_attr *a = c->attr;
    if (attention_shapes(c, 1, 6, e) || need_dim(c, 2, 0, c->in[1].dim[0], e) ||
        need_same(c, 0, 1, e) || need_same(c, 4, 1, e) || need_rank(c, 5, 2, e) ||
        need_dtype(c, 5, sum_dtype(&c->in[1]), e) || need_dim(c, 5, 0, a->heads, e) ||
        need_dim(c, 5, 1, c->in[1].dim[0], e))
        return -1;
    for (int i = 0; i < 3; i++) set_out_like(c, i, &c->in[1 + i]);
    return 0;
}

/* ---- scratch. The layouts are in attention_cpu.c and attention_back_cpu.c ---- */

i64 forward_units(const struct attention *t) {
    const i64 rows = forward_rows(t);
    return t->lanes * (2 * KEY_BLOCK + 16 + 2 * rows) + FORWARD_PANEL * KEY_BLOCK + 7 * rows;
}
static i64 attention_scratch(const struct op_call *c) {
    const struct attention t = attention_of(c, 0, 3);
    return pool_threads() * forward_units(&t) * 4;
}

i64 back_units(const struct attention *t) {
    return t->lanes * (5 * BACK_KEYS + 16 + 4 * BACK_QUERIES) + 3 * BACK_KEYS * BACK_QUERIES;
}
i64 back_slots(const struct attention *t) { return i64_min(pool_threads(), t->kv_heads); }
static i64 attention_back_scratch(const struct op_call *c) {
    const struct attention t = attention_of(c, 1, 6);
    return (pool_threads() * back_units(&t) + t.queries * t.group * t.lanes * back_slots(&t) +
            t.heads * t.queries) *
           4;
}

/* ---- references ---- */

/* One score, and the derivative of it by q·k. */
static double score(const struct attention *t, i64 i, i64 head, i64 j, double *slope) {
    const double *q = (const double *)t->q + i * t->q_row + head * t->head_dim,
                 *k = (const double *)t->k + j * t->k_row + head / t->group * t->head_dim;
    double s = 0, cap = t->attr->softcap;
    for (i64 d = 0; d < t->head_dim; d++) s += q[d] * k[d];
    s *= t->attr->scale;
    const double h = cap > 0 ? tanh(s / cap) : 0;
    *slope = t->attr->scale * (1 - h * h);
    return cap > 0 ? cap * h : s;
}

static void attention_ref(const struct op_call *c) {
    const struct attention t = attention_of(c, 0, 3);
    for (i64 n = 0; n < t.queries * t.heads; n++) {
        const i64 i = n / t.heads, head = n % t.heads, low = t.begin[i] + key_low(&t, i),
                  high = t.begin[i] + key_high(&t, i);
        double *o = (double *)c->out[0].data + n * t.head_dim, top = -FLT_MAX, sum = 0, slope;
        for (i64 j = low; j < high; j++) top = fmax(top, score(&t, i, head, j, &slope));
        for (i64 j = low; j < high; j++) sum += exp(score(&t, i, head, j, &slope) - top);
        for (i64 d = 0; d < t.head_dim; d++) o[d] = 0;
        for (i64 j = low; j < high; j++) {
            const double p = exp(score(&t, i, head, j, &slope) - top) / sum;
            for (i64 d = 0; d < t.head_dim; d++)
                o[d] += p * ((const double *)t.v)[j * t.k_row + head / t.group * t.head_dim + d];
        }
        ((double *)c->out[1].data)[head * t.queries + i] = high > low ? top + log(sum) : top;
    }
}

static void attention_back_ref(const struct op_call *c) {
    const struct attention t = attention_of(c, 1, 6);
    const double *q = t.q, *k = t.k, *v = t.v, *lse = c->in[5].data;
    double *dq = c->out[0].data, *dk = c->out[1].data, *dv = c->out[2].data;
    for (i64 i = 0; i < view_count(&c->out[0]); i++) dq[i] = 0;
    for (i64 i = 0; i < view_count(&c->out[1]); i++) dk[i] = dv[i] = 0;
    for (i64 n = 0; n < t.queries * t.heads; n++) {
        const i64 i = n / t.heads, head = n % t.heads;
        const double *dout = (const double *)c->in[0].data + n * t.head_dim,
                     *o = (const double *)c->in[4].data + n * t.head_dim;
        double delta = 0;
        for (i64 d = 0; d < t.head_dim; d++) delta += dout[d] * o[d];
        for (i64 j = t.begin[i] + key_low(&t, i); j < t.begin[i] + key_high(&t, i); j++) {
            const i64 at = j * t.k_row + head / t.group * t.head_dim;
            double slope, dp = 0;
            const double p = exp(score(&t, i, head, j, &slope) - lse[head * t.queries + i]);
            for (i64 d = 0; d < t.head_dim; d++) dp += dout[d] * v[at + d];
            for (i64 d = 0; d < t.head_dim; d++) {
                const double ds = p * (dp - delta) * slope;
                dv[at + d] += p * dout[d];
                dk[at + d] += ds * q[n * t.head_dim + d];
                dq[n * t.head_dim + d] += ds * k[at + d];
            }
        }
    }
}

/* Visible pairs only. */
static double pair_count(const struct attention *t) {
    double pairs = 0;
    for (i64 i = 0; i < t->queries; i++)
        pairs += (double)i64_max(0, key_high(t, i) - key_low(t, i));
    return pairs * (double)(t->heads * t->head_dim);
}
static double attention_flops(const struct op_call *c) {
    const struct attention t = attention_of(c, 0, 3);
    return 4 * pair_count(&t);
}
static double attention_back_flops(const struct op_call *c) {
    const struct attention t = attention_of(c, 1, 6);
    return 10 * pair_count(&t);
}

/* ---- samples ---- */

static void one_document(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = 0;
}
static void documents_of_512(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)(i / 512 * 512);
}
static void several_documents(void *data, const struct view *v) { /* lengths 1, 2, 3, ... 7, rest */
    i32 begin = 0, length = 1;
    for (i32 i = 0; i < v->dim[0]; i++) {
        if (i == begin + length && length < 7) begin = i, length++;
        ((i32 *)data)[i] = begin;
    }
}
static void last_self(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)i;
}
/* Three sequences in a cache of 200 rows; query 2 follows query 1; the last one sees nothing. */
static void cached_begin(void *data, const struct view *v) {
    static const i32 begin[] = {0, 70, 70, 100, 5};
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = begin[i % COUNT(begin)];
}
static void cached_last(void *data, const struct view *v) {
    static const i32 last[] = {69, 77, 78, 199, 4};
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = last[i % COUNT(last)];
}

struct attention_sample {
    i64 queries, keys; /* keys 0: as many, the training form */
    struct attention_attr attr;
    void (*begin)(void *, const struct view *);
    bool bench;
};
static const struct attention_sample attention_samples[] = {
    {1, 0, {1, 1, 8, 0.35, 0, 0}, one_document, false},
    {5, 0, {2, 1, 3, 0.6, 0, 0}, one_document, false},
    {70, 0, {2, 2, 20, 0.22, 0, 0}, one_document, false},
    {37, 0, {4, 1, 16, 0.25, 0, 0}, several_documents, false},
    {150, 0, {2, 1, 64, 0.125, 0, 0}, one_document, false},
    {45, 0, {4, 2, 8, 0.35, 7, 0}, several_documents, false},
    {140, 0, {1, 1, 16, 0.25, 33, 0}, one_document, false},
    {30, 0, {2, 2, 128, 0.09, 0, 0}, several_documents, false},
    {40, 0, {2, 1, 24, 0.5, 0, 2}, several_documents, false},
    {5, 200, {4, 2, 33, 0.3, 0, 0}, cached_begin, false},
    {5, 200, {2, 2, 16, 0.3, 20, 1.5}, cached_begin, false},
    {1024, 0, {16, 16, 64, 0.125, 0, 0}, one_document, true},
    {2048, 0, {12, 12, 64, 0.125, 0, 0}, documents_of_512, true},
    {2048, 0, {32, 8, 128, 0.088, 0, 0}, one_document, true},
};

static void sample_indexes(struct sample_in *in, const struct attention_sample *a) {
    for (int i = 0; i < 2; i++) {
        sample_int(&in[i], 0, 1, DIMS(a->queries));
        in[i].fill = FILL_CUSTOM;
    }
    in[0].custom = a->begin, in[1].custom = a->keys ? cached_last : last_self;
}

static bool attention_sample(int index, struct sample *s) {
    if (index >= COUNT(attention_samples)) return false;
    const struct attention_sample *a = &attention_samples[index];
    const i64 keys = a->keys ? a->keys : a->queries;
    *(struct attention_attr *)s->attr = a->attr;
    sample_float(&s->in[0], -2, 2, DIMS(a->queries, a->attr.heads * a->attr.head_dim));
    for (int i = 1; i < 3; i++)
        sample_float(&s->in[i], -2, 2, DIMS(keys, a->attr.kv_heads * a->attr.head_dim));
    sample_indexes(&s->in[3], a);
    s->bench = a->bench, s->no_gradient_check = a->keys > 0;
    return true;
}

/* Any lse will do for a test of the formula; these keep p near 1. */
static bool attention_back_sample(int index, struct sample *s) {
    int n = -1;
    const struct attention_sample *a = attention_samples;
    for (; a < attention_samples + COUNT(attention_samples); a++)
        if (!a->keys && ++n == index) break;
    if (n < index) return false;
    const i64 width = a->attr.heads * a->attr.head_dim;
    *(struct attention_attr *)s->attr = a->attr;
    sample_float(&s->in[0], -1, 1, DIMS(a->queries, width));
    sample_float(&s->in[1], -1, 1, DIMS(a->queries, width));
    for (int i = 2; i < 4; i++)
        sample_float(&s->in[i], -1, 1, DIMS(a->queries, a->attr.kv_heads * a->attr.head_dim));
    sample_float(&s->in[4], -1, 1, DIMS(a->queries, width));
    sample_f32(&s->in[5], 1, 3, DIMS(a->attr.heads, a->queries));
    sample_indexes(&s->in[6], a);
    s->bench = a->bench;
    return true;
}

const struct op op_attention = {
    .name = "attention",
    .in = "q k v begin last",
    .out = "o lse",
    .attr_size = sizeof(struct attention_attr),
    .shape = attention_shape,
    .grad = {{"attention_back", "do q k v o lse begin last", "dq dk dv"}},
    .ref = attention_ref,
    .scratch = attention_scratch,
    .cpu = CPU(attention),
    .sample = attention_sample,
    .bound = {32, 4},
    .flops = attention_flops,
};
const struct op op_attention_back = {
    .name = "attention_back",
    .in = "do q k v o lse begin last",
    .out = "dq dk dv",
    .attr_size = sizeof(struct attention_attr),
    .shape = attention_back_shape,
    .ref = attention_back_ref,
    .scratch = attention_back_scratch,
    .cpu = CPU(attention_back),
    .sample = attention_back_sample,
    .bound = {32, 4},
    .flops = attention_back_flops,
};
