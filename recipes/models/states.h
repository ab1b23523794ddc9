/* states.h: what a model keeps of earlier positions while it continues texts, and the memory for
 * it. The third public header of recipes/models.
 *
 * A state is of one of two kinds. TOKEN: a row for each position, in pages of ATTENTION_PAGE
 * positions that lie anywhere; a page has the same number in the states of all layers, so that one
 * table serves a sequence. SEQUENCE: one slot for each sequence (recurrent mixers). Who owns which
 * page and slot is not known here (train/engine/pool.c).
 *
 * What a mixer keeps in a slot after n positions of its sequence: the state after the last full
 * chunk, n / ATTENTION_PAGE * ATTENTION_PAGE positions from the sequence's beginning, and the rows
 * of the positions since then, by place in the chunk. So the slot serves for each position of the
 * chunk that is computed again, and its copy for the sequence as it is where the chunk begins. At
 * position 0 a mixer reads nothing of what is in the slot. */
#ifndef HONE_STATES_H
#define HONE_STATES_H

#include "recipes/models/models.h"

enum state_kind { STATE_TOKEN, STATE_SEQUENCE };
struct state_spec {
    const char *name;
    enum state_kind kind;
    enum dtype dtype;
    i64 rows, columns; /* TOKEN: of a position (rows 1); SEQUENCE: of a slot */
};
enum { LAYER_STATES = 4 };
/* What layer l keeps; how many. `latent`: latent attention keeps its latents, from which keys and
 * values are made again in each pass with the same bits (mixers/mla.c), not keys and values. */
int model_states(const struct model *m, i64 l, bool latent, struct state_spec out[LAYER_STATES]);

struct layer_states {
    int count;
    struct state_spec spec[LAYER_STATES];
    struct view view[LAYER_STATES]; /* [pages * ATTENTION_PAGE, columns]; [slots * rows, columns] */
};
struct states { /* zero-initialise; states_free also after a failure */
    i64 layers, pages, slots;
    struct layer_states *layer;
    bool latent;
};
int states_describe(struct states *s, const struct model *m, bool latent, struct err *e);
/* Gives them memory, on the device, for so many pages and slots, not fewer than there are; what
 * they hold stays. After a failure all is as it was. */
int states_grow(struct states *s, i64 pages, i64 slots, struct err *e);
void states_free(struct states *s);
i64 states_page_bytes(const struct states *s); /* of a page in all layers */
i64 states_slot_bytes(const struct states *s); /* of a slot in all layers */
bool states_have(const struct states *s, enum state_kind kind);
/* The first `rows` rows of a page; a slot. */
int states_copy_page(struct states *s, i64 to, i64 from, i64 rows, struct err *e);
int states_copy_slot(struct states *s, i64 to, i64 from, struct err *e);
int states_zero_slot(struct states *s, i64 slot, struct err *e);

/* ---- in a trace: what its inputs take when struct build has states. The tokens of a sequence are
 * neighbours. */
struct state_places {
    const i32 *store;    /* [N] the row of each state that takes the token's; -1: none */
    const i32 *sequence; /* [N] whose row of `pages` counts */
    const i32 *pages;    /* [sequences, page_count]: ops/attention/attention.c */
    /* With latents: the rows, [gathered * ATTENTION_PAGE], whose keys and values are made; `pages`
     * are then those of this list. */
    const i32 *gather;
    const i32 *slot; /* of each token's sequence, where a mixer keeps states of sequences */
};
void states_bind(struct build *b, const struct state_places *p); /* before model_bind */

#endif
