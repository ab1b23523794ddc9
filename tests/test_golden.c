/* test_golden.c: transformers' and PEFT's own numbers for tiny Llama and OLMo 2 models
 * (golden/models): logits, a long row, loss, every gradient, greedy ids, adapters, and losses after
 * AdamW steps, within the tolerances of each golden.json. The first part is what `hone forward`
 * writes; the second drives graph and optimizer. */
#include "train/train.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FOLDER "tests/golden/models/"
static const char *const models[] = {"llama", "llama_rope3_tied", "olmo2"};
struct globals globals;
static char scratch[64];

/* ---- comparing ---- */

struct golden {
    struct safetensors want;
    json_t *json;
};
static struct golden golden_open(const char *model, const char *file) {
    struct golden g;
    struct err e = {0};
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s/%s", model, file);
    if (safetensors_open(&g.want, path, &e)) fail_msg("%s", e.primary);
    snprintf(path, sizeof path, FOLDER "%s/golden.json", model);
    assert_non_null(g.json = json_open(path, &e));
    return g;
}
static void golden_close(struct golden *g) { safetensors_close(&g->want), json_decref(g->json); }
static double tolerance(const struct golden *g, const char *key) {
    return json_number_value(json_object_get(json_object_get(g->json, "tolerances"), key));
}
static const struct stored *need(const struct safetensors *s, const char *name) {
    struct err e = {0};
    const struct stored *t = safetensors_need(s, name, &e);
    if (!t) fail_msg("%s", e.primary);
    return t;
}
static double at(const struct stored *s, i64 i) {
    assert_int_equal(s->dtype, F32);
    return (double)((const float *)s->data)[i];
}

/* Largest difference of the last numbers of `found`; `relative`: to the largest wanted one. */
static double distance(const struct stored *found, const struct stored *want, bool relative) {
    double worst = 0, top = 1e-30;
    const i64 count = want->bytes / 4, skip = found->bytes / 4 - count;
    assert_true(skip >= 0);
    for (i64 i = 0; i < count; i++) {
        const double d = fabs(at(found, skip + i) - at(want, i));
        if (!(d <= worst)) worst = d;
        top = fmax(top, fabs(at(want, i)));
    }
    return relative ? worst / top : worst;
}
static void compare(const struct golden *g, const struct safetensors *found, const char *name,
                    const char *wanted, const char *key, const char *what) {
    const double d = distance(need(found, name), need(&g->want, wanted), !strncmp(name, "grad", 4));
    if (!(d <= tolerance(g, key)))
        fail_msg("%s: %s is off by %g; allowed %g", what, wanted, d, tolerance(g, key));
}

/* ---- hone forward ---- */

static void forward(struct safetensors *out, const char *model, const char *ids,
                    const char *flags) {
    char command[1024], path[128];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/out.safetensors", scratch);
    snprintf(command, sizeof command, "./hone forward %s --ids %s --out %s %s --threads 2", model,
             ids, path, flags);
    if (system(command)) fail_msg("failed: %s", command);
    if (safetensors_open(out, path, &e)) fail_msg("%s", e.primary);
}

static void check_gradients(const struct golden *g, const struct safetensors *out,
                            const char *what) {
    i64 wanted = 0, found = 0;
    for (i64 i = 0; i < g->want.count; i++) {
        const char *name = g->want.tensor[i].name;
        if (strncmp(name, "grad.", 5)) continue;
        assert_int_equal(need(out, name)->bytes, g->want.tensor[i].bytes);
        compare(g, out, name, name, "grad_rel_to_tensor_max", what), wanted++;
    }
    for (i64 i = 0; i < out->count; i++) found += !strncmp(out->tensor[i].name, "grad.", 5);
    assert_int_equal(found, wanted);
    assert_true(wanted > 0);
}

static void check_greedy(const struct golden *g, const struct safetensors *out) {
    const struct stored *found = need(out, "generated"), *want = need(&g->want, "greedy_ids");
    assert_int_equal(found->bytes, want->bytes);
    assert_memory_equal(found->data, want->data, (size_t)want->bytes);
}

