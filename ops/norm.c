/* norm.c: root mean square norms (Zhang and Sennrich, 2019) and layer norms (Ba et al., 2016), in
 * the forms that decoders use.
 *
 *   rmsnorm        y = n(x), n = x * rstd * (offset + w)     rstd = 1 / sqrt(mean(x^2) + eps)
 *   add_rmsnorm    h = x + r, y = n(h)                       pre-norm blocks (Llama)
 *   rmsnorm_add    y = r + n(x)                              post-norm blocks (OLMo 2)
 *   layernorm      y = (x - mean) * rstd * (offset + w) + b  rstd of x - mean
 *   add_layernorm  h = x + r, y = the same of h
 *
 * x, r, y, h [..., cols] in f32 or bf16. A norm is over `width` elements, so that a row is cols /
 * width heads with norms of their own (QK-norm); width 0 is the whole row. w and b [width], or
 * [cols] where each head has its own (StableLM), alike; absent they are 1 and 0. `offset` is 1
 * where w is stored as w - 1 (Gemma, Qwen3-Next). mean and rstd [rows * heads] f32.
 *
 * Roundings: sums by NUMERICS.md 7, squares with fma, the mean before the squares of x - mean; rstd
 * by IEEE division and square root; offset + w in f32 (an offset of 0 is not added); (x * rstd) *
 * w, or ((x - mean) * rstd) * w, in f32; + b and + r as fma; one rounding to the dtype at the end;
 * h is rounded to its dtype before it is used. In bf16 families differ here: Llama rounds x * rstd
 * before it multiplies by w, Gemma, OLMo 2 and GPT-OSS do not. One definition serves all, the more
 * exact one; in f32 there is no difference.
 *
 * Gradients, with g = dy * (offset + w), z = (x - mean) * rstd:
 *   rmsnorm    dx = rstd * (g - x * rstd^2 * mean(g * x))
 *   layernorm  dx = rstd * ((g - mean(g)) - z * mean(g * z))
 * (+ dh, before the one rounding); dw += dy * z, db += dy, chains in f32 over rows ascending, heads
 * of a row ascending where they share w (the row is the token: NUMERICS.md 5). */
#include "ops/norm_int.h"

#include <math.h>

/* w or b at `at`, if present: [width] or [cols], as `like` (0: none) if that is present. */
static int affine_check(const struct op_call *c, int at, const struct view *x, i64 width, int like,
                        struct err *e) {
    const struct view *v = &c->in[at];
    if (!is_present(v)) return 0;
    if (need_rank(c, at, 1, e) || need_dtype(c, at, x->dtype, e)) return -1;
    if (like && is_present(&c->in[like])) return need_same(c, at, like, e);
    return v->dim[0] == width ? 0 : need_dim(c, at, 0, x->dim[x->rank - 1], e);
}
static int width_check(const struct op_call *c, const struct view *x, i64 *width, struct err *e) {
    const i64 cols = x->dim[x->rank - 1], w = ((const struct norm_attr *)c->attr)->width;
    *width = w ? w : cols;
    if (w >= 0 && *width > 0 && cols % *width == 0) return 0;
    return err_failed(e, "operation %s: rows of %lld elements are not heads of %lld", c->op->name,
                      (long long)cols, (long long)w);
}
static int norm_shape(struct op_call *c, enum norm_form form, bool centred, struct err *e) {
    const struct view *x = &c->in[0];
    const int w = form == NORM_ALONE ? 1 : 2, statistics = form == NORM_SUM_FIRST ? 2 : 1;
    i64 width;
    if (need_float(c, 0, e) || width_check(c, x, &width, e) || affine_check(c, w, x, width, 0, e) ||
        (centred && affine_check(c, w + 1, x, width, w, e)) || (w == 2 && need_same(c, 1, 0, e)))
        return -1;
    for (int i = 0; i < statistics; i++) set_out_like(c, i, x);
    for (int i = statistics; i <= statistics + centred; i++)
        set_out(c, i, x->dtype == F64 ? F64 : F32, 1, (i64[]){view_count(x) / width});
    return 0;
}
static int back_shape(struct op_call *c, int first, bool centred, struct err *e) {
    const struct view *x = &c->in[first + 1], *w = &c->in[first + 2];
    i64 width;
    if (need_float(c, first + 1, e) || width_check(c, x, &width, e) ||
        need_same(c, first, first + 1, e) || affine_check(c, first + 2, x, width, 0, e) ||
        (first && is_present(&c->in[0]) && need_same(c, 0, first + 1, e)))
        return -1;
    for (int i = first + 3; i <= first + 3 + centred; i++)
        if (need_dim(c, i, 0, view_count(x) / width, e)) return -1;
    set_out_like(c, 0, x);
    i64 size = is_present(w) ? w->dim[0] : 0;
    for (int i = 1; i <= 1 + centred; i++) {
        if (!is_present(&c->out[i])) continue;
        if (!size) size = c->out[i].dim[0] == width ? width : x->dim[x->rank - 1];
        if (need_out(c, i, x->dtype == F64 ? F64 : F32, 1, &size, e)) return -1;
    }
    return 0;
}

