/* lock_files.c: the files of a lock: role, path, bytes, SHA-256. */
#include "checkpoints/checkpoints.h"
#include "train/recipe/recipe.h"

#include <jansson.h>
#include <string.h>

static int out_of_memory(struct err *e) {
    return err_memory(e, "out of memory while writing recipe.lock");
}

int lock_files_add_hash(struct lock_files *files, const char *role, const char *name, i64 bytes,
                        const char *sha256, struct err *e) {
    if (!files->list && !(files->list = json_array())) return out_of_memory(e);
    json_t *item = json_pack("{s:s, s:s, s:I, s:s}", "role", role, "path", name, "bytes",
                             (json_int_t)bytes, "sha256", sha256);
    if (!item) return err_input(e, "%s: a path must be UTF-8", name);
    return json_array_append_new(files->list, item) ? out_of_memory(e) : 0;
}

int lock_files_add_as(struct lock_files *files, const char *role, const char *path,
                      const char *name, struct err *e) {
    char sha256[65];
    return sha256_file(path, sha256, e) ||
                   lock_files_add_hash(files, role, name, path_size(path), sha256, e)
               ? -1
               : 0;
}

static int add_file(struct lock_files *files, const char *role, const char *path, struct err *e) {
    return lock_files_add_as(files, role, path, path, e);
}

int lock_files_add(struct lock_files *files, const char *role, const char *path, struct err *e) {
    char **names;
    i64 count;
    i64 parts = 0;
    char *part = path_is_dir(path) ? NULL : gguf_part_path(path, 0, &parts, e);
    if (!path_is_dir(path) && (!part || strcmp(part, path) || parts < 2))
        return mem_free(part), e->code ? -1 : add_file(files, role, path, e);
    for (i64 i = 0; part && i < parts; i++) { /* of a split model all */
        char *file = gguf_part_path(path, i, &parts, e);
        const int rc = !file || add_file(files, role, file, e);
        mem_free(file);
        if (rc) return mem_free(part), -1;
    }
    if (part) return mem_free(part), 0;
    if (dir_list(path, &names, &count, e)) return -1;
    int rc = 0;
    for (i64 i = 0; i < count && !rc; i++) {
        if (names[i][0] == '.') continue;
        char *file = path_join(NULL, path, names[i], e);
        rc = !file ? -1 : path_is_dir(file) ? 0 : add_file(files, role, file, e);
        mem_free(file);
    }
    names_free(names, count);
    return rc;
}

void lock_files_free(struct lock_files *files) {
    json_decref(files->list);
    files->list = NULL;
}
