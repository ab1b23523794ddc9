/* test_family_bits.c: three steps of every family (all weights in f32 and bf16, an adapter, an
 * adapter on 4-bit codes) and texts that it samples have the bits recorded in
 * tests/golden/bits/sha256.txt. They were recorded at commit 4bb1f6d with AVX2, AVX-512 and plain
 * C, which agreed. A change that is meant to keep the numbers and does not shows here, by family
 * and by kind.
 *
 * `make test` takes the best instruction set; HONE_SLOW=1 takes all of this machine. */
#include "tests/e2e/tiny_run.h"

#define RECORDED "tests/golden/bits/sha256.txt"

static const struct {
    const char *name, *keys;
} kinds[] = {
    {"full", ""},
    {"full-bf16", "precision=bf16"},
    {"lora", "use_peft=true lora_target_modules=all-linear"},
    {"qlora", "use_peft=true load_in_4bit=true precision=bf16"},
};
static struct text wrong;

static void differs(const char *isa, const char *family, const char *kind, const char *what,
                    const char *sha) {
    struct err e = {0};
    assert_int_equal(0, text_printf(&wrong, &e, "%s: %s %s %s %s\n", isa, family, kind, what, sha));
}

/* The weights' file and the state of the last checkpoint, by version 1 of its digest. */
static void train_check(const char *isa, const char *family, const char *kind, const char *weights,
                        const char *digest) {
    for (int k = 0; k < COUNT(kinds); k++) {
        if (strcmp(kinds[k].name, kind)) continue;
        const char *run = at("%s-%s-%s", isa, family, kind),
                   *file = strncmp(kind, "full", 4) ? "adapter_model" : "model";
        char path[600];
        hone(0,
             "train tests/golden/interop/families/run.yaml "
             "model_name_or_path=tests/golden/models/%s output_dir=%s %s "
             "--isa %s --threads 2 --quiet",
             family, run, kinds[k].keys, isa);
        const char *state = state_1_of(run, 3);
        if (strcmp(state, digest)) differs(isa, family, kind, "state", state);
        snprintf(path, sizeof path, "%s/checkpoints/step-000003/%s.safetensors", run, file);
        if (strcmp(sha_of(path), weights)) differs(isa, family, kind, "weights", sha_of(path));
        assert_int_equal(0, dir_remove(run, &(struct err){0}));
        return;
    }
    fail_msg("'%s' is no kind of training", kind);
}

/* The ids of three texts, sampled in one batch. */
static void decode_check(const char *isa, const char *family, const char *digest) {
    struct err e = {0};
    struct text ids = {0};
    struct sha256 sum;
    char sha[65];
    hone(0,
         "generate tests/golden/models/%s --prompts tests/golden/bits/prompts.jsonl "
         "--max-new-tokens 20 --ignore-eos "
         "--tokenizer tests/golden/interop/families/tokenizer.json --temperature 0.8 --top-p 0.95 "
         "--seed 42 --isa %s "
         "--json --quiet",
         family, isa);
    for (const char *p = said(); (p = strstr(p, "\"ids\": ["));) {
        const char *end = strchr(p, ']');
        assert_int_equal(0, text_printf(&ids, &e, "%.*s\n", (int)(end - p), p));
        p = end;
    }
    assert_false(sha256_begin(&sum, &e));
    sha256_add(&sum, ids.data, ids.size), sha256_end(&sum, sha);
    text_free(&ids);
    if (strcmp(sha, digest)) differs(isa, family, "decode", "ids", sha);
}

static void check_isa(const char *isa, i64 *lines) {
    FILE *f = fopen(RECORDED, "r");
    char family[64], kind[32], first[65], second[65], line[256];
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        const int words = sscanf(line, "%63s %31s %64s %64s", family, kind, first, second);
        if (words == 4)
            train_check(isa, family, kind, first, second);
        else if (words == 3 && !strcmp(kind, "decode"))
            decode_check(isa, family, first);
        else
            fail_msg(RECORDED ": '%s' is no line of it", line);
        *lines += 1;
    }
    fclose(f);
}

static void every_family(void **state) {
    (void)state;
    i64 lines = 0;
    const int best = (int)isa_best(), first = getenv("HONE_SLOW") ? 0 : best;
    for (int i = first; i <= best; i++) check_isa(isa_name[i], &lines);
    if (wrong.size) {
        fputs(wrong.data, stderr);
        fail_msg("these lines are not in " RECORDED);
    }
    assert_int_equal(lines, 200 * (best - first + 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_family)};
    return cmocka_run_group_tests_name("bits of the families", tests, tiny_folder, tiny_remove);
}
