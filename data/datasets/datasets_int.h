/* dataset_int.h: what the files of sources, datasets and the loader share with each other only. */
#ifndef HONE_DATASET_INT_H
#define HONE_DATASET_INT_H

#include "data/datasets/datasets.h"
#include "base/h5.h"

/* ---- form.c */
enum source_form source_form_named(const char *type); /* as `type` of the options */

/* ---- rows.c: what a row of JSON means -------------------------------------------------------- */
struct rows { /* of one source. Set options, facts and path, the rest zero; rows_free */
    const struct source_options *options;
    struct source_facts *facts;
    const char *path;
    json_t *json;     /* the row, as long as it has more to give */
    i64 number, line; /* of the row: rows from 0, lines from 1 */
    bool inexact;     /* it holds an integer that is read as a real */
    size_t instance;  /* the next one of several */
    struct text made; /* the text of a document put together from JSON */
    struct spans spans;
    struct row_notes notes;
    bool fatal; /* what is wrong is not the row */
    struct message_parts parts;
};
/* The next row, an object, which is now `rows`' own. */
void rows_take(struct rows *r, json_t *row, i64 number, i64 line, bool inexact);
/* 1: a document, good until the next call; 0: the row has no more, take another; -1: an error,
 * which names file and line. */
int rows_next(struct rows *r, struct document *out, struct err *e);
/* Is an error of one row to be left out and counted? Then it is, and `e` is clean. */
bool rows_skip(struct rows *r, i64 line, struct err *e);
void rows_free(struct rows *r);
/* rows_prompts.c: the text of a row in `out`, the size of its prompt; 1: the column `wrong` is not
 * there or no text. Does it use a column of that name? */
int prompt_style_made(const struct prompt_style *s, const json_t *row, struct text *out,
                      i64 *prompt, const char **wrong, struct err *e);
bool prompt_style_uses(const struct prompt_style *s, const char *key);
/* rows_columns.c */
/* A column of `columns` that no row of `path` had is a slip of the pen. */
int row_columns_had(const struct row_notes *n, const json_t *columns, const char *path,
                    struct err *e);
const char *row_column_ours(const json_t *columns, const char *name);
const char *row_column_theirs(const struct rows *r, const char *ours); /* as the file has it */
json_t *rows_renamed(struct rows *r, json_t *row); /* by our names for columns; a new reference */
void rows_columns_hint(const struct rows *r, struct err *e); /* how they may be meant */
/* A row of answers to choose between, or of one that is not wanted: an error. `own`: the columns
 * that it could be used by; `answered`: a label is about the answer. */
int rows_compared(const struct rows *r, const char *own, bool answered, struct err *e);
int rows_wanted(const json_t *label);
/* Do an object's keys make it a row, whatever they hold? (rows.c) */
bool rows_is_row(const struct row_rules *rules, const json_t *keys);
int rows_ids(struct rows *r, struct document *out, struct err *e); /* rows_ids.c: 1 or -1 */

/* ---- encoder.c ------------------------------------------------------------------------------- */
/* What `prefixes` of an encoder gives, with any: each beginning is encoded from its start. */
int encoder_prefixes(const struct encoder *c, const char *text, const struct ids *all,
                     struct beginning *list, i64 count, struct err *e);
/* Does no eos follow? Not where a text ends with it, and a conversation, with another special
 * token: templates write their own. */
bool encoder_ended(const struct encoder *c, const struct ids *ids, bool conversation);
/* Are the markers of a built-in template tokens? If not, the error lists those that are none. */
int markers_check(const struct encoder *c, const struct chat *chat, struct err *e);

/* Notes how many documents of `path` job->min_tokens and job->seen left out, if any. */
int left_out_note(const struct dataset_job *job, const char *path, i64 few, i64 twice,
                  struct err *e);

/* ---- dataset_seen.c -------------------------------------------------------------------------- */
struct mark {                             /* how far a file was before a document */
    i64 count, pending, documents, spans; /* tokens; bytes */
    u64 last;                             /* end of the last span */
    bool masked;
};
/* The document whose ids and spans (of tokens of the file) are what follows the mark: 1: there was
 * one like it, 0: it is new, -1: an error. */
int seen_document(struct seen *s, const struct text *ids, const struct text *spans,
                  const struct mark *m, struct err *e);

/* ---- dataset_record.c ------------------------------------------------------------------------ */
/* Appends what a dataset records of a source: enough to find it again and to take the same part of
 * it. `to` is a JSON list that has begun. */
int source_record(struct text *to, const char *name, const struct source_options *o,
                  const struct source_facts *f, struct err *e);
/* Appends what was read of one of several files, for the user. */
int source_note(struct text *to, const char *name, const struct source_facts *f, struct err *e);

/* ---- dataset_piece.c ------------------------------------------------------------------------- */
struct piece { /* of a batch of the writer's: one document */
    i64 at;
    struct document document;
    struct ids ids;
    i64 border;         /* ids of the first segment */
    i64 span_at;        /* of a conversation: its first span in the batch's, which are bytes */
    struct spans spans; /* the same as ranges of ids */
    struct message_part *part; /* of a conversation that is probed, its own */
    i64 parts;
    bool probed, apart;
};
/* The ids, border and spans of a piece, whose document is set; `batch`, `span`: of all pieces.
 * Threads may encode different pieces. */
int piece_encode(const struct dataset_job *job, struct piece *p, const char *batch,
                 const struct span *span, struct err *e);
void piece_count(struct dataset_probe *to, const struct piece *p); /* one that was probed */
void piece_free(struct piece *p);

/* ---- dataset_probe.c ------------------------------------------------------------------------- */
/* Would `prompt` bytes of a text and the rest, encoded alone, have other ids than `all`? */
int probe_apart(const struct encoder *c, const char *text, i64 prompt, i64 size,
                const struct ids *all, bool *apart, struct err *e);
/* The parts of a conversation as ranges of ids, ascending. */
int probe_parts(const struct encoder *c, const char *text, i64 size, const struct ids *all,
                struct message_part *part, i64 parts, struct err *e);
/* Counts a document of so many ids. */
void probe_conversation(struct dataset_probe *p, i64 ids, const struct message_part *part,
                        i64 parts, const struct spans *trained);
void probe_text(struct dataset_probe *p, i64 ids, i64 border, const struct document *d);

/* ---- dataset.c ------------------------------------------------------------------------------- */
enum {
    DATASET_CHUNK = 256 << 10, /* bytes of tokens per chunk; README.md has the sizes tried */
    DATASET_LEVEL = 9,
    DATASET_HASH = 16,    /* bytes kept of each chunk's SHA-256 */
    DATASET_PIPELINE = 1, /* raised when older files would be misread; what tokens mean: recipes */
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
