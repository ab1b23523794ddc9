/* model.c: parameters from a family's table: allocated, started, loaded, listed. */
#include "recipes/models/models_int.h"

#include <string.h>

static i64 dim_of(const struct config *c, enum dim_name d) {
    switch (d) {
    case DIM_D: return c->hidden_size;
    case DIM_F: return c->intermediate_size;
    case DIM_V: return c->vocab_size;
    case DIM_HZ: return c->heads * c->head_dim;
    case DIM_KZ: return c->kv_heads * c->head_dim;
    case DIM_Z: return c->head_dim;
    default: return 0;
    }
}

static bool applies(const struct config *c, enum when when) {
    return when == ALWAYS || (when == IF_UNTIED && !c->tie_word_embeddings) ||
           (when == IF_ATTENTION_BIAS && c->attention_bias) || (when == IF_MLP_BIAS && c->mlp_bias);
}

static char *name_of(struct model *m, const char *pattern, i64 layer, struct err *e) {
    const char *at = strstr(pattern, "%L");
    if (!at) return arena_text(&m->arena, pattern, e);
    return arena_printf(&m->arena, e, "%.*s%lld%s", (int)(at - pattern), pattern, (long long)layer,
                        at + 2);
}

/* A parameter of the model, with its own zeroed memory. */
struct param *param_new(struct model *m, const char *name, int rank, const i64 *dim,
                        struct err *e) {
    struct param *p = arena_new(&m->arena, sizeof *p, e);
    struct param **more =
        p ? mem_grow(m->param, m->params * (i64)sizeof p, (m->params + 1) * (i64)sizeof p, e)
          : NULL;
    if (!more) return NULL;
    m->param = more;
    *p = (struct param){
        .name = name, .layer = -1, .decay = rank > 1, .view = {.dtype = m->dtype, .rank = rank}};
    memcpy(p->view.dim, dim, sizeof *dim * (size_t)rank);
    if (!(p->view.data = mem_new(view_bytes(&p->view), e))) {
        err_detail(e, "for parameter %s", name);
        return NULL;
    }
    return m->param[m->params++] = p;
}

static int rule_apply(struct model *m, const struct weight_rule *w, i64 layer, bool trainable,
                      struct err *e) {
    struct layer *to = layer < 0 ? &m->top : &m->layer[layer];
    const i64 dim[2] = {dim_of(&m->config, w->rows), dim_of(&m->config, w->cols)};
    const char *name = name_of(m, w->name, layer, e);
    struct param *p = name ? param_new(m, name, w->cols ? 2 : 1, dim, e) : NULL;
    if (!p) return -1;
    p->role = w->role, p->layer = layer, p->trainable = trainable;
    to->weight[w->role] = p;
    return 0;
}

int model_new(struct model *m, const struct config *c, enum dtype d, bool trainable,
              struct err *e) {
    *m = (struct model){.config = *c, .dtype = d};
    const i64 bytes = config_parameters(c) * dtype_size(d), left = mem_available();
    if (bytes >
        left) { /* untouched pages cost nothing, so the allocations themselves would succeed */
        err_failed(e,
                   "a model of %lld parameters needs %.1f GiB in %s; the machine has %.1f GiB left",
                   (long long)config_parameters(c), (double)bytes / (1 << 30), dtype_info[d].name,
                   (double)left / (1 << 30));
        return err_hint(e, d == F32 && bytes / 2 <= left ? "precision bf16 needs half of that"
                                                         : "a smaller model may fit");
    }
    if (!(m->layer = mem_new_array(c->layers, sizeof *m->layer, e))) return -1;
    /* The order of parameters: what precedes the layers in the table, layer by layer, what follows.
     */
    const struct weight_rule *w = c->family->weights;
    while (w->name) {
        if (!strstr(w->name, "%L")) {
            if (applies(c, w->when) && rule_apply(m, w, -1, trainable, e)) return -1;
            w++;
            continue;
        }
        const struct weight_rule *first = w;
        for (i64 l = 0; l < c->layers; l++)
            for (w = first; w->name && strstr(w->name, "%L"); w++)
                if (applies(c, w->when) && rule_apply(m, w, l, trainable, e)) return -1;
    }
    if (!m->top.weight[ROLE_LM_HEAD]) m->top.weight[ROLE_LM_HEAD] = m->top.weight[ROLE_EMBED];
    return 0;
}

i64 config_parameters(const struct config *c) {
    i64 count = 0;
    for (const struct weight_rule *w = c->family->weights; w->name; w++)
        if (applies(c, w->when))
            count += dim_of(c, w->rows) * (w->cols ? dim_of(c, w->cols) : 1) *
                     (strstr(w->name, "%L") ? c->layers : 1);
    return count;
}

