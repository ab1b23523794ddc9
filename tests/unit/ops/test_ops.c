/* test_ops.c: one test for all operations. For each op and sample of OP_LIST:
 *   - the gradient rows, run on the f64 references, equal finite differences of the reference;
 *   - every kernel of every instruction set, in f32 and bf16, is within the op's bound of the
 * reference;
 *   - all instruction sets and 1, 2, 3 and 8 threads give the same bits, and no byte outside the
 * arguments changes. */
#include "tests/unit/ops/ops_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NAMES = 32 };

/* The names a gradient row can use: arguments, outputs, and the gradients found so far, all F64 (or
 * I32). */
struct names {
    char name[NAMES][24];
    struct view view[NAMES];
    int count;
    int given; /* those before any row ran: what the objective weighs outputs with */
};

static struct view *names_get(struct names *n, const char *name) {
    for (int i = 0; i < n->count; i++)
        if (!strcmp(n->name[i], name)) return &n->view[i];
    return NULL;
}
static struct view *names_add(struct names *n, const char *name, const struct view *like,
                              bool fresh) {
    assert_true(n->count < NAMES);
    snprintf(n->name[n->count], sizeof n->name[0], "%.23s", name);
    struct view *v = &n->view[n->count++];
    *v = *like;
    if (fresh) v->data = calloc((size_t)view_count(like) + 1, sizeof(double));
    return v;
}

static struct sample *sample_new(const struct op *op, int index) {
    struct sample *s = calloc(1, sizeof *s);
    if (op->sample && op->sample(index, s)) return s;
    free(s);
    return NULL;
}

/* Runs one row on references; its results are added to `n`. */
static void row_run(const struct grad_row *row, struct names *n, const void *attr) {
    struct op_arg in[OP_IN], out[OP_IN];
    const int ins = op_args(row->in, in);
    char text[128];
    snprintf(text, sizeof text, "%s", row->out);
    for (char *p = text; *p; p++)
        if (*p == '=' && p > text && p[-1] != ' ') *p = '|';
    const int outs = op_args(text, out);
    struct op_call c = {.op = row->op ? op_find(row->op) : NULL, .attr = attr};
    for (int i = 0; i < ins; i++) {
        const struct view *v = names_get(n, in[i].name);
        if (v && v->rank && view_count(v)) c.in[i] = *v;
    }
    if (row->op) assert_non_null(c.op);
    struct op_arg target[OP_IN];
    const int wants = c.op ? op_args(c.op->in, target) : 0;
    for (int i = 0; i < wants; i++)
        if (!target[i].optional && !c.in[i].rank)
            return; /* does not apply: an optional argument is absent */
    bool useful = false;
    for (int i = 0; i < outs; i++) {
        char *second = strchr(out[i].name, '|');
        if (second) *second++ = 0;
        const struct view *of = names_get(n, out[i].name + 1);
        if (!of || !of->rank || !view_count(of) || of->packing) continue; /* packed: frozen */
        useful = true;
        if (!c.op)
            c.out[i] = c.in[0];
        else
            c.out[i] = *names_add(n, out[i].name, of, true);
        if (!c.op) names_add(n, out[i].name, &c.in[0], false);
        if (second) names_add(n, second, &c.out[i], false);
    }
    if (!c.op || !useful) return;
    struct err e = {0};
    struct op_call shaped = c;
    if (op_shape(&shaped, &e)) err_print(&e, stderr);
    assert_int_equal(e.code, 0);
    i64 scratch = c.op->scratch ? c.op->scratch(&shaped) : 0;
    c.scratch = calloc(1, (size_t)scratch + 64);
    for (int i = 0; i < OP_OUT; i++)
        if (!c.out[i].data && shaped.out[i].rank)
            shaped.out[i].data = calloc((size_t)view_count(&shaped.out[i]) + 1, 8);
    shaped.scratch = c.scratch;
    c.op->ref(&shaped);
    for (int i = 0; i < OP_OUT; i++)
        if (!c.out[i].data && shaped.out[i].rank) free(shaped.out[i].data);
    free(c.scratch);
}

static bool row_makes(const struct op *op, const char *gradient) {
    for (int r = 0; r < OP_GRADS && op->grad[r].in; r++)
        if (strstr(op->grad[r].out, gradient)) return true;
    return false;
}
static bool row_uses(const struct op *op, const char *gradient) {
    struct op_arg in[OP_IN];
    for (int r = 0; r < OP_GRADS && op->grad[r].in; r++)
        for (int i = op_args(op->grad[r].in, in); i-- > 0;)
            if (!strcmp(in[i].name, gradient)) return true;
    return false;
}

