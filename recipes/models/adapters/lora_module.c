/* lora_module.c: an adapter on one module (Hu et al., 2021): made, and merged into the weight.
 * Names and starting values are PEFT's. */
#include "recipes/models/models_int.h"

#include <string.h>

static struct param *half_new(struct weights *w, const char *module, enum lora_part part, i64 rows,
                              i64 cols, struct err *e) {
    return lora_part_new(w, module, part, 2, (i64[]){rows, cols}, e);
}

/* An adapter on a weight [rows, columns], or on each of stacked experts' [E, rows, columns];
 * `columns`: the embedding's, where what B's rows belong to are columns. */
struct merge {
    struct param *w;
    const struct lora_pair *l;
    bool columns;
    float *norm; /* [rows], or [columns] */
};
static i64 last_dim(const struct param *p, int back) {
    return p->view.dim[p->view.rank - 1 - back];
}
static float adapted(const struct merge *m, i64 row, i64 col) {
    const struct lora_pair *l = m->l;
    const i64 cols = last_dim(m->w, 0), r = last_dim(l->b, 0), expert = row / last_dim(m->w, 1);
    const i64 b = (m->columns ? col : row) * r, a = m->columns ? row * r : expert * r * cols + col,
              step = m->columns ? 1 : cols;
    float sum = 0;
    for (i64 k = 0; k < r; k++)
        sum = __builtin_fmaf(param_get(l->b, b + k), param_get(l->a, a + k * step), sum);
    return __builtin_fmaf((float)l->scale, sum, param_get(m->w, row * cols + col));
}
/* Of the adapted weight, or where there is no adapter yet of the weight itself. */
static void norm_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct merge *m = arg;
    enum { PART = 64 }; /* columns of a table that are walked together */
    const i64 rows = m->w->view.dim[0], cols = m->w->view.dim[1];
    for (i64 o = begin; o < end; o++) {
        double sum[PART] = {0};
        const i64 row = m->columns ? 0 : o, col = m->columns ? o * PART : 0,
                  n = i64_min(m->columns ? PART : cols, cols - col);
        for (i64 v = row; v < (m->columns ? rows : o + 1); v++)
            for (i64 i = 0; i < n; i++) {
                const double x =
                    (double)(m->l ? adapted(m, v, col + i) : param_get(m->w, v * cols + col + i));
                sum[m->columns ? i : 0] += x * x;
            }
        for (i64 i = 0; i < (m->columns ? n : 1); i++)
            m->norm[m->columns ? col + i : o] = (float)__builtin_sqrt(sum[i]);
    }
}
static int norms_make(struct merge *m, struct err *e) {
    const i64 cols = m->w->view.dim[1], count = m->columns ? cols : m->w->view.dim[0];
    m->norm = mem_new_array(count, sizeof *m->norm, e);
    if (m->norm) pool_run(m->columns ? (count + 63) / 64 : count, norm_rows, m);
    return m->norm ? 0 : -1;
}
static void merge_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct merge *m = arg;
    const struct param *g = m->l->magnitude;
    const i64 cols = last_dim(m->w, 0);
    for (i64 o = begin; o < end; o++)
        for (i64 i = 0; i < cols; i++) {
            const i64 at = m->columns ? i : o;
            const float by = g ? param_get(g, at) / m->norm[at] : 1;
            param_set(m->w, o * cols + i, by * adapted(m, o, i));
        }
}
static int merge_run(struct param *w, const struct lora_pair *l, bool columns, struct err *e) {
    struct merge m = {w, l, columns, NULL};
    if (!l->a) return 0;
    if (l->magnitude && norms_make(&m, e)) return -1;
    pool_run(view_count(&w->view) / last_dim(w, 0), merge_rows, &m);
    mem_free(m.norm);
    return 0;
}

