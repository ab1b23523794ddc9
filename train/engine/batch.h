/* batch.h: the engine's own: its texts, and the pass that a step runs for them. */
#ifndef HONE_ENGINE_BATCH_H
#define HONE_ENGINE_BATCH_H

#include "train/engine/pool.h"

/* A pass and its inputs; kept as long as steps are of the same shape. */
struct pass_batch {
    struct pass pass;
    i64 tokens, texts, rows, page_count, gathered, moves;
    i32 *places; /* ids, position, begin, last, store, sequence, slot: [7][tokens] */
    i32 *row, *step, *pages, *gather;
    struct sample_how *how;
    u8 *had;       /* [rows][V], where there is a penalty */
    float *logits; /* [rows][V], where somebody wants them */
    bool penalty, told;
};

struct engine {
    struct model *m;
    struct pool pool;
    struct sequence **list;
    i64 count, room;
    struct pass_batch batch;
    i32 *compact; /* latents: what a page is called in the pass's list; -1: not in it */
    i64 compacts;
    i64 chunk;
    bool bare;
    struct engine_count counted;
};

/* A text has a row for each place whose logits are wanted, for its last, and for each guess. */
i64 rows_of(const struct sequence *q);
struct pass_batch batch_need(const struct engine *g); /* what the texts of this step need of one */
bool batch_serves(const struct engine *g, const struct pass_batch *b, const struct pass_batch *n);
int batch_open(struct engine *g, const struct pass_batch *need, struct err *e);
int batch_run(struct engine *g, u32 *ids, struct err *e); /* ids: of each row */
void batch_free(struct pass_batch *b);

#endif
