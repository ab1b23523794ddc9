/* lora_stack.c: several adapters on one model, each with a weight. On each linear layer the pairs
 * become one of both ranks: rows of A after each other, columns of B after each other, those of the
 * later one times the ratio of the scales. That is their sum, as PEFT's add_weighted_adapter with
 * combination_type "cat" has it, and nothing else in the program knows that there were several:
 * generation, merging and 4-bit bases are what they are for one. With equal scales no number
 * changes.
 *
 * Rejected: a list of pairs on each layer, which needs as many products, and code in each place
 * that knows of a pair. Not summed are DoRA (its norm is not linear in B·A) and modules that are
 * trained whole (there can be only one). */
#include "recipes/models/models_int.h"

#include <string.h>

/* to = before, then `by` times to, along the axis of ranks. */
static int half_join(struct param *to, const struct param *before, int axis, float by,
                     struct err *e) {
    struct param both = *to;
    i64 outer = 1, inner = 1;
    for (int i = 0; i < to->view.rank; i++)
        *(i < axis ? &outer : &inner) *= i == axis ? 1 : to->view.dim[i];
    const i64 n = before->view.dim[axis] * inner, k = to->view.dim[axis] * inner;
    both.view.dim[axis] += before->view.dim[axis];
    if (!(both.view.data = mem_new(view_bytes(&both.view), e))) return -1;
    for (i64 o = 0; o < outer; o++) {
        for (i64 i = 0; i < n; i++) param_set(&both, o * (n + k) + i, param_get(before, o * n + i));
        for (i64 i = 0; i < k; i++)
            param_set(&both, o * (n + k) + n + i, by * param_get(to, o * k + i));
    }
    param_free(to), *to = both;
    return 0;
}

static int list_again(struct model *m, struct param *p, struct err *e) {
    struct param **more = mem_grow(m->weights.param, m->weights.params * (i64)sizeof p,
                                   (m->weights.params + 1) * (i64)sizeof p, e);
    if (!more) return -1;
    m->weights.param = more, m->weights.param[m->weights.params++] = p;
    return 0;
}

/* What was on the layer, and what is now. What cannot be kept is freed. */
static int pair_join(struct model *m, struct lora_pair *now, const struct lora_pair *was, int rc,
                     struct err *e) {
    const bool kept = !rc && !now->a, embedding = was->a->layout & LAYOUT_T;
    if (kept) {
        *now = *was;
        if (list_again(m, was->a, e)) return param_free(was->a), param_free(was->b), -1;
        return list_again(m, was->b, e) ? param_free(was->b), -1 : 0;
    }
    const int rank = was->a->view.rank;
    if (!rc && was->scale != 0) {
        rc = half_join(now->a, was->a, rank - (embedding ? 1 : 2), 1, e) ||
             half_join(now->b, was->b, rank - 1, (float)(now->scale / was->scale), e);
        now->scale = was->scale;
    }
    param_free(was->a), param_free(was->b);
    return rc;
}

static int may_stack(const struct model *m, const struct lora_config *c, const char *where,
                     double weight, struct err *e) {
    const struct lora_config *of[] = {m->lora, c};
    for (int i = 0; (m->lora || weight != 1) && i < 2; i++) {
        const char *what = !of[i]                         ? NULL
                           : of[i]->use_dora              ? "use_dora"
                           : of[i]->modules_to_save.count ? "modules_to_save"
                           : of[i]->tokens_count          ? "trainable_token_indices"
                           : of[i]->biases                ? "trained biases"
                           : lora_is_pissa(of[i])         ? "init_lora_weights pissa"
                                                          : NULL;
        if (!what) continue;
        err_input(e, "%s: an adapter with %s has no weight and no other beside it",
                  i ? where : "--adapter", what);
        return err_hint(e, "merge it first: hone export MODEL --adapter DIR --output MERGED");
    }
    return 0;
}

/* Weights of the base that PEFT saves beside an adapter: a second one must have the same. */
static int base_same(struct model *m, const struct safetensors *s, const char *where,
                     struct err *e) {
    for (i64 i = 0; i < m->weights.params; i++) {
        struct param *p = m->weights.param[i];
        const bool packed = p->view.packing && !m->config.quant.filed;
        if (!p->type || p->view.rank < 2 || packed) continue;
        for (int k = 0; k < 2; k++) {
            const char *key =
                k ? lora_key(&m->weights.arena, p->name, LORA_SAVED, e) : lora_base_key(m, p, e);
            const struct stored *t = key ? safetensors_find(s, key) : NULL;
            if (!key || (t && (param_values(m, p, e) || lora_same(p, t, where, e)))) return -1;
        }
    }
    return 0;
}

int lora_stack(struct model *m, struct lora_config *c, const struct safetensors *s,
               const char *where, double weight, struct err *e) {
    struct lora_config *const first = m->lora;
    if (may_stack(m, c, where, weight, e) || (first && base_same(m, s, where, e)) ||
        lora_fit(m, c, s, where, e))
        return -1;
    struct lora_pair *was = mem_new_array(m->weights.modules, sizeof *was, e);
    if (!was) return -1;
    for (i64 i = 0; i < m->weights.modules; i++)
        was[i] = m->weights.module[i].adapter, m->weights.module[i].adapter = (struct lora_pair){0};
    while (m->weights.params && !m->weights.param[m->weights.params - 1]->type) m->weights.params--;
    int rc = lora_add(m, c, 0, e) || lora_load(m, s, where, e);
    for (i64 i = 0; i < m->weights.modules; i++) {
        struct lora_pair *now = &m->weights.module[i].adapter;
        now->scale *= weight;
        if (was[i].a && pair_join(m, now, &was[i], rc, e)) rc = -1;
    }
    if (first) m->lora = first;
    mem_free(was);
    return rc ? -1 : 0;
}
