/* models.h: model families as data, the one decoder that serves them, LoRA. The first public header
 * of recipes/models; pass.h and states.h are the others.
 *
 * Shape legend: N tokens of a micro-batch (all documents one after another), D hidden_size, F
 * intermediate_size, H heads, K kv_heads, Z head_dim, V vocab_size, L layers, R lora_r, P
 * positions, E experts. */
#ifndef HONE_MODELS_H
#define HONE_MODELS_H

#include "autograd/autograd.h"
#include "base/quant.h"
#include "checkpoints/checkpoints.h"
#include "recipes/models/modules.h"

/* ---- configuration (config.c, config_layers.c): config.json in any of its spellings (`rope_theta`
 * + `rope_scaling` or `rope_parameters`, `n_embd` or `hidden_size`, a multimodal wrapper's
 * `text_config`), with the defaults of the family's class in transformers */
enum { MAX_LAYERS = 1024, MAX_ROPES = 2, MAX_PAIRS = 128 };
enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE };
struct rope_config { /* one table of cosines and sines; formulas: rope_table.c */
    enum rope_type type;
    i64 dims; /* of a head that turn; the rest passes */
    double theta, factor, low_freq_factor, high_freq_factor, original_length, beta_fast, beta_slow,
        attention_factor;
    double mscale_all_dim; /* yarn; MLA scales its scores by it too. 0: not given */
    double query_beta;     /* queries times 1 + beta ln(1 + floor(p / original)). 0: not */
    bool truncate;         /* yarn: the ramp begins and ends at whole dimensions */
    float short_factor[MAX_PAIRS], long_factor[MAX_PAIRS]; /* longrope */
};
/* What a model has or has not, as bits, so that a weight rule can ask for several at once. */
enum has {
    HAS_UNTIED = 1 << 0, /* an LM head of its own */
    HAS_QKV_BIAS = 1 << 2,
    HAS_O_BIAS = 1 << 3,
    HAS_MLP_BIAS = 1 << 4,
    HAS_NORM_BIAS = 1 << 5,
    HAS_QK_NORM = 1 << 6,
    HAS_PARALLEL = 1 << 7,    /* attention and MLP read the same residual stream */
    HAS_FFN_NORM = 1 << 8,    /* the MLP has a norm of its own before it */
    HAS_ONE_NORM = 1 << 9,    /* Falcon: input_layernorm, where 40B has ln_attn and ln_mlp */
    HAS_TWO_NORMS = 1 << 10,  /* Falcon: those */
    HAS_QKV_GROUPS = 1 << 11, /* fused rows go by key-value head: [q... | k | v], ... */
    HAS_QKV_BLOCKS = 1 << 12, /* fused rows are [Q | K | V] */
    HAS_EMBED_NORM = 1 << 15,
    HAS_XIELU = 1 << 16,
    HAS_SHARED = 1 << 20,   /* an expert that sees all tokens */
    HAS_SIGMOID = 1 << 21,  /* routing by sigmoids, with a correction of the choice */
    HAS_RENORM = 1 << 22,   /* weights of the chosen always add up to one */
    HAS_Q_LATENT = 1 << 23, /* MLA: queries come from a latent too */
    HAS_Q_PLAIN = 1 << 24,  /* MLA: they do not */
};
enum { BLOCK_SLOTS = 2 }; /* of a block: attention, then MLP, or what takes their places */
struct mixer;             /* mixers/mixers.h */
struct layer_config {     /* what may differ between layers */
    i64 window;           /* 0: none */
    double scale;         /* of attention scores */
    int rope;             /* index into config.rope, -1: none */
    const struct mixer *mixer[BLOCK_SLOTS];
};
struct quant_config { /* weights as packed ones: quantize.c, blocks.c */
    const struct packing
        *packing; /* how they are encoded while they are loaded; NULL: they are not */
    bool stored;  /* the file may hold codes of bitsandbytes */
    i64 filed; /* bytes of the matrices of a GGUF file whose blocks are kept as they are (blocks.c);
                   * 0: they are not */
};
struct config {
    const struct family *family;
    enum act act;
    struct quant_config quant;
    i64 vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim,
        max_position_embeddings;
    i64 experts, experts_per_token; /* 0: dense */
    i64 expert_size, shared_size;   /* widths of the MLPs of an expert and of the shared one */
    struct route_attr route;
    bool balanced;               /* the loss of balance.c is added, */
    double aux_coef;             /* times this; -1: the family has none */
    double glu_limit, glu_alpha; /* GPT-OSS; 0: no limit */
    struct mla_config {          /* kv_rank 0: no latent attention */
        i64 q_rank, kv_rank, plain, rope_dim, value;
    } mla;
    double norm_eps, initializer_range;
    double embedding_scale, attention_softcap, logit_softcap, clip_qkv; /* 0: none */
    u32 has;
    bool alibi;
    struct rope_config rope[MAX_ROPES]; /* rope[1]: of sliding layers, where a family has two */
    struct layer_config layer[MAX_LAYERS];
    i64 bos_token_id, eos_token_id[8], eos_count; /* bos -1: none */
    bool wrapped;                                 /* the text part of a multimodal model */
    char note[400];                               /* what the user should know; "" for nothing */
};
int config_read(struct config *c, const json_t *j, const char *where, struct err *e);
/* The same of an opened folder or GGUF file, whose metadata become `f->config`. */
struct gguf_arch; /* what GGUF calls a family, and its habits */
int folder_config(struct model_folder *f, struct config *c, const struct gguf_arch **arch,
                  struct err *e);
