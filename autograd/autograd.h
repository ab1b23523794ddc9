/* autograd.h: trace, backward, plan, run. autograd's only public header.
 *
 * Model code calls graph_call as if it computed; the graph records. graph_backward appends what the
 * gradient rows of the recorded operations say (ops/ops.h). graph_plan drops what nobody reads,
 * computes lifetimes and places every activation in one block, whose size is known before anything
 * is allocated. graph_run executes. The only operation it knows by name is `add`.
 *
 * Errors are sticky: the first failed call is recorded with its operation and place, later calls do
 * nothing and return NULL, and graph_plan reports it. */
#ifndef HONE_AUTOGRAD_H
#define HONE_AUTOGRAD_H

#include "ops/ops.h"

enum tensor_kind {
    TENSOR_INPUT, /* host memory of the caller: set view.data before graph_run, which copies it */
    TENSOR_PARAM, /* device memory of the caller; trainable ones get gradient slots */
    TENSOR_CONST, /* a struct constant: never written, and lives as long as the graph */
    TENSOR_SLOT,  /* f32 accumulator of one use of one parameter; device memory of the caller, added
                     to by each run */
    TENSOR_STEP   /* activation or gradient: memory of the plan */
};

struct tensor {
    struct view view;
    const char *name;
    enum tensor_kind kind;
    bool needs_grad;
    bool keep;           /* result: lives to the end of the run */
    struct tensor *grad; /* d loss / d this, after graph_backward (parameters: see slots) */
    const void *key;     /* PARAM: whose; CONST: the constant; SLOT: of which parameter */
    int use;             /* SLOT: 0 for the parameter's first accumulator, then 1, ... */
    int first, last;     /* plan: nodes between which it lives */
    i64 offset;          /* plan: place in the block; of inputs, on a GPU, in graph.inputs */
};

struct node {
    const struct op *op;
    const void *attr;
    struct tensor *in[OP_IN], *out[OP_OUT];
    const char *where; /* "layers.3.self_attn", for errors */
    int block;         /* recompute block, 0: none */
    bool live;
    i64 scratch, scratch_offset;
    struct op_call call;
};

/* A block that several graphs use in turn: as large as the largest of them. Zero-initialise;
 * device_free(data) last. */
struct graph_memory {
    u8 *data;
    i64 bytes;
};

struct graph {
    struct arena arena;
    struct node **node;
    struct tensor **tensor;
    int nodes, node_capacity, tensors, tensor_capacity;
    int forward_nodes; /* those traced, before graph_backward */
    const char *where;
    int block, blocks; /* current recompute block; how many there were */
    bool recompute;
    struct err err;
    bool eager;
    u8 *memory; /* valid after graph_run; the next run of a graph that shares it overwrites it */
    struct graph_memory *shared; /* NULL: a block of its own. Set before the first run */
    i64 peak;                    /* bytes of the block, scratch included */
    u8 *inputs, *staging; /* on a GPU: copies of the inputs there, and where they are gathered */
    i64 input_bytes;
    struct recording *recording; /* on a GPU: the run as a CUDA graph, from the second run on */
    int runs;
};

/* A table on the device that is written once and never again: RoPE's cosines and sines, ALiBi's
 * slopes. It is freed with its last user. Who makes it is one; so is every graph that reads it,
 * because a graph is kept and run long after its maker has turned to another table. */
struct constant {
    struct view view;
    int users;
};
/* A copy of `host`, of v's type and shape, with the caller as its user. */
struct constant *constant_new(const struct view *v, const void *host, struct err *e);
void constant_drop(struct constant *c); /* one user less; NULL is fine */

struct graph *graph_new(struct err *e);
void graph_free(struct graph *g);

/* `dim` has `rank` entries. The name is copied. */
struct tensor *graph_input(struct graph *g, const char *name, enum dtype d, int rank,
                           const i64 *dim);
/* The same key gives the same tensor again: that is how tied weights are one parameter. */
struct tensor *graph_param(struct graph *g, const void *key, const char *name, const struct view *v,
                           bool trainable);

/* The graph becomes a user of `c` until graph_free. */
struct tensor *graph_const(struct graph *g, const char *name, struct constant *c);

/* Inputs of a call by the names that the op declares (op->in), in any order; the list ends with a
 * row without a name. A tensor that is NULL is an optional input that is absent. */
struct bind {
    const char *name;
    struct tensor *tensor;
};
#define BIND(...) ((const struct bind[]){__VA_ARGS__, {0}})
/* Records a call and fills out[] (NULL entries beyond the op's outputs, which come in the order of
 * op->out). Outputs that the op writes in place must be given in out[]. attr is copied; NULL:
 * zeros. Returns 0, or -1 with g->err set: a name that the op does not have, or the same one twice,
 * is an error, and so is a required input without a tensor. */
int graph_call(struct graph *g, const struct op *op, const void *attr, const struct bind *in,
               struct tensor **out);
/* The first output of a call, for the common case. NULL after an error. */
struct tensor *graph_op(struct graph *g, const struct op *op, const void *attr,
                        const struct bind *in);
void graph_at(struct graph *g, const char *fmt, ...)
    PRINTF(2, 3);                  /* names the place of the calls that follow */
void graph_keep(struct tensor *t); /* NULL is fine */

/* Nodes recorded between begin and end form a block: with g->recompute, backward computes them
 * again from the block's inputs instead of keeping what they produced. */
void graph_block_begin(struct graph *g);
void graph_block_end(struct graph *g);

/* Where a backward pass starts: `gradient`, of the shape of `of`, is what it is told that d
 * objective / d of is. The objective is then the sum over seeds of <gradient, of>. */
struct seed {
    struct tensor *of, *gradient;
};
/* Appends the backward pass from any number of seeds. A seed that is out 0 of an operation with a
 * `root` row (a loss of each row) takes that operation's fused form, which needs a seed for every
 * one that is to be trained through. */
int graph_backward(struct graph *g, const struct seed *seed, int count);

int graph_plan(struct graph *g, bool eager, struct err *e); /* eager: a buffer for every tensor */
/* Allocates at the first run. When it returns, the results are there. */
int graph_run(struct graph *g, struct err *e);
/* Copies a kept tensor, after a run, to host memory of its size. */
int graph_read(const struct graph *g, const struct tensor *t, void *host, struct err *e);
extern bool graph_sync; /* --sync: wait after every operation, so that its error names it */

/* Seconds and calls per operation since the program started; filled when op_profile is true. */
extern bool op_profile;
void op_profile_print(FILE *to);

#endif
