/* cuda_vec.h: 16-byte accesses and grid sizes, for the kernels that memory bounds. */
#ifndef HONE_CUDA_VEC_H
#define HONE_CUDA_VEC_H

#include "ops/device/cuda.h"

template <int Ins, int Outs> struct pointers {
    const void *in[Ins];
    void *out[Outs]; /* NULL: not wanted */
};

/* 4 floats or 8 bf16 at element i of p, 16-byte aligned. */
template <bool is_bf16> DEVICE void vec_unpack(float *to, uint4 v) {
    const u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (is_bf16)
            to[2 * k] = of_bits(w[k] << 16), to[2 * k + 1] = of_bits(w[k] & 0xffff0000u);
        else
            to[k] = of_bits(w[k]);
}
template <bool is_bf16> DEVICE const uint4 *vec_at(const void *p, i64 i) {
    return (const uint4 *)((const u8 *)p + i * (is_bf16 ? 2 : 4));
}
template <bool is_bf16> DEVICE void vec_load(float *to, const void *p, i64 i) {
    vec_unpack<is_bf16>(to, *vec_at<is_bf16>(p, i));
}
template <bool is_bf16> DEVICE void vec_store(void *p, i64 i, const float *from) {
    if (is_bf16) {
        u32 w[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            w[k] = put_bf16(from[2 * k]) | (u32)put_bf16(from[2 * k + 1]) << 16;
        *(uint4 *)((u16 *)p + i) = make_uint4(w[0], w[1], w[2], w[3]);
    } else {
        *(float4 *)((float *)p + i) = make_float4(from[0], from[1], from[2], from[3]);
    }
}

/* `wide`: 16 bytes as above; otherwise one element. */
template <bool is_bf16, bool wide> DEVICE void span_load(float *to, const void *p, i64 i) {
    if (wide)
        vec_load<is_bf16>(to, p, i);
    else
        to[0] = get1(p, i, is_bf16);
}
/* The same of memory that nobody writes meanwhile: may be asked for before earlier stores. */
template <bool is_bf16, bool wide> DEVICE void span_fetch(float *to, const void *p, i64 i) {
    if (wide)
        vec_unpack<is_bf16>(to, __ldg(vec_at<is_bf16>(p, i)));
    else
        to[0] = get1(p, i, is_bf16);
}
template <bool is_bf16, bool wide> DEVICE void span_store(void *p, i64 i, const float *from) {
    if (wide)
        vec_store<is_bf16>(p, i, from);
    else
        put1(p, i, from[0], is_bf16);
}
template <bool is_bf16, bool wide> constexpr int span_width = wide ? is_bf16 ? 8 : 4 : 1;

/* A warp's copy of `bytes`, a multiple of 16, to shared memory: under way until copy_async_wait. */
DEVICE void stage(u8 *shared, const void *global, int bytes) {
    for (int i = (int)threadIdx.x % 32 * 16; i < bytes; i += 512)
        copy_async16(shared + i, (const u8 *)global + i, true);
}

template <class Pointer> static inline bool aligned16(Pointer const *p, int count) {
    for (int i = 0; i < count; i++)
        if ((uintptr_t)p[i] % 16) return false;
    return true;
}

/* Blocks for a loop with stride over `work` items: enough to fill the machine some times over. */
static inline int grid_for(i64 work, int block) {
    return (int)i64_max(1, i64_min((work + block - 1) / block, (i64)cuda_machine.sms * 16));
}

/* columns_cuda.cu: sum[c] = fma(dy[n][c], (x[n][c] - mean[n]) * scale[n], sum[c]), n ascending;
 * mean NULL: nothing is subtracted; x NULL: sum[c] += dy[n][c]. `heads` over 1: mean and scale are
 * those of n * heads + c / (cols / heads). */
struct columns {
    const void *dy, *x;
    const float *mean, *scale;
    float *sum;
    i64 rows, cols, heads;
};
int column_sums(const struct columns &a, bool is_bf16, struct err *e);

#endif
