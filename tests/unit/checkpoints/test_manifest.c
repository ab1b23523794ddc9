/* test_manifest.c: what a manifest says is there, and any change of any file of a checkpoint is
 * found and named. */
#include "tests/unit/checkpoints/save_fixture.h"

static void parent_of(i64 step, char hex[65]) {
    struct err e = {0};
    ok(manifest_sha256(step_path(step), hex, &e), &e);
}

static void contents(void **state) {
    (void)state;
    struct manifest m;
    struct err e = {0};
    ok(manifest_verify(step_path(1), true, &e), &e);
    ok(manifest_read(step_path(1), &m, &e), &e);
    assert_true(m.step == 1 && m.numerics_version == 1 && !m.parent[0]);
    assert_string_equal(m.numerics_level, "R4");
    assert_string_equal(m.hone_version, "0.1.0");
    assert_int_equal(strspn(m.state_sha256, "a"), 64);
    struct text text;
    char path[300];
    snprintf(path, sizeof path, "%s/manifest.json", step_path(1));
    ok(file_read(&text, path, &e), &e);
    assert_non_null(
        strstr(text.data,
               "{\"name\": \"a.weight\", \"dtype\": \"F32\", \"shape\": [2, 3], \"sha256\": \""));
    assert_non_null(strstr(text.data, "{\"name\": \"config.json\", \"size\": 557, \"sha256\": \""));
    text_free(&text);
}

/* Writes a file of the checkpoint, expects verification to fail with `message` after the folder's
 * name, restores it. */
static void changed(const char *name, const char *bytes, i64 size, bool deep, const char *message) {
    char path[300];
    struct text was;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", step_path(1), name);
    ok(file_read(&was, path, &e), &e);
    ok(bytes ? file_write(path, bytes, size, &e) : unlink(path), &e);
    assert_int_equal(manifest_verify(step_path(1), deep, &e), -1);
    if (strncmp(e.primary + strlen(step_path(1)), message, strlen(message)))
        fail_msg("%s", e.primary);
    e = (struct err){0};
    ok(file_write(path, was.data, was.size, &e), &e);
    text_free(&was);
    ok(manifest_verify(step_path(1), true, &e), &e);
}

static void every_file(void **state) {
    (void)state;
    static const char *const name[] = {"config.json", "generation_config.json", "model.safetensors",
                                       "state.h5"};
    for (i64 i = 0; i < COUNT(name); i++) {
        char path[300], message[100];
        struct text file;
        struct err e = {0};
        snprintf(path, sizeof path, "%s/%s", step_path(1), name[i]);
        ok(file_read(&file, path, &e), &e);
        for (i64 at = 0; at < file.size; at += 1 + file.size / 5) {
            file.data[at] ^= 1;
            snprintf(message, sizeof message, "/%s is damaged", name[i]);
            changed(name[i], file.data, file.size, false, message);
            file.data[at] ^= 1;
        }
        snprintf(message, sizeof message, "/%s has %lld bytes; the manifest says %lld", name[i],
                 (long long)file.size - 1, (long long)file.size);
        changed(name[i], file.data, file.size - 1, false, message);
        snprintf(message, sizeof message, "/%s is missing", name[i]);
        changed(name[i], NULL, 0, false, message);
        text_free(&file);
    }
}

static void manifest_itself(void **state) {
    (void)state;
    char path[300];
    struct text file;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/manifest.json", step_path(1));
    ok(file_read(&file, path, &e), &e);
    changed("manifest.json", NULL, 0, false, "");
    changed("manifest.json", "{}", 2, false,
            "/manifest.json has format missing; expected hone-manifest-1");
    changed("manifest.json", file.data, file.size / 2, false, "/manifest.json:");
    static const struct {
        const char *from, *to;
        bool deep;
        const char *message;
    } edit[] = {
        {"\"step\": 1", "\"step\":-1", false, "/manifest.json: step is missing or negative"},
        {"\"R4\"", "1234", false, "/manifest.json: numerics_level is not a valid text"},
        {"\"aaaa", "\"Aaaa", false, "/manifest.json: state_sha256 is not a valid SHA-256"},
        {"\"config.json\"", "\"../fig.json\"", false,
         "/manifest.json: an entry of files lacks a plain name"},
        {"\"name\": \"generation_config.json\"", "\"name\": \"config.json\"           ", false,
         "/manifest.json lists config.json twice"},
        {"[2, 3]", "[3, 2]", true,
         "/model.safetensors: tensor a.weight has another dtype or shape"},
        {"a.weight", "c.weight", true,
         "/model.safetensors: tensor a.weight is not in the manifest"},
        {"\"shape\": [1000], \"sha256\": \"", "\"shape\": [1000], \"sha256\": \"x", true,
         "/model.safetensors: tensor b.weight is not what the manifest says"},
        {"{\"name\": \"b.weight\"", "{\"name\": \"d\", \"x\": 1}, {\"name\": \"b.weight\"", true,
         ": tensor d of the manifest is in no file"},
    };
    for (i64 i = 0; i < COUNT(edit); i++) {
        struct text out = {0};
        char *at = strstr(file.data, edit[i].from);
        assert_non_null(at);
        ok(text_add(&out, file.data, at - file.data, &e) ||
               text_printf(&out, &e, "%s%s", edit[i].to, at + strlen(edit[i].from)),
           &e);
        changed("manifest.json", out.data, out.size, edit[i].deep, edit[i].message);
        text_free(&out);
    }
    text_free(&file);
}

