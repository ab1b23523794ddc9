/* modules.h: a model's weights as a list of modules: what traces, adapters, quantisation, export
 * and GGUF address. A module has a path, by which users and files know it, and a type, by which the
 * code that computes with it does. Nothing here knows what the modules make together. */
#ifndef HONE_MODULES_H
#define HONE_MODULES_H

#include "autograd/autograd.h"
#include "checkpoints/checkpoints.h"

struct mixer;       /* mixers/mixers.h */
struct weight_rule; /* models.h */

enum module_kind {
    MODULE_LINEAR,    /* y = x·W^T: adapters may target it, its weight may be packed */
    MODULE_HEAD,      /* a linear layer onto the vocabulary */
    MODULE_EMBEDDING, /* rows are looked up */
    MODULE_NORM,
    MODULE_ROUTER,  /* a linear layer that chooses experts */
    MODULE_EXPERTS, /* stacked linear layers, one for each expert */
    MODULE_NUMBERS, /* a vector, or a few numbers, that are trained */
    MODULE_FIXED,   /* not trained, f32 */
    MODULE_BUFFER,  /* a number that is stored beside the parameters, and is none of them */
    MODULE_KINDS
};
extern const char *const module_kind_text[MODULE_KINDS]; /* "linear" */
struct gguf_module {                                     /* how a GGUF file has it */
    const char *stem;       /* its name behind "blk.N."; "a|b": of two parts. NULL: no tensor */
    const char *list;       /* the key of a list with one number for each layer, instead */
    bool cut;               /* always two tensors; of a weight by head (`heads`), in each head */
    bool heads, rope_pairs; /* rope_pairs: rows of a head take turns where llama.cpp turns pairs */
    bool precise, is_bias;  /* always F32; its name ends in .bias */
};
struct module_type { /* one object for each place of a computation: compared by address */
    const char *name;
    enum module_kind kind;
    const struct mixer *mixer; /* layers without it have no such module; NULL: any layer */
    /* Of a linear layer or head: what its dropout draws random numbers by, beside the layer; less
     * than STREAMS, and unique in a layer. Never changes: it is in the bits of runs. */
    u32 stream;
    float start;  /* of numbers and buffers: the initial value */
    bool of_keys; /* its rows are those of key-value heads */
    struct gguf_module gguf;
};
enum { STREAMS = 40 };

/* As PEFT's create_loraplus_optimizer groups them: vectors and B; adapters of embeddings. */
enum lr_group { LR_GROUP_PLAIN, LR_GROUP_FAST, LR_GROUP_EMBEDDING, LR_GROUPS };
struct param {
    const char *name; /* by module path, as transformers names it; a pattern where one parameter is
                       * several tensors (weight_rule); or "MODULE.lora_A" */
    struct view view; /* memory of the model, 64-byte aligned; of the device after model_place.
                       * [E,] rows[, cols]. What is or may be packed has none until loaded */
    bool placed;
    bool mapped;                    /* its blocks are a file's, which weights.map holds */
    bool decoded;                   /* a file has blocks for it, which are kept as plain values */
    const struct module_type *type; /* NULL: an adapter's tensor */
    bool trainable;
    bool decay;             /* it is a matrix, and so weight decay applies */
    enum lr_group lr_group; /* which learning rate LoRA+ gives it */
    bool saved;             /* in modules_to_save: trained, and part of the adapter's file */
    const i64 *row;         /* [rows] only these rows are trained, ascending; NULL: all */
    i64 rows;
    void *start; /* PiSSA: what A started from, or -B; host memory. NULL: not that */
    i64 layer;   /* -1: none */
    u32 layout;
    i64 heads, kv_heads; /* what QKV_GROUPS goes by; %H: heads */
    i64 rope_dim;        /* what ROPE_LAST goes by */
    i64 keys;            /* of latent attention: rows of a head that are its key */
    const struct weight_rule *rule;
    bool stacked; /* the file has the other form */
};
struct lora_pair {           /* NULL: none */
    struct param *a, *b;     /* [R, in], [out, R]; of the embedding [V, R], [D, R] */
    struct param *magnitude; /* DoRA: [out] */
    double scale;
};
struct module {
    const struct module_type *type;
    const char *path; /* "model.layers.0.self_attn.q_proj"; of experts: of all */
    i64 layer;        /* -1: none */
    struct param *weight, *bias;
    struct lora_pair adapter;
    float value; /* of a buffer, as it was loaded */
};

struct weights { /* all zero: none */
    struct module *module;
    i64 modules;
    struct param **param; /* in the order of the table; an adapter's behind the others */
    i64 params;
    enum dtype dtype;   /* F32 or BF16 */
    struct arena arena; /* parameters and names */
    struct map *map;    /* [maps] files that parameters point into; they must not be changed */
    i64 maps;
};
void weights_free(struct weights *w);
/* Moves the parameters to the device in use; on the CPU this does nothing. */
int weights_place(struct weights *w, struct err *e);
int weights_decode(struct weights *w, struct err *e); /* packed ones become plain */
i64 weights_count(const struct weights *w, bool trainable_only);

/* A parameter with its own zeroed memory; `later`: without, which it gets when it is loaded. */
struct param *param_add(struct weights *w, const char *name, int rank, const i64 *dim, enum dtype d,
                        bool later, struct err *e);
void param_free(struct param *p);       /* its memory */
i64 param_bytes(const struct param *p); /* in memory */
void param_set(struct param *p, i64 i, float x);
float param_get(const struct param *p, i64 i);

/* ---- adapters (adapters/lora_module.c): LoRA, DoRA, PiSSA, as `c` has it for the module's path.
 * Those of linear modules and of embeddings; `index` counts the pairs. */
int module_adapt(struct weights *w, struct module *m, struct lora_config *c, u64 seed, i64 *index,
                 struct err *e);
int module_merge(struct module *m, struct err *e); /* into the weight; the adapter is gone after */

/* ---- in a trace (module_trace.c, adapters/lora_trace.c) */
struct tracing {
    struct graph *g;
    double dropout; /* the share of an adapter's inputs that is dropped */
    u64 dropout_seed;
    struct tensor *dropout_place; /* ops/dropout.c; NULL: nothing is dropped */
    bool bare;                    /* as if no module had an adapter */
    bool int8;                    /* struct model */
};
struct tensor *param_tensor(struct graph *g, struct param *p);
/* The adapter that counts in this trace; its `a` is NULL where there is none. */
const struct lora_pair *module_adapter(const struct tracing *t, const struct module *m);
/* y = x·W^T with what is attached: bias, adapter. */
struct tensor *module_linear(const struct tracing *t, const struct module *m, struct tensor *x);
/* Rows of the embedding [V, D], or with an adapter of the adapted one. */
struct tensor *module_embedding(const struct tracing *t, const struct module *m,
                                struct tensor *ids);
/* What the dropout of its adapter's input draws random numbers by. */
static inline u32 module_stream(const struct module *m) {
    return (u32)(m->layer + 1) * STREAMS + m->type->stream;
}

#endif
