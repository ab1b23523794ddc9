/* test_optimizer.c: optimizers and clipping against torch.optim and formulas (golden/optim),
 * masters of bf16 parameters and stochastic rounding in their place, the tree over reduction
 * groups, and what must stop an update. */
#include "train/loop/loop.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define FOLDER "tests/golden/optim/"
enum { TENSORS = 3, STEPS = 6, LARGEST = 128 };
static const char *const names[TENSORS] = {"mat", "vec", "cube"};

/* Three parameters, and as many accumulators as a graph would have after its backward pass. */
struct bed {
    struct param param[TENSORS];
    struct param *list[TENSORS];
    struct model model;
    struct tensor slot[TENSORS][SLOT_USES];
    struct tensor *slots[TENSORS * SLOT_USES];
    struct graph graph;
    struct optimizer optimizer;
    float f32[TENSORS][LARGEST];
    u16 bf16[TENSORS][LARGEST];
};

static void bed_open(struct bed *b, const struct recipe *r, const struct safetensors *inputs,
                     enum dtype d, int uses) {
    struct err e = {0};
    *b = (struct bed){0};
    for (int i = 0; i < TENSORS; i++) {
        char name[64];
        snprintf(name, sizeof name, "p0.%s", names[i]);
        const struct stored *s = safetensors_need(inputs, name, &e);
        assert_non_null(s);
        assert_true(s->bytes <= (i64)sizeof b->f32[i]);
        memcpy(b->f32[i], s->data, (size_t)s->bytes);
        for (i64 k = 0; k < s->bytes / 4; k++) b->bf16[i][k] = bf16_of_f32(b->f32[i][k]);
        b->param[i] = (struct param){.name = names[i], .trainable = true, .decay = true};
        b->param[i].view = (struct view){.dtype = d, .rank = s->rank};
        memcpy(b->param[i].view.dim, s->dim, sizeof *s->dim * (size_t)s->rank);
        b->param[i].view.data = d == F32 ? (void *)b->f32[i] : (void *)b->bf16[i];
        b->list[i] = &b->param[i];
        for (int u = 0; u < uses; u++) {
            struct tensor *t = b->slots[b->graph.tensors++] = &b->slot[i][u];
            *t = (struct tensor){.kind = TENSOR_SLOT, .name = names[i], .key = b->list[i]};
            t->view = b->param[i].view, t->view.dtype = F32, t->view.data = NULL, t->use = u;
        }
    }
    b->model = (struct model){.weights = {.param = b->list, .params = TENSORS}};
    b->graph.tensor = b->slots;
    assert_int_equal(optimizer_new(&b->optimizer, &b->model, r, &e), 0);
    assert_int_equal(optimizer_bind(&b->optimizer, &b->graph, &e), 0);
}

static i64 size_of(const struct bed *b, int i) { return view_count(&b->param[i].view); }

/* What a backward pass does: adds to whatever memory the accumulators were bound to. */
static void add_gradient(struct bed *b, int i, int use, const float *from, float factor) {
    float *to = b->slot[i][use].view.data;
    for (i64 k = 0; k < size_of(b, i); k++) to[k] += factor * from[k];
}

