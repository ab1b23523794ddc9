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
             "model_name_or_path=tests/golden/models/$N --quiet",
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(forward), cmocka_unit_test(encode),
                                       cmocka_unit_test(families), cmocka_unit_test(unwrapped),
                                       cmocka_unit_test(merges)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
