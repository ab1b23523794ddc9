/* sink_cuda.cu: what gradients of attention take from rows of do and o alone: delta, for the
 * portable kernels (attention.c); and the gradient of the sinks, what each query adds and then a
 * chain for each head (columns_cuda.cu; sink.c; `fast` is the same). A row for each query and head:
 * 16 lanes, 16 queries a block. */
#include "ops/attention/attention_cuda.h"

template <bool is_bf16> __global__ void delta_kernel(const __grid_constant__ device_attention t) {
    const i64 i = (i64)blockIdx.x * 16 + threadIdx.x / 16, head = blockIdx.y;
    const bool own = i < t.queries;
    const float sum =
        head_dot<is_bf16>(t.dout, t.o, i * t.o_row + head * t.value_dim, own ? t.value_dim : 0);
    if (!own || threadIdx.x % 16) return;
    t.delta[head * t.queries + i] = sum;
    if (!head) keys_trained(t, i, true);
}
int attention_delta(const device_attention *t, struct err *e) {
    const dim3 grid((unsigned)((t->queries + 15) / 16), (unsigned)t->heads);
    return view_is_bf16(&t->call->in[0]) ? LAUNCH(e, delta_kernel<true>, grid, 256, 0, *t)
                                         : LAUNCH(e, delta_kernel<false>, grid, 256, 0, *t);
}

struct sinks {
    const void *dout, *o, *sink;
    const float *lse;
    float *part; /* [queries][heads] */
    i64 queries, heads, dim;
    bool sink_half;
};

template <bool is_bf16> __global__ void sink_kernel(const __grid_constant__ struct sinks s) {
    const i64 i = (i64)blockIdx.x * 16 + threadIdx.x / 16, head = blockIdx.y;
    const bool own = i < s.queries;
    const float delta =
        head_dot<is_bf16>(s.dout, s.o, (i * s.heads + head) * s.dim, own ? s.dim : 0);
    if (!own || threadIdx.x % 16) return;
    const float sink = get1(s.sink, head, s.sink_half), lse = s.lse[head * s.queries + i];
    s.part[i * s.heads + head] = v16_mul(v16_sub(0, v16_exp(v16_sub(sink, lse))), delta);
}

CUDA_KERNEL(sink_back) {
    const struct attention_attr *a = (const struct attention_attr *)c->attr;
    const struct sinks s = {
        c->in[0].data,          c->in[1].data,   c->in[3].data, (const float *)c->in[2].data,
        (float *)c->scratch,    c->in[0].dim[0], a->heads,      value_dim(a),
        view_is_bf16(&c->in[3])};
    const dim3 grid((unsigned)((s.queries + 15) / 16), (unsigned)s.heads);
    if ((view_is_bf16(&c->in[0]) ? LAUNCH(e, sink_kernel<true>, grid, 256, 0, s)
                                 : LAUNCH(e, sink_kernel<false>, grid, 256, 0, s)) != 0)
        return -1;
    const struct columns chains = {.dy = s.part,
                                   .sum = (float *)c->out[0].data,
                                   .rows = s.queries,
                                   .cols = s.heads,
                                   .heads = 1};
    return column_sums(chains, false, e);
}