/* The recipe of a golden: `from` says which optimizer, what `optim_args` may say comes that way. */
static struct recipe recipe_of(const json_t *golden) {
    static const char *const from[][2] = {{"torch.optim.AdamW", "adamw"},
                                          {"torch.optim.Adam", "adam"},
                                          {"torch.optim.SGD", "sgd"},
                                          {"torch.optim.Adagrad", "adagrad"},
                                          {"torch.optim.RMSprop", "rmsprop"},
                                          {"formula Lion", "lion"},
                                          {"transformers.Adafactor", "adafactor"},
                                          {"torch.optim.Adafactor", "adafactor_torch"},
                                          {"torch.optim.Muon", "muon"}};
    static char text[8][64];
    static char *items[8];
    const json_t *args = json_object_get(golden, "args"), *betas = json_object_get(args, "betas");
    struct recipe r = {
        .learning_rate = json_number_value(json_object_get(args, "lr")),
        .adam_beta1 = json_number_value(json_array_get(betas, 0)),
        .adam_beta2 = json_number_value(json_array_get(betas, 1)),
        .adam_epsilon = json_number_value(json_object_get(args, "eps")),
        .weight_decay = json_number_value(json_object_get(args, "weight_decay")),
        .max_grad_norm = json_number_value(json_object_get(golden, "clip_grad_norm")),
        .max_grad_value = json_number_value(json_object_get(golden, "clip_grad_value")),
        .master_weights = true,
        .optim_args = {items, 0}};
    for (int i = 0; i < COUNT(from); i++)
        if (!strcmp(from[i][0], json_string_value(json_object_get(golden, "from"))))
            r.optim = from[i][1];
    assert_non_null(r.optim);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)args, key, value) {
        if (!option_find(optim_find(r.optim)->args, key)) continue;
        char *to = items[r.optim_args.count] = text[r.optim_args.count];
        if (json_is_boolean(value))
            snprintf(to, sizeof *text, "%s=%d", key, json_is_true(value));
        else
            snprintf(to, sizeof *text, "%s=%.17g", key, json_number_value(value));
        r.optim_args.count++;
    }
    struct err e = {0};
    if (recipe_optim(&r, "golden", &e)) fail_msg("%s", e.primary);
    return r;
}

static void compare(const struct safetensors *s, const char *prefix, int i, const float *found,
                    const char *what) {
    const float most = strstr(what, "muon")        ? 1e-2f /* torch's iterates in bf16 */
                       : strstr(what, "adafactor") ? 1e-5f
                                                   : 1e-6f;
    char name[64];
    struct err e = {0};
    snprintf(name, sizeof name, "%s.%s", prefix, names[i]);
    const struct stored *want = safetensors_need(s, name, &e);
    assert_non_null(want);
    const float *w = (const float *)want->data;
    float top = 0;
    for (i64 k = 0; k < want->bytes / 4; k++) top = fmaxf(top, fabsf(w[k]));
    for (i64 k = 0; k < want->bytes / 4; k++) /* the second term is for sums that cancel */
        if (!(fabsf(found[k] - w[k]) <= most * fabsf(w[k]) + most / 10 * top))
            fail_msg("%s, %s[%lld]: %.9g, expected %.9g", what, name, (long long)k,
                     (double)found[k], (double)w[k]);
}

static const float *gradient_at(const struct safetensors *inputs, int i, int step) {
    char name[64];
    struct err e = {0};
    snprintf(name, sizeof name, "grads.%s", names[i]);
    const struct stored *s = safetensors_need(inputs, name, &e);
    assert_non_null(s);
    return (const float *)s->data + step * (s->bytes / 4 / STEPS);
}

