/* manifest.c: manifest.json, the list of what a checkpoint is made of.
 *
 * {"format", "step", "parent": SHA-256 of the previous checkpoint's manifest.json or null,
 * "state_sha256", "digest_version", "numerics_level", "numerics_version", "hone_version", "files":
 * [{"name", "size", "sha256"}], "tensors": [{"name", "dtype", "shape", "sha256"}]}
 *
 * Format hone-manifest-1, of 4bb1f6d and before, has no digest_version: it is 1. A run that began
 * so goes on so.
 *
 * The parent's hash makes a run's checkpoints a chain: whoever trusts the last manifest can trust
 * all before it. Tensors are listed besides files so that the same weights are recognised in other
 * files (merged, resharded). */
#include "checkpoints/checkpoints_int.h"
#include <jansson.h>
#include <string.h>

static int line_text(struct text *out, const char *key, const char *value, struct err *e) {
    if (text_printf(out, e, "  \"%s\": ", key)) return -1;
    if (!value[0]) return text_add(out, "null,\n", 6, e);
    return json_text_add(out, value, (i64)strlen(value), e) || text_add(out, ",\n", 2, e);
}

static int files_add(struct text *out, const char *folder, struct err *e) {
    char **name = NULL;
    i64 count = 0, listed = 0;
    if (dir_list(folder, &name, &count, e)) return -1;
    struct arena a = {0};
    int status = text_printf(out, e, "  \"files\": [");
    for (i64 i = 0; i < count && !status; i++) {
        char hex[65], *path = path_join(&a, folder, name[i], e);
        if (!strcmp(name[i], "manifest.json")) continue;
        if (path && (path_is_dir(path) || !name_is_plain(name[i])))
            status =
                err_failed(e, "%s is a folder or hidden; a checkpoint holds plain files", path);
        status = status || !path || sha256_file(path, hex, e) ||
                 text_printf(out, e, "%s\n    {\"name\": ", listed++ ? "," : "") ||
                 json_text_add(out, name[i], (i64)strlen(name[i]), e) ||
                 text_printf(out, e, ", \"size\": %lld, \"sha256\": \"%s\"}",
                             (long long)path_size(path), hex);
    }
    names_free(name, count);
    arena_free(&a);
    return status || text_printf(out, e, "\n  ],\n");
}

static int tensors_add(struct text *out, const struct stored *tensor, i64 count, struct err *e) {
    int status = text_printf(out, e, "  \"tensors\": [");
    for (i64 i = 0; i < count && !status; i++) {
        char shape[192];
        const struct stored *t = &tensor[i];
        status = text_printf(out, e, "%s\n    {\"name\": ", i ? "," : "") ||
                 json_text_add(out, t->name, (i64)strlen(t->name), e) ||
                 text_printf(out, e, ", \"dtype\": \"%s\", \"shape\": %s, \"sha256\": \"%s\"}",
                             dtype_info[t->dtype].safetensors, shape_text(shape, t->rank, t->dim),
                             t->sha256);
    }
    return status || text_printf(out, e, "\n  ]\n}\n");
}

/* The last member is the SHA-256 of all text before it, so that a damaged manifest is not believed.
 */
static const char seal[] = ",\n  \"sha256\": \"", seal_end[] = "\"\n}\n";

static int seal_add(struct text *out, struct err *e) {
    char hex[65];
    while (out->size && strchr("}\n", out->data[out->size - 1])) out->size--;
    return sha256_bytes(out->data, out->size, hex, e) ||
                   text_printf(out, e, "%s%s%s", seal, hex, seal_end)
               ? -1
               : 0;
}

int seal_verify(const char *folder, struct err *e) {
    struct arena a = {0};
    struct text t = {0};
    char *path = path_join(&a, folder, "manifest.json", e), hex[65] = "";
    int status = !path || file_read(&t, path, e);
    const i64 tail = (i64)strlen(seal) + 64 + (i64)strlen(seal_end), body = t.size - tail;
    if (!status && body > 0) status = sha256_bytes(t.data, body, hex, e);
    if (!status && (body <= 0 || memcmp(t.data + body, seal, strlen(seal)) ||
                    memcmp(t.data + body + strlen(seal), hex, 64)))
        status = err_failed(e, "%s was changed after it was written", path);
    arena_free(&a), text_free(&t);
    return status ? -1 : 0;
}

static const char *const formats[] = {"", "hone-manifest-1", "hone-manifest-2"};

