/* err.c: the caller-owned error, as in git and PostgreSQL: what was found, what was expected, what
 * to do.
 *
 * Storage is fixed, so reporting a failed allocation cannot itself fail; long texts are cut. The
 * first error wins: later ones are refused, and so are the detail and hint that belong to a refused
 * one. Rejected: an error stack on the heap, and errno-style codes, which cannot name a file and a
 * line. */
#include "base/base.h"
#include <errno.h>
#include <string.h>

static int set_list(struct err *e, int code, const char *fmt, va_list args) {
    if (!e) return -1;
    if (e->code) {
        e->refused = true;
        return -1;
    }
    e->code = code;
    e->refused = false;
    vsnprintf(e->primary, sizeof e->primary, fmt, args);
    return -1;
}

static void add_list(const struct err *e, char *to, size_t size, const char *fmt, va_list args) {
    if (e->code && !e->refused && !to[0]) vsnprintf(to, size, fmt, args);
}

int err_set(struct err *e, int code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    set_list(e, code, fmt, args);
    va_end(args);
    return -1;
}

int err_input(struct err *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    set_list(e, ERR_INPUT, fmt, args);
    va_end(args);
    return -1;
}

int err_failed(struct err *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    set_list(e, ERR_FAILED, fmt, args);
    va_end(args);
    return -1;
}

int err_memory(struct err *e, const char *fmt, ...) {
    va_list args;
    if (e && !e->code) e->starved = true;
    va_start(args, fmt);
    set_list(e, ERR_FAILED, fmt, args);
    va_end(args);
    return -1;
}

/* A wrong path or missing permission is the user's to correct; a full or broken disk is a failure
 * of the run. */
static int code_of_errno(int number) {
    switch (number) {
    case ENOENT:
    case EACCES:
    case EPERM:
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case ELOOP:
    case ENAMETOOLONG:
    case EROFS:
    case EINVAL:
    case ENXIO: return ERR_INPUT;
    default: return ERR_FAILED;
    }
}

int err_system(struct err *e, const char *what, const char *path) {
    int number = errno;
    char text[128];
    if (e && !e->code) e->starved = number == ENOMEM || number == EMFILE || number == ENFILE;
    err_set(e, code_of_errno(number), "cannot %s %s: %s", what, path,
            strerror_r(number, text, sizeof text));
    if (number == ENOSPC || number == EDQUOT) err_hint(e, "free some space there and try again");
    return -1;
}

int err_detail(struct err *e, const char *fmt, ...) {
    if (!e) return -1;
    va_list args;
    va_start(args, fmt);
    add_list(e, e->detail, sizeof e->detail, fmt, args);
    va_end(args);
    return -1;
}

int err_hint(struct err *e, const char *fmt, ...) {
    if (!e) return -1;
    va_list args;
    va_start(args, fmt);
    add_list(e, e->hint, sizeof e->hint, fmt, args);
    va_end(args);
    return -1;
}

int err_frame(struct err *e, const char *fmt, ...) {
    if (!e || !e->code || e->frames >= COUNT(e->frame)) return -1;
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->frame[e->frames++], sizeof e->frame[0], fmt, args);
    va_end(args);
    return -1;
}

/* A text that fills its storage was cut, perhaps within a character: that is left out. */
static void line_print(FILE *to, const char *head, const char *text, size_t room) {
    const i64 size = (i64)strlen(text);
    fputs(head, to);
    show_bytes(to, text, size + 1 == (i64)room ? utf8_whole(text, size) : size, false);
    fputc('\n', to);
}

void err_print(const struct err *e, FILE *to) {
    if (!e->code) return;
    line_print(to, e->code == ERR_STOPPED ? "" : "error: ", e->primary, sizeof e->primary);
    if (e->detail[0]) line_print(to, "  ", e->detail, sizeof e->detail);
    for (int i = 0; i < e->frames; i++) line_print(to, "  ", e->frame[i], sizeof e->frame[i]);
    if (e->hint[0]) line_print(to, "  hint: ", e->hint, sizeof e->hint);
}
