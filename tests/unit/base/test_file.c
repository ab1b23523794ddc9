/* Files, SHA-256 and JSON, in a temporary folder of their own. */
#include "base/base.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/hone-test-XXXXXX";
static char path_buffer[256];

static const char *in_folder(const char *name) {
    snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
    return path_buffer;
}

static void assert_content(const char *path, const char *want) {
    struct text t;
    struct err e = {0};
    assert_int_equal(file_read(&t, path, &e), 0);
    assert_string_equal(t.data, want);
    text_free(&t);
}

/* No part of the program cuts a path: the cut one may be there too, and be another file. */
static void test_long_paths(void **unused) {
    (void)unused;
    enum { LONG = 3000 };
    struct arena a = {0};
    struct err e = {0};
    char part[LONG + 1], target[LONG + 1];
    memset(part, 'p', LONG), part[LONG] = 0;
    char *heap = path_join(NULL, part, part, &e), *kept = path_join(&a, part, "b", &e);
    assert_true(strlen(heap) == 2 * LONG + 1 && heap[LONG] == '/');
    assert_true(strlen(kept) == LONG + 2 && !strcmp(kept + LONG, "/b"));
    assert_int_equal(path_has(part, part, &e), 0);
    mem_free(heap), arena_free(&a);
    for (int i = 0; i < LONG; i++)
        target[i] = "./"[i % 2]; /* a link that says much to say little */
    strcpy(target + LONG - 8, "../later");
    assert_int_equal(dir_make(in_folder("links"), &e), 0);
    assert_int_equal(symlink(target, in_folder("links/long")), 0);
    char *real = path_resolve(path_buffer, &e), *want = path_resolve(in_folder("later"), &e);
    assert_string_equal(real, want);
    mem_free(real), mem_free(want);
    fault_arm("alloc:1");
    assert_int_equal(path_has("a", "b", &e), -1);
    fault_arm(NULL);
    assert_true(e.starved);
}

static void test_roundtrip(void **unused) {
    (void)unused;
    struct err e = {0};
    const char *path = in_folder("a/b//c");
    assert_int_equal(dir_make(path, &e), 0);
    assert_int_equal(dir_make(path, &e), 0);
    assert_true(path_is_dir(path) && !path_is_dir(in_folder("missing")));
    i64 size = 3000001;
    u8 *data = mem_new(size, &e);
    for (i64 i = 0; i < size; i++) data[i] = (u8)(i * 7 >> 3);
    path = in_folder("a/big");
    assert_int_equal(file_write(path, data, size, &e), 0);
    assert_int_equal(path_size(path), size);
    struct text t;
    struct map m;
    assert_int_equal(file_read(&t, path, &e) || map_open(&m, path, &e), 0);
    assert_true(t.size == size && !memcmp(t.data, data, (size_t)size) && t.data[size] == 0);
    assert_true(m.size == size && !memcmp(m.data, data, (size_t)size));
    char hex[65], other[65];
    assert_int_equal(sha256_file(path, hex, &e) || sha256_bytes(data, size, other, &e), 0);
    assert_string_equal(hex, other);
    map_close(&m);
    text_free(&t);
    mem_free(data);
    assert_int_equal(file_write(in_folder("a/empty"), NULL, 0, &e), 0);
    assert_int_equal(map_open(&m, path_buffer, &e), 0);
    assert_int_equal(m.size, 0);
    map_close(&m);
    char **names;
    i64 count;
    assert_int_equal(dir_list(in_folder("a"), &names, &count, &e), 0);
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "b");
    assert_string_equal(names[2], "empty");
    names_free(names, count);
    assert_int_equal(symlink("/etc", in_folder("a/link")), 0);
    assert_int_equal(dir_remove(in_folder("a"), &e), 0); /* the link goes, not what it names */
    assert_false(path_exists(path_buffer));
    assert_true(path_exists("/etc/passwd") && disk_free(folder) > 0);
    assert_int_equal(dir_remove(path_buffer, &e), 0);
    assert_int_equal(e.code, 0);
}

