/* cost.c: what a run would take: memory, disk, and time from a measured micro-batch. */
#include "train/check/check.h"

#include <string.h>

/* "1.5 GiB" */
static const char *bytes_text(i64 bytes) {
    static _Thread_local char ring[8][32];
    static _Thread_local int turn;
    char *to = ring[turn++ % COUNT(ring)];
    const double mib = (double)bytes / (1 << 20);
    if (mib < 1024)
        snprintf(to, sizeof *ring, "%.1f MiB", mib);
    else
        snprintf(to, sizeof *ring, "%.1f GiB", mib / 1024);
    return to;
}

static const char *time_text(double seconds) {
    static _Thread_local char ring[4][32];
    static _Thread_local int turn;
    char *to = ring[turn++ % COUNT(ring)];
    const long long s = (long long)(seconds + 0.5);
    if (s < 1)
        snprintf(to, sizeof *ring, "%.2f s", seconds);
    else if (s < 120)
        snprintf(to, sizeof *ring, "%lld s", s);
    else if (s < 86400)
        snprintf(to, sizeof *ring, "%lld:%02lld h", s / 3600, s / 60 % 60);
    else
        snprintf(to, sizeof *ring, "%lld days %lld h", s / 86400, s / 3600 % 24);
    return to;
}

/* ---- memory */

/* Does it fit? 1, 0 (and a finding says so), or -1. */
static int memory_rows(struct findings *f, struct trainer *t, struct err *e) {
    struct trainer_bytes b;
    const i64 micro = trainer_micro_batch(t->r);
    if (trainer_bytes(t, true, &b, e)) return -1;
    const i64 step = i64_max(b.step, b.eval);
    const bool fits = step <= b.left;
    char line[64];
    findings_row(f, FINE, "weights", "%s: %.2f M parameters, %.2f M trained", bytes_text(b.weights),
                 (double)model_count(&t->model, false) / 1e6,
                 (double)model_count(&t->model, true) / 1e6);
    findings_row(f, FINE, "gradients", "%s", bytes_text(b.gradients));
    findings_row(f, FINE, "optimizer", "%s (%s)", bytes_text(b.optimizer), t->r->optim);
    findings_row(f, FINE, "activations", "%s in a step%s%s, at most %lld samples at once",
                 bytes_text(b.step), b.eval ? ", in an evaluation " : "",
                 b.eval ? bytes_text(b.eval) : "", (long long)samples_at_once(t, micro));
    findings_row(f, fits ? FINE : WASTE, "memory", "%s in all, and %s are there%s",
                 bytes_text(b.weights + b.gradients + b.optimizer + step),
                 bytes_text(b.weights + b.gradients + b.optimizer + b.left),
                 fits ? "" : ": the run could not begin");
    if (b.fits >= t->r->global_batch_size / t->r->reduction_groups)
        findings_row(f, FINE, "micro-batch",
                     "all %lld samples of a %s fit at once (the bits are the "
                     "same for any)",
                     (long long)b.fits, t->r->reduction_groups > 1 ? "reduction group" : "step");
    else if (b.fits)
        findings_row(f, FINE, "micro-batch",
                     "%lld samples fit at once (the bits are the same for "
                     "any)",
                     (long long)b.fits);
    if (fits) return 1;
    snprintf(line, sizeof line, "micro_batch_size: %lld", (long long)b.fits);
    if (b.fits)
        findings_suggest(f, line, "fits, and gives the same bits");
    else
        findings_suggest(f, "gradient_checkpointing: true",
                         "less memory, the same bits, more time");
    return 0;
}

/* ---- disk */

/* What is free where a folder will be. */
static i64 free_at(const char *folder, struct err *e) {
    char *path = mem_text(folder, e);
    if (!path) return -1;
    while (!path_is_dir(path)) {
        char *slash = strrchr(path, '/');
        if (slash && slash != path)
            *slash = 0;
        else
            strcpy(path, slash ? "/" : ".");
    }
    const i64 bytes = disk_free(path);
    return mem_free(path), bytes;
}

