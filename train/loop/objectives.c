/* objectives.c: what a run can train for: a row is an objective_NAME.c, which `task` names. */
#include "train/loop/loop.h"

/* declared here, not in loop.h: nobody else names one */
extern const struct objective objective_pretrain, objective_sft, objective_sft_mean;
static const struct task *const list[] = {&objective_pretrain.task, &objective_sft.task,
                                          &objective_sft_mean.task, NULL};
const struct task *const *recipe_tasks = list;

const struct objective *objective_find(const char *name) {
    return (const struct objective *)task_find(name);
}
