/* test_optimizer.c: AdamW against torch's (golden/optim, see SOURCES.adamw), clipping, the bf16
 * weight as its master rounded, the tree over reduction groups, and gradients that are not finite.
 */
#include "tests/tiny.h"

#include <math.h>
#include <string.h>

enum { PARAMS = 3, STEPS = 6 };
static const char *const names[PARAMS] = {"mat", "vec", "cube"};

struct fixture { /* three parameters without a model around them */
    struct param param[PARAMS], *list[PARAMS];
    struct model model;
    struct optimizer o;
};

static const struct stored *tensor(const struct safetensors *s, const char *prefix,
                                   const char *name) {
    char text[64];
    struct err e = {0};
    snprintf(text, sizeof text, "%s.%s", prefix, name);
    const struct stored *t = safetensors_need(s, text, &e);
    tiny_fail_unless(!t, &e);
    return t;
}

static void fixture_open(struct fixture *f, const struct safetensors *inputs, enum dtype d,
                         const struct recipe *r) {
    struct err e = {0};
    *f = (struct fixture){.model = {.param = f->list, .params = PARAMS}};
    for (int i = 0; i < PARAMS; i++) {
        const struct stored *t = tensor(inputs, "p0", names[i]);
        struct param *p = f->list[i] = &f->param[i];
        *p = (struct param){.name = names[i], .trainable = true, .decay = true};
        p->view = (struct view){.dtype = d, .rank = t->rank};
        memcpy(p->view.dim, t->dim, sizeof p->view.dim);
        assert_non_null(p->view.data = mem_new(view_bytes(&p->view), &e));
        for (i64 k = 0; k < t->bytes / 4; k++) {
            const float x = ((const float *)t->data)[k];
            if (d == F32)
                ((float *)p->view.data)[k] = x;
            else
                ((u16 *)p->view.data)[k] = bf16_of_f32(x);
        }
    }
    tiny_fail_unless(optimizer_new(&f->o, &f->model, r, &e), &e);
    for (int i = 0; i < PARAMS; i++)
        assert_non_null(f->o.of[i].grad[0] = mem_new_array(f->o.of[i].count, 4, &e));
}

static void fixture_close(struct fixture *f) {
    optimizer_free(&f->o);
    for (int i = 0; i < PARAMS; i++) mem_free(f->param[i].view.data);
}

static void gradients_set(struct fixture *f, const struct safetensors *inputs, i64 step) {
    for (int i = 0; i < PARAMS; i++) {
        const struct stored *t = tensor(inputs, "grads", names[i]);
        memcpy(f->o.of[i].grad[0], t->data + step * f->o.of[i].count * 4,
               (size_t)f->o.of[i].count * 4);
    }
}

/* `step`: the most that one update moves an element; near zero that is what rounding is
 * relative to. */
static void near(const char *what, const struct stored *want, const float *got, double step) {
    for (i64 i = 0; i < want->bytes / 4; i++) {
        const double x = (double)got[i], y = (double)((const float *)want->data)[i];
        if (!(fabs(x - y) <= 1e-6 * (fabs(y) + step)))
            fail_msg("%s: %s[%lld] is %.9g, torch %.9g", what, want->name, (long long)i, x, y);
    }
}

static void open_golden(struct safetensors *s, const char *name) {
    char path[128];
    struct err e = {0};
    snprintf(path, sizeof path, "tests/golden/optim/%s.safetensors", name);
    tiny_fail_unless(safetensors_open(s, path, &e), &e);
}

static const double norms[STEPS] = {0.013772892765700817, 0.06674544513225555, 0.3668999969959259,
                                    1.6564035415649414,   8.25637435913086,    45.17331314086914};
static const struct {
    const char *name;
    double beta2, decay, clip;
} goldens[] = {
    {"adamw", 0.999, 0, 0}, {"adamw_decay", 0.95, 0.1, 0}, {"adamw_decay_clip", 0.95, 0.1, 1}};

