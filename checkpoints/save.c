/* save.c: saving a checkpoint so that no crash leaves half of one.
 *
 *   checkpoints/.tmp-step-000100-4711/   made, filled by the caller
 *   fsync every file; manifest.json (fsync); fsync the folder
 *   rename to checkpoints/step-000100; fsync checkpoints/
 *
 * POSIX rename of a folder is atomic; the fsyncs before it make sure that what the name will show
 * is on the disk, the one after it that the name is. Whoever is killed before the rename leaves a
 * .tmp- folder, removed at the next start. A finished checkpoint is never replaced (a folder cannot
 * be renamed over a filled one, and two renames are not atomic); one that does not verify is worth
 * nothing and makes room. */
#include "checkpoints/checkpoints_int.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

int file_sync_path(const char *path, struct err *e) {
    int fd = file_source(path, e);
    if (fd < 0) return -1;
    int status = file_sync(fd, path, e);
    close(fd);
    return status;
}

static int names_make(struct checkpoint *c, const char *run, struct err *e) {
    c->root = path_join(&c->memory, run, "checkpoints", e);
    if (!c->root) return -1;
    c->path = arena_printf(&c->memory, e, "%s/step-%06lld", c->root, (long long)c->step);
    c->temporary = arena_printf(&c->memory, e, "%s/.tmp-step-%06lld-%d", c->root,
                                (long long)c->step, (int)getpid());
    return c->path && c->temporary ? 0 : -1;
}

int checkpoint_begin(struct checkpoint *c, const char *run, i64 step, i64 bytes, struct err *e) {
    *c = (struct checkpoint){.step = step, .bytes = bytes};
    struct err why = {0};
    int status = names_make(c, run, e) || dir_make(c->root, e);
    if (!status && path_exists(c->path) && !manifest_verify(c->path, true, &why)) {
        status = err_failed(e, "%s exists already and is intact", c->path);
        err_hint(e, "resume from it, or choose another output_dir");
    }
    if (!status && why.starved) *e = why, status = -1; /* it may be whole */
    if (!status && disk_free(c->root) < bytes)
        status =
            err_failed(e, "saving step %lld needs %lld bytes, but %lld are free on the disk of %s",
                       (long long)step, (long long)bytes, (long long)disk_free(c->root), c->root);
    status = status || dir_remove(c->temporary, e) || dir_make(c->temporary, e);
    if (!status) return 0;
    arena_free(&c->memory);
    *c = (struct checkpoint){0};
    return -1;
}

int checkpoint_abort(struct checkpoint *c, struct err *e) {
    struct err unused = {0};
    if (!c->temporary) return -1;
    i64 free_bytes = disk_free(c->root);
    dir_remove(c->temporary, &unused);
    if (e->code)
        err_frame(e, "saving step %lld, about %lld bytes; %lld were free when it failed",
                  (long long)c->step, (long long)c->bytes, (long long)free_bytes);
    arena_free(&c->memory);
    *c = (struct checkpoint){0};
    return -1;
}

static int files_sync(const char *folder, struct err *e) {
    char **name = NULL;
    i64 count = 0;
    struct arena a = {0};
    int status = dir_list(folder, &name, &count, e);
    for (i64 i = 0; i < count && !status; i++) {
        char *path = path_join(&a, folder, name[i], e);
        status = path ? file_sync_path(path, e) : -1;
    }
    names_free(name, count);
    arena_free(&a);
    return status;
}

int checkpoint_commit(struct checkpoint *c, const struct manifest *m, const struct stored *tensor,
                      i64 count, struct err *e) {
    struct manifest own = *m;
    own.step = c->step;
    int status = files_sync(c->temporary, e) ||
                 manifest_write(c->temporary, &own, tensor, count, e) ||
                 dir_sync(c->temporary, e) || (path_exists(c->path) && dir_remove(c->path, e)) ||
                 path_rename(c->temporary, c->path, e) || dir_sync(c->root, e);
    if (status) return checkpoint_abort(c, e);
    arena_free(&c->memory);
    *c = (struct checkpoint){0};
    return 0;
}
