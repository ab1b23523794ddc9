/* attention.c: softmax attention over documents, with caches, windows, grouped heads, softcap,
 * sinks and ALiBi; online as in FlashAttention-2 (Dao, 2023), so that no score matrix is ever
 * whole.
 *
 * q [Nq, heads * head_dim], k [Nk, kv_heads * head_dim], v [Nk, kv_heads * value_dim] in f32 or
 * bf16; begin, last [Nq] i32: query i sees the keys begin[i] <= j <= last[i], and with a window W >
 * 0 only j > last[i] - W. In training Nq = Nk and last[i] = i, and documents are runs of equal
 * begin; in decoding k and v are caches, and several sequences may sit in one. Attention in chunks
 * is begin = the later of the document's and the chunk's first key. Head h uses kv head h / (heads
 * / kv_heads). sink [heads], in q's dtype or f32: one more score of each head, without a key.
 * slopes [heads] f32, a constant: ALiBi.
 *
 * With pages [sequences, P] i32 and sequence [Nq] i32 (decoding; there is no gradient) a cache is
 * cut into pages of ATTENTION_PAGE rows, and begin and last are places in the query's own sequence
 * s: its key at place p is row pages[s][p / ATTENTION_PAGE] * ATTENTION_PAGE + p % ATTENTION_PAGE
 * of k and v. begin must be a multiple of KEY_BLOCK, so that a block of keys lies in one page.
 * Where rows lie is no part of the definition: the bits are those of the same keys in neighbouring
 * rows.
 *
 *   o   [Nq, heads * value_dim] = softmax(scores) · v;  lse [heads, Nq] f32 = log(sum(e^score))
 * A query that sees no key gives o = 0 and lse = the sink, or -FLT_MAX without.
 *
 * Definition, per query and head. Keys are counted from begin and go by blocks of KEY_BLOCK; in
 * bf16, pairs of keys too are counted from begin. m = -FLT_MAX, l = 0, o = 0; with a sink m = sink
 * + 0, l = 1; then per block:
 *   s_j = chain over d ascending from 0 (NUMERICS.md 2, 3); z = scale
 *         alibi_bf16: s_j = s_j + r(r(slope) * r(j - begin)), r rounds to bf16 (Falcon-RW, whose
 *         bias is scaled with the score and has exactly these roundings in training)
 *         softcap c > 0: s_j = c * tanh((s_j * scale) * (1/c)), 1/c rounded to f32; z = 1
 *         other slopes: s_j = fma(slope / z, j - last, s_j) (BLOOM: + slope * j after the scale;
 *         counted from the query, which changes all scores of a softmax alike, the bias is small
 *         where its sum has weight, and so are the errors; a sink is the score of a key at last)
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
 * Gradients (training form; a sink is in lse; its own: sink.c). delta = row sum of do * o by fma;
 * with s_j as above, and dp_j = chain
 * over d ascending from 0 of do * v_j:
 *   p_j = exp(fma(s_j, z, -lse));  ds_j = (p_j * (dp_j - delta)) * scale, with softcap (p_j * (dp_j
 * - delta)) * fma(-t, t, 1) * scale, t the tanh; in bf16 p_j and ds_j are rounded (ds from the
 *   unrounded p)
 *   dv_j = chain over heads of the group ascending, then queries ascending, of p * do
 *   dk_j = likewise of ds * q;  dq_i = chain over keys ascending of ds_j * k_j
 * in f32 from 0, + 0, one rounding (what nobody wants is absent); in bf16 pairs of queries and keys
 * are counted from begin, per head.
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
#include "ops/attention/attention_int.h"

#include <float.h>
#include <math.h>

_Static_assert(ATTENTION_PAGE % KEY_BLOCK == 0, "a block of keys lies in one page");

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
        .sink = first ? NULL : c->in[begin + 2].data,
        .slopes = c->in[begin + (first ? 2 : 3)].data,
        .pages = first ? NULL : c->in[begin + 4].data,
        .sequence = first ? NULL : c->in[begin + 5].data,
        .sequences = first ? 0 : c->in[begin + 4].dim[0],
        .page_count = first ? 0 : c->in[begin + 4].dim[1],
        .sink_half = !first && view_is_bf16(&c->in[begin + 2]),
        .alibi_bf16 = a->alibi_bf16,
        .queries = q->dim[0],
        .keys = k->dim[0],
        .heads = a->heads,
        .kv_heads = a->kv_heads,
        .group = a->heads / a->kv_heads,
        .head_dim = a->head_dim,
        .value_dim = value_dim(a),
        .q_row = q->dim[1],
        .k_row = k->dim[1],
        .v_row = q[2].dim[1],
        .o_row = a->heads * value_dim(a),
        .lanes = round_up(a->head_dim, 16),
        .value_lanes = round_up(value_dim(a), 16),
        .scale = a->softcap > 0 ? 1 : (float)a->scale,
        .cap = (float)a->softcap,
        .cap_inverse = a->softcap > 0 ? (float)(1 / a->softcap) : 0,
    };
}

/* Of the run of queries first.. < end, whose begin and last are sound. */
static int pages_check(const struct attention *t, i64 first, i64 end, struct err *e) {
    const i64 pages = t->keys / ATTENTION_PAGE;
    i64 low = INT64_MAX, high = 0;
    for (i64 i = first; i < end; i++)
        if (key_high(t, i) > 0)
            low = i64_min(low, key_low(t, i)), high = i64_max(high, key_high(t, i));
    for (i64 j = low / KEY_BLOCK * KEY_BLOCK; j < high; j += KEY_BLOCK) {
        const i64 row = key_row(t, first, j);
        if (row < 0 || row / ATTENTION_PAGE >= pages)
            return err_failed(e, "operation attention: query %lld asks for page %lld of %lld",
                              (long long)first, (long long)(row / ATTENTION_PAGE),
                              (long long)pages);
    }
    return 0;
}

