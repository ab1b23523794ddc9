/* check.h: what a recipe would do, found out before it does it. */
#ifndef HONE_CHECK_H
#define HONE_CHECK_H

#include <jansson.h>
#include "train/loop/loop.h"

/* ---- what was found, to be printed as text, JSON or a page (findings.c, print.c, page.c) */
enum finding { FINE, NOTE, WASTE /* the run would be wasted */ };
struct findings { /* findings_free */
    /* {"sections": [{"title", "rows": [{"label", "value", "level"}],
     *   "lengths": [{"to", "count"}] (if any)}],
     *  "samples": [{"title", "runs": [{"text", "trained"}]}],
     *  "suggestions": [{"line": "key: value", "why"}]} */
    json_t *all;
    i64 wasted;
};
int findings_open(struct findings *f, struct err *e);
void findings_free(struct findings *f);
json_t *findings_section(struct findings *f, const char *fmt, ...) PRINTF(2, 3); /* the last one */
void findings_row(struct findings *f, enum finding level, const char *label, const char *fmt, ...)
    PRINTF(4, 5);
void findings_suggest(struct findings *f, const char *line, const char *fmt, ...) PRINTF(3, 4);
void findings_print(const struct findings *f, FILE *to);
int findings_page(const struct findings *f, const char *path, struct err *e); /* HTML */

/* ---- the tokens of a dataset (facts.c) */
enum { LENGTH_BINS = 26, STOPS = 4 };
struct stops { /* ids that end an answer */
    u32 id[STOPS];
    int count;
    i64 bos, eos;
};
void stops_of(struct stops *s, const struct trainer *t);
struct facts {
    i64 documents, tokens, trained, shortest, median, longest;
    i64 bin[LENGTH_BINS];          /* documents of more than 2^(k - 1) and at most 2^k tokens */
    i64 read;                      /* documents whose tokens were looked at, for what follows */
    i64 answers, stopped, doubled; /* runs of trained tokens; those with a stop; documents with two
                                      bos or eos in a row */
};
/* Fingerprints of documents: all, or, where they are many, those whose low bits are zero. */
struct prints { /* zero-initialise; mem_free the items */
    u64 *item;
    i64 count, room, all; /* all: documents that they stand for */
    u64 mask;
};
/* most: so many documents are read; 0: all. `prints` may be NULL. */
int facts_of(struct dataset *d, const struct stops *s, i64 most, struct facts *f,
             struct prints *prints, struct err *e);
/* How many are copies of an earlier one; how many are among those of `a`, too; in shares. */
double prints_copies(struct prints *p);
double prints_among(const struct prints *p, struct prints *a);

/* ---- parts of `hone check` */
/* Datasets are open; the rest may not be (data.c). */
int check_data(struct findings *f, struct trainer *t, struct err *e);
int check_samples(struct findings *f, struct trainer *t, struct err *e);
/* Memory, disk, time (cost.c); `out`: where the run's folder will be. */
int check_cost(struct findings *f, struct trainer *t, const char *out, struct err *e);
/* Each document of the first step alone has the losses that it has packed (proof.c); any split of
 * the first step gives the same state. */
int check_packing(struct findings *f, struct trainer *t, struct err *e);
int check_accumulation(struct findings *f, const struct recipe *r, const char *run_dir,
                       struct text *notes, struct err *e);
/* A few lines on what is about to be trained on, of the first documents. */
int check_shortly(struct trainer *t, struct err *e);

#endif
