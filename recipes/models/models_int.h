/* models_int.h: what the files of recipes/models share among themselves. */
#ifndef HONE_MODELS_INT_H
#define HONE_MODELS_INT_H

#include "recipes/models/models.h"

/* `key` of a configuration as a size from 1 to `top`. */
i64 config_size(const json_t *j, const char *key, i64 otherwise, i64 top, const char *where,
                struct err *e);
int ropes_read(struct config *c, const json_t *j, const char *where, struct err *e);
int layers_read(struct config *c, const json_t *j, const char *where, struct err *e);

/* The mixture of the current layer: `balance` of route, and what is to be kept of it. */
struct tensor *balance_input(const struct build *b);
void balance_keep(struct build *b, struct tensor *index, struct tensor *term);

/* Whose names and row orders a file has: those of transformers, maybe under a prefix, or GGUF's. */
struct naming {
    const struct prefix *prefix;  /* NULL: none */
    const struct gguf_arch *gguf; /* NULL: not that */
};
/* A tensor of a file, and the rows of a parameter that it holds (piece.c). */
struct piece {
    char name[256];
    int rank;
    i64 dim[STORED_RANK]; /* on disk */
    i64 first, rows;      /* in memory */
    i64 block, cols;      /* rows of a block: layouts act inside of one */
    i64 stride;           /* rows in memory from one block to the next */
    u32 layout;
    float add; /* the file's values are the model's and so much */
};
i64 pieces_of(const struct naming *names, const struct param *p); /* how many hold it */
void piece_of(struct piece *o, const struct naming *names, const struct param *p, i64 i);
/* Of row r, counted in the piece: its number in memory; the element on disk of its column c. */
i64 piece_row(const struct piece *o, i64 r);
i64 piece_place(const struct param *p, const struct piece *o, i64 r, i64 c);
/* What a file of that naming calls the tensor of a pattern without %. */
void param_name(char out[256], const struct naming *n, const char *pattern);
/* The rule of the LM head's weight. */
const struct weight_rule *head_rule(const struct family *f);
/* Of a model tied by its config.json, whose weights are loaded: an LM head in the file that is not
 * the embedding becomes one of its own, unless it is to stay `tied`; a note says so (reshape.c). */
int model_head_keep(struct model *m, const struct safetensors *s, bool tied, const char *where,
                    struct err *e);
/* Copies the tensors of a file that hold `p`; shapes and dtypes are checked, numbers must be
 * finite. `seen`: NULL, or one byte for each tensor of the file, set for those that were read. */
int param_read(struct model *m, const struct naming *names, struct param *p,
               const struct safetensors *s, u8 *seen, const char *where, struct err *e);
/* param_stored under the names of another file than the one that was loaded. */
int param_stored_as(const struct naming *names, const struct param *p, const char *before,
                    const void *from, enum dtype d, struct stored_list *list, struct err *e);
/* The same for a single tensor that is `p`'s. */
int param_load(struct param *p, const struct stored *s, const char *where, struct err *e);
/* ---- states (states.c) */
void states_inputs(struct build *b, i64 tokens); /* of model_hidden */
/* This pass's rows go into state `index` of the current layer (model_states); the result is all of
 * it. Without states, the rows. */
struct tensor *build_cached(struct build *b, int index, struct tensor *rows);
/* ---- GGUF (gguf/gguf_config.c, gguf/gguf_map.c) */
struct gguf_arch {
    const char *name, *model_type;
    const char *tell; /* a key, "ARCH.KEY", without which a file is another row's; NULL: none */
    i64 least;        /* what that key has at least, if not 1 */
    bool deep;        /* says how it chooses experts, as DeepSeek does */
    bool rope_rows;   /* rows of queries and keys are LAYOUT_PAIRS */
    bool one_plus;    /* norms hold 1 + w */
    i64 window; /* llama.cpp's layers with a window: all but each so-manyth; 1: all, 0: none */
};
i64 gguf_parts(const struct param *p); /* the tensors that hold it */
/* The tensor that holds part `part` of a parameter (weight_rule.name, a|b). */
void gguf_name(char out[256], const struct gguf_arch *arch, const struct param *p, i64 part);
/* The 27B models scale their scores by hidden_size / heads, which llama.cpp tells by the layers. */
bool is_wide_gemma(const char *model_type, i64 layers);
const struct gguf_arch *gguf_arch_of(const char *model_type); /* NULL: none */
/* The keys of `values`, a whole configuration, that the table has. */
int gguf_put_keys(struct gguf_writer *w, const struct gguf_arch *arch, const json_t *values,
                  struct err *e);
/* The keys of a config.json that count, over the family's defaults. A new reference. */
json_t *config_effective(const json_t *j, const char *where, struct err *e);
/* What the i-th of `r->dims` / 2 frequencies is divided by: llama3, longrope (`beyond`), linear. */
double rope_factor(const struct rope_config *r, i64 i, bool beyond);

/* ---- packed weights (quantize.c) */
int quant_config_read(struct config *c, const json_t *j, const char *where, struct err *e);
/* Gives `p` memory, and packs there `from` (host memory of p's shape, F32 or BF16). */
int param_encode(struct param *p, const struct view *from, const struct packing *how,
                 struct err *e);