void param_free(struct param *p) {
    if (p->placed)
        device_free(p->view.data);
    else
        mem_free(p->view.data);
}

void model_free(struct model *m) {
    for (i64 i = 0; i < m->params; i++) param_free(m->param[i]);
    mem_free(m->param), mem_free(m->layer), device_free(m->rope_table);
    arena_free(&m->arena);
    *m = (struct model){0};
}

int model_place(struct model *m, struct err *e) {
    if (device_now() == DEVICE_CPU) return 0;
    for (i64 i = 0; i < m->params; i++) {
        struct param *p = m->param[i];
        if (p->placed) continue;
        void *there = device_new(view_bytes(&p->view), e);
        if (!there || device_write(there, p->view.data, view_bytes(&p->view), e)) {
            device_free(there);
            return err_frame(e, "while moving %s to the GPU", p->name);
        }
        if (device_sync(e)) return device_free(there), -1;
        mem_free(p->view.data);
        p->view.data = there, p->placed = true;
    }
    return 0;
}

/* ---- values */

void param_set(struct param *p, i64 i, float x) {
    if (p->view.dtype == BF16)
        ((u16 *)p->view.data)[i] = bf16_of_f32(x);
    else
        ((float *)p->view.data)[i] = x;
}
float param_get(const struct param *p, i64 i) {
    return p->view.dtype == BF16 ? bf16_to_f32(((u16 *)p->view.data)[i])
                                 : ((float *)p->view.data)[i];
}

struct init {
    struct param *p;
    struct rng rng;
    float std;
};
static void init_range(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct init *n = arg;
    for (i64 i = begin; i < end; i++) param_set(n->p, i, n->std * rng_normal(&n->rng, (u64)i));
}

void model_init(struct model *m, u64 seed) {
    for (i64 k = 0; k < m->params; k++) {
        struct param *p = m->param[k];
        const i64 n = view_count(&p->view);
        struct init job = {p, {seed, RNG_INIT, 0, (u32)k}, (float)m->config.initializer_range};
        const bool norm = p->role == ROLE_FINAL_NORM ||
                          (p->role >= ROLE_INPUT_NORM && p->role <= ROLE_POST_FFN_NORM) ||
                          p->role == ROLE_Q_NORM || p->role == ROLE_K_NORM;
        if (p->view.rank > 1)
            pool_run(n, init_range, &job);
        else
            for (i64 i = 0; i < n; i++) param_set(p, i, norm ? 1 : 0);
    }
}

struct load {
    struct param *p;
    const struct stored *s;
};
static void load_range(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct load *l = arg;
    const enum dtype from = l->s->dtype, to = l->p->view.dtype;
    const i64 size = dtype_size(to);
    if (from == to)
        memcpy((u8 *)l->p->view.data + begin * size, l->s->data + begin * size,
               (size_t)((end - begin) * size));
    else
        for (i64 i = begin; i < end; i++) {
            float x = 0;
            u16 h = 0;
            double d = 0;
            if (from == F32)
                memcpy(&x, l->s->data + i * 4, 4);
            else if (from == F64)
                memcpy(&d, l->s->data + i * 8, 8), x = (float)d;
            else
                memcpy(&h, l->s->data + i * 2, 2),
                    x = from == BF16 ? bf16_to_f32(h) : f16_to_f32(h);
            param_set(l->p, i, x);
        }
}

static void shape_print(char out[160], int rank, const i64 *dim) {
    int at = snprintf(out, 160, "[");
    for (int i = 0; i < rank && at < 130; i++)
        at += snprintf(out + at, 160 - (size_t)at, "%s%lld", i ? ", " : "", (long long)dim[i]);
    snprintf(out + at, 160 - (size_t)at, "]");
}

/* Copies one stored tensor into a parameter; shape and dtype are checked, numbers must be finite.
 */
