/* mla_cuda.cu: a thread takes 16 bytes of a row of the result (or one element, where sizes are not
 * whole vectors), and looks up where they come from; formulas in mla.c. */
#include "ops/device/cuda_vec.h"

enum { BLOCK = 256 };

struct parts {
    const void *a, *b; /* kv and turned; or dk and dv */
    void *x, *y;       /* k and v; or dkv and dturned */
    i64 rows;
    int heads, rope_dim, plain, value;
};

template <bool is_bf16, bool wide> __global__ void keys_kernel(struct parts p) {
    constexpr int width = span_width<is_bf16, wide>;
    const int key = p.rope_dim + p.plain, both = p.plain + p.value, items = (key + p.value) / width;
    const i64 stride = (i64)gridDim.x * BLOCK;
    for (i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x; at < p.rows * p.heads * items;
         at += stride) {
        const i64 head = at / items;
        const int d = (int)(at % items) * width;
        float x[width];
        if (d < p.rope_dim)
            span_fetch<is_bf16, wide>(x, p.b, head / p.heads * p.rope_dim + d);
        else
            span_fetch<is_bf16, wide>(x, p.a, head * both + d - p.rope_dim);
        if (d < key)
            span_store<is_bf16, wide>(p.x, head * key + d, x);
        else
            span_store<is_bf16, wide>(p.y, head * p.value + d - key, x);
    }
}
template <bool is_bf16, bool wide> __global__ void keys_back_kernel(struct parts p) {
    constexpr int width = span_width<is_bf16, wide>;
    const int key = p.rope_dim + p.plain, both = p.plain + p.value, items = both / width,
              sums = p.rope_dim / width;
    const i64 stride = (i64)gridDim.x * BLOCK, first = (i64)blockIdx.x * BLOCK + threadIdx.x;
    float x[width], sum[width];
    for (i64 at = first; p.x && at < p.rows * p.heads * items; at += stride) {
        const i64 head = at / items;
        const int d = (int)(at % items) * width;
        if (d < p.plain)
            span_fetch<is_bf16, wide>(x, p.a, head * key + p.rope_dim + d);
        else
            span_fetch<is_bf16, wide>(x, p.b, head * p.value + d - p.plain);
        span_store<is_bf16, wide>(p.x, head * both + d, x);
    }
    for (i64 at = first; p.y && at < p.rows * sums; at += stride) {
        const i64 n = at / sums;
        const int d = (int)(at % sums) * width;
        for (int i = 0; i < width; i++) sum[i] = 0;
#pragma unroll 4
        for (int h = 0; h < p.heads; h++) {
            span_fetch<is_bf16, wide>(x, p.a, (n * p.heads + h) * key + d);
            for (int i = 0; i < width; i++) sum[i] = v16_add(sum[i], x[i]);
        }
        span_store<is_bf16, wide>(p.y, n * p.rope_dim + d, sum);
    }
}

static struct parts parts_of(const struct op_call *c) {
    const struct mla_attr *a = (const struct mla_attr *)c->attr;
    const struct parts p = {c->in[0].data,    c->in[1].data,   c->out[0].data,
                            c->out[1].data,   c->in[0].dim[0], (int)a->heads,
                            (int)a->rope_dim, (int)a->plain,   (int)a->value};
    return p;
}
static bool wide_parts(const struct parts &p, bool is_bf16) {
    const void *all[] = {p.a, p.b, p.x, p.y};
    const int width = is_bf16 ? 8 : 4;
    return aligned16(all, 4) && p.rope_dim % width == 0 && p.plain % width == 0 &&
           p.value % width == 0;
}
static int grid_of(const struct parts &p, int width) {
    return grid_for(p.rows * p.heads * ((p.rope_dim + p.plain + p.value) / width), BLOCK);
}
CUDA_KERNEL(mla_keys) {
    const struct parts p = parts_of(c);
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    if (wide_parts(p, is_bf16))
        return is_bf16 ? LAUNCH(e, (keys_kernel<true, true>), grid_of(p, 8), BLOCK, 0, p)
                       : LAUNCH(e, (keys_kernel<false, true>), grid_of(p, 4), BLOCK, 0, p);
    return is_bf16 ? LAUNCH(e, (keys_kernel<true, false>), grid_of(p, 1), BLOCK, 0, p)
                   : LAUNCH(e, (keys_kernel<false, false>), grid_of(p, 1), BLOCK, 0, p);
}
CUDA_KERNEL(mla_keys_back) {
    const struct parts p = parts_of(c);
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    if (wide_parts(p, is_bf16))
        return is_bf16 ? LAUNCH(e, (keys_back_kernel<true, true>), grid_of(p, 8), BLOCK, 0, p)
                       : LAUNCH(e, (keys_back_kernel<false, true>), grid_of(p, 4), BLOCK, 0, p);
    return is_bf16 ? LAUNCH(e, (keys_back_kernel<true, false>), grid_of(p, 1), BLOCK, 0, p)
                   : LAUNCH(e, (keys_back_kernel<false, false>), grid_of(p, 1), BLOCK, 0, p);
}
