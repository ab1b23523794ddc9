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
