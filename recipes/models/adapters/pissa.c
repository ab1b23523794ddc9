/* pissa.c: adapters that start as the base's principal part (PiSSA, Meng et al., 2024): with the r
 * largest singular values of w = U S V^T, A = sqrt(S / scale) V^T and B = U sqrt(S / scale), and
 * the base keeps the residual w - scale * B·A, of A and B as the model holds them. So step 0 is the
 * base within the rounding of the residual.
 *
 * What is saved is what PEFT's path_initial_model_for_weight_conversion makes: on the original base
 * a plain adapter of twice the rank, rows [A; A0] and columns [B | -B0], A0 and B0 the start. A run
 * that goes on takes the first halves, and the second must be what it starts from itself. An
 * adapter that PEFT saved as it is (init_lora_weights "pissa") is loaded over the residual computed
 * here.
 *
 * Rejected: training [A; A0] on the whole base, which rounds twice the ranks in each product; the
 * residual in 4 bits, whose error no plain adapter of the original base would have. */
#include "recipes/models/models_int.h"

#include <string.h>

static bool is_b(const struct param *p) { return p->lr_group == LR_GROUP_FAST; }

/* sqrt(values) * from [r, n] into a half, and `sign` times what it then holds as its start. */
static int part_set(struct weights *all, struct param *p, const double *from, const double *values,
                    double sign, struct err *e) {
    const i64 r = p->view.dim[is_b(p)], n = p->view.dim[!is_b(p)];
    if (!(p->start = arena_new(&all->arena, view_bytes(&p->view), e))) return -1;
    struct param start = {.view = p->view};
    start.view.data = p->start;
    for (i64 k = 0; k < r; k++)
        for (i64 i = 0; i < n; i++) {
            const i64 at = is_b(p) ? i * r + k : k * n + i;
            param_set(p, at, (float)(__builtin_sqrt(values[k]) * from[k * n + i]));
            param_set(&start, at, (float)sign * param_get(p, at));
        }
    return 0;
}

int pissa_start(struct weights *all, const struct param *w, struct lora_pair *to, struct err *e) {
    const i64 rows = w->view.dim[0], cols = w->view.dim[1], r = to->a->view.dim[0];
    if (w->view.packing) {
        err_input(e,
                  "init_lora_weights pissa takes a part out of the weights, and %s is packed as %s",
                  w->name, w->view.packing->name);
        return err_hint(e, "without load_in_4bit, or with init_lora_weights: true");
    }
    if (r > i64_min(rows, cols))
        return err_input(e,
                         "init_lora_weights pissa: rank %lld, but %s [%lld, %lld] has only %lld "
                         "singular values",
                         (long long)r, w->name, (long long)rows, (long long)cols,
                         (long long)i64_min(rows, cols));
    float *plain = mem_new_array(rows * cols, sizeof *plain, e);
    double *found = plain ? mem_new_array(r * (1 + rows + cols), sizeof *found, e) : NULL;
    double *const u = found + r, *const v = u + r * rows;
    for (i64 i = 0; found && i < rows * cols; i++) plain[i] = param_get(w, i);
    int rc = !found || svd_top(plain, rows, cols, r, found, u, v, e);
    for (i64 k = 0; !rc && k < r; k++) found[k] /= to->scale;
    rc = rc || part_set(all, to->a, v, found, 1, e) || part_set(all, to->b, u, found, -1, e);
    mem_free(plain), mem_free(found);
    return rc ? -1 : 0;
}

/* p with twice the ranks. */
static struct param doubled(const struct param *p) {
    struct param both = *p;
    both.view.dim[is_b(p)] *= 2, both.placed = false;
    return both;
}
/* Rows of A, columns of B: to or from the halves of `both`. */
static void halves(const struct param *p, u8 *both, u8 *half, bool second, bool out) {
    const i64 size = view_bytes(&p->view), row = is_b(p) ? size / p->view.dim[0] : size;
    for (i64 i = 0; i < size / row; i++) {
        u8 *at = both + (2 * i + second) * row, *own = half + i * row;
        memcpy(out ? own : at, out ? at : own, (size_t)row);
    }
}

int pissa_stored(const struct model *m, const struct param *p, const void *from,
                 struct stored_list *list, struct err *e) {
    const struct param both = doubled(p);
    u8 *data = arena_new(&list->arena, view_bytes(&both.view), e);
    if (!data) return -1;
    halves(p, data, (u8 *)from, false, false), halves(p, data, p->start, true, false);
    return param_stored(m, &both, "", data, p->view.dtype, list, e);
}

int pissa_load(struct param *p, const struct stored *t, const char *where, struct err *e) {
    const i64 bytes = view_bytes(&p->view);
    struct param both = doubled(p), half = *p;
    if (t->rank != 2 || t->dim[is_b(p)] != both.view.dim[is_b(p)])
        return param_load(p, t, where, e);
    u8 *data = mem_new(3 * bytes, e);
    both.view.data = data, half.view.data = data + 2 * bytes, half.placed = false;
    int rc = !data || param_load(&both, t, where, e);
    if (!rc) halves(p, data, half.view.data, true, true);
    if (!rc && memcmp(half.view.data, p->start, (size_t)bytes)) {
        rc = err_input(e, "%s: %s did not start from this base in this precision", where, t->name);
        err_hint(e, "init_lora_weights: true goes on from any adapter");
    }
    if (!rc) halves(p, data, half.view.data, false, true), rc = param_copy(p, &half, e);
    mem_free(data);
    return rc ? -1 : 0;
}
