/* attention_back_cpu.c: the gradients. Definition: attention.c.
 *
 * Key blocks outer, (head of the group, query block) inner: dK and dV of a key block accumulate in
 * a buffer of their own, dQ of the whole run in scratch, each by one chain; scores are computed
 * once (5 products). That pass can be cut over runs and kv heads only. When these are too few for
 * the threads, two passes (7 products) are cut finer, with the same bits: key blocks for dK and dV,
 * then query blocks for dQ. */
#include "ops/attention/attention_tile.h"

#include <math.h>

enum part { PART_ALL, PART_KEYS, PART_QUERIES };

struct piece { /* queries and keys are counted from the run's first */
    i64 run, kv_head;
    i64 query, query_end, key, key_end;
    enum part part;
};

struct back {
    struct attention t;
    const void *dout;
    const float *lse;
    float *delta, *dq; /* [heads][queries]; [slot][group][queries][lanes] */
    u32 *scratch;
    bool is_bf16;
    enum part part;
    double total;
};

/* One worker's memory. In f32, rows and pairs are the same. */
struct block {
    u32 *k_columns, *v_columns, *k_pairs, *spare;
    u32 *q_rows, *do_rows, *q_pairs, *do_pairs;
    float *dk, *dv;
    float *s, *d; /* [BACK_QUERIES][BACK_KEYS]: scores and dp, then p and ds */
    u32 *p_pairs, *ds_pairs;
    i64 key, keys, query, queries, head;
    bool masked;
};

V16_FN struct block block_of(const struct back *b, int worker, bool is_bf16) {
    const i64 lanes = b->t.lanes, values = b->t.value_lanes;
    struct block x = {.k_columns = b->scratch + worker * back_units(&b->t)};
    x.v_columns = x.k_columns + lanes * BACK_KEYS;
    x.k_pairs = x.v_columns + values * BACK_KEYS;
    x.dk = (float *)(x.k_pairs + lanes * BACK_KEYS);
    x.dv = x.dk + lanes * BACK_KEYS;
    x.spare = (u32 *)(x.dv + values * BACK_KEYS);
    x.q_rows = x.spare + i64_max(lanes, values) * 16;
    x.do_rows = x.q_rows + lanes * BACK_QUERIES;
    x.q_pairs = is_bf16 ? x.do_rows + values * BACK_QUERIES : x.q_rows;
    x.do_pairs = is_bf16 ? x.q_pairs + lanes * BACK_QUERIES : x.do_rows;
    x.s = (float *)(x.do_rows + (is_bf16 ? lanes + 2 * values : values) * BACK_QUERIES);
    x.d = x.s + BACK_KEYS * BACK_QUERIES;
    x.p_pairs = is_bf16 ? (u32 *)(x.d + BACK_KEYS * BACK_QUERIES) : (u32 *)x.s;
    x.ds_pairs = is_bf16 ? x.p_pairs + BACK_KEYS * BACK_QUERIES / 2 : (u32 *)x.d;
    return x;
}

V16_FN void keys_begin(const struct back *b, const struct piece *w, struct block *x, bool is_bf16) {
    const struct attention *t = &b->t;
    const i64 k_from = (w->run + x->key) * t->k_row + w->kv_head * t->head_dim,
              v_from = (w->run + x->key) * t->v_row + w->kv_head * t->value_dim;
    for (i64 n = 0; n < x->keys; n += KEY_BLOCK) {
        const i64 keys = i64_min(KEY_BLOCK, x->keys - n);
        columns_pack(x->k_columns + n * row_units(t->head_dim, is_bf16), KEY_BLOCK, KEY_BLOCK,
                     element(t->k, k_from + n * t->k_row, is_bf16), t->k_row, keys, t->head_dim,
                     x->spare, is_bf16);
        columns_pack(x->v_columns + n * row_units(t->value_dim, is_bf16), KEY_BLOCK, KEY_BLOCK,
                     element(t->v, v_from + n * t->v_row, is_bf16), t->v_row, keys, t->value_dim,
                     x->spare, is_bf16);
    }
    if (w->part != PART_KEYS)
        rows_pack(x->k_pairs, element(t->k, k_from, is_bf16), t->k_row, x->keys,
                  round_up(x->keys, 2), t->head_dim, is_bf16);
    __builtin_memset(x->dk, 0, (size_t)(x->keys * t->lanes) * 4);
    __builtin_memset(x->dv, 0, (size_t)(x->keys * t->value_lanes) * 4);
}

