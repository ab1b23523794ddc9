/* run.c: the checkpoints of a run: listing, the newest intact one, pruning, the chain of parents.
 */
#include "checkpoints/checkpoints_int.h"
#include <stdlib.h>
#include <string.h>

/* The step of a folder name "step-000100", -1 for any other name. */
static i64 name_step(const char *name) {
    if (strncmp(name, "step-", 5)) return -1;
    size_t digits = strspn(name + 5, "0123456789");
    if (digits < 6 || digits > 18 || name[5 + digits] || (digits > 6 && name[5] == '0')) return -1;
    return strtoll(name + 5, NULL, 10);
}

static int step_order(const void *a, const void *b) {
    i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return x < y ? -1 : x > y;
}

char *checkpoint_path(const char *run, i64 step, struct err *e) {
    return mem_printf(e, "%s/checkpoints/step-%06lld", run, (long long)step);
}

int checkpoint_list(const char *run, struct checkpoint_list *list, struct err *e) {
    *list = (struct checkpoint_list){0};
    char **name = NULL, *root = path_join(NULL, run, "checkpoints", e);
    i64 count = 0;
    int status = root ? 0 : -1;
    if (!status && path_is_dir(root)) {
        status = dir_list(root, &name, &count, e) ||
                 !(list->step = mem_new_array(count + 1, sizeof *list->step, e));
        for (i64 i = 0; i < count && !status; i++)
            if (name_step(name[i]) >= 0) list->step[list->count++] = name_step(name[i]);
        names_free(name, count);
        if (list->count > 1) qsort(list->step, (size_t)list->count, sizeof *list->step, step_order);
    }
    mem_free(root);
    return status ? -1 : 0;
}

int checkpoint_clean(const char *run, struct err *e) {
    char **name = NULL, *root = path_join(NULL, run, "checkpoints", e);
    i64 count = 0;
    int status = root ? 0 : -1;
    if (!status && path_is_dir(root)) status = dir_list(root, &name, &count, e);
    for (i64 i = 0; i < count && !status; i++) {
        if (strncmp(name[i], ".tmp-", 5)) continue;
        char *path = path_join(NULL, root, name[i], e);
        status = path ? dir_remove(path, e) : -1;
        mem_free(path);
    }
    names_free(name, count);
    mem_free(root);
    return status;
}

/* A checkpoint's manifest must verify and be of the step that the folder's name says. */
static int step_verify(const char *path, i64 step, bool deep, struct manifest *m, struct err *e) {
    if (manifest_verify(path, deep, e) || manifest_read(path, m, e)) return -1;
    if (m->step == step) return 0;
    return err_failed(e, "%s/manifest.json is of step %lld", path, (long long)m->step);
}

int checkpoint_latest(const char *run, char **path, i64 *step, struct text *notes, struct err *e) {
    struct checkpoint_list list;
    int found = checkpoint_list(run, &list, e);
    *path = NULL;
    for (i64 i = list.count - 1; i >= 0 && !found; i--) {
        struct err why = {0};
        struct manifest m;
        if (!(*path = checkpoint_path(run, list.step[i], e)))
            found = -1;
        else if (!step_verify(*path, list.step[i], true, &m, &why))
            found = 1, *step = list.step[i];
        else if (why.starved) { /* it may be whole: to go on from an older one would lose steps */
            *e = why, found = -1;
            err_frame(e, "while verifying %s", *path);
            mem_free(*path);
            *path = NULL;
        } else {
            if (text_printf(notes, e, "step %lld is not usable: %s\n", (long long)list.step[i],
                            why.primary))
                found = -1;
            mem_free(*path);
            *path = NULL;
        }
    }
    mem_free(list.step);
    return found;
}

/* Renamed away first: a folder half removed never carries a checkpoint's name. */
static int step_remove(const char *run, i64 step, struct err *e) {
    char *path = checkpoint_path(run, step, e);
    char *doomed = mem_printf(e, "%s/checkpoints/.tmp-old-%06lld", run, (long long)step);
    int status = !path || !doomed || dir_remove(doomed, e) || path_rename(path, doomed, e) ||
                 dir_remove(doomed, e);
    mem_free(path);
    mem_free(doomed);
    return status ? -1 : 0;
}

int checkpoint_prune(const char *run, i64 keep, struct err *e) {
    struct checkpoint_list list;
    int status = checkpoint_list(run, &list, e);
    for (i64 i = 0; i < list.count - i64_max(keep, 1) && !status; i++)
        status = step_remove(run, list.step[i], e);
    mem_free(list.step);
    return status;
}

int checkpoint_verify_chain(const char *run, bool deep, i64 *count, struct err *e) {
    struct checkpoint_list list;
    char before[65] = "";
    int status = checkpoint_list(run, &list, e);
    for (i64 i = 0; i < list.count && !status; i++) {
        struct manifest m;
        char *path = checkpoint_path(run, list.step[i], e);
        status = path ? step_verify(path, list.step[i], deep, &m, e) : -1;
        if (!status && i && strcmp(m.parent, before)) {
            status = err_failed(e, "%s does not follow step %lld: the chain is broken", path,
                                (long long)list.step[i - 1]);
            err_detail(e, "parent in its manifest: %s; SHA-256 of the manifest before it: %s",
                       m.parent[0] ? m.parent : "none", before);
        }
        if (!status) status = manifest_sha256(path, before, e);
        mem_free(path);
    }
    *count = list.count;
    mem_free(list.step);
    return status;
}