const char *rope_text(const struct rope_config *r); /* the name of its scaling */

/* ---- families (families/FAMILY.c) */
enum dim_name {
    DIM_NONE,
    DIM_BIAS,   /* as columns: the vector is the bias of its module */
    DIM_SCALAR, /* as rows: a number, of rank 0 on disk */
    DIM_ONE,
    DIM_D,
    DIM_F,
    DIM_2F,
    DIM_V,
    DIM_P,
    DIM_HZ,
    DIM_KZ,
    DIM_QKV,
    DIM_Z,
    DIM_H,
    DIM_E, /* experts */
    DIM_EF,
    DIM_2EF,
    DIM_SF,
    DIM_QR, /* MLA: latents; with the rotated part; what comes of them for all heads */
    DIM_KVR,
    DIM_KVRT,
    DIM_KVB,
    DIM_HV
};
/* How the rows of a tensor lie on disk, where they do not as in memory. */
enum layout {
    LAYOUT_T = 1,          /* [in, out] */
    LAYOUT_QKV_GROUPS = 2, /* per key-value head: its query heads, its key, its value */
    LAYOUT_GU_ALT = 4,     /* rows of gate and up take turns */
    LAYOUT_PAIRS = 8,      /* GGUF: the halves of a head that RoPE turns together take turns */
    LAYOUT_ROPE_LAST = 16, /* per head: rows without RoPE, then those with; in memory the reverse */
    LAYOUT_STACKED = 32,   /* of stacked_layout: the only form that files have */
    LAYOUT_EXPERTS_A = 64, /* adapters of experts as PEFT stores them: [E * r, in] */
    LAYOUT_EXPERTS_B = 128, /* [out, r * E], the expert's number innermost */
};
struct weight_rule {
    const struct module_type *type;
    /* %L: the layer number; makes it one of each layer. %E: one tensor for each expert, stacked in
     * memory. %H: one tensor for each head, one after another in memory. a|b: two tensors, rows one
     * after another in memory. */
    const char *name;
    enum dim_name rows, cols; /* of one expert; cols DIM_NONE: a vector */
    u32 when;                 /* HAS_ bits that the configuration must have */
    u32 layout;
    /* Another form that files may have: one tensor with all experts, [E, rows, cols]. A file is
     * saved as it was read. NULL: none */
    const char *stacked;
    u32 stacked_layout;
};
enum norm_kind { NORM_RMS, NORM_LAYER };
enum qk_norm {
    QK_NORM_NONE,
    QK_NORM_WHOLE, /* over all heads of the projection at once */
    QK_NORM_HEAD   /* each head by itself: one weight [Z] for all, or one for each */
};
enum window_rule { /* where `layer_types` does not say which layers have the window */
                   WINDOW_NONE,
                   WINDOW_ALL,
                   WINDOW_PATTERN, /* all but each `sliding_window_pattern`-th */
                   WINDOW_FROM,    /* from layer `max_window_layers`, if `use_sliding_window` */
                   WINDOW_NOPE     /* those without RoPE, if `use_sliding_window` */
};
struct slot { /* x + after(mixer(before(x))), norms optional */
    const char *name;
    const struct mixer *const *mixers; /* one for all layers, or several: layer_config.mixer */
    const struct module_type *before, *after; /* norms; NULL: none */
};
struct flag_rule { /* a key of config.json, true or false, and the bits either sets */
    const char *key;
    u32 if_true, if_false;
};
enum { FAMILY_FLAGS = 6 };
struct family {
    const char *model_type, *architecture;
    const char *wrapper;  /* model_type of multimodal models whose text_config this is, or NULL */
    const char *defaults; /* JSON: keys that this family reads besides those that all do, with the
                           * values of its class; and its values for those */
    const char *fixed;    /* JSON: keys that change the computation, and the value implemented */
    enum norm_kind norm;
    bool norm_one_plus;  /* y = x / rms * (1 + w) */
    bool embedding_sqrt; /* embeddings times sqrt(D), in the precision of the model */
    bool mlp_4x;         /* intermediate_size is 4 D where the file does not say */
    bool multi_head;     /* as many key-value heads as heads, of D / H, whatever the file says */
    bool learned_positions;
    bool interleaved;     /* RoPE pairs (2i, 2i+1) */
    bool local_rope;      /* layers with a window have a RoPE table of their own, unscaled */
    bool alibi_bf16;      /* Falcon: the ALiBi term in bf16, scaled with the scores */
    bool conv1d;          /* modules are transformers' Conv1D: adapters say fan_in_fan_out */
    enum qk_norm qk_norm; /* where the model HAS_QK_NORM */
    enum window_rule window;
    u32 has;
    struct flag_rule flag[FAMILY_FLAGS];
    /* What tables cannot say: NULL, or called last. `j` is the file over the defaults. */
    int (*finish)(struct config *c, const json_t *j, const char *where, struct err *e);
    const struct slot *block;                 /* BLOCK_SLOTS of them */
    const struct weight_rule *const *weights; /* groups in the order of parameters, then NULL */
};
extern const struct family *const families[];
extern const int family_count;

