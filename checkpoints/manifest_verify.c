/* manifest_verify.c: does a folder hold exactly what its manifest says?
 *
 * Everything is checked, since a checkpoint that is nearly right trains on without a word. Two
 * files may be added later by hand without harm: README.md and .gitattributes. */
#include "checkpoints/checkpoints_int.h"
#include <jansson.h>
#include <string.h>

static int file_verify(const char *folder, const json_t *entry, json_t *seen, struct arena *a,
                       struct err *e) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *sha = json_string_value(json_object_get(entry, "sha256"));
    const json_t *size = json_object_get(entry, "size");
    char hex[65];
    if (!name || !name_is_plain(name) || !sha || !json_is_integer(size))
        return err_input(
            e, "%s/manifest.json: an entry of files lacks a plain name, size or sha256", folder);
    if (json_object_get(seen, name) || json_object_set_new(seen, name, json_true()))
        return err_input(e, "%s/manifest.json lists %s twice", folder, name);
    char *path = path_join(a, folder, name, e);
    if (!path) return -1;
    if (!path_exists(path))
        return err_failed(e, "%s is missing", path), err_detail(e, "the manifest lists it");
    if (path_size(path) != json_integer_value(size))
        return err_failed(e, "%s has %lld bytes; the manifest says %lld", path,
                          (long long)path_size(path), (long long)json_integer_value(size));
    if (sha256_file(path, hex, e)) return -1;
    if (!strcmp(hex, sha)) return 0;
    err_failed(e, "%s is damaged", path);
    return err_detail(e, "its SHA-256 is %s; the manifest says %.64s", hex, sha);
}

static int extras_verify(const char *folder, const json_t *seen, struct err *e) {
    char **name = NULL;
    i64 count = 0;
    int status = dir_list(folder, &name, &count, e);
    for (i64 i = 0; i < count && !status; i++)
        if (strcmp(name[i], "manifest.json") && strcmp(name[i], "README.md") &&
            strcmp(name[i], ".gitattributes") && !json_object_get(seen, name[i]))
            status = err_failed(e, "%s/%s is not in the manifest", folder, name[i]);
    names_free(name, count);
    return status;
}

static int tensor_verify(const struct stored *t, json_t *listed, const char *path, struct err *e) {
    json_t *entry = json_object_get(listed, t->name);
    const char *sha = json_string_value(json_object_get(entry, "sha256"));
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    char hex[65];
    if (!entry) return err_failed(e, "%s: tensor %.200s is not in the manifest", path, t->name);
    bool same = type && !strcmp(type, t->type) && (int)json_array_size(shape) == t->rank;
    for (int d = 0; same && d < t->rank; d++)
        same = json_integer_value(json_array_get(shape, (size_t)d)) == t->dim[d];
    if (!same)
        return err_failed(e, "%s: tensor %.200s has another dtype or shape than the manifest says",
                          path, t->name);
    if (sha256_bytes(t->data, t->bytes, hex, e)) return -1;
    if (!sha || strcmp(sha, hex)) {
        err_failed(e, "%s: tensor %.200s is not what the manifest says", path, t->name);
        return err_detail(e, "its SHA-256 is %s; the manifest says %.64s", hex,
                          sha ? sha : "nothing");
    }
    json_object_del(listed, t->name);
    return 0;
}

static int file_tensors_verify(const char *path, json_t *listed, struct err *e) {
    struct safetensors s;
    int status = safetensors_open(&s, path, e);
    for (i64 i = 0; i < s.count && !status; i++)
        status = tensor_verify(&s.tensor[i], listed, path, e);
    safetensors_close(&s);
    return status;
}

static int tensors_verify(const char *folder, const json_t *j, struct arena *a, struct err *e) {
    json_t *listed = json_object(), *entry;
    size_t i;
    const char *rest;
    int status = listed ? 0 : err_memory(e, "out of memory verifying %s", folder);
    json_array_foreach(json_object_get(j, "tensors"), i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (!status &&
            (!name || json_object_get(listed, name) || json_object_set(listed, name, entry)))
            status = err_input(
                e, "%s/manifest.json: entry %zu of tensors has no name, or one listed before",
                folder, i);
    }
    json_array_foreach(json_object_get(j, "files"), i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        size_t n = strlen(name);
        if (status || n < 12 || strcmp(name + n - 12, ".safetensors")) continue;
        char *path = path_join(a, folder, name, e);
        status = path ? file_tensors_verify(path, listed, e) : -1;
    }
    if (!status && (rest = json_object_iter_key(json_object_iter(listed))))
        status = err_failed(e, "%s: tensor %.200s of the manifest is in no file", folder, rest);
    json_decref(listed);
    return status;
}

int manifest_verify(const char *folder, bool deep, struct err *e) {
    struct manifest m;
    if (manifest_read(folder, &m, e)) return -1;
    json_t *j = manifest_json(folder, e), *seen = json_object(), *entry;
    struct arena a = {0};
    size_t i;
    int status = j && seen ? 0 : err_memory(e, "out of memory verifying %s", folder);
    json_array_foreach(json_object_get(j, "files"), i, entry) {
        if (!status) status = file_verify(folder, entry, seen, &a, e);
    }
    status = status || extras_verify(folder, seen, e) ||
             (deep && tensors_verify(folder, j, &a, e)) || seal_verify(folder, e);
    arena_free(&a);
    json_decref(seen);
    json_decref(j);
    return status ? -1 : 0;
}
