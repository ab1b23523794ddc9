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

/* clang-format off */
#define OP_LIST(X)                                                                                 \
    X(embedding) X(embedding_back) X(rmsnorm) X(rmsnorm_back) X(add_rmsnorm) X(add_rmsnorm_back)   \
    X(rmsnorm_add) X(rope) X(rope_back) X(attention) X(attention_back) X(kv_store) X(glu)          \
    X(glu_back) X(act) X(act_back) X(xielu) X(xielu_back) X(add) X(scale) X(softcap)               \
    X(softcap_back) X(clamp) X(clamp_back) X(gate_mul) X(gate_mul_back) X(split) X(join)           \
    X(dropout) X(linear) X(linear_int8) X(linear_dx) X(linear_dw) X(lora_dt) X(lora_db)            \
    X(bias_dw)                                                                                     \
    X(linear_xent) X(linear_xent_train) X(lora_xent) X(lora_xent_train) X(update) X(quant8)        \
    X(dequant8) X(square_sum) X(sample) X(adafactor) X(cast)                                       \
    X(layernorm) X(layernorm_back) X(add_layernorm) X(add_layernorm_back) X(sink_back)             \
    X(route) X(route_back) X(expert_plan) X(expert_gather) X(expert_combine)                       \
    X(expert_weight_back) X(expert_linear) X(expert_linear_dx) X(expert_linear_dw)                 \
    X(expert_lora_dt) X(expert_bias_dw) X(mla_keys) X(mla_keys_back) X(dora_norm) X(dora)          \
    X(dora_back)
/* clang-format on */

enum { OP_IN = 12, OP_OUT = 6, OP_RANK = 4, OP_GRADS = 8, VIEW_PARTS = 3 };

/* A dense row-major array. data == NULL where an optional argument is absent (then dtype and rank
 * are 0). Packed elements (packing.h): dtype is what they decode to, data are the codes, and the
 * packing says what its parts hold and what the two block sizes are of. */
struct packing;
struct view {
    void *data;
    enum dtype dtype;
    int rank;
    i64 dim[OP_RANK];
    const struct packing *packing; /* NULL: plain elements */
    void *part[VIEW_PARTS];
    i64 block[2];
};
static inline i64 view_count(const struct view *v) {
    i64 n = 1;
    for (int i = 0; i < v->rank; i++) n *= v->dim[i];
    return n;
}
static inline i64 view_rows(const struct view *v) {
    return v->rank ? view_count(v) / v->dim[v->rank - 1] : 0;
}

/* to[line * count + i] = element at + line * step + i, rounded once to f32 or, `is_bf16`, bf16. */
typedef void packing_decode(void *to, const struct view *v, i64 at, i64 count, i64 lines, i64 step,
                            bool is_bf16);
/* Blocks of whole numbers that linear_int8 takes as they are (int8_codes.h). */
enum int8_form {
    INT8_NONE,
    INT8_Q8_0,
    INT8_Q4_0,
    INT8_Q4_1,
    INT8_Q5_0,
    INT8_Q5_1,
    INT8_Q4_K, /* K types, blocks of 256, from here on */
    INT8_Q5_K,
    INT8_Q6_K
};
struct packing_blocks { /* of types that GGUF has: blocks of packing.block[0] elements */
    const char *type;   /* its name for them; NULL: it has none */
    int bytes, half[2]; /* of a block: where f16 numbers are in it; -1: no second */
    void (*encode)(const float *from, i64 n, u8 *to); /* n blocks */
};
/* How elements are packed: one constant for each row of PACKING_LIST (packing.h). */
struct packing {
    const char *name;
    i64 block[2]; /* of the views that it encodes */
    enum int8_form int8;
    i64 (*bytes)(const struct view *v, int slot); /* of `slot` (view_slot); 0: it has none */
    /* From so many f32 or, `is_bf16`, bf16 values in host memory, into memory that v has. */
    int (*encode)(const struct view *v, const void *from, bool is_bf16, struct err *e);
    void (*ref)(double *to, const struct view *v, i64 at, i64 count); /* in f64: of tests */
    packing_decode *decode[ISA_COUNT];
    int (*cuda)(void *to, const struct view *v, bool is_bf16, struct err *e); /* all elements */
    /* Rows id[0], id[1], ... of a matrix: `count` of them. */
    int (*cuda_rows)(void *to, const struct view *v, const i32 *id, i64 count, bool is_bf16,
                     struct err *e);
    struct packing_blocks blocks;
};
extern const struct packing *const packing_table[];
extern const int packing_count;
extern const char packing_choices[];                  /* "auto none" and all names: of options */
const struct packing *packing_find(const char *name); /* NULL if there is none */