/* Nothing here may wait: a pipe without a writer would do so for ever. */
static void test_no_files(void **unused) {
    (void)unused;
    const char *const path[] = {in_folder("pipe"), "/dev/zero", "/dev/null"};
    static const char *const kind[] = {"a named pipe", "a device", "a device"};
    char hex[65];
    struct text t;
    struct map m;
    assert_int_equal(mkfifo(path[0], 0600), 0);
    for (int i = 0; i < COUNT(path); i++) {
        struct err e[5] = {{0}};
        assert_int_equal(file_read(&t, path[i], &e[0]), -1);
        assert_int_equal(map_open(&m, path[i], &e[1]), -1);
        assert_int_equal(sha256_file(path[i], hex, &e[2]), -1);
        assert_int_equal(file_regular(path[i], &e[3]), -1);
        assert_int_equal(i ? file_write(path[i], "x", 1, &e[4]) : -1, -1);
        for (int k = 0; k < 4 + (i > 0); k++) {
            assert_int_equal(e[k].code, ERR_INPUT);
            assert_non_null(strstr(e[k].primary, kind[i]));
            assert_non_null(strstr(e[k].primary, path[i]));
        }
    }
    struct err e = {0}; /* nobody reads it: ENXIO, said as what it is */
    assert_int_equal(file_write(in_folder("pipe"), "x", 1, &e), -1);
    assert_non_null(strstr(e.primary, "a named pipe"));
    assert_int_equal(unlink(in_folder("pipe")), 0);
    int end[2]; /* a stream that the caller hands over is read, as `<(...)` of a shell is */
    char name[32];
    assert_int_equal(pipe(end), 0);
    snprintf(name, sizeof name, "/dev/fd/%d", end[0]);
    assert_int_equal(write(end[1], "handed over", 11), 11);
    close(end[1]);
    assert_content(name, "handed over");
    close(end[0]);
}

/* Inputs may be texts, and outputs may be long: neither is a reason to stop. */
static void test_odd_paths(void **unused) {
    (void)unused;
    struct err e = {0};
    enum { DEEP = 2040 };
    char text[600] = "", *deep = mem_new(2 * DEEP + 2, &e);
    const char *output = in_folder("new"), *input = text;
    memset(text, '%', sizeof text - 1); /* longer than a name may be: a template, not a file */
    assert_int_equal(paths_apart(&output, 1, &input, 1, &e), 0);
    for (int i = 0; i < DEEP; i++) memcpy(deep + 2 * i, "x/", 2);
    deep[2 * DEEP] = 'y';
    char *resolved = path_resolve(deep, &e);
    assert_non_null(resolved);
    assert_true(ends_with(resolved, deep));
    mem_free(resolved), mem_free(deep);
}

static void test_messages(void **unused) {
    (void)unused;
    struct err e = {0}, e2 = {0}, e3 = {0};
    struct text t;
    struct map m;
    assert_int_equal(file_read(&t, "no/such", &e), -1);
    assert_string_equal(e.primary, "cannot open no/such: No such file or directory");
    assert_int_equal(e.code, ERR_INPUT);
    assert_int_equal(file_read(&t, "tests", &e2), -1);
    assert_string_equal(e2.primary, "cannot read tests: Is a directory");
    assert_int_equal(map_open(&m, "tests", &e3), -1);
    assert_string_equal(e3.primary, "cannot read tests: not a regular file");
}

/* Whatever fails, the old content stays, or, once renamed, the new is there; nothing leaks, no
 * temporary remains. */
static void test_replace_faults(void **unused) {
    (void)unused;
    static const char *const kinds[] = {"alloc", "open", "write", "fsync", "rename"};
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("settings"));
    for (i64 k = 0; k < COUNT(kinds); k++) {
        for (int n = 1;; n++) {
            struct err e = {0};
            char spec[32];
            assert_int_equal(file_write(path, "old", 3, &e), 0);
            snprintf(spec, sizeof spec, "%s:%d", kinds[k], n);
            fault_arm(spec);
            int result = file_replace(path, "new!", 4, &e);
            fault_arm(NULL);
            bool renamed = path_size(path) == 4;
            assert_content(path, renamed ? "new!" : "old");
            assert_false(path_exists(in_folder("settings.new")));
            assert_int_equal(result != 0, e.code != 0);
            if (!result) {
                assert_true(n > 1 && renamed);
                break;
            }
            assert_int_equal(e.code, strcmp(kinds[k], "open") ? ERR_FAILED : ERR_INPUT);
        }
    }
}

/* A folder that somebody else packed may hold a link where the new content is written first. */
static void test_replace_link(void **unused) {
    (void)unused;
    struct err e = {0};
    char path[256], fresh[256];
    snprintf(path, sizeof path, "%s", in_folder("page"));
    snprintf(fresh, sizeof fresh, "%s", in_folder("page.new"));
    assert_int_equal(file_write(in_folder("other"), "mine", 4, &e), 0);
    assert_int_equal(symlink("other", fresh), 0);
    assert_int_equal(file_replace(path, "new", 3, &e), 0);
    assert_content(in_folder("other"), "mine");
    assert_content(path, "new");
    assert_false(path_exists(fresh));
}

static void test_read_faults(void **unused) {
    (void)unused;
    static const char *const kinds[] = {"alloc", "open", "read"};
    struct err e = {0};
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("input"));
    assert_int_equal(file_write(path, "{}", 2, &e), 0);
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (int n = 1, failed = 1; failed; n++) {
            char spec[32], hex[65];
            struct text t = {0};
            struct map m = {0};
            char **names = NULL;
            i64 count = 0;
            e = (struct err){0};
            snprintf(spec, sizeof spec, "%s:%d", kinds[k], n);
            fault_arm(spec);
            failed = file_read(&t, path, &e) || map_open(&m, path, &e) ||
                     sha256_file(path, hex, &e) || dir_list(folder, &names, &count, &e);
            fault_arm(NULL);
            assert_int_equal(failed != 0, e.code != 0);
            text_free(&t);
            map_close(&m);
            names_free(names, count);
        }
}

