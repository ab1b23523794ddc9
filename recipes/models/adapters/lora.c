/* lora.c: adapters (Hu et al., 2021) as parameter pairs on linear slots. The layers ask for one
 * fused operation; nothing else in the model knows that there is an adapter. Names and starting
 * values are PEFT's. */
#include "recipes/models/models_int.h"

#include <string.h>

/* ---- in the trace ---- */

struct tensor *linear_call(struct build *b, const struct linear_in *in, double lora_scale) {
    const struct lora_attr attr = {lora_scale};
    return graph_op(
        b->g, &op_linear, &attr,
        BIND({"x", in->x}, {"w", in->w}, {"bias", in->bias}, {"a", in->a}, {"b", in->b}));
}

static struct tensor *linear(struct build *b, struct tensor *x, struct tensor *w) {
    return linear_call(b, &(struct linear_in){.x = x, .w = w}, 0);
}
static struct tensor *plus(struct build *b, struct tensor *y, struct tensor *v) {
    return graph_op(b->g, &op_add, NULL, BIND({"a", y}, {"b", v}));
}
static struct tensor *scaled(struct build *b, struct tensor *v, double by) {
    return graph_op(b->g, &op_scale, &(struct scale_attr){by}, BIND({"x", v}));
}

static struct tensor *dropped(struct build *b, struct tensor *x, u32 stream) {
    const struct dropout_attr drop = {b->dropout, b->dropout_seed, stream};
    return graph_op(b->g, &op_dropout, &drop, BIND({"x", x}, {"place", b->dropout_place}));
}

/* Norms of the adapted weight, of rows or of columns. */
static struct tensor *dora_norm(struct build *b, const struct linear_in *in, double scale,
                                bool columns) {
    const struct dora_attr attr = {scale, columns};
    return graph_op(b->g, &op_dora_norm, &attr, BIND({"a", in->a}, {"w", in->w}, {"b", in->b}));
}
/* u with the magnitudes m instead of the norms of its weight. */
static struct tensor *dora(struct build *b, struct tensor *u, const struct lora_pair *l,
                           struct tensor *norm, struct tensor *bias) {
    return graph_op(
        b->g, &op_dora, &(struct lora_attr){l->scale},
        BIND({"u", u}, {"m", build_param(b, l->magnitude)}, {"norm", norm}, {"bias", bias}));
}

static struct tensor *dora_linear(struct build *b, const struct linear_in *in,
                                  const struct lora_pair *l, u32 stream) {
    struct tensor *norm = dora_norm(b, in, l->scale, false);
    struct linear_in inner = *in;
    inner.bias = NULL;
    if (b->dropout_place) inner.x = dropped(b, in->x, stream);
    struct tensor *y = dora(b, linear_call(b, &inner, l->scale), l, norm, in->bias);
    if (!b->dropout_place) return y;
    /* PEFT drops the magnitudes' part of the base too: + (x - dropped x)·w^T */
    inner.x = plus(b, in->x, scaled(b, inner.x, -1)), inner.a = inner.b = NULL;
    return plus(b, y, linear_call(b, &inner, l->scale));
}

struct tensor *lora_linear(struct build *b, const struct linear_in *in, const struct lora_pair *l,
                           u32 stream) {
    if (l->magnitude) return dora_linear(b, in, l, stream);
    if (!b->dropout_place) return linear_call(b, in, l->scale);
    struct linear_in base = *in;
    base.a = base.b = NULL;
    struct tensor *y = linear_call(b, &base, l->scale);
    struct tensor *part = linear(b, linear(b, dropped(b, in->x, stream), in->a), in->b);
    return plus(b, y, scaled(b, part, l->scale));
}

