/* test_folder.c: a model folder opens, its companions are copied byte for byte, and what is missing
 * is named. */
#include "tests/unit/checkpoints/fixture.h"
#include <jansson.h>

static char *in(struct arena *a, const char *name) { return path_join(a, folder, name, NULL); }

static void goldens(void **state) {
    (void)state;
    static const char *const golden[] = {"llama", "llama_rope3_tied", "olmo2"};
    for (i64 i = 0; i < COUNT(golden); i++) {
        char path[256];
        struct model_folder f;
        struct err e = {0};
        snprintf(path, sizeof path, "tests/golden/models/%s", golden[i]);
        ok(folder_open(&f, path, &e), &e);
        assert_int_equal(json_i64(f.config, "vocab_size", 0, path, &e), 131);
        const struct stored *t = safetensors_need(&f.weights, "model.embed_tokens.weight", &e);
        assert_true(t && t->rank == 2 && t->dim[0] == 131 && t->dim[1] == 32);
        folder_close(&f);
    }
}

/* Values of few bits with their scales, as the reference decodes them, any range at a time. */
static void scaled(void **state) {
    (void)state;
    static const struct {
        const char *name, *type, *from;
    } row[] = {{"x.weight", "F8_E4M3", "fp8_block.weight_u8"},
               {"x.weight_scale_inv", "F32", "fp8_block.weight_scale_inv"},
               {"y_blocks", "U8", "mxfp4.blocks"},
               {"y_scales", "U8", "mxfp4.scales"}};
    static const char *const golden[][2] = {{"x.weight", "fp8_block.dequant"},
                                            {"y", "mxfp4.dequant"}};
    struct safetensors file, s = {.tensor = mem_new(4 * sizeof *s.tensor, NULL), .count = 4};
    struct err e = {0};
    ok(safetensors_open(&file, "tests/golden/quant/formats.safetensors", &e), &e);
    for (int i = 0; i < 4; i++) {
        s.tensor[i] = *safetensors_need(&file, row[i].from, &e);
        s.tensor[i].name = row[i].name, s.tensor[i].type = row[i].type;
        if (!i) s.tensor[i].dtype = DTYPE_COUNT;
    }
    ok(safetensors_link(&s, (i64[]){2, 128}, "F", &e), &e);
    assert_int_equal(s.count, 5);
    for (int k = 0; k < 2; k++) {
        const struct stored *t = safetensors_need(&s, golden[k][0], &e),
                            *want = safetensors_need(&file, golden[k][1], &e);
        ok(!t || !want, &e);
        assert_int_equal(t->rank, want->rank);
        assert_memory_equal(t->dim, want->dim, sizeof *t->dim * (size_t)t->rank);
        const i64 n = want->bytes / 4;
        float part[2000];
        for (i64 at = 0; at < n; at += 97) {
            stored_read(t, at, i64_min(97, n - at), F32, part);
            assert_memory_equal(part, want->data + at * 4, (size_t)i64_min(97, n - at) * 4);
        }
    }
    for (i64 i = 0; i < s.count; i++)
        assert_int_equal(s.tensor[i].part, strcmp(s.tensor[i].name, "x.weight") != 0 &&
                                               strcmp(s.tensor[i].name, "y") != 0);
    /* blocks of another size, scales of another kind */
    assert_int_equal(safetensors_link(&s, (i64[]){128, 128}, "F", &e), -1);
    assert_non_null(strstr(e.primary, "tensor x.weight_scale_inv is F32 [2, 3]; the blocks of its "
                                      "weight, 128 by 128, ask for F32 [1, 3]"));
    e = (struct err){0};
    struct stored *scale = (struct stored *)safetensors_find(&s, "x.weight_scale_inv");
    scale->name = "x.weight_scale";
    ((struct stored *)safetensors_find(&s, "x.weight"))->scale = NULL;
    ok(safetensors_link(&s, (i64[]){2, 128}, "F", &e), &e);
    assert_false(stored_readable(safetensors_find(&s, "x.weight")));
    safetensors_close(&s), safetensors_close(&file);
}