/* ---- references: the fields of struct norm point at doubles ---- */
static double at(const void *p, i64 i) { return ((const double *)p)[i]; }
static double weight_at(const struct norm *a, const struct norm_attr *t, i64 i) {
    return a->w ? t->offset + at(a->w, i) : 1;
}
static void norm_ref(const struct op_call *c, enum norm_form form, bool centred) {
    const struct norm a = norm_of(c, form, centred);
    const struct norm_attr *t = c->attr;
    double *h = a.h, *y = a.y, *means = (double *)(void *)a.mean, *rstds = (double *)(void *)a.rstd;
    const double *x = h ? h : a.x;
    for (i64 i = 0; h && i < a.rows * a.width; i++) h[i] = at(a.x, i) + at(a.r, i);
    for (i64 n = 0; n < a.rows; n++) {
        double mean = 0, sum = 0;
        for (i64 i = 0; centred && i < a.width; i++) mean += x[n * a.width + i] / (double)a.width;
        for (i64 i = 0; i < a.width; i++) sum += pow(x[n * a.width + i] - mean, 2);
        const double rstd = rstds[n] = 1 / sqrt(sum / (double)a.width + t->eps);
        if (centred) means[n] = mean;
        for (i64 i = 0; i < a.width; i++) {
            const i64 k = n * a.width + i, j = n % a.weights * a.width + i;
            y[k] = (x[k] - mean) * rstd * weight_at(&a, t, j) + (a.b ? at(a.b, j) : 0) +
                   (form == NORM_SUM_AFTER ? at(a.r, k) : 0);
        }
    }
}
static void back_ref(const struct op_call *c, int first, bool centred) {
    const struct norm a = norm_back_of(c, first, centred);
    const struct norm_attr *t = c->attr;
    double *dx = a.dx, *dw = (double *)(void *)a.dw, *db = (double *)(void *)a.db;
    for (i64 n = 0; n < a.rows; n++) {
        const double rstd = at(a.rstd, n), mean = centred ? at(a.mean, n) : 0;
        double sum = 0, dot = 0;
        for (i64 i = 0; i < a.width; i++) {
            const i64 k = n * a.width + i, j = n % a.weights * a.width + i;
            const double g = at(a.dy, k) * weight_at(&a, t, j), z = (at(a.x, k) - mean) * rstd;
            sum += g / (double)a.width, dot += g * z / (double)a.width;
            if (dw) dw[j] += at(a.dy, k) * z;
            if (db) db[j] += at(a.dy, k);
        }
        for (i64 i = 0; i < a.width; i++) {
            const i64 k = n * a.width + i, j = n % a.weights * a.width + i;
            const double g = at(a.dy, k) * weight_at(&a, t, j), z = (at(a.x, k) - mean) * rstd;
            if (dx) dx[k] = rstd * (g - (centred ? sum : 0) - z * dot) + (a.r ? at(a.r, k) : 0);
        }
    }
}

/* ---- samples ---- */
static const struct norm_case {
    i64 rows, cols, width;
    int offset, affine; /* affine: 0 none, 1 w, 2 w and b, 3 b; + OWN: for each head */
} cases[] = {
    {1, 1, 0, 0, 2},      {3, 5, 0, 0, 2},       {2, 16, 0, 1, 1},        {7, 33, 0, 0, 0},
    {5, 100, 0, 0, 2},    {67, 128, 16, 1, 2},   {600, 24, 0, 0, 2},      {3, 1040, 0, 0, 2},
    {9, 15, 5, 1, 6},     {4, 384, 128, 0, 6},   {5, 64, 8, 0, 4},        {6, 32, 32, 0, 3},
    {2048, 768, 0, 0, 2}, {2048, 4096, 0, 0, 2}, {2048, 2048, 128, 0, 1}, {32768, 4096, 0, 0, 2},
};
enum { OWN = 4 };

