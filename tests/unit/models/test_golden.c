/* test_golden.c: what hone computes with the golden models is what transformers and PEFT compute
 * with them, within the tolerances that each golden.json states. Logits, losses, gradients and
 * greedy ids go through `hone forward`, as a user would compare; training steps through the graph
 * and the optimizer. Both spellings of config.json are used. */
#include "recipes/models/models_int.h"
#include "tests/unit/models/golden.h"

#include <jansson.h>

struct tolerance {
    double logits, long_logits, loss, gradient, step_loss;
};

static struct tolerance tolerance_of(const char *model) {
    char path[256];
    struct err e = {0};
    snprintf(path, sizeof path, MODELS "%s/golden.json", model);
    json_t *j = json_open(path, &e);
    ok(!j, &e);
    const json_t *t = json_object_get(j, "tolerances");
    const struct tolerance r = {
        json_f64(t, "logits_abs", 0, path, &e), json_f64(t, "long_logits_abs", 0, path, &e),
        json_f64(t, "loss_abs", 0, path, &e), json_f64(t, "grad_rel_to_tensor_max", 0, path, &e),
        json_f64(t, "loss_after_step_abs", 0, path, &e)};
    json_decref(j);
    assert_true(r.logits > 0 && r.long_logits > 0 && r.loss > 0 && r.gradient > 0 &&
                r.step_loss > 0);
    return r;
}

/* What was measured, for the table of recipes/models/README.md: a line for each model where
 * HONE_TABLE is set. */
enum measure { LOGITS, GRADIENTS, LORA_LOGITS, LORA_GRADIENTS, MEASURES };
static double measured[COUNT(golden_models)][MEASURES];
static void measure(const char *model, enum measure m, double error) {
    for (int i = 0; i < COUNT(golden_models); i++)
        if (!strcmp(golden_models[i], model)) measured[i][m] = fmax(measured[i][m], error);
}

/* Every grad.* of the golden has its like, and there is none besides. */
static double near_gradients(const char *what, const struct safetensors *got,
                             const struct safetensors *want, double bound) {
    i64 gradients = 0, given = 0;
    double most = 0;
    for (i64 i = 0; i < got->count; i++) given += !strncmp(got->tensor[i].name, "grad.", 5);
    for (i64 i = 0; i < want->count; i++) {
        if (strncmp(want->tensor[i].name, "grad.", 5)) continue;
        const struct stored *g = need(got, want->tensor[i].name);
        assert_int_equal(g->bytes, want->tensor[i].bytes);
        most = fmax(most, near(what, g, &want->tensor[i], bound, true));
        gradients++;
    }
    assert_true(gradients >= 5); /* as many as an adapter of one layer has */
    assert_int_equal(given, gradients);
    return most;
}

/* The model under its other config.json. */
static const char *folder_with(const char *model, const char *config) {
    const char *to = at("%s-%s", model, config);
    assert_int_equal(0, shell("mkdir -p %s && cp " MODELS "%s/%s %s/config.json && cp " MODELS
                              "%s/model.safetensors %s",
                              to, model, config, to, model, to));
    return to;
}

static void model_check(const char *model, const char *config) {
    const struct tolerance t = tolerance_of(model);
    const char *folder = folder_with(model, config), *out = at("out.safetensors"),
               *rows = at("rows.safetensors");
    char golden[256];
    snprintf(golden, sizeof golden, MODELS "%s/golden.safetensors", model);
    struct safetensors want, got;
    struct err e = {0};
    open_file(&want, golden);
    hone(0, "forward %s --ids %s --out %s --grad --generate 12", folder, golden, out);
    open_file(&got, out);
    measure(model, LOGITS,
            near(folder, need(&got, "logits"), need(&want, "logits"), t.logits, false));
    near(folder, need(&got, "loss"), need(&want, "loss"), t.loss, false);
    measure(model, GRADIENTS, near_gradients(folder, &got, &want, t.gradient));
    const struct stored *ids = need(&want, "greedy_ids"), *generated = need(&got, "generated");
    assert_int_equal(ids->bytes, generated->bytes);
    assert_memory_equal(ids->data, generated->data, (size_t)ids->bytes);
    safetensors_close(&got);
    struct stored row = *need(&want, "long_input_ids");
    row.name = "input_ids";
    ok(safetensors_write(tiny, "rows", &row, 1, INT64_MAX, &e), &e);
    hone(0, "forward %s --ids %s --out %s", folder, rows, out);
    open_file(&got, out);
    struct stored end = *need(&got, "logits"); /* of which the golden has the last positions */
    end.data += end.bytes - need(&want, "long_logits")->bytes;
    end.bytes = need(&want, "long_logits")->bytes;
    near(folder, &end, need(&want, "long_logits"), t.long_logits, false);
    near(folder, need(&got, "loss"), need(&want, "long_loss"), t.loss, false);
    safetensors_close(&got), safetensors_close(&want);
}

