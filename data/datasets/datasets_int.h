/* dataset_int.h: what the files of sources, datasets and the loader share with each other only. */
#ifndef HONE_DATASET_INT_H
#define HONE_DATASET_INT_H

#include "data/datasets/datasets.h"
#include "base/h5.h"

/* ---- dataset.c ------------------------------------------------------------------------------- */
enum {
    DATASET_CHUNK = 256 << 10, /* bytes of tokens per chunk; README.md has the sizes tried */
    DATASET_LEVEL = 9,
    DATASET_HASH = 16,    /* bytes kept of each chunk's SHA-256 */
    DATASET_PIPELINE = 1, /* raised when the same sources would give other tokens */
};
/* SHA-256 over the chunk hashes, the document offsets and the spans. */
int dataset_identity(const u8 *hashes, i64 chunks, const u64 *documents, i64 n, const u64 *spans,
                     i64 m, char hex[65], struct err *e);

/* ---- loader_plan.c: samples that no formula gives -------------------------------------------- */
struct extent {
    i64 first; /* tokens [first, first + count) of the dataset */
    i32 count;
    bool more; /* a token follows that may be the last one's target */
};
struct plan {
    struct extent *piece;
    i64 pieces, samples;
    i64 *at; /* [samples + 1] the first piece of each */
};
bool plan_needed(const struct loader_config *c, const struct dataset *d);
int plan_open(struct plan *p, const struct loader_config *c, struct dataset *d,
              struct loader_facts *facts, struct err *e); /* plan_close, after a failure too */
void plan_close(struct plan *p);

/* ---- loader_sample.c: what the n-th sample is ------------------------------------------------ */
struct sampler {
    struct loader_config config;
    i64 *count;                 /* [datasets] samples of each */
    struct plan **plan;         /* [datasets] NULL: by the formula */
    struct loader_facts *facts; /* [datasets] */
    i64 total;                  /* of them all */
    u16 *slot;   /* [SAMPLER_SLOTS] with weights: the dataset of each place of the repeating mix */
    u32 *before; /* [SAMPLER_SLOTS] how many earlier places have the same dataset */
    i64 *share;  /* [datasets] places of each */
    struct arena arena;
};
struct sample {
    struct dataset *dataset;
    const struct extent *piece; /* [pieces]; NULL: `own` */
    struct extent own;
    i64 pieces, inputs; /* inputs: tokens of all pieces */
};
int sampler_open(struct sampler *s, const struct loader_config *c, struct err *e);
void sampler_close(struct sampler *s);
struct sample sampler_at(const struct sampler *s, i64 global, i64 row); /* one row of it */
i64 sampler_epoch_steps(const struct sampler *s);
/* How many samples a step has, and the number of the first. */
i64 sampler_step(const struct sampler *s, i64 step, i64 *first);

#endif