/* What families share (families/common.c): groups of rules, lists of groups, blocks. Those of
 * mixers: mixers/mixers.h. */
extern const struct weight_rule rules_embed[], rules_input_norm[], rules_ffn_norm[],
    rules_post_attention_norm[], rules_post_ffn_norm[], rules_top[];
extern const struct weight_rule *const weights_llama[], *const weights_qwen3[];
extern const struct slot block_pre[2], block_post[2], block_sandwich[2];

/* ---- models (model.c, param.c) */
struct prefix { /* files may name the modules from another root: `module` stands as `file` */
    const char *module, *file, *head; /* head: what stands before "lm_head." */
};
struct model {
    struct config config;
    /* Its modules: the model's own (embeddings, final norm, LM head), then layer by layer. */
    struct weights weights;
    struct module_range { /* [1 + layers]: the model's own, then those of each layer */
        i64 first, count;
    } * range;
    const struct prefix *prefix; /* of the file that was loaded; NULL: as transformers names them */
    struct constant *rope[MAX_ROPES], *query_rope[MAX_ROPES]; /* the newest tables: rope_table.c */
    struct constant *slopes;                                  /* of ALiBi; NULL: none */
    i64 rope_positions;                                       /* of those tables */
    /* What its config.json does not say: an LM head of its own, more tokens. Saves must. */
    bool untied, grown;
    struct lora_config *lora; /* of the adapter that was added; NULL: none. Not owned */
    /* Passes that sample (PASS_IDS) take activations as whole numbers where weights are blocks of
     * such: linear_int8. All others take decoded values. */
    bool int8;
};
/* Allocates parameters for `c`; their contents are zero. `trainable`: all of them. Call model_free
 * also after a failure. */
int model_new(struct model *m, const struct config *c, enum dtype d, bool trainable, struct err *e);
/* The same without memory for the parameters: the modules, their names and shapes. */
int model_outline(struct model *m, const struct config *c, struct err *e);
/* How many parameters a model of this configuration has, without allocating them. */
i64 config_parameters(const struct config *c);
void model_free(struct model *m);
/* The module of this type of a layer (-1: of the model itself); NULL: none. */
struct module *model_module(const struct model *m, i64 layer, const struct module_type *type);
/* Modules of a model itself: mixers/block.c. */
extern const struct module_type top_embed, top_positions, top_embed_norm, top_norm, top_head;
void model_init(
    struct model *m,
    u64 seed); /* normal(0, initializer_range), norms 1, by parameter and element alone */
/* Converts dtypes. A tensor that the family does not know is refused by name, but for buffers that
 * older versions of transformers stored, and what belongs to the other parts of a wrapper. */
