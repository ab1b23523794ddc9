/* reshape.c: a model that is loaded, made larger: an LM head of its own in place of the embedding's
 * weight, more rows for more tokens. Before adapters are added. */
#include "recipes/models/models_int.h"

#include <string.h>

int model_untie(struct model *m, struct err *e) {
    if (m->config.has & HAS_UNTIED) return 0;
    struct module *head = model_module(m, -1, &top_head);
    struct param *embed = model_module(m, -1, &top_embed)->weight;
    const struct weight_rule *w = head_rule(m->config.family);
    if (param_values(m, embed, e)) return -1;
    if (!w || embed->placed)
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
    if (param_values(m, embed->weight, e) || param_values(m, head->weight, e) ||
        rows_add(embed->weight, vocab_size, e) ||
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

int model_head_keep(struct model *m, const struct safetensors *s, bool tied, const char *where,
                    struct err *e) {
    const struct param *embed = model_module(m, -1, &top_embed)->weight;
    const struct naming names = {.prefix = m->prefix};
    const struct weight_rule *w = head_rule(m->config.family);
    char head_name[256], embed_name[256];
    if ((m->config.has & HAS_UNTIED) || !w || embed->view.packing) return 0;
    param_name(head_name, &names, w->name), param_name(embed_name, &names, embed->name);
    const struct stored *head = safetensors_find(s, head_name),
                        *of = safetensors_find(s, embed_name);
    if (!head || !of || !stored_readable(head) || !stored_readable(of)) return 0;
    const int differ = values_differ(head, of, e);
    if (differ <= 0) return differ;
    if (!tied && (model_untie(m, e) ||
                  param_read(m, &names, model_module(m, -1, &top_head)->weight, s, NULL, where, e)))
        return -1;
    char *note = m->config.note;
    const size_t size = strlen(note);
    snprintf(note + size, sizeof m->config.note - size,
             "%stie_word_embeddings is true, but %.80s is not the embeddings: %s", size ? "; " : "",
             head_name,
             tied ? "it is not used, as in the run, of recipe_version 1"
                  : "both are kept, and what is saved says that they are not tied");
    return 0;
}

/* ---- what new rows start with */

/* As transformers' mean_resizing: a draw from the normal distribution with the mean of the rows
 * that were there and 1e-9 times their covariance. A sum of their deviations with normal factors
 * has that covariance, so no matrix is made of it. Where there are no more rows than columns the
 * covariance has no full rank, and rows are the mean alone, as there. */
struct row_start {
    struct param *p;
    const double *mean;
    double *sum;    /* [new rows, cols] */
    i64 rows, cols; /* that were there */
    u64 seed;
    u32 index;
};
static void rows_start(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct row_start *s = arg;
    const double by = __builtin_sqrt(1e-9 / (double)s->rows);
    const struct rng r = {s->seed, RNG_INIT, 2, s->index};
    for (i64 row = begin; row < end; row++) {
        double *sum = s->sum + row * s->cols;
        for (i64 i = 0; s->rows > s->cols && i < s->rows; i++) {
            const double z = (double)rng_normal(&r, (u64)(row * s->rows + i));
            for (i64 c = 0; c < s->cols; c++)
                sum[c] += z * ((double)param_get(s->p, i * s->cols + c) - s->mean[c]);
        }
        for (i64 c = 0; c < s->cols; c++)
            param_set(s->p, (s->rows + row) * s->cols + c, (float)(s->mean[c] + by * sum[c]));
    }
}

static int param_start(struct param *p, i64 rows, u64 seed, u32 index, struct err *e) {
    const i64 cols = p->view.rank > 1 ? p->view.dim[1] : 1, more = p->view.dim[0] - rows;
    double *mean = mem_new_array((more + 1) * cols, sizeof *mean, e);
    if (!mean) return -1;
    for (i64 i = 0; i < rows; i++)
        for (i64 c = 0; c < cols; c++) mean[c] += (double)param_get(p, i * cols + c);
    for (i64 c = 0; c < cols; c++) mean[c] /= (double)rows;
    struct row_start job = {p, mean, mean + cols, rows, cols, seed, index};
    pool_run(more, rows_start, &job);
    return mem_free(mean), 0;
}

int model_rows_start(struct model *m, i64 rows, u64 seed, struct err *e) {
    const struct module *head = model_module(m, -1, &top_head),
                        *embed = model_module(m, -1, &top_embed);
    const bool own = head->weight != embed->weight;
    return param_start(embed->weight, rows, seed, 0, e) ||
                   (own && param_start(head->weight, rows, seed, 1, e)) ||
                   (head->bias && param_start(head->bias, rows, seed, 2, e))
               ? -1
               : 0;
}

bool model_grown_part(const struct model *m, const struct param *p) {
    const struct module *head = model_module(m, -1, &top_head),
                        *embed = model_module(m, -1, &top_embed);
    return m->grown && (p == embed->weight || p == head->weight || (p == head->bias && p));
}