static void test_models(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(golden_models); i++)
        model_check(golden_models[i], "config.json"),
            model_check(golden_models[i], "config_v5.json");
}

/* The balancing loss, in the loss and the gradients of routers and what is below them. */
static void test_balance(void **state) {
    (void)state;
    static const char *const mixtures[] = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"};
    for (int i = 0; i < COUNT(mixtures); i++) {
        const struct tolerance t = tolerance_of(mixtures[i]);
        const char *folder = folder_with(mixtures[i], "config.json"), *out = at("out.safetensors");
        char golden[256], aux[256];
        struct safetensors want, gradients, got;
        snprintf(golden, sizeof golden, MODELS "%s/golden.safetensors", mixtures[i]);
        snprintf(aux, sizeof aux, MODELS "%s/golden_aux.safetensors", mixtures[i]);
        assert_int_equal(0, shell("sed -i 's/\"output_router_logits\": false/"
                                  "\"output_router_logits\": true/' %s/config.json",
                                  folder));
        hone(0, "forward %s --ids %s --out %s --grad", folder, golden, out);
        open_file(&got, out), open_file(&want, golden), open_file(&gradients, aux);
        near(folder, need(&got, "aux_loss"), need(&want, "aux_loss"), t.loss, false);
        near(folder, need(&got, "loss"), need(&want, "loss_with_aux"), t.loss, false);
        for (i64 n = 0; n < gradients.count; n++)
            near(folder, need(&got, gradients.tensor[n].name), &gradients.tensor[n], t.gradient,
                 true);
        assert_true(gradients.count >= 2);
        safetensors_close(&got), safetensors_close(&want), safetensors_close(&gradients);
    }
}

/* ---- training steps, through the graph */

struct rows { /* [B, T] as the graph takes it: rows one after another */
    i64 tokens, trained, length;
    i32 *ids, *targets, *position, *begin, *last;
    float *weight; /* [tokens] 1 / trained */
    struct arena arena;
};

static void rows_of(struct rows *r, const struct stored *ids, const struct stored *labels) {
    struct err e = {0};
    *r = (struct rows){.tokens = ids->dim[0] * ids->dim[1], .length = ids->dim[1]};
    i32 **list[] = {&r->ids, &r->targets, &r->position, &r->begin, &r->last};
    for (int i = 0; i < COUNT(list); i++)
        assert_non_null(*list[i] = arena_new(&r->arena, r->tokens * 4, &e));
    for (i64 i = 0; i < r->tokens; i++) {
        const i64 t = i % r->length, *label = (const i64 *)labels->data;
        r->ids[i] = (i32)((const i64 *)ids->data)[i];
        r->targets[i] = t + 1 < r->length && label[i + 1] >= 0 ? (i32)label[i + 1] : -100;
        r->trained += r->targets[i] >= 0;
        r->position[i] = (i32)t, r->begin[i] = (i32)(i - t), r->last[i] = (i32)i;
    }
    assert_non_null(r->weight = arena_new(&r->arena, r->tokens * 4, &e));
    for (i64 i = 0; i < r->tokens; i++) r->weight[i] = (float)(1 / (double)r->trained);
}

static double dropout;

/* The loss of every row and its gradients; run it with graph_run. */
static struct tensor *loss_traced(struct graph *g, struct model *m, const struct rows *r) {
    struct err e = {0};
    static struct build b; /* what dropout reads */
    b = (struct build){.g = g, .m = m, .dropout = dropout, .dropout_seed = 7};
    ok(model_rope(m, r->length, &e), &e);
    struct tensor *hidden = model_hidden(&b, r->tokens);
    struct tensor *targets = graph_input(g, "labels", I32, DIMS(r->tokens));
    struct tensor *weight = graph_input(g, "weight", F32, DIMS(r->tokens));
    struct tensor *loss = model_loss(&b, hidden, targets);
    graph_keep(loss);
    graph_backward(g, &(struct seed){loss, weight}, 1);
    ok(graph_plan(g, false, &e), &e);
    const struct places p = {
        .ids = r->ids, .position = r->position, .begin = r->begin, .last = r->last};
    ok(model_bind(&b, &p, &e), &e);
    targets->view.data = r->targets, weight->view.data = r->weight;
    return loss;
}

