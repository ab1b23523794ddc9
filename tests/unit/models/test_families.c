/* test_families.c: `hone inspect` of the configuration of each published model of the families that
 * are known prints exactly the number of parameters that the model has (golden/configs). */
#include "tests/e2e/tiny_run.h"

#include <jansson.h>

static void test_parameters(void **state) {
    (void)state;
    struct err e = {0};
    struct text list = {0};
    int models = 0;
    if (file_read(&list, "tests/golden/configs/parameters.tsv", &e)) fail_msg("%s", e.primary);
    for (char *line = list.data, *end; (end = strchr(line, '\n')); line = end + 1, models++) {
        const char *tab = strchr(line, '\t');
        assert_true(tab && tab < end);
        const i64 wanted = strtoll(tab, NULL, 10);
        hone(0, "inspect tests/golden/configs/%.*s.json --json", (int)(tab - line), line);
        json_t *j = json_open(at("stdout"), &e);
        if (!j) fail_msg("%s", e.primary);
        const i64 found = json_integer_value(json_object_get(j, "parameters"));
        if (found != wanted)
            fail_msg("%.*s: %lld parameters, not %lld", (int)(tab - line), line, (long long)found,
                     (long long)wanted);
        json_decref(j);
    }
    assert_true(models >= 77);
    text_free(&list);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parameters)};
    return cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
}
