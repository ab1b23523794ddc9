/* ops.c: the table of operations, argument lists, shape rules in a line each, and the call.
 *
 * Nothing here knows a particular operation: everything is read from `struct op`. */
#include "ops/ops_int.h"

#include <assert.h>
#include <string.h>

const struct op *const op_table[] = {
#define X(name) &op_##name,
    OP_LIST(X)
#undef X
};
const int op_count = COUNT(op_table);

const struct op *op_find(const char *name) {
    for (int i = 0; i < op_count; i++)
        if (!strcmp(op_table[i]->name, name)) return op_table[i];
    return NULL;
}

int op_args(const char *list, struct op_arg *arg) {
    int n = 0;
    for (const char *p = list; p && *p; n++) {
        struct op_arg a = {0};
        if (*p == '=') a.in_place = true, p++;
        if (*p == '+') a.accumulate = true, p++;
        if (*p == '#') a.packed = true, p++;
        size_t size = strcspn(p, "? ");
        assert(size < sizeof a.name && n < OP_IN);
        memcpy(a.name, p, size);
        p += size;
        if (*p == '?') a.optional = true, p++;
        p += strspn(p, " ");
        arg[n] = a;
    }
    return n;
}

/* A packed argument is one that may be, and has all that decodes it. */
static int packed_check(const struct op_call *c, int at, const struct op_arg *arg, struct err *e) {
    struct view v = c->in[at];
    if (!v.packing) return 0;
    if (!arg->packed)
        return err_failed(e, "operation %s: '%s' is packed as %s; expected plain elements",
                          c->op->name, arg->name, v.packing->name);
    for (int k = 1; k <= VIEW_PARTS; k++)
        if (view_slot_bytes(&v, k) && !*view_slot(&v, k))
            return err_failed(e,
                              "operation %s: '%s', packed as %s, lacks part %d, which decodes it",
                              c->op->name, arg->name, v.packing->name, k);
    return 0;
}

int op_shape(struct op_call *c, struct err *e) {
    struct op_arg arg[OP_IN];
    int n = op_args(c->op->in, arg);
    for (int i = 0; i < n; i++) {
        if (!is_present(&c->in[i]) && !arg[i].optional)
            return err_failed(e, "operation %s: argument '%s' is missing", c->op->name,
                              arg[i].name);
        if (packed_check(c, i, &arg[i], e)) return -1;
    }
    return c->op->shape(c, e);
}

int op_run(const struct op_call *c, struct err *e) {
    if (device_now() == DEVICE_CUDA)
        return c->op->cuda ? c->op->cuda(c, e)
                           : err_failed(e, "operation %s has no CUDA kernel", c->op->name);
    return c->op->cpu[isa_now()](c, e);
}

i64 op_scratch(const struct op_call *c) {
    i64 (*bytes)(const struct op_call *) =
        device_now() == DEVICE_CUDA ? c->op->scratch_cuda : c->op->scratch;
    return bytes ? bytes(c) : 0;
}

/* ---- shape rules ----------------------------------------------------------------------------- */

static void view_text(const struct view *v, char text[224]) {
    char shape[192];
    snprintf(text, 224, "%s %s", dtype_info[v->dtype].name, shape_text(shape, v->rank, v->dim));
}

static int shape_error(const struct op_call *c, int at, bool out, const char *wanted,
                       struct err *e) {
    struct op_arg arg[OP_IN];
    int n = op_args(out ? c->op->out : c->op->in, arg);
    const struct view *v = out ? &c->out[at] : &c->in[at];
    char found[224];
    view_text(v, found);
    err_failed(e, "operation %s: '%s' is %s", c->op->name, at < n ? arg[at].name : "?", found);
    return err_detail(e, "expected %s", wanted);
}

int need_rank(const struct op_call *c, int at, int rank, struct err *e) {
    if (c->in[at].rank == rank) return 0;
    char wanted[48];
    snprintf(wanted, sizeof wanted, "%d dimensions", rank);
    return shape_error(c, at, false, wanted, e);
}