static int disk_rows(struct findings *f, const struct trainer *t, const char *out, struct err *e) {
    const struct recipe *r = t->r;
    const i64 one = trainer_checkpoint_bytes(t, e), left = free_at(out, e),
              limit = r->save_total_limit;
    i64 count = 0, data = 0;
    char line[64];
    if (one < 0 || left < 0) return -1;
    for (i64 i = 0; i <= t->total_steps; i++) count += save_at(t, i);
    const i64 kept = limit > 0 ? i64_min(count, limit + 1) : count; /* one is being written */
    for (i64 i = 0; i < r->dataset.count; i++)
        if (!ends_with(r->dataset.item[i].path, ".h5"))
            data += i64_max(0, path_size(dataset_info(t->dataset[i])->path));
    const bool fits = data + kept * one <= left;
    findings_row(f, FINE, "checkpoint", "%s each, %lld at once: %s", bytes_text(one),
                 (long long)kept, bytes_text(kept * one));
    findings_row(f, fits ? FINE : WASTE, "disk", "%s with the tokenised data, and %s are free%s",
                 bytes_text(data + kept * one), bytes_text(left),
                 fits ? "" : ": the disk would be full before the end");
    const i64 most = (left - data) / one - 1;
    snprintf(line, sizeof line, "save_total_limit: %lld", (long long)most);
    if (!fits && most > 0)
        findings_suggest(f, line, "so many fit");
    else if (!fits && !r->save_only_model)
        findings_suggest(f, "save_only_model: true", "without the optimizer's state");
    return 0;
}

/* ---- time */

/* Real tokens of a step, on average over some. */
static int step_tokens(struct trainer *t, double *mean, struct err *e) {
    const i64 steps = i64_min(4, t->total_steps), stride = t->total_steps / steps;
    double sum = 0;
    for (i64 i = 0; i < steps; i++) {
        const struct step_batches *s;
        if (loader_step(t->loader, i * stride, &s, e)) return -1;
        for (i64 k = 0; k < s->rows; k++) sum += (double)s->row[k].tokens;
    }
    *mean = sum / (double)steps;
    return 0;
}

/* Seconds of a micro-batch: the least of a few, of which the first makes plans. */
static int micro_seconds(struct trainer *t, i64 *tokens, double *seconds, struct err *e) {
    *seconds = 1e30;
    for (double all = 0, now; all < 8; all += now) {
        const double begin = clock_seconds();
        if (trainer_try(t, tokens, e)) return -1;
        now = clock_seconds() - begin;
        const bool first = all == 0;
        if (*seconds > now) *seconds = now;
        if (!first && all > 3) break;
    }
    return 0;
}

static int eval_seconds(struct trainer *t, double *seconds, struct err *e) {
    const struct step_batches *s;
    i64 steps = t->eval_loader ? loader_steps(t->eval_loader) : 0, evals = 0;
    *seconds = 0;
    for (i64 i = 0; i <= t->total_steps; i++) evals += eval_at(t, i);
    if (!steps || !evals) return 0;
    if (t->r->eval_batches) steps = i64_min(steps, t->r->eval_batches);
    for (int i = 0; i < 2; i++) {
        const double begin = clock_seconds();
        if (loader_step(t->eval_loader, 0, &s, e) ||
            !trainer_run(t, &s->batch[0], USE_EVAL, NULL, 0, NULL, e))
            return -1;
        *seconds = clock_seconds() - begin;
    }
    *seconds *= (double)(steps * s->count) * (double)evals;
    return 0;
}

static int time_rows(struct findings *f, struct trainer *t, struct err *e) {
    double micro, mean, eval, norm;
    i64 tokens;
    struct err unused = {0};
    if (step_tokens(t, &mean, e) || micro_seconds(t, &tokens, &micro, e) ||
        eval_seconds(t, &eval, e))
        return -1;
    const double begin = clock_seconds();
    optimizer_update(&t->optimizer, t->r->reduction_groups, 0, &norm, &unused);
    const double update = clock_seconds() - begin,
                 step = micro * mean / (double)i64_max(tokens, 1) + update,
                 all = step * (double)t->total_steps + eval;
    findings_row(f, FINE, "a step", "%s: %.0f tokens of which %.0f a second, update %s",
                 time_text(step), mean, mean / step, time_text(update));
    findings_row(f, FINE, "the run",
                 "about %s, of which evaluations %s (measured with random "
                 "weights, %d thread%s)",
                 time_text(all), time_text(eval), pool_threads(), pool_threads() == 1 ? "" : "s");
    return 0;
}

int check_cost(struct findings *f, struct trainer *t, const char *out, struct err *e) {
    findings_section(f, "what it takes");
    const int fits = memory_rows(f, t, e);
    if (fits < 0 || disk_rows(f, t, out, e)) return -1;
    return fits ? time_rows(f, t, e) : 0;
}