static const struct norm_case *case_at(int index, struct sample *s) {
    if (index >= COUNT(cases)) return NULL;
    const struct norm_case *k = &cases[index];
    *(struct norm_attr *)s->attr = (struct norm_attr){1e-5, k->offset, k->width};
    s->bench = bench_of(k->rows);
    return k;
}
static i64 affine_size(const struct norm_case *k) {
    return k->affine & OWN || !k->width ? k->cols : k->width;
}
static bool norm_sample(int index, struct sample *s, int inputs, bool centred) {
    const struct norm_case *k = case_at(index, s);
    if (!k) return false;
    const int affine = k->affine % OWN;
    for (int i = 0; i < inputs; i++) sample_float(&s->in[i], -2, 2, DIMS(k->rows, k->cols));
    if (affine == 1 || affine == 2) sample_float(&s->in[inputs], 0.5, 1.5, DIMS(affine_size(k)));
    if (centred && affine > 1) sample_float(&s->in[inputs + 1], -1, 1, DIMS(affine_size(k)));
    return true;
}
static bool back_sample(int index, struct sample *s, int first, bool centred) {
    const struct norm_case *k = case_at(index, s);
    if (!k) return false;
    const int affine = k->affine % OWN;
    const i64 norms = k->rows * (k->width ? k->cols / k->width : 1);
    for (int i = 0; i < first + 2; i++) sample_float(&s->in[i], -2, 2, DIMS(k->rows, k->cols));
    if (affine == 1 || affine == 2) {
        sample_float(&s->in[first + 2], 0.5, 1.5, DIMS(affine_size(k)));
        sample_out(&s->out[1], DIMS(affine_size(k)));
    }
    if (centred) sample_f32(&s->in[first + 3], -0.5, 0.5, DIMS(norms));
    sample_f32(&s->in[first + 3 + centred], 0.5, 1, DIMS(norms));
    if (centred && affine > 1) sample_out(&s->out[2], DIMS(affine_size(k)));
    return true;
}

/* ---- the operations ---- */
#define NORM(NAME, FORM, CENTRED, IN, OUT, BOUND16, ...)                                           \
    static int NAME##_shape(struct op_call *c, struct err *e) {                                    \
        return norm_shape(c, FORM, CENTRED, e);                                                    \
    }                                                                                              \
    static void NAME##_ref(const struct op_call *c) { norm_ref(c, FORM, CENTRED); }                \
    static bool NAME##_sample(int index, struct sample *s) {                                       \
        return norm_sample(index, s, FORM == NORM_ALONE ? 1 : 2, CENTRED);                         \
    }                                                                                              \
    const struct op op_##NAME = {.name = #NAME,                                                    \
                                 .in = IN,                                                         \
                                 .out = OUT,                                                       \
                                 .attr_size = sizeof(struct norm_attr),                            \
                                 .shape = NAME##_shape,                                            \
                                 .grad = {__VA_ARGS__},                                            \
                                 .ref = NAME##_ref,                                                \
                                 .cpu = CPU(NAME),                                                 \
                                 .cuda = CUDA(NAME),                                               \
                                 .sample = NAME##_sample,                                          \
                                 .bound = {8, BOUND16}};
NORM(rmsnorm, NORM_ALONE, false, "x w?", "y rstd", 2, {"rmsnorm_back", "dy x w rstd", "dx +dw"})
NORM(add_rmsnorm, NORM_SUM_FIRST, false, "x r w?", "h y rstd", 4,
     {"add_rmsnorm_back", "dh dy h w rstd", "dx=dr +dw"})
NORM(rmsnorm_add, NORM_SUM_AFTER, false, "x r w?", "y rstd", 2,
     {"rmsnorm_back", "dy x w rstd", "dx +dw"}, {NULL, "dy", "dr"})
NORM(layernorm, NORM_ALONE, true, "x w? b?", "y mean rstd", 2,
     {"layernorm_back", "dy x w mean rstd", "dx +dw +db"})
NORM(add_layernorm, NORM_SUM_FIRST, true, "x r w? b?", "h y mean rstd", 4,
     {"add_layernorm_back", "dh dy h w mean rstd", "dx=dr +dw +db"})

#define NORM_BACK(NAME, FIRST, CENTRED, IN, OUT)                                                   \
    static int NAME##_shape(struct op_call *c, struct err *e) {                                    \
        return back_shape(c, FIRST, CENTRED, e);                                                   \
    }                                                                                              \
    static void NAME##_ref(const struct op_call *c) { back_ref(c, FIRST, CENTRED); }               \
    static bool NAME##_sample(int index, struct sample *s) {                                       \
        return back_sample(index, s, FIRST, CENTRED);                                              \
    }                                                                                              \
    const struct op op_##NAME = {.name = #NAME,                                                    \
                                 .in = IN,                                                         \
                                 .out = OUT,                                                       \
                                 .attr_size = sizeof(struct norm_attr),                            \
                                 .shape = NAME##_shape,                                            \
                                 .ref = NAME##_ref,                                                \
                                 .cpu = CPU(NAME),                                                 \
                                 .cuda = CUDA(NAME),                                               \
                                 .sample = NAME##_sample,                                          \
                                 .bound = {8, 2}};
NORM_BACK(rmsnorm_back, 0, false, "dy x w? rstd", "dx +dw?")
NORM_BACK(add_rmsnorm_back, 1, false, "dh? dy h w? rstd", "dx +dw?")
NORM_BACK(layernorm_back, 0, true, "dy x w? mean rstd", "dx +dw? +db?")
NORM_BACK(add_layernorm_back, 1, true, "dh? dy h w? mean rstd", "dx +dw? +db?")
