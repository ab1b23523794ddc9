/* log.h: the log with its hash chain, TensorBoard event files, and the report. Each format is
 * specified at the head of the file that owns it (log.c, tensorboard.c, report.c). */
#ifndef HONE_LOG_H
#define HONE_LOG_H

#include "base/base.h"

/* ---- log (log.c): runs/NAME/log.jsonl, and log.csv and tensorboard/ derived from it ---------- */
/* Metrics are what an objective reports of a step beside its loss, by name: a column of log.jsonl
 * and log.csv, the tag train/NAME of TensorBoard, a chart of the report. Names are of lower case
 * letters, digits and '_', and none that a line has already. */
enum { LOG_METRICS = 8 };
struct log_row {
    i64 step;   /* optimizer steps done: the first update gives 1; 0 may carry the evaluation before
                   it */
    i64 tokens; /* trained so far */
    bool trained, evaluated, balanced;
    double loss, lr, grad_norm; /* where trained; loss: mean over the step's trained tokens, nats */
    double eval_loss;           /* where evaluated; nats a token */
    double aux_loss;            /* where balanced: of a mixture; `loss` has it, times its factor */
    double metric[LOG_METRICS]; /* where trained: those of the log, in their order */
    const char *batch, *state;  /* SHA-256 in hex: of the step's token ids; of the state after it;
                                   NULL if not taken */
    double seconds; /* wall time since the run began, without the time between stop and resume */
    double tokens_per_second;
    i64 peak_bytes; /* peak resident memory so far */
};
struct log_start {
    const char *run_dir, *run_id;
    const char *lock_sha256;
    i64 digest_version; /* of `batch` and `state`; 0: DIGEST_VERSION. That of a log that goes on */
    i64 resume_step; /* -1: a new run; 0: from the start; else the step of the checkpoint that goes
                        on */
    const char *const *metrics; /* columns of a new log, ends with NULL; NULL: none */
    bool csv, tensorboard;      /* report_to */
    double time;                /* seconds since 1970, stamped on event files */
};
struct log;
struct log_rows { /* zero-initialise; log_rows_free */
    struct log_row *row;
    i64 count;
    const char *run_id, *lock_sha256; /* of the header line */
    i64 digest_version;               /* too */
    const char *metric[LOG_METRICS];  /* too: the names */
    i64 metrics;
    char head[65]; /* SHA-256 of the last line */
    i64 bytes;     /* of whole lines; what follows in the file was torn off by a crash */
    struct arena arena;
};
struct log *log_open(const struct log_start *start, struct err *e);
int log_step(struct log *log, const struct log_row *row, struct err *e);
int log_sync(struct log *log, struct err *e);  /* to the disk: before a checkpoint is published */
int log_close(struct log *log, struct err *e); /* frees in any case */
int log_read(struct log_rows *rows, const char *path, struct err *e);
/* Follows the hash chain; the error names the first bad line. A torn last line is an error here. */
int log_verify(const char *path, struct err *e);
/* Whether a run can go on from `step` with the log it has. */
int log_check(const char *run_dir, i64 step, struct err *e);
void log_rows_free(struct log_rows *rows);

/* ---- TensorBoard event files (tensorboard.c) ------------------------------------------------- */
struct tb;
struct tb_scalar {
    const char *tag;
    double value;
};
struct tb *tb_open(const char *dir, double time,
                   struct err *e); /* creates `dir` and a new event file in it */
int tb_scalars(struct tb *tb, double time, i64 step, const struct tb_scalar *scalar, i64 count,
               struct err *e);
int tb_close(struct tb *tb, struct err *e); /* frees in any case */

/* ---- report (report.c, report_parts.c, report/) ---------------------------------------------- */
/* One self-contained HTML page of one run, or of several side by side. Charts by Chart.js, inlined
 * from the Debian package libjs-chart.js. */
int report_write(char *const *run_dirs, i64 count, const char *out_path, struct err *e);

#endif
