/* embedding_cuda.cu: rows picked by an index: from a table, into a cache (kv_store), and added to a
 * table in token order. Formulas in embedding.c and kv_store.c.
 *
 * Copies: a warp takes 2 KiB of a row, 64 bytes a lane, all loads before the first store; bytes are
 * not looked at, so the dtype is only a size.
 *
 * embedding_back adds rows of equal ids by ascending position without atomics (NUMERICS.md 9): a
 * block per position leaves when an earlier position has the same id, which in text is near; the
 * first of its kind walks the positions after it, 1,024 ids a step, and adds the matching rows, a
 * thread per 16 bytes of the row. Reading ids this way costs positions times distinct ids, all from
 * cache: 0.3 GB for 16,384 tokens of which 4,096 differ. Rejected: sorting positions by id, four
 * passes over global memory and a launch each. */
#include "ops/device/cuda_vec.h"

enum { BLOCK = 256, LOADS = 4, WARPS = BLOCK / 32, STEP = BLOCK * LOADS, CELLS = LOADS * WARPS };

struct rows {
    const void *from;
    void *to;
    const i32 *id;
    i64 count, limit;
    int units; /* of a row */
};

/* gather: to[n] = from[id[n]]; otherwise to[id[n]] = from[n], and with id -1 nothing. */
template <class Unit, bool gather>
__global__ void rows_kernel(struct rows a, enum bad kind, struct fault_word *fault) {
    const i64 n = (i64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (n >= a.count) return;
    const int first = (int)blockIdx.y * 32 * LOADS + threadIdx.x % 32;
    const i32 id = a.id[n];
    if (id < 0 || id >= a.limit) {
        if (!first && (gather || id != -1)) fault_set(fault, kind, id, n, a.limit);
        return;
    }
    const Unit *from = (const Unit *)a.from + (gather ? id : n) * a.units;
    Unit *to = (Unit *)a.to + (gather ? n : id) * a.units, held[LOADS];
#pragma unroll
    for (int k = 0; k < LOADS; k++)
        if (first + 32 * k < a.units) held[k] = from[first + 32 * k];
#pragma unroll
    for (int k = 0; k < LOADS; k++)
        if (first + 32 * k < a.units) to[first + 32 * k] = held[k];
}

template <class Unit, bool gather>
static int rows_launch(struct rows a, i64 bytes, enum bad kind, struct err *e) {
    a.units = (int)(bytes / (i64)sizeof(Unit));
    const i64 blocks = (a.count + WARPS - 1) / WARPS;
    const dim3 grid((unsigned)i64_max(1, blocks),
                    (unsigned)i64_max(1, (a.units + 32 * LOADS - 1) / (32 * LOADS)));
    return LAUNCH(e, (rows_kernel<Unit, gather>), grid, BLOCK, 0, a, kind, cuda_fault_word);
}
template <bool gather>
static int rows_run(const struct rows &a, i64 bytes, enum bad kind, struct err *e) {
    const uintptr_t low = (uintptr_t)a.from | (uintptr_t)a.to | (uintptr_t)bytes;
    return low % 16 == 0  ? rows_launch<uint4, gather>(a, bytes, kind, e)
           : low % 4 == 0 ? rows_launch<u32, gather>(a, bytes, kind, e)
                          : rows_launch<u16, gather>(a, bytes, kind, e);
}

CUDA_KERNEL(embedding) {
    const struct view *ids = &c->in[0], *w = &c->in[1];
    if (w->packing)
        return w->packing->cuda_rows(c->out[0].data, w, (const i32 *)ids->data, ids->dim[0],
                                     view_is_bf16(w), e);
    const struct rows a = {w->data, c->out[0].data, (const i32 *)ids->data, ids->dim[0], w->dim[0]};
    return rows_run<true>(a, w->dim[1] * dtype_size(w->dtype), BAD_TOKEN, e);
}
CUDA_KERNEL(kv_store) {
    const struct view *x = &c->in[0], *cache = &c->out[0];
    const struct rows a = {x->data, cache->data, (const i32 *)c->in[1].data, x->dim[0],
                           cache->dim[0]};
    return rows_run<false>(a, x->dim[1] * dtype_size(x->dtype), BAD_CACHE, e);
}

/* ---- embedding_back ---- */
struct sums {
    const void *dy;
    const i32 *id;
    float *dw;
    i64 count, limit, width;
};

/* Does a position before n hold its id? Backwards from n, by the whole block. */
DEVICE bool seen_before(const i32 *ids, i64 n, i32 id) {
    for (i64 end = n; end > 0; end -= STEP) {
        bool found = false;
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            const i64 at = end - 1 - k * BLOCK - threadIdx.x;
            found |= at >= 0 && ids[at] == id;
        }
        if (__syncthreads_or(found)) return true;
    }
    return false;
}

