/* gemm_cpu.c: the portable frame around one micro-kernel (after Goto and van de Geijn, 2008, and
 * BLIS).
 *
 * A worker owns a rectangle of C. For each block of it, k goes by in blocks: a strip of A is packed
 * to L2; panel by panel, B is packed to L1 and multiplied with all of the strip at once; further
 * strips find the packed panels in L3. Sums of a block stay in scratch, tile by tile, as f32 until
 * k is complete; then the low-rank part, bias and rounding follow, tile by tile.
 * The order of k is the order of memory: nothing here can change a bit. Rejected: sharing packed
 * panels between threads (costs a barrier), edge kernels (panels are padded with zeros instead),
 * prefetching what the next panel of B reads (measured: no gain, the weight gradient slower). */
#include "base/v16.h"
#include "ops/gemm/gemm_int.h"

/* ROWS x COLS sums fill the registers: 28 of 32, 12 of 16. */
#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
enum { ROWS = 14, COLS = 32, VECTORS = 2 };
#elif defined(ISA_IS_avx2)
enum { ROWS = 6, COLS = 16, VECTORS = 1 };
#else
enum { ROWS = 4, COLS = 16, VECTORS = 1 };
#endif

/* tile[rows][COLS] (+)= A panel [lanes][ROWS] * B panel [lanes][COLS]. `rows`, `pair` constant. */
V16_FN void kernel_rows(i64 lanes, const float *a, const float *b, float *tile, bool fresh,
                        const int rows, const bool pair) {
    (void)pair;
    v16 sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            sum[i][v] = fresh ? v16_set(0) : v16_load(tile + i * COLS + v * 16);
    for (i64 p = 0; p < lanes; p++, a += ROWS, b += COLS) {
#ifdef ISA_IS_avx512bf16
        if (pair) {
            v16h bv[VECTORS];
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) bv[v] = v16h_load(b + v * 16);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
                const v16h av = v16h_set(((const u32 *)(const void *)a)[i]);
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) sum[i][v] = v16_dot(av, bv[v], sum[i][v]);
            }
            continue;
        }
#endif
        v16 bv[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) bv[v] = v16_load(b + v * 16);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const v16 av = v16_set(a[i]);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sum[i][v] = v16_fma(av, bv[v], sum[i][v]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) v16_store(tile + i * COLS + v * 16, sum[i][v]);
}

static void kernel(i64 lanes, const float *a, const float *b, float *tile, bool fresh, i64 rows,
                   bool pair) {
#define KERNEL(n)                                                                                  \
    if (rows <= n) {                                                                               \
        if (pair)                                                                                  \
            kernel_rows(lanes, a, b, tile, fresh, n, true);                                        \
        else                                                                                       \
            kernel_rows(lanes, a, b, tile, fresh, n, false);                                       \
        return;                                                                                    \
    }
    KERNEL(1)
    KERNEL(2)
    KERNEL(4)
#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
    KERNEL(8)
#endif
    KERNEL(ROWS)
#undef KERNEL
}

struct job {
    const struct gemm *g;
    float *scratch;
    struct gemm_room room;
    enum pack how;
    struct operand a, b, t, u;
    int across; /* workers along n */
    int down;   /* workers along m */
};

/* A rectangle of C, and its place in the worker's scratch. A is packed `strip` rows at a time. */
struct block {
    i64 row, rows, col, cols, strip;
    float *a, *b, *tiles;
};

static float *tile_of(const struct block *k, i64 row, i64 col) {
    const i64 tall = (k->rows + ROWS - 1) / ROWS;
    return k->tiles + (col / COLS * tall + row / ROWS) * ROWS * COLS;
}

static void tile_begin(const struct gemm *g, float *tile, i64 row, i64 col) {
    const float *c = (const float *)g->c + row * g->ldc + col;
    for (i64 i = 0; i < i64_min(ROWS, g->m - row); i++)
        for (int v = 0; v < VECTORS; v++)
            v16_store(tile + i * COLS + v * 16,
                      v16_load_n(c + i * g->ldc + v * 16, i64_max(0, g->n - col - v * 16)));
}

static void tile_end(const struct gemm *g, const float *tile, const float *low, i64 row, i64 col) {
    const bool is_bf16 = g->c_dtype == BF16;
    const v16 scale = v16_set(g->scale);
    for (int v = 0; v < VECTORS && col + v * 16 < g->n; v++) {
        const i64 left = g->n - col - v * 16, at = col + v * 16;
        const v16 bias = g->bias ? v16_get_n(g->bias, at, left, g->dtype == BF16) : v16_set(0);
        for (i64 i = 0; i < i64_min(ROWS, g->m - row); i++) {
            v16 x = v16_load(tile + i * COLS + v * 16);
            if (low) x = v16_fma(scale, v16_load(low + i * COLS + v * 16), x);
            if (g->bias) x = v16_add(x, bias);
            v16_put_n(g->c, (row + i) * g->ldc + at, x, left, is_bf16);
        }
    }
}

