/* datasets.h: sources of text, tokenised datasets, and the order in which training sees them. */
#ifndef HONE_DATASETS_H
#define HONE_DATASETS_H

#include "data/templates/templates.h"

/* ==== sources (source.c) ===================================================== */
/* A source yields documents from a file: text (Markdown is text), or rows of JSON (objects, one a
 * line or over several, or one array of them), CSV, TSV or Parquet. All but Parquet may be gzip
 * (.gz, any number of members) or zstd (.zst, any number of frames), and UTF-16 with a byte order
 * mark. Rows are {"text"}; {"prompt", "completion"}; {"instruction", "input", "output"} or
 * {"instruction", "instances": [{"input", "output"}]} (self-instruct); or conversations:
 * {"messages": [{"role", "content", ...}]}, {"conversations": [{"from", "value"}]} (ShareGPT),
 * {"prompt", "completion"} that are lists of messages, each with "system", "tools", "documents" and
 * "chat_template_kwargs" if wanted; {"segments"}; or tokens: {"input_ids", "labels"}. Instructions
 * get the template of Stanford Alpaca without its preamble. conversation.c: how messages may be
 * written. */
enum split { SPLIT_ALL, SPLIT_TRAIN, SPLIT_VALIDATION };
struct source_options {
    /* text, jsonl, csv, tsv or parquet. NULL: by the file's name, which may end in .gz or .zst */
    const char *type;
    i64 first_row; /* the number of the first row: those of a folder's files go on */
    /* Text: what ends a document, "\n\n" for blocks. NULL or "": the file is one document */
    const char *document_separator;
    bool completion_only_loss; /* prompts are read but not trained */
    bool assistant_only_loss;  /* conversations: only what the assistant says is trained */
    /* Conversations need it; NULL: they are refused. Borrowed. */
    const struct chat *chat;
    bool chat_instructions; /* {"instruction", "output"} rows are conversations, too */
    struct row_rules rules; /* borrowed */
    i64 vocab_size;         /* that rows of ids must keep to; 0: any */
    /* Which part is yielded; the two never share a row. [0, 1) of rows are held out, by a hash of
     * (seed, row); of a file that is one document the last bytes, in whole lines. */
    enum split split;
    double validation_fraction;
    u64 seed;
    i64 from_row, end_row; /* only rows from the first to before end_row; 0: to the last */
    bool parts;            /* conversations say where their messages' texts are */
};
/* What is compared with validation_fraction: in [0, 1), the same for a row whoever reads it. */
double source_draw(u64 seed, i64 row);
/* A document is one text in at most two segments, which are tokenised as one text, or `apart`; or
 * (segments 0) a conversation, which is tokenised whole, as it will be when the model is used, and
 * of which the spans are trained: each token that lies in one, if only in part. */
struct segment {
    i64 size; /* bytes */
    bool trained;
};
struct document {
    const char *text; /* valid UTF-8, may hold NULs; valid until the next source_next */
    i64 size, row;    /* bytes; row of the source it came from, from 0 */
    int segments;
    struct segment segment[2];
    const struct span *span; /* [spans], valid as text is */
    i64 spans;
    bool unstopped; /* the template puts nothing after the last answer: it wants an eos */
    const struct message_part *part; /* of a conversation, where source_options.parts; as text is */
    i64 parts;
    bool apart; /* the segments are tokenised each for itself */
    bool ids;   /* text is u32 ids, size / 4 of them, and spans are of ids */
};
struct source_facts {
    i64 bytes, documents; /* of the file as it is stored; yielded so far */
    i64 rows;             /* read so far, whether wanted or not, those of the other part too */
    i64 conversations;    /* of the documents */
    i64 skipped;          /* rows that were left out */
    char sha256[65];      /* of the stored bytes; "" until the end was reached */
};
enum source_form { FORM_NONE, FORM_TEXT, FORM_JSON, FORM_CSV, FORM_TSV, FORM_PARQUET };
enum source_form source_form(const char *path); /* form.c; FORM_NONE: unclear */
struct source;
struct source *source_open(const char *path, const struct source_options *options, struct err *e);
/* 1: a document, 0: the end, -1: an error, which names file and line. */
int source_next(struct source *s, struct document *out, struct err *e);
const struct source_facts *source_facts(const struct source *s);
const struct row_notes *source_notes(const struct source *s);
/* What is written around the columns of a row, by name (rows_prompts.c); NULL: there is none. */
const struct prompt_style *prompt_style_find(const char *name);
extern const char prompt_style_choices[]; /* "alpaca alpaca:chat ..." */
/* Is every name of `columns` one that rows know? */
int row_columns_check(const json_t *columns, struct err *e);
/* Appends the notes as lines for the user, about `path`. */
int row_notes_text(const struct row_notes *n, const char *path, struct text *out, struct err *e);
void source_close(struct source *s);
/* Every segment of the documents that a path means (data_files_find), with the options' defaults:
 * what bpe_train learns from. */