int manifest_write(const char *folder, const struct manifest *m, const struct stored *tensor,
                   i64 count, struct err *e) {
    struct text out = {0};
    struct arena a = {0};
    char *path = path_join(&a, folder, "manifest.json", e);
    const i64 digests = m->digest_version ? m->digest_version : DIGEST_VERSION;
    int status =
        !path ||
        text_printf(&out, e, "{\n  \"format\": \"%s\",\n  \"step\": %lld,\n",
                    formats[digests == 1 ? 1 : 2], (long long)m->step) ||
        line_text(&out, "parent", m->parent, e) ||
        line_text(&out, "state_sha256", m->state_sha256, e) ||
        (digests != 1 &&
         text_printf(&out, e, "  \"digest_version\": %lld,\n", (long long)digests)) ||
        line_text(&out, "numerics_level", m->numerics_level, e) ||
        text_printf(&out, e, "  \"numerics_version\": %lld,\n", (long long)m->numerics_version) ||
        line_text(&out, "hone_version", m->hone_version, e) || files_add(&out, folder, e) ||
        tensors_add(&out, tensor, count, e) || seal_add(&out, e) ||
        file_write(path, out.data, out.size, e);
    arena_free(&a);
    text_free(&out);
    return status ? -1 : 0;
}

int manifest_sha256(const char *folder, char hex[65], struct err *e) {
    struct arena a = {0};
    char *path = path_join(&a, folder, "manifest.json", e);
    int status = path ? sha256_file(path, hex, e) : -1;
    arena_free(&a);
    return status;
}

json_t *manifest_json(const char *folder, struct err *e) {
    struct arena a = {0};
    char *path = path_join(&a, folder, "manifest.json", e);
    json_t *j = path ? json_open(path, e) : NULL;
    if (j) {
        const char *format = json_string_value(json_object_get(j, "format"));
        if (!format || (strcmp(format, formats[1]) && strcmp(format, formats[2])))
            err_input(e, "%s has format %.100s; expected hone-manifest-1 or hone-manifest-2", path,
                      format ? format : "missing");
        else if (!json_is_array(json_object_get(j, "files")) ||
                 !json_is_array(json_object_get(j, "tensors")))
            err_input(e, "%s: files and tensors must be lists", path);
    }
    arena_free(&a);
    if (!j || !e->code) return j;
    json_decref(j);
    return NULL;
}

/* A text member that may be null: copied into `to`, refused if it does not fit or is no hash where
 * one belongs. */
static int member_read(char *to, size_t size, const json_t *j, const char *key, const char *folder,
                       struct err *e) {
    const json_t *value = json_object_get(j, key);
    to[0] = 0;
    if (!value || json_is_null(value)) return 0;
    const char *text = json_string_value(value);
    if (!text || strlen(text) >= size || (size == 65 && strspn(text, "0123456789abcdef") != 64))
        return err_input(e, "%s/manifest.json: %s is not a valid %s", folder, key,
                         size == 65 ? "SHA-256" : "text");
    memcpy(to, text, strlen(text) + 1);
    return 0;
}

int manifest_read(const char *folder, struct manifest *m, struct err *e) {
    *m = (struct manifest){0};
    json_t *j = manifest_json(folder, e);
    if (!j) return -1;
    m->step = json_i64(j, "step", -1, folder, e);
    m->numerics_version = json_i64(j, "numerics_version", 0, folder, e);
    m->digest_version = 1;
    if (strcmp(json_string_value(json_object_get(j, "format")), formats[1]))
        m->digest_version = json_i64(j, "digest_version", 0, folder, e);
    int status =
        member_read(m->parent, sizeof m->parent, j, "parent", folder, e) ||
        member_read(m->state_sha256, sizeof m->state_sha256, j, "state_sha256", folder, e) ||
        member_read(m->numerics_level, sizeof m->numerics_level, j, "numerics_level", folder, e) ||
        member_read(m->hone_version, sizeof m->hone_version, j, "hone_version", folder, e);
    if (!status && !e->code && m->step < 0)
        status = err_input(e, "%s/manifest.json: step is missing or negative", folder);
    if (!status && !e->code && (m->digest_version < 1 || m->digest_version > DIGEST_VERSION))
        status = err_input(e, "%s/manifest.json: digest_version is %lld; expected 1 to %d", folder,
                           (long long)m->digest_version, DIGEST_VERSION);
    json_decref(j);
    return status || e->code ? -1 : 0;
}
