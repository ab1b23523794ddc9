/* split_cuda.cu: copies of parts of rows; what they are: split.c. One kernel for both directions: a
 * thread moves a unit of 16 bytes, where all rows and parts are whole units, or one element. */
#include "ops/device/cuda_vec.h"

struct parts {
    void *whole, *part[3];
    int width[3]; /* units */
    i64 rows;
    bool apart;
};
template <class Unit> __global__ void parts_kernel(struct parts p) {
    const int cols = p.width[0] + p.width[1] + p.width[2];
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < p.rows * cols; i += stride) {
        const i64 row = i / cols;
        int at = (int)(i - row * cols), k = 0;
        while (k < 2 && at >= p.width[k]) at -= p.width[k++];
        Unit *part = (Unit *)p.part[k], *whole = (Unit *)p.whole;
        const i64 from = row * p.width[k] + at;
        if (!p.apart)
            whole[i] = part ? part[from] : Unit{};
        else if (part)
            part[from] = whole[i];
    }
}
static int parts_run(const struct op_call *c, const struct view *whole, const struct view *part,
                     bool apart, struct err *e) {
    const i64 *w = ((const struct split_attr *)c->attr)->width, size = dtype_size(whole->dtype);
    struct parts p = {};
    p.whole = whole->data, p.rows = view_rows(whole), p.apart = apart;
    bool wide = (uintptr_t)whole->data % 16 == 0;
    for (int k = 0; k < 3; k++) {
        p.part[k] = part[k].data;
        wide = wide && (uintptr_t)part[k].data % 16 == 0 && w[k] * size % 16 == 0;
    }
    for (int k = 0; k < 3; k++) p.width[k] = (int)(wide ? w[k] * size / 16 : w[k]);
    const int blocks = grid_for(view_bytes(whole) / (wide ? 16 : size), 256);
    if (wide) return LAUNCH(e, parts_kernel<uint4>, blocks, 256, 0, p);
    return size == 2 ? LAUNCH(e, parts_kernel<u16>, blocks, 256, 0, p)
                     : LAUNCH(e, parts_kernel<u32>, blocks, 256, 0, p);
}
CUDA_KERNEL(split) { return parts_run(c, &c->in[0], c->out, true, e); }
CUDA_KERNEL(join) { return parts_run(c, &c->out[0], c->in, false, e); }
