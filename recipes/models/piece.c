/* piece.c: which rows of a parameter a tensor of a file holds, and where they lie in it.
 *
 * In memory a parameter is [blocks,] rows, cols, fused rows in one order for all families: [Q | K |
 * V], [gate | up]. A file may transpose it, take the rows in another order, or cut it into tensors
 * by expert, by head or by part (struct weight_rule). A piece is one tensor of a file and the rows
 * in memory that it holds; loading, saving and gradients all go through pieces. */
#include "recipes/models/models_int.h"

#include <string.h>

/* Of rank 0 in files. */
static bool is_scalar(const struct param *p) { return p->rule && p->rule->rows == DIM_SCALAR; }
static i64 rows_of(const struct param *p, i64 cols) { return view_count(&p->view) / cols; }

static i64 parts_of(const struct param *p) { return strchr(p->name, '|') ? 2 : 1; }

i64 pieces_of(const struct naming *n, const struct param *p) {
    if (p->rule && n->gguf) return gguf_parts(p); /* its experts and heads are one tensor */
    if (!p->rule || p->stacked) return 1;
    if (strstr(p->name, "%E")) return p->view.dim[0] * parts_of(p);
    if (strstr(p->name, "%H")) return p->heads;
    return parts_of(p);
}

/* The name of piece `part` (of those of expert or head `index`; with %L, of layer `index`), under
 * the file's prefix. */
static void piece_name(char out[256], const struct prefix *x, const char *pattern, i64 index,
                       i64 part) {
    char text[256];
    const char *bar = strchr(pattern, '|');
    if (part) pattern = bar + 1, bar = NULL;
    snprintf(text, sizeof text, "%.*s", bar ? (int)(bar - pattern) : 250, pattern);
    const char *mark = strpbrk(text, "%");
    char numbered[256];
    if (mark)
        snprintf(numbered, sizeof numbered, "%.*s%lld%s", (int)(mark - text), text,
                 (long long)index, mark + 2);
    else
        snprintf(numbered, sizeof numbered, "%s", text);
    const size_t n = x ? strlen(x->module) : 0;
    if (x && !strncmp(numbered, x->module, n))
        snprintf(out, 256, "%s%.200s", x->file, numbered + n);
    else
        snprintf(out, 256, "%s%.200s", x && !strncmp(numbered, "lm_head.", 8) ? x->head : "",
                 numbered);
}

void param_name(char out[256], const struct naming *n, const char *pattern) {
    piece_name(out, n->prefix, pattern, 0, 0);
}

static void turn(struct piece *o, bool swap) { /* rows for columns on disk */
    const i64 last = o->dim[o->rank - 1];
    if (swap) o->dim[o->rank - 1] = o->dim[o->rank - 2], o->dim[o->rank - 2] = last;
}

/* A GGUF file holds experts stacked and rows as they are in memory, but for two of its habits. */
static void gguf_piece(struct piece *o, const struct gguf_arch *arch, const struct param *p,
                       i64 part) {
    const bool matrix = p->decay, experts = strstr(p->name, "%E") != NULL;
    const i64 cols = matrix ? p->view.dim[p->view.rank - 1] : 1, rows = rows_of(p, cols);
    const bool latent = p->type->gguf.heads; /* a block for each head: its keys, or its values */
    const i64 blocks = experts ? p->view.dim[0] : latent ? p->heads : 1;
    const i64 keys = p->keys, stride = rows / blocks,
              block = !latent ? stride / gguf_parts(p)
                      : part  ? stride - keys
                              : keys;
    *o = (struct piece){.first = latent && part ? keys : block * part,
                        .rows = blocks * block,
                        .block = block,
                        .cols = cols,
                        .stride = stride};
    gguf_name(o->name, arch, p, part);
    o->layout = p->layout & LAYOUT_ROPE_LAST;
    if (arch->rope_rows && p->type->gguf.rope_pairs) o->layout = LAYOUT_PAIRS;
    if (latent && !part) o->layout = LAYOUT_T;
    if (arch->one_plus && p->type->kind == MODULE_NORM) o->add = 1;
    if (is_scalar(p)) return;
    if (experts || latent) o->dim[o->rank++] = blocks;
    if (strstr(p->name, "%H")) o->dim[o->rank++] = p->heads;
    o->dim[o->rank++] = strstr(p->name, "%H") ? block / p->heads : block;
    if (matrix) o->dim[o->rank++] = cols;
    turn(o, o->layout & LAYOUT_T);
}

