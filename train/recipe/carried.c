/* carried.c: the files that every checkpoint of a run carries from one folder: config, tokenizer,
 * generation config, chat template.
 *
 * A new model's are RUN/model, written at the start. recipe.lock lists them with role "run" and a
 * path within the run, so that a run may move. They are read again at every save. What was damaged
 * in between would go into all later checkpoints and look intact there, so they are hashed before
 * each reuse: on resume and by `hone verify` against the lock, at a save against what the program
 * found when it began. A run whose lock is older lists none; its newest checkpoint vouches instead,
 * where config.json may differ in the keys that saving sets. */
#include "checkpoints/checkpoints.h"
#include "train/recipe/recipe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char role[] = "run";

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static int changed(const char *run, const char *name, const char *was, const char *is, int code,
                   struct err *e) {
    const char *head = code == ERR_INPUT ? "cannot resume: " : "";
    if (is)
        err_set(e, code, "%s%s/model/%s changed since the run began", head, run, name);
    else
        err_set(e, code, "%s%s/model/%s is missing", head, run, name);
    err_detail(e, "SHA-256 was %.64s, is %.64s", was, is ? is : "that of no file");
    return err_hint(
        e, "every intact checkpoint has a copy: cp %s/checkpoints/step-NNNNNN/%s %s/model/", run,
        name, run);
}

static int one_check(const char *run, const char *name, const char *was, int code, struct err *e) {
    char *path = mem_printf(e, "%s/model/%s", run, name), is[65];
    int rc = path ? 0 : -1;
    if (!rc && !path_exists(path)) rc = changed(run, name, was, NULL, code, e);
    rc = rc || sha256_file(path, is, e);
    if (!rc && strcmp(is, was)) rc = changed(run, name, was, is, code, e);
    mem_free(path);
    return rc ? -1 : 0;
}

/* ---- what the lock lists */

int carried_list(const char *folder, struct lock_files *files, struct err *e) {
    int rc = 0;
    const char *name;
    for (i64 i = 0; !rc && (name = folder_companion(i)); i++) {
        char *path = path_join(NULL, folder, name, e),
             *within = path ? mem_printf(e, "model/%s", name) : NULL;
        rc = !within || (path_exists(path) && lock_files_add_as(files, role, path, within, e));
        mem_free(path), mem_free(within);
    }
    return rc ? -1 : 0;
}

bool carried_is(const json_t *item) { return !strcmp(text_of(item, "role"), role); }

/* NAME of an entry about RUN/model/NAME; NULL: it is about something else. */
static const char *name_of(const json_t *item) {
    const char *path = text_of(item, "path");
    return carried_is(item) && !strncmp(path, "model/", 6) && !strchr(path + 6, '/') ? path + 6
                                                                                     : NULL;
}

/* A file that was not there when the run began would go into checkpoints too. */
static int extra_check(const char *run, const json_t *files, int code, struct err *e) {
    const char *name;
    for (i64 i = 0; (name = folder_companion(i)); i++) {
        bool listed = false;
        size_t k;
        json_t *item;
        json_array_foreach((json_t *)files, k, item) listed |=
            name_of(item) && !strcmp(name_of(item), name);
        char *path = mem_printf(e, "%s/model/%s", run, name);
        if (!path) return -1;
        const bool extra = !listed && path_exists(path);
        mem_free(path);
        if (!extra) continue;
        err_set(e, code, "%s%s/model/%s was not there when the run began",
                code == ERR_INPUT ? "cannot resume: " : "", run, name);
        return err_hint(e, "remove it: checkpoints would carry it");
    }
    return 0;
}

/* ---- older locks */

static json_t *without_types(const char *path, struct err *e) {
    static const char *const set[] = {"dtype", "torch_dtype", "quantization_config"};
    json_t *j = json_open(path, e);
    for (int i = 0; i < COUNT(set); i++) json_object_del(j, set[i]);
    return j;
}

static int configs_equal(const char *run, const char *checkpoint, const char *was, int code,
                         struct err *e) {
    char *path = path_join(NULL, run, "model/config.json", e),
         *copy = path ? path_join(NULL, checkpoint, "config.json", e) : NULL, is[65] = "";
    struct err unread = {0};
    json_t *a = copy ? without_types(copy, e) : NULL, *b = a ? without_types(path, &unread) : NULL;
    int rc = a ? 0 : -1;
    if (a && !path_exists(path))
        rc = changed(run, "config.json", was, NULL, code, e);
    else if (a && (!b || !json_equal(a, b)))
        rc = sha256_file(path, is, e) ? -1 : changed(run, "config.json", was, is, code, e);
    json_decref(a), json_decref(b), mem_free(path), mem_free(copy);
    return rc;
}

static int older_check(const char *run, int code, struct err *e) {
    struct text notes = {0};
    char *newest = NULL;
    i64 step;
    const int found = checkpoint_latest(run, &newest, &step, &notes, e);
    char *path = found > 0 ? path_join(NULL, newest, "manifest.json", e) : NULL;
    json_t *m = path ? json_open(path, e) : NULL, *item;
    int rc = found < 0 || (found && !m) ? -1 : 0;
    size_t i;
    json_array_foreach(json_object_get(m, "files"), i, item) {
        const char *name = text_of(item, "name"), *was = text_of(item, "sha256"), *known;
        bool carried = false;
        for (i64 k = 0; (known = folder_companion(k)); k++) carried |= !strcmp(name, known);
        if (!carried || rc || !strcmp(name, "chat_template.jinja")) continue; /* of the recipe */
        rc = strcmp(name, "config.json") ? one_check(run, name, was, code, e)
                                         : configs_equal(run, newest, was, code, e);
    }
    json_decref(m), mem_free(path), mem_free(newest), text_free(&notes);
    return rc;
}

int carried_check(const char *run, const json_t *files, bool expected, int code, struct err *e) {
    i64 listed = 0;
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)files, i, item) {
        if (!name_of(item)) continue;
        if (one_check(run, name_of(item), text_of(item, "sha256"), code, e)) return -1;
        listed++;
    }
    if (listed) return extra_check(run, files, code, e);
    return expected ? older_check(run, code, e) : 0;
}

int carried_copied(const struct lock_files *were, const char *from, const char *folder,
                   struct err *e) {
    const char *name;
    for (i64 i = 0; (name = folder_companion(i)); i++) {
        char *path = path_join(NULL, folder, name, e), is[65] = "";
        const char *was = NULL;
        size_t k;
        json_t *item;
        json_array_foreach(were->list, k, item) {
            if (!strcmp(name_of(item), name)) was = text_of(item, "sha256");
        }
        int rc = !path || (path_exists(path) && sha256_file(path, is, e)) ? -1 : 0;
        if (!rc && strcmp(is, was ? was : "")) {
            rc = err_failed(e, "%s/%s %s while the run was going on", from, name,
                            !*is   ? "vanished"
                            : !was ? "appeared"
                                   : "changed");
            err_detail(e, "SHA-256 was %.64s, is %.64s", was ? was : "that of no file",
                       *is ? is : "that of no file");
            err_hint(e, "put it back and resume: the checkpoints before are intact");
        }
        mem_free(path);
        if (rc) return -1;
    }
    return 0;
}