int model_load(struct model *m, const struct safetensors *s, const char *where, struct err *e);
int model_open(struct model *m, const char *path, enum dtype d, bool trainable,
               struct err *e); /* folder: config + weights */
/* The same, held otherwise than its files are. */
struct holding {
    const struct packing *packing; /* of the blocks' linear layers, while loaded; NULL: as filed */
    bool plain;                    /* blocks of GGUF files become values */
    bool tied; /* an LM head is the embedding where config.json says so, whatever the file has */
    /* The weights are not read but small numbers without meaning: memory and time are the same */
    bool random;
};
int model_open_as(struct model *m, const char *path, enum dtype d, bool trainable,
                  const struct holding *as, struct err *e);
/* Appends the names and values of dropouts above 0 that training in transformers would apply; those
 * of the class where a `published` config.json leaves them out (config_dropouts.c). */
int config_dropouts(const json_t *config, const struct family *f, bool published,
                    struct text *names, struct err *e);
/* Moves the parameters to the device in use. Models are made, started and loaded in host memory;
 * on the CPU this does nothing. */
int model_place(struct model *m, struct err *e);
/* Packed weights become plain ones in the model's dtype. */
int model_decode(struct model *m, struct err *e);
/* Converts the values of a parameter of the same shape. */
int param_copy(struct param *to, const struct param *from, struct err *e);
/* Builds the tables for at least so many positions, which is also the length that dynamic scaling
 * goes by. Graphs that were traced before keep the tables that they were traced with. */
int model_rope(struct model *m, i64 positions, struct err *e);
i64 model_count(const struct model *m, bool trainable_only);
/* Loaded models made larger, in host memory and before adapters (reshape.c): an LM head that is a
 * copy of the embedding, in place of the embedding itself; rows of zeros for more tokens. */
int model_untie(struct model *m, struct err *e);
int model_grow(struct model *m, i64 vocab_size, struct err *e);
/* Values for the rows behind the first `rows`, as transformers' mean_resizing. */
int model_rows_start(struct model *m, i64 rows, u64 seed, struct err *e);
bool model_grown_part(const struct model *m,
                      const struct param *p); /* has more rows than its file */
/* The tensors of a file, with its names, shapes and layouts. */
struct stored_list {
    struct stored *tensor;
    i64 count, room;
    struct arena arena; /* names, and data that is no model's memory */
};
void stored_free(struct stored_list *list);
/* Room for one more, which the caller fills before counting it in `count`. */
struct stored *stored_add(struct stored_list *list, struct err *e);
/* Appends those that hold parameter `p`, with values `from` (host memory of p's shape) of type `d`
 * and `before` in front of each name. The data may be `from` itself. */
int param_stored(const struct model *m, const struct param *p, const char *before, const void *from,
                 enum dtype d, struct stored_list *list, struct err *e);
/* For full models every parameter, with an adapter only its tensors: what a checkpoint's weight
 * file holds. Free with stored_free, before the model. */
int model_stored(const struct model *m, bool adapter, struct stored_list *list, struct err *e);
/* ---- as GGUF (gguf/gguf_export.c). Refused by name: what llama.cpp would compute differently */
struct gguf_tensors { /* free with gguf_tensors_free, before the model */
    struct gguf_tensor *tensor;
    i64 count;
    struct stored_list stored;
};
void gguf_tensors_free(struct gguf_tensors *t);
/* The context length of the file: where llama.cpp's architecture has no window and the model has,
 * what lies within it. */
i64 model_gguf_length(const struct model *m);
/* `file`: config.json, parsed. `file_type`: what GGUF's general.file_type says. */
int model_gguf_metadata(struct gguf_writer *w, const struct model *m, const json_t *file,
                        const char *name, i64 file_type, struct err *e);
/* Vectors and positions F32; matrices `type` or, where rows are no whole blocks, the next best;
 * with fewer than 8 bits the output layer has 8. The data may be the model's. */
int model_gguf_tensors(struct gguf_tensors *t, struct model *m, const struct gguf_type *type,
                       struct err *e);
int lora_gguf_metadata(struct gguf_writer *w, const struct model *m, struct err *e);
int lora_gguf_tensors(struct gguf_tensors *t, struct model *m, struct err *e);
double model_flops(const struct model *m, i64 tokens,
                   i64 length); /* of one training step: see bench README */
bool is_eos(const struct config *c, i64 id);

