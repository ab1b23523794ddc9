/* test_golden_run.c: a whole tiny run, tokenizer to weights, rebuilt and compared by SHA-256 with
 * what tests/golden/run/sha256.txt records, on every instruction set. A change that alters any bit
 * of training shows here; if it is meant, NUMERICS_VERSION goes up and the failure's message holds
 * the new lines. */
#include "tests/e2e/golden_run.h"

static struct text wrong;

static void check_in(const char *file, const char *name, const char *sha256, const char *how) {
    struct err e = {0};
    char line[200];
    if (!recorded(file, name, sha256, line))
        assert_int_equal(0, text_printf(&wrong, &e, "%s: %s: %s", file, how, line));
}
static void check(const char *name, const char *sha256, const char *how) {
    check_in(AT "sha256.txt", name, sha256, how);
}
static void report(void) {
    char all[8192];
    snprintf(all, sizeof all, "%s", wrong.data ? wrong.data : "");
    text_free(&wrong);
    if (*all) fail_msg("not in the file:\n%s", all);
}

static void tokenizer_and_dataset(void **state) {
    (void)state;
    hone(0, "tokenizer train " AT "corpus.txt --vocab-size 400 --output %s --quiet",
         at("tokenizer.json"));
    check("tokenizer.json", sha_of(at("tokenizer.json")), "trained");
    check("tokenizer.json", sha_of(AT "tokenizer.json"), "in the repository");
    struct err e = {0};
    struct dataset *d = dataset_open(at("data.h5"), &e);
    if (!d) fail_msg("%s", e.primary);
    check("dataset", dataset_info(d)->sha256, "tokenised");
    dataset_close(d);
    report();
}

static void weights_and_state(void **state) {
    const char *precision = *state;
    for (int i = 0; i <= (int)isa_best(); i++) {
        char name[64];
        const char *run = at("%s-%s", precision, isa_name[i]);
        hone(0,
             "train " AT "run.yaml precision=%s dataset.0.path=%s output_dir=%s --quiet --isa %s",
             precision, at("data.h5"), run, isa_name[i]);
        const char *weights = "checkpoints/step-000012/model.safetensors";
        snprintf(name, sizeof name, "%s/model.safetensors", precision);
        check(name, sha_of(at("%s-%s/%s", precision, isa_name[i], weights)), isa_name[i]);
        snprintf(name, sizeof name, "%s/state", precision);
        check(name, state_1_of(run, 12), isa_name[i]);
        check_in(
            DIGESTS, name,
            manifest_of(at("%s-%s/checkpoints/step-000012", precision, isa_name[i])).state_sha256,
            isa_name[i]);
        struct log_rows rows = log_of(run);
        assert_int_equal(12, rows.count);
        for (i64 k = 0; k < rows.count; k++) {
            snprintf(name, sizeof name, "batch %lld", (long long)k + 1);
            check_in(DIGESTS, name, rows.row[k].batch, isa_name[i]);
        }
        assert_true(rows.row[0].loss > 5.9 && rows.row[11].loss < rows.row[0].loss - 0.3);
        log_rows_free(&rows);
    }
    report();
}

static int set_up(void **state) {
    if (tiny_folder(state)) return -1;
    golden_data();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_and_dataset),
        {"fp32", weights_and_state, NULL, NULL, "fp32"},
        {"bf16", weights_and_state, NULL, NULL, "bf16"},
    };
    return cmocka_run_group_tests_name("golden run", tests, set_up, tiny_remove);
}
