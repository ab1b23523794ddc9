/* norm_int.h: the arguments of a norm by name; what norm.c and its kernels share. */
#ifndef HONE_NORM_INT_H
#define HONE_NORM_INT_H

#include "ops/ops_int.h"

/* Which of the sums around a norm it does itself. */
enum norm_form { NORM_ALONE, NORM_SUM_FIRST, NORM_SUM_AFTER };

/* Norms are over `width` elements; `rows` counts norms, of which `heads` make a row of x. Norm n
 * has the weights from (n % weights) * width on. Absent arguments are NULL. */
struct norm {
    i64 rows, width, heads, weights;
    float eps, offset;
    bool is_bf16;
    const void *x, *r, *w, *b; /* r: backward: dh */
    void *h, *y;
    float *mean, *rstd;
    const void *dy; /* backward */
    void *dx;
    float *dw, *db;
};

static inline struct norm norm_sizes_of(const struct op_call *c, const struct view *x,
                                        const struct view *w, const struct view *b) {
    const struct norm_attr *attr = (const struct norm_attr *)c->attr;
    const i64 cols = x->dim[x->rank - 1];
    struct norm a = {0};
    a.width = attr->width ? attr->width : cols;
    a.heads = cols / a.width, a.rows = view_rows(x) * a.heads;
    const struct view *own = is_present(w) ? w : b;
    a.weights = own && is_present(own) && own->dim[0] == cols ? a.heads : 1;
    a.eps = (float)attr->eps, a.offset = (float)attr->offset;
    a.is_bf16 = view_is_bf16(x);
    a.x = x->data, a.w = w->data, a.b = b ? b->data : NULL;
    return a;
}

static inline struct norm norm_of(const struct op_call *c, enum norm_form form, bool centred) {
    const int w = form == NORM_ALONE ? 1 : 2, y = form == NORM_SUM_FIRST;
    struct norm a = norm_sizes_of(c, &c->in[0], &c->in[w], centred ? &c->in[w + 1] : NULL);
    a.r = w == 2 ? c->in[1].data : NULL;
    a.h = y ? c->out[0].data : NULL, a.y = c->out[y].data;
    a.mean = centred ? (float *)c->out[y + 1].data : NULL;
    a.rstd = (float *)c->out[y + 1 + centred].data;
    return a;
}

/* [dh,] dy, x, w, [mean,] rstd -> dx, dw, [db]. `first`: index of dy. */
static inline struct norm norm_back_of(const struct op_call *c, int first, bool centred) {
    const struct view *in = c->in + first;
    struct norm a = norm_sizes_of(c, &in[1], &in[2], NULL);
    const struct view *own = is_present(&c->out[1]) ? &c->out[1] : &c->out[2];
    if (!is_present(&in[2]) && is_present(own) && own->dim[0] != a.width) a.weights = a.heads;
    a.r = first ? c->in[0].data : NULL, a.dy = in[0].data;
    a.mean = centred ? (float *)in[3].data : NULL, a.rstd = (float *)in[3 + centred].data;
    a.dx = c->out[0].data, a.dw = (float *)c->out[1].data, a.db = (float *)c->out[2].data;
    return a;
}

#endif
