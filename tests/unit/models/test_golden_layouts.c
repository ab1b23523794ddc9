/* test_golden_layouts.c: other forms of the same weights: all experts in one tensor, FP8 blocks,
 * MXFP4. Their logits are those of transformers; and what is read and not trained is saved byte for
 * byte as it was, whatever the family and the form. */
#include "tests/e2e/tiny_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN "tests/golden/"

static void ok(int rc, const struct err *e) {
    if (rc) fail_msg("%s: %s", e->primary, e->detail);
}

static void near(const char *what, const struct safetensors *got, const struct safetensors *want,
                 const char *name, double bound) {
    struct err e = {0};
    const struct stored *a = safetensors_need(got, name, &e), *b = safetensors_need(want, name, &e);
    ok(!a || !b, &e);
    assert_int_equal(a->bytes, b->bytes);
    for (i64 i = 0; i < a->bytes / 4; i++) {
        const double x = (double)((const float *)a->data)[i],
                     y = (double)((const float *)b->data)[i];
        if (!(fabs(x - y) <= bound))
            fail_msg("%s: %s[%lld] is %.9g, golden %.9g", what, name, (long long)i, x, y);
    }
}

/* golden: of the folder itself, or of the model whose weights these are. */
static void layout_check(const char *layout, const char *golden) {
    char ids[256];
    struct safetensors got, want;
    struct err e = {0};
    const char *out = at("layout.safetensors");
    snprintf(ids, sizeof ids, GOLDEN "%s/golden.safetensors", golden);
    hone(0, "forward " GOLDEN "layouts/%s --ids %s --out %s", layout, ids, out);
    ok(safetensors_open(&got, out, &e), &e);
    ok(safetensors_open(&want, ids, &e), &e);
    near(layout, &got, &want, "logits", 1e-4);
    safetensors_close(&got), safetensors_close(&want);
}
static void test_layouts(void **state) {
    (void)state;
    layout_check("mixtral_stacked", "models/mixtral");
    layout_check("qwen3_moe_stacked", "models/qwen3_moe");
    layout_check("gpt_oss_mxfp4", "layouts/gpt_oss_mxfp4");
    layout_check("deepseek_v3_fp8", "layouts/deepseek_v3_fp8");
}

static void round_trip(const char *folder) {
    char path[256], file[300];
    struct model m;
    struct safetensors s;
    struct stored_list list;
    struct err e = {0};
    snprintf(path, sizeof path, GOLDEN "%s", folder);
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    ok(model_open(&m, path, F32, false, &e), &e);
    ok(safetensors_open(&s, file, &e), &e);
    ok(model_stored(&m, false, &list, &e), &e);
    assert_int_equal(list.count, s.count);
    for (i64 i = 0; i < list.count; i++) {
        const struct stored *a = &list.tensor[i], *b = safetensors_need(&s, a->name, &e);
        ok(!b, &e);
        assert_int_equal(a->rank, b->rank);
        assert_memory_equal(a->dim, b->dim, sizeof *a->dim * (size_t)a->rank);
        assert_int_equal(a->bytes, b->bytes);
        if (memcmp(a->data, b->data, (size_t)a->bytes)) fail_msg("%s: %s", folder, a->name);
    }
    stored_free(&list), safetensors_close(&s), model_free(&m);
}
static void test_round_trips(void **state) {
    (void)state;
    static const char *const folders[] = {"models/mixtral",           "models/qwen2_moe",
                                          "models/qwen3_moe",         "models/olmoe",
                                          "models/gpt_oss",           "models/glm4_moe",
                                          "models/deepseek_v2",       "models/deepseek_v3",
                                          "models/kimi_k2",           "layouts/mixtral_stacked",
                                          "layouts/qwen3_moe_stacked"};
    for (i64 i = 0; i < COUNT(folders); i++) round_trip(folders[i]);
}

/* A file whose scales do not fit its weights is refused by name; so is a configuration that cannot
 * be. */
static void refused(const char *folder, const char *edit, const char *text) {
    const char *to = at("refused");
    assert_int_equal(0, shell("rm -rf %s && cp -r " GOLDEN "%s %s && sed -i '%s' %s/config.json",
                              to, folder, to, edit, to));
    hone(2, "forward %s --ids " GOLDEN "models/mixtral/golden.safetensors --out %s", to,
         at("x.safetensors"));
    expect(complained(), text);
}
static void test_refused(void **state) {
    (void)state;
    refused("layouts/deepseek_v3_fp8", "s/^   16/   8/",
            "the blocks of its weight, 8 by 8, ask for F32 [4, 4]");
    refused("models/mixtral", "s/\"num_experts_per_tok\": 2/\"num_experts_per_tok\": 5/",
            "'num_experts_per_tok' is 5; expected 1 to 4");
    refused("models/deepseek_v3", "s/\"n_group\": 4/\"n_group\": 3/",
            "2 of 3 groups of 8 experts cannot be chosen");
    refused("models/deepseek_v3", "s/\"topk_group\": 2/\"topk_group\": 1/",
            "'topk_group' leaves 2 experts, of which 3 are to be chosen");
    refused("models/deepseek_v3", "1s/{/{\"output_router_logits\": true,/",
            "'output_router_logits' has a value that is not supported");
    refused("models/qwen3_moe", "s/coef\": 0.02/coef\": -1/",
            "'router_aux_loss_coef' is -1; expected 0 or more");
    refused("models/mixtral", "s/\"num_local_experts\": 4/\"num_local_experts\": 3/", "has shape");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layouts),
                                       cmocka_unit_test(test_round_trips),
                                       cmocka_unit_test(test_refused)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(1, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
    pool_stop();
    return failed;
}