static void check_long(const struct golden *g, const char *folder) {
    char path[128];
    struct err e = {0};
    struct safetensors out;
    struct stored row = *need(&g->want, "long_input_ids");
    row.name = "input_ids";
    assert_int_equal(safetensors_write(scratch, "long", &row, 1, INT64_MAX, &e), 0);
    snprintf(path, sizeof path, "%s/long.safetensors", scratch);
    forward(&out, folder, path, "");
    compare(g, &out, "logits", "long_logits", "long_logits_abs", folder);
    compare(g, &out, "loss", "long_loss", "loss_abs", folder);
    safetensors_close(&out);
}

static void check_model(const char *model, const char *config, const char *flags) {
    struct golden g = golden_open(model, "golden.safetensors");
    struct safetensors out;
    char folder[128], command[512], ids[128], all[128];
    snprintf(folder, sizeof folder, "%s/%s", scratch, model);
    snprintf(command, sizeof command,
             "mkdir -p %s && cp " FOLDER "%s/%s %s/config.json && cp " FOLDER
             "%s/model.safetensors %s",
             folder, model, config, folder, model, folder);
    assert_int_equal(system(command), 0);
    snprintf(ids, sizeof ids, FOLDER "%s/golden.safetensors", model);
    snprintf(all, sizeof all, "--grad --generate 12 %s", flags);
    forward(&out, folder, ids, all);
    compare(&g, &out, "logits", "logits", "logits_abs", config);
    compare(&g, &out, "loss", "loss", "loss_abs", config);
    check_gradients(&g, &out, config);
    check_greedy(&g, &out);
    safetensors_close(&out);
    check_long(&g, folder);
    golden_close(&g);
}

static void test_models(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(models); i++) {
        check_model(models[i], "config.json", "");
        check_model(models[i], "config_v5.json", "--isa plain --eager");
    }
}

static void check_adapter(const char *model, const char *adapter) {
    char file[128], folder[128], ids[128], flags[160];
    struct safetensors out;
    snprintf(file, sizeof file, "%s/golden_lora.safetensors", adapter);
    struct golden g = golden_open(model, file);
    snprintf(folder, sizeof folder, FOLDER "%s", model);
    snprintf(ids, sizeof ids, FOLDER "%s/golden.safetensors", model);
    snprintf(flags, sizeof flags, "--grad --adapter " FOLDER "%s/%s", model, adapter);
    forward(&out, folder, ids, flags);
    compare(&g, &out, "logits", "logits", "logits_abs", adapter);
    compare(&g, &out, "loss", "loss", "loss_abs", adapter);
    check_gradients(&g, &out, adapter);
    safetensors_close(&out), golden_close(&g);
}
static void test_adapters(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(models); i++) check_adapter(models[i], "lora");
    check_adapter("llama", "lora_rslora");
}

/* ---- AdamW steps ---- */

struct step { /* a graph of the golden batch, trained */
    struct loaded l;
    struct graph *g;
    struct build build;
    struct tensor *loss;
    struct optimizer optimizer;
    i64 tokens, trained;
    float scale;
    i32 *row[5]; /* ids, targets, position, begin, last */
    struct arena arena;
};

static void step_rows(struct step *s, const struct safetensors *batch) {
    struct err e = {0};
    const struct stored *ids = need(batch, "input_ids"), *labels = need(batch, "labels");
    const i64 length = ids->dim[1];
    s->tokens = ids->dim[0] * length;
    for (int k = 0; k < 5; k++)
        assert_non_null(s->row[k] = arena_new(&s->arena, s->tokens * 4, &e));
    for (i64 i = 0; i < s->tokens; i++) {
        const i64 t = i % length,
                  label = t + 1 < length ? ((const i64 *)labels->data)[i + 1] : -100;
        s->row[0][i] = (i32)((const i64 *)ids->data)[i], s->row[1][i] = (i32)label;
        s->row[2][i] = (i32)t, s->row[3][i] = (i32)(i - t), s->row[4][i] = (i32)i;
        s->trained += label >= 0;
    }
    s->scale = (float)(1.0 / (double)s->trained);
}

