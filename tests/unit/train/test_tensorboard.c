/* test_tensorboard.c: the event file's bytes. The golden was read back by TensorBoard's own reader
 * when it was made. */
#include "train/log/log.h"

#include <math.h> /* NAN */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char dir[64];

static void write_events(struct err *e) {
    const struct tb_scalar first[] = {{"train/loss", 8.3125}, {"train/learning_rate", 3e-4}};
    const struct tb_scalar second[] = {{"eval/loss", NAN}};
    struct tb *tb = tb_open(dir, 1700000000.25, e);
    assert_non_null(tb);
    assert_int_equal(tb_scalars(tb, 1700000001.5, 1, first, 2, e), 0);
    assert_int_equal(tb_scalars(tb, 1700000002.5, 300, second, 1, e), 0);
    assert_int_equal(tb_close(tb, e), 0);
}

static void test_bytes(void **state) {
    (void)state;
    struct err e = {0};
    char **names;
    i64 count;
    write_events(&e);
    assert_int_equal(dir_list(dir, &names, &count, &e), 0);
    assert_int_equal(count, 1);
    assert_memory_equal(names[0], "events.out.tfevents.1700000000.", 31);
    char *path = mem_printf(&e, "%s/%s", dir, names[0]);
    struct text found = {0}, expected = {0};
    assert_int_equal(file_read(&found, path, &e), 0);
    assert_int_equal(file_read(&expected, "tests/golden/tensorboard/events.bin", &e), 0);
    assert_int_equal(found.size, expected.size);
    assert_memory_equal(found.data, expected.data, (size_t)expected.size);
    text_free(&found), text_free(&expected), mem_free(path), names_free(names, count);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const kinds[] = {"alloc", "open", "write", "mkdir"};
    for (i64 k = 0; k < COUNT(kinds); k++) {
        char spec[32];
        struct err e = {0};
        snprintf(spec, sizeof spec, "%s:1", kinds[k]);
        dir_remove(dir, &e);
        fault_arm(spec);
        assert_null(tb_open(dir, 0, &e));
        fault_arm(NULL);
        assert_int_not_equal(e.code, 0);
    }
}

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/hone-tb-XXXXXX");
    return !mkdtemp(dir);
}

static int teardown(void **state) {
    (void)state;
    struct err e = {0};
    return dir_remove(dir, &e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bytes), cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