struct head_in lora_head(struct build *b, struct tensor *x, struct tensor *w,
                         const struct lora_pair *l, u32 stream) {
    struct tensor *low = b->dropout_place ? dropped(b, x, stream) : x;
    const struct linear_in adapted = {.w = w, .a = build_param(b, l->a), .b = build_param(b, l->b)};
    struct head_in h = {.x = x, .u = adapted.b};
    h.t = scaled(b, linear(b, low, adapted.a), l->scale);
    if (!l->magnitude) return h;
    h.m = build_param(b, l->magnitude), h.norm = dora_norm(b, &adapted, l->scale, false);
    if (b->dropout_place) h.x = low, h.rest = plus(b, x, scaled(b, low, -1));
    return h;
}

struct tensor *lora_embedding(struct build *b, struct tensor *x, const struct lora_pair *l) {
    const struct linear_in adapted = {.w = build_param(b, b->m->top.weight[ROLE_EMBED]),
                                      .a = build_param(b, l->a),
                                      .b = build_param(b, l->b)};
    struct tensor *t = graph_op(b->g, &op_embedding, NULL, BIND({"ids", b->ids}, {"w", adapted.a}));
    x = plus(b, x, scaled(b, linear(b, t, adapted.b), l->scale));
    if (!l->magnitude) return x;
    return dora(b, x, l, dora_norm(b, &adapted, l->scale, true), NULL);
}

/* ---- parameters ---- */

struct param *lora_part_new(struct model *m, const char *module, enum lora_part part, int rank,
                            const i64 *dim, struct err *e) {
    const char *name = lora_key(&m->arena, module, part, e);
    struct param *p = name ? param_new(m, name, rank, dim, e) : NULL;
    if (p)
        p->trainable = true, p->pace = part == LORA_A ? PACE_PLAIN
                                       : part == LORA_EMBED_A || part == LORA_EMBED_B
                                           ? PACE_EMBEDDING
                                           : PACE_FAST;
    return p;
}
static struct param *half_new(struct model *m, const char *module, enum lora_part part, i64 rows,
                              i64 cols, struct err *e) {
    return lora_part_new(m, module, part, 2, (i64[]){rows, cols}, e);
}

/* A: uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt(5)), or normal with deviation 1/r. B is
 * zero. */
