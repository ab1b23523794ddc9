/* mixers.h: what a block's slots are filled with. A mixer is const data and owns what is its own:
 * its part of the configuration, which layers have it, its trace, what it keeps from earlier
 * positions, its cost. Families name mixers in their slots; nothing else asks which one a layer
 * has. How to add one: README.md. */
#ifndef HONE_MIXERS_H
#define HONE_MIXERS_H

#include "recipes/models/models_int.h"

struct mixer {
    const char *name;
    const char *const *types; /* what `layer_types` calls its layers, then NULL; NULL: nothing */
    u32 has;                  /* HAS_ bits of a layer that has it */
    /* Reads its keys of a configuration, once whichever layers have it. NULL: it has none. `j` is
     * the file over the family's defaults. */
    int (*config)(struct config *c, const json_t *j, const char *where, struct err *e);
    /* Whether layer l has it, where its slot names several and `layer_types` does not decide. NULL:
     * where no later one of the slot has the layer. */
    bool (*at)(const json_t *j, i64 l, const char *where, struct err *e);
    struct tensor *(*trace)(struct build *b, struct tensor *x); /* x [N, D] -> [N, D] */
    /* What a layer keeps: fills `out`; how many. NULL: it sees each token by itself. */
    int (*states)(const struct config *c, i64 l, enum dtype d, struct mixer_state out[MAX_STATES]);
    /* Operations of a training step per token of a document of `length`, besides the products with
     * weights, which are counted by weight. NULL: none to speak of */
    double (*flops)(const struct config *c, i64 l, i64 length);
};
/* A slot's mixers; the last that has a layer is the layer's. */
#define MIXERS(...) ((const struct mixer *const[]){__VA_ARGS__, NULL})

extern const struct mixer mixer_attention, mixer_mla, mixer_glu, mixer_mlp, mixer_experts;

/* What attention and latent attention have in common. */
extern const char *const attention_types[];
double attention_flops(const struct config *c, i64 l, i64 length);

#endif
