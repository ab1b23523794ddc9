/* columns_cuda.cu: sums over rows, a chain per column (NUMERICS.md 5): the gradients of norm
 * weights and of biases.
 *
 * A chain may not be cut, so what bounds this kernel with few columns is the latency of one fused
 * multiply-add per row (about 4 cycles), not memory: the rest is arranged to stay below that. A
 * block owns 16 columns (one 32-byte sector of bf16), so that 768 columns still spread over 48 SMs.
 * Four warps copy rows ahead asynchronously (28 KiB under way) and lay them down as f32 with x *
 * scale already multiplied; the fifth only walks the chains: two reads of shared memory and one fma
 * a row, while the others prepare the next rows. Columns that are not whole 16-byte vectors take
 * one thread each. */
#include "ops/device/cuda_vec.h"

enum { COLS = 16, MAKERS = 128, STAGES = 8 };

template <bool is_bf16> struct tile {
    enum {
        WIDTH = is_bf16 ? 8 : 4,
        ROW = COLS / WIDTH,
        ROWS = MAKERS / ROW
    }; /* a vector a maker */
    struct raw {
        u8 dy[MAKERS][16], x[MAKERS][16];
        float scale[ROWS], mean[ROWS];
    } raw[STAGES];
    struct ready {
        float dy[ROWS][COLS], x[ROWS][COLS];
    } ready[2];
};

/* Four numbers of rows, zeros after the last. */
DEVICE void row_ask(float *to, const float *from, i64 row, i64 rows) {
    if (row + 4 <= rows)
        copy_async16(to, from + row, true);
    else
        for (int k = 0; k < 4; k++) to[k] = row + k < rows ? from[row + k] : 0;
}
/* Maker `m` asks for its vectors of tile t; nothing past the last row. */
template <bool is_bf16>
DEVICE void tile_ask(const struct columns &a, struct tile<is_bf16> *s, i64 t, int m) {
    typedef struct tile<is_bf16> shape;
    struct shape::raw *to = &s->raw[t % STAGES];
    const i64 first = t * shape::ROWS, row = first + m / shape::ROW;
    const i64 col = (i64)blockIdx.x * COLS + m % shape::ROW * shape::WIDTH;
    const i64 at = (row * a.cols + col) * (is_bf16 ? 2 : 4);
    const bool valid = row < a.rows && col < a.cols;
    copy_async16(to->dy[m], (const u8 *)a.dy + (valid ? at : 0), valid);
    if (a.x) copy_async16(to->x[m], (const u8 *)a.x + (valid ? at : 0), valid);
    if (a.x && m < shape::ROWS / 4) {
        row_ask(to->scale + 4 * m, a.scale, first + 4 * m, a.rows);
        if (a.mean) row_ask(to->mean + 4 * m, a.mean, first + 4 * m, a.rows);
    }
    copy_async_commit();
}
template <bool is_bf16>
DEVICE void tile_make(const struct columns &a, struct tile<is_bf16> *s, i64 t, int m) {
    typedef struct tile<is_bf16> shape;
    const struct shape::raw *from = &s->raw[t % STAGES];
    struct shape::ready *to = &s->ready[t % 2];
    const int row = m / shape::ROW, col = m % shape::ROW * shape::WIDTH;
    float v[shape::WIDTH];
    vec_load<is_bf16>(v, from->dy[m], 0);
    for (int k = 0; k < shape::WIDTH; k += 4) vec_store<false>(to->dy[row], col + k, v + k);
    if (!a.x) return;
    vec_load<is_bf16>(v, from->x[m], 0);
    for (int k = 0; k < shape::WIDTH; k++)
        v[k] = v16_mul(a.mean ? v16_sub(v[k], from->mean[row]) : v[k], from->scale[row]);
    for (int k = 0; k < shape::WIDTH; k += 4) vec_store<false>(to->x[row], col + k, v + k);
}

/* A column's chain over `rows` rows of a tile; all of them: unrolled, so that what is read runs
 * ahead of the chain. */
