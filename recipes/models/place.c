/* place.c: all weights moved to the device in use, or their 4-bit codes made plain. */
#include "recipes/models/models_int.h"

#include <string.h>

/* A copy of host memory on the device takes its place in the view. */
static int view_place(struct view *v, struct err *e) {
    void *there = device_new(view_bytes(v), e);
    if (!there || device_write(there, v->data, view_bytes(v), e) || device_sync(e))
        return device_free(there), -1;
    v->data = there;
    return 0;
}

int weights_place(struct weights *w, struct err *e) {
    if (device_now() == DEVICE_CPU) return 0;
    for (i64 i = 0; i < w->params; i++) {
        struct param *p = w->param[i], there = *p;
        if (p->placed) continue;
        there.placed = true;
        struct view *to[] = {&there.view, &there.scale[0], &there.scale[1], &there.scale[2]};
        for (int k = 0; k < COUNT(to); k++)
            if (to[k]->data && view_place(to[k], e)) {
                for (int n = k; n < COUNT(to); n++) to[n]->data = NULL;
                param_free(&there);
                return err_frame(e, "while moving %s to the GPU", p->name);
            }
        param_free(p);
        *p = there;
    }
    return 0;
}

int weights_decode(struct weights *w, struct err *e) {
    for (i64 i = 0; i < w->params; i++) {
        struct param *p = w->param[i], plain = *p;
        if (p->view.dtype != U4) continue;
        plain.view.dtype = w->dtype, plain.placed = false;
        memset(plain.scale, 0, sizeof plain.scale);
        if (!(plain.view.data = mem_new(view_bytes(&plain.view), e))) return -1;
        if (param_decode(p, w->dtype, plain.view.data, e)) return mem_free(plain.view.data), -1;
        param_free(p);
        *p = plain;
    }
    return weights_place(w, e);
}
