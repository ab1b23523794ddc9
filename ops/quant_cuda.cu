/* quant_cuda.cu: weights of 4-bit codes decoded to memory, before a product of many rows reads
 * them.
 *
 * A thread decodes 8 values, four bytes, which lie in one block: blocks are powers of two from 32
 * on. The table lies in shared memory, where 16 neighbours meet no bank conflict that matters.
 * Memory bounds it: half a byte read and two or four written per value. */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"

enum { EACH = 8, THREADS = 256 };

DEVICE float scale_at(const struct quant &q, i64 block) { /* quant_scale */
    if (!q.absmax2) return ((const float *)q.absmax)[block];
    return v16_add(
        v16_mul(q.code[QUANT_TABLE + ((const u8 *)q.absmax)[block]], q.absmax2[block >> q.shift2]),
        q.code[QUANT_TABLE_DOUBLE - 1]);
}

template <bool half>
__global__ void decode_kernel(void *to, struct quant q, const u8 *packed, i64 count) {
    SHARED(float, table, 16);
    if (threadIdx.x < 16) table[threadIdx.x] = q.code[threadIdx.x];
    __syncthreads();
    const i64 stride = (i64)gridDim.x * blockDim.x * EACH;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * EACH; i < count; i += stride) {
        const float scale = scale_at(q, i >> q.shift);
        const int bytes = count - i < EACH ? (int)(count - i + 1) / 2 : EACH / 2;
        float x[EACH];
#pragma unroll
        for (int n = 0; n < EACH; n += 2) {
            const int byte = n / 2 < bytes ? packed[i / 2 + n / 2] : 0;
            x[n] = v16_mul(table[byte >> 4], scale), x[n + 1] = v16_mul(table[byte & 15], scale);
        }
        if (i + EACH <= count) {
            vec_store<half>(to, i, x);
            if (!half) vec_store<half>(to, i + 4, x + 4);
        } else {
#pragma unroll
            for (int n = 0; n < EACH; n++)
                if (i + n < count) put1(to, i + n, x[n], half);
        }
    }
}

int quant_decode_cuda(void *to, const struct quant *q, const u8 *packed, i64 count, bool half,
                      struct err *e) {
    const int grid = grid_for((count + EACH - 1) / EACH, THREADS);
    return half ? LAUNCH(e, decode_kernel<true>, grid, THREADS, 0, to, *q, packed, count)
                : LAUNCH(e, decode_kernel<false>, grid, THREADS, 0, to, *q, packed, count);
}
