/* lora_tokens.c: rows of an embedding that are trained beside an adapter
 * (PEFT's trainable_token_indices): a parameter of which the other rows have no gradient. */
#include "recipes/models/models_int.h"

#include <stdlib.h>
#include <string.h>

static int i64_order(const void *a, const void *b) {
    const i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return x < y ? -1 : x > y;
}

/* The embedding that rows of struct lora_tokens are of. */
static struct module *tokens_module(const struct model *m, const struct lora_tokens *of) {
    if (!of->module) return model_module(m, -1, &top_embed);
    for (i64 i = 0; i < m->weights.modules; i++)
        if (ends_with(m->weights.module[i].path, of->module)) return &m->weights.module[i];
    return NULL;
}

int lora_tokens_add(struct model *m, const struct lora_config *c, struct err *e) {
    for (i64 k = 0; k < c->tokens_count; k++) {
        const struct lora_tokens *of = &c->tokens[k];
        const struct module *at = tokens_module(m, of);
        struct param *p = at ? at->weight : NULL;
        if (param_values(m, p, e)) return -1;
        if (!p || p->view.rank != 2 || p->view.packing || p->saved)
            return err_input(e, "trainable_token_indices: no embedding of the model is named %s",
                             of->module ? of->module : "so");
        i64 *row = arena_new(&m->weights.arena, (of->count + 1) * (i64)sizeof *row, e);
        if (!row) return -1;
        memcpy(row, of->id, (size_t)of->count * sizeof *row);
        qsort(row, (size_t)of->count, sizeof *row, i64_order);
        for (i64 i = 0; i < of->count; i++) {
            if (row[i] >= p->view.dim[0])
                return err_input(e, "trainable_token_indices: the model has no token %lld",
                                 (long long)row[i]);
            if (i && row[i] == row[i - 1])
                return err_input(e, "trainable_token_indices: token %lld is there twice",
                                 (long long)row[i]);
        }
        p->row = row, p->rows = of->count, p->trainable = true;
    }
    return 0;
}

int lora_tokens_stored(const struct model *m, const struct param *p, const void *from,
                       struct stored_list *list, struct err *e) {
    for (i64 k = 0; k < m->lora->tokens_count; k++) {
        const struct lora_tokens *of = &m->lora->tokens[k];
        const struct module *at = tokens_module(m, of);
        if (!at || at->weight != p) continue;
        const i64 bytes = p->view.dim[1] * dtype_size(p->view.dtype);
        struct stored *s = stored_add(list, e);
        u8 *rows = s ? arena_new(&list->arena, of->count * bytes, e) : NULL;
        const char *name = rows ? lora_key(&list->arena, at->path, LORA_TOKENS, e) : NULL;
        if (!name) return -1;
        for (i64 i = 0; i < of->count; i++)
            memcpy(rows + i * bytes, (const u8 *)from + of->id[i] * bytes, (size_t)bytes);
        *s = (struct stored){.name = name,
                             .dtype = p->view.dtype,
                             .rank = 2,
                             .dim = {of->count, p->view.dim[1]},
                             .data = rows,
                             .bytes = of->count * bytes};
        list->count++;
    }
    return 0;
}
