/* elementwise_cuda.cu: one pass over memory; formulas in elementwise_int.h. Each thread takes 16
 * bytes at a time (4 floats, 8 bf16); what is left at the end, or everything where a pointer is not
 * aligned to 16 bytes, goes one by one. */
#include "ops/device/cuda_math.h"
#include "ops/device/cuda_vec.h"

#define M_EXP       f64_exp
#define M_LOG       f64_log
#define bf16_to_f32 get_bf16 /* base.h's is the host's */
#include "ops/elementwise_int.h"

#define MAP_CLASS(name, ins, outs)                                                                 \
    struct name##_class {                                                                          \
        enum { INS = ins, OUTS = outs };                                                           \
        DEVICE void one(const struct formula &m, const float *x, float *y) {                       \
            name##_one(&m, x, y);                                                                  \
        }                                                                                          \
    };
MAP_OPS(MAP_CLASS)
MAP_PARTS(MAP_CLASS)

/* The element of input k that belongs to the row of element i; 1 where there is no such input. */
template <bool is_bf16> DEVICE float row_at(const struct formula &m, const void *p, i64 i) {
    return p ? get1(p, i / m.cols, is_bf16 && !m.row_f32) : 1;
}

template <class Map, bool is_bf16>
__global__ void map_kernel(struct pointers<Map::INS, Map::OUTS> p, struct formula m, bool wide) {
    constexpr int width = is_bf16 ? 8 : 4, ins = Map::INS, outs = Map::OUTS;
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x,
              stride = (i64)gridDim.x * blockDim.x, vectors = wide ? m.count / width : 0;
    map_begin(&m);
    for (i64 i = thread; i < vectors; i += stride) {
        float x[ins][width], y[outs][width];
#pragma unroll
        for (int k = 0; k < ins; k++) {
            if (k != m.row && p.in[k]) {
                vec_load<is_bf16>(x[k], p.in[k], i * width);
                continue;
            }
            const float row = row_at<is_bf16>(m, p.in[k], i * width);
#pragma unroll
            for (int n = 0; n < width; n++) x[k][n] = row;
        }
#pragma unroll
        for (int n = 0; n < width; n++) {
            float a[ins], b[outs];
#pragma unroll
            for (int k = 0; k < ins; k++) a[k] = x[k][n];
            Map::one(m, a, b);
#pragma unroll
            for (int k = 0; k < outs; k++) y[k][n] = b[k];
        }
#pragma unroll
        for (int k = 0; k < outs; k++)
            if (p.out[k]) vec_store<is_bf16>(p.out[k], i * width, y[k]);
    }
    for (i64 i = vectors * width + thread; i < m.count; i += stride) {
        float a[ins], b[outs];
        for (int k = 0; k < ins; k++)
            a[k] =
                k != m.row && p.in[k] ? get1(p.in[k], i, is_bf16) : row_at<is_bf16>(m, p.in[k], i);
        Map::one(m, a, b);
        for (int k = 0; k < outs; k++)
            if (p.out[k]) put1(p.out[k], i, b[k], is_bf16);
    }
}