/* A run of the first version of digests writes the first format, in which they have no version. */
static void digest_versions(void **state) {
    (void)state;
    static const struct {
        i64 version;
        const char *format;
    } row[] = {{1, "hone-manifest-1"}, {2, "hone-manifest-2"}, {0, "hone-manifest-2"}};
    char versions[128], path[300];
    struct err e = {0};
    snprintf(versions, sizeof versions, "%s/versions", folder);
    snprintf(path, sizeof path, "%s/manifest.json", versions);
    ok(dir_make(versions, &e), &e);
    for (i64 i = 0; i < COUNT(row); i++) {
        struct text t;
        struct manifest m = {.digest_version = row[i].version, .numerics_level = "R4"}, back;
        ok(manifest_write(versions, &m, NULL, 0, &e) || manifest_read(versions, &back, &e), &e);
        assert_int_equal(back.digest_version, row[i].version ? row[i].version : DIGEST_VERSION);
        ok(file_read(&t, path, &e), &e);
        assert_non_null(strstr(t.data, row[i].format));
        assert_int_equal(!strstr(t.data, "digest_version"), row[i].version == 1);
        char *at = strstr(t.data, "\"digest_version\": 2");
        if (at) at[18] = '3';
        ok(file_write(path, t.data, t.size, &e), &e);
        assert_int_equal(manifest_read(versions, &back, &e), at ? -1 : 0);
        if (at) assert_non_null(strstr(e.primary, "digest_version is 3; expected 1 to 2"));
        e = (struct err){0};
        text_free(&t);
    }
}

static void extra_files(void **state) {
    (void)state;
    char path[300];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/README.md", step_path(1));
    ok(file_write(path, "x", 1, &e), &e);
    ok(manifest_verify(step_path(1), true, &e), &e);
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer.json", step_path(1));
    ok(file_write(path, "x", 1, &e), &e);
    assert_int_equal(manifest_verify(step_path(1), false, &e), -1);
    assert_string_equal(e.primary + strlen(step_path(1)), "/tokenizer.json is not in the manifest");
    unlink(path);
}

static void chain(void **state) {
    (void)state;
    char parent[65], path[300];
    struct err e = {0};
    i64 count;
    parent_of(1, parent);
    ok(save(2, parent, &e), &e);
    parent_of(2, parent);
    ok(save(1000000, parent, &e), &e);
    ok(checkpoint_verify_chain(run, true, &count, &e), &e);
    assert_int_equal(count, 3);
    /* a manifest changed and its own folder still consistent: the next one's parent tells */
    snprintf(path, sizeof path, "%s/manifest.json", step_path(2));
    struct text text;
    ok(file_read(&text, path, &e), &e);
    memcpy(strstr(text.data, "aaaa"), "bbbb", 4);
    ok(file_write(path, text.data, text.size, &e), &e);
    assert_int_equal(manifest_verify(step_path(2), false, &e), -1);
    assert_non_null(strstr(e.primary, "manifest.json was changed after it was written"));
    e = (struct err){0};
    char hex[65], *last = text.data + text.size - 69; /* who forges it makes its own hash anew */
    while (strncmp(last, ",\n  \"sha256\"", 12)) last--;
    ok(sha256_bytes(text.data, last - text.data, hex, &e), &e);
    memcpy(last + 15, hex, 64);
    ok(file_write(path, text.data, text.size, &e), &e);
    text_free(&text);
    ok(manifest_verify(step_path(2), true, &e), &e);
    assert_int_equal(checkpoint_verify_chain(run, true, &count, &e), -1);
    assert_string_equal(e.primary + strlen(run),
                        "/checkpoints/step-1000000 does not follow step 2: the chain is broken");
    e = (struct err){0};
    ok(path_rename(step_path(2), strcat(strcpy(path, run), "/checkpoints/step-000003"), &e), &e);
    assert_int_equal(checkpoint_verify_chain(run, false, &count, &e), -1);
    assert_string_equal(e.primary + strlen(path), "/manifest.json is of step 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents),        cmocka_unit_test(every_file),
        cmocka_unit_test(manifest_itself), cmocka_unit_test(extra_files),
        cmocka_unit_test(digest_versions), cmocka_unit_test(chain),
    };
    return cmocka_run_group_tests(tests, set_up, folder_remove);
}
