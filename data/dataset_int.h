/* dataset_int.h: what the files of sources, datasets and the loader share with each other only. */
#ifndef HONE_DATASET_INT_H
#define HONE_DATASET_INT_H

#include "data/data.h"
#include <hdf5.h>

/* ---- source_stream.c: the bytes of a file, decompressed by its name -------------------------- */
struct stream {
    const char *path;
    int fd;
    bool ended;           /* the file was read to its end and its last member or frame was whole */
    bool partial;         /* in the middle of a member or frame */
    bool pending;         /* the decoder may give more without further input */
    i64 bytes;            /* read from the file */
    struct sha256 sha256; /* of them */
    void *gzip, *zstd;    /* z_stream, ZSTD_DStream; both NULL: plain */
    u8 *in;               /* a block of the file, */
    size_t in_at, in_end; /* of which this much is left */
};
int stream_open(struct stream *s, const char *path, struct err *e);
/* Appends some bytes; nothing at the end. */
int stream_read(struct stream *s, struct text *out, struct err *e);
void stream_close(struct stream *s);

/* ---- zstd_filter.c --------------------------------------------------------------------------- */
enum { H5_ZSTD = 32015 }; /* registered with The HDF Group */
int zstd_filter_register(struct err *e);

/* ---- dataset_h5.c -------------------------------------------------------------------------------
 * A file that HDF5 reads and writes through us (a virtual file driver): the first failure is
 * remembered with its cause, and later writes are swallowed so that the library can shut down in
 * peace. */
struct h5 {
    const char *path;
    int fd;
    bool writable;
    i64 size;             /* of the file, bytes */
    i64 raw_at, raw_size; /* where array data was written last */
    struct err err;       /* what the driver met */
    hid_t file;
};
int h5_create(struct h5 *h, const char *path, struct err *e);
int h5_open(struct h5 *h, const char *path, struct err *e);
int h5_close(struct h5 *h, struct err *e); /* a written file is also synced */
/* -1, with the driver's error if it has one. */
int h5_failed(struct h5 *h, const char *what, struct err *e);
/* Attributes of the root group. A text is read if it has exactly `size` bytes. */
int h5_put_i64(struct h5 *h, const char *name, i64 value, struct err *e);
int h5_put_text(struct h5 *h, const char *name, const char *value, struct err *e);
int h5_get_i64(struct h5 *h, const char *name, i64 *value, struct err *e);
int h5_get_text(struct h5 *h, const char *name, i64 size, char *value, struct err *e);
/* Creates /tokens, of width 2 or 4 bytes, in chunks with the zstd filter, growing; negative on
 * failure. */
hid_t h5_put_tokens(struct h5 *h, int width, i64 count);
/* Whole arrays, contiguous: [rows], or [rows, columns] where columns > 1. Read ones are followed by
 * a zero byte. */
int h5_put_array(struct h5 *h, const char *name, hid_t type, i64 rows, i64 columns,
                 const void *data, struct err *e);
int h5_get_array(struct h5 *h, const char *name, hid_t type, i64 columns, struct arena *a,
                 void **data, i64 *rows, struct err *e);

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
struct sample sampler_at(const struct sampler *s, i64 global);

#endif