int attention_indexes(const struct attention *t, struct err *e) {
    const i64 places = key_places(t);
    for (i64 i = 0; i < t->queries; i++)
        if (t->begin[i] < 0 || t->begin[i] > places || t->last[i] < -1 || t->last[i] >= places)
            return err_failed(
                e, "operation %s: query %lld asks for keys %d to %d, and there are %lld",
                t->call->op->name, (long long)i, t->begin[i], t->last[i], (long long)places);
    for (i64 i = 0; t->pages && i < t->queries; i++) {
        if (t->sequence[i] < 0 || t->sequence[i] >= t->sequences)
            return err_failed(e, "operation attention: query %lld is of sequence %d of %lld",
                              (long long)i, t->sequence[i], (long long)t->sequences);
        if (t->begin[i] % KEY_BLOCK)
            return err_failed(
                e, "operation attention: query %lld begins at %d; expected a multiple of %d",
                (long long)i, t->begin[i], KEY_BLOCK);
    }
    for (i64 i = 0, end; t->pages && i < t->queries; i = end)
        if (pages_check(t, i, end = run_end(t, i), e)) return -1;
    return 0;
}

void alibi_slopes(float *slopes, i64 heads) {
    i64 m = 1;
    while (2 * m <= heads) m *= 2;
    for (i64 i = 0; i < heads; i++)
        slopes[i] = (float)(i < m ? m_pow(2, -8 * (double)(i + 1) / (double)m)
                                  : m_pow(2, -4 * (double)(2 * (i - m) + 1) / (double)m));
}

/* ---- shapes: q, k, v from in[first], then whatever stands between, then begin and last; slopes
 * are the last input ---- */

static enum dtype sum_dtype(const struct view *v) { return v->dtype == F64 ? F64 : F32; }

static int need_heads(const struct op_call *c, int at, enum dtype d, struct err *e) {
    const struct attention_attr *a = c->attr;
    if (!is_present(&c->in[at])) return 0;
    return need_rank(c, at, 1, e) || need_dtype(c, at, d, e) || need_dim(c, at, 0, a->heads, e) ? -1
                                                                                                : 0;
}