static double mean_loss(struct graph *g, const struct tensor *loss, const struct rows *r) {
    struct err e = {0};
    double sum = 0;
    ok(graph_run(g, &e), &e);
    for (i64 i = 0; i < r->tokens; i++)
        if (r->targets[i] >= 0) sum += (double)((float *)(g->memory + loss->offset))[i];
    return sum / (double)r->trained;
}

/* Losses before and after AdamW steps without decay or clipping. after[0] is before the first. */
static const struct recipe plain = {
    .adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8, .master_weights = true};
static void losses_of(struct model *m, const char *golden, const struct recipe *r, double lr,
                      i64 steps, double *after) {
    struct safetensors s;
    struct rows rows;
    struct optimizer o;
    struct err e = {0};
    open_file(&s, golden);
    rows_of(&rows, need(&s, "input_ids"), need(&s, "labels"));
    struct graph *g = graph_new(&e);
    ok(!g, &e);
    const struct tensor *loss = loss_traced(g, m, &rows);
    ok(optimizer_new(&o, m, r, &e), &e);
    ok(optimizer_bind(&o, g, &e), &e);
    for (i64 i = 0;; i++) {
        double norm;
        optimizer_zero(&o, NULL);
        after[i] = mean_loss(g, loss, &rows);
        if (i == steps) break;
        ok(optimizer_update(&o, 1, lr, &norm, &e), &e);
    }
    assert_int_equal(o.step, steps);
    graph_free(g), optimizer_free(&o), arena_free(&rows.arena), safetensors_close(&s);
}

static void test_full_steps(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(golden_models); i++) {
        char folder[128], golden[256];
        struct model m;
        struct err e = {0};
        struct safetensors want;
        double loss[4];
        snprintf(folder, sizeof folder, MODELS "%s", golden_models[i]);
        snprintf(golden, sizeof golden, "%s/golden.safetensors", folder);
        ok(model_open(&m, folder, F32, true, &e), &e);
        losses_of(&m, golden, &plain, 1e-3, 3, loss);
        open_file(&want, golden);
        const struct stored *s = need(&want, "loss_after_full_steps");
        for (int k = 0; k < 3; k++)
            if (!(fabs(loss[k + 1] - (double)((const float *)s->data)[k]) <=
                  tolerance_of(golden_models[i]).step_loss))
                fail_msg("%s: loss after %d steps is %.9g, golden %.9g", folder, k + 1, loss[k + 1],
                         (double)((const float *)s->data)[k]);
        safetensors_close(&want), model_free(&m);
    }
}

static void adapter_check(const char *model, const char *adapter) {
    const struct tolerance t = tolerance_of(model);
    const char *out = at("out.safetensors");
    char folder[256], golden[300], own[300];
    struct safetensors want, got;
    struct loaded l;
    struct err e = {0};
    double loss[2];
    snprintf(folder, sizeof folder, MODELS "%s/%s", model, adapter);
    snprintf(golden, sizeof golden, "%s/golden_lora.safetensors", folder);
    snprintf(own, sizeof own, MODELS "%s/golden.safetensors", model);
    hone(0, "forward " MODELS "%s --adapter %s --ids %s --out %s --grad", model, folder, own, out);
    open_file(&got, out), open_file(&want, golden);
    const double logits =
        near(folder, need(&got, "logits"), need(&want, "logits"), t.logits, false);
    near(folder, need(&got, "loss"), need(&want, "loss"), t.loss, false);
    const double gradients = near_gradients(folder, &got, &want, t.gradient);
    if (!strcmp(adapter, "lora"))
        measure(model, LORA_LOGITS, logits), measure(model, LORA_GRADIENTS, gradients);
    char base[128];
    snprintf(base, sizeof base, MODELS "%s", model);
    char *one[] = {folder};
    ok(loaded_open(&l, base, &(struct text_list){one, 1}, NULL, F32, true, &e), &e);
    losses_of(&l.model, own, &plain, 1e-2, 1, loss);
    const struct stored *after = need(&want, "loss_after_step");
    if (!(fabs(loss[1] - (double)*(const float *)after->data) <= t.step_loss))
        fail_msg("%s: loss after a step is %.9g, golden %.9g", folder, loss[1],
                 (double)*(const float *)after->data);
    loaded_close(&l), safetensors_close(&got), safetensors_close(&want);
}