/* `d` BF16: masters start from the rounded parameter, so only their agreement is checked. */
static void trajectory(const struct safetensors *inputs, const json_t *optimisers, const char *name,
                       enum dtype d) {
    char path[96], prefix[32];
    struct err e = {0};
    struct safetensors want;
    snprintf(path, sizeof path, FOLDER "%s.safetensors", name);
    assert_int_equal(safetensors_open(&want, path, &e), 0);
    const json_t *golden = json_object_get(optimisers, name),
                 *norms = json_object_get(golden, "total_norms_before_clip");
    const int tensors = (int)json_array_size(json_object_get(golden, "parameters"));
    struct recipe r = recipe_of(golden);
    struct bed b;
    bed_open(&b, &r, inputs, d, 1);
    for (int step = 0; step < STEPS; step++) {
        double norm;
        optimizer_zero(&b.optimizer, NULL);
        for (int i = 0; i < TENSORS; i++) add_gradient(&b, i, 0, gradient_at(inputs, i, step), 1);
        assert_int_equal(optimizer_update(&b.optimizer, 1, r.learning_rate, &norm, &e), 0);
        if (norms) {
            const double w = json_number_value(json_array_get(norms, (size_t)step));
            assert_true(fabs(norm - w) <= 1e-6 * w);
        }
        snprintf(prefix, sizeof prefix, "p%d", step + 1);
        for (int i = 0; i < TENSORS; i++) {
            if (d == F32 && i < tensors) compare(&want, prefix, i, b.f32[i], name);
            for (i64 k = 0; d == BF16 && k < size_of(&b, i); k++)
                assert_int_equal(b.bf16[i][k], bf16_of_f32(b.optimizer.of[i].master[k]));
        }
    }
    static const struct {
        const char *name;
        int part;
    } states[] = {{"exp_avg", STATE_M},
                  {"momentum_buffer", STATE_M},
                  {"exp_avg_sq", STATE_V},
                  {"square_avg", STATE_V},
                  {"sum", STATE_V},
                  {"variance", STATE_V},
                  {"exp_avg_sq_row", STATE_ROW},
                  {"exp_avg_sq_col", STATE_COL},
                  {"row_var", STATE_ROW},
                  {"col_var", STATE_COL},
                  {"max_exp_avg_sq", STATE_EXTRA}};
    for (int i = 0; i < TENSORS * COUNT(states); i++) {
        char key[64];
        snprintf(prefix, sizeof prefix, "state.%s", states[i / TENSORS].name);
        snprintf(key, sizeof key, "%s.%s", prefix, names[i % TENSORS]);
        if (safetensors_find(&want, key) && d == F32)
            compare(&want, prefix, i % TENSORS,
                    b.optimizer.of[i % TENSORS].state[states[i / TENSORS].part].data, name);
    }
    optimizer_free(&b.optimizer), arena_free(&r.arena);
    safetensors_close(&want);
}

static struct safetensors inputs;

static void test_goldens(void **state) {
    (void)state;
    struct err e = {0};
    json_t *j = json_open(FOLDER "optim.json", &e);
    assert_non_null(j);
    const char *name;
    json_t *optimisers = json_object_get(j, "optimisers"), *golden;
    int count = 0;
    json_object_foreach(optimisers, name, golden) {
        trajectory(&inputs, optimisers, name, F32);
        trajectory(&inputs, optimisers, name, BF16);
        count++;
    }
    assert_int_equal(count, 20);
    json_decref(j);
}

static const struct recipe plain = {.adam_beta1 = 0.9,
                                    .adam_beta2 = 0.95,
                                    .adam_epsilon = 1e-8,
                                    .weight_decay = 0.1,
                                    .max_grad_norm = 1,
                                    .master_weights = true};

static float noise(int step, int group, int use, int i, i64 k) {
    const struct rng r = {7, RNG_TEST, (u32)step, (u32)(group * 16 + use * 4 + i)};
    return rng_normal(&r, (u64)k);
}
static float tree(int step, int group, int groups, int use, int i, i64 k) {
    if (groups == 1) return noise(step, group, use, i, k);
    return tree(step, group, groups / 2, use, i, k) +
           tree(step, group + groups / 2, groups / 2, use, i, k);
}

/* `groups` groups whose accumulators are written where they were bound once, over several steps,
 * equal one group that is handed the binary tree's sums. */
