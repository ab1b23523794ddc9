/* test_interop.c: checkpoints that hone trained mean to hone what they mean to transformers. The
 * folders of tests/golden/interop hold such checkpoints and what transformers computed with them;
 * here ./hone is run on them. tests/interop/check_checkpoint.py does the comparison itself, and
 * more, where those libraries are installed. */
#include "checkpoints/checkpoints.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/hone-interop-XXXXXX";
static const char *const family[] = {"olmo2", "llama"};

static void ok(int status, const struct err *e) {
    if (status || e->code) fail_msg("%s (%s)", e->primary, e->detail);
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...) {
    char line[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (system(line)) fail_msg("failed: %s", line);
}

static float float_at(const struct stored *s, i64 i) {
    float x;
    assert_true(s->dtype == F32 && (i + 1) * 4 <= s->bytes);
    memcpy(&x, s->data + i * 4, 4);
    return x;
}

/* The largest difference, of the largest value of `b`. */
static double difference(const struct stored *a, const struct stored *b) {
    double most = 0, largest = 0;
    assert_int_equal(a->bytes, b->bytes);
    for (i64 i = 0; i < b->bytes / 4; i++) {
        const double x = (double)float_at(a, i), y = (double)float_at(b, i);
        assert_true(x - x == 0);
        most = fmax(most, fabs(x - y)), largest = fmax(largest, fabs(y));
    }
    return most / largest;
}

/* Logits, loss and 16 greedy tokens of row 0. */
static void forward(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(family); i++) {
        struct err e = {0};
        struct safetensors mine, theirs;
        char path[256];
        shell("./hone forward tests/golden/interop/%s --ids tests/golden/interop/%s/ids.safetensors"
              " --out %s/out.safetensors --generate 16 --quiet",
              family[i], family[i], folder);
        snprintf(path, sizeof path, "%s/out.safetensors", folder);
        ok(safetensors_open(&mine, path, &e), &e);
        snprintf(path, sizeof path, "tests/golden/interop/%s/logits.safetensors", family[i]);
        ok(safetensors_open(&theirs, path, &e), &e);
        const struct stored *of[2][3];
        static const char *const name[] = {"logits", "loss", "generated"};
        for (int k = 0; k < 3; k++) {
            of[0][k] = safetensors_need(&mine, name[k], &e);
            of[1][k] = safetensors_need(&theirs, name[k], &e);
            ok(e.code, &e);
        }
        assert_true(difference(of[0][0], of[1][0]) <= 2e-5);
        assert_true(difference(of[0][1], of[1][1]) <= 2e-6);
        assert_int_equal(of[1][2]->bytes, 16 * 8);
        assert_int_equal(of[0][2]->bytes, of[1][2]->bytes);
        assert_memory_equal(of[0][2]->data, of[1][2]->data, (size_t)of[1][2]->bytes);
        safetensors_close(&mine);
        safetensors_close(&theirs);
    }
}

/* The ids that transformers' AutoTokenizer gave with the checkpoint's tokenizer.json. */
static void encode(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(family); i++) {
        shell("./hone encode tests/golden/interop/%s --add-special-tokens"
              " < tests/golden/interop/%s/texts.jsonl > %s/ids.jsonl",
              family[i], family[i], folder);
        shell("cmp tests/golden/interop/%s/texts_ids.jsonl %s/ids.jsonl", family[i], folder);
    }
}

/* Files that transformers was seen to read, by name and SHA-256; `line` makes them, N the name. */
static void recorded(const char *list, const char *line, const char *file, int least) {
    FILE *f = fopen(list, "r");
    char name[64], sha[65], mine[65], path[256];
    int count = 0, other = 0;
    assert_non_null(f);
    for (; fscanf(f, "%63s %64s", name, sha) == 2; count++) {
        struct err e = {0};
        shell("N=%s; F=%s; %s", name, folder, line);
        snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
        ok(sha256_file(path, mine, &e), &e);
        if (strcmp(sha, mine)) other++, print_error("%s: other weights: %s\n", name, mine);
    }
    fclose(f);
    assert_int_equal(other, 0);
    assert_true(count >= least);
}

/* Three steps of every family: check_families.py */
static void families(void **state) {
    (void)state;
    recorded("tests/golden/interop/families/sha256.txt",
             "./hone train tests/golden/interop/families/run.yaml output_dir=$F/$N "
             "model_dropout=ignore model_name_or_path=tests/golden/models/$N --quiet",
             "checkpoints/step-000003/model.safetensors", 40);
}
/* Every adapter merged: check_merges.py */
static void merges(void **state) {
    (void)state;
    recorded("tests/golden/interop/merges/sha256.txt",
             "mkdir -p $F/${N%/*} && ./hone export tests/golden/models/${N%/*} --adapter "
             "tests/golden/models/$N --output $F/$N --quiet",
             "model.safetensors", 40);
}