/* A chain as a result, if it is wanted: + 0 rids a zero of its sign. */
V16_FN void row_put(void *to, i64 at, const float *from, i64 dim, bool is_bf16) {
    for (i64 d = 0; to && d < dim; d += 16)
        v16_put_n(to, at + d, v16_add(v16_load(from + d), v16_set(0)), dim - d, is_bf16);
}

V16_FN void keys_end(const struct back *b, const struct piece *w, const struct block *x,
                     bool is_bf16) {
    const struct attention *t = &b->t;
    if (w->part == PART_QUERIES) return;
    for (i64 j = 0; j < x->keys; j++) {
        const i64 key = w->run + x->key + j;
        row_put(t->call->out[1].data, key * t->k_row + w->kv_head * t->head_dim,
                x->dk + j * t->lanes, t->head_dim, is_bf16);
        row_put(t->call->out[2].data, key * t->v_row + w->kv_head * t->value_dim,
                x->dv + j * t->value_lanes, t->value_dim, is_bf16);
    }
}

/* S = Q·K^T and dP = dO·V^T, panels of KEY_BLOCK keys; on the diagonal strips of rows stop where
 * their last row does. */
V16_FN void block_scores(const struct back *b, struct block *x, bool is_bf16) {
    const struct attention *t = &b->t;
    const i64 strip = x->masked ? TILE_ROWS : x->queries;
    for (i64 n = 0; n < x->keys; n += KEY_BLOCK)
        for (int second = 0; second < 2; second++) {
            const i64 dim = second ? t->value_dim : t->head_dim, units = row_units(dim, is_bf16);
            for (i64 r = 0; r < x->queries; r += strip) {
                const i64 rows = i64_min(strip, x->queries - r);
                i64 keys = i64_min(KEY_BLOCK, x->keys - n);
                if (x->masked) keys = i64_min(keys, x->query + r + rows - x->key - n);
                if (keys <= 0) continue;
                const struct product p = {
                    .a = (second ? x->do_rows : x->q_rows) + r * units,
                    .a_row = units,
                    .a_step = 1,
                    .b = (second ? x->v_columns : x->k_columns) + n * units,
                    .b_step = KEY_BLOCK,
                    .c = (second ? x->d : x->s) + r * BACK_KEYS + n,
                    .c_row = BACK_KEYS,
                    .fresh = true,
                    .rows = rows,
                    .vectors = (keys + 15) / 16,
                    .depth = is_bf16 ? (dim + 1) / 2 : dim,
                };
                product_run(&p, is_bf16);
            }
        }
}

/* One row: scores and dp become p and ds (in bf16, rounded, in the first half of the row). */
V16_FN void row_gradient(float *s, float *d, i64 keys, i64 low, i64 high, float lse, float delta,
                         float slope, i64 place, const struct attention *t, bool masked,
                         bool is_bf16) {
    const bool early = t->slopes && t->alibi_bf16, late = t->slopes && !t->alibi_bf16;
    const float raw = (float)t->attr->scale, scale = t->scale, cap = t->cap;
    for (i64 n = 0; n < keys; n += 16) {
        v16 p = v16_set(0), ds = p;
        if (!masked || n < high) {
            v16 x = v16_load(s + n), h = p;
            if (early) x = v16_bias(x, slope, place + n, true);
            if (cap > 0) {
                h = v16_tanh(v16_mul(v16_mul(x, v16_set(raw)), v16_set(t->cap_inverse)));
                x = v16_mul(h, v16_set(cap));
            }
            if (late) x = v16_bias(x, slope, place + n, false);
            if (masked) x = v16_within(x, n, low, high, v16_set(-INFINITY));
            p = v16_exp(v16_fma(x, v16_set(scale), v16_set(-lse)));
            ds = v16_mul(p, v16_sub(v16_load(d + n), v16_set(delta)));
            if (cap > 0) ds = v16_mul(ds, v16_fma(v16_sub(v16_set(0), h), h, v16_set(1)));
            ds = v16_mul(ds, v16_set(raw));
        }
        probability_put(s, n, p, is_bf16);
        probability_put(d, n, ds, is_bf16);
    }
}

