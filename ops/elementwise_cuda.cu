/* elementwise_cuda.cu: one pass over memory; formulas in elementwise.c. Each thread takes 16 bytes
 * at a time (4 floats, 8 bf16); what is left at the end, or everything where a pointer is not
 * aligned to 16 bytes, goes one by one. */
#include "ops/cuda_vec.h"

struct swiglu_op {
    DEVICE void one(const float x[2], float y[1]) {
        y[0] = v16_mul(v16_mul(x[0], v16_sigmoid(x[0])), x[1]);
    }
};
struct swiglu_back_op {
    DEVICE void one(const float x[3], float y[2]) { /* dy, gate, up -> dgate, dup */
        const float s = v16_sigmoid(x[1]);
        const float slope = v16_mul(s, v16_fma(x[1], v16_sub(1, s), 1));
        y[0] = v16_mul(v16_mul(x[0], x[2]), slope);
        y[1] = v16_mul(x[0], v16_mul(x[1], s));
    }
};
struct add_op {
    DEVICE void one(const float x[2], float y[1]) { y[0] = v16_add(x[0], x[1]); }
};

template <class Op, int Ins, int Outs, bool half>
__global__ void map_kernel(struct pointers<Ins, Outs> p, i64 count, bool wide) {
    constexpr int width = half ? 8 : 4;
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x,
              stride = (i64)gridDim.x * blockDim.x, vectors = wide ? count / width : 0;
    for (i64 i = thread; i < vectors; i += stride) {
        float x[Ins][width], y[Outs][width];
#pragma unroll
        for (int k = 0; k < Ins; k++) vec_load<half>(x[k], p.in[k], i * width);
#pragma unroll
        for (int n = 0; n < width; n++) {
            float a[Ins], b[Outs];
#pragma unroll
            for (int k = 0; k < Ins; k++) a[k] = x[k][n];
            Op::one(a, b);
#pragma unroll
            for (int k = 0; k < Outs; k++) y[k][n] = b[k];
        }
#pragma unroll
        for (int k = 0; k < Outs; k++)
            if (p.out[k]) vec_store<half>(p.out[k], i * width, y[k]);
    }
    for (i64 i = vectors * width + thread; i < count; i += stride) {
        float a[Ins], b[Outs];
        for (int k = 0; k < Ins; k++) a[k] = get1(p.in[k], i, half);
        Op::one(a, b);
        for (int k = 0; k < Outs; k++)
            if (p.out[k]) put1(p.out[k], i, b[k], half);
    }
}

template <class Op, int Ins, int Outs> static int map_run(const struct op_call *c, struct err *e) {
    struct pointers<Ins, Outs> p;
    for (int k = 0; k < Ins; k++) p.in[k] = c->in[k].data;
    for (int k = 0; k < Outs; k++) p.out[k] = c->out[k].data;
    const bool half = is_half(&c->in[0]), wide = aligned16(p.in, Ins) && aligned16(p.out, Outs);
    const i64 count = view_count(&c->in[0]);
    const int blocks = grid_for(count / (wide ? half ? 8 : 4 : 1) + 1, 256);
    return half ? LAUNCH(e, (map_kernel<Op, Ins, Outs, true>), blocks, 256, 0, p, count, wide)
                : LAUNCH(e, (map_kernel<Op, Ins, Outs, false>), blocks, 256, 0, p, count, wide);
}
CUDA_KERNEL(swiglu) { return map_run<swiglu_op, 2, 1>(c, e); }
CUDA_KERNEL(swiglu_back) { return map_run<swiglu_back_op, 3, 2>(c, e); }
CUDA_KERNEL(add) { return map_run<add_op, 2, 1>(c, e); }
