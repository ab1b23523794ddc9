/* golden.h: what the tests of golden models share: their list, tensors of files, comparisons. */
#ifndef HONE_GOLDEN_H
#define HONE_GOLDEN_H

#include "tests/e2e/tiny_run.h"
#include <math.h>

#define MODELS "tests/golden/models/"
static const char *const golden_models[] = {"llama",        "llama_rope3_tied",
                                            "llama_linear", "llama_dynamic",
                                            "mistral",      "ministral",
                                            "qwen2",        "qwen2_yarn",
                                            "qwen3",        "gemma",
                                            "gemma2",       "gemma3_text",
                                            "phi",          "phi3",
                                            "phi3_long",    "olmo",
                                            "olmo2",        "olmo3",
                                            "apertus",      "smollm3",
                                            "stablelm",     "stablelm_parallel",
                                            "glm",          "glm4",
                                            "gpt2",         "gpt_neox",
                                            "gpt_neox_seq", "falcon_7b",
                                            "falcon_40b",   "falcon_rw",
                                            "bloom",        "mixtral",
                                            "qwen2_moe",    "qwen3_moe",
                                            "olmoe",        "gpt_oss",
                                            "glm4_moe",     "deepseek_v2",
                                            "deepseek_v3",  "kimi_k2"};

/* Set-up and tear-down. Tiny calls: more threads would only wait for each other. */
static inline int golden_begin(void **state) {
    isa_float_mode();
    return pool_start(1, &(struct err){0}) || tiny_folder(state);
}
static inline int golden_end(void **state) {
    pool_stop();
    return tiny_remove(state);
}

static inline void ok(int rc, const struct err *e) {
    if (rc) fail_msg("%s (%s)", e->primary, e->detail);
}

static inline void open_file(struct safetensors *s, const char *path) {
    struct err e = {0};
    ok(safetensors_open(s, path, &e), &e);
}
static inline const struct stored *need(const struct safetensors *s, const char *name) {
    struct err e = {0};
    const struct stored *t = safetensors_need(s, name, &e);
    ok(!t, &e);
    return t;
}

/* All of `a` against all of `b`, within `bound`, or, relative, that share of the largest. Returns
 * the largest error. */
static inline double near(const char *what, const struct stored *a, const struct stored *b,
                          double bound, bool relative) {
    assert_true(a->dtype == F32 && b->dtype == F32);
    assert_int_equal(a->bytes, b->bytes);
    const float *x = (const float *)a->data, *y = (const float *)b->data;
    double top = 0, most = 0;
    for (i64 i = 0; i < b->bytes / 4; i++) top = fmax(top, fabs((double)y[i]));
    for (i64 i = 0; i < b->bytes / 4; i++) {
        most = fmax(most, fabs((double)x[i] - (double)y[i]));
        if (!(fabs((double)x[i] - (double)y[i]) <= bound * (relative ? top : 1)))
            fail_msg("%s: %s[%lld] is %.9g, golden %.9g, largest %.3g, bound %.3g", what, b->name,
                     (long long)i, (double)x[i], (double)y[i], top, bound);
    }
    return relative ? most / (top > 0 ? top : 1) : most;
}

#endif
