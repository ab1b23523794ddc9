/* attention_cpu.c: the forward pass. Definition: attention.c.
 *
 * A task is one kv head and a chunk of queries of one run, with all heads of the group: its rows
 * share the packing of each key block (K as columns, V as rows). Per block and panel of rows: S =
 * Q·K^T, the online softmax in place, O = O * alpha + P·V. A single query of a long cache goes the
 * same way: packing a block in the nearest cache costs little beside reading it. Rejected: queries
 * as lanes (no packing of K, no horizontal sums, but a second code path for decoding). */
#include "ops/attention/attention_tile.h"

#include <float.h>
#include <math.h>

struct chunk {
    i64 run, first, count; /* the run's first query; queries first .. first + count */
    i64 kv_head, kv_heads; /* more than one head where rows are few, to read whole cache rows */
};

struct forward {
    struct attention t;
    i64 unit_row; /* units of a padded row of q or k */
    double total;
    u32 *scratch;
};

/* One worker's memory for a chunk. Rows: head of the group outer, query inner. */
struct rows {
    i64 count;
    u32 *k, *v, *spare; /* the key block packed: [unit_row][KEY_BLOCK], [KEY_BLOCK][value_lanes] */
    u32 *q;             /* [count][unit_row] */
    float *s;           /* [FORWARD_PANEL][KEY_BLOCK]: scores, then probabilities */
    float *o;           /* [count][value_lanes] */
    float *top, *sum, *alpha, *slope;
    i64 *low, *high;
};

V16_FN struct rows rows_of(const struct forward *f, int worker) {
    const struct attention *t = &f->t;
    const i64 n = forward_rows(t);
    struct rows r = {.k = f->scratch + worker * forward_units(t)};
    r.v = r.k + t->lanes * KEY_BLOCK;
    r.spare = r.v + t->value_lanes * KEY_BLOCK;
    r.q = r.spare + t->lanes * 16;
    r.o = (float *)(r.q + t->lanes * n);
    r.s = r.o + t->value_lanes * n;
    r.top = r.s + FORWARD_PANEL * KEY_BLOCK;
    r.sum = r.top + n, r.alpha = r.sum + n, r.slope = r.alpha + n;
    r.low = (i64 *)(r.slope + n), r.high = r.low + n;
    return r;
}

/* Masked scores become -inf. low, high: visible keys, from the block's start. */
static void row_mask(float *s, i64 vectors, i64 low, i64 high) {
    for (i64 n = 0; n < vectors; n++)
        v16_store(s + 16 * n,
                  v16_within(v16_load(s + 16 * n), 16 * n, low, high, v16_set(-INFINITY)));
}

/* s = c * tanh(s * scale * (1/c)), ahead of the softmax, which then scales by 1 */
static void row_softcap(float *s, i64 vectors, const struct attention *t) {
    for (i64 n = 0; n < vectors; n++) {
        const v16 x = v16_mul(v16_load(s + 16 * n), v16_set((float)t->attr->scale));
        v16_store(s + 16 * n,
                  v16_mul(v16_tanh(v16_mul(x, v16_set(t->cap_inverse))), v16_set(t->cap)));
    }
}

/* `at`: the place of the first key */
static void row_bias(float *s, i64 vectors, float slope, i64 at, bool bf16) {
    for (i64 n = 0; n < vectors; n++)
        v16_store(s + 16 * n, v16_bias(v16_load(s + 16 * n), slope, at + 16 * n, bf16));
}

V16_FN float row_top(const float *s, i64 vectors) {
    v16 top = v16_load(s);
    for (i64 n = 1; n < vectors; n++) top = v16_max(top, v16_load(s + 16 * n));
    return v16_top(top);
}

/* Scores become probabilities; returns their sum. */
V16_FN float row_exp(float *s, i64 vectors, float scale, float top, bool is_bf16) {
    v16 sum = v16_set(0);
    for (i64 n = 0; n < vectors; n++) {
        const v16 p = v16_exp(v16_fma(v16_load(s + 16 * n), v16_set(scale), v16_set(-top)));
        sum = v16_add(sum, p);
        probability_put(s, 16 * n, p, is_bf16);
    }
    return v16_sum(sum);
}