texts_fn source_texts;

/* ==== files (files.c, card.c, folder.c) ====================================================== */
/* Which files a path means, in the order in which they are read: a file; a glob (*, ?, [...]; **
 * any folders); a folder, with those in it; or a downloaded dataset repository, as the front matter
 * of its README.md says. */
struct data_file {
    char *path;
    char *name; /* in the folder, or the file's own: what datasets and messages call it */
};
struct data_files {
    struct data_file *item;
    i64 count;
    bool named;       /* they are those of a split that `split` names */
    bool has_split;   /* and there are others of validation: nothing is to be cut off */
    struct text note; /* a line for the user about files that are not read, or empty */
    i64 room;
};
/* `config` (may be NULL): the repository's configuration. `split`: NULL is the training split where
 * the folder has several; "validation" of a folder that has none of its own means its training
 * files. Frees nothing on an error: data_files_free in any case. */
int data_files_find(struct data_files *f, const char *path, const char *config, const char *split,
                    struct err *e);
void data_files_free(struct data_files *f);

/* ==== tokenised datasets (dataset*.c, zstd_filter.c) ========================================== */
/* One HDF5 file, described in README.md. */

struct seen { /* hashes of documents; zero-initialise, seen_free */
    u64 (*slot)[2];
    i64 count, slots; /* slots: 0 or a power of two */
};
void seen_free(struct seen *s);
/* What `hone check` asks about the first documents while they become tokens: dataset_probe.c */
enum { PROBE_DOCUMENTS = 10000 };
struct dataset_probe {
    i64 rows, skipped; /* of all: read, left out */
    i64 documents;     /* looked at: at most PROBE_DOCUMENTS */
    /* Of conversations by who speaks; MESSAGE_ROLES: the template; and pairs and texts */
    struct probe_tokens {
        i64 tokens, trained;
    } role[MESSAGE_ROLES + 1], prompt, completion, text;
    i64 pairs, apart; /* prompts with completions; whose ids differ from those of both alone */
};
struct dataset_job {
    const char *const *sources; /* paths, folders or globs, read in this order */
    i64 sources_count;
    struct source_options options;
    const char *config, *file_split; /* of data_files_find; NULL: its defaults */
    struct encoder encoder;
    /* Around each document of text, if the encoder has them, and unless they are there already
     * (rules.version 1: even then); eos counts as text. */
    bool add_bos, add_eos;
    bool add_around; /* what the encoder puts around texts, too: before, after */
    i64 min_tokens;  /* documents with fewer are left out and counted */
    /* Documents whose ids and targets were there already are left out and counted. NULL: they are
     * not. Several jobs may share it */
    struct seen *seen;
    const char *path;            /* of the dataset; replaced only by a complete new one */
    struct text *notes;          /* gets what became of the rows, in lines; NULL: not wanted */
    struct dataset_probe *probe; /* NULL: not wanted; else zero */
};
int dataset_build(const struct dataset_job *job, struct err *e);

struct dataset;
struct dataset_info {
    const char *path;
    i64 tokens, documents, trained; /* trained: tokens that may be targets */
    i64 vocab_size, bos, eos;       /* -1: none */
    const char *tokenizer_sha256;
    const char *sha256;      /* of tokens, documents and spans: the identity of the content */
    const char *sources;     /* JSON text: [{"file", "sha256", "bytes", "documents"}] */
    bool sources_unchecked;  /* an older version wrote the file, without a hash of `sources` */
    const u64 *documents_at; /* [documents + 1] first token of each, then `tokens` */
};
/* Verifies what it reads, now and later. Open datasets may be read by several threads. */
struct dataset *dataset_open(const char *path, struct err *e);
void dataset_close(struct dataset *d);
const struct dataset_info *dataset_info(const struct dataset *d);
int dataset_check_tokenizer(const struct dataset *d, const char *tokenizer_sha256, i64 vocab_size,
                            struct err *e);
int dataset_read(struct dataset *d, i64 first, i64 count, u32 *out, struct err *e);
/* out [count]: 1 where the token may be a target, else 0. */
void dataset_trained(const struct dataset *d, i64 first, i64 count, u8 *out);
i64 dataset_document(const struct dataset *d, i64 token); /* the document that holds a token */

/* What counting alone scores on `valid`, in nats per target (trained tokens after the first of
 * their document): an add-one unigram model of `train`, and its bigram model interpolated with it,
 * at the best of a grid of weights (fitted on valid, so the comparison favours the baseline). */
struct ngram {
    double unigram, bigram, lambda; /* lambda: the weight of the bigram */
    i64 targets;
};
int dataset_ngram(struct dataset *train, struct dataset *valid, struct ngram *out, struct err *e);

