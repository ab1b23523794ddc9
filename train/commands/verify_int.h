/* verify_int.h: what the files of `hone verify` share. */
#ifndef HONE_VERIFY_INT_H
#define HONE_VERIFY_INT_H

#include "train/commands/commands.h"

struct verify_flags {
    bool replay, deep;
    double seconds;
    i64 from, to, count, order_steps;
};
struct verification {
    const char *run;
    struct recipe r;
    struct trainer t;
    struct log_rows log;
    struct checkpoint_list list;
};

/* The log's line of a trained step, or of the state before the first; NULL: there is none. */
const struct log_row *row_of(const struct verification *v, i64 step);
i64 last_step(const struct verification *v); /* that the log has trained */
/* A result, on standard output and in RUN/verify.jsonl. */
int verify_note(const struct verification *v, const char *what, const char *result, struct err *e);
int verify_replay(struct verification *v, const struct verify_flags *f, struct err *e);

#endif