static int attention_shapes(struct op_call *c, int first, int begin, int slopes, struct err *e) {
    const struct attention_attr *a = c->attr;
    if (a->heads < 1 || a->kv_heads < 1 || a->head_dim < 1 || a->value_dim < 0 ||
        a->heads % a->kv_heads)
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
        need_dim(c, k, 1, a->kv_heads * a->head_dim, e) || need_rank(c, k + 1, 2, e) ||
        need_dtype(c, k + 1, c->in[first].dtype, e) || need_dim(c, k + 1, 0, c->in[k].dim[0], e) ||
        need_dim(c, k + 1, 1, a->kv_heads * value_dim(a), e))
        return -1;
    for (int i = begin; i < begin + 2; i++)
        if (need_rank(c, i, 1, e) || need_dtype(c, i, I32, e) ||
            need_dim(c, i, 0, c->in[first].dim[0], e))
            return -1;
    return need_heads(c, slopes, sum_dtype(&c->in[first]), e);
}

static int need_pages(const struct op_call *c, int at, struct err *e) {
    if (!is_present(&c->in[at]) && !is_present(&c->in[at + 1])) return 0;
    if (need_rank(c, at, 2, e) || need_dtype(c, at, I32, e) || need_rank(c, at + 1, 1, e) ||
        need_dtype(c, at + 1, I32, e) || need_dim(c, at + 1, 0, c->in[0].dim[0], e))
        return -1;
    if (c->in[1].dim[0] % ATTENTION_PAGE == 0) return 0;
    return err_failed(e, "operation %s: %lld rows of keys are no whole pages of %d", c->op->name,
                      (long long)c->in[1].dim[0], ATTENTION_PAGE);
}

static int attention_shape(struct op_call *c, struct err *e) {
    const struct attention_attr *a = c->attr;
    const enum dtype d = c->in[0].dtype;
    if (need_pages(c, 7, e)) return -1;
    if (attention_shapes(c, 0, 3, 6, e) || need_heads(c, 5, c->in[5].dtype == F32 ? F32 : d, e))
        return -1;
    set_out(c, 0, d, 2, (i64[]){c->in[0].dim[0], a->heads * value_dim(a)});
    set_out(c, 1, sum_dtype(&c->in[0]), 2, (i64[]){a->heads, c->in[0].dim[0]});
    return 0;
}

static int attention_back_shape(struct op_call *c, struct err *e) {
    const struct attention_attr *a = c->attr;
    if (attention_shapes(c, 1, 6, 8, e) || need_dim(c, 2, 0, c->in[1].dim[0], e) ||
        need_rank(c, 0, 2, e) || need_dtype(c, 0, c->in[1].dtype, e) ||
        need_dim(c, 0, 0, c->in[1].dim[0], e) || need_dim(c, 0, 1, a->heads * value_dim(a), e) ||
        need_same(c, 4, 0, e) || need_rank(c, 5, 2, e) ||
        need_dtype(c, 5, sum_dtype(&c->in[1]), e) || need_dim(c, 5, 0, a->heads, e) ||
        need_dim(c, 5, 1, c->in[1].dim[0], e))
        return -1;
    for (int i = 0; i < 3; i++) set_out_like(c, i, &c->in[1 + i]);
    return 0;
}

/* ---- scratch. The layouts are in attention_cpu.c and attention_back_cpu.c ---- */

i64 forward_units(const struct attention *t) {
    const i64 rows = forward_rows(t);
    return t->lanes * (KEY_BLOCK + 16 + rows) + t->value_lanes * (KEY_BLOCK + rows) +
           FORWARD_PANEL * KEY_BLOCK + 8 * rows;
}
static i64 attention_scratch(const struct op_call *c) {
    const struct attention t = attention_of(c, 0, 3);
    return pool_threads() * forward_units(&t) * 4;
}