void lora_start(struct param *a, const struct lora_config *c, u64 seed, i64 index) {
    const struct rng r = {seed, RNG_INIT, 1, (u32)index};
    const bool gaussian = c->init_lora_weights && !strcmp(c->init_lora_weights, "gaussian");
    const i64 in = a->view.dim[a->view.rank - 1], rank = a->view.dim[a->view.rank - 2];
    const float bound = (float)(1 / __builtin_sqrt((double)in));
    for (i64 i = 0; i < view_count(&a->view); i++)
        param_set(a, i,
                  gaussian ? rng_normal(&r, (u64)i) / (float)rank
                           : bound * (2 * rng_uniform(&r, (u64)i) - 1));
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
static int magnitude_add(struct model *m, const char *module, const struct param *w,
                         struct lora_pair *to, bool columns, struct err *e) {
    struct param plain = *w,
                 *g = lora_part_new(m, module, LORA_MAGNITUDE, 1, w->view.dim + columns, e);
    const bool packed = w->view.packing;
    plain.view.packing = NULL;
    if (!g || (packed && !(plain.view.data = mem_new(view_bytes(&plain.view), e)))) return -1;
    struct merge start = {.w = &plain, .columns = columns};
    const int rc =
        (packed && param_decode(w, m->dtype, plain.view.data, e)) || norms_make(&start, e) ? -1 : 0;
    for (i64 o = 0; !rc && o < g->view.dim[0]; o++) param_set(g, o, start.norm[o]);
    if (packed) mem_free(plain.view.data);
    mem_free(start.norm);
    g->layer = w->layer, g->layout = to->b->layout, g->heads = w->heads, g->kv_heads = w->kv_heads;
    g->turned = w->turned;
    return to->magnitude = g, rc;
}

static const char *module_of(char text[160], const struct param *w) {
    snprintf(text, 160, "%.*s", (int)(strlen(w->name) - strlen(".weight")), w->name);
    return text;
}

const char *lora_base_key(struct model *m, const struct param *p, struct err *e) {
    char text[160];
    return lora_key(&m->arena, module_of(text, p), LORA_BASE, e);
}

static int module_add(struct model *m, struct layer *l, enum role role, const char *module,
                      struct lora_config *c, u64 seed, i64 *index, struct err *e) {
    struct param *w = l->weight[role];
    struct lora_pair *to = &l->lora[role];
    i64 r;
    if (lora_of(c, module, &r, &to->scale, e)) return -1;
    struct param *a = half_new(m, module, LORA_A, r, w->view.dim[1], e);
    struct param *b = a ? half_new(m, module, LORA_B, w->view.dim[0], r, e) : NULL;
    if (!b) return -1;
    lora_start(a, c, seed, (*index)++);
    a->layer = b->layer = w->layer;
    /* B's rows lie in a file as those of the layer do; a transposed layer's adapter is not. */
    b->layout = w->layout & ~(u32)LAYOUT_T, b->heads = w->heads, b->kv_heads = w->kv_heads;
    b->turned = w->turned;
    to->a = a, to->b = b;
    if (lora_is_pissa(c)) {
        struct lora_pair minus = {a, b, NULL, -to->scale};
        if (pissa_start(m, w, to, e) || merge_run(w, &minus, false, e)) return -1;
    }
    return c->use_dora ? magnitude_add(m, module, w, to, false, e) : 0;
}

static int layer_add(struct model *m, struct layer *l, enum role role, struct lora_config *c,
                     u64 seed, i64 *index, struct err *e) {
    char text[160];
    const char *module = module_of(text, l->weight[role]);
    const int match = lora_match(c, module, e);
    return match > 0 ? module_add(m, l, role, module, c, seed, index, e) : match;
}

/* The embedding: A [V, r] in memory, zero; B [D, r], normal. "all-linear" does not mean it. */
static int embedding_add(struct model *m, struct lora_config *c, u64 seed, i64 *index,
                         struct err *e) {
    struct param *w = m->top.weight[ROLE_EMBED];
    struct lora_pair *to = &m->top.lora[ROLE_EMBED];
    char text[160];
    const char *module = module_of(text, w);
    const bool all = c->target_regex && !strcmp(c->target_regex, "all-linear");
    const int match = all ? 0 : lora_match(c, module, e);
    i64 r;
    if (match <= 0) return match;
    if (lora_is_pissa(c))
        return err_input(e, "init_lora_weights pissa is for linear layers, not for %s", module);
    if (lora_of(c, module, &r, &to->scale, e)) return -1;
    struct param *a = half_new(m, module, LORA_EMBED_A, w->view.dim[0], r, e);
    struct param *b = a ? half_new(m, module, LORA_EMBED_B, w->view.dim[1], r, e) : NULL;
    if (!b) return -1;
    a->layout = LAYOUT_T;
    const struct rng rng = {seed, RNG_INIT, 1, (u32)(*index)++};
    for (i64 i = 0; i < view_count(&b->view); i++) param_set(b, i, rng_normal(&rng, (u64)i));
    to->a = a, to->b = b;
    return c->use_dora ? magnitude_add(m, module, w, to, true, e) : 0;
}

/* The LM head's module: of a tied one, what it would be called. */
static const char *head_module(const struct model *m, char text[160]) {
    const char *name = "lm_head.weight";
    for (const struct weight_rule *const *group = m->config.family->weights; *group; group++)
        for (const struct weight_rule *w = *group; w->name; w++)
            if (w->role == ROLE_LM_HEAD && w->cols != DIM_BIAS) name = w->name;
    snprintf(text, 160, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    return text;
}
/* As in PEFT, all-linear excludes the LM head; a tied head's adapter cannot be merged, because it
 * changes the output alone. */
static int head_add(struct model *m, struct lora_config *c, u64 seed, i64 *index, struct err *e) {
    const bool all = c->target_regex && !strcmp(c->target_regex, "all-linear");
    char text[160];
    const char *module = head_module(m, text);
    const int match = all ? 0 : lora_match(c, module, e);
    if (match <= 0) return match;
    if (lora_is_pissa(c) && !(m->config.has & HAS_UNTIED))
        return err_input(e, "init_lora_weights pissa: the residual of %s would be the embedding's",
                         module);
    return module_add(m, &m->top, ROLE_LM_HEAD, module, c, seed, index, e);
}

/* Modules that are trained whole: the model's own parameters are, and go into the adapter's file.
 */
static int saved_add(struct model *m, struct lora_config *c, struct err *e) {
    for (i64 k = 0; k < c->modules_to_save.count; k++) {
        const struct lora_config one = {.modules_to_save = {c->modules_to_save.item + k, 1}};
        bool found = false;
        for (i64 i = 0; i < m->params; i++) {
            struct param *p = m->param[i];
            if (p->role == ROLE_NONE || !lora_saves(&one, p->name)) continue;
            if (p->view.packing || strpbrk(p->name, "|%"))
                return err_input(e, "modules_to_save: %s cannot be trained whole", p->name);
            if (p == m->top.weight[ROLE_LM_HEAD] && m->top.lora[ROLE_LM_HEAD].a)
                return err_input(e, "modules_to_save: %s has an adapter already", p->name);
            if (p == m->top.weight[ROLE_EMBED] && !(m->config.has & HAS_UNTIED))
                return err_input(e,
                                 "modules_to_save: %s is also the output layer of this model, "
                                 "which PEFT would cut apart",
                                 p->name);
            found = p->saved = p->trainable = true;
            p->pace = p->view.rank == 1 ? PACE_FAST : PACE_PLAIN;
        }
        if (!found)
            return err_input(e, "modules_to_save: no module of the model is named %s",
                             c->modules_to_save.item[k]);
    }
    return 0;
}

int lora_add(struct model *m, struct lora_config *c, u64 seed, struct err *e) {
    i64 index = 0;
    if (lora_experts_targets(m, c, e)) return -1;
    if (lora_is_pissa(c) && (c->use_dora || c->target_parameters.count))
        return err_input(e,
                         "init_lora_weights pissa does not go with %s: no plain adapter of the "
                         "base would be the same",
                         c->use_dora ? "use_dora" : "target_parameters");
    for (i64 i = 0; i < m->params; i++) m->param[i]->trainable = false;
    for (i64 l = 0; l < m->config.layers; l++)
        for (enum role r = ROLE_Q; role_is_linear(r); r++)
            if (m->layer[l].weight[r] && layer_add(m, &m->layer[l], r, c, seed, &index, e))
                return -1;
    for (i64 l = 0; c->target_parameters.count && l < m->config.layers; l++)
        if (lora_experts_add(m, &m->layer[l], c, seed, &index, e)) return -1;
    if (embedding_add(m, c, seed, &index, e) || head_add(m, c, seed, &index, e) ||
        saved_add(m, c, e))
        return -1;
    if (!index) {
        err_input(e, "lora_target_modules match no linear layer of the model");
        struct text names = {0};
        for (enum role r = ROLE_Q; role_is_linear(r); r++) {
            const struct param *w = m->layer[0].weight[r];
            const char *name = w ? strstr(w->name, ".0.") : NULL;
            if (name)
                text_printf(&names, e, "%s%.*s", names.size ? ", " : "", (int)strlen(name + 3) - 7,
                            name + 3);
        }
        err_detail(e, "layers end in %s", names.data ? names.data : "nothing");
        text_free(&names);
        return err_hint(e, "`lora_target_modules: all-linear` adapts all of them");
    }
    m->lora = c, m->frozen = true;
    c->fan_in_fan_out = m->config.family->conv1d;
    return 0;
}

/* What a parameter is called in an adapter's file; NULL: it is not there. */
static const char *key_of(struct model *m, const struct param *p, struct err *e) {
    return p->role == ROLE_NONE ? p->name : lora_key(&m->arena, p->name, LORA_SAVED, e);
}

int lora_same(const struct param *p, const struct stored *t, const char *where, struct err *e) {
    struct param copy = *p;
    if (!(copy.view.data = mem_new(view_bytes(&p->view), e))) return -1;
    int rc = param_load(&copy, t, where, e);
    if (!rc && memcmp(copy.view.data, p->view.data, (size_t)view_bytes(&p->view)))
        rc = err_input(e, "%s: its %s is not that of the model it is loaded into", where, t->name);
    mem_free(copy.view.data);
    return rc ? -1 : 0;
}

int lora_load(struct model *m, const struct safetensors *s, const char *where, struct err *e) {
    u8 *seen = mem_new(i64_max(s->count, 1), e);
    int rc = seen ? 0 : -1;
    for (i64 i = 0; !rc && i < m->params; i++) {
        struct param *p = m->param[i];
        if (p->role != ROLE_NONE && !p->saved) continue;
        const char *key = key_of(m, p, e);
        const struct stored *t = key ? safetensors_need(s, key, e) : NULL;
        rc = !t || (p->start ? pissa_load : param_load)(p, t, where, e)
                 ? err_frame(e, "while loading adapter %s", where)
                 : 0;
        if (t) seen[t - s->tensor] = 1;
    }
    /* Weights of the base that PEFT saves beside an adapter. */
    for (i64 i = 0; !rc && i < m->params; i++) {
        struct param *p = m->param[i];
        if (p->role == ROLE_NONE || p->view.rank < 2 || p->view.packing) continue;
        const char *key = lora_base_key(m, p, e);
        const struct stored *t = key ? safetensors_find(s, key) : NULL;
        rc = !key || (t && param_load(p, t, where, e)) ? -1 : 0;
        if (t) seen[t - s->tensor] = 1;
    }
    if (!rc && !(m->config.has & HAS_UNTIED)) {
        char text[160];
        const char *key = lora_key(&m->arena, head_module(m, text), LORA_BASE, e);
        const struct stored *t = key ? safetensors_find(s, key) : NULL;
        rc = !key || (t && lora_same(m->top.weight[ROLE_EMBED], t, where, e)) ? -1 : 0;
        if (t) seen[t - s->tensor] = 1;
    }
    for (i64 i = 0; !rc && i < s->count; i++)
        if (!seen[i])
            rc = err_input(e, "%s: tensor '%s' belongs to no layer of this model", where,
                           s->tensor[i].name);
    mem_free(seen);
    return rc ? -1 : 0;
}

int lora_merge(struct model *m, struct err *e) {
    if (!m->lora) return err_input(e, "there is no adapter to merge");
    if (model_decode(m, e)) return -1;
    for (i64 l = 0; l < m->config.layers; l++)
        for (enum role r = ROLE_Q; r <= ROLE_EXPERTS_DOWN; r++) {
            struct lora_pair *p = &m->layer[l].lora[r];
            if (merge_run(m->layer[l].weight[r], p, false, e)) return -1;
            *p = (struct lora_pair){0};
        }
    struct lora_pair *head = &m->top.lora[ROLE_LM_HEAD], *top = &m->top.lora[ROLE_EMBED];
    if ((head->a || top->a) && !(m->config.has & HAS_UNTIED))
        return err_input(e, "the adapter of the %s cannot be merged: the %s has the same weights",
                         top->a ? "embedding" : "output layer",
                         top->a ? "output layer" : "embedding");
    if (merge_run(m->top.weight[ROLE_LM_HEAD], head, false, e) ||
        merge_run(m->top.weight[ROLE_EMBED], top, true, e))
        return -1;
    *head = *top = (struct lora_pair){0};
    i64 kept = 0;
    for (i64 i = 0; i < m->params; i++) {
        m->param[i]->saved = false;
        if (m->param[i]->role == ROLE_NONE)
            param_free(m->param[i]);
        else
            m->param[kept++] = m->param[i];
    }
    m->params = kept, m->lora = NULL;
    return 0;
}