/* The online softmax of `count` rows of r->s; r->alpha says by how much o shrinks. `from`: the
 * first row's number, `at`: the block's first key. */
static __attribute__((noinline)) void panel_softmax(const struct attention *t, struct rows *r,
                                                    i64 from, i64 count, i64 at, i64 vectors,
                                                    bool is_bf16) {
    float top[FORWARD_PANEL + 16], sum[FORWARD_PANEL + 16];
    for (i64 i = 0; i < count; i++) {
        float *s = r->s + i * KEY_BLOCK;
        const i64 low = r->low[from + i] - at, high = r->high[from + i] - at;
        const i64 place = at - slope_origin(t, r->high[from + i]);
        if (t->slopes && t->alibi_bf16) row_bias(s, vectors, r->slope[from + i], place, true);
        if (t->cap > 0) row_softcap(s, vectors, t);
        if (t->slopes && !t->alibi_bf16) row_bias(s, vectors, r->slope[from + i], place, false);
        if (low > 0 || high < vectors * 16) row_mask(s, vectors, low, high);
        top[i] = row_top(s, vectors);
    }
    for (i64 i = 0; i < count; i += 16) {
        const i64 left = count - i;
        const v16 before = v16_load_n(r->top + from + i, left);
        const v16 now = v16_max(before, v16_mul(v16_load_n(top + i, left), v16_set(t->scale)));
        v16_store_n(r->alpha + i, v16_exp(v16_sub(before, now)), left);
        v16_store_n(r->top + from + i, now, left);
    }
    for (i64 i = 0; i < count; i++)
        sum[i] = row_exp(r->s + i * KEY_BLOCK, vectors, t->scale, r->top[from + i], is_bf16);
    for (i64 i = 0; i < count; i += 16)
        v16_store_n(r->sum + from + i,
                    v16_fma(v16_load_n(r->sum + from + i, count - i),
                            v16_load_n(r->alpha + i, count - i), v16_load_n(sum + i, count - i)),
                    count - i);
}

/* Rows [from, from + count) of the panel meet the key block that starts `at` keys after begin. */
V16_FN void panel_run(const struct forward *f, struct rows *r, i64 from, i64 count, i64 at,
                      bool is_bf16) {
    const struct attention *t = &f->t;
    i64 low = r->low[from], high = 0;
    for (i64 i = from; i < from + count; i++)
        low = i64_min(low, r->low[i]), high = i64_max(high, r->high[i]);
    if (low >= at + KEY_BLOCK || high <= at) return;
    const i64 keys = i64_min(KEY_BLOCK, high - at), vectors = (keys + 15) / 16;
    struct product s = {.a = r->q + from * f->unit_row,
                        .a_row = f->unit_row,
                        .a_step = 1,
                        .b = r->k,
                        .b_step = KEY_BLOCK,
                        .c = r->s,
                        .c_row = KEY_BLOCK,
                        .fresh = true,
                        .rows = count,
                        .vectors = vectors,
                        .depth = is_bf16 ? (t->head_dim + 1) / 2 : t->head_dim};
    product_run(&s, is_bf16);
    panel_softmax(t, r, from, count, at, vectors, is_bf16);
    struct product o = {.a = (const u32 *)r->s,
                        .a_row = KEY_BLOCK,
                        .a_step = 1,
                        .b = r->v,
                        .b_step = t->value_lanes,
                        .c = r->o + from * t->value_lanes,
                        .c_row = t->value_lanes,
                        .scale = r->alpha,
                        .rows = count,
                        .vectors = t->value_lanes / 16,
                        .depth = is_bf16 ? (keys + 1) / 2 : keys};
    product_run(&o, is_bf16);
}