static void check_groups(int groups, int uses) {
    struct bed a, b;
    struct err e = {0};
    float g[LARGEST];
    double norm_a, norm_b;
    char digest_a[65], digest_b[65];
    bed_open(&a, &plain, &inputs, F32, uses), bed_open(&b, &plain, &inputs, F32, uses);
    for (int step = 0; step < 3; step++) {
        for (int group = 0; group < groups; group++) {
            optimizer_zero(&a.optimizer, NULL);
            for (int n = 0; n < TENSORS * uses; n++) {
                for (i64 k = 0; k < size_of(&a, n / uses); k++)
                    g[k] = noise(step, group, n % uses, n / uses, k);
                add_gradient(&a, n / uses, n % uses, g, 1);
            }
            if (groups > 1) assert_int_equal(optimizer_group_done(&a.optimizer, group, &e), 0);
        }
        optimizer_zero(&b.optimizer, NULL);
        for (int n = 0; n < TENSORS * uses; n++) {
            for (i64 k = 0; k < size_of(&b, n / uses); k++)
                g[k] = tree(step, 0, groups, n % uses, n / uses, k);
            add_gradient(&b, n / uses, n % uses, g, 1);
        }
        assert_int_equal(optimizer_update(&a.optimizer, groups, 1e-2, &norm_a, &e), 0);
        assert_int_equal(optimizer_update(&b.optimizer, 1, 1e-2, &norm_b, &e), 0);
        assert_true(norm_a == norm_b);
        assert_int_equal(optimizer_digest(&a.optimizer, DIGEST_VERSION, digest_a, &e), 0);
        assert_int_equal(optimizer_digest(&b.optimizer, DIGEST_VERSION, digest_b, &e), 0);
        assert_string_equal(digest_a, digest_b);
    }
    optimizer_free(&a.optimizer), optimizer_free(&b.optimizer);
}
static void test_groups(void **state) {
    (void)state;
    for (int groups = 1; groups <= 16; groups *= 2)
        for (int uses = 1; uses <= 2; uses++) check_groups(groups, uses);
}

static void test_most_groups(void **state) { /* as many as a recipe may ask for */
    (void)state;
    const i64 groups = (i64)option_find(recipe_options, "reduction_groups")->max;
    struct bed b;
    struct err e = {0};
    double norm;
    float one[LARGEST];
    for (int k = 0; k < LARGEST; k++) one[k] = 1;
    bed_open(&b, &plain, &inputs, F32, 1);
    for (i64 group = 0; group < groups; group++) {
        optimizer_zero(&b.optimizer, NULL);
        add_gradient(&b, 1, 0, one, 1);
        assert_int_equal(optimizer_group_done(&b.optimizer, group, &e), 0);
    }
    assert_int_equal(optimizer_update(&b.optimizer, groups, 1e-2, &norm, &e), 0);
    assert_true(norm == (double)groups * sqrt((double)size_of(&b, 1)));
    optimizer_free(&b.optimizer);
}

static void test_not_finite(void **state) {
    (void)state;
    struct bed b;
    struct err e = {0};
    double norm;
    char before[65], after[65];
    float bad[LARGEST] = {[3] = NAN};
    bed_open(&b, &plain, &inputs, BF16, 1);
    assert_int_equal(optimizer_digest(&b.optimizer, DIGEST_VERSION, before, &e), 0);
    add_gradient(&b, 1, 0, bad, 1);
    assert_int_equal(optimizer_update(&b.optimizer, 1, 1e-2, &norm, &e), -1);
    assert_string_equal(e.primary, "the gradient norm is not finite at step 1");
    assert_int_equal(e.code, ERR_FAILED);
    e = (struct err){0};
    assert_int_equal(optimizer_digest(&b.optimizer, DIGEST_VERSION, after, &e), 0);
    assert_string_equal(before, after);
    optimizer_free(&b.optimizer);
}

static void update_by_noise(struct bed *b, int step) {
    struct err e = {0};
    float g[LARGEST];
    double norm;
    optimizer_zero(&b->optimizer, NULL);
    for (int i = 0; i < TENSORS; i++) {
        for (i64 k = 0; k < size_of(b, i); k++) g[k] = noise(step, 0, 0, i, k);
        add_gradient(b, i, 0, g, 1);
    }
    assert_int_equal(optimizer_update(&b->optimizer, 1, 1e-2, &norm, &e), 0);
}