static __attribute__((noinline)) void block_gradients(const struct back *b, const struct piece *w,
                                                      struct block *x, bool is_bf16) {
    const struct attention *t = &b->t;
    const i64 keys = round_up(x->keys, 16), at = x->head * t->queries + w->run + x->query;
    const float slope = t->slopes ? slope_of(t, x->head) : 0;
    for (i64 i = 0; i < x->queries; i++) {
        float *s = x->s + i * BACK_KEYS, *d = x->d + i * BACK_KEYS;
        const float lse = b->lse[at + i], delta = b->delta[at + i];
        const i64 low = key_low(t, w->run + x->query + i) - x->key,
                  high = x->query + i + 1 - x->key;
        const i64 place = x->key - slope_origin(t, x->query + i + 1);
        row_gradient(s, d, keys, low, high, lse, delta, slope, place, t, x->masked, is_bf16);
    }
    if (!is_bf16 || w->part == PART_QUERIES) return;
    rows_pack(x->p_pairs, x->s, 2 * BACK_KEYS, x->queries, round_up(x->queries, 2), keys, true);
    rows_pack(x->ds_pairs, x->d, 2 * BACK_KEYS, x->queries, round_up(x->queries, 2), keys, true);
}

/* dV += P^T·dO and dK += dS^T·Q; on the diagonal strips of keys start at their first query. */
V16_FN void block_keys(const struct back *b, struct block *x, bool is_bf16) {
    const i64 row = is_bf16 ? round_up(x->keys, 16) : BACK_KEYS,
              strip = x->masked ? TILE_ROWS : x->keys;
    for (int second = 0; second < 2; second++) {
        const i64 lanes = second ? b->t.lanes : b->t.value_lanes;
        for (i64 j = 0; j < x->keys; j += strip) {
            const i64 from = x->masked ? i64_max(0, x->key + j - x->query) / 2 * 2 : 0;
            if (from >= x->queries) break;
            const i64 skip = is_bf16 ? from / 2 : from;
            const struct product p = {
                .a = (second ? x->ds_pairs : x->p_pairs) + j + skip * row,
                .a_row = 1,
                .a_step = row,
                .b = (second ? x->q_pairs : x->do_pairs) + skip * lanes,
                .b_step = lanes,
                .c = (second ? x->dk : x->dv) + j * lanes,
                .c_row = lanes,
                .rows = i64_min(strip, x->keys - j),
                .vectors = lanes / 16,
                .depth = is_bf16 ? (x->queries - from + 1) / 2 : x->queries - from,
            };
            product_run(&p, is_bf16);
        }
    }
}

/* dQ += dS·K */
V16_FN void block_queries(const struct back *b, struct block *x, float *dq, bool is_bf16) {
    const i64 lanes = b->t.lanes, strip = x->masked ? TILE_ROWS : x->queries;
    for (i64 r = 0; r < x->queries; r += strip) {
        const i64 rows = i64_min(strip, x->queries - r);
        const i64 keys = x->masked ? i64_min(x->keys, x->query + r + rows - x->key) : x->keys;
        if (keys <= 0) continue;
        const struct product p = {
            .a = (const u32 *)x->d + r * BACK_KEYS,
            .a_row = BACK_KEYS,
            .a_step = 1,
            .b = x->k_pairs,
            .b_step = lanes,
            .c = dq + r * lanes,
            .c_row = lanes,
            .rows = rows,
            .vectors = lanes / 16,
            .depth = is_bf16 ? (keys + 1) / 2 : keys,
        };
        product_run(&p, is_bf16);
    }
}

V16_FN void block_run(const struct back *b, const struct piece *w, struct block *x, float *dq,
                      bool is_bf16) {
    const struct attention *t = &b->t;
    const i64 count = x->queries, padded = round_up(count, 2),
              rest = i64_min(BACK_QUERIES, w->query_end - x->query - count);
    const i64 q = (w->run + x->query) * t->q_row + x->head * t->head_dim,
              dout = (w->run + x->query) * t->o_row + x->head * t->value_dim;
    rows_copy(x->q_rows, element(t->q, q, is_bf16), t->q_row, count, count, t->head_dim, is_bf16);
    rows_copy(x->do_rows, element(b->dout, dout, is_bf16), t->o_row, count, count, t->value_dim,
              is_bf16);
    if (is_bf16 && w->part != PART_QUERIES) {
        rows_pack(x->q_pairs, element(t->q, q, is_bf16), t->q_row, count, padded, t->head_dim,
                  is_bf16);
        rows_pack(x->do_pairs, element(b->dout, dout, is_bf16), t->o_row, count, padded,
                  t->value_dim, is_bf16);
    }
    rows_fetch(element(t->q, q + count * t->q_row, is_bf16), t->q_row, rest, t->head_dim, is_bf16);
    rows_fetch(element(b->dout, dout + count * t->o_row, is_bf16), t->o_row, rest, t->value_dim,
               is_bf16);
    block_scores(b, x, is_bf16);
    block_gradients(b, w, x, is_bf16);
    if (w->part != PART_QUERIES) block_keys(b, x, is_bf16);
    if (w->part != PART_KEYS) block_queries(b, x, dq, is_bf16);
}

