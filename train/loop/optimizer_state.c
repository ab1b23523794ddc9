/* optimizer_state.c: an optimizer's state: its digest, its size, and what state.h5 holds of it, in
 * this order. A weight without a master, and the master of an fp32 parameter, are in the weights'
 * file. */
#include "train/loop/loop.h"

#include <string.h>

static const char *const parts[STATE_PARTS] = {"master",   "m",        "v",   "extra",
                                               "m_absmax", "v_absmax", "row", "col"};

/* What the digest sees of part k: a parameter without a master is its own. */
static struct view held(const struct moments *s, int k) {
    return k || s->state[0].data ? s->state[k] : s->p->view;
}

/* The shape in state.h5: the parameter's own, but for scales and sums. */
static struct view stored_as(const struct moments *s, int k) {
    struct view v = s->state[k];
    if (k < STATE_M_ABSMAX) v.rank = s->p->view.rank, memcpy(v.dim, s->p->view.dim, sizeof v.dim);
    return v;
}

/* Version 1: a stream over the step, then each parameter's name and tensors. */
static int stream_digest(const struct optimizer *o, char hex[65], struct err *e) {
    struct sha256 h;
    if (sha256_begin(&h, e)) return -1;
    sha256_add(&h, &o->step, sizeof o->step);
    struct device_buffer copy = {0};
    const void *from = o;
    for (i64 i = 0; from && i < o->count; i++) {
        const struct moments *s = &o->of[i];
        sha256_add(&h, s->p->name, (i64)strlen(s->p->name) + 1);
        for (int k = 0; from && k < STATE_PARTS; k++) {
            const struct view own = held(s, k);
            if (!own.data) continue;
            from = device_peek(own.data, view_bytes(&own), &copy, e);
            if (from) sha256_add(&h, from, view_bytes(&own));
        }
    }
    mem_free(copy.data);
    return sha256_end(&h, hex), from ? 0 : -1;
}

int optimizer_rows(const struct optimizer *o, i64 first, i64 count, struct state_rows *rows,
                   struct err *e) {
    struct device_buffer copy = {0};
    int rc = 0;
    for (i64 i = first; i < first + count; i++)
        for (int k = 0; !rc && k < STATE_PARTS; k++) {
            char name[256];
            const struct moments *s = &o->of[i];
            const struct view own = held(s, k);
            if (!own.data) continue;
            const bool weight = own.data == s->p->view.data;
            snprintf(name, sizeof name, "%s/%s", s->p->name, weight ? "weight" : parts[k]);
            const void *from = device_peek(own.data, view_bytes(&own), &copy, e);
            rc = !from || state_row_add(rows, name, from, view_bytes(&own), e);
        }
    mem_free(copy.data);
    return rc ? -1 : 0;
}

int optimizer_digest(const struct optimizer *o, i64 version, char hex[65], struct err *e) {
    struct state_rows rows = {0};
    if (version == 1) return stream_digest(o, hex, e);
    const int rc =
        optimizer_rows(o, 0, o->count, &rows, e) || state_rows_digest(&rows, o->step, hex, e);
    state_rows_free(&rows);
    return rc ? -1 : 0;
}

i64 optimizer_bytes(const struct optimizer *o) {
    i64 bytes = o->work_bytes;
    for (i64 i = 0; i < o->count; i++) {
        const struct moments *s = &o->of[i];
        for (int k = 0; k < STATE_PARTS; k++)
            bytes += s->state[k].data ? view_bytes(&s->state[k]) : 0;
    }
    return bytes;
}

i64 optimizer_gradient_bytes(const struct optimizer *o) {
    i64 bytes = 0;
    for (i64 i = 0; i < o->count; i++)
        for (int u = 0; u < SLOT_USES; u++) {
            bytes += o->of[i].grad[u] ? o->of[i].count * 4 : 0;
            for (int l = 0; l < GROUP_LEVELS; l++)
                bytes += o->of[i].sum[u][l] ? o->of[i].count * 4 : 0;
        }
    return bytes;
}

int optimizer_save(const struct optimizer *o, struct state_writer *w, struct err *e) {
    struct device_buffer copy = {0};
    int rc = state_put_i64(w, "step", o->step, e);
    for (i64 i = 0; !rc && i < o->count; i++)
        for (int k = 0; !rc && k < STATE_PARTS; k++) {
            char name[256];
            const struct view v = stored_as(&o->of[i], k);
            if (!v.data) continue;
            snprintf(name, sizeof name, "optimizer/%s/%s", o->of[i].p->name, parts[k]);
            const void *from = device_peek(v.data, view_bytes(&v), &copy, e);
            rc = !from || state_add(w, name, v.dtype, v.rank, v.dim, from, e);
        }
    mem_free(copy.data);
    return rc ? -1 : 0;
}

int optimizer_load(struct optimizer *o, struct state_reader *r, struct err *e) {
    if (state_get_i64(r, "step", &o->step, e)) return -1;
    for (i64 i = 0; i < o->count; i++)
        for (int k = 0; k < STATE_PARTS; k++) {
            char name[256];
            const struct view v = stored_as(&o->of[i], k);
            if (!v.data) continue;
            snprintf(name, sizeof name, "optimizer/%s/%s", o->of[i].p->name, parts[k]);
            void *host = mem_new(view_bytes(&v), e);
            const int rc = !host || state_get(r, name, v.dtype, v.rank, v.dim, host, e) ||
                           device_write(v.data, host, view_bytes(&v), e) || device_sync(e);
            mem_free(host);
            if (rc) return -1;
        }
    return 0;
}

int optimizer_call(struct optimizer *o, struct op_call *c, struct err *e) {
    if (op_shape(c, e)) return -1;
    const i64 need = op_scratch(c);
    if (need > o->scratch_bytes) {
        device_free(o->scratch);
        if (!(o->scratch = device_new(need, e))) return o->scratch_bytes = 0, -1;
        o->scratch_bytes = need;
    }
    c->scratch = o->scratch;
    return op_run(c, e);
}