/* ---- LoRA (adapters/lora.c) */
/* Adds A and B to every matching linear layer, started as PEFT starts them (init_lora_weights). `c`
 * must outlive the model. */
int lora_add(struct model *m, struct lora_config *c, u64 seed, struct err *e);
int lora_load(struct model *m, const struct safetensors *s, const char *where, struct err *e);
/* Before both: makes the model what an adapter was, or is to be, trained on: with more tokens
 * (those of the file `s`), with an LM head of its own where either end of a tied model is trained
 * whole. */
int lora_fit(struct model *m, const struct lora_config *c, const struct safetensors *s,
             const char *where, struct err *e);
/* Both, for one more adapter whose part is `weight` times what it is by itself; with those that are
 * there it becomes one of all ranks (adapters/lora_stack.c). For use, not for training. */
int lora_stack(struct model *m, struct lora_config *c, const struct safetensors *s,
               const char *where, double weight, struct err *e);
int lora_merge(
    struct model *m,
    struct err *e); /* w += scale * B·A in f32, one rounding; the adapter is gone after */

/* ---- the decoder (decoder.c, mixers/) */
struct states; /* of earlier positions: states.h */
/* The balancing loss of mixtures (balance.c), of all tokens that are given to it, in any number of
 * runs. It needs to know all choices beforehand: one pass counts, the next computes. */
enum { MOST_EXPERTS = 1024 };
struct balance {              /* zero-initialise; free `sum` with mem_free */
    i64 chosen[MOST_EXPERTS]; /* how often tokens chose each expert, in all layers */
    i64 rows;                 /* tokens, once for each layer with experts */
    double *sum;              /* [layers] of terms */
};
struct routing; /* what a trace keeps for it */
struct build {  /* one trace */
    struct graph *g;
    struct model *m;
    struct states *states; /* NULL: the keys are this batch's own; else set these too: */
    i64 sequences, page_count, gathered;          /* of `pages`; pages that `gather` lists */
    struct tensor *ids, *position, *begin, *last; /* inputs: i32 [N] each; see attention.c */
    struct tensor *store, *sequence, *pages, *gather, *slot; /* with states: states.h */
    struct tensor *rope[MAX_ROPES], *query_rope[MAX_ROPES], *slopes;
    bool bare; /* as if the model had no adapter */
    bool int8; /* struct model */
    /* For training, the share of an adapter's inputs that is dropped: set it and the seed before
     * model_hidden, and `dropout_at` (ops/dropout.c) before each run. */
    double dropout;
    u64 dropout_seed;
    i32 dropout_at[2];
    struct tensor *dropout_place;
    i32 *row;      /* longrope: positions as rows of its table, */
    i64 positions; /* which has so many for each kind of document */
    i64 layer;
    struct routing *routing; /* balance.c; NULL: nothing of it is traced */
};
struct places { /* what the inputs of a trace take, i32 [N] each */
    const i32 *ids, *position, *begin, *last;
};
/* Makes the inputs for N tokens and traces the decoder up to the final norm: [N, D]. */
struct tensor *model_hidden(struct build *b, i64 tokens);
/* Before model_hidden, once b->g and b->m are set: the trace counts choices, or (`loss`) computes
 * the loss and in a backward pass its gradient, times `aux_coef`. */
int balance_trace(struct build *b, i64 tokens, bool loss);
/* Before graph_run of a trace of the loss. `real` [N]: 0 where a token does not count; NULL: all.
 */
void balance_bind(struct build *b, const struct balance *all, const i32 *real);
/* Where its backward pass starts: fills one seed for each layer that has experts; how many. */
int balance_seeds(const struct build *b, struct seed *out);
/* After it: adds what the run counted, or its terms. */
int balance_add(struct build *b, struct balance *all, const i32 *real, struct err *e);
double balance_loss(const struct balance *all, i64 layers);
/* Before graph_run: points the inputs at the caller's memory. A longrope model chooses here, by the
 * length of each document, which of its tables counts. */
int model_bind(struct build *b, const struct places *p, struct err *e);
/* By which frequencies the keys of a document of `length` positions turn: 1, those of longrope's
 * long documents, or 0. Where it changes, states must be made again. */
int model_rope_kind(const struct model *m, i64 length);
struct tensor *model_logits(struct build *b, struct tensor *hidden); /* [N, V] */
struct tensor *model_loss(struct build *b, struct tensor *hidden, struct tensor *targets); /* [N] */

#endif
