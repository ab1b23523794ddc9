/* lora.c: adapters of a language model: on the modules that a configuration targets, its embedding
 * and its LM head; modules trained whole; loaded, merged. */
#include "recipes/models/models_int.h"

#include <string.h>

const char *lora_base_key(struct model *m, const struct param *p, struct err *e) {
    char text[160];
    snprintf(text, sizeof text, "%.*s", (int)(strlen(p->name) - strlen(".weight")), p->name);
    return lora_key(&m->weights.arena, text, LORA_BASE, e);
}

/* As in PEFT, all-linear excludes the embedding and the LM head; a tied head's adapter cannot be
 * merged, because it changes the output alone. */
static int target_add(struct model *m, struct module *at, struct lora_config *c, u64 seed,
                      i64 *index, struct err *e) {
    const bool all = c->target_regex && !strcmp(c->target_regex, "all-linear"),
               head = at->type == &top_head;
    const int match = all && at->type->kind != MODULE_LINEAR ? 0 : lora_match(c, at->path, e);
    if (match <= 0) return match;
    if (head && lora_is_pissa(c) && !(m->config.has & HAS_UNTIED))
        return err_input(e, "init_lora_weights pissa: the residual of %s would be the embedding's",
                         at->path);
    return module_adapt(&m->weights, at, c, seed, index, e);
}

/* Modules that are trained whole: the model's own parameters are, and go into the adapter's file.
 */
static int saved_add(struct model *m, struct lora_config *c, struct err *e) {
    const struct module *head = model_module(m, -1, &top_head),
                        *embed = model_module(m, -1, &top_embed);
    for (i64 k = 0; k < c->modules_to_save.count; k++) {
        const struct lora_config one = {.modules_to_save = {c->modules_to_save.item + k, 1}};
        bool found = false;
        for (i64 i = 0; i < m->weights.params; i++) {
            struct param *p = m->weights.param[i];
            if (!p->type || !lora_saves(&one, p->name)) continue;
            if (p->view.packing || strpbrk(p->name, "|%"))
                return err_input(e, "modules_to_save: %s cannot be trained whole", p->name);
            if (p == head->weight && head->adapter.a)
                return err_input(e, "modules_to_save: %s has an adapter already", p->name);
            if (p == embed->weight && !(m->config.has & HAS_UNTIED))
                return err_input(e,
                                 "modules_to_save: %s is also the output layer of this model, "
                                 "which PEFT would cut apart",
                                 p->name);
            found = p->saved = p->trainable = true;
            p->lr_group = p->view.rank == 1 ? LR_GROUP_FAST : LR_GROUP_PLAIN;
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
    for (i64 i = 0; i < m->weights.params; i++) m->weights.param[i]->trainable = false;
    for (i64 i = 0; i < m->weights.modules; i++)
        if (m->weights.module[i].type->kind == MODULE_LINEAR &&
            target_add(m, &m->weights.module[i], c, seed, &index, e))
            return -1;
    for (i64 l = 0; c->target_parameters.count && l < m->config.layers; l++)
        if (lora_experts_add(m, l, c, seed, &index, e)) return -1;
    if (target_add(m, model_module(m, -1, &top_embed), c, seed, &index, e) ||
        target_add(m, model_module(m, -1, &top_head), c, seed, &index, e) || saved_add(m, c, e))
        return -1;
    if (!index) {
        err_input(e, "lora_target_modules match no linear layer of the model");
        struct text names = {0};
        for (i64 i = 0; i < m->weights.modules; i++) {
            const struct module *at = &m->weights.module[i];
            const bool first = at->layer == 0 && at->type->kind == MODULE_LINEAR;
            const char *name = first ? strstr(at->path, ".0.") : NULL;
            if (name) text_printf(&names, e, "%s%s", names.size ? ", " : "", name + 3);
        }
        err_detail(e, "layers end in %s", names.data ? names.data : "nothing");
        text_free(&names);
        return err_hint(e, "`lora_target_modules: all-linear` adapts all of them");
    }
    m->lora = c;
    c->fan_in_fan_out = m->config.family->conv1d;
    return 0;
}

/* What a parameter is called in an adapter's file; NULL: it is not there. */
static const char *key_of(struct model *m, const struct param *p, struct err *e) {
    return !p->type ? p->name : lora_key(&m->weights.arena, p->name, LORA_SAVED, e);
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
    for (i64 i = 0; !rc && i < m->weights.params; i++) {
        struct param *p = m->weights.param[i];
        if (p->type && !p->saved) continue;
        const char *key = key_of(m, p, e);
        const struct stored *t = key ? safetensors_need(s, key, e) : NULL;
        rc = !t || (p->start ? pissa_load : param_load)(p, t, where, e)
                 ? err_frame(e, "while loading adapter %s", where)
                 : 0;
        if (t) seen[t - s->tensor] = 1;
    }
    /* Weights of the base that PEFT saves beside an adapter. */
    for (i64 i = 0; !rc && i < m->weights.params; i++) {
        struct param *p = m->weights.param[i];
        if (!p->type || p->view.rank < 2 || p->view.packing) continue;
        const char *key = lora_base_key(m, p, e);
        const struct stored *t = key ? safetensors_find(s, key) : NULL;
        rc = !key || (t && param_load(p, t, where, e)) ? -1 : 0;
        if (t) seen[t - s->tensor] = 1;
    }
    if (!rc && !(m->config.has & HAS_UNTIED)) {
        const struct module *head = model_module(m, -1, &top_head);
        const char *key = lora_key(&m->weights.arena, head->path, LORA_BASE, e);
        const struct stored *t = key ? safetensors_find(s, key) : NULL;
        rc = !key || (t && lora_same(head->weight, t, where, e)) ? -1 : 0;
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
    for (i64 i = 0; i < m->weights.modules; i++) {
        struct module *at = &m->weights.module[i];
        if (at->layer >= 0 && module_merge(at, e)) return -1;
    }
    struct module *head = model_module(m, -1, &top_head), *embed = model_module(m, -1, &top_embed);
    if ((head->adapter.a || embed->adapter.a) && !(m->config.has & HAS_UNTIED))
        return err_input(e, "the adapter of the %s cannot be merged: the %s has the same weights",
                         embed->adapter.a ? "embedding" : "output layer",
                         embed->adapter.a ? "output layer" : "embedding");
    if (module_merge(head, e) || module_merge(embed, e)) return -1;
    i64 kept = 0;
    for (i64 i = 0; i < m->weights.params; i++) {
        m->weights.param[i]->saved = false;
        if (!m->weights.param[i]->type)
            param_free(m->weights.param[i]);
        else
            m->weights.param[kept++] = m->weights.param[i];
    }
    m->weights.params = kept, m->lora = NULL;
    return 0;
}
