/* lora.c: adapters of a language model: on the modules that a configuration targets, its embedding
 * and its LM head; modules trained whole; loaded, merged. */
#include "recipes/models/models_int.h"

#include <stdlib.h>
#include <string.h>

const char *lora_base_key(struct model *m, const struct param *p, struct err *e) {
    char text[160];
    snprintf(text, sizeof text, "%.*s", (int)(strlen(p->name) - strlen(".weight")), p->name);
    return lora_key(&m->weights.arena, text, LORA_BASE, e);
}

/* As in PEFT, all-linear excludes the embedding and the LM head. A tied head's adapter changes the
 * output alone: merging it gives the head weights of its own. */
static int target_add(struct model *m, struct module *at, struct lora_config *c, u64 seed,
                      i64 *index, struct err *e) {
    const bool all = c->target_regex && !strcmp(c->target_regex, "all-linear"),
               head = at->type == &top_head;
    const int match = all && at->type->kind != MODULE_LINEAR ? 0 : lora_match(c, at->path, e);
    if (match <= 0) return match;
    if (head && lora_is_pissa(c) && !(m->config.has & HAS_UNTIED))
        return err_input(e, "init_lora_weights pissa: the residual of %s would be the embedding's",
                         at->path);
    const bool changes = lora_is_pissa(c) || (c->use_dora && at->type->kind == MODULE_EMBEDDING);
    if (changes && param_values(m, at->weight, e)) return -1;
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
            if (param_values(m, p, e)) return -1;
            if (p->view.packing || strpbrk(p->name, "|%"))
                return err_input(e, "modules_to_save: %s cannot be trained whole", p->name);
            if (p == head->weight && head->adapter.a)
                return err_input(e, "modules_to_save: %s has an adapter already", p->name);
            if (p == embed->weight && !(m->config.has & HAS_UNTIED) && !c->ensure_weight_tying)
                return err_failed(e, "modules_to_save: %s is also the output layer", p->name);
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
        target_add(m, model_module(m, -1, &top_head), c, seed, &index, e) || saved_add(m, c, e) ||
        lora_tokens_add(m, c, e))
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

/* Weights of the base that PEFT saves beside an adapter, wrapped or under their own names: an
 * embedding that is adapted, or that has more rows than it had, and biases. */
static int base_load(struct model *m, const struct safetensors *s, u8 *seen, const char *where,
                     struct err *e) {
    struct arena *a = &m->weights.arena;
    for (i64 i = 0; i < m->weights.params; i++) {
        struct param *p = m->weights.param[i];
        const bool packed = p->view.packing && !m->config.quant.filed;
        if (!p->type || p->saved || packed || strpbrk(p->name, "|%")) continue;
        const size_t n = strlen(p->name), end = ends_with(p->name, ".bias") ? 5 : 7;
        char wrapped[256];
        snprintf(wrapped, sizeof wrapped, "%.*s.base_layer%.8s", (int)(n - end), p->name,
                 p->name + n - end);
        const char *const key[] = {lora_key(a, wrapped, LORA_SAVED, e),
                                   lora_key(a, p->name, LORA_SAVED, e)};
        for (int k = 0; k < 2; k++) {
            const struct stored *t = key[k] ? safetensors_find(s, key[k]) : NULL;
            if (!key[k] || (t && (param_values(m, p, e) || param_load(p, t, where, e)))) return -1;
            if (t) seen[t - s->tensor] = 1;
        }
    }
    const struct module *head = model_module(m, -1, &top_head);
    char plain[256];
    snprintf(plain, sizeof plain, "%.240s.weight", head->path);
    const char *const key[] = {lora_key(a, head->path, LORA_BASE, e),
                               lora_key(a, plain, LORA_SAVED, e)};
    for (int k = 0; k < 2 && !(m->config.has & HAS_UNTIED); k++) {
        const struct stored *t = key[k] ? safetensors_find(s, key[k]) : NULL;
        if (!key[k] ||
            (t && (param_values(m, head->weight, e) || lora_same(head->weight, t, where, e))))
            return -1;
        if (t) seen[t - s->tensor] = 1;
    }
    return 0;
}

/* Row `to` of an embedding from row `from` of a tensor. */
static int row_read(struct param *p, i64 to, const struct stored *t, i64 from, const char *where,
                    struct err *e) {
    const i64 cols = p->view.dim[1], bytes = cols * dtype_size(p->view.dtype);
    u8 *row = mem_new(bytes, e), *place = (u8 *)p->view.data + to * bytes;
    if (!row) return -1;
    stored_read(t, from * cols, cols, p->view.dtype, row);
    bool finite = true;
    for (i64 c = 0; c < cols; c++) {
        const float x = p->view.dtype == BF16 ? bf16_to_f32(((u16 *)(void *)row)[c])
                                              : ((float *)(void *)row)[c];
        finite &= x - x == 0;
    }
    int rc = finite
                 ? 0
                 : err_input(e, "%s: tensor '%s' holds a value that is not finite", where, t->name);
    if (!rc && p->placed)
        rc = device_write(place, row, bytes, e) || device_sync(e);
    else if (!rc)
        memcpy(place, row, (size_t)bytes);
    return mem_free(row), rc ? -1 : 0;
}