V16_FN float *dq_rows(const struct back *b, const struct piece *w, i64 g, int worker) {
    const i64 slot = back_slots(&b->t) == b->t.kv_heads ? w->kv_head : worker;
    return b->dq + ((slot * b->t.group + g) * b->t.queries + w->run) * b->t.lanes;
}

V16_FN void dq_end(const struct back *b, const struct piece *w, int worker, bool is_bf16) {
    const struct attention *t = &b->t;
    for (i64 g = 0; g < t->group; g++) {
        const float *dq = dq_rows(b, w, g, worker);
        for (i64 i = w->query; i < w->query_end; i++)
            row_put(t->call->out[0].data,
                    (w->run + i) * t->q_row + (w->kv_head * t->group + g) * t->head_dim,
                    dq + i * t->lanes, t->head_dim, is_bf16);
    }
}

V16_FN void piece_run(const struct back *b, const struct piece *w, int worker, bool is_bf16) {
    const struct attention *t = &b->t;
    struct block x = block_of(b, worker, is_bf16);
    if (w->part != PART_KEYS)
        for (i64 g = 0; g < t->group; g++)
            __builtin_memset(dq_rows(b, w, g, worker) + w->query * t->lanes, 0,
                             (size_t)((w->query_end - w->query) * t->lanes) * sizeof(float));
    const i64 first = i64_max(w->key, key_low(t, w->run + w->query) / BACK_KEYS * BACK_KEYS);
    for (x.key = first; x.key < w->key_end; x.key += BACK_KEYS) {
        x.keys = i64_min(BACK_KEYS, w->key_end - x.key);
        keys_begin(b, w, &x, is_bf16);
        for (i64 g = 0; g < t->group; g++) {
            float *dq = dq_rows(b, w, g, worker);
            x.head = w->kv_head * t->group + g;
            x.query = i64_max(w->query, x.key / BACK_QUERIES * BACK_QUERIES);
            for (; x.query < w->query_end; x.query += BACK_QUERIES) {
                if (key_low(t, w->run + x.query) >= x.key + x.keys) break;
                x.queries = i64_min(BACK_QUERIES, w->query_end - x.query);
                x.masked = x.query + 1 < x.key + x.keys ||
                           key_low(t, w->run + x.query + x.queries - 1) > x.key;
                block_run(b, w, &x, dq + x.query * t->lanes, is_bf16);
            }
        }
        keys_end(b, w, &x, is_bf16);
    }
    if (w->part != PART_KEYS) dq_end(b, w, worker, is_bf16);
}
static __attribute__((noinline)) void piece_f32(const struct back *b, const struct piece *w,
                                                int worker) {
    piece_run(b, w, worker, false);
}
static __attribute__((noinline)) void piece_half(const struct back *b, const struct piece *w,
                                                 int worker) {
    piece_run(b, w, worker, true);
}

/* Visible pairs in whole blocks, roughly. */
static double piece_cost(const struct attention *t, const struct piece *w) {
    double pairs = 1;
    for (i64 q = w->query; q < w->query_end; q += BACK_QUERIES) {
        const i64 low = i64_max(w->key, key_low(t, w->run + q)),
                  high = i64_min(w->key_end, q + BACK_QUERIES / 2);
        pairs += (double)i64_max(0, high - low);
    }
    return pairs;
}

