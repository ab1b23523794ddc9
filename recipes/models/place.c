/* place.c: all weights moved to the device in use, or packed ones made plain. */
#include "recipes/models/models_int.h"

#include <string.h>

/* A copy of host memory on the device. */
static void *placed(const void *host, i64 bytes, struct err *e) {
    void *there = device_new(bytes, e);
    if (there && !device_write(there, host, bytes, e) && !device_sync(e)) return there;
    return device_free(there), NULL;
}

int weights_place(struct weights *w, struct err *e) {
    if (device_now() == DEVICE_CPU) return 0;
    for (i64 i = 0; i < w->params; i++) {
        struct param *p = w->param[i], there = *p;
        if (p->placed) continue;
        there.placed = true, there.mapped = false;
        for (int k = 0; k <= VIEW_PARTS; k++) *view_slot(&there.view, k) = NULL;
        for (int k = 0; k <= VIEW_PARTS; k++) {
            const void *host = *view_slot(&p->view, k);
            if (!host ||
                (*view_slot(&there.view, k) = placed(host, view_slot_bytes(&p->view, k), e)))
                continue;
            param_free(&there);
            return err_frame(e, "while moving %s to the GPU", p->name);
        }
        param_free(p);
        *p = there;
    }
    return 0;
}

int param_plain(struct param *p, enum dtype d, struct err *e) {
    struct param plain = *p;
    if (!p->view.packing) return 0;
    plain.view.packing = NULL, plain.placed = plain.mapped = false;
    memset(plain.view.part, 0, sizeof plain.view.part);
    if (!(plain.view.data = mem_new(view_bytes(&plain.view), e))) return -1;
    if (param_decode(p, d, plain.view.data, e)) return mem_free(plain.view.data), -1;
    param_free(p);
    return *p = plain, 0;
}

int weights_decode(struct weights *w, struct err *e) {
    for (i64 i = 0; i < w->params; i++)
        if (param_plain(w->param[i], w->dtype, e)) return -1;
    return weights_place(w, e);
}
