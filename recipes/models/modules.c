/* modules.c: the list of modules: kinds by name, finding one, counting, freeing. */
#include "recipes/models/models_int.h"

const char *const module_kind_text[MODULE_KINDS] = {
    "linear", "head", "embedding", "norm", "router", "experts", "numbers", "fixed", "buffer"};

struct module *model_module(const struct model *m, i64 layer, const struct module_type *type) {
    const struct module_range r = m->range[layer + 1];
    for (i64 i = r.first; i < r.first + r.count; i++)
        if (m->weights.module[i].type == type) return &m->weights.module[i];
    return NULL;
}

i64 weights_count(const struct weights *w, bool trainable_only) {
    i64 n = 0;
    for (i64 i = 0; i < w->params; i++)
        if (!trainable_only || w->param[i]->trainable) n += view_count(&w->param[i]->view);
    return n;
}

void weights_free(struct weights *w) {
    for (i64 i = 0; i < w->params; i++) param_free(w->param[i]);
    for (i64 i = 0; i < w->maps; i++) map_close(&w->map[i]);
    mem_free(w->map), mem_free(w->param), mem_free(w->module), arena_free(&w->arena);
    *w = (struct weights){0};
}

const struct weight_rule *head_rule(const struct family *f) {
    for (int g = 0; f->weights[g]; g++)
        for (const struct weight_rule *w = f->weights[g]; w->name; w++)
            if (w->type == &top_head && w->cols != DIM_BIAS) return w;
    return NULL;
}
