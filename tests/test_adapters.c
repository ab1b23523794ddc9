/* test_adapters.c: what PEFT does beside plain LoRA on linear layers, on golden/adapters: several
 * adapters at once. */
#include "tests/tiny_run.h"

#include <math.h>

#define MODEL    "tests/golden/models/llama"
#define ADAPTERS "tests/golden/adapters/"

static void open_file(struct safetensors *s, const char *path) {
    struct err e = {0};
    if (safetensors_open(s, path, &e)) fail_msg("%s", e.primary);
}
/* Tensor `a` of one file within `bound` of `b` of another, relative to the largest. */
static void near(const char *file, const char *a, const char *golden, const char *b, double bound) {
    struct safetensors got, want;
    struct err e = {0};
    open_file(&got, file), open_file(&want, golden);
    const struct stored *s = safetensors_need(&got, a, &e), *t = safetensors_need(&want, b, &e);
    if (e.code) fail_msg("%s", e.primary);
    const float *x = (const float *)s->data, *y = (const float *)t->data;
    double top = 0;
    assert_int_equal(s->bytes, t->bytes);
    for (i64 i = 0; i < t->bytes / 4; i++) top = fmax(top, fabs((double)y[i]));
    for (i64 i = 0; i < t->bytes / 4; i++)
        if (!(fabs((double)x[i] - (double)y[i]) <= bound * top))
            fail_msg("%s of %s: [%lld] is %.9g, in %s %.9g, largest %.3g", a, file, (long long)i,
                     (double)x[i], golden, (double)y[i], top);
    safetensors_close(&got), safetensors_close(&want);
}

/* PEFT's add_weighted_adapter(combination_type="cat"): other modules, ranks and scales in each. */
static void test_stack(void **state) {
    (void)state;
    static const struct {
        const char *flags, *key;
    } of[] = {
        {"--adapter " ADAPTERS "first --adapter=" ADAPTERS "second", "logits.sum"},
        {"--adapter " ADAPTERS "first=0.5 --adapter " ADAPTERS "second=-0.75", "logits.weighted"}};
    for (int i = 0; i < COUNT(of); i++) {
        const char *ids = ADAPTERS "stack.safetensors", *out = at("out.safetensors"),
                   *merged = at("merged-%d", i);
        hone(0, "forward " MODEL " %s --ids %s --out %s", of[i].flags, ids, out);
        near(out, "logits", ids, of[i].key, 3e-6);
        hone(0, "export " MODEL " %s --output %s --quiet", of[i].flags, merged);
        hone(0, "forward %s --ids %s --out %s", merged, ids, at("merged.safetensors"));
        near(at("merged.safetensors"), "logits", ids, of[i].key, 3e-6);
        hone(0, "forward " MODEL " %s --ids %s --out %s --precision bf16", of[i].flags, ids, out);
        near(out, "logits", ids, of[i].key, 0.1);
    }
    const char *ids = ADAPTERS "stack.safetensors";
    hone(2, "forward " MODEL " --adapter %s=1 --adapter %s --grad --ids %s --out %s",
         ADAPTERS "first", ADAPTERS "second", ids, at("out.safetensors"));
    expect(complained(), "--grad: the gradients are those of one adapter, and 2 are named");
    hone(0, "export " MODEL " %s --output %s --format gguf --adapter-only --quiet",
         "--adapter " MODEL "/lora=2", at("gguf"));
    hone(2, "export " MODEL " --adapter " ADAPTERS "first --output %s --format gguf --adapter-only",
         at("no"));
    expect(complained(), "an adapter with the embedding cannot be written as GGUF");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stack)};
    return cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
}
