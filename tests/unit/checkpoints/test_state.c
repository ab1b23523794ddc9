/* test_state.c: training state comes back bit for bit, equal states give equal files whatever the
 * threads, and damage is found and named. With HONE_BENCH=1 prints sizes and speeds on normal f32
 * (how the zstd level was chosen). */
#include "tests/unit/checkpoints/fixture.h"
#include <sys/resource.h>
#include <signal.h>
#include <sys/wait.h>

static char path[256], other[256];

/* Shapes that exercise the cut: one chunk, a partial last one, a cut in each dimension, rows of
 * exactly a chunk, rows wider than a chunk, nothing at all. */
static const struct {
    const char *name;
    enum dtype dtype;
    int rank;
    i64 dim[4];
} array[] = {
    {"master/lm_head.weight", F32, 2, {131, 32}},
    {"m", F32, 1, {600001}},
    {"v", F64, 3, {3, 5, 40001}},
    {"exact", F32, 2, {3, 262144}},
    {"wide", U8, 3, {2, 3, 1100000}},
    {"rows", F32, 2, {1500, 700}},
    {"ids", I64, 4, {2, 1, 3, 70000}},
    {"none", F32, 2, {0, 7}},
    {"one", I64, 1, {1}},
};

static i64 bytes_of(i64 i) {
    i64 n;
    shape_count(array[i].rank, array[i].dim, &n);
    return n * dtype_size(array[i].dtype);
}

static u8 *filled(i64 i) {
    struct rng r = {.seed = 7, .purpose = RNG_TEST, .stream = (u32)i};
    i64 n = bytes_of(i);
    u8 *data = mem_new(n + 16, NULL);
    for (i64 b = 0; b < n; b += 16) {
        u32 word[4];
        rng_block(&r, (u64)b, word);
        memcpy(data + b, word, (size_t)i64_min(16, n - b));
    }
    return data;
}

static int state_make(const char *to, struct err *e) {
    struct state_writer *w = state_create(to, e);
    int status = w ? 0 : -1;
    for (i64 i = 0; i < COUNT(array) && !status; i++) {
        u8 *data = filled(i);
        status = state_add(w, array[i].name, array[i].dtype, array[i].rank, array[i].dim, data, e);
        mem_free(data);
    }
    status =
        status || state_put_i64(w, "tokens", 1234567890123, e) || state_put_f64(w, "lr", 1e-3, e) ||
        state_put_text(w, "recipe", "seed: 1\n\xc3\xa9", e) || state_put_text(w, "empty", "", e);
    return state_finish(w, !status, e);
}

static void round_trip(void **state) {
    (void)state;
    struct err e = {0};
    ok(state_make(path, &e), &e);
    struct state_reader *r = state_open(path, &e);
    ok(!r, &e);
    for (i64 i = 0; i < COUNT(array); i++) {
        u8 *data = filled(i), *got = mem_new(bytes_of(i) + 1, NULL);
        enum dtype dtype;
        int rank;
        i64 dim[STORED_RANK];
        ok(state_shape(r, array[i].name, &dtype, &rank, dim, &e), &e);
        assert_int_equal(dtype, array[i].dtype);
        assert_int_equal(rank, array[i].rank);
        assert_memory_equal(dim, array[i].dim, (size_t)rank * sizeof *dim);
        ok(state_get(r, array[i].name, dtype, rank, dim, got, &e), &e);
        assert_memory_equal(data, got, (size_t)bytes_of(i));
        mem_free(data);
        mem_free(got);
    }
    i64 tokens;
    double lr;
    ok(state_get_i64(r, "tokens", &tokens, &e) || state_get_f64(r, "lr", &lr, &e), &e);
    assert_true(tokens == 1234567890123 && lr == 1e-3);
    char *recipe = state_get_text(r, "recipe", &e), *empty = state_get_text(r, "empty", &e);
    assert_string_equal(recipe, "seed: 1\n\xc3\xa9");
    assert_string_equal(empty, "");
    mem_free(recipe);
    mem_free(empty);
    assert_true(state_has(r, "master/lm_head.weight"));
    assert_false(state_has(r, "master/x"));
    assert_false(state_has(r, "absent/x"));
    state_close(r);
}