static void prefetch_c(const struct gemm *g, i64 row, i64 col) {
    const i64 size = dtype_size(g->c_dtype), bytes = i64_min(COLS, g->n - col) * size;
    for (i64 i = row; i < i64_min(row + ROWS, g->m); i++)
        for (i64 at = 0; at < bytes; at += 64)
            __builtin_prefetch((u8 *)g->c + (i * g->ldc + col) * size + at, 1, 3);
}

/* k in [k, k + depth) of rows or columns [i, i + count) of packed elements, decoded to `room`. */
static struct operand decoded(const struct operand *from, bool is_bf16, i64 i, i64 count, i64 k,
                              i64 depth, u8 *room) {
    const i64 n = i64_min(count, from->count - i), lines = from->k_inner ? n : depth,
              length = from->k_inner ? depth : n;
    const i64 at = from->k_inner ? i * from->ld + k : k * from->ld + i;
    from->packed->packing->decode[isa_now()](room, from->packed, at, length, lines, from->ld,
                                             is_bf16);
    return (struct operand){room, length, n, from->size, from->k_inner, from->in_order, NULL};
}

/* Packs rows or columns [i, i + count) in panels of `width`, panel_size apart. Where k is not
 * contiguous, 16 rows of k at a time are spread over all panels, so that memory is read in long
 * runs. Packed elements are decoded first, as much as L1 holds. */
static i64 panel_size(i64 lanes, int width) { return lanes * width + 16; }
static void pack_panels(const struct job *j, float *to, const struct operand *from, i64 i,
                        i64 count, int width, i64 first, i64 depth) {
    _Alignas(64) u8 room[GEMM_DECODE];
    const i64 lanes = pack_lanes(j->how, depth), step = !from->k_inner ? pack_k(j->how, 16)
                                                        : from->packed ? GEMM_DECODE / (COLS * 4)
                                                                       : depth;
    for (i64 p = 0; p < depth; p += step) {
        const i64 some = i64_min(step, depth - p);
        struct operand o = *from;
        i64 line = i, k = first + p;
        if (from->packed) {
            o = decoded(from, j->g->dtype == BF16, i, count, k, some, room);
            line = k = 0;
        }
        for (i64 w = 0; w < count; w += width) CPU_NAME(gemm_pack)
        (to + w / width * panel_size(lanes, width) + pack_lanes(j->how, p) * width, &o, line + w,
         width, k, some, j->how);
    }
}

/* One panel of B with the packed strip of A that starts at row `top` of the block. */
static void panel_step(const struct job *j, const struct block *k, i64 top, i64 col, const float *b,
                       i64 lanes, bool load, bool fresh, bool last) {
    const struct gemm *g = j->g;
    const i64 bottom = i64_min(top + k->strip, k->rows);
    for (i64 row = top; row < bottom; row += ROWS) {
        float *tile = fresh && last ? k->tiles : tile_of(k, row, col);
        if (!fresh && !load)
            for (i64 at = 0; at < ROWS * COLS; at += 16)
                __builtin_prefetch(tile + ROWS * COLS + at, 1, 3);
        if (load) tile_begin(g, tile, k->row + row, k->col + col);
        if ((load || last) && row + ROWS < bottom) prefetch_c(g, k->row + row + ROWS, k->col + col);
        kernel(lanes, k->a + (row - top) / ROWS * panel_size(lanes, ROWS), b, tile, fresh,
               i64_min(ROWS, k->rows - row), j->how == PACK_PAIR);
        if (last) tile_end(g, tile, NULL, k->row + row, k->col + col);
    }
}

/* Block of C += block of k from `first` on. The first strip packs the panels of B, each right
 * before its use; they stay for the other strips, if there are any. */
static void block_step(const struct job *j, const struct block *k, i64 first, i64 depth,
                       bool last) {
    const i64 lanes = pack_lanes(j->how, depth), group = j->b.k_inner ? 1 : GEMM_GROUP;
    const bool load = !first && j->g->accumulate, stay = k->strip < k->rows;
    for (i64 top = 0; top < k->rows; top += k->strip) {
        pack_panels(j, k->a, &j->a, k->row + top, i64_min(k->strip, k->rows - top), ROWS, first,
                    depth);
        for (i64 col = 0; col < k->cols; col += COLS) {
            const i64 panel = col / COLS;
            float *b = k->b + (stay ? panel : panel % GEMM_GROUP) * panel_size(lanes, COLS);
            if (!top && panel % group == 0)
                pack_panels(j, b, &j->b, k->col + col, i64_min(group * COLS, k->cols - col), COLS,
                            first, depth);
            panel_step(j, k, top, col, b, lanes, load, !first && !load, last);
        }
    }
}