static double logits_apart(const char *a, const char *b) {
    struct err e = {0};
    struct safetensors x, y;
    ok(safetensors_open(&x, a, &e) || safetensors_open(&y, b, &e), &e);
    const struct stored *s = safetensors_need(&x, "logits", &e),
                        *t = safetensors_need(&y, "logits", &e);
    ok(e.code, &e);
    const double by = difference(s, t);
    safetensors_close(&x), safetensors_close(&y);
    return by;
}

/* Three steps of adapters on mixtures: the tensors that PEFT was seen to read: check_experts.py.
 * And the merged model is the adapted one. */
static void experts(void **state) {
    (void)state;
    FILE *f = fopen("tests/golden/interop/experts/sha256.txt", "r");
    char name[64], recipe[32], sha[65], mine[65], path[512], adapter[256], out[2][256];
    int count = 0;
    assert_non_null(f);
    for (int i = 0; i < 2; i++) snprintf(out[i], sizeof out[i], "%s/%d.safetensors", folder, i);
    for (; fscanf(f, "%63s %31s %64s", name, recipe, sha) == 3; count++) {
        struct err e = {0};
        const char *ids = "--ids tests/golden/models/mixtral/golden.safetensors";
        snprintf(adapter, sizeof adapter, "%s/%s-%s/checkpoints/step-000003", folder, name, recipe);
        shell("./hone train tests/golden/interop/experts/%s.yaml output_dir=%s/%s-%s"
              " model_name_or_path=tests/golden/models/%s save_at=1 --quiet",
              recipe, folder, name, recipe, name);
        snprintf(path, sizeof path, "%s/adapter_model.safetensors", adapter);
        ok(sha256_file(path, mine, &e), &e);
        if (strcmp(sha, mine)) fail_msg("%s, %s: other weights: %s", name, recipe, mine);
        shell("rm -r %s && ./hone train tests/golden/interop/experts/%s.yaml output_dir=%s/%s-%s"
              " model_name_or_path=tests/golden/models/%s save_at=1 --quiet"
              " resume_from_checkpoint=auto",
              adapter, recipe, folder, name, recipe, name);
        ok(sha256_file(path, mine, &e), &e);
        if (strcmp(sha, mine)) fail_msg("%s, %s: resumed: other weights: %s", name, recipe, mine);
        shell("./hone forward tests/golden/models/%s --adapter %s %s --out %s", name, adapter, ids,
              out[0]);
        shell("./hone export tests/golden/models/%s --adapter %s --output %s/m-%s-%s --quiet"
              " --precision fp32",
              name, adapter, folder, name, recipe);
        shell("./hone forward %s/m-%s-%s %s --out %s", folder, name, recipe, ids, out[1]);
        assert_true(logits_apart(out[1], out[0]) <= 2e-5);
    }
    fclose(f);
    assert_int_equal(count, 16);
}

/* The text part of a multimodal model, trained, is a folder of a text model: nothing is missing. */
static void unwrapped(void **state) {
    (void)state;
    shell("mkdir %s/wrapped && cp tests/golden/models/gemma3_text/model.safetensors %s/wrapped/ &&"
          " (echo '{\"model_type\": \"gemma3\", \"vision_config\": {}, \"text_config\":';"
          " cat tests/golden/models/gemma3_text/config.json; echo '}') > %s/wrapped/config.json",
          folder, folder, folder);
    shell("./hone train tests/golden/interop/families/run.yaml output_dir=%s/unwrapped"
          " model_name_or_path=%s/wrapped --quiet",
          folder, folder);
    shell("cd %s/unwrapped/checkpoints/step-000003 && grep -q '\"model_type\": \"gemma3_text\"'"
          " config.json && ! grep -q vision config.json && cmp model.safetensors"
          " %s/gemma3_text/checkpoints/step-000003/model.safetensors",
          folder, folder);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}
static int teardown(void **state) {
    (void)state;
    char line[64];
    snprintf(line, sizeof line, "rm -rf %s", folder);
    return system(line);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(forward),  cmocka_unit_test(encode),
                                       cmocka_unit_test(families), cmocka_unit_test(unwrapped),
                                       cmocka_unit_test(merges),   cmocka_unit_test(experts)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