/* Rows of trainable_token_indices take the place of the embedding's; where that is the LM head too,
 * of both, as in PEFT. */
static int tokens_load(struct model *m, const struct safetensors *s, u8 *seen, const char *where,
                       struct err *e) {
    struct arena a = {0};
    int rc = 0;
    for (i64 i = 0; !rc && i < s->count; i++) {
        const struct stored *t = &s->tensor[i];
        enum lora_part part;
        char *name;
        if (seen[i] || (rc = lora_key_parse(t->name, &part, &name, &a, e)) || part != LORA_TOKENS)
            continue;
        struct param *p = NULL;
        const struct lora_tokens *of = NULL;
        for (i64 k = 0; k < m->weights.modules; k++)
            if (!strcmp(m->weights.module[k].path, name)) p = m->weights.module[k].weight;
        for (i64 k = 0; k < m->lora->tokens_count && !of; k++)
            if (!m->lora->tokens[k].module || ends_with(name, m->lora->tokens[k].module))
                of = &m->lora->tokens[k];
        if ((rc = param_values(m, p, e))) break;
        const i64 cols = p ? p->view.dim[p->view.rank - 1] : 0;
        if (!p || !of || p->view.packing || t->rank != 2 || t->dim[1] != cols ||
            !stored_readable(t)) {
            rc = err_input(e, "%s: tensor '%s' belongs to no layer of this model", where, t->name);
            break;
        }
        for (i64 r = 0; !rc && r < of->count; r++)
            rc = of->id[r] >= p->view.dim[0]
                     ? err_input(e, "%s: trainable_token_indices: the model has no token %lld",
                                 where, (long long)of->id[r])
                     : row_read(p, of->id[r], t, r, where, e);
        seen[i] = 1;
    }
    arena_free(&a);
    return rc ? -1 : 0;
}

/* The shape of a tensor of the adapter's file at one end; 0: it is not there. */
static i64 dim_in(struct model *m, const struct safetensors *s, const char *name,
                  enum lora_part part, int axis, struct err *e) {
    const char *key = lora_key(&m->weights.arena, name, part, e);
    const struct stored *t = key ? safetensors_find(s, key) : NULL;
    return t && axis < t->rank ? t->dim[axis] : 0;
}

/* All rows of a module's weight, under any name that they have. */
static i64 rows_in(struct model *m, const struct safetensors *s, const struct module *at,
                   struct err *e) {
    char plain[256];
    snprintf(plain, sizeof plain, "%.240s.weight", at->path);
    return i64_max(dim_in(m, s, plain, LORA_SAVED, 0, e), dim_in(m, s, at->path, LORA_BASE, 0, e));
}

int lora_fit(struct model *m, const struct lora_config *c, const struct safetensors *s,
             const char *where, struct err *e) {
    struct module *head = model_module(m, -1, &top_head), *embed = model_module(m, -1, &top_embed);
    char name[2][256];
    snprintf(name[0], sizeof name[0], "%.240s.weight", embed->path);
    snprintf(name[1], sizeof name[1], "%.240s.weight", head->path);
    const i64 of_embed = rows_in(m, s, embed, e), of_head = rows_in(m, s, head, e);
    const i64 rows =
        i64_max(i64_max(of_embed, of_head), i64_max(dim_in(m, s, embed->path, LORA_EMBED_A, 1, e),
                                                    dim_in(m, s, head->path, LORA_B, 0, e)));
    if (e->code) return -1;
    const bool cut = !(m->config.has & HAS_UNTIED) && !c->ensure_weight_tying &&
                     (lora_saves(c, name[0]) || lora_saves(c, name[1]));
    if (!cut && rows <= m->config.vocab_size) return 0;
    if (m->lora) {
        err_input(e,
                  "%s: an adapter that changes the vocabulary or the output layer has no other "
                  "beside it",
                  where);
        return err_hint(e, "merge it first: hone export MODEL --adapter DIR --output MERGED");
    }
    if (cut && model_untie(m, e)) return -1;
    if (rows <= m->config.vocab_size) return 0;
    const bool own = m->config.has & HAS_UNTIED;
    if (of_embed != rows || (own && of_head != rows) || head->bias) {
        err_input(e,
                  "%s is of a model with %lld tokens, the base has %lld, and the file does not "
                  "hold all rows of %s",
                  where, (long long)rows, (long long)m->config.vocab_size,
                  of_embed != rows ? embed->path : head->path);
        return err_hint(e, "PEFT saves them with save_embedding_layers=True");
    }
    return model_grow(m, rows, e);
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
    rc = rc || base_load(m, s, seen, where, e) || tokens_load(m, s, seen, where, e);
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
    if ((head->adapter.a || embed->adapter.a) && model_untie(m, e)) return -1;
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
