/* progress.c: the clock, and one line of progress that rewrites itself. Nothing is written unless a
 * person watches: standard error must be a terminal and --quiet absent, so logs and pipes stay
 * clean. */
#include "base/base.h"
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

bool quiet;
static bool line_open;

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_line(const char *fmt, ...) {
    if (quiet || !isatty(STDERR_FILENO)) return;
    struct winsize window = {0};
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) || !window.ws_col ? 80 : window.ws_col;
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    const i64 size = (i64)strlen(line), room = i64_min(width - 1, (i64)sizeof line - 2);
    fputs("\r\033[K", stderr);
    /* A wrapped line could not be rewritten. */
    show_bytes(stderr, line, size > room ? utf8_whole(line, room) : size, false);
    fflush(stderr);
    line_open = true;
}

void progress_end(void) {
    if (line_open) fputc('\n', stderr);
    line_open = false;
}
