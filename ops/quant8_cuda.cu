/* quant8_cuda.cu: 8-bit blocks; formulas in quant8.c. A block of threads takes a block of 256
 * values, one a thread: the largest magnitude goes through shuffles and shared memory, the code is
 * sought by halving among the middles, which lie in shared memory; every fourth thread stores four
 * of them. */
extern "C" {
#include "base/quant.h"
}
#include "ops/device/cuda_vec.h"

enum { BLOCK = QUANT_BLOCK2 };

__global__ void quant8_kernel(const float *x, const float *map, u8 *codes, float *absmax, i64 count,
                              i64 blocks) {
    SHARED(float, middle, 256);
    SHARED(float, top, BLOCK / 32);
    SHARED(u32, code, BLOCK);
    const bool whole = (uintptr_t)codes % 4 == 0;
    const int t = (int)threadIdx.x;
    if (t < 255) middle[t] = v16_mul(v16_add(map[t], map[t + 1]), 0.5f);
    for (i64 b = blockIdx.x; b < blocks; b += gridDim.x) {
        const i64 i = b * BLOCK + t;
        const float value = i < count ? x[i] : 0;
        float most = v16_abs(value);
        for (int step = 16; step; step >>= 1)
            most = v16_max(most, __shfl_xor_sync(0xffffffffu, most, step, 32));
        if (t % 32 == 0) top[t / 32] = most;
        __syncthreads();
        most = top[0];
        for (int w = 1; w < BLOCK / 32; w++) most = v16_max(most, top[w]);
        const float z = v16_div(value, most > 0 ? most : 1.0f);
        int below = 0;
#pragma unroll
        for (int step = 128; step; step >>= 1) below += middle[below + step - 1] < z ? step : 0;
        code[t] = (u32)below;
        if (!t) absmax[b] = most;
        __syncthreads();
        if (t % 4 == 0 && whole && i + 4 <= count)
            *(u32 *)(codes + i) =
                code[t] | code[t + 1] << 8 | code[t + 2] << 16 | code[t + 3] << 24;
        else if (t % 4 == 0)
            for (int k = 0; k < 4 && i + k < count; k++) codes[i + k] = (u8)code[t + k];
        __syncthreads();
    }
}
CUDA_KERNEL(quant8) {
    const i64 blocks = view_count(&c->out[1]);
    return LAUNCH(e, quant8_kernel, grid_for(blocks, 1), BLOCK, 0, (const float *)c->in[0].data,
                  (const float *)c->in[1].data, (u8 *)c->out[0].data, (float *)c->out[1].data,
                  view_count(&c->in[0]), blocks);
}

__global__ void dequant8_kernel(const u8 *codes, const float *absmax, const float *map, float *x,
                                i64 count) {
    SHARED(float, table, 256);
    table[threadIdx.x] = map[threadIdx.x];
    __syncthreads();
    const i64 stride = (i64)gridDim.x * BLOCK;
    for (i64 i = (i64)blockIdx.x * BLOCK + threadIdx.x; i < count; i += stride)
        x[i] = v16_mul(table[codes[i]], absmax[i / BLOCK]);
}
CUDA_KERNEL(dequant8) {
    const i64 count = view_count(&c->in[0]);
    return LAUNCH(e, dequant8_kernel, grid_for(count, BLOCK), BLOCK, 0, (const u8 *)c->in[0].data,
                  (const float *)c->in[1].data, (const float *)c->in[2].data,
                  (float *)c->out[0].data, count);
}
