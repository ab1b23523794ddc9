/* norm_cpu.c: one pass over a row that fits in cache; formulas and roundings in norm.c. The
 * gradients of w and b are a second pass cut over columns, because their chain over rows may not be
 * cut. */
#include "base/v16.h"
#include "ops/norm_int.h"

V16_FN v16 weight_at(const struct norm *a, i64 at, i64 left, bool is_bf16) {
    if (!a->w) return v16_set(1);
    const v16 w = v16_get_n(a->w, at, left, is_bf16);
    return a->offset < 0 || a->offset > 0 ? v16_add(v16_set(a->offset), w) : w;
}

/* mean and 1 / sqrt(variance + eps) of the norm that starts at `at` */
V16_FN float row_rstd(const struct norm *a, const void *x, i64 at, float *mean, bool is_bf16) {
    const i64 width = a->width;
    v16 sum = v16_set(0);
    *mean = 0;
    if (a->mean) {
        for (i64 i = 0; i < width; i += 16)
            sum = v16_add(sum, v16_get_n(x, at + i, width - i, is_bf16));
        *mean = v16_sum(sum) / (float)width;
        sum = v16_set(0);
    }
    for (i64 i = 0; i < width; i += 16) {
        v16 d = v16_get_n(x, at + i, width - i, is_bf16);
        if (a->mean) d = v16_select(m16_first(width - i), v16_sub(d, v16_set(*mean)), v16_set(0));
        sum = v16_fma(d, d, sum);
    }
    return f32_rsqrt(v16_sum(sum) / (float)width + a->eps);
}

V16_FN void norm_row(const struct norm *a, i64 n, bool is_bf16) {
    const i64 width = a->width, first = n * width, affine = n % a->weights * width;
    for (i64 i = 0; a->h && i < width; i += 16)
        v16_put_n(a->h, first + i,
                  v16_add(v16_get_n(a->x, first + i, width - i, is_bf16),
                          v16_get_n(a->r, first + i, width - i, is_bf16)),
                  width - i, is_bf16);
    const void *x = a->h ? a->h : a->x, *after = a->h ? NULL : a->r;
    float mean;
    const float rstd = a->rstd[n] = row_rstd(a, x, first, &mean, is_bf16);
    if (a->mean) a->mean[n] = mean;
    for (i64 i = 0; i < width; i += 16) {
        const i64 left = width - i;
        v16 z = v16_get_n(x, first + i, left, is_bf16);
        if (a->mean) z = v16_sub(z, v16_set(mean));
        z = v16_mul(z, v16_set(rstd));
        const v16 w = weight_at(a, affine + i, left, is_bf16);
        const v16 y = after  ? v16_fma(z, w, v16_get_n(after, first + i, left, is_bf16))
                      : a->b ? v16_fma(z, w, v16_get_n(a->b, affine + i, left, is_bf16))
                             : v16_mul(z, w);
        v16_put_n(a->y, first + i, y, left, is_bf16);
    }
}
static void norm_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct norm *a = arg;
    if (a->is_bf16)
        for (i64 n = begin; n < end; n++) norm_row(a, n, true);
    else
        for (i64 n = begin; n < end; n++) norm_row(a, n, false);
}
static int norm_run(struct norm a) { return pool_run(a.rows, norm_rows, &a), 0; }
CPU_KERNEL(rmsnorm) { return (void)e, norm_run(norm_of(c, NORM_ALONE, false)); }
CPU_KERNEL(rmsnorm_add) { return (void)e, norm_run(norm_of(c, NORM_SUM_AFTER, false)); }
CPU_KERNEL(add_rmsnorm) { return (void)e, norm_run(norm_of(c, NORM_SUM_FIRST, false)); }
CPU_KERNEL(layernorm) { return (void)e, norm_run(norm_of(c, NORM_ALONE, true)); }
CPU_KERNEL(add_layernorm) { return (void)e, norm_run(norm_of(c, NORM_SUM_FIRST, true)); }

