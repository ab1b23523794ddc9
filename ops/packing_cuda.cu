/* packing_cuda.cu: packed weights decoded to memory, before a product of many rows reads them: the
 * frames of packing.h. A thread decodes 8 values. Memory bounds it: a byte or half a byte read and
 * two or four written per value.
 *
 * scaled: the 8 values may belong to several runs, and then end one element at a time.
 * table: the 8 values, four bytes, lie in one block: blocks are powers of two from 32 on. The table
 * lies in shared memory, where 16 neighbours meet no bank conflict that matters. */
#include "ops/device/cuda_vec.h"
extern "C" {
#include "ops/packing.h"
}

enum { EACH = 8, THREADS = 256 };

DEVICE float scale_at(const struct quant &q, i64 block) { /* quant_scale */
    if (!q.absmax2) return ((const float *)q.absmax)[block];
    return v16_add(
        v16_mul(q.code[QUANT_TABLE + ((const u8 *)q.absmax)[block]], q.absmax2[block >> q.shift2]),
        q.code[QUANT_TABLE_DOUBLE - 1]);
}

template <bool is_bf16>
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
            vec_store<is_bf16>(to, i, x);
            if (!is_bf16) vec_store<is_bf16>(to, i + 4, x + 4);
        } else {
#pragma unroll
            for (int n = 0; n < EACH; n++)
                if (i + n < count) put1(to, i + n, x[n], is_bf16);
        }
    }
}

static int table_decode(void *to, const struct view *v, bool is_bf16, struct err *e) {
    const struct quant q = table_quant(v);
    const u8 *codes = (const u8 *)v->data;
    const i64 count = view_count(v);
    const int grid = grid_for((count + EACH - 1) / EACH, THREADS);
    return is_bf16 ? LAUNCH(e, decode_kernel<true>, grid, THREADS, 0, to, q, codes, count)
                   : LAUNCH(e, decode_kernel<false>, grid, THREADS, 0, to, q, codes, count);
}

/* T: a row of PACKING_LIST. */
template <class T, bool is_bf16> __global__ void scaled_kernel(void *to, struct view v, i64 count) {
    const i64 stride = (i64)gridDim.x * blockDim.x * EACH;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * EACH; i < count; i += stride) {
        struct packing_run r = T::run(v, i);
        const int n = count - i < EACH ? (int)(count - i) : EACH;
        i64 first = 0;
        float x[EACH];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            if (k < n && k - first >= r.count) first = k, r = T::run(v, i + k);
            x[k] = k < n ? v16_mul(T::value(r.code[k - first]), r.scale) : 0;
        }
        if (n == EACH) {
            vec_store<is_bf16>(to, i, x);
            if (!is_bf16) vec_store<is_bf16>(to, i + 4, x + 4);
        } else {
#pragma unroll
            for (int k = 0; k < EACH; k++)
                if (k < n) put1(to, i + k, x[k], is_bf16);
        }
    }
}
template <class T>
static int scaled_decode(void *to, const struct view *v, bool is_bf16, struct err *e) {
    const i64 count = view_count(v);
    const int grid = grid_for((count + EACH - 1) / EACH, THREADS);
    return is_bf16 ? LAUNCH(e, (scaled_kernel<T, true>), grid, THREADS, 0, to, *v, count)
                   : LAUNCH(e, (scaled_kernel<T, false>), grid, THREADS, 0, to, *v, count);
}

#define TYPE_table(id)
#define TYPE_scaled(id)                                                                            \
    struct id##_row {                                                                              \
        DEVICE struct packing_run run(const struct view &v, i64 i) { return id##_run(&v, i); }     \
        DEVICE float value(u8 code) { return id##_value((float)code); }                            \
    };
#define DECODE_scaled(id) scaled_decode<id##_row>(to, v, is_bf16, e)
#define DECODE_table(id)  table_decode(to, v, is_bf16, e)
#define X(id, text, frame)                                                                         \
    TYPE_##frame(id) extern "C" int packing_##id##_cuda(void *to, const struct view *v,            \
                                                        bool is_bf16, struct err *e) {             \
        return DECODE_##frame(id);                                                                 \
    }
PACKING_LIST(X)
#undef X
