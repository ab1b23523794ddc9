/* dropout_cuda.cu: formulas and random numbers: dropout.c. A thread makes one block of four numbers
 * and four elements with it: the generator, not memory, is what takes the time. */
#include "ops/device/cuda_math.h"
#include "ops/device/cuda_vec.h"

struct dropout {
    const void *x;
    void *y;
    const i32 *place;
    struct rng rng; /* but for the step */
    double least;
    float scale;
    i64 rows;
    int cols;
};
template <bool is_bf16> __global__ void dropout_kernel(struct dropout a) {
    const i64 blocks = (a.cols + 3) / 4, stride = (i64)gridDim.x * blockDim.x;
    a.rng.step = (u32)a.place[0];
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < a.rows * blocks; i += stride) {
        const i64 row = i / blocks;
        const int col = (int)(i - row * blocks) * 4;
        u32 word[4];
        philox_block(&a.rng, (u64)(a.place[1] * blocks + i), word);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const i64 at = row * a.cols + col + k;
            if (col + k >= a.cols) break;
            const bool stays = (double)word[k] >= a.least;
            put1(a.y, at, stays ? v16_mul(get1(a.x, at, is_bf16), a.scale) : 0, is_bf16);
        }
    }
}
CUDA_KERNEL(dropout) {
    const struct dropout_attr *t = (const struct dropout_attr *)c->attr;
    struct dropout a = {};
    a.x = c->in[0].data, a.y = c->out[0].data, a.place = (const i32 *)c->in[1].data;
    a.rng.seed = t->seed, a.rng.purpose = RNG_DROPOUT, a.rng.stream = t->stream;
    a.least = t->p * 0x1p32, a.scale = (float)(1 / (1 - t->p));
    a.rows = c->in[0].dim[0], a.cols = (int)c->in[0].dim[1];
    const int blocks = grid_for(a.rows * ((a.cols + 3) / 4), 256);
    return view_is_bf16(&c->in[0]) ? LAUNCH(e, dropout_kernel<true>, blocks, 256, 0, a)
                                   : LAUNCH(e, dropout_kernel<false>, blocks, 256, 0, a);
}
