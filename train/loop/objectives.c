/* objectives.c: what a run can train for: a row is an objective_NAME.c, which `task` names. */
#include "train/loop/loop.h"

#include <string.h>

/* declared here, not in loop.h: nobody else names one */
extern const struct objective objective_pretrain, objective_sft;
static const struct objective *const list[] = {&objective_pretrain, &objective_sft, NULL};
const struct objective *const *objectives = list;

const struct objective *objective_find(const char *name) {
    for (const struct objective *const *o = objectives; *o; o++)
        if (!strcmp((*o)->task.name, name)) return *o;
    return NULL;
}

const struct task *task_at(i64 i) {
    i64 count = 0;
    while (objectives[count]) count++;
    return i < count ? &objectives[i]->task : NULL;
}