static void test_sha256(void **unused) {
    (void)unused;
    char hex[65]; /* FIPS 180-2, appendix B.1 */
    struct err e = {0};
    assert_int_equal(sha256_bytes("abc", 3, hex, &e), 0);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void refuse(const char *text, const char *primary) {
    struct err e = {0};
    assert_null(json_parse(text, (i64)strlen(text), "c.json", &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.primary, primary);
}

static void test_json_refuses(void **unused) {
    (void)unused;
    refuse("{\"a\": 1,\n \"a\": 2}", "c.json:2:4: duplicate object key near '\"a\"'");
    refuse("", "c.json:1:0: '[' or '{' expected near end of file");
    refuse("{} x", "c.json:1:4: end of file expected near 'x'");
    refuse("{\"a\": NaN}", "c.json:1:9: invalid token near 'NaN'");
    refuse("{\"a\": 1e999}", "c.json:1:11: real number overflow near '1e999'");
    refuse("[\"\xff\"]", "c.json:1:2: unable to decode byte 0xff near '\"'");
    struct text bomb = {0};
    struct err e = {0};
    for (int i = 0; i < 100000; i++) text_add(&bomb, "[", 1, &e);
    assert_null(json_parse(bomb.data, bomb.size, "bomb", &e));
    assert_non_null(strstr(e.primary, "maximum parsing depth reached"));
    text_free(&bomb);
}

static void test_json(void **unused) {
    (void)unused;
    static const char text[] =
        "{\n  \"z\": 1e-05,\n  \"a\": [\n    1,\n    true,\n    null,\n    {}\n  ],\n"
        "  \"theta\": 500000.0,\n  \"t\": \"\\u0001\\n\\\"\xc3\xa9\",\n  \"big\": 1e+30\n}\n";
    struct err e = {0};
    json_t *j = json_parse(text, sizeof text - 1, "c.json", &e);
    assert_int_equal(json_save(j, in_folder("c.json"), 2, &e), 0);
    assert_content(path_buffer, text);
    assert_true(json_f64(j, "z", 0, "c.json", &e) == 1e-5 &&
                json_i64(j, "theta", 0, "c.json", &e) == 500000);
    assert_int_equal(json_i64(j, "missing", 7, "c.json", &e), 7);
    assert_true(json_bool(j, "missing", true, "c.json", &e) &&
                !json_text(j, "missing", NULL, "c.json", &e));
    assert_int_equal(e.code, 0);
    assert_int_equal(json_i64(j, "z", 3, "c.json", &e), 3);
    assert_string_equal(e.primary, "c.json: \"z\" is 1e-05; expected an integer");
    struct err e2 = {0};
    assert_null(json_text(j, "a", NULL, "c.json", &e2));
    assert_string_equal(e2.primary, "c.json: \"a\" is [1, true, null, {}]; expected a string");
    json_decref(j);
    struct err e3 = {0};
    static const char large[] = "{\"model_max_length\": 1000000000000000019884624838656, \"n\": 5}";
    j = json_parse(large, sizeof large - 1, "t.json", &e3);
    assert_true(json_f64(j, "model_max_length", 0, "t.json", &e3) == 1e30);
    assert_int_equal(json_i64(j, "n", 0, "t.json", &e3), 5);
    assert_int_equal(e3.code, 0);
    json_decref(j);
}

static void test_numbers(void **unused) {
    (void)unused;
    static const struct {
        double x;
        const char *want;
    } rows[] = {{0, "0.0"},
                {-1, "-1.0"},
                {0.1, "0.1"},
                {1e16, "1e+16"},
                {1e15, "1000000000000000.0"},
                {123456.75, "123456.75"},
                {1e-4, "0.0001"},
                {1.5e-5, "1.5e-05"},
                {1e100, "1e+100"},
                {1.0 / 3, "0.3333333333333333"},
                {0x1p-1074, "5e-324"}};
    isa_float_mode(); /* denormals must survive it */
    for (i64 i = 0; i < COUNT(rows); i++) {
        struct text t = {0};
        assert_int_equal(text_f64(&t, rows[i].x, NULL), 0);
        assert_string_equal(t.data, rows[i].want);
        text_free(&t);
    }
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roundtrip),      cmocka_unit_test(test_long_paths),
        cmocka_unit_test(test_no_files),       cmocka_unit_test(test_messages),
        cmocka_unit_test(test_replace_faults), cmocka_unit_test(test_read_faults),
        cmocka_unit_test(test_sha256),         cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_json),           cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_odd_paths),      cmocka_unit_test(test_replace_link),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return dir_remove(folder, NULL) || failed;
}
