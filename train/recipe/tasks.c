/* tasks.c: the tasks that recipes name, and the keys that each has of its own. Their rows are those
 * of train/loop/objectives.c, so that an objective is added in one place. */
#include "train/recipe/recipe.h"

#include <string.h>

const struct task *task_find(const char *name) {
    const struct task *t;
    for (i64 i = 0; (t = task_at(i)); i++)
        if (name && !strcmp(t->name, name)) return t;
    return NULL;
}

const struct option *task_option(const char *key, const struct task **whose) {
    const struct task *t;
    for (i64 i = 0; (t = task_at(i)); i++) {
        const struct option *o = t->options ? option_find(t->options, key) : NULL;
        if (!o) continue;
        if (whose) *whose = t;
        return o;
    }
    return NULL;
}

void task_names(char *out, size_t size) {
    const struct task *t;
    size_t n = 0;
    *out = 0;
    for (i64 i = 0; (t = task_at(i)) && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", t->name);
}

void tasks_help(FILE *to) {
    const struct task *t;
    fprintf(to, "\nTasks, and the keys that only they have\n");
    for (i64 i = 0; (t = task_at(i)); i++) {
        fprintf(to, "  %-28s %-32s %s\n", t->name, "", t->help);
        for (const struct option *o = t->options; o && o->key; o++)
            fprintf(to, "  %-28s %-32s %s [%s]\n", t->name, o->key, o->help,
                    o->otherwise ? o->otherwise : "");
    }
}