static i64 bytes_of(bool masters) {
    struct bed b;
    struct recipe r = plain;
    r.master_weights = masters;
    bed_open(&b, &r, &inputs, BF16, 1);
    const i64 bytes = optimizer_bytes(&b.optimizer);
    optimizer_free(&b.optimizer);
    return bytes;
}
static i64 elements(void) {
    struct bed b;
    i64 count = 0;
    bed_open(&b, &plain, &inputs, BF16, 1);
    for (int i = 0; i < TENSORS; i++) count += size_of(&b, i);
    optimizer_free(&b.optimizer);
    return count;
}

static void check_state(enum dtype d, bool masters) {
    struct bed a, b;
    struct recipe r = plain;
    r.master_weights = masters;
    struct err e = {0};
    char path[64], digest_a[65], digest_b[65];
    snprintf(path, sizeof path, "/tmp/hone-optimizer-%ld.h5", (long)getpid());
    bed_open(&a, &r, &inputs, d, 1), bed_open(&b, &r, &inputs, d, 1);
    update_by_noise(&a, 0), update_by_noise(&a, 1);
    struct state_writer *w = state_create(path, &e);
    assert_non_null(w);
    assert_int_equal(optimizer_save(&a.optimizer, w, &e), 0);
    assert_int_equal(state_finish(w, true, &e), 0);
    struct state_reader *from = state_open(path, &e);
    assert_non_null(from);
    assert_int_equal(optimizer_load(&b.optimizer, from, &e), 0);
    state_close(from);
    memcpy(b.f32, a.f32, sizeof b.f32); /* weights come from the weight file */
    if (!masters) memcpy(b.bf16, a.bf16, sizeof b.bf16);
    update_by_noise(&a, 2), update_by_noise(&b, 2);
    assert_int_equal(optimizer_digest(&a.optimizer, DIGEST_VERSION, digest_a, &e), 0);
    assert_int_equal(optimizer_digest(&b.optimizer, DIGEST_VERSION, digest_b, &e), 0);
    assert_string_equal(digest_a, digest_b);
    assert_int_equal(unlink(path), 0);
    if (!masters) { /* the parameter itself is in the digest */
        b.bf16[1][0] ^= 1;
        assert_int_equal(optimizer_digest(&b.optimizer, DIGEST_VERSION, digest_b, &e), 0);
        assert_string_not_equal(digest_a, digest_b);
    }
    optimizer_free(&a.optimizer), optimizer_free(&b.optimizer);
}
static void test_state(void **state) {
    (void)state;
    check_state(F32, true), check_state(BF16, true), check_state(BF16, false);
    assert_int_equal(bytes_of(true) - bytes_of(false), 4 * elements());
}

/* ---- bf16 parameters without masters */

enum { MANY = 65536 + 12 };
static float grad[MANY], first[MANY], second[MANY];
static u16 weight[MANY];

/* An update of MANY equal weights by -rate * sign, rounded at random: beta 0 makes it the sign. */
static void update_at_random(u64 seed, u32 stream, i32 step, float rate) {
    const struct update_attr attr = {
        .beta1 = 0, .beta2 = 0, .eps = 0, .seed = seed, .stream = stream};
    float hyper[HYPER] = {1, 1, rate, 1, 0, INFINITY};
    struct err e = {0};
    const struct view f = {.dtype = F32, .rank = 1, .dim = {MANY}};
    struct op_call c = {.op = &op_update, .attr = &attr, .in = {f}, .out = {{0}, f, f, f}};
    c.in[0].data = grad, c.out[1].data = first, c.out[2].data = second, c.out[3].data = weight;
    c.in[1] = (struct view){.data = hyper, .dtype = F32, .rank = 1, .dim = {HYPER}};
    c.in[2] = (struct view){.data = &step, .dtype = I32, .rank = 1, .dim = {1}};
    c.out[3].dtype = BF16;
    assert_int_equal(op_shape(&c, &e), 0);
    assert_int_equal(op_run(&c, &e), 0);
}
static void weights_set(float w) {
    for (int i = 0; i < MANY; i++) weight[i] = bf16_of_f32(w), grad[i] = 1;
}
static double weights_mean(void) {
    double sum = 0;
    for (int i = 0; i < MANY; i++) sum += (double)bf16_to_f32(weight[i]);
    return sum / MANY;
}