int need_dtype(const struct op_call *c, int at, enum dtype d, struct err *e) {
    return c->in[at].dtype == d ? 0 : shape_error(c, at, false, dtype_info[d].name, e);
}

int need_float(const struct op_call *c, int at, struct err *e) {
    const enum dtype d = c->in[at].dtype;
    return d == F32 || d == BF16 || d == F64 ? 0 : shape_error(c, at, false, "f32 or bf16", e);
}

int need_dim(const struct op_call *c, int at, int axis, i64 size, struct err *e) {
    if (axis < c->in[at].rank && c->in[at].dim[axis] == size) return 0;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "size %lld in dimension %d", (long long)size, axis);
    return shape_error(c, at, false, wanted, e);
}

int need_sizes(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e) {
    return need_rank(c, at, 2, e) || (rows >= 0 && need_dim(c, at, 0, rows, e)) ||
                   (cols >= 0 && need_dim(c, at, 1, cols, e))
               ? -1
               : 0;
}
int need_matrix(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e) {
    return need_dtype(c, at, c->in[0].dtype, e) || need_sizes(c, at, rows, cols, e) ? -1 : 0;
}

static bool same_shape(const struct view *v, enum dtype d, int rank, const i64 *dim) {
    return v->dtype == d && v->rank == rank && !memcmp(v->dim, dim, sizeof *dim * (size_t)rank);
}

int need_same(const struct op_call *c, int at, int like, struct err *e) {
    const struct view *v = &c->in[like];
    if (same_shape(&c->in[at], v->dtype, v->rank, v->dim)) return 0;
    char wanted[224];
    view_text(v, wanted);
    return shape_error(c, at, false, wanted, e);
}

int need_out(const struct op_call *c, int at, enum dtype d, int rank, const i64 *dim,
             struct err *e) {
    if (same_shape(&c->out[at], d, rank, dim)) return 0;
    struct view v = {.dtype = d, .rank = rank};
    memcpy(v.dim, dim, sizeof *dim * (size_t)rank);
    char wanted[224];
    view_text(&v, wanted);
    return shape_error(c, at, true, wanted, e);
}

void set_out(struct op_call *c, int at, enum dtype d, int rank, const i64 *dim) {
    struct view *v = &c->out[at];
    *v = (struct view){.data = v->data, .dtype = d, .rank = rank};
    memcpy(v->dim, dim, sizeof *dim * (size_t)rank);
}

void set_out_like(struct op_call *c, int at, const struct view *v) {
    set_out(c, at, v->dtype, v->rank, v->dim);
}

/* ---- samples --------------------------------------------------------------------------------- */

static void sample_in(struct sample_in *in, enum dtype d, double low, double high, int rank,
                      const i64 *dim) {
    *in = (struct sample_in){.present = true,
                             .fill = d == F32 ? FILL_UNIFORM : FILL_INT,
                             .low = low,
                             .high = high,
                             .rank = rank,
                             .dtype = d};
    memcpy(in->dim, dim, sizeof *dim * (size_t)rank);
}
void sample_float(struct sample_in *in, double low, double high, int rank, const i64 *dim) {
    sample_in(in, F32, low, high, rank, dim);
}
void sample_int(struct sample_in *in, i64 low, i64 high, int rank, const i64 *dim) {
    sample_in(in, I32, (double)low, (double)high, rank, dim);
}
void sample_f32(struct sample_in *in, double low, double high, int rank, const i64 *dim) {
    sample_in(in, F32, low, high, rank, dim);
    in->always_f32 = true;
}
void sample_codes(struct sample_in *in, enum dtype d, int rank, const i64 *dim) {
    sample_in(in, d, 0, 256, rank, dim);
}
void sample_out(struct sample_in *out, int rank, const i64 *dim) {
    sample_f32(out, -1, 1, rank, dim);
}
