/* reshape.c: a model that is loaded, made larger: an LM head of its own in place of the embedding's
 * weight, more rows for more tokens. Before adapters are added. */
#include "recipes/models/models_int.h"

#include <string.h>

static const struct weight_rule *head_rule(const struct model *m) {
    const struct weight_rule *const *group = m->config.family->weights;
    for (; *group; group++)
        for (const struct weight_rule *w = *group; w->type; w++)
            if (w->type == &top_head && w->cols != DIM_BIAS) return w;
    return NULL;
}

int model_untie(struct model *m, struct err *e) {
    if (m->config.has & HAS_UNTIED) return 0;
    struct module *head = model_module(m, -1, &top_head);
    const struct param *embed = model_module(m, -1, &top_embed)->weight;
    const struct weight_rule *w = head_rule(m);
    if (!w || m->weights.params == 0 || embed->placed)
        return err_failed(e, "the output layer of a %s model cannot have weights of its own",
                          m->config.family->model_type);
    struct param *p =
        param_add(&m->weights, w->name, 2, embed->view.dim, embed->view.dtype, false, e);
    if (!p) return -1;
    p->type = &top_head, p->layer = -1, p->rule = w, p->layout = w->layout, p->decay = true;
    p->trainable = embed->trainable, p->heads = embed->heads, p->kv_heads = embed->kv_heads;
    memcpy(p->view.data, embed->view.data, (size_t)view_bytes(&embed->view));
    head->weight = p, m->config.has |= HAS_UNTIED, m->untied = true;
    return 0;
}

/* More rows, zero. */
static int rows_add(struct param *p, i64 rows, struct err *e) {
    struct param more = *p;
    more.view.dim[0] = rows;
    if (!(more.view.data = mem_new(view_bytes(&more.view), e))) return -1;
    memcpy(more.view.data, p->view.data, (size_t)view_bytes(&p->view));
    param_free(p), *p = more;
    return 0;
}

int model_grow(struct model *m, i64 vocab_size, struct err *e) {
    struct module *head = model_module(m, -1, &top_head), *embed = model_module(m, -1, &top_embed);
    if (vocab_size == m->config.vocab_size) return 0;
    if (vocab_size < m->config.vocab_size || embed->weight->placed)
        return err_input(e, "a vocabulary of %lld tokens cannot become one of %lld",
                         (long long)m->config.vocab_size, (long long)vocab_size);
    if (rows_add(embed->weight, vocab_size, e) ||
        (head->weight != embed->weight && rows_add(head->weight, vocab_size, e)) ||
        (head->bias && rows_add(head->bias, vocab_size, e)))
        return -1;
    m->config.vocab_size = vocab_size, m->grown = true;
    return 0;
}

/* Do two tensors of the same shape hold the same values? As f32 where their types differ. */
static int values_differ(const struct stored *a, const struct stored *b, struct err *e) {
    enum { PART = 1 << 15 };
    if (a->rank != 2 || b->rank != 2 || a->dim[0] != b->dim[0] || a->dim[1] != b->dim[1]) return 1;
    if (a->dtype == b->dtype && a->bytes == b->bytes && a->dtype != DTYPE_COUNT)
        return memcmp(a->data, b->data, (size_t)a->bytes) != 0;
    float *x = mem_new_array(2 * PART, sizeof *x, e);
    int differ = x ? 0 : -1;
    const i64 n = a->dim[0] * a->dim[1];
    for (i64 i = 0; !differ && i < n; i += PART) {
        const i64 count = i64_min(PART, n - i);
        stored_read(a, i, count, F32, x), stored_read(b, i, count, F32, x + PART);
        differ = memcmp(x, x + PART, (size_t)count * sizeof *x) != 0;
    }
    return mem_free(x), differ;
}

int model_head_keep(struct model *m, const struct safetensors *s, const char *where,
                    struct err *e) {
    const struct param *embed = model_module(m, -1, &top_embed)->weight;
    const struct naming names = {.prefix = m->prefix};
    const struct weight_rule *w = head_rule(m);
    char head_name[256], embed_name[256];
    if ((m->config.has & HAS_UNTIED) || !w || embed->view.packing) return 0;
    param_name(head_name, &names, w->name), param_name(embed_name, &names, embed->name);
    const struct stored *head = safetensors_find(s, head_name),
                        *of = safetensors_find(s, embed_name);
    if (!head || !of || !stored_readable(head) || !stored_readable(of)) return 0;
    const int differ = values_differ(head, of, e);
    if (differ <= 0) return differ;
    if (model_untie(m, e) ||
        param_read(m, &names, model_module(m, -1, &top_head)->weight, s, NULL, where, e))
        return -1;
    snprintf(
        m->config.note, sizeof m->config.note,
        "tie_word_embeddings is true, but %.80s is not the embeddings: both are kept, and what is "
        "saved says that they are not tied",
        head_name);
    return 0;
}
