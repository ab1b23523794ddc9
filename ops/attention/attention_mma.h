/* attention_mma.h: tiles of attention for tensor cores: swizzled shared memory, fragments, and
 * the fast functions of a score.
 *
 * A tile is some rows of one head, as panels of 64 elements: row r of a panel is 128 bytes, whose
 * 16-byte piece c stands at c ^ (r % 8). So the eight rows of an ldmatrix lie in different banks.
 * Where a tile begins at a multiple of 1,024 bytes, which here it need not, it is the 128-byte
 * swizzle that wgmma and the bulk copy engine know. */
#ifndef HONE_ATTENTION_MMA_H
#define HONE_ATTENTION_MMA_H

#include "ops/attention/attention_cuda.h"

#include <float.h>
#include <math.h>

enum { WARPS = 4, MMA_THREADS = 32 * WARPS };
static constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

/* Tiles of q and k and of v, do and o are as wide as the wider of them needs: zeros cost no more
 * than the kernels of every pair of widths would. */
static inline i64 widest(const device_attention &t) { return i64_max(t.head_dim, t.value_dim); }

/* Heads wider than 128 want more shared memory than some machines have. */
static inline bool tensor_cores_fit(const device_attention &t) {
    return t.wide && (widest(t) <= 128 || cuda_machine.shared_per_block >= 163 << 10) &&
           cuda_machine.shared_per_block >= 99 << 10;
}

DEVICE int lane_now() { return threadIdx.x % 32; }

template <int Rows> DEVICE u16 *tile_at(u16 *tile, int row, int piece) {
    return tile + piece / 8 * (Rows * 64) + row * 64 + ((piece % 8) ^ (row % 8)) * 8;
}
/* The first `rows` rows and head_dim elements arrive, zeros elsewhere. Row n lies at from + n /
 * pack * row + n % pack * head_dim: with pack > 1, heads of one group are rows of their own. */
template <int D, int Rows>
DEVICE void tile_load(u16 *tile, const u16 *from, i64 row, int pack, int rows, int head_dim) {
    constexpr int step = MMA_THREADS / (D / 8);
    const int piece = threadIdx.x % (D / 8);
    if (piece * 8 >= head_dim) rows = 0;
#pragma unroll 2
    for (int r = threadIdx.x / (D / 8), i = 0; i < Rows / step; i++, r += step) {
        const i64 at = pack == 1 ? r * row : r / pack * row + (i64)(r % pack) * head_dim;
        copy_async16(tile_at<Rows>(tile, r, piece), r < rows ? from + at + piece * 8 : from,
                     r < rows);
    }
}
/* Where a lane reads a[16 x 16] at rows `row`.. (a multiple of 16), elements 16k..; or b with rows
 * as k, transposed. `own`, the lane's part of the address, changes with k by one exclusive or. */
DEVICE int fragment_own() {
    const int lane = lane_now();
    return lane % 16 * 64 + ((lane / 16) ^ (lane % 8)) * 8;
}
/* The same for b: two tiles of 8 columns, which are rows of the tile. */
DEVICE int fragment_b_own() {
    const int lane = lane_now();
    return (lane % 8 + lane / 16 * 8) * 64 + ((lane / 8 % 2) ^ (lane % 8)) * 8;
}
template <int Rows> DEVICE u16 *fragment_at(u16 *tile, int row, int k, int own) {
    return tile + k / 4 * (Rows * 64) + row * 64 + (own ^ (k % 4 * 16));
}
/* Accumulators of 16 x 16 (two tiles of 8 columns) as an operand a. */
DEVICE void operand_of(u32 a[4], const float x[4], const float y[4]) {
    a[0] = pack_bf16(x[0], x[1]), a[1] = pack_bf16(x[2], x[3]);
    a[2] = pack_bf16(y[0], y[1]), a[3] = pack_bf16(y[2], y[3]);
}

/* Before sm_90 two steps at a time need a few registers too many. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
static constexpr int SCORE_STEPS = 1;
#else
static constexpr int SCORE_STEPS = 2;
#endif

/* d[M][N / 8] += A·B^T: A rows `row` + 64m of `a`, B rows `column`.. of `b`, over D elements. */
template <int D, int M, int N, int RowsA, int RowsB>
DEVICE void scores_mma(float d[M][N / 8][4], u16 *a, int row, u16 *b, int column) {
    const int own_a = fragment_own(), own_b = fragment_b_own();
#pragma unroll SCORE_STEPS
    for (int k = 0; k < D / 16; k++) {
        u32 x[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
            ldmatrix_x4(x[m], fragment_at<RowsA>(a, row + 64 * m, k, own_a));
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            u32 y[4];
            ldmatrix_x4(y, fragment_at<RowsB>(b, column + 16 * n, k, own_b));
#pragma unroll
            for (int m = 0; m < M; m++)
                mma_bf16(d[m][2 * n], x[m], y), mma_bf16(d[m][2 * n + 1], x[m], y + 2);
        }
    }
}
/* o[M][D / 8] += P·R: P operands, R the rows `row`.. of `r`, elements 16 * from.. */
template <int D, int M, int K, int Rows>
DEVICE void rows_mma(float o[M][D / 8][4], const u32 p[M][K / 16][4], u16 *r, int row, int from) {
    const int own = fragment_own();
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            u32 y[4];
            ldmatrix_x4_trans(y, fragment_at<Rows>(r, row + 16 * k, from + n, own));
#pragma unroll
            for (int m = 0; m < M; m++)
                mma_bf16(o[m][2 * n], p[m][k], y), mma_bf16(o[m][2 * n + 1], p[m][k], y + 2);
        }
    }
}

/* Accumulators to `count` rows of bf16, through the tile, whose rows `row`.. are this warp's. */
template <int D, int Rows>
DEVICE void tile_store(u16 *to, i64 row_size, int pack, u16 *tile, int row, const float o[D / 8][4],
                       const float z[2], int rows, int head_dim) {
    const int lane = lane_now();
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            ((u32 *)tile_at<Rows>(tile, row + 8 * h + lane / 4, n))[lane % 4] =
                pack_bf16(v16_mul(o[n][2 * h], z[h]), v16_mul(o[n][2 * h + 1], z[h]));
    __syncwarp();
    for (int n = lane; n < 16 * (D / 8); n += 32) {
        const int r = row + n / (D / 8), piece = n % (D / 8);
        if (r >= rows || piece * 8 >= head_dim) continue;
        *(uint4 *)(to + r / pack * row_size + (i64)(r % pack) * head_dim + piece * 8) =
            *(const uint4 *)tile_at<Rows>(tile, r, piece);
    }
}

DEVICE float tanh_fast(float x) {
    return v16_sub(1, __fdividef(2, v16_add(exp2f_approx(v16_mul(x, 2 * LOG2_E)), 1)));
}

#endif
