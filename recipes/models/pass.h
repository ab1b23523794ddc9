/* pass.h: a model's run over a number of tokens, planned once and run often: what the trainer,
 * evaluation, generation, the benchmark, export and `hone forward` share. The second public header
 * of recipes/models. */
#ifndef HONE_PASS_H
#define HONE_PASS_H

#include "recipes/models/states.h"

enum pass_gives {
    PASS_NOTHING, /* what balancing counts */
    PASS_LOSS,    /* f32 [tokens]; 0 where the target is negative */
    PASS_LOGITS,  /* [rows, V] in the model's dtype */
    PASS_IDS      /* i32 [rows]: sampled */
};
enum pass_balance { BALANCE_NONE, BALANCE_COUNT, BALANCE_LOSS };
struct pass_plan { /* zeros are defaults */
    struct model *model;
    i64 tokens;
    enum pass_gives gives;
    bool train;            /* PASS_LOSS: with the gradient of every trainable parameter */
    bool recompute, eager; /* gradient_checkpointing; a buffer for each tensor */
    bool bare;             /* the model as if it had no adapter */
    double dropout;        /* of what adapters read */
    u64 dropout_seed;
    enum pass_balance balance;
    i64 rows;              /* PASS_LOGITS, PASS_IDS: of so many tokens (inputs' `row`); 0: of all */
    bool penalty;          /* PASS_IDS: `seen` counts */
    bool logits;           /* PASS_IDS: pass_read_logits gives what the ids were picked from */
    struct states *states; /* of earlier positions; NULL: the tokens see themselves alone */
    i64 sequences, page_count, gathered; /* with states: of struct state_places */
    struct graph_memory *memory;         /* that several passes use in turn; NULL: its own */
};
struct pass { /* zero-initialise */
    struct pass_plan plan;
    struct graph *graph; /* NULL: closed. Its slots are the caller's, with `train` */
    struct build build;
    struct tensor *targets, *weight, *row, *step, *how, *seen, *logits,
        *out;                /* NULL where the plan has none */
    float *weights, *losses; /* on the host, made when asked for */
    i64 used;                /* of a cache: when it was asked for last */
};
struct pass_inputs { /* of a run; what the plan has no use for may be absent */
    struct places places;
    struct state_places states;    /* with states */
    const i32 *targets;            /* [tokens] negative: no loss */
    const float *weight;           /* [tokens] d objective / d loss of each row */
    const i32 *row;                /* [rows] */
    const i32 *step;               /* [rows, 2] ops/sample.c */
    const struct sample_how *how;  /* [rows] */
    const u8 *seen;                /* [rows, V] */
    i32 dropout_at[2];             /* ops/dropout.c */
    const struct balance *balance; /* of the whole step: counted */
    const i32 *real;               /* [tokens] balance_bind */
};
int pass_open(struct pass *p, const struct pass_plan *plan, struct err *e); /* closed on failure */
void pass_close(struct pass *p);
int pass_bind(struct pass *p, const struct pass_inputs *in, struct err *e); /* keeps the pointers */
int pass_run(struct pass *p, struct err *e);
int pass_read(const struct pass *p, void *host, struct err *e);       /* what it gives, as it is */
int pass_read_logits(const struct pass *p, float *to, struct err *e); /* as f32 */
/* Adds the losses of rows with a target, in their order. */
int pass_read_loss(struct pass *p, const i32 *targets, double *sum, struct err *e);
/* [tokens] equal weights, valid until the next call. */
const float *pass_weights(struct pass *p, float each, struct err *e);

/* Passes that are kept between runs, one for each kind and size: tracing and planning cost more
 * than a small run. Those asked for longest ago are closed when all take more than `most` bytes,
 * shared memory not counted; the one in use stays. Which are kept changes no bit. Zero-initialise.
 */
enum { PASS_CACHE_BYTES = 256 << 20 }; /* `most` where it is 0 */
struct pass_cache {
    struct pass **pass;
    i64 count, room, most, clock, opened; /* opened: how many were, in all */
};
/* The pass of this plan, open. *fresh (may be NULL): it was not there. NULL after an error. Good
 * until the next call. */
struct pass *pass_cached(struct pass_cache *c, const struct pass_plan *plan, bool *fresh,
                         struct err *e);
void pass_cache_drop(struct pass_cache *c, struct pass *p); /* closes it: it could not be used */
void pass_cache_free(struct pass_cache *c);

#endif
