/* file.c: reading, writing and replacing files so that a crash at any moment leaves the old or the
 * new content.
 *
 * Replacing writes PATH.new, syncs it, renames it over PATH, and syncs the folder; a stale PATH.new
 * is overwritten the next time. Every call that can fail asks fault_hit first. Rejected: stdio,
 * which delays errors to fclose. */
#include "base/base.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

char *path_join(struct arena *a, const char *folder, const char *name, struct err *e) {
    return a ? arena_printf(a, e, "%s/%s", folder, name) : mem_printf(e, "%s/%s", folder, name);
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode)    ? "a folder"
           : S_ISCHR(mode)  ? "a device"
           : S_ISBLK(mode)  ? "a block device"
           : S_ISFIFO(mode) ? "a named pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "no file";
}

static int refuse(mode_t mode, const char *what, const char *path, struct err *e) {
    err_input(e, "cannot %s %s: it is %s, not a regular file", what, path, kind_of(mode));
    return err_hint(e, "name a regular file; a stream can be handed over as /dev/stdin");
}

/* /dev/stdin, /dev/fd/N, /proc/self/fd/N: the caller opened these, so he means them. */
static bool handed_over(const char *path) {
    return !strcmp(path, "/dev/stdin") || !strncmp(path, "/dev/fd/", 8) ||
           !strncmp(path, "/proc/self/fd/", 14);
}

/* O_NONBLOCK: opening a named pipe would wait for the other side. It means nothing for files. */
static int file_open(const char *path, int flags, const char *what, struct err *e) {
    const bool folder = flags & O_DIRECTORY, reads = (flags & O_ACCMODE) == O_RDONLY;
    int fd =
        fault_hit(FAULT_OPEN) ? -1 : open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    if (fd < 0) {
        struct stat st;
        const int number = errno;
        if (number == ENXIO && !stat(path, &st)) return refuse(st.st_mode, what, path, e);
        errno = number;
        return err_system(e, what, path);
    }
    struct stat st;
    int result = fstat(fd, &st) ? err_system(e, what, path) : 0;
    const bool stream = !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode); /* a folder: read says so */
    if (!result && !folder && stream && !(reads && handed_over(path)))
        result = refuse(st.st_mode, what, path, e);
    const int set = result ? -1 : fcntl(fd, F_GETFL);
    if (!result && (set < 0 || fcntl(fd, F_SETFL, set & ~O_NONBLOCK)))
        result = err_system(e, what, path);
    if (result) close(fd);
    return result ? -1 : fd;
}

int file_own(const char *path, int flags, struct err *e) {
    struct stat st;
    if (lstat(path, &st) || !S_ISLNK(st.st_mode))
        return file_open(path, flags | O_NOFOLLOW, flags & O_CREAT ? "create" : "open", e);
    err_input(e, "'%s' is a link, and a run writes only files of its own folder", path);
    return err_hint(e, "remove the link"), -1;
}

int file_source(const char *path, struct err *e) { return file_open(path, O_RDONLY, "open", e); }

int file_regular(const char *path, struct err *e) {
    struct stat st;
    if (stat(path, &st)) return err_system(e, "open", path);
    return S_ISREG(st.st_mode) ? 0 : refuse(st.st_mode, "open", path, e);
}

int map_open(struct map *m, const char *path, struct err *e) {
    *m = (struct map){(const u8 *)"", 0};
    int fd = file_open(path, O_RDONLY, "open", e), result = 0;
    if (fd < 0) return -1;
    struct stat st;
    if (fstat(fd, &st))
        result = err_system(e, "read", path);
    else if (!S_ISREG(st.st_mode))
        result = err_input(e, "cannot read %s: not a regular file", path);
    else if (st.st_size) {
        void *data = MAP_FAILED;
        if (!fault_hit(FAULT_READ))
            data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            result = err_system(e, "read", path);
        else
            *m = (struct map){data, st.st_size};
    }
    close(fd);
    return result;
}

void map_close(struct map *m) {
    if (m->size) munmap((void *)(uintptr_t)m->data, (size_t)m->size);
    *m = (struct map){0};
}

int file_read(struct text *out, const char *path, struct err *e) {
    *out = (struct text){0};
    int fd = file_open(path, O_RDONLY, "open", e), result = 0;
    if (fd < 0) return -1;
    struct stat st;
    i64 size = fstat(fd, &st) ? 0 : (i64)st.st_size, room = 0; /* a pipe has size 0 and grows */
    ssize_t got = 1;
    while (!result && got) {
        if (room - out->size < 2) {
            room = room ? room * 2 : i64_max(size, 4094) + 2;
            char *data = mem_grow(out->data, out->size, room, e);
            if (!data)
                result = -1;
            else
                out->data = data, out->capacity = room;
            continue;
        }
        got = fault_hit(FAULT_READ)
                  ? -1
                  : read(fd, out->data + out->size, (size_t)(room - out->size - 1));
        if (got > 0)
            out->size += got;
        else if (got < 0 && errno != EINTR)
            result = err_system(e, "read", path);
    }
    close(fd);
    if (result)
        text_free(out);
    else
        out->data[out->size] = 0;
    return result;
}

