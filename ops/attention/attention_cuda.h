/* attention_cuda.h: what the CUDA kernels of attention share: the arguments as a kernel sees them,
 * and the range of keys of a query. Definition: attention.c. */
#ifndef HONE_ATTENTION_CUDA_H
#define HONE_ATTENTION_CUDA_H

#include "ops/device/cuda_vec.h"
extern "C" {
#include "ops/attention/attention_int.h"
}

struct device_attention : attention {
    i64 window;
    float raw_scale; /* of q·k, with or without softcap */
    bool wide;       /* heads may be read 16 bytes at a time */
    struct fault_word *fault;
    void *o;    /* forward: the results */
    float *lse; /* forward: written; backward: read */
    /* backward */
    const void *dout;
    void *dq, *dk, *dv;
    float *delta; /* [heads, queries] */
};

/* first, begin: as in attention_of */
static inline device_attention device_attention_of(const struct op_call *c, int first, int begin) {
    device_attention t = {};
    (struct attention &)t = attention_of(c, first, begin);
    t.window = t.attr->window, t.raw_scale = (float)t.attr->scale, t.fault = cuda_fault_word;
    const void *wide[] = {t.q, t.k, t.v, c->in[0].data, c->out[0].data};
    t.wide = t.head_dim % 8 == 0 && t.value_dim % 8 == 0 && aligned16(wide, 5);
    return t;
}
static inline device_attention device_back_of(const struct op_call *c) {
    device_attention t = device_attention_of(c, 1, 6);
    t.dout = c->in[0].data, t.o = c->in[4].data, t.lse = (float *)c->in[5].data,
    t.delta = (float *)c->scratch;
    t.dq = c->out[0].data, t.dk = c->out[1].data, t.dv = c->out[2].data;
    const void *wide[] = {t.dq, t.dk, t.dv, t.o};
    t.wide = t.wide && aligned16(wide, 4);
    return t;
}

/* The keys low <= j < high that query i sees, counted from its begin. None if the query asks for
 * keys that there are not, which is reported. With pages, bits 32.. of begin are the sequence. */
struct key_range {
    i64 begin;
    int low, high;
};
DEVICE key_range keys_bad(const device_attention &t, enum bad kind, i64 value, i64 i, i64 limit,
                          bool report) {
    if (report) fault_set(t.fault, kind, value, i, limit);
    return {0, 0, 0};
}
DEVICE key_range keys_seen(const device_attention &t, i64 i, bool paged, bool report) {
    const i32 begin = t.begin[i], last = t.last[i], sequence = paged ? t.sequence[i] : 0;
    const i64 places = !paged                    ? t.keys
                       : t.keys < ATTENTION_PAGE ? 0
                                                 : t.page_count * ATTENTION_PAGE;
    const bool outside = begin < 0 || begin > places;
    if (outside || last < -1 || last >= places)
        return keys_bad(t, BAD_KEYS, outside ? begin : last, i, places, report);
    if (paged && (sequence < 0 || sequence >= t.sequences))
        return keys_bad(t, BAD_SEQUENCE, sequence, i, t.sequences, report);
    if (paged && begin % KEY_BLOCK) return keys_bad(t, BAD_BEGIN, begin, i, KEY_BLOCK, report);
    const int high = last < begin ? 0 : last + 1 - begin,
              low = t.window > 0 && t.window < high ? high - (int)t.window : 0;
    return {begin | (i64)sequence << 32, low, high};
}
/* The row in k and v of the key `at` after a range's begin; of a page that there is not, which is
 * reported, one that there is. */
DEVICE i64 key_row_at(const device_attention &t, i64 begin, int at, i64 query) {
    if (!t.pages) return begin + at;
    const i64 place = (i32)begin + (i64)at;
    const i32 page = t.pages[(begin >> 32) * t.page_count + place / ATTENTION_PAGE];
    if (page >= 0 && page < t.keys / ATTENTION_PAGE)
        return (i64)page * ATTENTION_PAGE + place % ATTENTION_PAGE;
    fault_set(t.fault, BAD_PAGE, page, query, t.keys / ATTENTION_PAGE);
    return place % ATTENTION_PAGE;
}
/* The same in the training form: query i is key i, and sees its document up to itself. */
DEVICE key_range keys_trained(const device_attention &t, i64 i, bool report) {
    const i32 begin = t.begin[i];
    if (t.last[i] == i && begin >= 0 && begin <= i) return keys_seen(t, i, false, report);
    if (report) fault_set(t.fault, BAD_KEYS, t.last[i], i, t.keys);
    return {-1, 0, 0};
}

/* Of 16 neighbouring threads: the row sum of x * y over n elements from `at` on. */
template <bool is_bf16> DEVICE float head_dot(const void *x, const void *y, i64 at, i64 n) {
    float sum = 0;
    for (i64 d = threadIdx.x % 16; d < (n + 15) / 16 * 16; d += 16)
        sum = v16_fma(d < n ? get1(x, at + d, is_bf16) : 0, d < n ? get1(y, at + d, is_bf16) : 0,
                      sum);
    return lanes_sum(sum);
}
/* Where the running maximum of a head starts, in natural units. */
DEVICE float sink_start(const device_attention &t, i64 head) {
    return v16_add(get1(t.sink, head, t.sink_half), 0);
}

int attention_portable(const device_attention *t, struct err *e);
int attention_back_portable(const device_attention *t, struct err *e); /* after delta */
int attention_delta(const device_attention *t, struct err *e); /* and checks begin and last */

#endif
