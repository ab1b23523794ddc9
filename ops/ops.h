/* ops.h: every tensor operation, declared once, and the one call that runs it. ops' only public
 * header.
 *
 * An operation is a constant `struct op`: names of inputs and outputs, shape rule, gradients as
 * rows of data, an f64 reference, one kernel per instruction set, sample calls for tests and
 * benchmark, error bounds. Tables, tests, the benchmark and `hone inspect ops` all expand OP_LIST;
 * a kernel that is named and missing is a link error. */
#ifndef HONE_OPS_H
#define HONE_OPS_H

#include "base/base.h"

#define OP_LIST(X)                                                                                 \
    X(embedding)                                                                                   \
    X(embedding_back) X(rmsnorm) X(rmsnorm_back) X(add_rmsnorm) X(add_rmsnorm_back) X(rmsnorm_add) \
        X(rope) X(rope_back) X(attention) X(attention_back) X(kv_store) X(swiglu) X(swiglu_back)   \
            X(add) X(linear) X(linear_dx) X(linear_dw) X(lora_dt) X(lora_db) X(bias_dw)            \
                X(linear_xent) X(linear_xent_train) X(adamw) X(square_sum) X(sample)

enum { OP_IN = 8, OP_OUT = 4, OP_RANK = 4, OP_GRADS = 6 };

/* A dense row-major array. data == NULL where an optional argument is absent (then dtype and rank
 * are 0). */
struct view {
    void *data;
    enum dtype dtype;
    int rank;
    i64 dim[OP_RANK];
};
static inline i64 view_count(const struct view *v) {
    i64 n = 1;
    for (int i = 0; i < v->rank; i++) n *= v->dim[i];
    return n;
}
static inline i64 view_bytes(const struct view *v) { return view_count(v) * dtype_size(v->dtype); }
static inline i64 view_rows(const struct view *v) {
    return v->rank ? view_count(v) / v->dim[v->rank - 1] : 0;
}

/* One call: what a shape rule fills in and a kernel reads. */
struct op_call {
    const struct op *op;
    const void *attr; /* the op's attribute struct below, or NULL */
    struct view in[OP_IN], out[OP_OUT];
    void *scratch; /* op->scratch(call) bytes, 64-byte aligned, contents undefined */
};

/* A row of the backward pass: call `op` with `in` (names of this op's inputs, outputs, and dNAME,
 * the gradient of NAME), which gives `out` (dNAME; "+dNAME": adds into the f32 accumulator of a
 * parameter; "da=db": one result for two). The attribute is handed on. op == NULL: the gradient
 * passes unchanged. */
struct grad_row {
    const char *op, *in, *out;
};

struct sample; /* below */
typedef int op_kernel(const struct op_call *c, struct err *e);

struct op {
    const char *name;
    const char *in,
        *out; /* "x w bias?": `?` optional. Outputs: "=cache" is written in place, "+dw" is added
               * to; the caller gives both, so their shape rule only checks them */
    int attr_size;
    int (*shape)(struct op_call *c, struct err *e); /* checks in[], sets out[] dtypes and dims */
    struct grad_row grad[OP_GRADS];
    struct grad_row
        root; /* when out 0 is the loss: the op that computes it together with all gradients */
    void (*ref)(
        const struct op_call *c); /* all float views are F64, the plainest code that is right */
    i64 (*scratch)(const struct op_call *c); /* bytes; NULL: none */
    op_kernel *cpu[ISA_COUNT];
    bool (*sample)(int index, struct sample *s); /* false: no more */
    struct {
        double f32, bf16;
    } bound; /* max |kernel - ref| / (eps of the output dtype * max |ref|), per output */
    double (*flops)(const struct op_call *c); /* multiply-add counts 2; NULL: bound by memory */
};

#define X(name) extern const struct op op_##name;
OP_LIST(X)
#undef X
extern const struct op *const op_table[];
extern const int op_count;
const struct op *op_find(const char *name); /* NULL if there is none */

/* In the declaration of an op: the kernels of all instruction sets, made from OP_LIST's name. */
#define CPU(name)                                                                                  \
    { name##_plain, name##_avx2, name##_avx512, name##_avx512bf16 }

/* Runs one call with shapes already set (by op_shape). Kernels take the instruction set of
 * isa_now(). */
int op_shape(struct op_call *c,
             struct err *e); /* checks presence, dtypes and shapes; error names op and argument */
int op_run(const struct op_call *c, struct err *e);

/* ---- arguments by name
 * ------------------------------------------------------------------------------------*/
struct op_arg {
    char name[24];
    bool optional;   /* "?" */
    bool in_place;   /* "=" */
    bool accumulate; /* "+" */
};
int op_args(const char *list, struct op_arg *arg); /* fills up to OP_IN; returns the count */

/* ---- attributes
 * -------------------------------------------------------------------------------------------*/
struct norm_attr {
    double eps;
};
struct rope_attr {
    i64 head_dim, rotary_dim;
    bool interleaved;
};
struct attention_attr {
    i64 heads, kv_heads, head_dim;
    double scale;
    i64 window;     /* keys j with i - window < j <= i; 0: all j <= i */
    double softcap; /* 0: none. c * tanh(s / c) */
};
struct lora_attr {
    double scale;
}; /* linear and its gradients; unused without an adapter */
struct adamw_attr {
    double beta1, beta2, eps;
}; /* the rest changes with the step: adamw.c, `hyper` */
struct sample_attr {
    double temperature; /* 0: greedy, lowest id among equals */
    i64 top_k;          /* 0: off */
    double top_p;       /* 1: off */
    double min_p;       /* 0: off */
    u64 seed;
};

/* ---- samples: what tests and benchmark call an op with
 * ----------------------------------------------------*/
enum fill { FILL_UNIFORM, FILL_INT, FILL_CUSTOM };
struct sample {
    char name[48];
    u8 attr[64]; /* the attribute struct */
    struct sample_in {
        bool present;
        enum fill fill;
        double low, high; /* uniform floats, or integers low <= n < high */
        int rank;
        i64 dim[OP_RANK];
        void (*custom)(
            void *data,
            const struct view *v); /* FILL_CUSTOM: data is f64 for floats, i32 for ints */
        bool always_f32;           /* F32 whatever the precision */
        enum dtype dtype;          /* F32 follows the precision under test; others are themselves */
    } in[OP_IN], out[OP_OUT];      /* out: only those that are written in place or added to */
    bool bench;                    /* large: the benchmark times it, tests skip it */
    bool no_gradient_check;        /* finite differences make no sense here (ids, random choices) */
};
/* Helpers for sample functions: floats uniform in [low, high] that follow the precision; f32
 * always; integers. */
void sample_float(struct sample_in *in, double low, double high, int rank, const i64 *dim);
void sample_f32(struct sample_in *in, double low, double high, int rank, const i64 *dim);
void sample_int(struct sample_in *in, i64 low, i64 high, int rank, const i64 *dim);
void sample_out(struct sample_in *out, int rank,
                const i64 *dim); /* an accumulator, f32, in [-1, 1] */
#define DIMS(...)                                                                                  \
    COUNT(((i64[]){__VA_ARGS__})), (i64[]) { __VA_ARGS__ }

/* ---- peak: what to relate speeds to (peak.c)
 * ---------------------------------------------------------------- Both measure on all threads of
 * the pool with the instruction set in use, for about 50 ms. */
double bench_peak_gflops(enum dtype d);   /* fused multiply-adds, counted as 2; F32 or BF16 */
double bench_copy_gbs(struct err *e);     /* memcpy, bytes read plus written; -1: no memory */

#endif