static void test_adapters(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(golden_models); i++) adapter_check(golden_models[i], "lora");
    adapter_check("llama", "lora_rslora");
    adapter_check("llama", "lora_dora");
    adapter_check("llama", "lora_partial");
    adapter_check("mixtral", "lora_experts"), adapter_check("qwen3_moe", "lora_experts");
    adapter_check("gpt_oss", "lora_experts"), adapter_check("deepseek_v3", "lora_experts");
}

/* Steps of LoRA+ as PEFT takes them; of DoRA with dropout, PEFT's with our random numbers. */
static void test_steps(void **state) {
    (void)state;
    static char *const name[] = {"tests/golden/adapters/plus",
                                 "tests/golden/adapters/dora_dropout"};
    for (int k = 0; k < COUNT(name); k++) {
        struct text_list one = {(char **)name + k, 1};
        struct loaded l;
        struct safetensors want;
        struct err e = {0};
        struct recipe r = plain;
        double loss[4];
        r.use_peft = true, r.learning_rate = 1e-2, r.loraplus_lr_ratio = k ? 1 : 4;
        r.loraplus_lr_embedding = k ? 0 : 2e-3, dropout = k ? 0.25 : 0;
        ok(loaded_open(&l, MODELS "llama", &one, NULL, F32, true, &e), &e);
        losses_of(&l.model, MODELS "llama/golden.safetensors", &r, 1e-2, 3, loss);
        open_file(&want, k ? "tests/golden/adapters/dora_dropout/golden.safetensors"
                           : "tests/golden/adapters/plus/golden.safetensors");
        const float *golden = (const float *)need(&want, "losses")->data;
        for (int i = 0; i < 4; i++) assert_true(fabs(loss[i] - (double)golden[i]) < 2e-5);
        loaded_close(&l), safetensors_close(&want);
    }
    dropout = 0;
}

/* Several documents in a row give what each gives by itself, and a step over unequal micro-batches
 * is a mean over its tokens. */
static void test_packs(void **state) {
    (void)state;
    static const char *const packs[][2] = {
        {"llama", "llama"}, {"gpt2", "gpt2"},       {"gemma3_text", "gemma3_text"},
        {"bloom", "bloom"}, {"mixtral", "mixtral"}, {"llama", "accumulation_llama"}};
    for (int i = 0; i < COUNT(packs); i++) {
        const struct tolerance t = tolerance_of(packs[i][0]);
        const char *out = at("out.safetensors");
        char file[128];
        struct safetensors want, got;
        snprintf(file, sizeof file, "tests/golden/packing/%s.safetensors", packs[i][1]);
        open_file(&want, file);
        hone(0, "forward " MODELS "%s --ids %s --out %s --grad", packs[i][0], file, out);
        open_file(&got, out);
        if (safetensors_find(&want, "logits_separate"))
            near(file, need(&got, "logits"), need(&want, "logits_separate"), t.logits, false);
        near(file, need(&got, "loss"), need(&want, "loss"), t.loss, false);
        if (strstr(packs[i][1], "llama")) near_gradients(file, &got, &want, t.gradient);
        safetensors_close(&got), safetensors_close(&want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),   cmocka_unit_test(test_packs),
        cmocka_unit_test(test_balance),  cmocka_unit_test(test_full_steps),
        cmocka_unit_test(test_adapters), cmocka_unit_test(test_steps)};
    const int failed = cmocka_run_group_tests(tests, golden_begin, golden_end);
    for (int i = 0; i < COUNT(golden_models) && getenv("HONE_TABLE"); i++)
        printf("| %s | %.1e | %.1e | %.1e | %.1e |\n", golden_models[i], measured[i][LOGITS],
               measured[i][GRADIENTS], measured[i][LORA_LOGITS], measured[i][LORA_GRADIENTS]);
    return failed;
}
