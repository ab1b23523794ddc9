/* train.h: what every folder of train/ may know: the global flags, the table that commands read
 * their flags by, and facts fixed when the program was built. */
#ifndef HONE_TRAIN_H
#define HONE_TRAIN_H

#include "base/base.h"

enum { NUMERICS_VERSION = 1 };
/* Facts fixed when the program was built: name, value, name, value, ..., NULL. At least "version",
 * "commit", "diff" (SHA-256 of uncommitted changes, or "clean"), "compiler", "flags",
 * "numerics_version". */
extern const char *const build_info[] __attribute__((weak));

/* ---- commands (main.c, args.c) */
struct globals {
    i64 threads;
    const char *isa, *device, *numerics, *quantize;
    bool eager, json, quiet, profile, sync;
};
extern struct globals globals;
struct command {
    const char *name, *usage, *help;                  /* one line each */
    int (*run)(int argc, char **argv, struct err *e); /* argv[0] is the command's first argument */
    const struct option *options;                     /* its flags, for help; NULL: none */
    int (*help_more)(FILE *to); /* what help says beyond these; NULL: nothing */
};
/* `--key value`, `--key=value`, `key=value` and `--flag` by the table; everything else is
 * positional. '-' and '_' are the same in keys. `rest`: the positional arguments (they point into
 * argv). */
/* A choice that is a flag of its own too: `--add-bos` is true, `--add-bos=auto` is as it was. */
#define SWITCH_CHOICES "auto true false"
struct args {
    char **rest;
    i64 count;
    const struct option *table;
    bool *given; /* per row of the table */
    struct arena arena;
};
bool args_given(const struct args *a, const char *key); /* on the command line */
/* A row of a command's table: the member of ROW_OF, a struct of flags, that has the key's name. */
#define ROW(key, type, otherwise, low, high, help)                                                 \
    { #key, type, offsetof(ROW_OF, key), otherwise, low, high, NULL, help }
int args_parse(struct args *a, int argc, char **argv, const struct option *table, void *to,
               struct err *e);
void args_free(struct args *a);
int args_need(const struct args *a, i64 low, i64 high, const char *usage, struct err *e);

#endif