i64 back_units(const struct attention *t) {
    return t->lanes * (3 * BACK_KEYS + 2 * BACK_QUERIES) +
           t->value_lanes * (2 * BACK_KEYS + 2 * BACK_QUERIES) +
           i64_max(t->lanes, t->value_lanes) * 16 + 3 * BACK_KEYS * BACK_QUERIES;
}
i64 back_slots(const struct attention *t) { return i64_min(pool_threads(), t->kv_heads); }
static i64 attention_back_scratch(const struct op_call *c) {
    const struct attention t = attention_of(c, 1, 6);
    return (pool_threads() * back_units(&t) + t.queries * t.group * t.lanes * back_slots(&t) +
            t.heads * t.queries) *
           4;
}

bool attention_on_tensor_cores(const struct attention *t) {
    return numerics_now == NUMERICS_FAST && view_is_bf16(&t->call->in[0]) &&
           t->head_dim % 16 == 0 && t->value_dim % 16 == 0 &&
           i64_max(t->head_dim, t->value_dim) <= 256 &&
           !(t->slopes && (t->alibi_bf16 || t->cap > 0));
}
bool attention_by_query(const struct attention *t) {
    return t->queries <= 128 && t->queries < t->keys;
}
i64 attention_splits(const struct attention *t) {
    if (!attention_by_query(t)) return 1;
    return i64_max(1, i64_min((key_places(t) + 255) / 256, 264 / (t->queries * t->kv_heads)));
}
static i64 attention_scratch_cuda(const struct op_call *c) { /* parts of results */
    const struct attention t = attention_of(c, 0, 3);
    const i64 splits = attention_on_tensor_cores(&t) ? attention_splits(&t) : 1;
    return splits == 1 ? 0 : t.queries * t.heads * splits * (t.value_dim + 2) * 4;
}
static i64 attention_back_scratch_cuda(const struct op_call *c) { /* delta, or facts and low */
    const struct attention t = attention_of(c, 1, 6);
    if (!attention_on_tensor_cores(&t)) return t.heads * t.queries * 4;
    return round_up(t.queries, 64) * (t.heads * 8 + 4);
}

/* ---- references ---- */

static double to_bf16(double x) { return (double)bf16_to_f32(bf16_of_f32((float)x)); }

/* One score, and the derivative of it by q·k. bf16 roundings of a bias are part of the function:
 * it is a constant. */
static double score(const struct attention *t, i64 i, i64 head, i64 j, double *slope) {
    const double *q = (const double *)t->q + i * t->q_row + head * t->head_dim,
                 *k = (const double *)t->k + key_row(t, i, j - t->begin[i]) * t->k_row +
                      head / t->group * t->head_dim;
    double s = 0, cap = t->attr->softcap;
    const double linear = t->slopes ? ((const double *)(const void *)t->slopes)[head] : 0;
    for (i64 d = 0; d < t->head_dim; d++) s += q[d] * k[d];
    if (t->alibi_bf16) s += to_bf16(to_bf16(linear) * to_bf16((double)(j - t->begin[i])));
    s *= t->attr->scale;
    const double h = cap > 0 ? tanh(s / cap) : 0;
    *slope = t->attr->scale * (1 - h * h);
    return (cap > 0 ? cap * h : s) + (t->alibi_bf16 ? 0 : linear * (double)(j - t->last[i]));
}

static void attention_ref(const struct op_call *c) {
    const struct attention t = attention_of(c, 0, 3);
    for (i64 n = 0; n < t.queries * t.heads; n++) {
        const i64 i = n / t.heads, head = n % t.heads, low = t.begin[i] + key_low(&t, i),
                  high = t.begin[i] + key_high(&t, i);
        const double *sink = t.sink;
        double *o = (double *)c->out[0].data + n * t.value_dim, slope,
               top = sink ? sink[head] : -FLT_MAX;
        for (i64 j = low; j < high; j++) top = fmax(top, score(&t, i, head, j, &slope));
        double sum = sink ? exp(sink[head] - top) : 0;
        for (i64 j = low; j < high; j++) sum += exp(score(&t, i, head, j, &slope) - top);
        for (i64 d = 0; d < t.value_dim; d++) o[d] = 0;
        for (i64 j = low; j < high; j++) {
            const double p = exp(score(&t, i, head, j, &slope) - top) / sum;
            const double *v = (const double *)t.v + key_row(&t, i, j - t.begin[i]) * t.v_row +
                              head / t.group * t.value_dim;
            for (i64 d = 0; d < t.value_dim; d++) o[d] += p * v[d];
        }
        ((double *)c->out[1].data)[head * t.queries + i] = sum > 0 ? top + log(sum) : top;
    }
}

