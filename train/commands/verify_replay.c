/* verify_replay.c: steps of a run computed again. Losses, gradient norms and, where it was
 * published, the SHA-256 of the state must be those of the log, bit for bit, on any machine
 * (NUMERICS.md, level R4).
 *
 * A segment goes from a checkpoint to the next step whose state the log has. Which one is checked
 * is drawn at random among those that a budget of seconds allows. Where it allows none, the first
 * steps of one are: their losses and gradient norms depend on all weights, but the state behind
 * them was not published, so the result says that it was not compared. */
#include "train/commands/verify_int.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

struct stretch {
    i64 from, to;   /* steps from + 1 to `to` */
    double seconds; /* by the log */
};

/* A step alone, without the evaluations and checkpoints between two lines. */
static double step_seconds(const struct verification *v, const struct log_row *row) {
    const struct log_row *before = row > v->log.row ? row - 1 : NULL;
    const double tokens = (double)(row->tokens - (before ? before->tokens : 0));
    return row->tokens_per_second > 0 ? tokens / row->tokens_per_second : 0;
}

/* From a checkpoint to the next published state; false: there is none. */
static bool segment_from(const struct verification *v, i64 from, struct stretch *s) {
    const struct log_row *row = row_of(v, from), *end = v->log.row + v->log.count;
    *s = (struct stretch){.from = from, .to = from};
    if (!row) return false;
    for (row++; row < end; row++) {
        if (row->trained) s->seconds += step_seconds(v, row);
        if (row->trained && row->state) return s->to = row->step, true;
    }
    return false;
}

/* The first steps of it that take no more than `seconds`; one at least. */
static struct stretch segment_part(const struct verification *v, struct stretch s, double seconds) {
    struct stretch part = {.from = s.from, .to = s.from};
    for (i64 step = s.from + 1; step <= s.to; step++) {
        const struct log_row *row = row_of(v, step);
        const double more = row ? step_seconds(v, row) : 0;
        if (part.to > part.from && part.seconds + more > seconds) break;
        part.to = step, part.seconds += more;
    }
    return part;
}

static int state_compare(struct verification *v, i64 step, const char *published, char digest[65],
                         struct err *e) {
    if (optimizer_digest(&v->t.optimizer, v->t.digest_version, digest, e)) return -1;
    if (!strcmp(digest, published)) return 0;
    return err_failed(e, "replay: the state after step %lld is %s, the published one %s",
                      (long long)step, digest, published);
}

static int step_compare(struct verification *v, i64 step, const struct log_row *row,
                        struct err *e) {
    struct step_result result;
    if (trainer_step(&v->t, &result, e)) return -1;
    const bool same = row && !memcmp(&row->loss, &result.loss, 8) &&
                      !memcmp(&row->grad_norm, &result.grad_norm, 8);
    for (i64 i = 0; same && i < v->log.metrics; i++)
        if (memcmp(&row->metric[i], &result.metric[i], 8))
            return err_failed(e, "replay: step %lld gives %s %a, the log says %a", (long long)step,
                              v->log.metric[i], result.metric[i], row->metric[i]);
    if (same) return 0;
    return err_failed(
        e, "replay: step %lld gives loss %a and gradient norm %a, the log says %a and %a",
        (long long)step, result.loss, result.grad_norm, row ? row->loss : 0,
        row ? row->grad_norm : 0);
}

static int decimals(double x) { return x < 1 ? 2 : x < 10 ? 1 : 0; }

/* How much of the run that is, before it begins. */
static void segment_say(const struct verification *v, const struct stretch *s) {
    const i64 steps = s->to - s->from, all = last_step(v);
    const double percent = 100 * (double)steps / (double)i64_max(all, 1);
    if (quiet) return;
    printf("%-8s steps %lld to %lld: %lld of %lld steps, %.*f %% of the run; estimated %.*f s\n",
           "segment", (long long)s->from + 1, (long long)s->to, (long long)steps, (long long)all,
           decimals(percent), percent, decimals(s->seconds), s->seconds);
    fflush(stdout);
}

