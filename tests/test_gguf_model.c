/* test_gguf_model.c: a GGUF file as a model: what llama.cpp computes with it is what hone computes.
 */
#include "tests/tiny_run.h"

#include <math.h>

static void ok(int rc, const struct err *e) {
    if (rc) fail_msg("%s (%s)", e->primary, e->detail);
}
static void open_file(struct safetensors *s, const char *path) {
    struct err e = {0};
    ok(safetensors_open(s, path, &e), &e);
}
static const float *need(const struct safetensors *s, const char *name, i64 *count) {
    struct err e = {0};
    const struct stored *t = safetensors_need(s, name, &e);
    ok(!t || t->dtype != F32, &e);
    *count = t->bytes / 4;
    return (const float *)t->data;
}

/* llama.cpp's products quantise activations, so logits are near; a wrong layout would be far (the
 * logits reach 6). */
static void near_llama_cpp(void **state) {
    (void)state;
    static const char *const models[][2] = {
        {"llama", "q8_0"}, {"llama", "q4_0"}, {"qwen3", "q8_0"}};
    for (int i = 0; i < COUNT(models); i++) {
        char golden[128], name[32];
        struct safetensors want, got;
        i64 n, m;
        snprintf(golden, sizeof golden, "tests/golden/gguf/%s.safetensors", models[i][0]);
        snprintf(name, sizeof name, "logits.%s", models[i][1]);
        hone(0, "forward tests/golden/gguf/%s-%s.gguf --ids %s --out %s", models[i][0],
             models[i][1], golden, at("out.safetensors"));
        open_file(&want, golden), open_file(&got, at("out.safetensors"));
        const float *a = need(&want, name, &n), *b = need(&got, "logits", &m);
        assert_int_equal(n, m);
        for (i64 k = 0; k < n; k++)
            if (!(fabs((double)a[k] - (double)b[k]) < 0.15))
                fail_msg("%s-%s: logit %lld is %g, llama.cpp's %g", models[i][0], models[i][1],
                         (long long)k, (double)b[k], (double)a[k]);
        safetensors_close(&want), safetensors_close(&got);
    }
}

static void inspected(void **state) {
    (void)state;
    hone(0, "inspect tests/golden/gguf/qwen3-q8_0.gguf --tensors");
    expect(said(), "qwen3 (Qwen3ForCausalLM)");
    expect(said(), "blk.0.attn_q.weight");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(near_llama_cpp),
                                       cmocka_unit_test(inspected)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(1, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
    pool_stop();
    return failed;
}
