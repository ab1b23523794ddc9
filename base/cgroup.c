/* cgroup.c: how much memory this process can still have.
 *
 * The machine says it in MemAvailable. A container or a batch system gives less: the process is in
 * a control group, each of whose ancestors may have a limit too. What a group has left is its limit
 * without what is used, where file pages do not count as used: the kernel takes them back first.
 *
 *   /proc/self/cgroup      "0::/PATH" (v2) or "5:memory:/PATH" (v1)
 *   /sys/fs/cgroup         v2: memory.max, memory.high, memory.current, memory.stat
 *   /sys/fs/cgroup/memory  v1: memory.limit_in_bytes, memory.usage_in_bytes, memory.stat
 *
 * Within a container the path may name folders that are not mounted there; its own group is then
 * the mount itself, which is where the walk to the root ends. No stdio and no heap: this also
 * reports failed allocations. */
#include "base/base.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 4400, TEXT_SIZE = 8192 };

/* The file FOLDER/NAME as text; empty if there is none. */
static void small_read(char text[TEXT_SIZE], const char *folder, const char *name) {
    char path[PATH_SIZE + 64];
    text[0] = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t size = fd < 0 ? 0 : read(fd, text, TEXT_SIZE - 1);
    if (fd >= 0) close(fd);
    text[size > 0 ? size : 0] = 0;
}

/* The number in FOLDER/NAME, or in its line that begins with `key`. Without one ("max"): -1. */
static i64 number_of(const char *folder, const char *name, const char *key) {
    char text[TEXT_SIZE];
    small_read(text, folder, name);
    const size_t size = key ? strlen(key) : 0;
    for (const char *at = text; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
        if (size && (strncmp(at, key, size) || (at[size] != ' ' && at[size] != ':'))) continue;
        const char *digits = at + size + strspn(at + size, " :\t");
        return *digits >= '0' && *digits <= '9' ? strtoll(digits, NULL, 10) : -1;
    }
    return -1;
}

struct version {
    const char *mount, *limit[2], *usage, *pages[2];
};
static const struct version versions[2] = {
    {"/sys/fs/cgroup/memory",
     {"memory.limit_in_bytes", NULL},
     "memory.usage_in_bytes",
     {"total_inactive_file", "total_active_file"}},
    {"/sys/fs/cgroup",
     {"memory.max", "memory.high"},
     "memory.current",
     {"inactive_file", "active_file"}},
};

/* Bytes that one group has left; INT64_MAX without a limit. */
static i64 group_left(const struct version *v, const char *folder) {
    i64 limit = INT64_MAX;
    for (int i = 0; i < 2 && v->limit[i]; i++) {
        const i64 n = number_of(folder, v->limit[i], NULL);
        if (n >= 0) limit = i64_min(limit, n);
    }
    if (limit > INT64_MAX / 2) return INT64_MAX; /* v1 says "none" by a huge number */
    i64 used = i64_max(0, number_of(folder, v->usage, NULL));
    for (int i = 0; i < 2; i++) used -= i64_max(0, number_of(folder, "memory.stat", v->pages[i]));
    return i64_max(0, limit - i64_max(0, used));
}

/* The least that the group of `path` and its ancestors have left. */
static i64 path_left(const struct version *v, const char *root, const char *path, i64 size) {
    char folder[PATH_SIZE];
    const int mount = snprintf(folder, sizeof folder, "%s%s", root, v->mount);
    if (mount + size >= (i64)sizeof folder) return INT64_MAX;
    memcpy(folder + mount, path, (size_t)size);
    folder[mount + size] = 0;
    i64 left = INT64_MAX;
    for (;;) {
        left = i64_min(left, group_left(v, folder));
        char *slash = strrchr(folder + mount, '/');
        if (!slash) return left;
        *slash = 0;
    }
}

i64 mem_available_under(const char *root) {
    char folder[PATH_SIZE], text[TEXT_SIZE];
    snprintf(folder, sizeof folder, "%s/proc", root);
    const i64 kib = number_of(folder, "meminfo", "MemAvailable");
    i64 left = kib < 0 ? 0 : kib * 1024;
    small_read(text, folder, "self/cgroup");
    for (const char *line = text; *line;) { /* ID:CONTROLLERS:/PATH */
        const size_t size = strcspn(line, "\n");
        const char *names = memchr(line, ':', size), *end = line + size;
        const char *path = names ? memchr(names + 1, ':', (size_t)(end - names - 1)) : NULL;
        const char *memory = path ? memmem(names, (size_t)(path - names), "memory", 6) : NULL;
        if (path && (memory || path == names + 1))
            left = i64_min(left, path_left(&versions[!memory], root, path + 1, end - path - 1));
        line = *end ? end + 1 : end;
    }
    return left;
}