/* ---- gradients ---- */
V16_FN v16 centred(const struct norm *a, i64 n, i64 at, i64 left, bool is_bf16) {
    const v16 x = v16_get_n(a->x, at, left, is_bf16);
    return a->mean ? v16_sub(x, v16_set(a->mean[n])) : x;
}
V16_FN v16 slope_at(const struct norm *a, i64 at, i64 affine, i64 left, bool is_bf16) {
    return v16_mul(v16_get_n(a->dy, at, left, is_bf16), weight_at(a, affine, left, is_bf16));
}
V16_FN void dx_row(const struct norm *a, i64 n, bool is_bf16) {
    const i64 width = a->width, first = n * width, affine = n % a->weights * width;
    const float s = a->rstd[n];
    const v16 scale = v16_set(s);
    v16 sum = v16_set(0), dot = v16_set(0);
    for (i64 i = 0; i < width; i += 16) {
        const v16 g = slope_at(a, first + i, affine + i, width - i, is_bf16);
        v16 x = centred(a, n, first + i, width - i, is_bf16);
        if (a->mean) x = v16_mul(x, scale), sum = v16_add(sum, g);
        dot = v16_fma(g, x, dot);
    }
    const float by = a->mean ? 1 : s * s;
    const v16 slope = v16_set(-(v16_sum(dot) * by / (float)width));
    const v16 mean = v16_set(v16_sum(sum) / (float)width);
    for (i64 i = 0; i < width; i += 16) {
        const i64 at = first + i, left = width - i;
        v16 g = slope_at(a, at, affine + i, left, is_bf16), x = centred(a, n, at, left, is_bf16);
        if (a->mean) g = v16_sub(g, mean), x = v16_mul(x, scale);
        const v16 d = v16_mul(scale, v16_fma(x, slope, g));
        v16_put_n(a->dx, at, a->r ? v16_add(d, v16_get_n(a->r, at, left, is_bf16)) : d, left,
                  is_bf16);
    }
}
static void dx_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct norm *a = arg;
    if (a->is_bf16)
        for (i64 n = begin; n < end; n++) dx_row(a, n, true);
    else
        for (i64 n = begin; n < end; n++) dx_row(a, n, false);
}

/* Four vectors of columns at a time: one cache line (or two) of each row per step, and four
 * independent chains. Task t: part t % parts of the weights of head t / parts. */
V16_FN void dw_columns(const struct norm *a, i64 task, bool is_bf16) {
    const i64 parts = (a->width + 63) / 64, head = task / parts, col = task % parts * 64;
    const i64 to = head * a->width + col, cols = a->width - col;
    v16 w[4], b[4];
    for (int j = 0; j < 4; j++) {
        w[j] = a->dw ? v16_load_n(a->dw + to + 16 * j, cols - 16 * j) : v16_set(0);
        b[j] = a->db ? v16_load_n(a->db + to + 16 * j, cols - 16 * j) : v16_set(0);
    }
    for (i64 n = head; n < a->rows; n += a->weights) {
        const v16 s = v16_set(a->rstd[n]);
        for (int j = 0; j < 4 && cols > 16 * j; j++) {
            const i64 at = n * a->width + col + 16 * j, left = cols - 16 * j;
            const v16 dy = v16_get_n(a->dy, at, left, is_bf16);
            if (a->dw) w[j] = v16_fma(dy, v16_mul(centred(a, n, at, left, is_bf16), s), w[j]);
            if (a->db) b[j] = v16_add(b[j], dy);
        }
    }
    for (int j = 0; j < 4; j++) {
        if (a->dw) v16_store_n(a->dw + to + 16 * j, w[j], cols - 16 * j);
        if (a->db) v16_store_n(a->db + to + 16 * j, b[j], cols - 16 * j);
    }
}
static void dw_tasks(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct norm *a = arg;
    if (a->is_bf16)
        for (i64 t = begin; t < end; t++) dw_columns(a, t, true);
    else
        for (i64 t = begin; t < end; t++) dw_columns(a, t, false);
}

static int back_run(struct norm a) {
    if (a.dx) pool_run(a.rows, dx_rows, &a);
    if (a.dw || a.db) pool_run((a.width + 63) / 64 * a.weights, dw_tasks, &a);
    return 0;
}
CPU_KERNEL(rmsnorm_back) { return (void)e, back_run(norm_back_of(c, 0, false)); }
CPU_KERNEL(add_rmsnorm_back) { return (void)e, back_run(norm_back_of(c, 1, false)); }
CPU_KERNEL(layernorm_back) { return (void)e, back_run(norm_back_of(c, 0, true)); }
CPU_KERNEL(add_layernorm_back) { return (void)e, back_run(norm_back_of(c, 1, true)); }
