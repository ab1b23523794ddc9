/* linear_int8_cuda.cu: linear_int8 (NUMERICS.md 15). Activations become whole numbers in a kernel
 * of their own, a thread for each block. Then a warp has one row of y and one of w: its lanes have
 * a block each, whose sum of whole numbers is exact, and the chain over the 32 blocks goes through
 * shuffles, ascending. A low rank goes by linear's products from x itself. */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"
#include "ops/int8_codes.h"

struct int8_sizes {
    i64 n, in, out, blocks, bytes, block;
    enum int8_form form;
};

__global__ void int8_quantise_kernel(const void *x, bool is_bf16, signed char *to, float *e,
                                     struct int8_sizes s) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 b = (i64)blockIdx.x * blockDim.x + threadIdx.x; b < s.n * s.blocks; b += stride) {
        float a = 0;
        bool finite = true;
        for (i64 i = b * s.block; i < (b + 1) * s.block; i++) {
            const float v = get1(x, i, is_bf16);
            a = v16_max(v16_abs(v), a), finite &= v16_sub(v, v) == 0;
        }
        const float inverse = v16_div(127, a);
        const bool some = finite && a > 0 && v16_sub(inverse, inverse) == 0;
        e[b] = !finite ? packing_bits(0x7fc00000u) : some ? v16_div(a, 127) : 0;
        for (i64 i = b * s.block; i < (b + 1) * s.block; i++)
            to[i] = some ? (signed char)v16_round(v16_mul(get1(x, i, is_bf16), inverse)) : 0;
    }
}

/* What a block adds to the chain: fma(sum, scale, ...), and with minima fma(least, low, ...). */
struct int8_terms {
    float sum, scale, least, low;
};
DEVICE struct int8_terms int8_block(const u8 *w, const signed char *x, float e, enum int8_form f) {
    struct int8_terms t;
    const bool k = f >= INT8_Q4_K, minima = int8_has_minima(f);
    i32 sum = 0, least = 0;
    for (i64 i = 0; i < int8_elements(f); i++) {
        sum += (k ? int8_part_scale(f, w, i) : 1) * int8_code(f, w, i) * x[i];
        if (minima) least += (k ? int8_part_min(w, i) : 1) * x[i];
    }
    t.sum = (float)sum, t.scale = v16_mul(int8_d(f, w), e);
    t.least = (float)least, t.low = minima ? v16_mul(int8_m(w), e) : 0;
    if (k) t.low = -t.low;
    return t;
}

__global__ void int8_rows_kernel(const u8 *w, const signed char *x, const float *e, float *sum,
                                 const void *bias, void *y, bool is_bf16, struct int8_sizes s) {
    const int lane = (int)threadIdx.x % 32;
    const i64 warps = (i64)gridDim.x * (blockDim.x / 32);
    for (i64 at = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; at < s.n * s.out;
         at += warps) {
        const i64 r = at / s.out, o = at % s.out;
        float c = 0;
        for (i64 first = 0; first < s.blocks; first += 32) {
            const i64 b = first + lane, count = s.blocks - first < 32 ? s.blocks - first : 32;
            struct int8_terms t = {0, 0, 0, 0};
            if (b < s.blocks)
                t = int8_block(w + (o * s.blocks + b) * s.bytes, x + r * s.in + b * s.block,
                               e[r * s.blocks + b], s.form);
            for (int k = 0; k < count; k++) {
                const float part = __shfl_sync(0xffffffffu, t.sum, k),
                            scale = __shfl_sync(0xffffffffu, t.scale, k),
                            least = __shfl_sync(0xffffffffu, t.least, k),
                            low = __shfl_sync(0xffffffffu, t.low, k);
                c = v16_fma(part, scale, c);
                if (int8_has_minima(s.form)) c = v16_fma(least, low, c);
            }
        }
        if (lane) continue;
        if (sum)
            sum[at] = c;
        else
            put1(y, at, bias ? v16_add(c, get1(bias, o, is_bf16)) : c, is_bf16);
    }
}

/* y = fma(scale, u, sum) + bias */
__global__ void int8_low_kernel(const float *sum, const float *u, float scale, const void *bias,
                                void *y, bool is_bf16, struct int8_sizes s) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < s.n * s.out; i += stride) {
        float v = v16_fma(scale, u[i], sum[i]);
        if (bias) v = v16_add(v, get1(bias, i % s.out, is_bf16));
        put1(y, i, v, is_bf16);
    }
}

CUDA_KERNEL(linear_int8) {
    const struct view *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    const enum int8_form f = w->packing->int8;
    const bool is_bf16 = view_is_bf16(x), low = is_present(&c->in[3]);
    const struct int8_sizes s = {
        x->dim[0],     x->dim[1],        w->dim[0], x->dim[1] / int8_elements(f),
        int8_bytes(f), int8_elements(f), f};
    float *sum = (float *)c->scratch, *u = sum + (low ? s.n * s.out : 0),
          *scales = u + (low ? s.n * s.out : 0);
    signed char *whole = (signed char *)(scales + s.n * s.blocks);
    if (LAUNCH(e, int8_quantise_kernel, grid_for(s.n * s.blocks, 128), 128, 0, x->data, is_bf16,
               whole, scales, s) ||
        LAUNCH(e, int8_rows_kernel, grid_for(s.n * s.out, 4), 128, 0, (const u8 *)w->data, whole,
               scales, low ? sum : NULL, c->in[2].data, y->data, is_bf16, s))
        return -1;
    if (!low) return 0;
    struct view wide = c->out[0]; /* u, as y but f32 */
    wide.data = u, wide.dtype = F32;
    const struct gemm t = gemm_views(x, &c->in[3], true, &c->out[1]),
                      ub = gemm_views(&c->out[1], &c->in[4], true, &wide);
    return gemm_cuda(&t, e) || gemm_cuda(&ub, e) ||
                   LAUNCH(e, int8_low_kernel, grid_for(s.n * s.out, 256), 256, 0, sum, u,
                          (float)((const struct lora_attr *)c->attr)->scale, c->in[2].data, y->data,
                          is_bf16, s)
               ? -1
               : 0;
}
