/* h5_bytes.c: bytes of an HDF5 file within its bounds, and what to say where they are not. */
#include "base/h5_int.h"
#include <errno.h>
#include <unistd.h>

int h5_bad(struct h5_file *f, struct err *e, const char *fmt, ...) {
    char why[384];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    err_input(e, "'%s': a damaged or truncated HDF5 file", f->path);
    return err_detail(e, "%s", why);
}

int h5_read(struct h5_file *f, u64 at, i64 size, void *to, struct err *e) {
    if (at > (u64)f->size || size < 0 || size > f->size - (i64)at)
        return h5_bad(f, e, "%lld bytes at %llu are not inside the file", (long long)size,
                      (unsigned long long)at);
    for (i64 done = 0; done < size;) {
        ssize_t n = fault_hit(FAULT_READ)
                        ? -1
                        : pread(f->fd, (char *)to + done, (size_t)(size - done), (off_t)at + done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_system(e, "read", f->path);
        if (n == 0) return h5_bad(f, e, "it was cut off while it was in use");
        done += n;
    }
    return 0;
}

const u8 *h5_structure(struct h5_file *f, u64 at, i64 size, const char *what, struct err *e) {
    if (at > (u64)f->size || size < 0 || size > f->size - (i64)at)
        return h5_bad(f, e, "%s at %llu is not inside the file", what, (unsigned long long)at),
               NULL;
    if ((f->budget -= size) < 0)
        return h5_bad(f, e, "%s at %llu leads back to itself", what, (unsigned long long)at), NULL;
    u8 *data = arena_new(&f->arena, size + 1, e);
    return data && !h5_read(f, at, size, data, e) ? data : NULL;
}
