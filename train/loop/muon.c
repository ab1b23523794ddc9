/* muon.c: the direction of Muon (Jordan et al., 2024): a matrix whose singular values are all moved
 * towards 1 by Newton-Schulz iteration, on the products of ops/.
 *
 * As torch.optim.Muon: in bf16 whatever the precision of the run, sums in f32. X [r, c], r <= c, is
 * the matrix or, turned, its transpose, over its norm; then `ns_steps` times
 *
 *   A = X X^T;  B = ns_b A + ns_c A A;  X = ns_a X + B X
 *
 * each rounded to bf16. A and B equal their transposes to the bit, because their chains add the
 * same products, so that linear_dw (d += y^T x, f32) makes both A A and B X without turning
 * anything, on top of what A and X already contribute. An iteration is 4 r^2 c + 2 r^3 operations:
 * half of those of A A and A are for what symmetry would give. */
#include "train/loop/loop.h"

static struct view matrix(void *data, enum dtype d, i64 rows, i64 cols) {
    return (struct view){.data = data, .dtype = d, .rank = 2, .dim = {rows, cols}};
}

i64 muon_work(i64 rows, i64 cols) { /* X and A in bf16; A A in f32, and B */
    const i64 r = i64_min(rows, cols);
    return round_up(rows * cols * 2, 256) + 2 * round_up(r * r * 2, 256) + r * r * 4;
}

/* to = from * factor, by what `a` says. */
static int cast(struct optimizer *o, const struct view *from, const struct view *to,
                const double *square_sum, struct cast_attr a, struct err *e) {
    a.is_bf16 = to->dtype == BF16;
    struct op_call c = {.op = &op_cast, .attr = &a, .in = {*from}, .out = {*to}};
    if (square_sum)
        c.in[1] = (struct view){.data = (void *)square_sum, .dtype = F64, .rank = 1, .dim = {1}};
    return optimizer_call(o, &c, e);
}
static int product(struct optimizer *o, const struct op *op, const struct view *a,
                   const struct view *b, const struct view *to, struct err *e) {
    static const struct lora_attr plain = {1};
    struct op_call c = {.op = op, .attr = &plain, .in = {*a, *b}, .out = {*to}};
    return optimizer_call(o, &c, e);
}

int muon_direction(struct optimizer *o, float *matrix_f32, i64 rows, i64 cols, double *sum,
                   struct err *e) {
    const struct optim_args *w = &o->with;
    const bool turned = rows > cols;
    const i64 r = i64_min(rows, cols), c = i64_max(rows, cols);
    u8 *work = o->work;
    const struct view given = matrix(matrix_f32, F32, rows, cols),
                      x32 = matrix(matrix_f32, F32, r, c), x = matrix(work, BF16, r, c),
                      a = matrix(work += round_up(rows * cols * 2, 256), BF16, r, r),
                      b = matrix(work += round_up(r * r * 2, 256), BF16, r, r),
                      aa = matrix(work + round_up(r * r * 2, 256), F32, r, r);
    struct op_call norm = {.op = &op_square_sum, .in = {given}, .out = {{.data = sum}}};
    if (optimizer_call(o, &norm, e) ||
        cast(o, &given, &x, sum, (struct cast_attr){1, w->eps, turned, false}, e))
        return -1;
    for (i64 k = 0; k < w->ns_steps; k++)
        if (product(o, &op_linear, &x, &x, &a, e) ||
            cast(o, &a, &aa, NULL, (struct cast_attr){.factor = w->ns_b / w->ns_c}, e) ||
            product(o, &op_linear_dw, &a, &a, &aa, e) ||
            cast(o, &aa, &b, NULL, (struct cast_attr){.factor = w->ns_c}, e) ||
            cast(o, &x, &x32, NULL, (struct cast_attr){.factor = w->ns_a}, e) ||
            product(o, &op_linear_dw, &b, &x, &x32, e) ||
            cast(o, &x32, &x, NULL, (struct cast_attr){.factor = 1}, e))
            return -1;
    return cast(o, &x, &given, NULL, (struct cast_attr){1, 0, turned, false}, e);
}

double muon_rate(const struct optim_args *w, i64 rows, i64 cols) {
    const double ratio = (double)rows / (double)cols;
    if (*w->adjust_lr_fn == 'm') return 0.2 * __builtin_sqrt((double)i64_max(rows, cols));
    return __builtin_sqrt(*w->adjust_lr_fn == 'o' && ratio < 1 ? 1 : ratio);
}