static void same_bytes(void **state) {
    (void)state;
    struct err e = {0};
    char a[65], b[65];
    ok(state_make(path, &e), &e);
    ok(pool_start(3, &e), &e);
    sleep(1); /* a recorded time would differ */
    ok(state_make(other, &e), &e);
    pool_stop();
    ok(sha256_file(path, a, &e) || sha256_file(other, b, &e), &e);
    assert_string_equal(a, b);
}

static void mismatches(void **state) {
    (void)state;
    struct err e = {0};
    float got[8];
    i64 number;
    ok(state_make(path, &e), &e);
    struct state_reader *r = state_open(path, &e);
    assert_int_equal(state_get(r, "absent", F32, 1, (i64[]){1}, got, &e), -1);
    assert_string_equal(e.primary + strlen(folder), "/state.h5 has no array absent");
    e = (struct err){0};
    assert_int_equal(state_get(r, "one", F32, 2, (i64[]){1, 8}, got, &e), -1);
    assert_string_equal(e.primary + strlen(folder),
                        "/state.h5: array one is i64 [1], expected f32 [1, 8]");
    e = (struct err){0};
    assert_int_equal(state_get_i64(r, "lr", &number, &e), -1);
    assert_string_equal(e.primary + strlen(folder),
                        "/state.h5: attribute lr is not one whole number");
    e = (struct err){0};
    assert_int_equal(state_get_i64(r, "steps", &number, &e), -1);
    assert_string_equal(e.primary + strlen(folder), "/state.h5 has no attribute steps");
    state_close(r);
    e = (struct err){0};
    assert_null(state_open("tests/unit/checkpoints/test_state.c", &e));
    assert_string_equal(e.primary, "'tests/unit/checkpoints/test_state.c' is not an HDF5 file");
    e = (struct err){0};
    assert_null(state_open("/nowhere/state.h5", &e));
    assert_string_equal(e.primary, "/nowhere/state.h5 is missing");
    e = (struct err){0};
    assert_null(state_create("/nowhere/state.h5", &e));
    assert_string_equal(e.primary, "cannot create /nowhere/state.h5: No such file or directory");
    e = (struct err){0};
    struct state_writer *w = state_create(other, &e);
    assert_int_equal(state_add(w, "half", F16, 1, (i64[]){1}, got, &e), -1);
    assert_string_equal(
        e.primary,
        "array half cannot be stored: state files hold f32, f64, i64 and u8 of rank 1 to 8");
    assert_int_equal(state_finish(w, false, &e), -1);
    assert_false(path_exists(other));
}

/* A changed byte within the chunks must never be read as data. */
static void damaged(void **state) {
    (void)state;
    struct err e = {0};
    i64 dim[] = {60000};
    float *data = mem_new(240000, NULL);
    for (int i = 0; i < 60000; i++) data[i] = (float)i * 0.001f;
    struct state_writer *w = state_create(path, &e);
    ok(state_add(w, "m", F32, 1, dim, data, &e) || state_finish(w, true, &e), &e);
    struct text file;
    ok(file_read(&file, path, &e), &e);
    float *got = mem_new(240000, NULL);
    int refused = 0, tried = 0;
    for (i64 at = 0; at < file.size; at += file.size / 61, tried++) {
        struct err why = {0};
        file.data[at] ^= 16;
        ok(file_write(other, file.data, file.size, &e), &e);
        file.data[at] ^= 16;
        struct state_reader *r = state_open(other, &why);
        if (!r || state_get(r, "m", F32, 1, dim, got, &why))
            refused++;
        else
            assert_memory_equal(got, data, 240000);
        state_close(r);
        assert_true(!why.code || strstr(why.primary, other));
    }
    assert_true(refused > tried / 2); /* the others hit bytes that nothing uses */
    mem_free(got);
    text_free(&file);
    mem_free(data);
}

