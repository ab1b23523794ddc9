/* lora_experts.c: adapters on the tensors of a mixture, which transformers 5 holds stacked: what
 * PEFT 0.21 calls target_parameters, and what it makes of names that its users know from before.
 *
 * Files name the layers of each expert (gate_proj, up_proj, down_proj; of Mixtral w1, w3, w2) and
 * the router `gate`. Where target_modules name them, are a pattern that matches them, or
 * "all-linear", PEFT takes each name away and adds the tensor that it became: gate.weight,
 * gate_up_proj, down_proj. gate_up_proj then has twice the rank and alpha. It goes by the last part
 * of a name alone, so that a dense MLP or a shared expert beside the experts, whose layers have the
 * same names, gets no adapter. An adapter that had one would not load there; hone does the same.
 *
 * Adapters of a stack have r rows for each expert. PEFT wraps a module once for each of its
 * tensors, so that of two the first (gate_up_proj) is called `experts.base_layer`. */
#include "recipes/models/mixers/mixers.h"

#include <string.h>

/* The last part of a path. */
static const char *leaf_of(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

int lora_experts_add(struct model *m, i64 l, struct lora_config *c, u64 seed, i64 *index,
                     struct err *e) {
    struct module *const at[] = {model_module(m, l, &experts_gate_up),
                                 model_module(m, l, &experts_down),
                                 model_module(m, l, &experts_router)};
    char name[COUNT(at)][176]; /* what PEFT calls the tensor */
    bool wanted[COUNT(at)];
    for (int i = 0; i < COUNT(at); i++) {
        if (!at[i]) return 0;
        const bool router = at[i]->type->kind == MODULE_ROUTER;
        snprintf(name[i], sizeof name[i], "%.160s%s", at[i]->path, router ? ".weight" : "");
        wanted[i] = lora_targets(c, name[i]);
    }
    for (int i = 0; i < COUNT(at); i++) {
        const struct param *w = at[i]->weight;
        struct lora_pair *to = &at[i]->adapter;
        const int flat = 3 - w->view.rank; /* 1: no stack */
        i64 r;
        if (!wanted[i]) continue;
        if (c->use_dora || c->lora_dropout > 0) {
            err_input(e, "target_parameters: PEFT has neither DoRA nor dropout for %s", name[i]);
            return err_hint(e, "leave them out, or the experts: lora_target_modules: [q_proj, "
                               "v_proj]");
        }
        if (lora_of(c, name[i], &r, &to->scale, e)) return -1;
        const i64 *dim = w->view.dim, out = dim[1 - flat], in = dim[2 - flat];
        const char *cut = strrchr(name[i], '.');
        char module[192];
        snprintf(module, sizeof module, "%.*s%s", (int)(cut - name[i]), name[i],
                 !i && wanted[1] ? ".base_layer" : "");
        const i64 a[] = {w->view.dim[0], r, in}, b[] = {w->view.dim[0], out, r};
        to->a = lora_part_new(&m->weights, module, LORA_A, w->view.rank, a + flat, e);
        to->b =
            to->a ? lora_part_new(&m->weights, module, LORA_B, w->view.rank, b + flat, e) : NULL;
        if (!to->b) return -1;
        lora_start(to->a, c, seed, (*index)++);
        to->a->layer = to->b->layer = w->layer;
        if (flat) continue;
        to->a->layout = LAYOUT_EXPERTS_A;
        to->b->layout = LAYOUT_EXPERTS_B | (w->rule->stacked_layout & LAYOUT_GU_ALT);
    }
    return 0;
}

/* ---- what target_modules mean */

static int list_put(struct model *m, struct text_list *list, const char *item, struct err *e) {
    for (i64 i = 0; i < list->count; i++)
        if (!strcmp(list->item[i], item)) return 0;
    char **more = arena_new(&m->weights.arena, (list->count + 1) * (i64)sizeof *more, e);
    if (!more) return -1;
    if (list->count) memcpy(more, list->item, (size_t)list->count * sizeof *more);
    list->item = more;
    return (more[list->count++] = arena_text(&m->weights.arena, item, e)) ? 0 : -1;
}

static int pattern_put(struct model *m, struct lora_pattern *p, const char *key, double value,
                       struct err *e) {
    double *more = arena_new(&m->weights.arena, (p->key.count + 1) * (i64)sizeof *more, e);
    if (!more) return -1;
    if (p->key.count) memcpy(more, p->value, (size_t)p->key.count * sizeof *more);
    p->value = more;
    if (list_put(m, &p->key, key, e)) return -1;
    for (i64 i = 0; i < p->key.count; i++)
        if (!strcmp(p->key.item[i], key)) more[i] = value;
    return 0;
}

struct renamed { /* the names before, and the tensors that they became */
    char old[4][32];
};
static const char *const became[] = {"gate.weight", "gate_up_proj", "gate_up_proj", "down_proj"};

/* The layers of an expert as the family's files name them; false: PEFT renames nothing there
 * (GPT-OSS, whose files have stacks from the start, and Qwen 2 MoE, which its table of families
 * lacks). */
static bool renamed_of(struct renamed *n, const struct model *m) {
    for (i64 l = 0; l < m->config.layers; l++) {
        const struct module *w = model_module(m, l, &experts_gate_up),
                            *down = model_module(m, l, &experts_down);
        if (!w || w->weight->rule->stacked_layout & LAYOUT_STACKED ||
            model_module(m, l, &experts_shared_score))
            continue;
        const char *gate = strstr(w->weight->rule->name, "%E."),
                   *up = gate ? strstr(gate + 3, "%E.") : NULL,
                   *last = strstr(down->weight->rule->name, "%E.");
        const char *const part[] = {"---gate.", gate, up, last};
        if (!up || !last) continue;
        for (int i = 0; i < COUNT(part); i++)
            snprintf(n->old[i], sizeof n->old[i], "%.*s", (int)strcspn(part[i] + 3, "."),
                     part[i] + 3);
        return true;
    }
    return false;
}

/* A pattern or "all-linear" as a list of last parts. */
static int pattern_resolve(struct model *m, struct lora_config *c, const struct renamed *n,
                           struct err *e) {
    const bool all = !strcmp(c->target_regex, "all-linear");
    struct text_list list = {0};
    char module[160];
    for (i64 l = 0; l < m->config.layers; l++)
        for (int routers = 0; routers < 2; routers++) { /* a layer's linear modules, its router */
            const struct module_range r = m->range[l + 1];
            const enum module_kind kind = routers ? MODULE_ROUTER : MODULE_LINEAR;
            for (i64 i = r.first; i < r.first + r.count; i++) {
                const char *path = m->weights.module[i].path;
                if (m->weights.module[i].type->kind != kind) continue;
                const int match = all ? 1 : lora_match(c, path, e);
                if (match < 0 || (match && list_put(m, &list, leaf_of(path), e))) return -1;
            }
        }
    for (i64 l = 0; l < m->config.layers; l++)
        for (int i = 1; model_module(m, l, &experts_router) && i < COUNT(became); i++) {
            snprintf(module, sizeof module, "model.layers.%lld.mlp.experts.%s", (long long)l,
                     n->old[i]);
            const int match = all ? 1 : lora_match(c, module, e);
            if (match < 0 || (match && list_put(m, &list, n->old[i], e))) return -1;
        }
    static const char *const top[] = {"model.embed_tokens", "lm_head"};
    for (int i = 0; !all && i < COUNT(top); i++) {
        const int match = lora_match(c, top[i], e);
        if (match < 0 || (match && list_put(m, &list, leaf_of(top[i]), e))) return -1;
    }
    if (list.count) c->target_modules = list, c->target_regex = NULL;
    return 0;
}

int lora_experts_targets(struct model *m, struct lora_config *c, struct err *e) {
    struct renamed n;
    struct text_list left = {0};
    bool there[COUNT(became)] = {false};
    if (!renamed_of(&n, m) || (c->target_regex && pattern_resolve(m, c, &n, e)) || e->code)
        return e->code ? -1 : 0;
    for (i64 k = 0; !c->target_regex && k < c->target_modules.count; k++) {
        const char *item = c->target_modules.item[k];
        int i = 0;
        while (i < COUNT(became) && strcmp(leaf_of(item), n.old[i])) i++;
        if (i == COUNT(became) ? list_put(m, &left, item, e)
                               : list_put(m, &c->target_parameters, became[i], e))
            return -1;
        if (i < COUNT(became)) there[i] = true;
    }
    if (there[1] != there[2])
        return err_input(e,
                         "lora_target_modules: %s without %s: both are one tensor of the experts",
                         n.old[there[1] ? 1 : 2], n.old[there[1] ? 2 : 1]),
               err_hint(e, "name both or neither");
    if (!c->target_regex) c->target_modules = left;
    return there[1] &&
                   (pattern_put(m, &c->rank_pattern, ".*\\.gate_up_proj", 2.0 * (double)c->r, e) ||
                    pattern_put(m, &c->alpha_pattern, ".*\\.gate_up_proj", 2 * c->lora_alpha, e))
               ? -1
               : 0;
}