template <class Map> static int map_run(const struct op_call *c, struct err *e) {
    struct pointers<Map::INS, Map::OUTS> p;
    const struct formula m = map_of(c);
    const void *all[Map::INS];
    for (int k = 0; k < Map::INS; k++)
        p.in[k] = c->in[k].data, all[k] = k == m.row ? NULL : c->in[k].data;
    for (int k = 0; k < Map::OUTS; k++) p.out[k] = c->out[k].data;
    const int width = m.is_bf16 ? 8 : 4;
    const bool wide = aligned16(all, Map::INS) && aligned16(p.out, Map::OUTS) &&
                      (m.row < 0 || m.cols % width == 0);
    const int blocks = grid_for(m.count / (wide ? width : 1) + 1, 256);
    return m.is_bf16 ? LAUNCH(e, (map_kernel<Map, true>), blocks, 256, 0, p, m, wide)
                     : LAUNCH(e, (map_kernel<Map, false>), blocks, 256, 0, p, m, wide);
}
#define MAP_KERNEL(name, ins, outs)                                                                \
    CUDA_KERNEL(name) { return map_run<struct name##_class>(c, e); }
MAP_OPS(MAP_KERNEL)

/* ---- what is also summed over rows: half a warp for each row, lane l the elements l, l + 16, ...
 * (NUMERICS.md 7) ---- */
struct row_sums {
    const void *dy, *x, *g;
    void *dx, *dg;
    float *part; /* xielu: [2][rows] */
    i64 rows, cols;
};
struct row_place {
    i64 row, from;
    bool real;
};
DEVICE struct row_place place_of(const struct row_sums &s) {
    struct row_place p;
    p.row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 16;
    p.real = p.row < s.rows; /* all lanes take part in lanes_sum */
    if (!p.real) p.row = s.rows - 1;
    p.from = p.row * s.cols;
    return p;
}

template <bool is_bf16> __global__ void gate_kernel(struct row_sums s) {
    const struct row_place p = place_of(s);
    const float g = get1(s.g, p.row, is_bf16), open = v16_sigmoid(g);
    float sum = 0;
#pragma unroll 4
    for (i64 i = threadIdx.x % 16; i < s.cols; i += 16) {
        const float dy = get1(s.dy, p.from + i, is_bf16);
        sum = v16_fma(dy, get1(s.x, p.from + i, is_bf16), sum);
        if (s.dx && p.real) put1(s.dx, p.from + i, v16_mul(dy, open), is_bf16);
    }
    sum = v16_mul(lanes_sum(sum), gate_slope(g));
    if (s.dg && p.real && threadIdx.x % 16 == 0) put1(s.dg, p.row, sum, is_bf16);
}

template <bool is_bf16> __global__ void xielu_kernel(struct row_sums s, struct formula m) {
    const struct row_place p = place_of(s);
    float sum[2] = {0, 0};
    map_begin(&m);
#pragma unroll 4
    for (i64 i = threadIdx.x % 16; i < s.cols; i += 16) {
        const float x = get1(s.x, p.from + i, is_bf16);
        const float term = v16_mul(get1(s.dy, p.from + i, is_bf16), xielu_term(&m, x));
        sum[0] = v16_add(sum[0], x > 0 ? term : 0);
        sum[1] = v16_add(sum[1], x > 0 ? 0 : term);
    }
    for (int k = 0; k < 2; k++) {
        const float all = lanes_sum(sum[k]);
        if (p.real && threadIdx.x % 16 == 0)
            s.part[k * s.rows + p.row] =
                v16_mul(all, (float)logistic((double)alpha_at(&m, k, is_bf16)));
    }
}

static struct row_sums row_sums_of(const struct op_call *c) {
    struct row_sums s = {};
    s.dy = c->in[0].data, s.x = c->in[1].data, s.g = c->in[2].data;
    s.dx = c->out[0].data, s.dg = c->out[1].data;
    s.rows = view_rows(&c->in[0]), s.cols = c->in[0].dim[c->in[0].rank - 1];
    return s;
}
CUDA_KERNEL(gate_mul_back) {
    const struct row_sums s = row_sums_of(c);
    if (map_of(c).row < 0) return map_run<struct gate_back_class>(c, e);
    const int blocks = (int)((s.rows + 7) / 8);
    return view_is_bf16(&c->in[0]) ? LAUNCH(e, gate_kernel<true>, blocks, 128, 0, s)
                                   : LAUNCH(e, gate_kernel<false>, blocks, 128, 0, s);
}
CUDA_KERNEL(xielu_back) {
    struct row_sums s = row_sums_of(c);
    const struct formula m = map_of(c);
    const int blocks = (int)((s.rows + 7) / 8);
    if (c->out[0].data && map_run<struct xielu_dx_class>(c, e)) return -1;
    if (!c->out[1].data && !c->out[2].data) return 0;
    s.part = (float *)c->scratch;
    if (m.is_bf16 ? LAUNCH(e, xielu_kernel<true>, blocks, 128, 0, s, m)
                  : LAUNCH(e, xielu_kernel<false>, blocks, 128, 0, s, m))
        return -1;
    for (int k = 0; k < 2; k++) {
        struct columns sum = {};
        sum.dy = s.part + k * s.rows, sum.sum = (float *)c->out[1 + k].data;
        sum.rows = s.rows, sum.cols = 1;
        if (sum.sum && column_sums(sum, false, e)) return -1;
    }
    return 0;
}