/* DoRA's magnitudes: they start as the weight's norms, of a packed one as it is decoded. */
static int magnitude_add(struct weights *all, const char *module, const struct param *w,
                         struct lora_pair *to, bool columns, struct err *e) {
    struct param plain = *w,
                 *g = lora_part_new(all, module, LORA_MAGNITUDE, 1, w->view.dim + columns, e);
    const bool packed = w->view.packing;
    plain.view.packing = NULL;
    if (!g || (packed && !(plain.view.data = mem_new(view_bytes(&plain.view), e)))) return -1;
    struct merge start = {.w = &plain, .columns = columns};
    const int rc =
        (packed && param_decode(w, all->dtype, plain.view.data, e)) || norms_make(&start, e) ? -1
                                                                                             : 0;
    for (i64 o = 0; !rc && o < g->view.dim[0]; o++) param_set(g, o, start.norm[o]);
    if (packed) mem_free(plain.view.data);
    mem_free(start.norm);
    g->layer = w->layer, g->layout = to->b->layout, g->heads = w->heads, g->kv_heads = w->kv_heads;
    g->rope_dim = w->rope_dim;
    return to->magnitude = g, rc;
}

static int linear_adapt(struct weights *all, struct module *at, struct lora_config *c, u64 seed,
                        i64 *index, struct err *e) {
    const char *module = at->path;
    struct param *w = at->weight;
    struct lora_pair *to = &at->adapter;
    i64 r;
    if (lora_of(c, module, &r, &to->scale, e)) return -1;
    struct param *a = half_new(all, module, LORA_A, r, w->view.dim[1], e);
    struct param *b = a ? half_new(all, module, LORA_B, w->view.dim[0], r, e) : NULL;
    if (!b) return -1;
    lora_start(a, c, seed, (*index)++);
    a->layer = b->layer = w->layer;
    /* B's rows lie in a file as those of the layer do; a transposed layer's adapter is not. */
    b->layout = w->layout & ~(u32)LAYOUT_T, b->heads = w->heads, b->kv_heads = w->kv_heads;
    b->rope_dim = w->rope_dim;
    to->a = a, to->b = b;
    if (lora_is_pissa(c)) {
        struct lora_pair minus = {a, b, NULL, -to->scale};
        if (pissa_start(all, w, to, e) || merge_run(w, &minus, false, e)) return -1;
    }
    return c->use_dora ? magnitude_add(all, module, w, to, false, e) : 0;
}

/* An embedding: A [V, r] in memory, zero; B [D, r], normal. */
static int embedding_adapt(struct weights *all, struct module *at, struct lora_config *c, u64 seed,
                           i64 *index, struct err *e) {
    struct param *w = at->weight;
    struct lora_pair *to = &at->adapter;
    i64 r;
    if (lora_is_pissa(c))
        return err_input(e, "init_lora_weights pissa is for linear layers, not for %s", at->path);
    if (lora_of(c, at->path, &r, &to->scale, e)) return -1;
    struct param *a = half_new(all, at->path, LORA_EMBED_A, w->view.dim[0], r, e);
    struct param *b = a ? half_new(all, at->path, LORA_EMBED_B, w->view.dim[1], r, e) : NULL;
    if (!b) return -1;
    a->layout = LAYOUT_T;
    const struct rng rng = {seed, RNG_INIT, 1, (u32)(*index)++};
    for (i64 i = 0; i < view_count(&b->view); i++) param_set(b, i, rng_normal(&rng, (u64)i));
    to->a = a, to->b = b;
    return c->use_dora ? magnitude_add(all, at->path, w, to, true, e) : 0;
}

int module_adapt(struct weights *w, struct module *m, struct lora_config *c, u64 seed, i64 *index,
                 struct err *e) {
    const bool table = m->type->kind == MODULE_EMBEDDING;
    return (table ? embedding_adapt : linear_adapt)(w, m, c, seed, index, e);
}

int module_merge(struct module *m, struct err *e) {
    if (merge_run(m->weight, &m->adapter, m->type->kind == MODULE_EMBEDDING, e)) return -1;
    m->adapter = (struct lora_pair){0};
    return 0;
}
