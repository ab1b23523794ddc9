/* test_files.c: which files a path means: globs, folders, splits by name, dataset repositories;
 * what is not read is said; datasets of several files. */
#include "tests/unit/data/dataset_fixture.h"
#include <sys/stat.h>

/* A file of the folder, with the folders that it lies in. */
static void put(const char *name, const char *content) {
    struct err e = {0};
    char *path = mem_printf(&e, "%s/%s", folder, name);
    for (char *at = path + strlen(folder) + 1; (at = strchr(at, '/')); *at++ = '/')
        *at = 0, mkdir(path, 0777);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    fputs(content, to);
    assert_int_equal(fclose(to), 0);
    mem_free(path);
}

struct files_case {
    const char *path, *config, *split, *want; /* names, or "! " and a part of the error */
    bool has_split;
    const char *note; /* a part of it, NULL: none */
};

static void expect(const struct files_case *c) {
    struct err e = {0};
    struct data_files f;
    char found[1024] = "";
    char *path = mem_printf(&e, "%s/%s", folder, c->path);
    const int rc = data_files_find(&f, path, c->config, c->split, &e);
    for (i64 i = 0; i < f.count && !rc; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%s", i ? " " : "",
                 f.item[i].name);
    if (rc && (*c->want != '!' || !strstr(e.primary, c->want + 2)))
        fail_msg("%s: %s\n%s", c->path, e.primary, e.detail);
    if (!rc && strcmp(found, c->want)) fail_msg("%s: found '%s'", c->path, found);
    if (!rc) assert_int_equal(f.has_split, c->has_split);
    const char *note = f.note.size ? f.note.data : "";
    if (!rc && (c->note ? !strstr(note, c->note) : *note))
        fail_msg("%s: the note is '%s'", c->path, note);
    data_files_free(&f), mem_free(path);
}

static void expect_all(const struct files_case *cases, i64 count) {
    for (i64 i = 0; i < count; i++) expect(&cases[i]);
}

static void test_globs(void **state) {
    (void)state;
    put("g/b.jsonl", ""), put("g/a.jsonl", ""), put("g/c.csv", ""), put("g/x/d.jsonl", "");
    put("g/x/y/e.jsonl", ""), put("g/.hidden.jsonl", ""), put("g/[1].jsonl", "");
    static const struct files_case cases[] = {
        {"g/a.jsonl", NULL, NULL, "a.jsonl", false, NULL},
        {"g/missing.jsonl", NULL, NULL, "missing.jsonl", false, NULL}, /* opening says so */
        {"g/*.jsonl", NULL, NULL, "[1].jsonl a.jsonl b.jsonl", false, NULL},
        {"g/[1].jsonl", NULL, NULL, "[1].jsonl", false, NULL},
        {"g/[ab].*", NULL, NULL, "a.jsonl b.jsonl", false, NULL},
        {"g/?.csv", NULL, NULL, "c.csv", false, NULL},
        {"g/*/*.jsonl", NULL, NULL, "x/d.jsonl", false, NULL},
        {"g/**/*.jsonl", NULL, NULL, "[1].jsonl a.jsonl b.jsonl x/d.jsonl x/y/e.jsonl", false,
         NULL},
        {"g/x/**", NULL, NULL, "d.jsonl y/e.jsonl", false, NULL},
        {"g/*.parquet", NULL, NULL, "! no file matches", false, NULL},
        {"none/*.parquet", NULL, NULL, "! no file matches", false, NULL},
        {"g/a.jsonl", NULL, "test", "! has no split 'test'", false, NULL},
        {"g/a.jsonl", "c", NULL, "! is no dataset repository", false, NULL},
    };
    expect_all(cases, COUNT(cases));
}

