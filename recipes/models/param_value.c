/* param_value.c: a parameter in memory: made, freed, its numbers one by one. */
#include "recipes/models/models_int.h"

#include <string.h>

void param_set(struct param *p, i64 i, float x) {
    if (p->view.dtype == BF16)
        ((u16 *)p->view.data)[i] = bf16_of_f32(x);
    else
        ((float *)p->view.data)[i] = x;
}
float param_get(const struct param *p, i64 i) {
    return p->view.dtype == BF16 ? bf16_to_f32(((u16 *)p->view.data)[i])
                                 : ((float *)p->view.data)[i];
}

int param_random(struct param *p, const struct packing *packing, struct err *e) {
    enum { BLOCK = 1 << 16 };
    if (!packing) packing = packing_find("nf4");
    if (!p->view.data && view_pack(&p->view, packing, NULL, e)) return -1;
    float *block = mem_new(BLOCK * (i64)sizeof *block, e);
    u16 *half = (u16 *)(void *)block;
    const struct rng rng = {.seed = 1, .purpose = RNG_INIT};
    const bool is_bf16 = p->view.dtype == BF16 && !p->view.packing;
    if (!block) return -1;
    for (i64 i = 0; i < BLOCK; i++) {
        const float x =
            p->type && p->type->kind == MODULE_NORM ? 1 : 0.02f * rng_normal(&rng, (u64)i);
        if (is_bf16)
            half[i] = bf16_of_f32(x);
        else
            block[i] = x;
    }
    for (int k = 0; k <= VIEW_PARTS; k++) {
        char *to = *view_slot(&p->view, k);
        const i64 bytes = view_slot_bytes(&p->view, k), at_once = BLOCK * (is_bf16 ? 2 : 4);
        for (i64 at = 0; to && at < bytes; at += at_once)
            memcpy(to + at, block, (size_t)i64_min(at_once, bytes - at));
    }
    return mem_free(block), 0;
}

struct param *param_add(struct weights *w, const char *name, int rank, const i64 *dim, enum dtype d,
                        bool later, struct err *e) {
    struct param *p = arena_new(&w->arena, sizeof *p, e);
    struct param **more =
        p ? mem_grow(w->param, w->params * (i64)sizeof p, (w->params + 1) * (i64)sizeof p, e)
          : NULL;
    if (!more) return NULL;
    w->param = more;
    *p = (struct param){
        .name = name, .layer = -1, .decay = rank > 1, .view = {.dtype = d, .rank = rank}};
    memcpy(p->view.dim, dim, sizeof *dim * (size_t)rank);
    if (!later && !(p->view.data = mem_new(view_bytes(&p->view), e))) {
        err_detail(e, "for parameter %s", name);
        return NULL;
    }
    return w->param[w->params++] = p;
}
void param_free(struct param *p) {
    void (*give)(void *) = p->placed ? device_free : mem_free;
    for (int k = 0; k <= VIEW_PARTS && !p->mapped; k++) give(*view_slot(&p->view, k));
}

i64 param_bytes(const struct param *p) { return view_memory(&p->view); }
