/* lora.c: adapters (Hu et al., 2021) as parameter pairs on linear slots. The layers ask for one
 * fused operation; nothing else in the model knows that there is an adapter. Names and starting
 * values are PEFT's. */
#include "recipes/models/models_int.h"

#include <string.h>

static struct param *half_new(struct model *m, const char *module, enum lora_part part, i64 rows,
                              i64 cols, struct err *e) {
    const char *name = lora_key(&m->arena, module, part, e);
    struct param *p = name ? param_new(m, name, 2, (i64[]){rows, cols}, e) : NULL;
    if (p) p->trainable = true;
    return p;
}

/* A: uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt(5)), or normal with deviation 1/r. B is
 * zero. */
static void half_init(struct param *a, const struct lora_config *c, u64 seed, i64 index) {
    const struct rng r = {seed, RNG_INIT, 1, (u32)index};
    const bool gaussian = c->init_lora_weights && !strcmp(c->init_lora_weights, "gaussian");
    const float bound = (float)(1 / __builtin_sqrt((double)a->view.dim[1]));
    for (i64 i = 0; i < view_count(&a->view); i++)
        param_set(a, i,
                  gaussian ? rng_normal(&r, (u64)i) / (float)c->r
                           : bound * (2 * rng_uniform(&r, (u64)i) - 1));
}

static int module_add(struct model *m, struct layer *l, enum role role, struct lora_config *c,
                      u64 seed, i64 *index, struct err *e) {
    struct param *w = l->weight[role];
    char module[160];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(w->name) - strlen(".weight")), w->name);
    const int match = lora_match(c, module, e);
    if (match <= 0) return match;
    struct param *a = half_new(m, module, LORA_A, c->r, w->view.dim[1], e);
    struct param *b = a ? half_new(m, module, LORA_B, w->view.dim[0], c->r, e) : NULL;
    if (!b) return -1;
    half_init(a, c, seed, (*index)++);
    a->layer = b->layer = w->layer;
    /* B's rows lie in a file as those of the layer do; a transposed layer's adapter is not. */
    b->layout = w->layout & ~(u32)LAYOUT_T, b->heads = w->heads, b->kv_heads = w->kv_heads;
    l->lora[role] = (struct lora_pair){a, b, lora_scale(c)};
    return 0;
}

int lora_add(struct model *m, struct lora_config *c, u64 seed, struct err *e) {
    i64 index = 0;
    for (i64 i = 0; i < m->params; i++) m->param[i]->trainable = false;
    for (i64 l = 0; l < m->config.layers; l++)
        for (enum role r = ROLE_Q; role_is_linear(r); r++)
            if (m->layer[l].weight[r] && module_add(m, &m->layer[l], r, c, seed, &index, e))
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

int lora_load(struct model *m, const struct safetensors *s, const char *where, struct err *e) {
    i64 found = 0;
    for (i64 i = 0; i < m->params; i++) {
        if (m->param[i]->role != ROLE_NONE) continue;
        const struct stored *t = safetensors_need(s, m->param[i]->name, e);
        if (!t || param_load(m->param[i], t, where, e))
            return err_frame(e, "while loading adapter %s", where);
        found++;
    }
    for (i64 i = 0; found < s->count && i < s->count; i++) {
        bool known = false;
        for (i64 k = 0; k < m->params; k++) known |= !strcmp(m->param[k]->name, s->tensor[i].name);
        if (!known)
            return err_input(e, "%s: tensor '%s' belongs to no layer of this model", where,
                             s->tensor[i].name);
    }
    return 0;
}

struct merge {
    struct param *w;
    const struct lora_pair *l;
};
static void merge_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct merge *m = arg;
    const i64 cols = m->w->view.dim[1], r = m->l->a->view.dim[0];
    for (i64 o = begin; o < end; o++)
        for (i64 i = 0; i < cols; i++) {
            float sum = 0;
            for (i64 k = 0; k < r; k++)
                sum = __builtin_fmaf(param_get(m->l->b, o * r + k),
                                     param_get(m->l->a, k * cols + i), sum);
            param_set(m->w, o * cols + i,
                      __builtin_fmaf((float)m->l->scale, sum, param_get(m->w, o * cols + i)));
        }
}

int lora_merge(struct model *m, struct err *e) {
    if (!m->lora) return err_input(e, "there is no adapter to merge");
    if (model_decode(m, e)) return -1;
    for (i64 l = 0; l < m->config.layers; l++)
        for (enum role r = ROLE_Q; role_is_linear(r); r++) {
            struct lora_pair *p = &m->layer[l].lora[r];
            struct merge job = {m->layer[l].weight[r], p};
            if (p->a) pool_run(job.w->view.dim[0], merge_rows, &job);
            *p = (struct lora_pair){0};
        }
    i64 kept = 0;
    for (i64 i = 0; i < m->params; i++) {
        if (m->param[i]->role == ROLE_NONE)
            param_free(m->param[i]);
        else
            m->param[kept++] = m->param[i];
    }
    m->params = kept, m->lora = NULL;
    return 0;
}
