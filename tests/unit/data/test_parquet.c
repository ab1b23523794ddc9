/* test_parquet.c: the reader gives the rows that pyarrow wrote; what is broken or not supported is
 * refused by name. HONE_PARQUET=FOLDER compares the files of another folder. */
#include "data/datasets/readers.h"
#include "tests/unit/data/dataset_fixture.h"

static const char golden[] = "tests/golden/parquet";

static char *name_in(const char *from, const char *name, int cut, const char *ending) {
    struct err e = {0};
    char *path = mem_printf(&e, "%s/%.*s%s", from, (int)strlen(name) - cut, name, ending);
    assert_non_null(path);
    return path;
}

/* Rows of a file, or -1; what became null in *nulled. */
static i64 rows_of(const char *path, i64 *nulled, struct err *e) {
    struct parquet *p = parquet_open(path, e);
    i64 rows = 0;
    int r = p ? 1 : -1;
    while (r > 0) {
        struct file_row row = {0};
        r = parquet_next(p, &row, e);
        rows += r > 0;
        if (r > 0) assert_int_equal(row.line, rows);
        json_decref(row.json);
        if (rows > 100000) break; /* a broken one may hold long runs */
    }
    *nulled = p ? parquet_nulled(p) : 0;
    parquet_close(p);
    assert_int_equal(r < 0, e->code != 0);
    return r < 0 ? -1 : rows;
}

static void compare(const char *parquet, const char *lines) {
    struct err e = {0};
    struct input in;
    struct parquet *p = parquet_open(parquet, &e);
    if (!p || input_open(&in, lines, &e)) fail_msg("%s %s", e.primary, e.detail);
    struct json_rows other = {.in = &in};
    for (i64 n = 1;; n++) {
        struct file_row a = {0}, b = {0};
        const int one = parquet_next(p, &a, &e), two = json_rows_next(&other, &b, &e);
        if (one != two || one < 0) fail_msg("%s row %lld: %s", parquet, (long long)n, e.primary);
        if (!one) break;
        if (!json_equal(a.json, b.json)) fail_msg("%s: row %lld differs", parquet, (long long)n);
        json_decref(a.json), json_decref(b.json);
    }
    parquet_close(p), input_close(&in);
}

static void test_rows(void **state) {
    (void)state;
    const char *from = getenv("HONE_PARQUET") ? getenv("HONE_PARQUET") : golden;
    struct err e = {0};
    char **names;
    i64 count, compared = 0;
    assert_int_equal(dir_list(from, &names, &count, &e), 0);
    for (i64 i = 0; i < count; i++) {
        if (!ends_with(names[i], ".parquet")) continue;
        char *one = name_in(from, names[i], 0, ""), *two = name_in(from, names[i], 8, ".jsonl");
        if (path_exists(two)) compare(one, two), compared++;
        mem_free(one), mem_free(two);
    }
    names_free(names, count);
    assert_true(compared >= 18);
}

static void test_nulled(void **state) {
    (void)state;
    struct err e = {0};
    i64 nulled;
    char *path = name_in(golden, "odd.parquet", 0, "");
    assert_int_equal(rows_of(path, &nulled, &e), 2);
    assert_int_equal(nulled, 5);
    mem_free(path);
}

static void test_refusals(void **state) {
    (void)state;
    struct err e = {0};
    i64 nulled;
    assert_int_equal(rows_of("tests/golden/parquet/brotli.parquet", &nulled, &e), -1);
    assert_non_null(strstr(e.primary, "brotli.parquet': column 'messages.list.element.role', row "
                                      "group 0: is compressed with brotli, which is not read"));
    static const struct {
        const char *bytes;
        i64 size;
        const char *want;
    } bad[] = {{"", 0, "is not Parquet: it does not begin with PAR1"},
               {"{\"text\": \"a json file\"}", 23, "is not Parquet: it does not begin with PAR1"},
               {"PAR1\0\0\0\0\0\0\0\0", 12, "is not Parquet: it does not end with PAR1"},
               {"PAR1\xff\0\0\0PAR1", 12, "its footer is larger than the file"},
               {"PAR1\0\0\0\0PAR1", 12, "is not valid Parquet: its footer"},
               {"PAR1\0\0\0\0PARE", 12, "is encrypted"}};
    for (i64 i = 0; i < COUNT(bad); i++) {
        e = (struct err){0};
        const char *path = file_put("bad.parquet", bad[i].bytes, bad[i].size);
        assert_int_equal(rows_of(path, &nulled, &e), -1);
        if (!strstr(e.primary, bad[i].want)) fail_msg("%s: %s", bad[i].want, e.primary);
    }
    e = (struct err){0};
    assert_int_equal(rows_of(folder, &nulled, &e), -1);
    assert_non_null(strstr(e.primary, "is a folder"));
}

/* A file that nobody needs after a crash: file_put waits for the disk. */
static const char *quick_put(const char *name, const char *data, i64 size) {
    const char *path = in_folder(name);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    assert_int_equal(fwrite(data, 1, (size_t)size, to), size);
    assert_int_equal(fclose(to), 0);
    return path;
}

/* A file that was cut is refused; one of which a byte is another gives rows or an error. */
static void test_broken(void **state) {
    (void)state;
    static const char *const name[] = {"chat-none.parquet", "chat-zstd.parquet", "random-2.parquet",
                                       "random-10.parquet"};
    for (i64 k = 0; k < COUNT(name); k++) {
        struct err e = {0};
        struct text file;
        i64 nulled, refused = 0;
        char *path = name_in(golden, name[k], 0, "");
        assert_int_equal(file_read(&file, path, &e), 0);
        for (i64 cut = 0; cut < file.size; cut += 37, e = (struct err){0})
            assert_int_equal(rows_of(quick_put("cut.parquet", file.data, cut), &nulled, &e), -1);
        for (i64 at = 0; at < file.size; at += 3, e = (struct err){0}) {
            file.data[at] = (char)(file.data[at] ^ (1 << at % 8));
            refused += rows_of(quick_put("other.parquet", file.data, file.size), &nulled, &e) < 0;
            file.data[at] = (char)(file.data[at] ^ (1 << at % 8));
        }
        assert_true(refused > file.size / 3 / 4);
        text_free(&file), mem_free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_nulled),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_broken)};
    return cmocka_run_group_tests_name("parquet", tests, folder_make, folder_remove);
}