/* sum over the outputs that have a gradient of output * weight */
static double objective(struct trial *t, struct names *n) {
    struct op_arg out[OP_IN];
    const int outs = op_args(t->call.op->out, out);
    double sum = 0;
    t->call.op->ref(&t->call);
    for (int o = 0; o < outs; o++) {
        char name[28];
        snprintf(name, sizeof name, "d%.23s", out[o].name);
        const struct view *w = names_get(n, name), *v = &t->call.out[o];
        if (!v->rank || (w && w - n->view >= n->given)) continue; /* absent; made by a row */
        for (i64 i = 0; w && i < view_count(v); i++) sum += view_at(v, i) * view_at(w, i);
    }
    return sum;
}

static void check_gradient(struct trial *t, struct names *n, const char *name, int at) {
    char text[28];
    snprintf(text, sizeof text, "d%.23s", name);
    const struct view *got = names_get(n, text);
    struct view *x = &t->call.in[at];
    if (!got || !x->rank || x->dtype != F64) return;
    double top = 1e-3, *want = calloc((size_t)view_count(x) + 1, sizeof *want);
    const i64 step = view_count(x) > 60 ? view_count(x) / 60 : 1;
    for (i64 i = 0; i < view_count(x); i += step) {
        const double keep = view_at(x, i), h = 1e-5;
        view_put(x, i, keep + h);
        const double up = objective(t, n);
        view_put(x, i, keep - h);
        want[i] = (up - objective(t, n)) / (2 * h);
        view_put(x, i, keep);
        top = fmax(top, fabs(want[i]));
    }
    for (i64 i = 0; i < view_count(x); i += step)
        if (!(fabs(view_at(got, i) - want[i]) <= 2e-6 * top)) {
            fprintf(stderr, "%s: d%s[%lld] is %.9g, finite differences say %.9g\n",
                    t->call.op->name, name, (long long)i, view_at(got, i), want[i]);
            fail();
        }
    free(want);
}

static void gradients_of(const struct op *op, const struct sample *s) {
    const bool rooted = op->root.in != NULL;
    if (s->bench || s->no_gradient_check || (!op->grad[0].in && !rooted)) return;
    struct trial t;
    trial_open(&t, op, s, F64, F64);
    t.call.op->ref(&t.call);
    struct names n = {0};
    struct op_arg in[OP_IN], out[OP_IN];
    const int ins = op_args(op->in, in), outs = op_args(op->out, out);
    for (int i = 0; i < ins; i++) names_add(&n, in[i].name, &t.call.in[i], false);
    for (int o = 0; o < outs; o++) {
        /* copies, because finite differences run the reference again */
        struct view *v = names_add(&n, out[o].name, &t.call.out[o], true);
        for (i64 i = 0; v->rank && i < view_count(v); i++)
            view_put(v, i, view_at(&t.call.out[o], i));
    }
    for (int o = 0; o < outs; o++) {
        char name[28];
        snprintf(name, sizeof name, "d%.23s", out[o].name);
        if (!rooted && (!row_uses(op, name) || row_makes(op, name))) continue;
        struct view *v = names_add(&n, name, &t.call.out[o], true);
        const struct rng r = {11, RNG_TEST, 0, (u32)o};
        for (i64 i = 0; i < view_count(v); i++)
            view_put(v, i, 2 * (double)rng_uniform(&r, (u64)i) - 1);
    }
    n.given = n.count;
    if (rooted) {
        struct grad_row row = op->root;
        struct names copy = n;
        row.out = strchr(row.out, ' ') + 1; /* run by hand: out 0 is the loss */
        struct op_call c = {.op = op_find(row.op), .attr = s->attr};
        struct op_arg arg[OP_IN];
        for (int i = op_args(row.in, arg); i-- > 0;) c.in[i] = *names_get(&copy, arg[i].name);
        c.out[0] = *names_add(&n, "loss2", &t.call.out[0], true);
        const int grads = op_args(row.out, arg);
        for (int i = 0; i < grads; i++) {
            const struct view *of = names_get(&n, arg[i].name + 1);
            if (of->rank && !of->packing) /* packed: frozen */
                c.out[i + 1] = *names_add(&n, arg[i].name, of, true);
        }
        struct err e = {0};
        assert_int_equal(op_shape(&c, &e), 0);
        c.op->ref(&c);
    }
    for (int r = 0; r < OP_GRADS && op->grad[r].in; r++) row_run(&op->grad[r], &n, s->attr);
    for (int i = 0; i < ins; i++) check_gradient(&t, &n, in[i].name, i);
    for (int i = 0; i < n.count; i++) {
        bool borrowed = i < ins;
        for (int k = 0; k < i; k++) borrowed |= n.view[k].data == n.view[i].data;
        if (!borrowed) free(n.view[i].data);
    }
    trial_close(&t);
}

