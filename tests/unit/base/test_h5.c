/* test_h5.c: the HDF5 library reads what we write; we read what hone wrote through that library;
 * damage of every kind, with checksums made right again or without, is refused or harmless.
 * HONE_SLOW=1 tries 100 times as many damages. */
#define HONE_H5_LIBRARY
#include "tests/h5_tools.h"
#include "checkpoints/checkpoints_int.h"
#include "data/datasets/datasets.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN "tests/golden/hdf5/"
static char folder[] = "/tmp/hone-h5-XXXXXX", path[64], other[64];

static void ok(int status, const struct err *e) {
    if (status || e->code) fail_msg("%s (%s)", e->primary, e->detail);
}

/* ---- the library reads it -------------------------------------------------------------------- */

static const enum h5_type kinds[] = {H5_U8, H5_U16, H5_U32, H5_U64, H5_I64, H5_F32, H5_F64};

static hid_t library_type(enum h5_type type) {
    const hid_t types[] = {H5T_STD_U8LE,  H5T_STD_U16LE,  H5T_STD_U32LE, H5T_STD_U64LE,
                           H5T_STD_I64LE, H5T_IEEE_F32LE, H5T_IEEE_F64LE};
    return types[type];
}

static void contiguous_add(struct h5_writer *w, const char *name, enum h5_type type,
                           struct err *e) {
    struct h5_piece piece;
    u8 data[6 * 8];
    for (int i = 0; i < 48; i++) data[i] = (u8)(i + type);
    ok(h5_append(w, data, 6 * h5_size[type], &piece, e), e);
    const struct h5_array a = {
        .name = name, .type = type, .rank = 2, .dim = {2, 3}, .piece = &piece, .pieces = 1};
    ok(h5_add(w, &a, e), e);
}

static void library_reads_types(void **state) {
    (void)state;
    struct err e = {0};
    struct h5_writer *w = h5_create(path, &e);
    char name[32];
    for (i64 i = 0; i < COUNT(kinds); i++) {
        snprintf(name, sizeof name, "group/deeper/%d", kinds[i]);
        contiguous_add(w, name, kinds[i], &e);
    }
    const struct h5_array none = {.name = "none", .type = H5_F32, .rank = 2, .dim = {0, 7}};
    ok(h5_add(w, &none, &e), &e);
    ok(h5_put_i64(w, "number", -5, &e) || h5_put_f64(w, "half", 0.5, &e) ||
           h5_put_text(w, "text", "words", &e) || h5_put_text(w, "nothing", "", &e),
       &e);
    ok(h5_finish(w, true, &e), &e);
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (i64 i = 0; i < COUNT(kinds); i++) {
        u8 data[48];
        snprintf(name, sizeof name, "group/deeper/%d", kinds[i]);
        hid_t d = H5Dopen2(f, name, H5P_DEFAULT), type = H5Dget_type(d);
        assert_true(H5Tequal(type, library_type(kinds[i])) > 0);
        assert_true(H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
        for (int k = 0; k < 6 * h5_size[kinds[i]]; k++) assert_int_equal(data[k], k + kinds[i]);
        H5Tclose(type), H5Dclose(d);
    }
    i64 number = 0;
    double half = 0;
    char text[6] = "";
    hid_t a = H5Aopen(f, "number", H5P_DEFAULT), b = H5Aopen(f, "half", H5P_DEFAULT),
          c = H5Aopen(f, "text", H5P_DEFAULT), type = H5Aget_type(c);
    assert_true(H5Aread(a, H5T_NATIVE_INT64, &number) >= 0 && number == -5);
    assert_true(H5Aread(b, H5T_NATIVE_DOUBLE, &half) >= 0 && half == 0.5);
    assert_true(H5Aread(c, type, text) >= 0 && !strcmp(text, "words"));
    H5Tclose(type), H5Aclose(a), H5Aclose(b), H5Aclose(c), H5Fclose(f);
}

/* Chunks through shuffle and zstd: arrays cut in each dimension, with partial last chunks. */
static void library_reads_chunks(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum dtype dtype;
        int rank;
        i64 dim[3];
    } array[] = {
        {"m", F32, 1, {600001}},     {"v", F64, 3, {3, 5, 40001}}, {"wide", U8, 3, {2, 3, 1100000}},
        {"ids", I64, 2, {3, 70000}}, {"one", F32, 1, {1}},         {"exact", F32, 2, {3, 262144}}};
    struct err e = {0};
    struct state_writer *w = state_create(path, &e);
    static u8 data[8 << 20], theirs[8 << 20];
    for (i64 i = 0; i < (i64)sizeof data; i++) data[i] = (u8)(i / 1000 + i % 7);
    for (i64 i = 0; i < COUNT(array); i++)
        ok(state_add(w, array[i].name, array[i].dtype, array[i].rank, array[i].dim, data, &e), &e);
    ok(state_finish(w, true, &e), &e);
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (i64 i = 0; i < COUNT(array); i++) {
        i64 size;
        shape_count(array[i].rank, array[i].dim, &size);
        size *= dtype_size(array[i].dtype);
        memset(theirs, 0, (size_t)size);
        hid_t d = H5Dopen2(f, array[i].name, H5P_DEFAULT),
              type = library_type(state_type(array[i].dtype));
        assert_true(H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, theirs) >= 0);
        assert_memory_equal(theirs, data, (size_t)size);
        H5Dclose(d);
    }
    H5Fclose(f);
}