V16_FN void rows_begin(const struct forward *f, struct rows *r, const struct chunk *c,
                       bool is_bf16) {
    const struct attention *t = &f->t;
    const i64 first = c->kv_head * t->group, heads = c->kv_heads * t->group;
    rows_fetch(element(t->q, c->first * t->q_row + first * t->head_dim, is_bf16), t->q_row,
               c->count, heads * t->head_dim, is_bf16);
    r->count = 0;
    for (i64 h = first; h < first + heads; h++) {
        const float top = t->sink ? sink_of(t, h) : -FLT_MAX,
                    slope = t->slopes ? slope_of(t, h) : 0;
        for (i64 i = c->first; i < c->first + c->count; i++, r->count++) {
            row_copy(r->q + r->count * f->unit_row,
                     element(t->q, i * t->q_row + h * t->head_dim, is_bf16), t->head_dim, is_bf16);
            r->low[r->count] = key_low(t, i), r->high[r->count] = key_high(t, i);
            r->top[r->count] = top, r->sum[r->count] = t->sink ? 1 : 0;
            r->slope[r->count] = slope;
        }
    }
    __builtin_memset(r->o, 0, (size_t)(r->count * t->value_lanes) * sizeof *r->o);
}

/* o = (o + 0) / l: the sum rids a zero of its sign. A row that sees no key gives 0 and -FLT_MAX. */
V16_FN void rows_end(const struct forward *f, struct rows *r, const struct chunk *c, bool is_bf16) {
    const struct attention *t = &f->t;
    void *o = t->call->out[0].data;
    float *lse = t->call->out[1].data;
    for (i64 i = 0; i < r->count; i += 16) {
        const v16 sum = v16_load_n(r->sum + i, r->count - i), none = v16_set(-FLT_MAX);
        const v16 all = v16_add(v16_load_n(r->top + i, r->count - i), v16_log(sum));
        v16_store_n(r->top + i, v16_select(v16_lt(v16_set(0), sum), all, none), r->count - i);
    }
    for (i64 n = 0; n < r->count; n++) {
        const i64 head = c->kv_head * t->group + n / c->count, i = c->first + n % c->count;
        const v16 sum = v16_set(r->sum[n] == 0 ? 1 : r->sum[n]);
        for (i64 d = 0; d < t->value_dim; d += 16)
            v16_put_n(o, i * t->o_row + head * t->value_dim + d,
                      v16_div(v16_add(v16_load(r->o + n * t->value_lanes + d), v16_set(0)), sum),
                      t->value_dim - d, is_bf16);
        lse[head * t->queries + i] = r->top[n];
    }
}

/* Packs head `h` of the chunk of the key block `at`. Between quarters of it, parts of the next
 * block of all heads are asked for, in the order of memory: asked for at once they would wait for
 * each other, and never would all of memory's speed be used while others compute. */
V16_FN void keys_pack(const struct forward *f, struct rows *r, const struct chunk *c, i64 h, i64 at,
                      i64 high, bool is_bf16) {
    const struct attention *t = &f->t;
    const i64 first = key_row(t, c->run, at), keys = i64_min(KEY_BLOCK, high - at);
    const i64 after = high - at > KEY_BLOCK ? key_row(t, c->run, at + KEY_BLOCK) : first;
    const i64 k_block = first * t->k_row + c->kv_head * t->head_dim,
              v_block = first * t->v_row + c->kv_head * t->value_dim;
    for (i64 j = 0; j < KEY_BLOCK; j += 16) {
        const i64 left = i64_max(0, keys - j);
        columns_pack(r->k + j, KEY_BLOCK, 16,
                     element(t->k, k_block + j * t->k_row + h * t->head_dim, is_bf16), t->k_row,
                     left, t->head_dim, r->spare, is_bf16);
        rows_pack(r->v + j * t->value_lanes / (is_bf16 ? 2 : 1),
                  element(t->v, v_block + j * t->v_row + h * t->value_dim, is_bf16), t->v_row,
                  i64_min(16, left), i64_min(16, round_up(left, 2)), t->value_dim, is_bf16);
        const i64 part = h * KEY_BLOCK + j, next = part / c->kv_heads;
        const i64 rows = i64_min((part + 16) / c->kv_heads, high - at - KEY_BLOCK) - next;
        rows_fetch(element(t->k, (after + next) * t->k_row + c->kv_head * t->head_dim, is_bf16),
                   t->k_row, rows, c->kv_heads * t->head_dim, is_bf16);
        rows_fetch(element(t->v, (after + next) * t->v_row + c->kv_head * t->value_dim, is_bf16),
                   t->v_row, rows, c->kv_heads * t->value_dim, is_bf16);
    }
}