/* The memory of a view: slot 0 is `data`, 1 to VIEW_PARTS are its parts. */
static inline void **view_slot(struct view *v, int slot) {
    return slot ? &v->part[slot - 1] : &v->data;
}
static inline i64 view_slot_bytes(const struct view *v, int slot) {
    if (v->packing) return v->packing->bytes(v, slot);
    return slot ? 0 : view_count(v) * dtype_size(v->dtype);
}
static inline i64 view_bytes(const struct view *v) { return view_slot_bytes(v, 0); }
i64 view_memory(const struct view *v); /* bytes of all slots */
/* Makes v, whose dtype and shape are set, packed: memory for it (mem_new; of its owner also after
 * an error). block: NULL for the packing's own. */
int view_pack(struct view *v, const struct packing *p, const i64 block[2], struct err *e);
/* Does linear_int8 take this weight: its packing, with rows of whole blocks? */
bool linear_int8_takes(const struct view *w);
/* All elements of v in host memory, decoded by all threads; to: f32 or, `is_bf16`, bf16. */
void view_unpack(void *to, const struct view *v, bool is_bf16);
/* Whether all elements of blocks, in host memory, are finite: all f16 numbers are. */
bool view_blocks_finite(const struct view *v);

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
        *out; /* "x #w bias?": `?` optional, `#` may be packed. Outputs: "=cache" is written in
               * place, "+dw" is added to; the caller gives both, so their shape rule only checks
               * them */
    int attr_size;
    int (*shape)(struct op_call *c, struct err *e); /* checks in[], sets out[] dtypes and dims */
    struct grad_row grad[OP_GRADS];
    struct grad_row
        root; /* of an op whose out 0, NAME, is a loss of each row: the op that computes it and all
               * gradients; dNAME is among its inputs */
    void (*ref)(
        const struct op_call *c); /* all float views are F64, the plainest code that is right */
    i64 (*scratch)(const struct op_call *c);      /* bytes; NULL: none */
    op_kernel *cpu[ISA_COUNT], *cuda;             /* cuda: NULL in a program built without nvcc */
    i64 (*scratch_cuda)(const struct op_call *c); /* the same for the CUDA kernel */
    bool (*sample)(int index, struct sample *s);  /* false: no more */
    struct {
        double f32, bf16;
    } bound; /* max |kernel - ref| / (eps of the output dtype * max |ref|), per output */
    double (*flops)(const struct op_call *c); /* multiply-add counts 2; NULL: bound by memory */
    double (*bytes)(const struct op_call *c); /* read and written; NULL: all arguments whole */
};

#define X(name) extern const struct op op_##name;
OP_LIST(X)
#undef X
extern const struct op *const op_table[];
extern const int op_count;
const struct op *op_find(const char *name); /* NULL if there is none */

/* In the declaration of an op: the kernels of all instruction sets, and the CUDA one, made from
 * OP_LIST's name. */
