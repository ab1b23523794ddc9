/* test_foreign_rows.c: how recipes of other tools, and ours, say that rows are read: prompts by the
 * name of a dataset's type, system messages, rows that are left out. */
#include "tests/unit/train/foreign_fixture.h"

/* Which rows are read how: prompts of Axolotl's types, system messages, rows that are left out. */
static void test_rows(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, AXOLOTL
           "datasets:\n  - {path: a, type: alpaca}\n  - {path: b, type: alpaca_chat.load_qa}\n"
           "  - {path: c, type: 'alpaca:instruct'}\n  - {path: d, type: chat_template, "
           "drop_system_message: true}\n  - {path: e, type: alpaca_w_system.load_chat}\n"
           "min_sample_len: 9\ndataset_exact_deduplication: true\ndefault_system_message: x\n");
    static const char *const styles[] = {"alpaca", "alpaca_chat.load_qa", "alpaca", NULL,
                                         "alpaca_w_system"};
    for (i64 i = 0; i < COUNT(styles); i++) {
        const char *style = r.dataset.item[i].prompt_style;
        assert_string_equal(style ? style : "", styles[i] ? styles[i] : "");
        assert_string_equal(r.dataset.item[i].type, "auto");
        assert_int_equal(r.dataset.item[i].drop_system_message, i == 3);
    }
    assert_true(r.min_sample_len == 9 && r.dataset_exact_deduplication && !r.default_system);
    assert_non_null(
        strstr(r.notes.data, "'dataset.type' (Axolotl) is read as 'prompt_style: alpaca'"));
    assert_non_null(strstr(r.notes.data, "'default_system_message': no template of Axolotl's"));
    recipe_free(&r);
    read_text(&r,
              AXOLOTL "datasets: [{path: a, type: 'alpaca:x'}, {path: b, type: my.module}, "
                      "{path: c, type: context_qa.load_404}]\n",
              NULL, 0);
    assert_true(
        refused(&r, "'dataset.type: alpaca:x' (Axolotl) changes the result: not supported"));
    assert_true(refused(&r, "'dataset.type: my.module' (Axolotl) changes the result: a plugin"));
    assert_true(
        refused(&r, "'dataset.type: context_qa.load_404' (Axolotl) changes the result: not sup"));
    recipe_free(&r);
    expect(&r, "model_name_or_path: m\nstage: sft\ndataset: d\ntemplate: alpaca\ncutoff_len: 8\n");
    assert_string_equal(r.chat_template, "alpaca");
    assert_non_null(strstr(r.default_system, "Below is an instruction"));
    recipe_free(&r);
    expect(&r, "model_name_or_path: m\nstage: sft\ndataset: d\ntemplate: qwen\ncutoff_len: 8\n"
               "default_system: be kind\n");
    assert_string_equal(r.chat_template, "default"); /* instructions are conversations there */
    assert_string_equal(r.default_system, "be kind");
    recipe_free(&r);
    expect(&r, "model_name_or_path: m\nstage: pt\ndataset: d\ncutoff_len: 8\n");
    assert_null(r.chat_template);
    recipe_free(&r);
    struct err e = {0};
    char text[400];
    snprintf(text, sizeof text, "%s/system.txt", folder);
    assert_int_equal(file_write(text, "be kind\n", 8, &e), 0);
    snprintf(text, sizeof text,
             "model: m\ndataset: [d]\ntuner_type: lora\nsplit_dataset_ratio: 0\nsystem: "
             "%s/system.txt\n",
             folder);
    expect(&r, text);
    assert_string_equal(r.default_system, "be kind\n");
    assert_string_equal(r.chat_template, "default");
    recipe_free(&r);
    read_text(&r,
              "model: m\ndataset: [d]\ntuner_type: lora\nsplit_dataset_ratio: 0\nsystem: "
              "none.txt\nuse_chat_template: false\n",
              NULL, 0);
    assert_true(refused(&r, "system: none.txt is not here"));
    assert_true(refused(&r, "'use_chat_template: false' (ms-swift) changes the result"));
    recipe_free(&r);
}

/* What is about rows is not for data that is tokenised, nor for runs that know no such keys. */
static void test_rows_own(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, "model_name_or_path: m\ndataset: [{path: a.jsonl, prompt_style: oasst}]\n"
               "min_sample_len: 3\n");
    assert_string_equal(r.dataset.item[0].prompt_style, "oasst");
    recipe_free(&r);
    static const char *const bad[][2] = {
        {"dataset: [{path: a.h5, prompt_style: oasst}]\n", "prompt_style is about rows, and a.h5"},
        {"dataset: [a.h5]\nmin_sample_len: 3\n", "min_sample_len is about rows, and a.h5"},
        {"dataset: [b]\neval_dataset: [{path: a, type: tokens, drop_system_message: true}]\n",
         "drop_system_message is about rows, and a is tokenised"},
        {"dataset: [b]\ndataset_exact_deduplication: true\nrecipe_version: 1\n",
         "'dataset_exact_deduplication' has no meaning in recipe_version 1"},
        {"dataset: [b]\ndefault_system: s\nrecipe_version: 1\n", "'default_system' has no meaning"},
        {"dataset: [{path: b, prompt_style: alpca}]\n", "prompt_style = 'alpca'; expected a known"},
    };
    for (int i = 0; i < COUNT(bad); i++) {
        char text[400];
        snprintf(text, sizeof text, "model_name_or_path: m\n%s", bad[i][0]);
        read_text(&r, text, NULL, 0);
        if (!refused(&r, bad[i][1]) || r.problems != 1)
            fail_msg("case %d: %s", i, r.problem ? r.problem->err.primary : "no problem");
        recipe_free(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows),
                                       cmocka_unit_test(test_rows_own)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