int param_decode(const struct param *p, enum dtype d, void *to, struct err *e);
/* The blocks of a GGUF file as they are (blocks.c): kept by `p`, mapped or copied; 1: they cannot
 * be, or it has none. */
int blocks_read(struct model *m, const struct naming *names, struct param *p,
                const struct safetensors *s, u8 *seen, struct err *e);
/* Bytes of matrices of a GGUF file as a model of type d keeps them; 0 where none has blocks. */
i64 blocks_bytes_of(const struct gguf *g, enum dtype d);
/* A weight whose values change or are compared: blocks of a file become values. */
int param_values(struct model *m, struct param *p, struct err *e);
/* Numbers as weights have them: ones for norms, else about 0.02; in codes, as `packing` (NULL: nf4)
 * has them where `p` has no memory yet, any bits will do. */
int param_random(struct param *p, const struct packing *packing, struct err *e);
/* A packed parameter becomes a plain one of type d, in host memory. */
int param_plain(struct param *p, enum dtype d, struct err *e);
/* Whether tensor `t` of a file is codes; marks it and all that belongs to it as seen; gives `p`
 * memory and the codes; or their values (data: the caller's to free). */
bool codes_stored(const struct safetensors *s, const struct stored *t);
void codes_seen(const struct safetensors *s, const struct stored *t, u8 *seen);
int codes_read(struct param *p, const struct safetensors *s, const struct stored *t,
               const char *where, struct err *e);
/* The codes of an FP8 file, if they are as `how` has them; 1: they are not. */
int f8_read(struct param *p, const struct packing *how, const struct stored *t, struct err *e);
int codes_values(struct stored *plain, const struct safetensors *s, const struct stored *t,
                 int rank, const i64 *dim, const char *where, struct err *e);

/* What `linear` takes (ops/linear.c); NULL where absent. */
struct linear_in {
    struct tensor *x, *w, *bias, *a, *b;
    bool int8; /* by linear_int8, where the weight has blocks of whole numbers */
};
struct tensor *linear_call(struct graph *g, const struct linear_in *in, double lora_scale);
/* The same with the rest of what the module's adapter has: magnitudes, dropout. */
struct tensor *lora_linear(const struct tracing *t, const struct module *m,
                           const struct linear_in *in);
/* What `lora_xent` takes beside the LM head `w`: t = scale * dropout(x)·A^T and u = B; DoRA's
 * magnitudes and norms, and the part of x that dropout took, which PEFT multiplies by w alone. */
struct head_in {
    struct tensor *x, *t, *u, *m, *norm, *rest;
};
struct head_in lora_head(const struct tracing *t, const struct module *m, struct tensor *x,
                         struct tensor *w);
/* Looked-up rows x of an embedding, plus what its adapter adds. */
struct tensor *lora_embedding(const struct tracing *t, const struct module *m, struct tensor *ids,
                              struct tensor *x);
/* What mixers and the decoder trace with (build.c): modules of the current layer, of which it may
 * have none of a type; their weights and biases, NULL where there are none. */
struct module *build_module(const struct build *b, const struct module_type *type);
struct tracing build_tracing(const struct build *b);
struct tensor *build_weight(struct build *b, const struct module_type *type);
struct tensor *build_bias(struct build *b, const struct module_type *type);
/* The norm that the family has; `width` columns at a time, 0: the whole row. */
struct norm_attr build_norm_attr(const struct build *b, i64 width);
struct tensor *build_norm(struct build *b, struct tensor *x, const struct module_type *type,
                          i64 width);
struct tensor *build_linear(struct build *b, struct tensor *x, const struct module_type *type);
/* Rows of an embedding (adapters/lora_tokens.c): makes them trainable; appends those of `p`, whose
 * values are `from`, as an adapter's file has them. */
int lora_tokens_add(struct model *m, const struct lora_config *c, struct err *e);
int lora_tokens_stored(const struct model *m, const struct param *p, const void *from,
                       struct stored_list *list, struct err *e);
/* What the base's weight is called in an adapter's file that brings it. */
const char *lora_base_key(struct model *m, const struct param *p, struct err *e);
/* PiSSA (adapters/pissa.c): the pair, whose scale is set, from w, which still holds it. Half `p`
 * with its start, for a file and from one. */
int pissa_start(struct weights *all, const struct param *w, struct lora_pair *to, struct err *e);
int pissa_stored(const struct model *m, const struct param *p, const void *from,
                 struct stored_list *list, struct err *e);
int pissa_load(struct param *p, const struct stored *t, const char *where, struct err *e);
/* A part of an adapter, and its values before training (A; `index` counts the pairs). */
struct param *lora_part_new(struct weights *w, const char *module, enum lora_part part, int rank,
                            const i64 *dim, struct err *e);
void lora_start(struct param *a, const struct lora_config *c, u64 seed, i64 index);
/* What PEFT makes of target_modules that name experts; then adapters on those of layer l. */
int lora_experts_targets(struct model *m, struct lora_config *c, struct err *e);
int lora_experts_add(struct model *m, i64 l, struct lora_config *c, u64 seed, i64 *index,
                     struct err *e);
/* A weight of the base that an adapter's file brings must be that of the model. */
int lora_same(const struct param *p, const struct stored *t, const char *where, struct err *e);

#endif
