/* args.c: a command's flags by its option table. */
#include "train/train.h"

#include <string.h>

struct globals globals;

static void key_of(char key[64], const char *text) {
    snprintf(key, 64, "%.*s", (int)strcspn(text, "="), text);
    for (char *p = key; *p; p++)
        if (*p == '-') *p = '_';
}

int args_parse(struct args *a, int argc, char **argv, const struct option *table, void *to,
               struct err *e) {
    *a = (struct args){0};
    if (table && option_defaults(table, to, &a->arena, e)) return -1;
    if (!(a->rest = arena_new(&a->arena, (argc + 1) * (i64)sizeof *a->rest, e))) return -1;
    for (int i = 0; i < argc; i++) {
        const bool flag = !strncmp(argv[i], "--", 2) && argv[i][2];
        char key[64];
        key_of(key, argv[i] + (flag ? 2 : 0));
        const struct option *o = table ? option_find(table, key) : NULL;
        const char *value = strchr(argv[i], '=');
        if (!flag && !(value && o)) {
            a->rest[a->count++] = argv[i];
            continue;
        }
        if (!o) {
            const char *near = table ? option_nearest(table, key) : NULL;
            err_input(e, "unknown flag '%s'", argv[i]);
            return near ? err_hint(e, "did you mean '--%s'?", near) : -1;
        }
        if (value)
            value++;
        else if (o->type == OPT_BOOL ||
                 (o->type == OPT_CHOICE && !strcmp(o->choices, SWITCH_CHOICES)))
            value = "true";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            return err_input(e, "%s needs a value", argv[i]);
        if (option_set(table, to, key, value, "command line", &a->arena, e)) return -1;
    }
    return 0;
}

void args_free(struct args *a) { arena_free(&a->arena); }

int args_need(const struct args *a, i64 low, i64 high, const char *usage, struct err *e) {
    if (a->count >= low && a->count <= high) return 0;
    if (a->count < low)
        err_input(e, "too few arguments");
    else
        err_input(e, "unexpected argument '%s'", a->rest[high]);
    return err_hint(e, "usage: hone %s", usage);
}
