/* adafactor_cpu.c: a gradient divided by the root of its factored mean of squares, in two passes
 * over it: sums of rows and columns, then the product; formulas in adafactor.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

enum { COLS = 512, VALUES = 4096 };

struct call {
    const struct op_call *c;
    struct adafactor_size size;
    float *a, *b, *sums; /* scratch */
};
V16_FN v16 gradient(const struct op_call *c, i64 at, i64 n) {
    const float *h = c->in[0].data;
    const v16 most = v16_set(h[1]), least = v16_set(-h[1]),
              x = v16_mul(v16_load_n((const float *)c->out[0].data + at, n), v16_set(h[0]));
    return v16_max(least, v16_min(most, x));
}
/* n means of squares at `to`, given sums over `count`. */
V16_FN v16 mean(const float *h, float *to, v16 sum, i64 count, i64 n) {
    const v16 now = v16_add(v16_div(sum, v16_set((float)count)), v16_set(h[4])),
              next = v16_fma(v16_set(h[2]), v16_load_n(to, n), v16_mul(v16_set(h[3]), now));
    v16_store_n(to, next, n);
    return next;
}
V16_FN v16 inverse_root(v16 x) { return v16_div(v16_set(1), v16_sqrt(x)); }

static void sums_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct call *t = arg;
    const i64 rows = t->size.rows, cols = t->size.cols;
    for (i64 block = begin; block < end; block++) {
        const i64 batch = block / t->size.blocks, first = block % t->size.blocks * ADAFACTOR_ROWS,
                  last = i64_min(first + ADAFACTOR_ROWS, rows);
        float *col = t->sums + block * cols;
        for (i64 i = batch * rows + first; i < batch * rows + last; i++) {
            v16 sum = v16_set(0);
            for (i64 j = 0; j < cols; j += 16) {
                const i64 n = cols - j;
                const v16 g = gradient(t->c, i * cols + j, n),
                          old = i > batch * rows + first ? v16_load_n(col + j, n) : v16_set(0);
                sum = v16_fma(g, g, sum);
                v16_store_n(col + j, v16_fma(g, g, old), n);
            }
            mean(t->c->in[0].data, (float *)t->c->out[1].data + i, v16_set(v16_sum(sum)), cols, 1);
        }
    }
}
static void rows_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct call *t = arg;
    const i64 rows = t->size.rows;
    const v16 least = v16_set(((const float *)t->c->in[0].data)[5]);
    for (i64 batch = begin; batch < end; batch++) {
        const float *row = (const float *)t->c->out[1].data + batch * rows;
        v16 sum = v16_set(0);
        for (i64 i = 0; i < rows; i += 16) sum = v16_add(sum, v16_load_n(row + i, rows - i));
        const v16 m = v16_div(v16_set(v16_sum(sum)), v16_set((float)rows)), by = v16_max(m, least);
        for (i64 i = 0; i < rows; i += 16)
            v16_store_n(t->a + batch * rows + i,
                        inverse_root(v16_div(v16_load_n(row + i, rows - i), by)), rows - i);
    }
}
static void cols_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct call *t = arg;
    const i64 cols = t->size.cols, blocks = t->size.blocks, chunks = (cols + COLS - 1) / COLS;
    for (i64 k = begin; k < end; k++) {
        const i64 batch = k / chunks, last = i64_min(k % chunks * COLS + COLS, cols);
        for (i64 j = k % chunks * COLS; j < last; j += 16) {
            const i64 n = last - j;
            v16 sum = v16_set(0);
            for (i64 i = 0; i < blocks; i++)
                sum = v16_add(sum, v16_load_n(t->sums + (batch * blocks + i) * cols + j, n));
            float *to = (float *)t->c->out[2].data + batch * cols + j;
            v16_store_n(t->b + batch * cols + j,
                        inverse_root(mean(t->c->in[0].data, to, sum, t->size.rows, n)), n);
        }
    }
}
static void product_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct call *t = arg;
    const i64 cols = t->size.cols;
    const v16 top = v16_set(((const float *)t->c->in[0].data)[6]);
    for (i64 i = begin; i < end; i++) {
        const float *b = t->b + i / t->size.rows * cols;
        float *to = (float *)t->c->out[0].data + i * cols;
        const v16 a = v16_set(t->a[i]);
        for (i64 j = 0; j < cols; j += 16) {
            const v16 f = v16_min(v16_mul(a, v16_load_n(b + j, cols - j)), top);
            v16_store_n(to + j, v16_mul(gradient(t->c, i * cols + j, cols - j), f), cols - j);
        }
    }
}
static void whole_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = ((const struct call *)arg)->c;
    const float *h = c->in[0].data;
    float *grad = c->out[0].data, *v = c->out[3].data;
    const i64 last = i64_min(end * VALUES, view_count(&c->out[0]));
    for (i64 i = begin * VALUES; i < last; i += 16) {
        const i64 n = last - i;
        const v16 g = gradient(c, i, n), now = v16_fma(g, g, v16_set(h[4])),
                  next = v16_fma(v16_set(h[2]), v16_load_n(v + i, n), v16_mul(v16_set(h[3]), now));
        v16_store_n(v + i, next, n);
        v16_store_n(grad + i, v16_mul(g, v16_min(inverse_root(next), v16_set(h[6]))), n);
    }
}

CPU_KERNEL(adafactor) {
    (void)e;
    struct call t = {.c = c, .size = adafactor_size(&c->out[0]), .a = c->scratch};
    const struct adafactor_size s = t.size;
    t.b = t.a + s.batch * s.rows, t.sums = t.b + s.batch * s.cols;
    if (c->out[3].data)
        return pool_run((view_count(&c->out[0]) + VALUES - 1) / VALUES, whole_task, &t), 0;
    pool_run(s.batch * s.blocks, sums_task, &t);
    pool_run(s.batch, rows_task, &t);
    pool_run(s.batch * ((s.cols + COLS - 1) / COLS), cols_task, &t);
    pool_run(s.batch * s.rows, product_task, &t);
    return 0;
}
