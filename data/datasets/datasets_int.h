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

/* ---- loader_sample.c: what the n-th sample is ------------------------------------------------ */
struct sampler {
    struct loader_config config;
    i64 *count;  /* [datasets] samples of each */
    i64 total;   /* of them all */
    u16 *slot;   /* [SAMPLER_SLOTS] with weights: the dataset of each place of the repeating mix */
    u32 *before; /* [SAMPLER_SLOTS] how many earlier places have the same dataset */
    i64 *share;  /* [datasets] places of each */
    struct arena arena;
};
struct sample {
    struct dataset *dataset;
    i64 first, inputs; /* tokens [first, first + inputs) of the dataset */
    i64 known; /* tokens that may be looked at: inputs, or one more where the last input has a
                  target */
};
int sampler_open(struct sampler *s, const struct loader_config *c, struct err *e);
void sampler_close(struct sampler *s);
struct sample sampler_at(const struct sampler *s, i64 global, i64 row); /* one row of it */

#endif
