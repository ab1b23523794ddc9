/* tasks.c: the tasks that recipes name, and the keys that each has of its own.
 *
 * `recipe_tasks` is data that a folder above fills, as main.c fills `commands` of train.h: its rows
 * begin the rows of train/loop/objectives.c, so that an objective is added in one place. Nothing
 * here calls upwards. Rejected: a table of tasks here beside that of objectives, of which one could
 * be forgotten; a function that registers tasks, which each program and test would have to call
 * before it reads a recipe. */
#include "train/recipe/recipe.h"

#include <string.h>

const struct task *task_find(const char *name) {
    for (const struct task *const *t = recipe_tasks; *t; t++)
        if (name && !strcmp((*t)->name, name)) return *t;
    return NULL;
}

const struct option *task_option(const char *key, const struct task **whose) {
    for (const struct task *const *t = recipe_tasks; *t; t++) {
        const struct option *o = (*t)->options ? option_find((*t)->options, key) : NULL;
        if (!o) continue;
        if (whose) *whose = *t;
        return o;
    }
    return NULL;
}

void task_names(char *out, size_t size) {
    size_t n = 0;
    *out = 0;
    for (const struct task *const *t = recipe_tasks; *t && n < size; t++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", (*t)->name);
}

void tasks_help(FILE *to) {
    fprintf(to, "\nTasks, and the keys that only they have\n");
    for (const struct task *const *t = recipe_tasks; *t; t++) {
        fprintf(to, "  %-28s %-32s %s\n", (*t)->name, "", (*t)->help);
        for (const struct option *o = (*t)->options; o && o->key; o++)
            fprintf(to, "  %-28s %-32s %s [%s]\n", (*t)->name, o->key, o->help,
                    o->otherwise ? o->otherwise : "");
    }
}