/* Calls `fn` for all pieces of a pass, in order. */
typedef void piece_fn(void *arg, const struct piece *w, double cost);
static void pieces_walk(const struct attention *t, enum part part, piece_fn *fn, void *arg) {
    for (i64 run = 0, end; run < t->queries; run = end) {
        end = run_end(t, run);
        const i64 count = end - run, step = part == PART_ALL    ? count
                                            : part == PART_KEYS ? BACK_KEYS
                                                                : 4 * BACK_QUERIES;
        for (i64 h = 0; h < t->kv_heads; h++)
            for (i64 at = 0; at < count; at += step) {
                const i64 past = i64_min(at + step, count);
                struct piece w = {run, h, 0, count, 0, count, part};
                if (part == PART_KEYS)
                    w.key = at, w.key_end = past, w.query = at / BACK_QUERIES * BACK_QUERIES;
                if (part == PART_QUERIES) w.query = at, w.query_end = w.key_end = past;
                fn(arg, &w, piece_cost(t, &w));
            }
    }
}

static void piece_count(void *arg, const struct piece *w, double cost) {
    (void)w;
    *(double *)arg += cost;
}

struct load {
    struct share share;
    i64 now;
    double sum, most;
};
static void piece_load(void *arg, const struct piece *w, double cost) {
    (void)w;
    struct load *l = arg;
    const i64 share = share_of(&l->share, cost);
    if (share != l->now) l->sum = 0, l->now = share;
    l->sum += cost;
    if (l->sum > l->most) l->most = l->sum;
}

struct worker {
    const struct back *b;
    struct share share;
    i64 begin, end;
    int number;
};
static void piece_take(void *arg, const struct piece *piece, double cost) {
    struct worker *w = arg;
    const i64 share = share_of(&w->share, cost);
    if (share < w->begin || share >= w->end) return;
    if (w->b->is_bf16)
        piece_half(w->b, piece, w->number);
    else
        piece_f32(w->b, piece, w->number);
}
static void back_work(void *arg, i64 begin, i64 end, int number) {
    const struct back *b = arg;
    struct worker w = {b, {.total = b->total, .shares = pool_threads()}, begin, end, number};
    pieces_walk(&b->t, b->part, piece_take, &w);
}
static void pass_run(struct back *b, enum part part) {
    b->part = part, b->total = 0;
    pieces_walk(&b->t, part, piece_count, &b->total);
    pool_run(pool_threads(), back_work, b);
}

static void delta_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct back *b = arg;
    const struct attention *t = &b->t;
    for (i64 i = begin; i < end; i++)
        for (i64 h = 0; h < t->heads; h++) {
            v16 sum = v16_set(0);
            for (i64 d = 0; d < t->value_dim; d += 16) {
                const i64 at = i * t->o_row + h * t->value_dim + d, left = t->value_dim - d;
                sum = v16_fma(v16_get_n(b->dout, at, left, b->is_bf16),
                              v16_get_n(t->call->in[4].data, at, left, b->is_bf16), sum);
            }
            b->delta[h * t->queries + i] = v16_sum(sum);
        }
}

static int training_form(const struct attention *t, struct err *e) {
    for (i64 i = 0; i < t->queries; i++) {
        const bool starts = i == 0 || t->begin[i] != t->begin[i - 1];
        if (t->last[i] == i && (starts ? t->begin[i] == i : t->begin[i] < i)) continue;
        err_failed(e, "operation attention_back: query %lld sees keys %d to %d", (long long)i,
                   t->begin[i], t->last[i]);
        return err_detail(e, "expected the training form: each document's queries in a row, each "
                             "seeing from the document's first up to itself");
    }
    return 0;
}

CPU_KERNEL(attention_back) {
    struct back b = {.t = attention_of(c, 1, 6),
                     .dout = c->in[0].data,
                     .lse = c->in[5].data,
                     .scratch = c->scratch,
                     .is_bf16 = view_is_bf16(&c->in[1])};
    const struct attention *t = &b.t;
    if (attention_indexes(t, e) || training_form(t, e)) return -1;
    b.dq = (float *)(b.scratch + pool_threads() * back_units(t));
    b.delta = b.dq + back_slots(t) * t->group * t->queries * t->lanes;
    pool_run(t->queries, delta_rows, &b);
    struct load load = {.share = {.shares = pool_threads()}, .now = -1};
    pieces_walk(t, PART_ALL, piece_count, &load.share.total);
    const double even = load.share.total / pool_threads();
    pieces_walk(t, PART_ALL, piece_load, &load);
    if (load.most * 5 <= even * 7) {
        pass_run(&b, PART_ALL);
    } else {
        pass_run(&b, PART_KEYS);
        pass_run(&b, PART_QUERIES);
    }
    return 0;
}
