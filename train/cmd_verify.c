/* cmd_verify.c: `hone verify RUN`: is this run what its files say?
 *
 *   files    every checkpoint's manifest: sizes and SHA-256 of files, and of tensors
 *   chain    each checkpoint names its parent; each log line the line before it
 *   order    the batch digests of the log are those of the data
 *   replay   from one checkpoint to the next, every step computed again: losses and the state's
 * SHA-256 must be the published ones, bit for bit, on any machine (NUMERICS.md, level R4)
 *
 * What was found is appended to RUN/verify.jsonl, which the report shows. */
#include "train/train.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct verify_flags {
    bool replay, deep;
    i64 from, count, order_steps;
};
#define ROW(key, type, otherwise, low, high, help)                                                 \
    { #key, type, offsetof(struct verify_flags, key), otherwise, low, high, NULL, help }
const struct option verify_options[] = {
    ROW(replay, OPT_BOOL, "false", 0, 0,
        "recompute the steps between two checkpoints and compare bits"),
    ROW(from, OPT_INT, "-1", -1, 1e18,
        "replay: the checkpoint's step to start at; -1: one chosen at random"),
    ROW(count, OPT_INT, "1", 1, 1e6, "replay: so many segments, one after another"),
    ROW(order_steps, OPT_INT, "16", 0, 1e9,
        "batch digests to recompute, spread over the run; 0: all"),
    ROW(deep, OPT_BOOL, "true", 0, 0, "hash every tensor too"),
    {0},
};
#undef ROW

struct verification {
    const char *run;
    struct recipe r;
    struct trainer t;
    struct log_rows log;
    struct checkpoint_list list;
};

static const struct log_row *row_of(const struct verification *v, i64 step) {
    for (i64 i = 0; i < v->log.count; i++)
        if (v->log.row[i].step == step && (v->log.row[i].trained || step == 0))
            return &v->log.row[i];
    return NULL;
}

static int note(const struct verification *v, const char *what, const char *result, struct err *e) {
    char path[4096], when[32];
    struct text line = {0};
    const time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &utc));
    snprintf(path, sizeof path, "%s/verify.jsonl", v->run);
    if (!quiet) printf("%-8s %s\n", what, result);
    fflush(stdout);
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
    int rc = fd < 0 ? err_system(e, "open", path) : 0;
    rc = rc ||
         text_printf(&line, e,
                     "{\"time\": \"%s\", \"check\": \"%s\", \"ok\": true, \"result\": ", when,
                     what) ||
         json_text_add(&line, result, (i64)strlen(result), e) ||
         text_printf(&line, e, ", \"isa\": \"%s\", \"threads\": %d}\n", isa_name[isa_now()],
                     pool_threads()) ||
         file_write_all(fd, line.data, line.size, path, e);
    if (fd >= 0) close(fd);
    text_free(&line);
    return rc ? -1 : 0;
}

static int check_files(struct verification *v, bool deep, struct err *e) {
    i64 count = 0;
    char path[4096], text[160];
    snprintf(path, sizeof path, "%s/log.jsonl", v->run);
    if (checkpoint_verify_chain(v->run, deep, &count, e) || log_verify(path, e) ||
        log_read(&v->log, path, e))
        return -1;
    snprintf(text, sizeof text, "%lld checkpoints: files, %sparents as their manifests say",
             (long long)count, deep ? "tensors, " : "");
    if (note(v, "files", text, e)) return -1;
    for (i64 i = 0; i < v->list.count; i++) {
        struct manifest m;
        char *folder = checkpoint_path(v->run, v->list.step[i], e);
        const struct log_row *row = row_of(v, v->list.step[i]);
        int rc = !folder || manifest_read(folder, &m, e);
        if (!rc && (!row || !row->state || strcmp(row->state, m.state_sha256)))
            rc = err_failed(
                e,
                "%s: the log has another state digest for step %lld than the checkpoint's manifest",
                path, (long long)v->list.step[i]);
        mem_free(folder);
        if (rc) return -1;
    }
    snprintf(text, sizeof text, "%lld log lines, each naming the one before",
             (long long)v->log.count);
    return note(v, "chain", text, e);
}

static int check_order(struct verification *v, i64 most, struct err *e) {
    i64 steps = 0, checked = 0;
    for (i64 i = 0; i < v->log.count; i++)
        steps = i64_max(steps, v->log.row[i].trained ? v->log.row[i].step : 0);
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
    return note(v, "order", text, e);
}

