/* attention_int.h: what the files of attention share: block sizes, visible ranges, scratch sizes.
 * The numeric definition is at the head of attention.c. */
#ifndef HONE_ATTENTION_INT_H
#define HONE_ATTENTION_INT_H

#include "ops/ops_int.h"

/* KEY_BLOCK is part of the definition: changing it changes bits. The others are tuned (attention.c,
 * "Block sizes") and free: FORWARD_ROWS rows (queries x heads of a group) share one packing of a
 * key block and are worked on FORWARD_PANEL at a time; the backward pass goes by BACK_KEYS x
 * BACK_QUERIES. */
enum {
    KEY_BLOCK = 64,
    FORWARD_ROWS = 240,
    FORWARD_PANEL = 24,
    BACK_KEYS = 128,
    BACK_QUERIES = 64,
};

static inline i64 value_dim(const struct attention_attr *a) {
    return a->value_dim ? a->value_dim : a->head_dim;
}

/* The arguments both directions share. */
struct attention {
    const struct op_call *call;
    const struct attention_attr *attr;
    const void *q, *k, *v;
    const i32 *begin, *last;
    const void *sink;            /* or NULL */
    const float *slopes;         /* or NULL */
    const i32 *pages, *sequence; /* or NULL: [sequences][page_count], [queries] */
    i64 sequences, page_count;
    i64 queries, keys, heads, kv_heads, group, head_dim, value_dim;
    i64 q_row, k_row, v_row, o_row; /* elements from one row to the next */
    i64 lanes, value_lanes;         /* head_dim, value_dim in whole vectors of 16 */
    float scale, cap, cap_inverse;
    bool sink_half, alibi_bf16;
};
/* first: index of q in in[]; begin: of begin */
struct attention attention_of(const struct op_call *c, int first, int begin);
int attention_indexes(const struct attention *t, struct err *e); /* refuses what is out of range */

/* Places that a query can ask for: rows of k, or what its page table has room for. */
static inline i64 key_places(const struct attention *t) {
    return t->pages ? t->page_count * ATTENTION_PAGE : t->keys;
}
/* The row in k and v of key j of query i, counted from its begin. */
static inline i64 key_row(const struct attention *t, i64 i, i64 j) {
    const i64 place = t->begin[i] + j;
    if (!t->pages) return place;
    const i32 *page = t->pages + t->sequence[i] * t->page_count;
    return page[place / ATTENTION_PAGE] * (i64)ATTENTION_PAGE + place % ATTENTION_PAGE;
}
/* The keys query i sees, counted from its begin: low <= j < high. */
static inline i64 key_high(const struct attention *t, i64 i) {
    return i64_max(0, (i64)t->last[i] + 1 - t->begin[i]);
}
static inline i64 key_low(const struct attention *t, i64 i) {
    const i64 window = t->attr->window;
    return window > 0 ? i64_max(0, key_high(t, i) - window) : 0;
}
/* Where the running maximum of a head starts; the sum then starts from 1. */
static inline float sink_of(const struct attention *t, i64 head) {
    return (t->sink_half ? bf16_to_f32(((const u16 *)t->sink)[head])
                         : ((const float *)t->sink)[head]) +
           0;
}
/* What a key's place is multiplied by; and which place counts as 0, from begin. */
static inline float slope_of(const struct attention *t, i64 head) {
    return t->alibi_bf16 ? bf16_to_f32(bf16_of_f32(t->slopes[head])) : t->slopes[head] / t->scale;
}
static inline i64 slope_origin(const struct attention *t, i64 high) {
    return t->alibi_bf16 ? 0 : high - 1;
}
/* The end of the run of equal begin, in one sequence, that starts at query i. */
static inline i64 run_end(const struct attention *t, i64 i) {
    i64 end = i + 1;
    while (end < t->queries && t->begin[end] == t->begin[i] &&
           (!t->pages || t->sequence[end] == t->sequence[i]))
        end++;
    return end;
}

/* attention_samples.c */
bool attention_sample(int index, struct sample *s);
bool attention_back_sample(int index, struct sample *s);

/* On the GPU: does `fast` take tensor cores; is each query a tile of its own (decoding); into how
 * many parts are its keys cut: for about two blocks on each of 132 multiprocessors, but of 256 keys
 * or more (attention_cuda.cu). */
bool attention_on_tensor_cores(const struct attention *t);
bool attention_by_query(const struct attention *t);
i64 attention_splits(const struct attention *t);

/* Scratch, in 4-byte units; all multiples of 16. */
i64 forward_units(const struct attention *t); /* per worker */
i64 back_units(const struct attention *t);    /* per worker, without dq */
i64 back_slots(const struct attention *t);    /* accumulators of dq: one per worker or kv head */
static inline i64 forward_rows(const struct attention *t) {
    return round_up(i64_max(FORWARD_ROWS, t->group), 16);
}

/* A share of uneven work: items come with their cost, in order; item number n belongs to the share
 * in which the middle of its cost lies. Depends on shapes and on the number of shares only. */
struct share {
    double total, done;
    i64 shares;
};
static inline i64 share_of(struct share *s, double cost) {
    const double middle = s->done + cost / 2;
    s->done += cost;
    return i64_min(s->shares - 1, (i64)(middle * (double)s->shares / s->total));
}

#endif