static int replay(struct verification *v, const struct stretch *s, struct err *e) {
    char digest[65] = "", text[320], *start = checkpoint_path(v->run, s->from, e);
    segment_say(v, s);
    progress_line("replay: reading the checkpoint of step %lld", (long long)s->from);
    const double begin = clock_seconds();
    int rc = !start || trainer_load(&v->t, start, e);
    for (i64 step = s->from + 1; !rc && step <= s->to; step++) {
        const struct log_row *row = row_of(v, step);
        progress_line("replay: step %lld, %lld to %lld, %.0f s so far", (long long)step,
                      (long long)s->from + 1, (long long)s->to, clock_seconds() - begin);
        digest[0] = 0;
        rc = step_compare(v, step, row, e) ||
             (row->state && state_compare(v, step, row->state, digest, e));
    }
    progress_end();
    mem_free(start);
    if (rc) return -1;
    const int n =
        snprintf(text, sizeof text, "steps %lld to %lld computed again: ", (long long)s->from + 1,
                 (long long)s->to);
    if (digest[0])
        snprintf(text + n, sizeof text - (size_t)n,
                 "state %.16s... equals the published one, losses bit for bit", digest);
    else
        snprintf(text + n, sizeof text - (size_t)n,
                 "losses and gradient norms bit for bit; no state was published for step %lld, so "
                 "it was not compared",
                 (long long)s->to);
    return verify_note(v, "replay", text, e);
}

/* ---- which ----------------------------------------------------------------------------------- */

static int segment_missing(const struct verification *v, i64 from, struct err *e) {
    if (from >= 0)
        return err_input(e, "%s has no checkpoint of step %lld with one after it", v->run,
                         (long long)from);
    return err_input(e, "%s has %lld checkpoint%s; a replay needs two", v->run,
                     (long long)v->list.count, v->list.count == 1 ? "" : "s");
}

/* The k-th after --from. */
static int segment_named(const struct verification *v, const struct verify_flags *f, i64 k,
                         struct stretch *s, struct err *e) {
    i64 at = 0;
    while (at < v->list.count && v->list.step[at] != f->from) at++;
    if ((at += k) >= v->list.count) return segment_missing(v, f->from, e);
    const bool ends = segment_from(v, v->list.step[at], s);
    if (f->to < 0) return ends ? 0 : segment_missing(v, f->from, e);
    if (f->to <= s->from || !row_of(v, f->to)) {
        err_input(e, "--to %lld: the log of %s has no such step after step %lld", (long long)f->to,
                  v->run, (long long)s->from);
        return err_detail(e, "expected a step from %lld to %lld", (long long)s->from + 1,
                          (long long)last_step(v));
    }
    *s = segment_part(v, (struct stretch){.from = s->from, .to = f->to}, 1e300);
    return 0;
}

static int segment_draw(const struct verification *v, double seconds, double chance,
                        struct stretch *s, struct err *e) {
    i64 all = 0, fit = 0;
    for (i64 pass = 0; pass < 2; pass++) { /* counts, then takes the drawn one */
        const i64 among = fit ? fit : all;
        i64 left = pass ? i64_min((i64)(chance * (double)among), among - 1) : -1;
        for (i64 i = 0; i < v->list.count; i++) {
            if (!segment_from(v, v->list.step[i], s)) continue;
            const bool fits = s->seconds <= seconds;
            if (!pass) all++, fit += fits;
            if (pass && (fits || !fit) && !left--) {
                if (!fits) *s = segment_part(v, *s, seconds);
                return 0;
            }
        }
        if (!all) return segment_missing(v, -1, e);
    }
    return segment_missing(v, -1, e);
}

int verify_replay(struct verification *v, const struct verify_flags *f, struct err *e) {
    const struct rng r = {(u64)time(NULL) ^ (u64)getpid() << 32, RNG_REPLAY, 0, 0};
    if (f->to >= 0 && (f->from < 0 || f->count > 1))
        return err_input(e, "--to belongs to one segment that starts at --from");
    for (i64 k = 0; k < f->count; k++) {
        struct stretch s;
        if (f->from >= 0 ? segment_named(v, f, k, &s, e)
                         : segment_draw(v, f->seconds, rng_uniform_f64(&r, (u64)k), &s, e))
            return -1;
        if (replay(v, &s, e)) return -1;
    }
    return 0;
}