static void test_folders(void **state) {
    (void)state;
    put("rows/b.json", ""), put("rows/a.jsonl.gz", ""), put("rows/LICENSE", "");
    put("rows/README.md", "# a folder"), put("rows/dataset_info.json", "");
    put("texts/x.txt", ""), put("texts/test of time.md", ""), put("texts/sub/train.md", "");
    put("texts/p.png", ""), put("two/a.csv", ""), put("two/a.parquet", ""), put("none/x.png", "");
    put("texts/run/recipe.lock", ""), put("texts/run/log.jsonl", "");
    put("saved/data-0.arrow", ""), put("saved/state.json", ""), put("saved/dataset_info.json", "");
    static const struct files_case cases[] = {
        {"rows", NULL, NULL, "a.jsonl.gz b.json", false,
         "2 files read, 3 not read: LICENSE, README.md, dataset_info.json\n"},
        {"rows//", NULL, NULL, "a.jsonl.gz b.json", false, "rows: 2 files read"},
        {"rows", NULL, "validation", "a.jsonl.gz b.json", false, "not read"},
        {"rows", NULL, "test", "! has no files of a split 'test'", false, NULL},
        {"rows", "c", NULL, "! has no configurations", false, NULL},
        {"texts", NULL, NULL, "sub/train.md test of time.md x.txt", false,
         "2 not read: p.png, run/"},
        {"two", NULL, NULL, "! holds files of several kinds: 1 .csv, 1 .parquet", false, NULL},
        {"none", NULL, NULL, "! is a folder without data files", false, NULL},
        {"saved", NULL, NULL, "! is a folder without data files", false, NULL},
    };
    expect_all(cases, COUNT(cases));
}

static void test_splits(void **state) {
    (void)state;
    put("s/data/train-00000-of-00002.parquet", ""), put("s/data/train-00001-of-00002.parquet", "");
    put("s/data/test-00000-of-00001.parquet", ""), put("s/data/validation-0.parquet", "");
    put("t/train.csv", ""), put("t/test.csv", ""), put("u/trained_by.csv", ""), put("u/b.csv", "");
    put("v/test/a.csv", ""), put("w/dev.csv", ""), put("w/a.csv", "");
    static const struct files_case cases[] = {
        {"s", NULL, NULL, "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
         false,
         "2 files read, 2 not read: data/test-00000-of-00001.parquet, data/validation-0.parquet"},
        {"s", NULL, "train", "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
         true, "not read"},
        {"s", NULL, "validation", "data/validation-0.parquet", true, "not read"},
        {"s", NULL, "test", "data/test-00000-of-00001.parquet", true, "not read"},
        {"t", NULL, "validation", "train.csv", false, "not read: test.csv"}, /* a part is cut off */
        {"t", NULL, "train", "train.csv", false, "not read: test.csv"},
        {"u", NULL, NULL, "b.csv trained_by.csv", false, NULL},
        {"v", NULL, NULL, "! files of validation or test alone", false, NULL},
        {"v", NULL, "test", "test/a.csv", true, NULL},
        {"w", NULL, NULL, "a.csv", false, "not read: dev.csv"},
        {"w", NULL, "validation", "dev.csv", true, "not read: a.csv"},
    };
    expect_all(cases, COUNT(cases));
}