void piece_of(struct piece *o, const struct naming *n, const struct param *p, i64 i) {
    if (n->gguf && p->rule) {
        gguf_piece(o, n->gguf, p, i);
        return;
    }
    const bool matrix = p->decay;
    const i64 cols = matrix ? p->view.dim[p->view.rank - 1] : 1, rows = rows_of(p, cols);
    const i64 count = pieces_of(n, p), parts = p->rule && !p->stacked ? parts_of(p) : 1;
    const bool of_experts = p->view.rank > 1 + matrix;
    const i64 experts = of_experts ? p->view.dim[0] : 1;
    *o = (struct piece){.rows = rows / count, .first = rows / count * i, .cols = cols};
    o->layout = p->stacked ? p->rule->stacked_layout : p->layout;
    const bool adapter = o->layout & (LAYOUT_EXPERTS_A | LAYOUT_EXPERTS_B);
    o->stride = o->block = p->stacked || adapter ? rows / experts : o->rows;
    piece_name(o->name, n->prefix, p->stacked ? p->rule->stacked : p->name,
               p->stacked ? p->layer : i / parts, i % parts);
    if (is_scalar(p)) return;
    if (p->stacked && of_experts) o->dim[o->rank++] = experts;
    o->dim[o->rank++] = o->block;
    if (matrix) o->dim[o->rank++] = cols;
    turn(o, o->layout & LAYOUT_T);
    if (adapter) o->dim[o->layout & LAYOUT_EXPERTS_A ? 0 : 1] *= experts;
}

/* Where row r of a block in memory lies in the block on disk. */
static i64 row_on_disk(const struct param *p, const struct piece *o, i64 r) {
    if (o->layout & LAYOUT_QKV_GROUPS) {
        const i64 group = p->heads / p->kv_heads, width = o->block / (p->heads + 2 * p->kv_heads);
        const i64 head = r / width;
        const i64 at = head < p->heads ? head / group * (group + 2) + head % group
                       : head < p->heads + p->kv_heads
                           ? (head - p->heads) * (group + 2) + group
                           : (head - p->heads - p->kv_heads) * (group + 2) + group + 1;
        return at * width + r % width;
    }
    if (o->layout & LAYOUT_ROPE_LAST) {
        const i64 head = o->block / p->heads, at = r % head;
        return r - at + (at < p->rope_dim ? head - p->rope_dim + at : at - p->rope_dim);
    }
    if (o->layout & LAYOUT_PAIRS) {
        const i64 width = o->block / (p->type->of_keys ? p->kv_heads : p->heads);
        const i64 at = r % width, half = width / 2;
        return r - at + (at < half ? 2 * at : 2 * (at - half) + 1);
    }
    if (o->layout & LAYOUT_GU_ALT) return r < o->block / 2 ? 2 * r : 2 * (r - o->block / 2) + 1;
    return r;
}

/* The element on disk that goes to column c of row r (counted in the piece). */
i64 piece_place(const struct param *p, const struct piece *o, i64 r, i64 c) {
    const i64 b = r / o->block, at = row_on_disk(p, o, r % o->block);
    if (o->layout & LAYOUT_EXPERTS_B) return (at * o->cols + c) * p->view.dim[0] + b;
    return o->layout & LAYOUT_T ? (b * o->cols + c) * o->block + at
                                : (b * o->block + at) * o->cols + c;
}

i64 piece_row(const struct piece *o, i64 r) {
    return o->first + r / o->block * o->stride + r % o->block;
}