static void step_open(struct step *s, const char *model, const char *adapter, double lr) {
    char path[128], with[160];
    struct err e = {0};
    struct safetensors batch;
    const struct recipe r = {
        .adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8, .learning_rate = lr};
    *s = (struct step){0};
    snprintf(path, sizeof path, FOLDER "%s", model);
    snprintf(with, sizeof with, FOLDER "%s/%s", model, adapter ? adapter : "");
    if (loaded_open(&s->l, path, adapter ? with : NULL, NULL, F32, true, &e))
        fail_msg("%s", e.primary);
    snprintf(path, sizeof path, FOLDER "%s/golden.safetensors", model);
    assert_int_equal(safetensors_open(&batch, path, &e), 0);
    step_rows(s, &batch);
    safetensors_close(&batch);
    assert_int_equal(model_rope(&s->l.model, s->tokens, &e), 0);
    assert_non_null(s->g = graph_new(&e));
    s->build = (struct build){.g = s->g, .m = &s->l.model};
    struct tensor *hidden = model_hidden(&s->build, s->tokens),
                  *targets = graph_input(s->g, "labels", I32, DIMS(s->tokens)),
                  *scale = graph_input(s->g, "scale", F32, DIMS(1));
    s->loss = model_loss(&s->build, hidden, targets, scale);
    graph_keep(s->loss), graph_backward(s->g, s->loss);
    if (graph_plan(s->g, false, &e)) fail_msg("%s", e.primary);
    assert_int_equal(optimizer_new(&s->optimizer, &s->l.model, &r, &e), 0);
    assert_int_equal(optimizer_bind(&s->optimizer, s->g, &e), 0);
    s->build.ids->view.data = s->row[0], targets->view.data = s->row[1];
    s->build.position->view.data = s->row[2], s->build.begin->view.data = s->row[3];
    s->build.last->view.data = s->row[4], scale->view.data = &s->scale;
}
static void step_close(struct step *s) {
    graph_free(s->g), optimizer_free(&s->optimizer), loaded_close(&s->l), arena_free(&s->arena);
}

/* The mean loss before the update. */
static double step_run(struct step *s, double lr) {
    struct err e = {0};
    double sum = 0, norm;
    optimizer_zero(&s->optimizer);
    if (graph_run(s->g, &e)) fail_msg("%s", e.primary);
    for (i64 i = 0; i < s->tokens; i++)
        if (s->row[1][i] >= 0) sum += (double)((const float *)(s->g->memory + s->loss->offset))[i];
    assert_int_equal(optimizer_update(&s->optimizer, 1, lr, &norm, &e), 0);
    return sum / (double)s->trained;
}

static void check_steps(const char *model, const char *adapter, const char *file, const char *name,
                        double lr) {
    struct golden g = golden_open(model, file);
    struct step s;
    step_open(&s, model, adapter, lr);
    const struct stored *want = need(&g.want, name);
    const double first = step_run(&s, lr);
    assert_true(fabs(first - at(need(&g.want, "loss"), 0)) <= tolerance(&g, "loss_abs"));
    for (i64 i = 0; i < want->bytes / 4; i++) {
        const double loss = step_run(&s, lr);
        if (!(fabs(loss - at(want, i)) <= tolerance(&g, "loss_after_step_abs")))
            fail_msg("%s %s: loss after step %lld is %.7f, expected %.7f", model, file,
                     (long long)i + 1, loss, at(want, i));
        assert_true(loss < first);
    }
    step_close(&s), golden_close(&g);
}
static void test_steps(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(models); i++) {
        check_steps(models[i], NULL, "golden.safetensors", "loss_after_full_steps", 1e-3);
        check_steps(models[i], "lora", "lora/golden_lora.safetensors", "loss_after_step", 1e-2);
    }
    check_steps("llama", "lora_rslora", "lora_rslora/golden_lora.safetensors", "loss_after_step",
                1e-2);
}

static int setup(void **state) {
    (void)state;
    struct err e = {0};
    isa_float_mode();
    snprintf(scratch, sizeof scratch, "/tmp/hone-golden-XXXXXX");
    return !mkdtemp(scratch) || pool_start(2, &e);
}
static int teardown(void **state) {
    (void)state;
    struct err e = {0};
    pool_stop();
    return dir_remove(scratch, &e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_models),
                                       cmocka_unit_test(test_adapters),
                                       cmocka_unit_test(test_steps)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