static void attention_back_ref(const struct op_call *c) {
    const struct attention t = attention_of(c, 1, 6);
    const double *q = t.q, *k = t.k, *v = t.v, *lse = c->in[5].data;
    double *dq = c->out[0].data, *dk = c->out[1].data, *dv = c->out[2].data;
    for (i64 i = 0; i < view_count(&c->out[0]); i++) dq[i] = 0;
    for (i64 i = 0; i < view_count(&c->out[1]); i++) dk[i] = 0;
    for (i64 i = 0; i < view_count(&c->out[2]); i++) dv[i] = 0;
    for (i64 n = 0; n < t.queries * t.heads; n++) {
        const i64 i = n / t.heads, head = n % t.heads;
        const double *dout = (const double *)c->in[0].data + n * t.value_dim,
                     *o = (const double *)c->in[4].data + n * t.value_dim;
        double delta = 0;
        for (i64 d = 0; d < t.value_dim; d++) delta += dout[d] * o[d];
        for (i64 j = t.begin[i] + key_low(&t, i); j < t.begin[i] + key_high(&t, i); j++) {
            const i64 at = j * t.k_row + head / t.group * t.head_dim,
                      at_v = j * t.v_row + head / t.group * t.value_dim;
            double slope, dp = 0;
            const double p = exp(score(&t, i, head, j, &slope) - lse[head * t.queries + i]);
            for (i64 d = 0; d < t.value_dim; d++) dp += dout[d] * v[at_v + d];
            for (i64 d = 0; d < t.value_dim; d++) dv[at_v + d] += p * dout[d];
            for (i64 d = 0; d < t.head_dim; d++) {
                const double ds = p * (dp - delta) * slope;
                dk[at + d] += ds * q[n * t.head_dim + d];
                dq[n * t.head_dim + d] += ds * k[at + d];
            }
        }
    }
}

/* Of visible pairs only: so many products over head_dim and over value_dim. */
static double pair_flops(const struct attention *t, i64 heads, i64 values) {
    double pairs = 0;
    for (i64 i = 0; i < t->queries; i++)
        pairs += (double)i64_max(0, key_high(t, i) - key_low(t, i));
    return 2 * pairs * (double)(t->heads * (heads * t->head_dim + values * t->value_dim));
}
static double attention_flops(const struct op_call *c) {
    const struct attention t = attention_of(c, 0, 3);
    return pair_flops(&t, 1, 1);
}
static double attention_back_flops(const struct op_call *c) {
    const struct attention t = attention_of(c, 1, 6);
    return pair_flops(&t, 3, 2);
}

const struct op op_attention = {
    .name = "attention",
    .in = "q k v begin last sink? slopes? pages? sequence?",
    .out = "o lse",
    .attr_size = sizeof(struct attention_attr),
    .shape = attention_shape,
    .grad = {{"attention_back", "do q k v o lse begin last slopes", "dq dk dv"},
             {"sink_back", "do o lse sink", "+dsink"}},
    .ref = attention_ref,
    .scratch = attention_scratch,
    .scratch_cuda = attention_scratch_cuda,
    .cpu = CPU(attention),
    .cuda = CUDA(attention),
    .sample = attention_sample,
    .bound = {32, 4},
    .flops = attention_flops,
};
const struct op op_attention_back = {
    .name = "attention_back",
    .in = "do q k v o lse begin last slopes?",
    .out = "dq dk dv",
    .attr_size = sizeof(struct attention_attr),
    .shape = attention_back_shape,
    .ref = attention_back_ref,
    .scratch = attention_back_scratch,
    .scratch_cuda = attention_back_scratch_cuda,
    .cpu = CPU(attention_back),
    .cuda = CUDA(attention_back),
    .sample = attention_back_sample,
    .bound = {32, 4},
    .flops = attention_back_flops,
};
