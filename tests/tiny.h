/* tiny.h: what the end-to-end tests share: a folder that goes away, the program run as a user runs
 * it, golden models as batches and graphs, and comparisons that say what differs. */
#ifndef HONE_TINY_H
#define HONE_TINY_H

#include "train/train.h"

#include <setjmp.h>
#include <cmocka.h>

/* Group setup and teardown: the folder, float mode, a pool of two threads. */
int tiny_open(void **state);
int tiny_close(void **state);
/* A path in the folder. Good for the next 32 calls. */
const char *tiny_path(const char *fmt, ...) PRINTF(1, 2);

/* ---- the program */
/* `./hone ARGUMENTS` through the shell. Returns its exit code, or 128 + the signal that ended it;
 * what it printed is in tiny_output. The checked form fails the test unless the code is 0. */
int hone(const char *fmt, ...) PRINTF(1, 2);
void hone_ok(const char *fmt, ...) PRINTF(1, 2);
extern struct text tiny_output;
/* The same in the background, its output dropped; tiny_wait returns as hone does. */
int tiny_start(const char *fmt, ...) PRINTF(1, 2);
int tiny_wait(int pid);
void tiny_sh(const char *fmt, ...) PRINTF(1, 2); /* any shell command; it must succeed */

/* ---- runs */
/* SHA-256 of the manifest of checkpoint `step` of run NAME of the folder: it names every byte of
 * the weights, of the optimizer state and of the checkpoints before. The text lives for 32 calls.
 */
const char *tiny_manifest(const char *run, i64 step);
/* Losses, gradient norms, batch and state digests of both logs are the same bits, row by row. */
void tiny_same_logs(const char *run, const char *other);
void tiny_fail_unless(int rc, const struct err *e); /* prints the error */

/* ---- golden models in the process */
struct tiny_batch { /* rows of T tokens, one after another, as the graph takes them */
    i64 rows, length, tokens, trained;
    i32 *ids, *targets, *position, *begin, *last;
    float scale; /* 1 / trained */
    struct arena arena;
};
/* ids [rows, T]; labels as transformers takes them, or NULL: the ids. */
void tiny_batch_of(struct tiny_batch *b, const struct stored *ids, const struct stored *labels);
void tiny_batch_free(struct tiny_batch *b);

struct tiny_graph { /* a loss over a batch; graph_run fills it */
    struct graph *g;
    struct build build;
    struct tensor *loss;
};
struct tiny_options {
    bool backward, recompute, eager;
};
void tiny_graph_new(struct tiny_graph *t, struct model *m, const struct tiny_batch *b,
                    struct tiny_options o);
double tiny_loss(struct tiny_graph *t, const struct tiny_batch *b); /* mean over trained tokens */

#endif
