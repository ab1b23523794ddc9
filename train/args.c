/* args.c: a command's flags by its option table. */
#include "train/train.h"

#include <string.h>

struct globals globals;

static void key_of(char key[64], const char *text) {
    snprintf(key, 64, "%.*s", (int)strcspn(text, "="), text);
    for (char *p = key; *p; p++)
        if (*p == '-') *p = '_';
}

/* A list that is given again grows: what stood there by default does not count. */
static int give(struct args *a, const struct option *o, void *to, const char *value,
                struct err *e) {
    struct text_list *list = (struct text_list *)(void *)((u8 *)to + o->offset), before = {0};
    const bool again = a->given[o - a->table] && o->type == OPT_TEXT_LIST;
    if (again) before = *list;
    if (option_set(a->table, to, o->key, value, "command line", &a->arena, e)) return -1;
    a->given[o - a->table] = true;
    if (!again || !before.count) return 0;
    const i64 count = before.count + list->count;
    char **all = arena_new(&a->arena, count * (i64)sizeof *all, e);
    if (!all) return -1;
    for (i64 i = 0; i < count; i++)
        all[i] = i < before.count ? before.item[i] : list->item[i - before.count];
    return *list = (struct text_list){all, count}, 0;
}

int args_parse(struct args *a, int argc, char **argv, const struct option *table, void *to,
               struct err *e) {
    *a = (struct args){0};
    if (table && option_defaults(table, to, &a->arena, e)) return -1;
    i64 rows = 0;
    while (table && table[rows].key) rows++;
    a->table = table, a->given = arena_new(&a->arena, rows + 1, e);
    if (!a->given || !(a->rest = arena_new(&a->arena, (argc + 1) * (i64)sizeof *a->rest, e)))
        return -1;
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
        if (give(a, o, to, value, e)) return -1;
    }
    return 0;
}

bool args_given(const struct args *a, const char *key) {
    const struct option *o = option_find(a->table, key);
    return o && a->given[o - a->table];
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
