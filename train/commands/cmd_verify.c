/* cmd_verify.c: `hone verify RUN`: is this run what its files say?
 *
 *   files    every checkpoint's manifest: sizes and SHA-256 of files, and of tensors
 *   chain    each checkpoint names its parent; each log line the line before it
 *   order    the batch digests of the log are those of the data
 *   replay   steps computed again from a checkpoint on (verify_replay.c)
 *
 * What was found is appended to RUN/verify.jsonl, which the report shows. */
#include "train/commands/verify_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROW_OF struct verify_flags
static const struct option verify_options[] = {
    ROW(replay, OPT_BOOL, "false", 0, 0,
        "recompute steps from a checkpoint on and compare bits; without --from from one chosen at "
        "random"),
    ROW(seconds, OPT_FLOAT, "60", 0, 1e9,
        "replay at random: what it may take, by the step times in the log"),
    ROW(from, OPT_INT, "-1", -1, 1e18,
        "replay: the checkpoint's step to start at; -1: one chosen at random"),
    ROW(to, OPT_INT, "-1", -1, 1e18,
        "replay: the last step, with --from; -1: the next whose state was published"),
    ROW(count, OPT_INT, "1", 1, 1e6,
        "replay: so many segments, one after another, or so many random ones"),
    ROW(order_steps, OPT_INT, "16", 0, 1e9,
        "batch digests to recompute, spread over the run; 0: all"),
    ROW(deep, OPT_BOOL, "true", 0, 0, "hash every tensor too"),
    {0},
};
#undef ROW_OF

static int check_files(struct verification *v, bool deep, struct err *e) {
    i64 count = 0;
    char text[160], *path = mem_printf(e, "%s/log.jsonl", v->run);
    const int read = !path || checkpoint_verify_chain(v->run, deep, &count, e) ||
                     log_verify(path, e) || log_read(&v->log, path, e);
    mem_free(path);
    if (read) return -1;
    snprintf(text, sizeof text, "%lld checkpoints: files, %sparents as their manifests say",
             (long long)count, deep ? "tensors, " : "");
    if (verify_note(v, "files", text, e)) return -1;
    for (i64 i = 0; i < v->list.count; i++) {
        struct manifest m;
        char *folder = checkpoint_path(v->run, v->list.step[i], e);
        const struct log_row *row = row_of(v, v->list.step[i]);
        int rc = !folder || manifest_read(folder, &m, e);
        if (!rc && m.digest_version != v->log.digest_version)
            rc = err_failed(e, "%s has a digest of version %lld; the log has version %lld", folder,
                            (long long)m.digest_version, (long long)v->log.digest_version);
        if (!rc && (!row || !row->state || strcmp(row->state, m.state_sha256)))
            rc = err_failed(e,
                            "%s/log.jsonl: the log has another state digest for step %lld than the "
                            "checkpoint's "
                            "manifest",
                            v->run, (long long)v->list.step[i]);
        mem_free(folder);
        if (rc) return -1;
    }
    snprintf(text, sizeof text, "%lld log lines, each naming the one before",
             (long long)v->log.count);
    return verify_note(v, "chain", text, e);
}

static int check_order(struct verification *v, i64 most, struct err *e) {
    const i64 steps = last_step(v);
    i64 checked = 0;
    const i64 stride = most && steps > most ? steps / most : 1;
    for (i64 step = 1; step <= steps; step += stride, checked++) {
        const struct step_batches *s;
        const struct log_row *row = row_of(v, step);
        if (loader_step(v->t.loader, step - 1, &s, e)) return -1;
        if (!row || !row->batch)
            return err_failed(e, "%s: the log has no batch digest for step %lld", v->run,
                              (long long)step);
        if (strcmp(row->batch, s->digest))
            return err_failed(
                e, "%s: step %lld trained on other tokens than the recipe and the data give",
                v->run, (long long)step);
        progress_line("data order: step %lld of %lld", (long long)step, (long long)steps);
    }
    progress_end();
    char text[160];
    snprintf(text, sizeof text, "%lld of %lld batch digests recomputed from the data",
             (long long)checked, (long long)steps);
    return verify_note(v, "order", text, e);
}

static int cmd_verify(int argc, char **argv, struct err *e) {
    struct verify_flags f = {0};
    struct args a;
    struct verification v = {0};
    char lock[65];
    int rc = args_parse(&a, argc, argv, verify_options, &f, e) ||
             args_need(&a, 1, 1, "verify RUN [--replay]", e);
    if (!rc) {
        v.run = a.rest[0];
        char *path = mem_printf(e, "%s/log.jsonl", v.run);
        rc = path ? 0 : -1;
        const bool there = path && path_exists(path);
        mem_free(path);
        if (!rc && !there) {
            rc = err_input(e, "%s is not a run folder: it holds no log.jsonl", v.run);
            err_hint(e, "a run folder is what `hone train` leaves, such as runs/NAME");
        }
    }
    rc = rc || checkpoint_list(v.run, &v.list, e) || check_files(&v, f.deep, e);
    if (!rc && lock_read(&v.r, v.run, lock, e)) rc = -1;
    if (!rc && v.log.lock_sha256 && strcmp(lock, v.log.lock_sha256) && !quiet)
        printf(
            "note     recipe.lock changed since the log began (the run was resumed, or edited)\n");
    rc = rc || lock_carried(v.run, ERR_FAILED, e) ||
         trainer_open(
             &v.t, &v.r,
             &(struct trainer_opening){.run_dir = v.run, .digest_version = v.log.digest_version},
             e) ||
         check_order(&v, f.order_steps, e);
    if (!rc && f.replay) rc = verify_replay(&v, &f, e);
    trainer_close(&v.t), recipe_free(&v.r), log_rows_free(&v.log), mem_free(v.list.step),
        args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_verify = {
    "verify",
    "verify RUN [--replay]",
    "check a run's files, manifests, log and data order; recompute steps",
    cmd_verify,
    verify_options,
    NULL};
