/* sink.c: the gradient of attention's sinks, one number a head. Formulas of attention: attention.c.
 *
 * do, o [N, heads * value_dim] in one dtype; lse [heads, N] f32; sink [heads] in that dtype or f32.
 *   dsink [heads] f32, added to: dsink_h = dsink_h + (0 - e^(sink_h - lse_hi)) * delta_hi, one f32
 *   addition per query, ascending; delta_hi = row sum of do * o by fma (NUMERICS.md 7)
 * e^(sink - lse) is the part of the softmax that no value gets. The chain goes on over
 * micro-batches as that of a bias does (NUMERICS.md 5). An operation of its own, and not an output
 * of attention_back, because that needs neither sinks nor a chain over queries: lse holds the sink
 * already. It reads do and o once more, which is little beside the products. */
#include "ops/attention/attention_int.h"

#include <math.h>

static int sink_back_shape(struct op_call *c, struct err *e) {
    const struct attention_attr *a = c->attr;
    const enum dtype d = c->in[0].dtype, sum = d == F64 ? F64 : F32;
    const i64 heads = a->heads;
    if (need_float(c, 0, e) || need_rank(c, 0, 2, e) ||
        need_dim(c, 0, 1, heads * value_dim(a), e) || need_same(c, 1, 0, e) ||
        need_rank(c, 2, 2, e) || need_dtype(c, 2, sum, e) || need_dim(c, 2, 0, heads, e) ||
        need_dim(c, 2, 1, c->in[0].dim[0], e) || need_rank(c, 3, 1, e) ||
        need_dtype(c, 3, c->in[3].dtype == F32 ? F32 : d, e) || need_dim(c, 3, 0, heads, e))
        return -1;
    return need_out(c, 0, sum, 1, &heads, e);
}

static i64 sink_back_scratch(const struct op_call *c) { return view_count(&c->in[2]) * 4; }

static void sink_back_ref(const struct op_call *c) {
    const struct attention_attr *a = c->attr;
    const double *dout = c->in[0].data, *o = c->in[1].data, *lse = c->in[2].data,
                 *sink = c->in[3].data;
    const i64 n = c->in[0].dim[0], dim = value_dim(a);
    for (i64 i = 0; i < n * a->heads; i++) {
        const i64 head = i % a->heads;
        double delta = 0;
        for (i64 d = 0; d < dim; d++) delta += dout[i * dim + d] * o[i * dim + d];
        ((double *)c->out[0].data)[head] -= exp(sink[head] - lse[head * n + i / a->heads]) * delta;
    }
}

static bool sink_back_sample(int index, struct sample *s) {
    static const i64 size[][3] = {{1, 1, 8}, {7, 3, 20}, {50, 5, 64}, {130, 2, 33}, {2048, 64, 64}};
    if (index >= COUNT(size)) return false;
    const i64 *d = size[index];
    *(struct attention_attr *)s->attr = (struct attention_attr){
        .heads = d[1], .kv_heads = d[1], .head_dim = 8, .scale = 1, .value_dim = d[2]};
    for (int i = 0; i < 2; i++) sample_float(&s->in[i], -1, 1, DIMS(d[0], d[1] * d[2]));
    sample_f32(&s->in[2], 1, 4, DIMS(d[1], d[0]));
    (index % 2 ? sample_f32 : sample_float)(&s->in[3], -1, 2, DIMS(d[1]));
    sample_out(&s->out[0], DIMS(d[1]));
    s->bench = bench_of(d[0]);
    return true;
}

const struct op op_sink_back = {
    .name = "sink_back",
    .in = "do o lse sink",
    .out = "+dsink",
    .attr_size = sizeof(struct attention_attr),
    .shape = sink_back_shape,
    .ref = sink_back_ref,
    .scratch = sink_back_scratch,
    .scratch_cuda = sink_back_scratch,
    .cpu = CPU(sink_back),
    .cuda = CUDA(sink_back),
    .sample = sink_back_sample,
    .bound = {16, 1},
};