static void faults(void **state) {
    (void)state;
    static const char *const kind[] = {"open", "write", "fsync", "alloc"};
    for (i64 k = 0; k < COUNT(kind); k++)
        for (int n = 1;; n++) {
            char spec[32];
            struct err e = {0};
            snprintf(spec, sizeof spec, "%s:%d", kind[k], n);
            i64 dim[] = {600000};
            unlink(path);
            fault_arm(spec);
            struct state_writer *w = state_create(path, &e);
            static float data[600000];
            int status = w && !state_add(w, "m", F32, 1, dim, data, &e);
            status = state_finish(w, status, &e);
            fault_arm(NULL);
            assert_int_equal(status != 0, e.code != 0);
            assert_int_equal(status == 0, path_exists(path));
            if (!status) break;
        }
}

/* The disk stops taking data at any size: an error, no crash, no file left. */
static void full_disk(void **state) {
    (void)state;
    for (int kib = 0; kib < 3000; kib += 251) {
        pid_t child = fork();
        if (!child) {
            struct err e = {0};
            struct rlimit limit = {(rlim_t)kib << 10, (rlim_t)kib << 10};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            int status = state_make(other, &e);
            if (getenv("HONE_BENCH")) err_print(&e, stderr);
            _exit(status && e.code && strstr(e.primary, "File too large") && !path_exists(other)
                      ? 0
                      : 1);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

static void bench(void **state) {
    (void)state;
    if (!getenv("HONE_BENCH")) return;
    struct err e = {0};
    i64 dim[] = {4096, 4096};
    float *data = mem_new(dim[0] * dim[1] * 4, NULL);
    struct rng r = {.seed = 1, .purpose = RNG_TEST};
    for (i64 i = 0; i < dim[0] * dim[1]; i++) data[i] = 0.02f * rng_normal(&r, (u64)i);
    ok(pool_start(0, &e), &e);
    double write = 1e9, read = 1e9, mib = (double)(dim[0] * dim[1]) * 4 / (1 << 20);
    for (int i = 0; i < 5; i++) {
        double t = clock_seconds();
        struct state_writer *w = state_create(path, &e);
        ok(state_add(w, "m", F32, 2, dim, data, &e) || state_finish(w, true, &e), &e);
        if (clock_seconds() - t < write) write = clock_seconds() - t;
        t = clock_seconds();
        struct state_reader *reader = state_open(path, &e);
        ok(state_get(reader, "m", F32, 2, dim, data, &e), &e);
        state_close(reader);
        if (clock_seconds() - t < read) read = clock_seconds() - t;
    }
    print_message("write %.0f MiB/s, read %.0f MiB/s, %.1f %% of the size\n", mib / write,
                  mib / read, (double)path_size(path) / (double)(dim[0] * dim[1] * 4) * 100);
    pool_stop();
    mem_free(data);
}

static int set_up(void **state) {
    if (folder_make(state)) return -1;
    snprintf(path, sizeof path, "%s/state.h5", folder);
    snprintf(other, sizeof other, "%s/other.h5", folder);
    return 0;
}

/* The digest, literally as README.md defines it. */
static void digest_as_defined(void **state) {
    (void)state;
    struct state_rows rows = {0};
    struct err e = {0};
    char a[65], b[65], want[65], got[65], text[400];
    ok(state_row_add(&rows, "w/weight", "12345678", 8, &e), &e);
    ok(state_row_add(&rows, "w/m", "abcd", 4, &e), &e);
    ok(sha256_bytes("12345678", 8, a, &e) || sha256_bytes("abcd", 4, b, &e), &e);
    const int size =
        snprintf(text, sizeof text, "hone state 2\nstep 17\n%s  w/m\n%s  w/weight\n", b, a);
    ok(sha256_bytes(text, size, want, &e) || state_rows_digest(&rows, 17, got, &e), &e);
    assert_string_equal(got, want);
    state_rows_free(&rows);
    ok(state_rows_digest(&rows, 0, got, &e) || sha256_bytes("hone state 2\nstep 0\n", 20, want, &e),
       &e);
    assert_string_equal(got, want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_as_defined), cmocka_unit_test(round_trip),
        cmocka_unit_test(same_bytes),        cmocka_unit_test(mismatches),
        cmocka_unit_test(damaged),           cmocka_unit_test(faults),
        cmocka_unit_test(full_disk),         cmocka_unit_test(bench),
    };
    return cmocka_run_group_tests(tests, set_up, folder_remove);
}
