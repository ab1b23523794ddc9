/* paths.c: paths made of parts, and which file a path means, so that no output destroys an input.
 *
 * Two names can be one file: through "." and "..", a symbolic link, a hard link, a folder mounted
 * twice. Files that are there are compared by device and inode. A file that is not there yet is
 * compared by its resolved path; a link to nothing is followed, because writing would. An output is
 * replaced by renaming over it, so a hard link to an input would stay intact: it is refused all the
 * same, because the user who made both names one file does not expect them to part. */
#include "base/base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 40 }; /* as the kernel's */

int path_has(const char *folder, const char *name, struct err *e) {
    char *path = path_join(NULL, folder, name, e);
    const int found = path ? path_exists(path) : -1;
    return mem_free(path), found;
}

/* What a link says, whole; *out NULL: not a link. The file system may not know its size before. */
static int link_read(const char *path, char **out, struct err *e) {
    *out = NULL;
    for (i64 room = 256;; room *= 2) {
        char *target = mem_new(room, e);
        if (!target) return -1;
        const ssize_t size = readlink(path, target, (size_t)room);
        if (size > 0 && size < room) return *out = target, 0;
        mem_free(target);
        if (size <= 0) return 0;
    }
}

/* The folder and the last part of a path; both are the caller's. */
static int path_split(const char *path, char **folder, char **last, struct err *e) {
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/') size--;
    size_t at = size;
    while (at && path[at - 1] != '/') at--;
    *last = mem_printf(e, "%.*s", (int)(size - at), path + at);
    *folder = at ? mem_printf(e, "%.*s", (int)(at > 1 ? at - 1 : 1), path) : mem_text(".", e);
    return *folder && *last ? 0 : -1;
}

/* It calls itself once for each folder that is not there, up to 2,048 times: frames are small. */
static char *resolve(const char *path, int links, struct err *e) {
    char *real = realpath(path, NULL), *target, *folder = NULL, *last = NULL, *out = NULL;
    if (real || (errno != ENOENT && errno != ENOTDIR)) {
        if (!real) err_system(e, "find", path);
        out = real ? mem_text(real, e) : NULL;
        free(real);
        return out;
    }
    if (link_read(path, &target, e)) return NULL;
    if (path_split(path, &folder, &last, e)) {
        mem_free(folder), mem_free(last), mem_free(target);
        return NULL;
    }
    char *next = !target          ? mem_text(folder, e)
                 : *target == '/' ? mem_text(target, e)
                                  : path_join(NULL, folder, target, e);
    if (links > LINKS_MAX)
        err_input(e, "cannot find %s: too many links", path);
    else if (next && target)
        out = resolve(next, links + 1, e);
    else if (next && (!strcmp(next, path) || !*last))
        err_input(e, "cannot find %s", path);
    else if (next && (real = resolve(next, links, e)))
        out = path_join(NULL, strcmp(real, "/") ? real : "", last, e), mem_free(real);
    mem_free(folder), mem_free(last), mem_free(next), mem_free(target);
    return out;
}

char *path_resolve(const char *path, struct err *e) { return resolve(*path ? path : ".", 0, e); }

int path_same(const char *a, const char *b, struct err *e) {
    struct stat x, y;
    const bool here = !stat(a, &x), there = !stat(b, &y);
    if (here && there) return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    if (here != there) return 0;
    char *one = path_resolve(a, e), *two = one ? path_resolve(b, e) : NULL;
    const int equal = !two ? -1 : !strcmp(one, two);
    mem_free(one), mem_free(two);
    return equal;
}

static int refuse(const char *output, const char *other, const char *what, struct err *e) {
    if (strcmp(output, other))
        err_input(e, "the output %s is %s %s, under another name", output, what, other);
    else
        err_input(e, "the output %s is %s too", output, what);
    return err_hint(e, "name another output; nothing was written");
}

/* An output that is there, as one of the files directly in the folder `input`. */
static int inside(const char *output, const char *input, struct err *e) {
    char **name;
    i64 count;
    int result = 0;
    if (!path_is_dir(input) || !path_exists(output)) return 0;
    if (dir_list(input, &name, &count, e)) return -1;
    for (i64 i = 0; i < count && !result; i++) {
        char *file = path_join(NULL, input, name[i], e);
        const int found = file ? path_same(output, file, e) : -1;
        result = found > 0 ? refuse(output, file, "the input", e) : found;
        mem_free(file);
    }
    names_free(name, count);
    return result;
}

int paths_apart(const char *const *output, i64 outputs, const char *const *input, i64 inputs,
                struct err *e) {
    for (i64 i = 0; i < outputs; i++) {
        struct stat st;
        if (!output[i]) continue;
        if (!stat(output[i], &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
            return err_input(e, "the output %s exists and is not a regular file", output[i]),
                   err_hint(e, "name another output; nothing was written");
        for (i64 k = 0; k < inputs + i; k++) {
            const char *other = k < inputs ? input[k] : output[k - inputs];
            if (k < inputs && other && !path_exists(other)) continue; /* perhaps a text */
            const int found = other ? path_same(output[i], other, e) : 0;
            if (found < 0) return -1;
            if (found) return refuse(output[i], other, k < inputs ? "the input" : "the output", e);
            if (k < inputs && other && inside(output[i], other, e)) return -1;
        }
    }
    return 0;
}

/* The one that refs/main names goes first. */
i64 hub_snapshots(const char *folder, char *path, size_t room) {
    struct err e = {0};
    struct text ref = {0};
    char **name, *inner = path_join(NULL, folder, "snapshots", &e),
                 *main_ref = path_join(NULL, folder, "refs/main", &e);
    i64 count = 0, use = 0;
    if (inner && path_is_dir(inner) && !dir_list(inner, &name, &count, &e)) {
        if (main_ref && path_exists(main_ref)) (void)file_read(&ref, main_ref, &e);
        const size_t n = ref.data ? strcspn(ref.data, " \r\n") : 0;
        for (i64 i = 0; i < count; i++)
            if (n && strlen(name[i]) == n && !memcmp(name[i], ref.data, n)) use = i;
        if (count) snprintf(path, room, "%s/%s", inner, name[use]);
        names_free(name, count);
    }
    mem_free(inner), mem_free(main_ref), text_free(&ref);
    return count;
}

int hub_hint(const char *folder, struct err *e) {
    char path[400] = "";
    if (e->code && hub_snapshots(folder, path, sizeof path) > 0)
        err_hint(e, "it is a cache of the hub: name %s", path);
    return e->code ? -1 : 0;
}