static void test_repositories(void **state) {
    (void)state;
    put("r/a.csv", ""), put("r/b.csv", ""), put("r/d/c.csv", ""), put("r/z.parquet", "");
    put("r/README.md", "---\nlicense: mit\nconfigs:\n- config_name: one\n  data_files:\n"
                       "  - split: train\n    path: [b.csv, 'a*']\n  - split: test\n"
                       "    path: d/*.csv\n  default: true\n- config_name: two\n"
                       "  data_files: z.parquet\n- config_name: three\n  data_dir: d\n"
                       "- config_name: four\n  data_files: {dev: d, train: a.csv}\n"
                       "- config_name: five\n  data_files: ../x.csv\n- config_name: six\n"
                       "  data_files: [a.csv, no*.csv]\n- config_name: seven\n"
                       "  data_files: hf://datasets/x/y.csv\n- config_name: eight\n"
                       "  data_files:\n  - split: dev\n---\n# A data set\n");
    put("only/x.jsonl", ""), put("only/y.csv", "");
    put("only/README.md", "---\r\nconfigs:\r\n- data_files: '*.jsonl'\r\n---\r\n");
    put("several/a.csv", "");
    put("several/README.md", "---\nconfigs:\n- config_name: x\n  data_files: a.csv\n"
                             "- config_name: y\n  data_files: a.csv\n---\n");
    put("plain/a.csv", ""), put("plain/README.md", "---\nlicense: mit\n---\n");
    put("broken/a.csv", ""), put("broken/README.md", "---\nconfigs: [\n---\n");
    put("odd/a.csv", ""), put("odd/README.md", "---\nconfigs: yes\n---\n");
    static const struct files_case cases[] = {
        {"r", NULL, NULL, "b.csv a.csv", false,
         "split train of README.md, 2 files; not read: test"},
        {"r", NULL, "test", "d/c.csv", true, "not read: train"},
        {"r", NULL, "validation", "b.csv a.csv", false, "not read: test"},
        {"r", NULL, "dev", "! has no split 'dev'", false, NULL},
        {"r", "two", NULL, "z.parquet", false, NULL},
        {"r", "three", NULL, "c.csv", false, NULL},
        {"r", "four", "dev", "d/c.csv", true, "not read: train"},
        {"r", "five", NULL, "! is not in the folder", false, NULL},
        {"r", "six", NULL, "! names 'no*.csv', and no file here matches", false, NULL},
        {"r", "seven", NULL, "! is not in the folder", false, NULL},
        {"r", "eight", NULL, "! has no name or no path", false, NULL},
        {"r", "nine", NULL, "! has no configuration 'nine'", false, NULL},
        {"only", NULL, NULL, "x.jsonl", false, NULL},
        {"several", NULL, NULL, "! several configurations, and none is the default", false, NULL},
        {"several", "y", NULL, "a.csv", false, NULL},
        {"plain", NULL, NULL, "a.csv", false, "not read: README.md"},
        {"broken", NULL, NULL, "! README.md:3: its front matter is not valid YAML", false, NULL},
        {"odd", NULL, NULL, "! configs is no list", false, NULL},
    };
    expect_all(cases, COUNT(cases));
}

/* A folder is one source: files in order, each named; the split is by rows counted through it. */
/* A folder of the hub's cache is the revision in it, with its own README.md. */
static void test_cache(void **state) {
    (void)state;
    put("c/refs/main", "01"), put("c/snapshots/01/a/b.jsonl", ""),
        put("c/snapshots/01/a/c.csv", "");
    put("c/snapshots/01/README.md",
        "---\nconfigs:\n- config_name: default\n  data_files: a/b.jsonl\n"
        "---\n");
    put("d/snapshots/01/b.jsonl", ""), put("d/snapshots/02/b.jsonl", "");
    static const struct files_case cases[] = {
        {"c/", NULL, NULL, "a/b.jsonl", false, "c: what is read is "},
        {"d", NULL, NULL, "! is a cache of the hub with 2 revisions", false, NULL},
        {"d/snapshots/02", NULL, NULL, "b.jsonl", false, NULL},
    };
    expect_all(cases, COUNT(cases));
}