int file_write_all(int fd, const void *data, i64 size, const char *path, struct err *e) {
    for (i64 at = 0; at < size;) {
        size_t piece = (size_t)i64_min(size - at, 1 << 30);
        ssize_t put = fault_hit(FAULT_WRITE) ? -1 : write(fd, (const u8 *)data + at, piece);
        if (put > 0)
            at += put;
        else if (put == 0 || errno != EINTR) {
            if (put == 0) errno = EIO;
            err_system(e, "write", path);
            return err_detail(e, "%lld of %lld bytes were written", (long long)at, (long long)size);
        }
    }
    return 0;
}

int file_sync(int fd, const char *path, struct err *e) {
    bool failed = fault_hit(FAULT_FSYNC) || fsync(fd);
    return failed && errno != EINVAL ? err_system(e, "sync", path)
                                     : 0; /* EINVAL: a pipe or device */
}

int file_write(const char *path, const void *data, i64 size, struct err *e) {
    int fd = file_open(path, O_WRONLY | O_CREAT | O_TRUNC, "create", e);
    if (fd < 0) return -1;
    int result = file_write_all(fd, data, size, path, e);
    if (!result) result = file_sync(fd, path, e);
    if (close(fd) && !result) result = err_system(e, "write", path);
    return result;
}

/* The folder of a path: "a/b" gives "a", "b" gives ".", "/b" gives "/". */
static char *folder_of(const char *path, struct err *e) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_text(".", e);
    return mem_printf(e, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int file_replace(const char *path, const void *data, i64 size, struct err *e) {
    char *folder = folder_of(path, e), *fresh = folder ? mem_printf(e, "%s.new", path) : NULL;
    struct stat st; /* a link there, in a folder that others packed, would lead elsewhere */
    if (fresh && !lstat(fresh, &st) && S_ISLNK(st.st_mode)) unlink(fresh);
    int result = fresh ? file_write(fresh, data, size, e) : -1;
    if (!result) result = path_rename(fresh, path, e);
    if (result && fresh) unlink(fresh);
    if (!result) result = dir_sync(folder, e);
    mem_free(folder);
    mem_free(fresh);
    return result;
}

static int make_one(const char *path, struct err *e) {
    if (path_is_dir(path)) return 0;
    bool failed = fault_hit(FAULT_MKDIR) || mkdir(path, 0777);
    return !failed || (errno == EEXIST && path_is_dir(path)) ? 0
                                                             : err_system(e, "create folder", path);
}

int dir_make(const char *path, struct err *e) {
    char *copy = mem_text(path, e);
    if (!copy) return -1;
    int result = 0;
    for (char *at = copy + (*copy == '/'); !result && (at = strchr(at, '/')); *at++ = '/') {
        *at = 0;
        result = make_one(copy, e);
    }
    if (!result) result = make_one(copy, e);
    mem_free(copy);
    return result;
}

int dir_sync(const char *path, struct err *e) {
    int fd = file_open(path, O_RDONLY | O_DIRECTORY, "open folder", e);
    if (fd < 0) return -1;
    int result = file_sync(fd, path, e);
    close(fd);
    return result;
}

int dir_remove(const char *path, struct err *e) {
    struct stat st;
    if (lstat(path, &st))
        return errno == ENOENT || errno == ENOTDIR ? 0 : err_system(e, "remove", path);
    if (!S_ISDIR(st.st_mode)) return unlink(path) ? err_system(e, "remove", path) : 0;
    char **names;
    i64 count;
    if (dir_list(path, &names, &count, e)) return -1;
    int result = 0;
    for (i64 i = 0; i < count && !result; i++) {
        char *inner = path_join(NULL, path, names[i], e);
        result = inner ? dir_remove(inner, e) : -1;
        mem_free(inner);
    }
    names_free(names, count);
    if (!result && rmdir(path)) result = err_system(e, "remove", path);
    return result;
}

int path_rename(const char *from, const char *to, struct err *e) {
    return fault_hit(FAULT_RENAME) || rename(from, to) ? err_system(e, "rename to", to) : 0;
}

bool path_exists(const char *path) { return access(path, F_OK) == 0; }

bool path_is_dir(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

i64 path_size(const char *path) {
    struct stat st;
    return stat(path, &st) ? -1 : (i64)st.st_size;
}

i64 disk_free(const char *path) {
    struct statvfs v;
    return statvfs(path, &v) ? -1 : (i64)v.f_bavail * (i64)v.f_frsize;
}

static int names_compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int dir_list(const char *path, char ***names, i64 *count, struct err *e) {
    *names = NULL;
    *count = 0;
    DIR *dir = fault_hit(FAULT_OPEN) ? NULL : opendir(path);
    if (!dir) return err_system(e, "open folder", path);
    i64 room = 0;
    int result = 0;
    while (!result) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno) result = err_system(e, "read folder", path);
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (*count == room) {
            i64 size = (i64)sizeof **names, more = room ? room * 2 : 16;
            char **grown = mem_grow(*names, room * size, more * size, e);
            if (!grown) {
                result = -1;
                break;
            }
            *names = grown;
            room = more;
        }
        char *name = mem_text(entry->d_name, e);
        if (name)
            (*names)[(*count)++] = name;
        else
            result = -1;
    }
    closedir(dir);
    if (!result && *count) qsort(*names, (size_t)*count, sizeof **names, names_compare);
    if (result) {
        names_free(*names, *count);
        *names = NULL;
        *count = 0;
    }
    return result;
}

void names_free(char **names, i64 count) {
    for (i64 i = 0; i < count; i++) mem_free(names[i]);
    mem_free(names);
}