/* ==== order and loader (order.c, loader.c, loader_sample.c, digest.c) ========================= */

/* A pseudorandom permutation of [0, count), computed by position. */
struct order {
    u64 count, seed;
    u32 epoch, stream, half_bits;
};
struct order order_new(u64 count, u64 seed, u32 epoch, u32 stream); /* epoch < 2^26 */
u64 order_at(const struct order *o, u64 sample);                    /* sample < count */

struct loader_config {
    struct dataset *const *datasets;
    i64 datasets_count;
    const double *weights; /* [datasets_count] shares; NULL: laid end to end, each epoch has all */
    bool packing;          /* samples are blocks of the token stream; else one document each */
    enum packing_strategy {
        PACKING_WRAPPED, /* the token stream is cut into blocks, wherever documents end */
        PACKING_BFD      /* whole documents, best-fit decreasing (loader_plan.c) */
    } packing_strategy;
    /* What becomes of a document with more than max_seq_length tokens, where none is cut anyhow */
    enum truncation {
        TRUNCATE_RIGHT, /* its first tokens are kept */
        TRUNCATE_LEFT,  /* its last */
        TRUNCATE_DROP,
        TRUNCATE_SPLIT, /* it becomes several */
        TRUNCATE_ERROR
    } truncation;
    bool trained_only; /* samples without a token to train are left out */
    bool last_block;   /* wrapped: the tokens after the last full block are a sample, too */
    /* A step does not reach over the end of an epoch: the last one has fewer samples, or,
     * drop_last, these are left out (transformers' Trainer). Without weights only. */
    bool epochs, drop_last;
    i64 rows;           /* not packing: documents that make a sample, 2: a pair; 0: 1 */
    bool document_mask; /* packing: attention, positions and targets stay within documents */
    bool shuffle;
    bool one_pass; /* evaluation: in order, every token once, the last step may be short */
    i64 max_seq_length, global_batch_size, micro_batch_size; /* tokens; samples; samples */
    u64 seed;
    int digest_version; /* 0: DIGEST_VERSION */
};
/* A micro-batch: samples laid end to end, each padded to a multiple of LOADER_PAD tokens. Padding
 * is documents of its own, of at most max_seq_length tokens: ids 0, targets -100. */
enum { LOADER_PAD = 32 };
struct batch {
    i64 samples, tokens, trained; /* trained: targets >= 0 */
    const i32 *ids;               /* [tokens] */
    const i32 *targets;  /* [tokens] next token; -100: not trained, last, masked: next document's */
    const i32 *position; /* [tokens] from 0 in the sample (masked: in the document) */
    const i32 *begin;    /* [tokens] attention sees [begin, last] of this micro-batch */
    const i32 *last;     /* [tokens] */
    const i32 *real;     /* [tokens] 0: padding */
};
struct
    sample_row { /* what a sample is made of: the block, the document, or each of its documents */
    i64 at, tokens, trained; /* first token in the step; without padding */
    i64 sample;              /* of the step, from 0 */
};
struct step_batches {
    i64 step, samples, tokens, trained; /* of the whole step */
    i64 count;                          /* of micro-batches, whose tokens are end to end */
    const struct batch *batch;
    const i32 *ids, *targets;     /* [tokens] of all of them */
    const struct sample_row *row; /* [rows] in their order */
    i64 rows;
    char digest[65]; /* of the samples, by README.md: the same for any micro_batch_size */
};
/* Digests of version 2: of one sample, whose rows lie in `ids` and `targets`; of a step's samples,
 * in their order. So each rank computes those of its samples, and any of them that of the step. */
int sample_digest(const i32 *ids, const i32 *targets, const struct sample_row *row, i64 rows,
                  char hex[65], struct err *e);
int batch_digest(const char (*sample)[65], i64 count, char hex[65], struct err *e);
struct loader;
struct loader_facts {                                 /* of a dataset */
    i64 documents, samples, cut, dropped, tokens_cut; /* cut: into pieces or at an end */
    i64 untrained, untrained_blocks; /* pieces of documents, blocks: without a token to train */
};
/* Step s takes global samples [s B, (s + 1) B), with `epochs` those of its epoch: a pure function
 * of the configuration and s. A thread prepares step s + 1 while s is in use. The datasets must
 * stay open; *out is good until the next call. */
struct loader *loader_open(const struct loader_config *c, struct err *e);
int loader_step(struct loader *l, i64 step, const struct step_batches **out, struct err *e);
i64 loader_samples(const struct loader *l); /* in one epoch */
i64 loader_steps(const struct loader *l);   /* in one epoch, rounded up, or drop_last */
/* Samples in the last step of an epoch; a full batch where steps know no epochs. */
i64 loader_last(const struct loader *l);
const struct loader_facts *loader_facts(const struct loader *l, i64 dataset);
void loader_close(struct loader *l);

#endif