static void test_goldens(void **state) {
    (void)state;
    struct safetensors inputs, want;
    struct err e = {0};
    open_golden(&inputs, "inputs");
    for (i64 k = 0; k < COUNT(goldens); k++) {
        struct fixture f;
        const struct recipe r = {.adam_beta1 = 0.9,
                                 .adam_beta2 = goldens[k].beta2,
                                 .adam_epsilon = 1e-8,
                                 .weight_decay = goldens[k].decay,
                                 .max_grad_norm = goldens[k].clip};
        fixture_open(&f, &inputs, F32, &r);
        open_golden(&want, goldens[k].name);
        for (i64 step = 0; step < STEPS; step++) {
            double norm;
            gradients_set(&f, &inputs, step);
            tiny_fail_unless(optimizer_update(&f.o, 1, 0.01, &norm, &e), &e);
            assert_true(fabs(norm - norms[step]) <= 1e-6 * norms[step]);
            const char after[] = {'p', (char)('1' + step), 0};
            for (int i = 0; i < PARAMS; i++)
                near(goldens[k].name, tensor(&want, after, names[i]), f.o.of[i].master, 0.01);
        }
        for (int i = 0; i < PARAMS; i++) {
            near(goldens[k].name, tensor(&want, "state.exp_avg", names[i]), f.o.of[i].m, 0.01);
            near(goldens[k].name, tensor(&want, "state.exp_avg_sq", names[i]), f.o.of[i].v, 0);
        }
        safetensors_close(&want), fixture_close(&f);
    }
    safetensors_close(&inputs);
}

/* In bf16 the master moves as if it were alone, and the weight is the master rounded. */
static void test_bf16_masters(void **state) {
    (void)state;
    struct safetensors inputs;
    struct fixture f;
    struct err e = {0};
    const struct recipe r = {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8};
    open_golden(&inputs, "inputs");
    fixture_open(&f, &inputs, BF16, &r);
    for (i64 step = 0; step < STEPS; step++) {
        double norm;
        gradients_set(&f, &inputs, step);
        tiny_fail_unless(optimizer_update(&f.o, 1, 1e-5, &norm, &e), &e);
    }
    i64 between = 0; /* steps that small are lost without masters */
    for (int i = 0; i < PARAMS; i++)
        for (i64 k = 0; k < f.o.of[i].count; k++) {
            const float master = f.o.of[i].master[k];
            const u16 weight = ((u16 *)f.param[i].view.data)[k];
            assert_int_equal(weight, bf16_of_f32(master));
            between += bf16_to_f32(weight) != master;
        }
    assert_true(between > 100);
    fixture_close(&f), safetensors_close(&inputs);
}

/* NUMERICS.md 6: groups are added by a binary tree over their index, whatever came before. */
static void test_group_tree(void **state) {
    (void)state;
    struct safetensors inputs;
    struct err e = {0};
    const struct recipe r = {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8};
    const struct rng rng = {3, RNG_TEST, 0, 0};
    open_golden(&inputs, "inputs");
    struct fixture f;
    fixture_open(&f, &inputs, F32, &r);
    for (i64 groups = 2; groups <= 16; groups *= 2)
        for (int again = 0; again < 2; again++) {
            float part[16][128];
            double norm;
            for (i64 g = 0; g < groups; g++) {
                optimizer_zero(&f.o);
                for (i64 k = 0; k < f.o.of[0].count; k++)
                    f.o.of[0].grad[0][k] = part[g][k] =
                        rng_normal(&rng, (u64)((again * 16 + g) * 128 + k)) * (float)(1 << g);
                tiny_fail_unless(optimizer_group_done(&f.o, g, &e), &e);
            }
            tiny_fail_unless(optimizer_update(&f.o, groups, 1e-3, &norm, &e), &e);
            for (i64 n = groups; n > 1; n /= 2)
                for (i64 g = 0; g < n / 2; g++)
                    for (i64 k = 0; k < f.o.of[0].count; k++)
                        part[g][k] = part[2 * g][k] + part[2 * g + 1][k];
            assert_memory_equal(f.o.of[0].grad[0], part[0], (size_t)f.o.of[0].count * 4);
        }
    fixture_close(&f), safetensors_close(&inputs);
}

static void test_not_finite(void **state) {
    (void)state;
    struct safetensors inputs;
    struct fixture f;
    struct err e = {0};
    const struct recipe r = {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8};
    open_golden(&inputs, "inputs");
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (i64 i = 0; i < COUNT(bad); i++) {
        char before[65], after[65];
        double norm;
        fixture_open(&f, &inputs, F32, &r);
        gradients_set(&f, &inputs, 0);
        f.o.of[1].grad[0][28] = bad[i];
        tiny_fail_unless(optimizer_digest(&f.o, before, &e), &e);
        assert_int_equal(optimizer_update(&f.o, 1, 0.01, &norm, &e), -1);
        assert_string_equal(e.primary, "the gradient norm is not finite at step 1");
        e = (struct err){0};
        tiny_fail_unless(optimizer_digest(&f.o, after, &e), &e);
        assert_string_equal(before, after); /* nothing was touched */
        fixture_close(&f);
    }
    safetensors_close(&inputs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens), cmocka_unit_test(test_bf16_masters),
        cmocka_unit_test(test_group_tree), cmocka_unit_test(test_not_finite)};
    return cmocka_run_group_tests(tests, tiny_open, tiny_close);
}
