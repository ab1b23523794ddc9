/* models.h: model families as data, the one decoder that serves them, LoRA. recipes/models' only
 * public header.
 *
 * Shape legend: N tokens of a micro-batch (all documents one after another), D hidden_size, F
 * intermediate_size, H heads, K kv_heads, Z head_dim, V vocab_size, L layers, R lora_r. */
#ifndef HONE_MODELS_H
#define HONE_MODELS_H

#include "autograd/autograd.h"
#include "checkpoints/checkpoints.h"

/* ---- configuration (config.c): config.json, either spelling (`rope_theta` + `rope_scaling`, or
 * `rope_parameters`) */
enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 };
struct config {
    const struct family *family;
    i64 vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim,
        max_position_embeddings;
    double rms_norm_eps, rope_theta, initializer_range;
    enum rope_type rope_type;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor, rope_original_length;
    bool tie_word_embeddings, attention_bias, mlp_bias;
    i64 bos_token_id, eos_token_id[8], eos_count; /* bos -1: none */
};
int config_read(struct config *c, const json_t *j, const char *where, struct err *e);

/* ---- families (families/FAMILY.c) */
enum role {
    ROLE_NONE,
    ROLE_EMBED,
    ROLE_LM_HEAD,
    ROLE_FINAL_NORM,
    ROLE_INPUT_NORM,
    ROLE_POST_ATTENTION_NORM,
    ROLE_PRE_FFN_NORM,
    ROLE_POST_FFN_NORM,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_O_BIAS,
    ROLE_GATE_BIAS,
    ROLE_UP_BIAS,
    ROLE_DOWN_BIAS,
    ROLE_COUNT
};
enum dim_name { DIM_NONE, DIM_D, DIM_F, DIM_V, DIM_HZ, DIM_KZ, DIM_Z };
enum when { ALWAYS, IF_UNTIED, IF_ATTENTION_BIAS, IF_MLP_BIAS };
struct weight_rule { /* one tensor on disk; %L in the name is the layer number, and makes it one of
                        each layer */
    enum role role;
    const char *name;
    enum dim_name rows, cols; /* cols DIM_NONE: a vector */
    enum when when;
};
enum qk_norm { QK_NORM_NONE, QK_NORM_WHOLE }; /* over all heads of the projection at once */
struct build;
typedef struct tensor *mixer_fn(struct build *b, struct tensor *x);
struct slot { /* x + after(mixer(before(x))), norms optional */
    const char *name;
    mixer_fn *mixer;
    enum role norm_before, norm_after;
};
struct family {
    const char *model_type, *architecture;
    double rms_norm_eps, rope_theta; /* defaults of the config class */
    enum qk_norm qk_norm;
    struct slot block[2];
    const struct weight_rule *weights;
};
extern const struct family family_llama, family_olmo2;
extern const struct family *const families[];
extern const int family_count;

mixer_fn mix_attention, mix_swiglu;

/* ---- models (model.c) */
struct param {
    const char *name; /* on disk, or "MODULE.lora_A" */
    struct view view; /* memory of the model, 64-byte aligned; of the device after model_place */
    bool placed;
    enum role role;
    bool trainable;
    bool decay; /* weight decay applies: matrices, not norms and biases */
    i64 layer;  /* -1: none */
};
struct lora_pair {
    struct param *a, *b; /* [R, in], [out, R]; NULL: none */
    double scale;
};
struct layer {
    struct param *weight[ROLE_COUNT];
    struct lora_pair lora[ROLE_COUNT];
};
struct model {
    struct config config;
    enum dtype dtype; /* F32 or BF16 */
    struct layer *layer;
    struct layer top; /* embedding, final norm, LM head */
    struct param **param;
    i64 params;
    float *rope_table; /* [rope_positions, Z], on the device */
    i64 rope_positions;
    struct lora_config *lora; /* of the adapter that was added; NULL: none. Not owned */
    struct arena arena;
    bool frozen; /* all but adapters */
};
/* Allocates parameters for `c`; their contents are zero. `trainable`: all of them. Call model_free
 * also after a failure. */
int model_new(struct model *m, const struct config *c, enum dtype d, bool trainable, struct err *e);
/* How many parameters a model of this configuration has, without allocating them. */
i64 config_parameters(const struct config *c);
void model_free(struct model *m);
void model_init(
    struct model *m,
    u64 seed); /* normal(0, initializer_range), norms 1, by parameter and element alone */
int model_load(struct model *m, const struct safetensors *s, const char *where,
               struct err *e); /* converts dtypes */
int model_open(struct model *m, const char *path, enum dtype d, bool trainable,
               struct err *e); /* folder: config + weights */
/* Moves the parameters to the device in use. Models are made, started and loaded in host memory;
 * on the CPU this does nothing. */
int model_place(struct model *m, struct err *e);
/* Converts the values of a parameter of the same shape. */
int param_copy(struct param *to, const struct param *from, struct err *e);
int model_rope(struct model *m, i64 positions,
               struct err *e); /* builds the table for at least so many positions */
i64 model_count(const struct model *m, bool trainable_only);
/* For full models every parameter, with an adapter only its tensors: what a checkpoint's weight
 * file holds. Free with model_stored_free (names belong to the model). */
struct stored *model_stored(const struct model *m, bool adapter, i64 *count, struct err *e);
void model_stored_free(const struct model *m, struct stored *list, i64 count);
double model_flops(const struct model *m, i64 tokens,
                   i64 length); /* of one training step: see bench README */
bool is_eos(const struct config *c, i64 id);

/* ---- LoRA (lora.c) */
/* Adds A and B to every matching linear layer. A starts as PEFT starts it (init_lora_weights), B as
 * zero. `c` must outlive the model. */
int lora_add(struct model *m, struct lora_config *c, u64 seed, struct err *e);
int lora_load(struct model *m, const struct safetensors *s, const char *where, struct err *e);
int lora_merge(
    struct model *m,
    struct err *e); /* w += scale * B·A in f32, one rounding; the adapter is gone after */

/* ---- the decoder (decoder.c, layers.c) */
struct cache {          /* keys and values of earlier positions; for generation */
    struct view *k, *v; /* per layer [rows, K*Z] */
    i64 rows;
};
int cache_new(struct cache *c, const struct model *m, i64 rows, struct err *e);
void cache_free(struct cache *c, const struct model *m);
struct build { /* one trace */
    struct graph *g;
    struct model *m;
    struct cache *cache; /* NULL: the keys are this batch's own */
    struct tensor *ids, *position, *begin, *last,
        *rope; /* inputs: i32 [N] each; see ops/attention.c for begin and last */
    i64 layer;
};
/* Makes the inputs for N tokens and traces the decoder up to the final norm: [N, D]. */
struct tensor *model_hidden(struct build *b, i64 tokens);
struct tensor *model_logits(struct build *b, struct tensor *hidden); /* [N, V] */
struct tensor *model_loss(struct build *b, struct tensor *hidden, struct tensor *targets,
                          struct tensor *scale); /* [N] */
/* y = x·W^T with what is attached to the slot `role` of the current layer (bias, adapter). */
struct tensor *build_linear(struct build *b, struct tensor *x, enum role role);
struct tensor *build_param(struct build *b, struct param *p);

#endif