template <bool is_bf16>
DEVICE float tile_walk(const typename tile<is_bf16>::ready *r, int lane, int rows, bool x,
                       float sum) {
    constexpr int all = tile<is_bf16>::ROWS;
    if (rows < all) {
        for (int n = 0; n < rows; n++)
            sum = x ? v16_fma(r->dy[n][lane], r->x[n][lane], sum) : v16_add(sum, r->dy[n][lane]);
    } else if (x) {
#pragma unroll 32
        for (int n = 0; n < all; n++) sum = v16_fma(r->dy[n][lane], r->x[n][lane], sum);
    } else {
#pragma unroll 32
        for (int n = 0; n < all; n++) sum = v16_add(sum, r->dy[n][lane]);
    }
    return sum;
}

template <bool is_bf16> __global__ void columns_kernel(struct columns a) {
    typedef struct tile<is_bf16> shape;
    DYNAMIC_SHARED(shape, s);
    const int m = (int)threadIdx.x - 32, lane = threadIdx.x; /* the first warp walks */
    const i64 col = (i64)blockIdx.x * COLS + lane, tiles = (a.rows + shape::ROWS - 1) / shape::ROWS;
    const bool walks = lane < COLS && col < a.cols;
    float sum = walks ? a.sum[col] : 0;
    if (m >= 0)
        for (int t = 0; t < STAGES - 1; t++) tile_ask<is_bf16>(a, s, t, m);
    for (i64 t = -2; t < tiles; t++) { /* walks tile t, makes t + 1, has waited for t + 2 */
        if (m >= 0) {
            if (t >= -1) {
                tile_ask<is_bf16>(a, s, t + STAGES, m); /* where tile t was, made one step ago */
                tile_make<is_bf16>(a, s, t + 1, m);
            }
            copy_async_wait<STAGES - 2>();
        } else if (walks && t >= 0) {
            const i64 left = a.rows - t * shape::ROWS;
            const int rows = left < shape::ROWS ? (int)left : (int)shape::ROWS;
            sum = tile_walk<is_bf16>(&s->ready[t % 2], lane, rows, a.x != NULL, sum);
        }
        __syncthreads();
    }
    if (m >= 0) copy_async_wait<0>();
    if (walks) a.sum[col] = sum;
}

template <bool is_bf16> __global__ void columns_plain(struct columns a) {
    const i64 col = (i64)blockIdx.x * 32 + threadIdx.x;
    if (col >= a.cols) return;
    const i64 heads = a.heads > 1 ? a.heads : 1, head = heads > 1 ? col / (a.cols / heads) : 0;
    float sum = a.sum[col];
#pragma unroll 8
    for (i64 n = 0; n < a.rows; n++) {
        const float dy = get1(a.dy, n * a.cols + col, is_bf16);
        if (a.x) {
            const float x = get1(a.x, n * a.cols + col, is_bf16);
            const i64 row = n * heads + head;
            sum = v16_fma(dy, v16_mul(a.mean ? v16_sub(x, a.mean[row]) : x, a.scale[row]), sum);
        } else {
            sum = v16_add(sum, dy);
        }
    }
    a.sum[col] = sum;
}

int column_sums(const struct columns &a, bool is_bf16, struct err *e) {
    const void *all[] = {a.dy, a.x, a.mean, a.scale};
    const int blocks = (int)((a.cols + COLS - 1) / COLS), narrow = (int)((a.cols + 31) / 32);
    if (a.heads <= 1 && aligned16(all, 4) && a.cols * (is_bf16 ? 2 : 4) % 16 == 0)
        return is_bf16 ? LAUNCH(e, columns_kernel<true>, blocks, MAKERS + 32,
                                sizeof(struct tile<true>), a)
                       : LAUNCH(e, columns_kernel<false>, blocks, MAKERS + 32,
                                sizeof(struct tile<false>), a);
    return is_bf16 ? LAUNCH(e, columns_plain<true>, narrow, 32, 0, a)
                   : LAUNCH(e, columns_plain<false>, narrow, 32, 0, a);
}

CUDA_KERNEL(bias_dw) {
    struct columns a = {};
    a.dy = c->in[0].data, a.sum = (float *)c->out[0].data;
    a.rows = c->in[0].dim[0], a.cols = c->in[0].dim[1];
    return column_sums(a, view_is_bf16(&c->in[0]), e);
}
