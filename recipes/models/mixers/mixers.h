/* mixers.h: what a block's slots are filled with. A mixer is const data and owns what is its own:
 * its part of the configuration, which layers have it, its trace, what it keeps from earlier
 * positions, its cost. Families name mixers in their slots; nothing else asks which one a layer
 * has. How to add one: README.md. */
#ifndef HONE_MIXERS_H
#define HONE_MIXERS_H

#include "recipes/models/models_int.h"
#include "recipes/models/states.h"

struct mixer {
    const char *name;
    const char *const *types; /* what `layer_types` calls its layers, then NULL; NULL: nothing */
    /* Reads its keys of a configuration, once whichever layers have it. NULL: it has none. `j` is
     * the file over the family's defaults. */
    int (*config)(struct config *c, const json_t *j, const char *where, struct err *e);
    /* Whether layer l has it, where its slot names several and `layer_types` does not decide. NULL:
     * where no later one of the slot has the layer. */
    bool (*at)(const json_t *j, i64 l, const char *where, struct err *e);
    struct tensor *(*trace)(struct build *b, struct tensor *x); /* x [N, D] -> [N, D] */
    /* What layer l keeps in a model of dtype d (states.h): fills `out`; how many. NULL: it sees
     * each token by itself. */
    int (*states)(const struct config *c, i64 l, enum dtype d, bool latent,
                  struct state_spec out[LAYER_STATES]);
    /* Operations of a training step per token of a document of `length`, besides the products with
     * weights, which are counted by weight. NULL: none to speak of */
    double (*flops)(const struct config *c, i64 l, i64 length);
};
/* A slot's mixers; the last that has a layer is the layer's. */
#define MIXERS(...) ((const struct mixer *const[]){__VA_ARGS__, NULL})

extern const struct mixer mixer_attention, mixer_mla, mixer_glu, mixer_mlp, mixer_experts,
    mixer_ema;

/* Modules, by who computes with them. */
extern const struct module_type norm_input, norm_post_attention, norm_pre_ffn, norm_post_ffn;
extern const struct module_type attention_q, attention_k, attention_v, attention_qkv, attention_o,
    attention_q_norm, attention_k_norm, attention_sink;
extern const struct module_type mla_q, mla_q_a, mla_q_b, mla_q_norm, mla_kv_a, mla_kv_b,
    mla_kv_norm, mla_o;
extern const struct module_type glu_gate, glu_up, glu_gate_up, glu_down;
extern const struct module_type mlp_up, mlp_down, mlp_alpha_p, mlp_alpha_n, mlp_beta, mlp_eps;
extern const struct module_type experts_router, experts_correction, experts_gate_up, experts_down,
    experts_shared_gate, experts_shared_up, experts_shared_down, experts_shared_score;
/* Their rules under the usual names: transformers', Llama's first. */
extern const struct weight_rule rules_attention[], rules_qk_norm[], rules_qk_norm_whole[],
    rules_mla[], rules_ema[], rules_glu[], rules_gate_up[], rules_experts[], rules_shared_expert[];

extern const struct module_type ema_in, ema_out;

/* What attention and latent attention have in common. */
extern const char *const attention_types[];
double attention_flops(const struct config *c, i64 l, i64 length);

#endif
