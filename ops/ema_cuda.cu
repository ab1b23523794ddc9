/* ema_cuda.cu: a thread for each column, down or up the rows; formulas in ema.c. */
#include "ops/device/cuda_math.h"
#include "ops/device/cuda_vec.h"

struct average {
    const void *x;
    void *y;
    const i32 *position, *slot;
    float *state, decay;
    i64 rows, cols;
};
template <bool is_bf16> __global__ void ema_kernel(struct average a) {
    const i64 k = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= a.cols) return;
    float y = 0;
    for (i64 i = 0; i < a.rows; i++) {
        if (a.slot) y = a.state[a.slot[i] * a.cols + k];
        const float x = v16_mul(1 - a.decay, get1(a.x, i * a.cols + k, is_bf16));
        y = v16_fma(a.decay, a.position[i] ? y : 0, x);
        put1(a.y, i * a.cols + k, y, is_bf16);
        if (a.slot) a.state[a.slot[i] * a.cols + k] = y;
    }
}
template <bool is_bf16> __global__ void ema_back_kernel(struct average a) {
    const i64 k = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= a.cols) return;
    float s = 0;
    for (i64 i = a.rows; i-- > 0;) {
        if (i + 1 == a.rows || !a.position[i + 1]) s = 0;
        s = v16_fma(a.decay, s, get1(a.x, i * a.cols + k, is_bf16));
        put1(a.y, i * a.cols + k, v16_mul(1 - a.decay, s), is_bf16);
    }
}
static struct average average_of(const struct op_call *c) {
    struct average a = {};
    a.x = c->in[0].data, a.y = c->out[0].data;
    a.position = (const i32 *)c->in[1].data, a.slot = (const i32 *)c->in[2].data;
    a.state = (float *)c->out[1].data;
    a.decay = (float)((const struct ema_attr *)c->attr)->decay;
    a.rows = c->in[0].dim[0], a.cols = c->in[0].dim[1];
    return a;
}
static int forward(const struct op_call *c, struct err *e) {
    const struct average a = average_of(c);
    const int blocks = (int)((a.cols + 127) / 128);
    return view_is_bf16(&c->in[0]) ? LAUNCH(e, ema_kernel<true>, blocks, 128, 0, a)
                              : LAUNCH(e, ema_kernel<false>, blocks, 128, 0, a);
}
CUDA_KERNEL(ema) { return forward(c, e); }
CUDA_KERNEL(ema_step) { return forward(c, e); }
CUDA_KERNEL(ema_back) {
    const struct average a = average_of(c);
    const int blocks = (int)((a.cols + 127) / 128);
    return view_is_bf16(&c->in[0]) ? LAUNCH(e, ema_back_kernel<true>, blocks, 128, 0, a)
                              : LAUNCH(e, ema_back_kernel<false>, blocks, 128, 0, a);
}