int param_load(struct param *p, const struct stored *s, const char *where, struct err *e) {
    bool same = s->rank == p->view.rank;
    for (int i = 0; same && i < s->rank; i++) same = s->dim[i] == p->view.dim[i];
    if (!same) {
        char found[160], wanted[160];
        shape_print(found, s->rank, s->dim), shape_print(wanted, p->view.rank, p->view.dim);
        err_input(e, "%s: tensor '%s' has shape %s; the model's configuration says %s", where,
                  s->name, found, wanted);
        return err_hint(e, "the weights belong to another model");
    }
    if (s->dtype != F32 && s->dtype != BF16 && s->dtype != F16 && s->dtype != F64)
        return err_input(e, "%s: tensor '%s' has dtype %s; expected F32, BF16, F16 or F64", where,
                         s->name, s->type);
    if (p->placed) {
        struct param host = *p;
        host.placed = false;
        if (!(host.view.data = mem_new(view_bytes(&p->view), e))) return -1;
        const int rc = param_load(&host, s, where, e) ||
                       device_write(p->view.data, host.view.data, view_bytes(&p->view), e) ||
                       device_sync(e);
        mem_free(host.view.data);
        return rc ? -1 : 0;
    }
    struct load job = {p, s};
    const i64 n = view_count(&p->view);
    pool_run(n, load_range, &job);
    for (i64 i = 0; i < n; i++) {
        const float x = param_get(p, i);
        if (!(x - x == 0))
            return err_input(e, "%s: tensor '%s' holds %s at element %lld", where, s->name,
                             x != x ? "NaN" : "an infinity", (long long)i);
    }
    return 0;
}

int param_copy(struct param *to, const struct param *from, struct err *e) {
    struct stored s = {.name = from->name,
                       .type = dtype_info[from->view.dtype].safetensors,
                       .dtype = from->view.dtype,
                       .rank = from->view.rank,
                       .data = from->view.data,
                       .bytes = view_bytes(&from->view)};
    memcpy(s.dim, from->view.dim, sizeof from->view.dim);
    return param_load(to, &s, "the model", e);
}

int model_load(struct model *m, const struct safetensors *s, const char *where, struct err *e) {
    for (i64 i = 0; i < m->params; i++) {
        const struct stored *t = safetensors_need(s, m->param[i]->name, e);
        if (!t || param_load(m->param[i], t, where, e))
            return err_frame(e, "while loading the weights of %s", where);
    }
    return 0;
}

int model_open(struct model *m, const char *path, enum dtype d, bool trainable, struct err *e) {
    struct model_folder f = {0};
    struct config c;
    char where[512];
    snprintf(where, sizeof where, "%s/config.json", path);
    *m = (struct model){0};
    int rc = folder_open(&f, path, e) || config_read(&c, f.config, where, e) ||
             model_new(m, &c, d, trainable, e) || model_load(m, &f.weights, path, e);
    folder_close(&f);
    return rc ? -1 : 0;
}

i64 model_count(const struct model *m, bool trainable_only) {
    i64 n = 0;
    for (i64 i = 0; i < m->params; i++)
        if (!trainable_only || m->param[i]->trainable) n += view_count(&m->param[i]->view);
    return n;
}

struct stored *model_stored(const struct model *m, bool adapter, i64 *count, struct err *e) {
    struct stored *list = mem_new_array(m->params, sizeof *list, e);
    *count = 0;
    for (i64 i = 0; list && i < m->params; i++) {
        const struct param *p = m->param[i];
        const bool lora = p->role == ROLE_NONE;
        if (lora != adapter) continue;
        struct stored *s = &list[(*count)++];
        *s = (struct stored){.name = p->name,
                             .dtype = p->view.dtype,
                             .rank = p->view.rank,
                             .data = p->view.data,
                             .bytes = view_bytes(&p->view)};
        memcpy(s->dim, p->view.dim, sizeof p->view.dim);
        if (!p->placed) continue;
        s->data = mem_new(s->bytes, e);
        if (s->data && !device_read((void *)s->data, p->view.data, s->bytes, e)) continue;
        model_stored_free(m, list, *count);
        return NULL;
    }
    return list;
}

void model_stored_free(const struct model *m, struct stored *list, i64 count) {
    for (i64 i = 0; list && i < count && m->params && m->param[0]->placed; i++)
        mem_free((void *)list[i].data);
    mem_free(list);
}

/* 6 per weight that takes part in a product and token (frozen ones 4: no weight gradient), plus
 * causal attention with the masked half left out: 6 * layers * heads * head_dim * length per token.
 */
double model_flops(const struct model *m, i64 tokens, i64 length) {
    double per_token = 0;
    for (i64 i = 0; i < m->params; i++) {
        const struct param *p = m->param[i];
        const bool table = p->role == ROLE_EMBED && m->top.weight[ROLE_LM_HEAD] != p;
        if (p->view.rank == 2 && !table)
            per_token += (p->trainable ? 6.0 : 4.0) * (double)view_count(&p->view);
    }
    const struct config *c = &m->config;
    return (double)tokens *
           (per_token + 6.0 * (double)(c->layers * c->heads * c->head_dim) * (double)length);
}
