/* tokenised.c: may a run go on with what it tokenised when it began? The files that its recipe
 * names are compared with those that the dataset in the run folder says it was made from. */
#include "train/loop/loop.h"

#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

struct made_from {
    const char *path; /* of the dataset */
    const struct data_item *item;
    const char *role;
    i64 same, edited, fresh; /* files that are there */
    const char *first, *first_sha256;
};

static const json_t *by_member(const json_t *list, const char *key, const char *value) {
    const json_t *one;
    size_t i;
    json_array_foreach(list, i, one) {
        const char *has = json_string_value(json_object_get(one, key));
        if (has && !strcmp(has, value)) return one;
    }
    return NULL;
}

static int compare(struct made_from *m, const json_t *list, const struct data_file *file,
                   char hex[65], struct err *e) {
    if (sha256_file(file->path, hex, e)) return -1;
    if (by_member(list, "sha256", hex))
        m->same++;
    else if (by_member(list, "file", file->name))
        m->edited++;
    else
        m->fresh++;
    return 0;
}

static int refuse(const struct made_from *m, const json_t *list, const char *hex, struct err *e) {
    const json_t *was = json_array_get(list, 0);
    const char *file = json_string_value(json_object_get(was, "file")),
               *sha256 = json_string_value(json_object_get(was, "sha256"));
    if (!file || !sha256) return err_input(e, "%s does not say what it was made from", m->path);
    err_input(e, "%s: this run was tokenised from %s, not from %s",
              *m->role == 't' ? "dataset" : "eval_dataset", file, m->item->path);
    err_detail(e, "%s holds it; SHA-256 of the text %.16s..., of %s %.16s...", m->path, sha256,
               m->item->path, hex);
    return err_hint(e, "name the same text to go on, or another output_dir for another run");
}

static int judge(const struct made_from *m, const json_t *list, const struct data_files *files,
                 const char *hex, struct err *e) {
    const i64 count = (i64)json_array_size(list), gone = count - m->same - m->edited;
    if (!m->same && !m->edited) return refuse(m, list, hex, e);
    if (quiet || (!m->edited && !m->fresh && gone <= 0)) return 0;
    if (files->count == 1 && count == 1)
        show(stderr, "note: %s was edited after the run began, which goes on with %s\n",
             m->item->path, m->path);
    else
        show(
            stderr,
            "note: of the files of %s, %lld were edited, %lld added and %lld removed after the run "
            "began, which goes on with %s\n",
            m->item->path, (long long)m->edited, (long long)m->fresh, (long long)i64_max(gone, 0),
            m->path);
    return 0;
}

int tokenised_check(const char *path, const struct data_item *item, const char *role,
                    struct err *e) {
    struct made_from m = {.path = path, .item = item, .role = role};
    struct data_files files;
    struct stat st;
    char hex[65] = "";
    /* What is gone, or was a stream, changes nothing. */
    if (data_files_find(&files, item->path, item->name, item->split, &(struct err){0}) ||
        !files.count || stat(files.item->path, &st) || !S_ISREG(st.st_mode))
        return data_files_free(&files), 0;
    struct dataset *d = dataset_open(path, e);
    const char *sources = d ? dataset_info(d)->sources : NULL;
    json_t *list = d ? json_parse(sources, (i64)strlen(sources), path, e) : NULL;
    int rc = list ? 0 : -1;
    for (i64 i = 0; !rc && i < files.count; i++) rc = compare(&m, list, &files.item[i], hex, e);
    if (!rc) rc = judge(&m, list, &files, hex, e);
    json_decref(list), dataset_close(d), data_files_free(&files);
    return rc;
}