/* From checkpoint `at` of the list to the next. */
static int replay(struct verification *v, i64 at, struct err *e) {
    const i64 from = v->list.step[at], to = v->list.step[at + 1];
    struct manifest m;
    char *start = checkpoint_path(v->run, from, e), *end = checkpoint_path(v->run, to, e);
    int rc = !start || !end || manifest_read(end, &m, e) || trainer_load(&v->t, start, e);
    for (i64 step = from + 1; !rc && step <= to; step++) {
        struct step_result result;
        const struct log_row *row = row_of(v, step);
        rc = trainer_step(&v->t, &result, e);
        if (!rc && (!row || memcmp(&row->loss, &result.loss, 8) ||
                    memcmp(&row->grad_norm, &result.grad_norm, 8)))
            rc = err_failed(
                e, "replay: step %lld gives loss %a and gradient norm %a, the log says %a and %a",
                (long long)step, result.loss, result.grad_norm, row ? row->loss : 0,
                row ? row->grad_norm : 0);
        progress_line("replay: step %lld, %lld to %lld", (long long)step, (long long)from,
                      (long long)to);
    }
    progress_end();
    char digest[65], text[256];
    rc = rc || optimizer_digest(&v->t.optimizer, digest, e);
    if (!rc && strcmp(digest, m.state_sha256))
        rc = err_failed(e, "replay: the state after step %lld is %s, the published one %s",
                        (long long)to, digest, m.state_sha256);
    snprintf(text, sizeof text,
             "steps %lld to %lld computed again: state %.16s... equals the published one, losses "
             "bit for bit",
             (long long)from + 1, (long long)to, digest);
    mem_free(start), mem_free(end);
    return rc || note(v, "replay", text, e) ? -1 : 0;
}

static int replay_all(struct verification *v, const struct verify_flags *f, struct err *e) {
    if (v->list.count < 2)
        return err_input(e, "%s has %lld checkpoint%s; a replay needs two", v->run,
                         (long long)v->list.count, v->list.count == 1 ? "" : "s");
    const struct rng r = {(u64)time(NULL) ^ (u64)getpid() << 32, RNG_REPLAY, 0, 0};
    for (i64 k = 0; k < f->count; k++) {
        i64 at = (i64)(rng_uniform_f64(&r, (u64)k) * (double)(v->list.count - 1));
        if (f->from >= 0)
            for (at = 0; at < v->list.count - 1 && v->list.step[at] != f->from; at++) {
            }
        if (f->from >= 0) at += k;
        if (at >= v->list.count - 1)
            return err_input(e, "%s has no checkpoint of step %lld with one after it", v->run,
                             (long long)f->from);
        if (replay(v, at, e)) return -1;
    }
    return 0;
}

int cmd_verify(int argc, char **argv, struct err *e) {
    struct verify_flags f = {0};
    struct args a;
    struct verification v = {0};
    char lock[65];
    int rc = args_parse(&a, argc, argv, verify_options, &f, e) ||
             args_need(&a, 1, 1, "verify RUN [--replay]", e);
    if (!rc) {
        v.run = a.rest[0];
        char path[4096];
        snprintf(path, sizeof path, "%s/log.jsonl", v.run);
        if (!path_exists(path)) {
            rc = err_input(e, "%s is not a run folder: it holds no log.jsonl", v.run);
            err_hint(e, "a run folder is what `hone train` leaves, such as runs/NAME");
        }
    }
    rc = rc || checkpoint_list(v.run, &v.list, e) || check_files(&v, f.deep, e);
    if (!rc && lock_read(&v.r, v.run, lock, e)) rc = -1;
    if (!rc && v.log.lock_sha256 && strcmp(lock, v.log.lock_sha256) && !quiet)
        printf(
            "note     recipe.lock changed since the log began (the run was resumed, or edited)\n");
    rc = rc || lock_carried(v.run, ERR_FAILED, e) || trainer_open(&v.t, &v.r, v.run, e) ||
         check_order(&v, f.order_steps, e);
    if (!rc && f.replay) rc = replay_all(&v, &f, e);
    trainer_close(&v.t), recipe_free(&v.r), log_rows_free(&v.log), mem_free(v.list.step),
        args_free(&a);
    return rc ? -1 : 0;
}
