/* packing_cuda.cu: packed weights decoded to memory, before a product of many rows reads them: the
 * frames of packing.h. A thread decodes 8 values. Memory bounds it: a byte or half a byte read and
 * two or four written per value.
 *
 * scaled: the 8 values may belong to several runs, and then end one element at a time.
 * groups: the 8 values lie in one group of 16.
 * table: the 8 values, four bytes, lie in one block: blocks are powers of two from 32 on. The table
 * lies in shared memory, where 16 neighbours meet no bank conflict that matters.
 *
 * Rows that are looked up (an embedding's) are few: there a thread decodes an element at a time. */
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

/* The first n of 8 values, to elements i and on. */
template <bool is_bf16> DEVICE void values_put(void *to, i64 i, const float x[EACH], int n) {
    if (n == EACH) {
        vec_store<is_bf16>(to, i, x);
        if (!is_bf16) vec_store<is_bf16>(to, i + 4, x + 4);
    } else {
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (k < n) put1(to, i + k, x[k], is_bf16);
    }
}
DEVICE int values_left(i64 left) { return left < EACH ? (int)left : EACH; }

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
        values_put<is_bf16>(to, i, x, values_left(count - i));
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
        const int n = values_left(count - i);
        i64 first = 0;
        float x[EACH];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            if (k < n && k - first >= r.count) first = k, r = T::run(v, i + k);
            x[k] = k < n ? v16_mul(T::value(r.code[k - first]), r.scale) : 0;
        }
        values_put<is_bf16>(to, i, x, n);
    }
}
template <class T>
static int scaled_decode(void *to, const struct view *v, bool is_bf16, struct err *e) {
    const i64 count = view_count(v);
    const int grid = grid_for((count + EACH - 1) / EACH, THREADS);
    return is_bf16 ? LAUNCH(e, (scaled_kernel<T, true>), grid, THREADS, 0, to, *v, count)
                   : LAUNCH(e, (scaled_kernel<T, false>), grid, THREADS, 0, to, *v, count);
}

template <class T> DEVICE float group_value(const struct packing_group &g, int l) {
    const float code = (float)(packing_code(&g, l, T::high) - T::zero);
    return v16_add(v16_mul(code, g.scale), g.offset);
}
template <class T, bool is_bf16>
__global__ void groups_kernel(void *to, const u8 *codes, i64 count) {
    const i64 stride = (i64)gridDim.x * blockDim.x * EACH;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * EACH; i < count; i += stride) {
        const struct packing_group g =
            T::group(codes + i / T::block * T::bytes, (int)(i % T::block / 16));
        const int first = (int)(i % 16);
        float x[EACH];
#pragma unroll
        for (int k = 0; k < EACH; k++) x[k] = group_value<T>(g, first + k);
        values_put<is_bf16>(to, i, x, values_left(count - i));
    }
}
template <class T>
static int groups_decode(void *to, const struct view *v, bool is_bf16, struct err *e) {
    const i64 count = view_count(v);
    const u8 *codes = (const u8 *)v->data;
    const int grid = grid_for((count + EACH - 1) / EACH, THREADS);
    return is_bf16 ? LAUNCH(e, (groups_kernel<T, true>), grid, THREADS, 0, to, codes, count)
                   : LAUNCH(e, (groups_kernel<T, false>), grid, THREADS, 0, to, codes, count);
}

/* ---- rows. T::at: an element of what T::from made of the view. */
struct lookup {
    const i32 *id;
    i64 count, limit, width;
};
template <class T, bool is_bf16>
__global__ void lookup_kernel(void *to, typename T::source from, struct lookup a,
                              struct fault_word *fault) {
    const i64 stride = (i64)gridDim.x * blockDim.x, all = a.count * a.width;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += stride) {
        const i64 n = i / a.width, col = i - n * a.width;
        const i32 id = a.id[n];
        if (id >= 0 && id < a.limit)
            put1(to, i, T::at(from, id * a.width + col), is_bf16);
        else if (!col)
            fault_set(fault, BAD_TOKEN, id, n, a.limit);
    }
}
template <class T>
static int rows_decode(void *to, const struct view *v, const i32 *id, i64 count, bool is_bf16,
                       struct err *e) {
    const struct lookup a = {id, count, v->dim[0], v->dim[1]};
    const int grid = grid_for(i64_max(count * a.width, 1), THREADS);
    return is_bf16 ? LAUNCH(e, (lookup_kernel<T, true>), grid, THREADS, 0, to, T::from(v), a,
                            cuda_fault_word)
                   : LAUNCH(e, (lookup_kernel<T, false>), grid, THREADS, 0, to, T::from(v), a,
                            cuda_fault_word);
}

struct table_source {
    struct quant q;
    const u8 *codes;
};
struct table_row {
    typedef struct table_source source;
    static source from(const struct view *v) {
        const struct table_source s = {table_quant(v), (const u8 *)v->data};
        return s;
    }
    DEVICE float at(const source &s, i64 i) {
        const int two = s.codes[i / 2];
        return v16_mul(s.q.code[i % 2 ? two & 15 : two >> 4], scale_at(s.q, i >> s.q.shift));
    }
};

#define TYPE_table(id)
#define TYPE_scaled(id)                                                                            \
    struct id##_row {                                                                              \
        typedef struct view source;                                                                \
        static source from(const struct view *v) { return *v; }                                    \
        DEVICE struct packing_run run(const struct view &v, i64 i) { return id##_run(&v, i); }     \
        DEVICE float value(u8 code) { return id##_value((float)code); }                            \
        DEVICE float at(const source &v, i64 i) {                                                  \
            const struct packing_run r = run(v, i);                                                \
            return v16_mul(value(*r.code), r.scale);                                               \
        }                                                                                          \
    };
#define TYPE_groups(id)                                                                            \
    struct id##_row {                                                                              \
        enum { block = id##_BLOCK, bytes = id##_BYTES, zero = id##_ZERO, high = id##_HIGH };       \
        typedef const u8 *source;                                                                  \
        static source from(const struct view *v) { return (const u8 *)v->data; }                   \
        DEVICE struct packing_group group(const u8 *from, int k) { return id##_group(from, k); }   \
        DEVICE float at(const source &codes, i64 i) {                                              \
            return group_value<id##_row>(group(codes + i / block * bytes, (int)(i % block / 16)),  \
                                         (int)(i % 16));                                           \
        }                                                                                          \
    };
#define DECODE_scaled(id) scaled_decode<id##_row>(to, v, is_bf16, e)
#define DECODE_groups(id) groups_decode<id##_row>(to, v, is_bf16, e)
#define DECODE_table(id)  table_decode(to, v, is_bf16, e)
#define ROW_scaled(id)    id##_row
#define ROW_groups(id)    id##_row
#define ROW_table(id)     table_row
#define X(id, text, frame)                                                                         \
    TYPE_##frame(id) extern "C" int packing_##id##_cuda(void *to, const struct view *v,            \
                                                        bool is_bf16, struct err *e) {             \
        return DECODE_##frame(id);                                                                 \
    }                                                                                              \
    extern "C" int packing_##id##_cuda_rows(void *to, const struct view *v, const i32 *ids,        \
                                            i64 count, bool is_bf16, struct err *e) {              \
        return rows_decode<ROW_##frame(id)>(to, v, ids, count, is_bf16, e);                        \
    }
PACKING_LIST(X)
#undef X
