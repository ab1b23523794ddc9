/* rope_cuda.cu: a rotation per pair; formulas in rope.c. One pass over memory: a thread turns 16
 * bytes of each half of a head (interleaved: 16 bytes, which hold both of a pair), or copies 16
 * bytes that are not turned; a block takes whole positions, so that the few hundred bytes of
 * cosines and sines of one come from cache. Sizes that are not whole 16-byte vectors go pair by
 * pair. */
#include "ops/device/cuda_vec.h"

enum { BLOCK = 256 };

struct turn {
    const void *x;
    const i32 *position;
    const float *table;
    void *y;
    i64 rows, limit;
    int width, head, rotary; /* elements of a row, of a head, of what is turned of a head */
    int items, per_head;     /* threads' shares of a row, of a head */
    int together;            /* rows per block */
    float sign;
};

DEVICE void turn_pair(float *a, float *b, float co, float si) {
    const float x = *a, y = *b;
    *a = v16_fma(x, co, v16_sub(0, v16_mul(y, si)));
    *b = v16_fma(y, co, v16_mul(x, si));
}

template <bool is_bf16, bool wide>
DEVICE void turn_split(const struct turn &t, const float *row, i64 at, int i) {
    constexpr int width = span_width<is_bf16, wide>;
    const int pairs = t.rotary / 2;
    float a[width], b[width], co[width], si[width];
    span_load<is_bf16, wide>(a, t.x, at + i), span_load<is_bf16, wide>(b, t.x, at + pairs + i);
#pragma unroll
    for (int k = 0; k < width; k += 4) {
        span_load<false, wide>(co + k, row, i + k);
        span_load<false, wide>(si + k, row, pairs + i + k);
    }
#pragma unroll
    for (int k = 0; k < width; k++) turn_pair(&a[k], &b[k], co[k], v16_mul(si[k], t.sign));
    span_store<is_bf16, wide>(t.y, at + i, a), span_store<is_bf16, wide>(t.y, at + pairs + i, b);
}

template <bool is_bf16, bool wide>
DEVICE void turn_pairs(const struct turn &t, const float *row, i64 at, int i) {
    constexpr int width = span_width<is_bf16, wide>;
    const int pairs = t.rotary / 2;
    float a[wide ? width : 2];
    if (wide)
        span_load<is_bf16, wide>(a, t.x, at + 2 * i);
    else
        a[0] = get1(t.x, at + 2 * i, is_bf16), a[1] = get1(t.x, at + 2 * i + 1, is_bf16);
#pragma unroll
    for (int k = 0; k < (wide ? width : 2); k += 2)
        turn_pair(&a[k], &a[k + 1], row[i + k / 2], v16_mul(row[pairs + i + k / 2], t.sign));
    if (wide)
        span_store<is_bf16, wide>(t.y, at + 2 * i, a);
    else
        put1(t.y, at + 2 * i, a[0], is_bf16), put1(t.y, at + 2 * i + 1, a[1], is_bf16);
}

template <bool is_bf16, bool interleaved, bool wide>
__global__ void rope_kernel(struct turn t, struct fault_word *fault) {
    constexpr int width = span_width<is_bf16, wide>, step = interleaved && wide ? width / 2 : width;
    const int turned = t.rotary / 2 / step; /* of a head's shares */
    for (int k = threadIdx.x; k < t.together * t.items; k += BLOCK) {
        const i64 n = (i64)blockIdx.x * t.together + k / t.items;
        if (n >= t.rows) return;
        const int share = k % t.items, j = share % t.per_head;
        const i64 at = n * t.width + share / t.per_head * t.head;
        const i32 position = t.position[n];
        if (position < 0 || position >= t.limit) {
            if (!share) fault_set(fault, BAD_POSITION, position, n, t.limit);
            continue;
        }
        const float *row = t.table + (i64)position * t.rotary;
        if (j >= turned) {
            const i64 i = at + t.rotary + (j - turned) * width;
            float a[width];
            span_load<is_bf16, wide>(a, t.x, i), span_store<is_bf16, wide>(t.y, i, a);
        } else if (interleaved)
            turn_pairs<is_bf16, wide>(t, row, at, j * step);
        else
            turn_split<is_bf16, wide>(t, row, at, j * step);
    }
}

template <bool is_bf16, bool interleaved> static int rope_launch(struct turn t, struct err *e) {
    const void *all[] = {t.x, t.table, t.y};
    const int vector = is_bf16 ? 8 : 4, turned = interleaved ? t.rotary : t.rotary / 2;
    const bool wide =
        aligned16(all, 3) && t.head % vector == 0 && t.rotary % vector == 0 && turned % vector == 0;
    const int width = wide ? vector : 1, rest = t.head - t.rotary;
    t.per_head = (interleaved && !wide ? t.rotary / 2 : turned / width) + rest / width;
    t.items = t.width / t.head * t.per_head;
    t.together = (int)i64_max(1, BLOCK / i64_max(1, t.items));
    const int blocks = (int)i64_max(1, (t.rows + t.together - 1) / t.together);
    return wide ? LAUNCH(e, (rope_kernel<is_bf16, interleaved, true>), blocks, BLOCK, 0, t,
                         cuda_fault_word)
                : LAUNCH(e, (rope_kernel<is_bf16, interleaved, false>), blocks, BLOCK, 0, t,
                         cuda_fault_word);
}

static int rope_run(const struct op_call *c, float sign, struct err *e) {
    const struct rope_attr *a = (const struct rope_attr *)c->attr;
    const struct view *x = &c->in[0], *table = &c->in[2];
    struct turn t = {.x = x->data,
                     .position = (const i32 *)c->in[1].data,
                     .table = (const float *)table->data,
                     .y = c->out[0].data,
                     .rows = x->dim[0],
                     .limit = table->dim[0],
                     .width = (int)x->dim[1],
                     .head = (int)a->head_dim,
                     .rotary = (int)a->rotary_dim,
                     .sign = sign};
    if (view_is_bf16(x))
        return a->interleaved ? rope_launch<true, true>(t, e) : rope_launch<true, false>(t, e);
    return a->interleaved ? rope_launch<false, true>(t, e) : rope_launch<false, false>(t, e);
}
CUDA_KERNEL(rope) { return rope_run(c, 1, e); }
CUDA_KERNEL(rope_back) { return rope_run(c, -1, e); }