/* Groups of thousands of arrays and of other groups, more attributes than the library keeps in a
 * header. */
static void library_reads_many(void **state) {
    (void)state;
    enum { MANY = 3000 };
    struct err e = {0};
    struct h5_writer *w = h5_create(path, &e);
    char name[64];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "%s%d/m", i % 3 ? "optimizer/layer." : "optimizer-", i);
        contiguous_add(w, name, H5_U8, &e);
    }
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "number %d", i);
        ok(h5_put_i64(w, name, i, &e), &e);
    }
    ok(h5_finish(w, true, &e), &e);
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    struct h5_file *ours = h5_open(path, &e);
    ok(!ours, &e);
    for (int i = 0; i < MANY; i += 7) {
        snprintf(name, sizeof name, "%s%d/m", i % 3 ? "optimizer/layer." : "optimizer-", i);
        hid_t d = H5Dopen2(f, name, H5P_DEFAULT);
        assert_true(d >= 0 && h5_has(ours, name));
        H5Dclose(d);
    }
    H5G_info_t group;
    assert_true(H5Gget_info_by_name(f, "optimizer", &group, H5P_DEFAULT) >= 0);
    assert_int_equal(group.nlinks, 2 * MANY / 3);
    assert_int_equal(ours->nodes, MANY);
    for (int i = 0; i < 40; i++) {
        i64 value = -1;
        snprintf(name, sizeof name, "number %d", i);
        hid_t a = H5Aopen(f, name, H5P_DEFAULT);
        assert_true(H5Aread(a, H5T_NATIVE_INT64, &value) >= 0 && value == i);
        H5Aclose(a);
    }
    H5Fclose(f), h5_close(ours);
}

/* ---- what hone wrote before ------------------------------------------------------------------ */

static const struct old_array {
    const char *name;
    enum dtype dtype;
    int rank;
    i64 dim[4];
    int seed;
} old_arrays[] = {
    {"m", F32, 1, {600001}, 1},
    {"optimizer/a.weight/v", F64, 3, {3, 5, 40001}, 2},
    {"optimizer/a.weight/wide", U8, 3, {2, 3, 1100000}, 3},
    {"ids", I64, 4, {2, 1, 3, 70}, 4},
};

static void golden_copy(const char *name, const char *to, struct text *file) {
    struct err e = {0};
    *file = h5_golden(name);
    ok(file->size <= 0 || file_write(to, file->data, file->size, &e), &e);
}

static void old_state(void **state) {
    (void)state;
    struct err e = {0};
    struct text file;
    golden_copy(GOLDEN "state.h5.zst", path, &file);
    text_free(&file);
    struct state_reader *r = state_open(path, &e);
    ok(!r, &e);
    for (i64 i = 0; i < COUNT(old_arrays); i++) {
        const struct old_array *a = &old_arrays[i];
        i64 n;
        shape_count(a->rank, a->dim, &n);
        n *= dtype_size(a->dtype);
        u8 *data = mem_new(n, &e);
        ok(state_get(r, a->name, a->dtype, a->rank, a->dim, data, &e), &e);
        for (i64 k = 0; k < n; k++)
            if (data[k] != (u8)((u64)k / 4096 * 37 + (u64)a->seed))
                fail_msg("%s: byte %lld", a->name, (long long)k);
        mem_free(data);
    }
    char name[32];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "many/%03d", i);
        ok(state_get(r, name, F32, 2, (i64[]){0, 7}, NULL, &e), &e);
    }
    for (i64 i = 0, value; i < 20; i++) {
        snprintf(name, sizeof name, "number %lld", (long long)i);
        ok(state_get_i64(r, name, &value, &e), &e);
        assert_int_equal(value, i);
    }
    double lr;
    char *recipe = state_get_text(r, "recipe", &e);
    ok(state_get_f64(r, "lr", &lr, &e), &e);
    assert_true(lr == 1e-3);
    assert_string_equal(recipe, "seed: 1\n\xc3\xa9");
    mem_free(recipe);
    state_close(r);
}