static void within_bound(const struct trial *k, const struct trial *ref, const struct op *op,
                         int sample, enum dtype p) {
    struct op_arg arg[OP_IN];
    const int outs = op_args(op->out, arg);
    for (int o = 0; o < outs; o++) {
        const struct view *a = &k->call.out[o], *b = &ref->call.out[o];
        const bool is_bf16 = p == BF16 || a->dtype == BF16;
        const double eps = is_bf16 ? 0x1p-8 : 0x1p-23,
                     bound = is_bf16 ? op->bound.bf16 : op->bound.f32;
        double top = 0;
        for (i64 i = 0; b->rank && i < view_count(b); i++)
            if (fabs(view_at(b, i)) > top && fabs(view_at(b, i)) < 1e30) top = fabs(view_at(b, i));
        for (i64 i = 0; b->rank && i < view_count(b); i++) {
            const double x = view_at(a, i), y = view_at(b, i);
            if (fabs(x - y) <= bound * eps * top || x == y) continue;
            if (y < -1e30 && x < -1e30) continue;
            fprintf(stderr,
                    "%s (%s, %s, sample %d): %s[%lld] is %.9g, the reference says %.9g, off by "
                    "%.3g of the bound\n",
                    op->name, isa_name[isa_now()], dtype_info[p].name, sample, arg[o].name,
                    (long long)i, x, y, fabs(x - y) / (bound * eps * top));
            fail();
        }
    }
}

static bool same_bits(const struct trial *a, const struct trial *b) {
    for (int o = 0; o < OP_OUT; o++)
        if (a->call.out[o].rank &&
            memcmp(a->call.out[o].data, b->call.out[o].data, (size_t)view_bytes(&a->call.out[o])))
            return false;
    return true;
}

static void kernels_of(const struct op *op, const struct sample *s, int index) {
    if (s->bench) return;
    static const int threads[] = {1, 2, 3, 8};
    for (int p = 0; p < 2; p++) {
        const enum dtype precision = p ? BF16 : F32;
        struct trial ref, first = {0};
        trial_open(&ref, op, s, F64, precision);
        op->ref(&ref.call);
        for (int isa = 0; isa <= (int)isa_best(); isa++)
            for (int k = 0; k < COUNT(threads); k++) {
                if (k && isa != (int)isa_best()) continue;
                struct err e = {0};
                isa_force(isa_name[isa], &e);
                pool_stop();
                assert_int_equal(pool_start(threads[k], &e), 0);
                struct trial t;
                trial_open(&t, op, s, precision, precision);
                if (op_run(&t.call, &e)) err_print(&e, stderr);
                assert_int_equal(e.code, 0);
                if (!trial_intact(&t))
                    fprintf(stderr, "%s wrote outside its arguments\n", op->name), fail();
                if (!first.call.op) within_bound(&t, &ref, op, index, precision);
                if (first.call.op && !same_bits(&first, &t)) {
                    fprintf(stderr,
                            "%s (%s, sample %d): %s with %d threads differs from plain C with 1\n",
                            op->name, dtype_info[precision].name, index, isa_name[isa], threads[k]);
                    fail();
                }
                if (first.call.op)
                    trial_close(&t);
                else
                    first = t;
            }
        trial_close(&first), trial_close(&ref);
    }
}

static const char *only; /* an operation's name, or NULL: all */
static bool left_out(const struct op *op) { return only && strcmp(only, op->name) != 0; }

static void test_gradients(void **state) {
    (void)state;
    for (int i = 0; i < op_count; i++) {
        struct sample *s;
        for (int k = 0; !left_out(op_table[i]) && (s = sample_new(op_table[i], k)); k++)
            gradients_of(op_table[i], s), free(s);
    }
}
static void test_kernels(void **state) {
    (void)state;
    for (int i = 0; i < op_count; i++) {
        struct sample *s;
        for (int k = 0; !left_out(op_table[i]) && (s = sample_new(op_table[i], k)); k++)
            kernels_of(op_table[i], s, k), free(s);
    }
}
static void test_table(void **state) {
    (void)state;
    for (int i = 0; i < op_count; i++) {
        const struct op *op = op_table[i];
        assert_non_null(op->ref);
        assert_true(op->sample && op->shape);
        for (int r = 0; r < OP_GRADS && op->grad[r].in; r++)
            assert_true(!op->grad[r].op || op_find(op->grad[r].op));
        assert_true(!op->root.op || op_find(op->root.op));
    }
}

/* With an argument: that operation alone. */
int main(int argc, char **argv) {
    isa_float_mode();
    only = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table),
                                       cmocka_unit_test(test_gradients),
                                       cmocka_unit_test(test_kernels)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