#define CPU(name)                                                                                  \
    { name##_plain, name##_avx2, name##_avx512, name##_avx512bf16 }
#define CUDA(name) name##_cuda

/* Runs one call with shapes already set (by op_shape), on the device in use: on the CPU by the
 * instruction set of isa_now(); on a GPU it is queued, and what goes wrong there is reported by the
 * next device_sync. */
int op_shape(struct op_call *c,
             struct err *e); /* checks presence, dtypes and shapes; error names op and argument */
int op_run(const struct op_call *c, struct err *e);
i64 op_scratch(const struct op_call *c); /* bytes of scratch on the device in use */

/* ---- devices (device.c, device_cuda.cu)
 * One device per process, chosen before anything is allocated. Views of calls point into its
 * memory. On the CPU these functions are mem_new, memcpy and memset; on a GPU copies from the host
 * and kernels are queued in order on one stream, and device_read and device_sync wait for them. */
enum device { DEVICE_CPU, DEVICE_CUDA };
int device_open(const char *name, struct err *e); /* "cpu", "cuda", "cuda:1" */
void device_close(void);
enum device device_now(void);
/* One line: the device in use ("NVIDIA H200, sm_90, 139.8 GiB"), or why CUDA is off. */
const char *device_text(void);
void cuda_report(FILE *to);                 /* for `hone doctor`: driver, libraries, devices */
i64 device_available(void);                 /* bytes that can still be had */
void *device_new(i64 bytes, struct err *e); /* zeroed, 256-byte aligned on a GPU; device_free */
void device_free(void *p);                  /* NULL is fine */
int device_write(void *to, const void *host, i64 bytes, struct err *e);
int device_read(void *host, const void *from, i64 bytes, struct err *e); /* waits */
int device_copy(void *to, const void *from, i64 bytes, struct err *e);   /* device to device */
int device_zero(void *to, i64 bytes, struct err *e);
/* What the host may read: on the CPU the memory itself, on a GPU a copy in *buffer, which grows
 * (zero-initialise it; mem_free(data) at the end). NULL after an error. */
struct device_buffer {
    void *data;
    i64 bytes;
};
const void *device_peek(const void *from, i64 bytes, struct device_buffer *buffer, struct err *e);
/* Waits for all that was queued; the error says what a kernel found wrong, or that one died. */
int device_sync(struct err *e);
/* Memory that a GPU copies from without a detour; on the CPU ordinary memory. */
void *device_host_new(i64 bytes, struct err *e);
void device_host_free(void *p);
/* What is queued between begin and end is recorded instead of run, and replayed as a whole: a CUDA
 * graph. GPU only. */
struct recording;
int device_record_begin(struct err *e);
int device_record_end(struct recording **r, struct err *e);
int device_replay(struct recording *r, struct err *e);
void device_record_free(struct recording *r);

/* What products and reductions promise (NUMERICS.md). The CPU is always portable; on a GPU `fast`
 * takes tensor cores and libraries, and its bits are those of one GPU type and library version. */
enum numerics { NUMERICS_PORTABLE, NUMERICS_FAST };
extern enum numerics numerics_now;

/* ---- arguments by name ----------------------------------------------------------------------- */

struct op_arg {
    char name[24];
    bool optional;   /* "?" */
    bool in_place;   /* "=" */
    bool accumulate; /* "+" */
    bool packed;     /* "#" */
};
int op_args(const char *list, struct op_arg *arg); /* fills up to OP_IN; returns the count */

/* ---- attributes ------------------------------------------------------------------------------ */

struct norm_attr {
    double eps;
    double offset; /* is added to w */
    i64 width;     /* a norm for each so many elements of a row; 0: for the row */
};
struct rope_attr {
    i64 head_dim, rotary_dim;
    bool interleaved;
};
struct attention_attr {
    i64 heads, kv_heads, head_dim;
    double scale;
    i64 window;      /* keys j with i - window < j <= i; 0: all j <= i */
    double softcap;  /* 0: none. c * tanh(s / c) */
    i64 value_dim;   /* of a head in v and o; 0: head_dim */
    bool alibi_bf16; /* with slopes: as Falcon-RW adds them (attention.c) */
};
enum { ATTENTION_PAGE = 64 }; /* rows of a page of a cache: attention.c */
/* The slopes of ALiBi (Press et al., 2022) for so many heads, each the f32 nearest to its formula:
 * with m the largest power of two in heads, 2^(-8i/m) for i = 1..m, then 2^(-4i/m) for odd i. */
void alibi_slopes(float *slopes, i64 heads);
enum act { ACT_SILU, ACT_GELU /* by erf */, ACT_GELU_TANH, ACT_RELU, ACT_CLAMPED /* glu only */ };
struct act_attr {
    enum act act;
    double limit, alpha; /* ACT_CLAMPED; GPT-OSS: 7, 1.702 */
};
struct xielu_attr {
    double beta, eps;
};
struct scale_attr {
    double factor;
};
struct limit_attr { /* softcap, clamp */
    double limit;
};
struct split_attr {
    i64 width[3]; /* columns of each part; 0: there is none */
};
struct dropout_attr {
    double p; /* of being dropped */
    u64 seed;
    u32 stream;
};
struct lora_attr {
    double scale;
}; /* linear and its gradients; unused without an adapter */
struct dora_attr {
    double scale;
    bool columns; /* the norms are those of columns: of an embedding */
};
struct xent_attr {
    double softcap; /* of the logits; 0: none */
};
enum route_score { ROUTE_SOFTMAX, ROUTE_SIGMOID };
struct route_attr { /* route.c */
    i64 top_k;
    enum route_score score;
    bool renorm; /* the weights of the chosen add up to `scale` */
    double scale;
    i64 groups, top_groups; /* groups <= 1: none */
};
struct plan_attr {
    i64 experts;
};
struct mla_attr {
    i64 heads, rope_dim, plain, value; /* columns of each head: with RoPE, without, of its value */
};
enum update_rule {
    UPDATE_ADAMW,
    UPDATE_ADAM,
    UPDATE_LION,
    UPDATE_SGD,
    UPDATE_ADAGRAD,
    UPDATE_RMSPROP
};
enum { HYPER = 6 }; /* numbers of `hyper`, which change with the step: update.c */
struct update_attr {
    enum update_rule rule;
    double beta1, beta2, eps;
    u64 seed; /* of stochastic rounding; without masters only */
    u32 stream;
    bool nesterov;
};
struct cast_attr { /* cast.c */
    double factor, eps;
    bool transposed, is_bf16;
};
struct sample_how {     /* no attribute: the bytes of a row of `how` (sample.c) */
    double temperature; /* 0: greedy, lowest id among equals */
    i64 top_k;          /* 0: off */
    double top_p;       /* 1: off */
    double min_p;       /* 0: off */
    u64 seed;
    double repetition_penalty; /* of the ids in `seen`; 1: off */
};

/* ---- samples: what tests and benchmark call an op with --------------------------------------- */

enum fill { FILL_UNIFORM, FILL_INT, FILL_CUSTOM };
enum bench { BENCH_NO, BENCH, BENCH_GPU }; /* on every device, or only where a GPU is in use */
struct sample {
    char name[48];
    u8 attr[96]; /* the attribute struct */
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
        enum dtype dtype; /* F32 follows the precision under test; BF16 is itself, and F64 for the
                           * reference; others are themselves */
        const struct packing *packing; /* the floats are packed so */
    } in[OP_IN], out[OP_OUT];          /* out: only those that are written in place or added to */
    enum bench bench;                  /* large: the benchmark times it, tests skip it */
    bool no_gradient_check; /* finite differences make no sense here (ids, random choices) */
};
/* Helpers for sample functions: floats uniform in [low, high] that follow the precision; f32
 * always; integers. */
void sample_float(struct sample_in *in, double low, double high, int rank, const i64 *dim);
void sample_f32(struct sample_in *in, double low, double high, int rank, const i64 *dim);
void sample_int(struct sample_in *in, i64 low, i64 high, int rank, const i64 *dim);
void sample_codes(struct sample_in *in, enum dtype d, int rank, const i64 *dim); /* U8: any */
void sample_out(struct sample_in *out, int rank,
                const i64 *dim); /* an accumulator, f32, in [-1, 1] */
#define DIMS(...)                                                                                  \
    COUNT(((i64[]){__VA_ARGS__})), (i64[]) { __VA_ARGS__ }

/* ---- peak: what to relate speeds to (peak.c) ------------------------------------------------- */
/* On the CPU: multiply-adds in registers and memcpy on all threads of the pool with the
 * instruction set in use, for about 50 ms. On a GPU: a product of 8,192 x 8,192 matrices in
 * `fast` numerics, and a copy of 1 GiB. */
double bench_peak_gflops(enum dtype d); /* fused multiply-adds, counted as 2; F32 or BF16 */
double bench_copy_gbs(struct err *e);   /* memcpy, bytes read plus written; -1: no memory */

#endif
