/* lora_part.c: the matrices of an adapter as parameters, and the values that A begins with:
 * names and values are PEFT's. */
#include "recipes/models/models_int.h"

#include <string.h>

struct param *lora_part_new(struct weights *w, const char *module, enum lora_part part, int rank,
                            const i64 *dim, struct err *e) {
    const char *name = lora_key(&w->arena, module, part, e);
    struct param *p = name ? param_add(w, name, rank, dim, w->dtype, false, e) : NULL;
    if (p)
        p->trainable = true, p->lr_group = part == LORA_A ? LR_GROUP_PLAIN
                                           : part == LORA_EMBED_A || part == LORA_EMBED_B
                                               ? LR_GROUP_EMBEDDING
                                               : LR_GROUP_FAST;
    return p;
}

/* A: uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt(5)), or normal with deviation 1/r. B is
 * zero. */
void lora_start(struct param *a, const struct lora_config *c, u64 seed, i64 index) {
    const struct rng r = {seed, RNG_INIT, 1, (u32)index};
    const bool gaussian = c->init_lora_weights && !strcmp(c->init_lora_weights, "gaussian");
    const i64 in = a->view.dim[a->view.rank - 1], rank = a->view.dim[a->view.rank - 2];
    const float bound = (float)(1 / __builtin_sqrt((double)in));
    for (i64 i = 0; i < view_count(&a->view); i++)
        param_set(a, i,
                  gaussian ? rng_normal(&r, (u64)i) / (float)rank
                           : bound * (2 * rng_uniform(&r, (u64)i) - 1));
}