static void test_dataset(void **state) {
    (void)state;
    struct err e = {0};
    struct text notes = {0};
    char name[64];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "many/%03d.jsonl", i);
        put(name, "{\"text\": \"ab\"}\n");
    }
    put("many/x/NaN.jsonl", "{\"text\": \"abcd\", \"n\": [NaN, -Infinity]}\n");
    const char *source = in_folder("many");
    struct dataset_job job = byte_job(&source, in_folder("many.h5"));
    job.notes = &notes;
    i64 documents = 0;
    for (int split = SPLIT_ALL; split <= SPLIT_VALIDATION; split++) {
        job.options = (struct source_options){
            .split = (enum split)split, .validation_fraction = 0.1, .seed = 3};
        if (dataset_build(&job, &e)) fail_msg("%s %s", e.primary, e.detail);
        struct dataset *d = dataset_open(job.path, &e);
        const struct dataset_info *info = dataset_info(d);
        if (!split) {
            assert_int_equal(info->documents, 201);
            assert_int_equal(info->tokens, 200 * 3 + 5);
            const char *at = strstr(info->sources, "\"000.jsonl\"");
            assert_true(at && strstr(at, "\"199.jsonl\"") && strstr(at, "\"x/NaN.jsonl\""));
            assert_non_null(strstr(notes.data, "000.jsonl: 1 row, 1 document\n"));
            assert_null(strstr(notes.data, "020.jsonl")); /* a user reads no more */
            assert_non_null(strstr(notes.data, "many: 201 files, 201 rows\n"));
            assert_non_null(strstr(notes.data, "many: values that JSON has no form for (NaN, bytes "
                                               "that are no text) are read as null (1 time, "
                                               "x/NaN.jsonl:1)\n"));
        } else
            documents += info->documents;
        if (split == SPLIT_VALIDATION) assert_in_range(info->documents, 8, 35);
        dataset_close(d);
    }
    assert_int_equal(documents, 201);
    text_free(&notes);
    job.options = (struct source_options){0}, job.file_split = "train";
    assert_int_equal(dataset_build(&job, &e), -1);
    assert_non_null(strstr(e.primary, "has no files of a split 'train'"));
}

/* What became of the rows is said of all files at once: of a thousand, too. */
static void test_notes(void **state) {
    (void)state;
    struct err e = {0};
    struct text notes = {0};
    char want[2048];
    put("n/a.jsonl",
        "{\"body\": \"ab\", \"id\": 1}\n{\"body\": 7}\n{\"body\": \"ab\", \"id\": 2}\n");
    put("n/b.jsonl", "{\"body\": 7}\n{\"body\": 7}\n{\"body\": 7}\n{\"body\": \"\"}\n");
    put("n/c.jsonl", "{\"text\": \"cd\", \"id\": 3}\n"); /* without the column: another has it */
    const char *source = in_folder("n");
    struct dataset_job job = byte_job(&source, in_folder("n.h5"));
    json_t *columns = json_pack("{s:s}", "text", "body");
    job.notes = &notes, job.options.rules.columns = columns, job.options.rules.skip = true;
    if (dataset_build(&job, &e)) fail_msg("%s %s", e.primary, e.detail);
    snprintf(want, sizeof want,
             "note: %s: left out: 'text' is an integer (4 times, a.jsonl:2, b.jsonl:1, b.jsonl:2, "
             "...)\nnote: %s: left out: no text found; the keys are: 'id' (1 time, c.jsonl:1)\n"
             "note: %s: the text is empty (1 time, b.jsonl:4)\n"
             "note: column 'id' of %s is not used (2 rows)\nnote: column 'text' of %s is not used "
             "(1 row)\n",
             source, source, source, source, source);
    const char *said = strstr(notes.data, "3 files, 8 rows\n");
    assert_non_null(said);
    assert_string_equal(said + strlen("3 files, 8 rows\n"), want);
    json_object_set_new(columns, "prompt", json_string("ask"));
    for (int split = SPLIT_ALL; split <= SPLIT_TRAIN; split++) {
        job.options.split = (enum split)split, e = (struct err){0};
        assert_int_equal(dataset_build(&job, &e), -1);
        assert_non_null(strstr(e.primary, "n: columns: no row has a column 'ask' (for prompt)"));
    }
    json_decref(columns), text_free(&notes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_globs),   cmocka_unit_test(test_folders),
        cmocka_unit_test(test_splits),  cmocka_unit_test(test_repositories),
        cmocka_unit_test(test_dataset), cmocka_unit_test(test_cache),
        cmocka_unit_test(test_notes)};
    return cmocka_run_group_tests_name("files", tests, folder_make, folder_remove);
}
