/* ops_harness.c: see ops_harness.h. */
#include "tests/unit/ops/ops_harness.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 128, CANARY = 0xa5, OFFSET = 4 };

double view_at(const struct view *v, i64 i) {
    switch (v->dtype) {
    case F64: return ((double *)v->data)[i];
    case F32: return (double)((float *)v->data)[i];
    case BF16: return (double)bf16_to_f32(((u16 *)v->data)[i]);
    case I32: return ((i32 *)v->data)[i];
    case U8: return ((u8 *)v->data)[i];
    default: return assert(v->dtype == F64), 0;
    }
}
void view_put(struct view *v, i64 i, double x) {
    if (v->dtype == F64)
        ((double *)v->data)[i] = x;
    else if (v->dtype == F32)
        ((float *)v->data)[i] = (float)x;
    else if (v->dtype == BF16)
        ((u16 *)v->data)[i] = bf16_of_f32((float)x);
    else if (v->dtype == U8)
        ((u8 *)v->data)[i] = (u8)x;
    else
        ((i32 *)v->data)[i] = (i32)x;
}

static void *guarded(struct trial *t, int slot, i64 bytes) {
    t->bytes[slot] = bytes;
    t->block[slot] = malloc((size_t)(bytes + 2 * GUARD + 64));
    memset(t->block[slot], CANARY, (size_t)(bytes + 2 * GUARD + 64));
    return (u8 *)t->block[slot] + GUARD;
}

static double rounded(double x, enum dtype d) {
    return d == BF16 ? (double)bf16_to_f32(bf16_of_f32((float)x)) : d == F32 ? (double)(float)x : x;
}

/* f64 values (or i32) of argument `slot`, then stored as the view's dtype */
static void fill(struct view *v, const struct sample_in *in, int slot, enum dtype rounding) {
    const struct rng r = {7, RNG_TEST, 0, (u32)slot};
    const bool whole = v->dtype == I32 || v->dtype == U8;
    const i64 n = view_count(v);
    double *f = NULL;
    if (in->fill == FILL_CUSTOM) {
        f = calloc((size_t)n + 1, sizeof *f);
        const struct view as = {.data = f,
                                .dtype = v->dtype == I32 ? I32 : F64,
                                .rank = v->rank,
                                .dim = {v->dim[0], v->dim[1], v->dim[2], v->dim[3]}};
        in->custom(f, &as);
        if (v->dtype == I32) memcpy(v->data, f, (size_t)n * sizeof(i32));
    }
    for (i64 i = 0; i < n && !(f && v->dtype == I32); i++) {
        double x = f ? f[i] : in->low + (in->high - in->low) * (double)rng_uniform(&r, (u64)i);
        if (whole) x = (double)(i64)x - (x < 0 && x != (double)(i64)x);
        const enum dtype to = in->dtype == BF16 ? BF16 : in->always_f32 ? F32 : rounding;
        view_put(v, i, whole ? x : rounded(x, to));
    }
    free(f);
}

/* The same codes in every precision: f32 values are encoded. */
static void open_packed(struct trial *t, struct view *v, const struct sample_in *in, int slot) {
    struct view plain = {.dtype = F32, .rank = v->rank};
    struct err e = {0};
    memcpy(plain.dim, v->dim, sizeof plain.dim);
    plain.data = malloc((size_t)view_bytes(&plain) + 1);
    fill(&plain, in, slot, F32);
    v->packing = in->packing;
    memcpy(v->block, v->packing->block, sizeof v->block);
    for (int k = 0; k <= VIEW_PARTS; k++) {
        const i64 bytes = view_slot_bytes(v, k);
        const int block = k ? OP_IN + OP_OUT + k : slot;
        assert(!t->block[block]); /* one packed argument */
        if (bytes) *view_slot(v, k) = (u8 *)guarded(t, block, bytes + OFFSET) + OFFSET;
    }
    if (v->packing->encode(v, plain.data, false, &e)) abort();
    free(plain.data);
}

static void open_view(struct trial *t, struct view *v, const struct sample_in *in, int slot,
                      enum dtype precision, enum dtype rounding) {
    if (!in->present) return;
    *v = (struct view){.dtype = in->dtype == BF16 && precision == F64 ? F64
                                : in->dtype != F32                    ? in->dtype
                                : precision == BF16 && in->always_f32 ? F32
                                                                      : precision,
                       .rank = in->rank};
    memcpy(v->dim, in->dim, sizeof v->dim);
    if (in->packing) {
        open_packed(t, v, in, slot);
        return;
    }
    v->data = guarded(t, slot, view_bytes(v) + OFFSET);
    v->data = (u8 *)v->data + (v->dtype == F64 ? 0 : OFFSET);
    fill(v, in, slot, rounding);
}

void trial_open(struct trial *t, const struct op *op, const struct sample *s, enum dtype precision,
                enum dtype rounding) {
    *t = (struct trial){.call = {.op = op, .attr = s->attr}};
    for (int i = 0; i < OP_IN; i++) open_view(t, &t->call.in[i], &s->in[i], i, precision, rounding);
    for (int i = 0; i < OP_OUT; i++)
        open_view(t, &t->call.out[i], &s->out[i], OP_IN + i, precision, rounding);
    struct err e = {0};
    if (op_shape(&t->call, &e)) {
        err_print(&e, stderr);
        abort();
    }
    struct op_arg arg[OP_IN];
    const int outs = op_args(op->out, arg);
    for (int i = 0; i < outs; i++) {
        struct view *v = &t->call.out[i];
        if (v->data || !v->rank) continue;
        v->data =
            (u8 *)guarded(t, OP_IN + i, view_bytes(v) + OFFSET) + (v->dtype == F64 ? 0 : OFFSET);
    }
    if (op->scratch) t->call.scratch = guarded(t, OP_IN + OP_OUT, op->scratch(&t->call));
}

bool trial_intact(const struct trial *t) {
    for (int i = 0; i < COUNT(t->block); i++) {
        if (!t->block[i]) continue;
        const u8 *p = t->block[i];
        for (i64 k = 0; k < GUARD; k++)
            if (p[k] != CANARY || p[GUARD + t->bytes[i] + k] != CANARY) return false;
    }
    return true;
}

void trial_close(struct trial *t) {
    for (int i = 0; i < COUNT(t->block); i++) free(t->block[i]);
    *t = (struct trial){0};
}