static void copies(void **state) {
    (void)state;
    static const char odd[] = "{ \"a\":1e-05,\r\n\t\"b\" : [ ] }";
    struct arena a = {0};
    struct err e = {0};
    ok(dir_make(in(&a, "from"), &e) || dir_make(in(&a, "to"), &e), &e);
    ok(file_write(in(&a, "from/config.json"), odd, sizeof odd - 1, &e), &e);
    ok(file_write(in(&a, "from/tokenizer.model"), "\0\1\2", 3, &e), &e);
    ok(file_write(in(&a, "from/notes.txt"), "x", 1, &e), &e);
    ok(folder_copy(in(&a, "from"), in(&a, "to"), &e), &e);
    struct text text;
    ok(file_read(&text, in(&a, "to/config.json"), &e), &e);
    assert_int_equal(text.size, sizeof odd - 1);
    assert_memory_equal(text.data, odd, sizeof odd - 1);
    text_free(&text);
    assert_int_equal(path_size(in(&a, "to/tokenizer.model")), 3);
    assert_false(path_exists(in(&a, "to/notes.txt")));
    assert_false(path_exists(in(&a, "to/merges.txt")));
    arena_free(&a);
}

/* config.json names the type of the weights; one that does keeps its bytes. */
static void names_dtype(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum dtype dtype;
        const char *key, *value;
    } row[] = {{"{\"a\":1e-05,\t\"torch_dtype\":\"bfloat16\"}", BF16, NULL, NULL},
               {"{\"a\":1e-05,\t\"dtype\":\"float32\"}", F32, NULL, NULL},
               {"{\"torch_dtype\":\"bfloat16\"}", F32, "torch_dtype", "float32"},
               {"{\"dtype\":\"float16\"}", BF16, "dtype", "bfloat16"},
               {"{}", F32, "torch_dtype", "float32"}};
    struct arena a = {0};
    struct err e = {0};
    const char *path = in(&a, "typed/config.json");
    ok(dir_make(in(&a, "typed"), &e), &e);
    for (int i = 0; i < COUNT(row); i++) {
        struct text text;
        ok(file_replace(path, row[i].text, (i64)strlen(row[i].text), &e), &e);
        ok(folder_dtype(in(&a, "typed"), row[i].dtype, &e), &e);
        ok(file_read(&text, path, &e), &e);
        if (!row[i].key)
            assert_string_equal(text.data, row[i].text);
        else {
            json_t *j = json_parse(text.data, text.size, path, &e);
            assert_string_equal(json_string_value(json_object_get(j, row[i].key)), row[i].value);
            assert_int_equal(json_object_size(j), 1);
            json_decref(j);
        }
        text_free(&text);
    }
    assert_int_equal(folder_dtype(in(&a, "nowhere"), F32, &e), -1);
    arena_free(&a);
}

static void missing(void **state) {
    (void)state;
    struct arena a = {0};
    struct model_folder f;
    struct err e = {0};
    assert_int_equal(folder_open(&f, "/nowhere", &e), -1);
    assert_string_equal(e.primary, "/nowhere is not a folder");
    folder_close(&f);
    e = (struct err){0};
    ok(dir_make(in(&a, "m"), &e), &e);
    assert_int_equal(folder_open(&f, in(&a, "m"), &e), -1);
    assert_non_null(strstr(e.primary, "m/config.json: No such file or directory"));
    folder_close(&f);
    e = (struct err){0};
    ok(file_write(in(&a, "m/config.json"), "[]", 2, &e), &e);
    assert_int_equal(folder_open(&f, in(&a, "m"), &e), -1);
    assert_non_null(strstr(e.primary, "m/config.json is not a JSON object"));
    folder_close(&f);
    e = (struct err){0};
    ok(file_write(in(&a, "m/config.json"), "{}", 2, &e) ||
           file_write(in(&a, "m/pytorch_model.bin"), "x", 1, &e),
       &e);
    assert_int_equal(folder_open(&f, in(&a, "m"), &e), -1);
    assert_non_null(
        strstr(e.primary, "holds no model.safetensors and no model.safetensors.index.json"));
    assert_non_null(strstr(e.hint, "pickle"));
    folder_close(&f);
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),     cmocka_unit_test(scaled),  cmocka_unit_test(copies),
        cmocka_unit_test(names_dtype), cmocka_unit_test(missing),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
