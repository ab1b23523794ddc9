/* test_lock_old.c: locks of version 1, which runs wrote before there were versions of recipes: each
 * key means what it meant, what there is besides has its default, no check of today refuses one. */
#include "train/recipe/recipe.h"

#include <jansson.h>
#include <setjmp.h>
#include <cmocka.h>
#include "tests/folder.h"

static const char *const runs[] = {"tests/golden/old_run/full", "tests/golden/old_run/lora"};

static const char *text_of(const json_t *j) {
    static char *text;
    free(text);
    return text = json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT);
}

/* Every key of `was`, also of the items of lists of data, is as it was in `now`. */
static void holds(const json_t *was, const json_t *now, const char *where) {
    const char *key;
    json_t *value, *item;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)was, key, value) {
        const json_t *is = json_object_get(now, key);
        if (!strcmp(key, "dataset") || !strcmp(key, "eval_dataset")) {
            assert_int_equal(json_array_size(value), json_array_size(is));
            json_array_foreach(value, i, item) holds(item, json_array_get(is, i), key);
        } else if (json_is_object(value)) {
            holds(value, is, key);
        } else if (json_is_number(value) && json_is_number(is)) { /* 10000.0 may be 10000 */
            assert_true(json_number_value(value) == json_number_value(is));
        } else if (!json_equal(value, is)) {
            fail_msg("%s: %s is %s", where, key, text_of(is));
        }
    }
}

/* Keys that the lock does not have are as a recipe of version 1 has them that says nothing. */
static void others_default(const json_t *was, const json_t *now, const json_t *plain) {
    static const char *const resolved[] = {"recipe_version", "model_name_or_path", "model",
                                           "dataset"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)now, key, value) {
        bool own = json_object_get(was, key) != NULL;
        for (int i = 0; i < COUNT(resolved); i++) own |= !strcmp(key, resolved[i]);
        if (!own && !json_equal(value, json_object_get(plain, key)))
            fail_msg("%s is %s", key, text_of(value));
    }
}

static json_t *recipe_of(const char *path, struct recipe *r) {
    struct err e = {0};
    if (recipe_load(r, path, NULL, 0, &e)) fail_msg("%s: %s", path, e.primary);
    json_t *j = recipe_json(r, &e);
    if (!j) fail_msg("%s", e.primary);
    return j;
}

static void test_locks(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(runs); i++) {
        struct err e = {0};
        struct recipe r, again;
        char path[128], sha256[65];
        i64 version = 7;
        snprintf(path, sizeof path, "%s/recipe.lock", runs[i]);
        json_t *lock = json_open(path, &e), *was = json_object_get(lock, "recipe");
        assert_null(json_object_get(was, "recipe_version"));
        json_t *now = recipe_of(path, &r);
        assert_int_equal(r.recipe_version, 1);
        assert_true(!r.problem && !r.told && !r.template_date && !r.min_sample_len);
        if (strstr(r.notes.data, "is read as")) fail_msg("%s", r.notes.data);
        holds(was, now, path);
        const char text[] = "model_name_or_path: m\ndataset: d\nrecipe_version: 1\n";
        char plain_path[128];
        snprintf(plain_path, sizeof plain_path, "%s/plain.yaml", folder);
        assert_int_equal(file_write(plain_path, text, sizeof text - 1, &e), 0);
        struct recipe p;
        json_t *plain = recipe_of(plain_path, &p);
        others_default(was, now, plain);
        /* as those read it that go on with a run */
        if (lock_read(&again, runs[i], sha256, &e)) fail_msg("%s", e.primary);
        json_t *second = recipe_json(&again, &e);
        holds(now, second, "lock_read"), holds(second, now, "lock_read");
        assert_int_equal(lock_recipe_version(runs[i], &version, &e), 0);
        assert_int_equal(version, 1);
        assert_int_equal(lock_template_date(runs[i], &again, &e), 0);
        assert_null(again.template_date);
        json_decref(lock), json_decref(now), json_decref(second), json_decref(plain);
        recipe_free(&r), recipe_free(&again), recipe_free(&p);
    }
}

/* The same locks with other values of that time: none is refused, none means another thing. */
static void test_values(void **state) {
    (void)state;
    static const char *const values[] = {
        "{\"packing\": false}",
        "{\"task\": \"sft\", \"packing\": true, \"completion_only_loss\": false}",
        "{\"chat_template\": \"chatml\", \"assistant_only_loss\": false}",
        "{\"use_peft\": true, \"model_name_or_path\": \"m\", \"lora_r\": 4, "
        "\"lora_target_modules\": [\"q_proj\", \"v_proj\"], \"lora_dropout\": 0.25}",
        "{\"warmup_steps\": 3, \"warmup_ratio\": 0.0}",
        "{\"max_steps\": 0, \"num_train_epochs\": 2.5}",
        "{\"optim\": \"sgd\", \"optim_args\": [\"momentum=0.9\"]}",
        "{\"dataset\": [{\"path\": \"a.jsonl\", \"type\": \"auto\", \"weight\": 3.0}, {\"path\": "
        "\"b.h5\", \"type\": \"tokens\", \"weight\": 1.0}]}",
        "{\"eval_dataset\": [], \"eval_steps\": 0}",
        "{\"save_steps\": 0, \"save_at\": [1, 2, 4], \"save_total_limit\": 2}",
        "{\"report_to\": [\"jsonl\", \"csv\"], \"sample_prompts\": []}",
        "{\"micro_batch_size\": 1, \"gradient_accumulation_steps\": 6, \"global_batch_size\": 6}",
    };
    for (int i = 0; i < COUNT(runs); i++)
        for (int k = 0; k < COUNT(values); k++) {
            struct err e = {0};
            struct recipe r;
            char path[128];
            snprintf(path, sizeof path, "%s/recipe.lock", runs[i]);
            json_t *lock = json_open(path, &e), *was = json_object_get(lock, "recipe");
            json_t *to = json_loads(values[k], 0, NULL);
            json_object_update(was, to);
            if (json_object_get(to, "model_name_or_path")) json_object_del(was, "model");
            snprintf(path, sizeof path, "%s/recipe.lock", folder);
            assert_int_equal(json_save(lock, path, 2, &e), 0);
            json_t *now = recipe_of(path, &r);
            assert_true(r.recipe_version == 1 && !r.problem);
            holds(was, now, values[k]);
            json_decref(lock), json_decref(to), json_decref(now), recipe_free(&r);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_locks), cmocka_unit_test(test_values)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
