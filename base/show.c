/* show.c: formatted text on its way to a person, however long it is (escape.c). */
#include "base/base.h"

void show(FILE *to, const char *fmt, ...) {
    char near[2048], *all = near;
    va_list args;
    va_start(args, fmt);
    i64 size = vsnprintf(near, sizeof near, fmt, args);
    va_end(args);
    if (size >= (i64)sizeof near) {
        all = mem_new(size + 1, NULL);
        va_start(args, fmt);
        if (all) vsnprintf(all, (size_t)size + 1, fmt, args);
        va_end(args);
    }
    show_bytes(to, all ? all : near, all ? size : (i64)sizeof near - 1, true);
    if (all != near) mem_free(all);
}