/* The positions of ids[begin, begin + STEP) that hold `id`, ascending, in list; how many. */
DEVICE int matches(const struct sums &a, i64 begin, i32 id, int *list, int *cell) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 mask[LOADS];
    bool any = false;
#pragma unroll
    for (int k = 0; k < LOADS; k++) {
        const i64 at = begin + k * BLOCK + threadIdx.x;
        mask[k] = __ballot_sync(0xffffffffu, at < a.count && a.id[at] == id);
        any |= mask[k] != 0;
    }
    if (!__syncthreads_or(any)) return 0; /* also: the list of the step before is used up */
    if (lane < LOADS) cell[lane * WARPS + warp] = __popc(mask[lane]);
    __syncthreads();
    int total = 0, base[LOADS];
    for (int i = 0; i < CELLS; i++) {
        if (i % WARPS == warp) base[i / WARPS] = total;
        total += cell[i];
    }
#pragma unroll
    for (int k = 0; k < LOADS; k++)
        if (mask[k] >> lane & 1)
            list[base[k] + __popc(mask[k] & ((1u << lane) - 1))] = k * BLOCK + (int)threadIdx.x;
    __syncthreads();
    return total;
}

template <bool is_bf16, bool wide>
__global__ void embedding_back_kernel(struct sums a, struct fault_word *fault) {
    constexpr int width = span_width<is_bf16, wide>;
    SHARED(int, list, STEP);
    SHARED(int, cell, CELLS);
    const i64 n = blockIdx.x;
    const i32 id = a.id[n];
    if (id < 0 || id >= a.limit) {
        if (!threadIdx.x) fault_set(fault, BAD_TOKEN, id, n, a.limit);
        return;
    }
    if (seen_before(a.id, n, id)) return;
    for (i64 begin = n; begin < a.count; begin += STEP) {
        const int found = matches(a, begin, id, list, cell);
        if (!found) continue;
        for (i64 col = (i64)threadIdx.x * width; col < a.width; col += BLOCK * width) {
            float *to = a.dw + id * a.width + col, sum[width], x[width];
            for (int k = 0; k < width; k += 4) span_load<false, wide>(sum + k, to, k);
#pragma unroll 4
            for (int i = 0; i < found; i++) {
                span_load<is_bf16, wide>(x, a.dy, (begin + list[i]) * a.width + col);
#pragma unroll
                for (int k = 0; k < width; k++) sum[k] = v16_add(sum[k], x[k]);
            }
            for (int k = 0; k < width; k += 4) span_store<false, wide>(to, k, sum + k);
        }
    }
}

CUDA_KERNEL(embedding_back) {
    const struct view *dy = &c->in[0], *dw = &c->out[0];
    const struct sums a = {dy->data,          (const i32 *)c->in[1].data,
                           (float *)dw->data, dy->dim[0],
                           dw->dim[0],        dy->dim[1]};
    const void *all[] = {a.dy, a.dw};
    const bool is_bf16 = view_is_bf16(dy),
               wide = aligned16(all, 2) && a.width % (is_bf16 ? 8 : 4) == 0;
    const int blocks = (int)a.count;
    if (!blocks) return 0;
    if (wide)
        return is_bf16 ? LAUNCH(e, (embedding_back_kernel<true, true>), blocks, BLOCK, 0, a,
                                cuda_fault_word)
                       : LAUNCH(e, (embedding_back_kernel<false, true>), blocks, BLOCK, 0, a,
                                cuda_fault_word);
    return is_bf16 ? LAUNCH(e, (embedding_back_kernel<true, false>), blocks, BLOCK, 0, a,
                            cuda_fault_word)
                   : LAUNCH(e, (embedding_back_kernel<false, false>), blocks, BLOCK, 0, a,
                            cuda_fault_word);
}
