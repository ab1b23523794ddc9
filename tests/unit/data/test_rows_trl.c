/* test_rows_trl.c: rows give the ids and labels that TRL gives (tests/golden/rows,
 * tests/interop/record_rows.py). */
#include "tests/unit/data/dataset_fixture.h"

static const char recorded[] = "tests/golden/rows/trl.jsonl";

/* Line `line`: its row as a dataset. */
static void row_same(const json_t *golden, int line) {
    struct err e = {0};
    const char *template = json_string_value(json_object_get(golden, "template"));
    const char *path = json_string_value(json_object_get(golden, "tokenizer"));
    struct tokenizer *t = tokenizer_open(path, &e);
    struct chat *chat =
        template ? chat_open(template, NULL, json_object_get(golden, "special"), &e) : NULL;
    if (!t || (template && !chat)) fail_msg("line %d: %s", line, e.primary);
    char *row = json_dumps(json_object_get(golden, "row"), JSON_COMPACT | JSON_PRESERVE_ORDER);
    const char *source = file_put("g.jsonl", row, (i64)strlen(row));
    struct dataset_job job = byte_job(&source, in_folder("g.h5"));
    job.encoder = encoder_of(t), job.add_around = true;
    job.options = (struct source_options){
        .chat = chat, .assistant_only_loss = true, .completion_only_loss = true};
    if (dataset_build(&job, &e)) fail_msg("line %d: %s", line, e.primary);
    struct dataset *d = dataset_open(job.path, &e);
    const json_t *ids = json_object_get(golden, "input_ids"),
                 *labels = json_object_get(golden, "labels");
    const i64 n = dataset_info(d)->tokens;
    u32 found[512];
    u8 trained[512];
    assert_true(n <= COUNT(found) && n > 0);
    assert_int_equal(dataset_read(d, 0, n, found, &e), 0);
    dataset_trained(d, 0, n, trained);
    if (n != (i64)json_array_size(ids))
        fail_msg("line %d: %d ids, TRL has %d", line, (int)n, (int)json_array_size(ids));
    for (i64 i = 0; i < n; i++) {
        const json_int_t id = json_integer_value(json_array_get(ids, (size_t)i));
        const bool learnt = json_integer_value(json_array_get(labels, (size_t)i)) >= 0;
        if (found[i] != id || trained[i] != learnt)
            fail_msg("line %d, place %d: id %u%s, TRL has %lld%s", line, (int)i, found[i],
                     trained[i] ? " trained" : "", (long long)id, learnt ? " trained" : "");
    }
    dataset_close(d), chat_free(chat), tokenizer_free(t), free(row);
}

static void test_trl(void **state) {
    (void)state;
    struct err e = {0};
    struct text all = {0};
    int line = 0;
    assert_int_equal(file_read(&all, recorded, &e), 0);
    for (char *at = all.data, *end; at < all.data + all.size; at = end + 1) {
        end = memchr(at, '\n', (size_t)(all.data + all.size - at));
        assert_non_null(end);
        json_t *golden = json_parse(at, end - at, recorded, &e);
        assert_non_null(golden);
        row_same(golden, ++line);
        json_decref(golden);
    }
    assert_true(line >= 50);
    text_free(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_trl)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