/* The low-rank part: T and U take the place of A and B. */
static void block_low_rank(const struct job *j, const struct block *k) {
    const i64 rank = j->g->rank, lanes = pack_lanes(j->how, rank);
    float low[ROWS * COLS];
    for (i64 top = 0; top < k->rows; top += k->strip) {
        const i64 bottom = i64_min(top + k->strip, k->rows);
        pack_panels(j, k->a, &j->t, k->row + top, bottom - top, ROWS, 0, rank);
        for (i64 col = 0; col < k->cols; col += COLS) {
            pack_panels(j, k->b, &j->u, k->col + col, COLS, COLS, 0, rank);
            for (i64 row = top; row < bottom; row += ROWS) {
                kernel(lanes, k->a + (row - top) / ROWS * panel_size(lanes, ROWS), k->b, low, true,
                       i64_min(ROWS, k->rows - row), j->how == PACK_PAIR);
                tile_end(j->g, tile_of(k, row, col), low, k->row + row, k->col + col);
            }
        }
    }
}

static void block_run(const struct job *j, const struct block *k) {
    const struct gemm *g = j->g;
    const i64 step = pack_k(j->how, GEMM_KC);
    for (i64 first = 0; first == 0 || first < g->k; first += step)
        block_step(j, k, first, i64_min(step, g->k - first), first + step >= g->k && !g->t);
    if (g->t) block_low_rank(j, k);
}

/* The largest equal parts of n that are no larger than `most`, in whole `unit`s. */
static i64 part_of(i64 n, i64 most, i64 unit) {
    return round_up((n + (n + most - 1) / most - 1) / i64_max((n + most - 1) / most, 1), unit);
}

/* Cell `i` of the grid of workers. */
static void cell_run(const struct job *j, i64 i, int worker) {
    const struct gemm *g = j->g;
    const i64 tall = (g->m + ROWS - 1) / ROWS, wide = (g->n + COLS - 1) / COLS;
    const i64 y = i / j->across, x = i % j->across;
    const i64 top = tall * y / j->down * ROWS, left = wide * x / j->across * COLS;
    const i64 bottom = i64_min(tall * (y + 1) / j->down * ROWS, g->m),
              right = i64_min(wide * (x + 1) / j->across * COLS, g->n);
    const i64 rows = part_of(bottom - top, GEMM_ROWS, ROWS),
              cols = part_of(right - left, GEMM_NC, COLS);
    float *own = j->scratch + worker * j->room.size;
    struct block k = {.a = own + j->room.a, .b = own + j->room.b, .tiles = own + j->room.tiles};
    for (k.col = left; k.col < right; k.col += cols)
        for (k.row = top; k.row < bottom; k.row += rows) {
            k.rows = i64_min(rows, bottom - k.row), k.cols = i64_min(cols, right - k.col);
            k.strip = part_of(k.rows, GEMM_MC, ROWS);
            block_run(j, &k);
        }
}

static void cells_run(void *arg, i64 begin, i64 end, int worker) {
    for (i64 i = begin; i < end; i++) cell_run(arg, i, worker);
}

/* Cuts C among the workers so that the slowest has least to do: multiply-adds of its tiles, and the
 * packing, counted as 16 multiply-adds per element (an estimate, not tuned). */
static void grid_choose(struct job *j) {
    const i64 tall = (j->g->m + ROWS - 1) / ROWS, wide = (j->g->n + COLS - 1) / COLS;
    double best = 0;
    for (int down = 1, workers = pool_threads(); down <= workers; down++) {
        if (workers % down) continue;
        const double rows = (double)((tall + down - 1) / down * ROWS);
        const double cols = (double)((wide + workers / down - 1) / (workers / down) * COLS);
        const double cost =
            rows * cols + 16 * (rows * (1 + cols / GEMM_NC) + cols * (1 + rows / GEMM_ROWS));
        if (down == 1 || cost < best) best = cost, j->down = down, j->across = workers / down;
    }
}

void CPU_NAME(gemm)(const struct gemm *g, void *scratch) {
    if (g->m <= 0 || g->n <= 0) return;
    if (gemm_is_few(g)) {
        CPU_NAME(gemm_few)(g);
        return;
    }
    struct job j = {
        .g = g, .scratch = scratch, .room = gemm_room(g->m, g->n, g->k, g->t ? g->rank : 0)};
#ifdef ISA_IS_avx512bf16
    j.how = g->dtype == BF16 ? PACK_PAIR : PACK_F32;
#else
    j.how = g->dtype == BF16 ? PACK_WIDE : PACK_F32;
#endif
    const i64 size = dtype_size(g->dtype);
    j.a = (struct operand){g->a, g->lda, g->m, size, !g->a_t, g->in_order, NULL};
    j.b = (struct operand){g->b, g->ldb, g->n, size, g->b_t, g->in_order, g->packed};
    j.t = (struct operand){g->t, g->rank, g->m, size, true, false, NULL};
    j.u = (struct operand){g->u, g->u_t ? g->n : g->rank, g->n, size, !g->u_t, false, NULL};
    grid_choose(&j);
    pool_run(pool_threads(), cells_run, &j);
}