V16_FN void chunk_run(const struct forward *f, const struct chunk *c, int worker, bool is_bf16) {
    const i64 rows = c->count * f->t.group;
    struct rows r = rows_of(f, worker);
    rows_begin(f, &r, c, is_bf16);
    i64 low = r.low[0], high = 0;
    for (i64 i = 0; i < c->count; i++)
        low = i64_min(low, r.low[i]), high = i64_max(high, r.high[i]);
    for (i64 at = low / KEY_BLOCK * KEY_BLOCK; at < high; at += KEY_BLOCK)
        for (i64 h = 0; h < c->kv_heads; h++) {
            keys_pack(f, &r, c, h, at, high, is_bf16);
            for (i64 i = 0; i < rows; i += FORWARD_PANEL)
                panel_run(f, &r, h * rows + i, i64_min(FORWARD_PANEL, rows - i), at, is_bf16);
        }
    rows_end(f, &r, c, is_bf16);
}
static __attribute__((noinline)) void chunk_f32(const struct forward *f, const struct chunk *c,
                                                int worker) {
    chunk_run(f, c, worker, false);
}
static __attribute__((noinline)) void chunk_half(const struct forward *f, const struct chunk *c,
                                                 int worker) {
    chunk_run(f, c, worker, true);
}

/* Products over the keys between the chunk's first and last, and their packing, which weighs about
 * as much as 16 rows. */
static double chunk_cost(const struct attention *t, const struct chunk *c) {
    i64 low = key_low(t, c->first), high = 0;
    for (i64 i = c->first; i < c->first + c->count; i++)
        low = i64_min(low, key_low(t, i)), high = i64_max(high, key_high(t, i));
    return (double)(i64_max(0, high - low) + 1) *
           (double)((c->count * t->group + 16) * c->kv_heads);
}

/* Calls `fn` for all chunks in order. */
typedef void chunk_fn(void *arg, const struct chunk *c, double cost);
static void chunks_walk(const struct attention *t, chunk_fn *fn, void *arg) {
    const i64 step = i64_max(1, FORWARD_ROWS / t->group),
              share = (t->kv_heads + pool_threads() - 1) / pool_threads();
    for (i64 run = 0, end; run < t->queries; run = end) {
        end = run_end(t, run);
        const i64 fit = FORWARD_ROWS / (i64_min(step, end - run) * t->group),
                  heads = i64_max(1, i64_min(fit, share));
        for (i64 h = 0; h < t->kv_heads; h += heads)
            for (i64 i = run; i < end; i += step) {
                const struct chunk c = {run, i, i64_min(step, end - i), h,
                                        i64_min(heads, t->kv_heads - h)};
                fn(arg, &c, chunk_cost(t, &c));
            }
    }
}
static void chunk_count(void *arg, const struct chunk *c, double cost) {
    (void)c;
    *(double *)arg += cost;
}

struct worker {
    const struct forward *f;
    struct share share;
    i64 begin, end;
    int number;
};
static void chunk_take(void *arg, const struct chunk *c, double cost) {
    struct worker *w = arg;
    const i64 share = share_of(&w->share, cost);
    if (share < w->begin || share >= w->end) return;
    if (view_is_bf16(&w->f->t.call->in[0]))
        chunk_half(w->f, c, w->number);
    else
        chunk_f32(w->f, c, w->number);
}
static void forward_work(void *arg, i64 begin, i64 end, int number) {
    const struct forward *f = arg;
    struct worker w = {f, {.total = f->total, .shares = pool_threads()}, begin, end, number};
    chunks_walk(&f->t, chunk_take, &w);
}

CPU_KERNEL(attention) {
    struct forward f = {.t = attention_of(c, 0, 3), .scratch = c->scratch};
    if (attention_indexes(&f.t, e)) return -1;
    f.unit_row = row_units(f.t.head_dim, view_is_bf16(&c->in[0]));
    chunks_walk(&f.t, chunk_count, &f.total);
    pool_run(pool_threads(), forward_work, &f);
    return 0;
}