static void old_dataset(void **state) {
    (void)state;
    struct err e = {0};
    struct text file;
    static const u32 want[] = {65, 66, 67,  68,  0,  83, 283, 69, 221,
                               77, 79, 258, 257, 69, 88, 84,  0};
    u32 found[17];
    golden_copy(GOLDEN "dataset.h5.zst", path, &file);
    text_free(&file);
    struct dataset *d = dataset_open(path, &e);
    ok(!d, &e);
    assert_int_equal(dataset_info(d)->tokens, 17);
    assert_int_equal(dataset_info(d)->trained, 15);
    ok(dataset_read(d, 0, 17, found, &e), &e);
    assert_memory_equal(found, want, sizeof want);
    dataset_close(d);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void damage_bad(const char *why) { fail_msg("%s", why); }

static i64 tries(i64 usual) { return getenv("HONE_SLOW") ? 100 * usual : usual; }

/* `number` random damages of one to four bytes; a dataset that still opens must give its tokens. */
static void damages(const struct text *file, u64 seed, i64 number, bool reseal, bool dataset) {
    static const u8 likely[] = {0, 1, 2, 8, 16, 64, 127, 128, 254, 255};
    u8 *copy = mem_new(file->size, NULL);
    i64 refused = 0;
    for (i64 k = 0; k < number; k++) {
        struct rng r = {.seed = seed, .purpose = RNG_TEST, .step = (u32)k};
        struct err e = {0};
        memcpy(copy, file->data, (size_t)file->size);
        for (u64 i = 0; i <= (u64)k % 4; i++) {
            u32 word[4];
            rng_block(&r, i, word);
            const i64 at = word[0] % file->size;
            copy[at] =
                word[1] & 1 ? likely[word[2] % sizeof likely] : copy[at] ^ (u8)(1 << word[2] % 8);
        }
        if (reseal) h5_reseal(copy, file->size);
        ok(file_write(other, copy, file->size, &e), &e);
        const bool whole = !h5_use(other, damage_bad);
        struct dataset *d = dataset ? dataset_open(other, &e) : NULL;
        u32 token;
        refused += dataset ? !d : !whole;
        for (i64 i = 0; d && i < dataset_info(d)->tokens && i < 64; i++)
            if (!dataset_read(d, i, 1, &token, &e))
                assert_true(token < dataset_info(d)->vocab_size);
        dataset_close(d);
    }
    mem_free(copy);
    print_message("%lld of %lld damages refused\n", (long long)refused, (long long)number);
}

/* Without the zeros between, in which most damage would do nothing: the small part of the old
 * state.
 */
static void damaged_old(void **state) {
    (void)state;
    struct text file;
    golden_copy(GOLDEN "state.h5.zst", path, &file);
    damages(&file, 1, tries(300), false, false);
    text_free(&file);
    golden_copy(GOLDEN "dataset.h5.zst", path, &file);
    damages(&file, 2, tries(300), false, true);
    damages(&file, 3, tries(600), true, true);
    text_free(&file);
}

static void damaged_new(void **state) {
    (void)state;
    struct err e = {0};
    struct text file;
    struct state_writer *w = state_create(path, &e);
    static float data[300000];
    ok(state_add(w, "a", F32, 1, (i64[]){300000}, data, &e) ||
           state_add(w, "group/b", I64, 2, (i64[]){2, 3}, data, &e) ||
           state_add(w, "group/none", F32, 2, (i64[]){0, 3}, data, &e) ||
           state_put_text(w, "recipe", "seed: 1", &e) || state_finish(w, true, &e),
       &e);
    ok(file_read(&file, path, &e), &e);
    damages(&file, 4, tries(300), false, false);
    damages(&file, 5, tries(1500), true, false);
    text_free(&file);
}

/* Structures that lead back to themselves or claim what cannot be. `at` counts from `mark`. */
static void refused(const struct text *file, const char *mark, int skip, int at, const void *bytes,
                    int size, const char *why) {
    struct err e = {0};
    u8 *copy = mem_new(file->size, &e), *from = copy;
    memcpy(copy, file->data, (size_t)file->size);
    for (;; from++) {
        from = memmem(from, (size_t)(file->size - (from - copy)), mark, strlen(mark));
        assert_non_null(from);
        if (!skip--) break;
    }
    memcpy(from + at, bytes, (size_t)size);
    h5_reseal(copy, file->size);
    ok(file_write(other, copy, file->size, &e), &e);
    mem_free(copy);
    struct h5_file *f = h5_open(other, &e);
    struct h5_array a;
    struct h5_piece *piece = NULL;
    if (f && !h5_find(f, "group/b", &a, &e)) piece = h5_pieces(f, &a, &e);
    h5_close(f), mem_free(piece);
    assert_null(piece);
    if (!strstr(e.detail, why)) fail_msg("'%s' is not in '%s' (%s)", why, e.detail, e.primary);
    assert_int_equal(e.code, ERR_INPUT);
}

static void refusals(void **state) {
    (void)state;
    struct err e = {0};
    struct text file;
    static const u64 far = 1ull << 40, huge = 1ull << 60;
    struct state_writer *w = state_create(path, &e);
    ok(state_add(w, "group/b", I64, 2, (i64[]){2, 3}, (i64[6]){0}, &e) || state_finish(w, true, &e),
       &e);
    ok(file_read(&file, path, &e), &e);
    u64 root;
    memcpy(&root, file.data + 36, 8);
    refused(&file, "group", 0, 5, &root, 8, "groups nest deeper than 16");
    refused(&file, "group", 0, 5, &far, 8, "an object header at 1099511627776 is not inside");
    refused(&file, "\x89HDF", 0, 8, "\7", 1, "superblock version 7 is unknown");
    refused(&file, "\x89HDF", 0, 28, &far, 8, "it should have 1099511627776 bytes");
    refused(&file, "OHDR", 0, 18, &huge, 8, "an array too large to be one");
    refused(&file, "OHDR", 0, 6, &(u32){1 << 30}, 4, "the object header at");
    refused(&file, "FAHD", 0, 8, &far, 8, "the chunk index at");
    refused(&file, "FAHD", 0, 16, &far, 8, "a chunk index at 1099511627776 is not inside");
    refused(&file, "FADB", 0, 14, &far, 8, "a chunk of group/b is missing or not inside the file");
    refused(&file, "FADB", 0, 22, &(u64){0}, 2, "a chunk of group/b is missing");
    text_free(&file);
    /* A chunk of 255^8 bytes: a number that needs all 64 bits. */
    static const i64 twos[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    static const u8 zeros[256];
    w = state_create(path, &e);
    ok(state_add(w, "group/b", U8, 8, twos, zeros, &e) || state_finish(w, true, &e), &e);
    ok(file_read(&file, path, &e), &e);
    refused(&file, "\2\2\2\2\2\2\2\2", 0, 0, "\377\377\377\377\377\377\377\377", 8,
            "the chunk index at");
    text_free(&file);
}

/* Names are compared with all before them, so that their number is bounded. */
static void too_many_attributes(void **state) {
    (void)state;
    enum { MOST = 4096 };
    for (int more = 0; more < 2; more++) {
        struct err e = {0};
        struct h5_writer *w = h5_create(path, &e);
        for (int i = 0; i < MOST + more; i++) {
            char name[16];
            snprintf(name, sizeof name, "%d", i);
            ok(h5_put_i64(w, name, i, &e), &e);
        }
        ok(h5_finish(w, true, &e), &e);
        struct h5_file *f = h5_open(path, &e);
        h5_close(f);
        assert_int_equal(!f, more);
        if (more) assert_string_equal(e.detail, "an object of more than 4096 attributes");
    }
}

/* A run folder that others packed may hold a link where a dataset is written first. */
static void no_links(void **state) {
    (void)state;
    struct err e = {0};
    unlink(path);
    ok(file_write(other, "mine", 4, &e), &e);
    assert_int_equal(0, symlink(other, path));
    assert_null(h5_create(path, &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_int_equal(4, path_size(other));
    unlink(path);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/a.h5", folder);
    snprintf(other, sizeof other, "%s/b.h5", folder);
    h5_library_start();
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    return dir_remove(folder, &(struct err){0});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(library_reads_types), cmocka_unit_test(library_reads_chunks),
        cmocka_unit_test(library_reads_many),  cmocka_unit_test(old_state),
        cmocka_unit_test(old_dataset),         cmocka_unit_test(damaged_old),
        cmocka_unit_test(damaged_new),         cmocka_unit_test(refusals),
        cmocka_unit_test(too_many_attributes), cmocka_unit_test(no_links),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