/* Each rounding is the one that update.c defines, by words taken from the generator itself. */
static void test_rounding_bits(void **state) {
    (void)state;
    const u64 seed = 0x123456789abcdefull;
    const float rate = 0.37f * 0x1p-7f, w = -1.5f - rate;
    const u32 key[2] = {(u32)seed, (u32)(seed >> 32)};
    u32 bits, word[4];
    memcpy(&bits, &w, 4);
    weights_set(-1.5f);
    weight[5] = 0xff80, weight[6] = 0x7fc1; /* -infinity and NaN */
    update_at_random(seed, 9, 77, rate);
    for (u32 i = 0; i < MANY; i++) {
        const u32 counter[4] = {i / 4, 0, 9, (u32)RNG_ROUND << 26 | 77};
        philox(key, counter, word);
        const u16 want = (u16)((bits + (word[i % 4] >> 16)) >> 16);
        if (i == 6)
            assert_true((weight[i] & 0x7fff) > 0x7f80);
        else
            assert_int_equal(weight[i], i == 5 ? 0xff80 : want);
    }
}

/* Within 3 sigma of the exact mean, whatever part of an ulp the update is; a share of 1 - p of the
 * weights takes the one neighbour and p the other, so sigma is ulp * sqrt(p (1 - p) / MANY). */
static void test_rounding_is_unbiased(void **state) {
    (void)state;
    static const double part[] = {0.5, 0.25, 0.01, 0.93, 0.3333, 1.0 / 4096};
    for (int i = 0; i < COUNT(part); i++)
        for (int negative = 0; negative < 2; negative++) {
            const float ulp = 0x1p-7f, rate = (float)part[i] * ulp, w = negative ? -1.5f : 1.5f;
            const double p = part[i], sigma = (double)ulp * sqrt(p * (1 - p) / MANY);
            weights_set(w);
            update_at_random(42, (u32)i, negative, rate);
            assert_true(fabs(weights_mean() - ((double)w - (double)rate)) <= 3 * sigma);
        }
}

/* 500 updates of 1/1000 ulp, each of which rounding to nearest would lose, move the mean by half an
 * ulp; their variances add up. */
static void test_small_updates_count(void **state) {
    (void)state;
    const float ulp = 0x1p-7f;
    const double sigma = (double)ulp * sqrt(500 * 0.001 / MANY);
    weights_set(1.5f);
    for (i32 step = 0; step < 500; step++) update_at_random(42, 0, step, 0.001f * ulp);
    assert_true(fabs(weights_mean() - (1.5 - 0.5 * (double)ulp)) <= 3 * sigma);
}

static void test_too_many_uses(void **state) {
    (void)state;
    struct bed b;
    struct err e = {0};
    bed_open(&b, &plain, &inputs, F32, 1);
    b.slot[0][0].use = SLOT_USES;
    assert_int_equal(optimizer_bind(&b.optimizer, &b.graph, &e), -1);
    assert_string_equal(e.primary, "parameter mat is used more than 4 times");
    optimizer_free(&b.optimizer);
}

static int setup(void **state) {
    (void)state;
    struct err e = {0};
    isa_float_mode();
    return pool_start(1, &e) || safetensors_open(&inputs, FOLDER "inputs.safetensors", &e);
}
static int teardown(void **state) {
    (void)state;
    safetensors_close(&inputs);
    pool_stop();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens),
                                       cmocka_unit_test(test_groups),
                                       cmocka_unit_test(test_most_groups),
                                       cmocka_unit_test(test_not_finite),
                                       cmocka_unit_test(test_state),
                                       cmocka_unit_test(test_too_many_uses),
                                       cmocka_unit_test(test_rounding_bits),
                                       cmocka_unit_test(test_rounding_is_unbiased),
                                       cmocka_unit_test(test_small_updates_count)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
