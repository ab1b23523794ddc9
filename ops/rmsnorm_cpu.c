/* rmsnorm_cpu.c: one pass over a row that fits in cache; formulas and roundings in rmsnorm.c. The
 * gradient of w is a second pass cut over columns, because its chain over rows may not be cut. */
#include "base/v16.h"
#include "ops/ops_int.h"

V16_FN float row_rstd(const void *x, i64 at, i64 cols, float eps, bool half) {
    v16 sum = v16_set(0);
    for (i64 i = 0; i < cols; i += 16) {
        const v16 a = v16_get_n(x, at + i, cols - i, half);
        sum = v16_fma(a, a, sum);
    }
    return f32_rsqrt(v16_sum(sum) / (float)cols + eps);
}

/* y = norm(x) (+ r). Rows begin..end. */
V16_FN void norm_rows(const struct op_call *c, const void *x, const void *r, const void *w, void *y,
                      float *rstd, i64 begin, i64 end, bool half) {
    const i64 cols = c->in[0].dim[c->in[0].rank - 1];
    const float eps = (float)((const struct norm_attr *)c->attr)->eps;
    for (i64 n = begin; n < end; n++) {
        const float s = rstd[n] = row_rstd(x, n * cols, cols, eps, half);
        for (i64 i = 0; i < cols; i += 16) {
            const v16 a = v16_mul(v16_get_n(x, n * cols + i, cols - i, half), v16_set(s));
            const v16 b = v16_get_n(w, i, cols - i, half);
            const v16 out =
                r ? v16_fma(a, b, v16_get_n(r, n * cols + i, cols - i, half)) : v16_mul(a, b);
            v16_put_n(y, n * cols + i, out, cols - i, half);
        }
    }
}

static void rmsnorm_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    if (is_half(&c->in[0]))
        norm_rows(c, c->in[0].data, NULL, c->in[1].data, c->out[0].data, c->out[1].data, begin, end,
                  true);
    else
        norm_rows(c, c->in[0].data, NULL, c->in[1].data, c->out[0].data, c->out[1].data, begin, end,
                  false);
}
static void rmsnorm_add_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const void *x = c->in[0].data, *r = c->in[1].data, *w = c->in[2].data;
    if (is_half(&c->in[0]))
        norm_rows(c, x, r, w, c->out[0].data, c->out[1].data, begin, end, true);
    else
        norm_rows(c, x, r, w, c->out[0].data, c->out[1].data, begin, end, false);
}
V16_FN void sum_rows(const struct op_call *c, i64 begin, i64 end, bool half) {
    const i64 cols = c->in[0].dim[c->in[0].rank - 1];
    for (i64 n = begin; n < end; n++) {
        for (i64 i = 0; i < cols; i += 16) {
            const i64 at = n * cols + i;
            const v16 a = v16_get_n(c->in[0].data, at, cols - i, half);
            v16_put_n(c->out[0].data, at, v16_add(a, v16_get_n(c->in[1].data, at, cols - i, half)),
                      cols - i, half);
        }
        norm_rows(c, c->out[0].data, NULL, c->in[2].data, c->out[1].data, c->out[2].data, n, n + 1,
                  half);
    }
}
static void add_rmsnorm_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    if (is_half(&c->in[0]))
        sum_rows(c, begin, end, true);
    else
        sum_rows(c, begin, end, false);
}

CPU_KERNEL(rmsnorm) { return (void)e, pool_run(view_rows(&c->in[0]), rmsnorm_rows, (void *)c), 0; }
CPU_KERNEL(rmsnorm_add) {
    return (void)e, pool_run(view_rows(&c->in[0]), rmsnorm_add_rows, (void *)c), 0;
}
CPU_KERNEL(add_rmsnorm) {
    return (void)e, pool_run(view_rows(&c->in[0]), add_rmsnorm_rows, (void *)c), 0;
}

/* The backward calls, with their arguments by name: `dh` may be absent. */
struct back {
    const struct op_call *c;
    const void *dh, *dy, *x, *w;
    const float *rstd;
    void *dx;
    float *dw;
    i64 rows, cols;
    bool half;
};

V16_FN void dx_rows(const struct back *b, i64 begin, i64 end, bool half) {
    const i64 cols = b->cols;
    for (i64 n = begin; n < end; n++) {
        v16 dot = v16_set(0);
        for (i64 i = 0; i < cols; i += 16) {
            const i64 at = n * cols + i, left = cols - i;
            const v16 g = v16_mul(v16_get_n(b->dy, at, left, half), v16_get_n(b->w, i, left, half));
            dot = v16_fma(g, v16_get_n(b->x, at, left, half), dot);
        }
        const float s = b->rstd[n];
        const v16 slope = v16_set(-(v16_sum(dot) * (s * s) / (float)cols)), scale = v16_set(s);
        for (i64 i = 0; i < cols; i += 16) {
            const i64 at = n * cols + i, left = cols - i;
            const v16 g = v16_mul(v16_get_n(b->dy, at, left, half), v16_get_n(b->w, i, left, half));
            const v16 d = v16_mul(scale, v16_fma(v16_get_n(b->x, at, left, half), slope, g));
            v16_put_n(b->dx, at, b->dh ? v16_add(d, v16_get_n(b->dh, at, left, half)) : d, left,
                      half);
        }
    }
}
static void dx_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct back *b = arg;
    if (b->half)
        dx_rows(b, begin, end, true);
    else
        dx_rows(b, begin, end, false);
}

/* Four vectors of columns at a time: one cache line (or two) of each row per step, and four
 * independent chains. */
V16_FN void dw_columns(const struct back *b, i64 begin, i64 end, bool half) {
    for (i64 first = begin * 64; first < i64_min(end * 64, b->cols); first += 64) {
        v16 sum[4];
        for (int j = 0; j < 4; j++)
            sum[j] = v16_load_n(b->dw + first + 16 * j, b->cols - first - 16 * j);
        for (i64 n = 0; n < b->rows; n++) {
            const v16 s = v16_set(b->rstd[n]);
            for (int j = 0; j < 4; j++) {
                const i64 at = n * b->cols + first + 16 * j, left = b->cols - first - 16 * j;
                if (left <= 0) break;
                const v16 x = v16_mul(v16_get_n(b->x, at, left, half), s);
                sum[j] = v16_fma(v16_get_n(b->dy, at, left, half), x, sum[j]);
            }
        }
        for (int j = 0; j < 4; j++)
            v16_store_n(b->dw + first + 16 * j, sum[j], b->cols - first - 16 * j);
    }
}
static void dw_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct back *b = arg;
    if (b->half)
        dw_columns(b, begin, end, true);
    else
        dw_columns(b, begin, end, false);
}

static int back_run(const struct op_call *c, int first) {
    struct back b = {.c = c,
                     .dh = first ? c->in[0].data : NULL,
                     .dy = c->in[first].data,
                     .x = c->in[first + 1].data,
                     .w = c->in[first + 2].data,
                     .rstd = c->in[first + 3].data,
                     .dx = c->out[0].data,
                     .dw = c->out[1].data,
                     .rows = view_rows(&c->in[first]),
                     .cols = c->in[first + 2].dim[0],
                     .half = is_half(&c->in[first])};
    if (b.dx) pool_run(b.rows, dx_task, &b);
    if (b.dw) pool_run((b.cols + 63) / 64, dw_task, &b);
    return 0;
}
CPU_KERNEL(rmsnorm_back) { return (void)e, back_run(c, 0); }
CPU_KERNEL(add_rmsnorm_back) { return (void)e, back_run(c, 1); }
