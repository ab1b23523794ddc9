/* worker.c: the thread that owns the engines. Requests' threads hand it texts and wait for news of
 * them; it lets in as many as there is room for, in the order in which they came, and steps while
 * there is work. What a text's ids mean (stop texts, characters) is their threads' business: here
 * are ids alone, so that a step waits for nobody.
 *
 * With an adapter there are two engines over the same weights, one of which leaves the adapter out:
 * base and adapter side by side cost no memory but that of their states.
 *
 * A step that fails (no memory, a device) has computed nothing that counts: the text that came last
 * is refused, the others begin again from the ids that they have, which gives the same bits. */
#include "train/serve/serve_int.h"

#include <string.h>
#include <time.h>

/* ---- what the engine tells, on its own thread ---- */

static void news(struct job *j) {
    j->changes++;
    pthread_cond_broadcast(&j->news);
}

struct told_to { /* the worker and the part: a sequence has one argument */
    struct worker *w;
    struct part *p;
};

static void score_own(struct part *p, u32 id) {
    struct scores *s = &p->scores;
    if (s->count) s->own[s->count - 1] = (double)p->logits[id] - p->norm;
}

static void tell_logits(void *arg, i64 place, const float *logits) {
    struct told_to *t = arg;
    struct part *p = t->p;
    const i64 vocab = t->w->model->config.vocab_size;
    p->logits = logits, p->norm = scores_norm(logits, vocab);
    pthread_mutex_lock(&t->w->lock);
    if (!p->err.code) scores_add(&p->scores, logits, vocab, p->norm, &p->err);
    if (!p->err.code && place + 1 < p->q.count) score_own(p, p->q.prompt[place + 1]);
    pthread_mutex_unlock(&t->w->lock);
}

static int tell_id(void *arg, u32 id) {
    struct told_to *t = arg;
    struct part *p = t->p;
    pthread_mutex_lock(&t->w->lock);
    if (!p->err.code && p->scored) score_own(p, id);
    if (!p->err.code) ids_add(&p->out, id, &p->err);
    const int stop = p->cancelled || p->err.code;
    t->w->counts.tokens++;
    news(p->job);
    pthread_mutex_unlock(&t->w->lock);
    return stop ? 1 : 0;
}

/* ---- texts come and go, under the lock ---- */

static void part_ended(struct worker *w, struct part *p, enum part_end end) {
    p->state = PART_ENDED, p->end = p->err.code ? END_WRONG : end;
    p->job->ended++;
    w->counts.cancelled += p->end == END_CANCELLED, w->counts.failed += p->end == END_WRONG;
    news(p->job);
}

static void running_drop(struct worker *w, i64 i) {
    struct part *p = w->running[i];
    engine_remove(w->engine[p->lane], &p->q);
    mem_free(p->q.arg), p->q.arg = NULL, ids_free(&p->q.out);
    memmove(w->running + i, w->running + i + 1, (size_t)(--w->runs - i) * sizeof *w->running);
}

static int running_add(struct worker *w, struct part *p, struct err *e) {
    struct told_to *t = mem_new(sizeof *t, e);
    if (!t) return -1;
    *t = (struct told_to){w, p};
    p->q = (struct sequence){.prompt = p->prompt.item,
                             .count = p->prompt.count,
                             .stream = p->q.stream,
                             .how = &p->how,
                             .each = tell_id,
                             .arg = t,
                             .wrong = &p->err};
    if (p->scored)
        p->q.logits = tell_logits,
        p->q.logits_from = (p->echoed ? 0 : p->asked - 1) + p->scores.count;
    if (engine_add(w->engine[p->lane], &p->q, e)) return mem_free(t), p->q.arg = NULL, -1;
    p->state = PART_RUNS;
    w->running[w->runs++] = p;
    return 0;
}

static i64 pages_of(const struct part *p) {
    const i64 now = i64_max(p->q.own.ids.count, p->prompt.count);
    return now / ATTENTION_PAGE + 1; /* with room for an id more */
}

/* Is there room for one more beside those that run? */
static bool fits(const struct worker *w, const struct part *p) {
    i64 pages = pages_of(p);
    if (!w->runs) return true;
    if (w->runs == w->plan.max_requests || mem_available() < SERVE_SPARE) return false;
    for (i64 i = 0; i < w->runs; i++)
        if (w->running[i]->lane == p->lane) pages += pages_of(w->running[i]);
    return pages <= engine_counted(w->engine[p->lane]).most;
}

static void let_in(struct worker *w) {
    while (w->first && (w->first->cancelled || fits(w, w->first))) {
        struct part *p = w->first;
        struct err e = {0};
        if (!(w->first = p->next)) w->last = NULL;
        p->next = NULL, w->counts.waiting--;
        if (p->cancelled || w->stopping)
            part_ended(w, p, END_CANCELLED);
        else if (running_add(w, p, &e))
            p->err = e, part_ended(w, p, END_WRONG);
        else
            w->counts.prompt_tokens += p->asked;
    }
}

static void drop_cancelled(struct worker *w) {
    for (i64 i = w->runs; i-- > 0;) {
        struct part *p = w->running[i];
        if (p->cancelled || w->stopping) running_drop(w, i), part_ended(w, p, END_CANCELLED);
    }
    struct part **at = &w->first, *last = NULL;
    while (*at) {
        struct part *p = *at;
        if (!p->cancelled && !w->stopping) {
            last = p, at = &p->next;
            continue;
        }
        *at = p->next, p->next = NULL, w->counts.waiting--;
        part_ended(w, p, END_CANCELLED);
    }
    w->last = last;
}

static void drop_done(struct worker *w) {
    for (i64 i = w->runs; i-- > 0;) {
        struct part *p = w->running[i];
        if (!p->q.own.done) continue;
        const bool full = p->q.own.ids.count >= p->q.own.room;
        running_drop(w, i);
        part_ended(w, p, p->cancelled ? END_CANCELLED : full ? END_LENGTH : END_STOP);
    }
}

/* What a text has said is from now on part of its prompt: the same ids follow. */
static int again(struct worker *w, struct part *p, struct err *e) {
    const i64 more = p->asked + p->out.count - p->prompt.count;
    for (i64 i = p->out.count - more; i < p->out.count; i++)
        if (ids_add(&p->prompt, p->out.item[i], e)) return -1;
    p->how.max_new_tokens -= more;
    const i64 known = p->scores.count; /* logits of an id that never came are told again */
    if (known && p->scores.own[known - 1] != p->scores.own[known - 1]) p->scores.count--;
    return running_add(w, p, e);
}

/* The second half of the list is for this. */
static void step_failed(struct worker *w, const struct err *e) {
    struct part **list = w->running + w->plan.max_requests;
    i64 count = w->runs;
    memcpy(list, w->running, (size_t)count * sizeof *list);
    while (w->runs) running_drop(w, w->runs - 1);
    if (!count) return;
    list[--count]->err = *e, part_ended(w, list[count], END_WRONG);
    for (i64 i = 0; i < count; i++) {
        struct err own = {0};
        if (again(w, list[i], &own)) list[i]->err = own, part_ended(w, list[i], END_WRONG);
    }
}

/* ---- the thread ---- */

static struct engine_count counted(const struct worker *w) {
    struct engine_count all = engine_counted(w->engine[0]);
    if (w->lanes == 1) return all;
    const struct engine_count more = engine_counted(w->engine[1]);
    all.computed += more.computed, all.reused += more.reused, all.passes += more.passes;
    all.preempted += more.preempted, all.evicted += more.evicted;
    all.pages += more.pages, all.most += more.most;
    return all;
}

static void *work(void *arg) {
    struct worker *w = arg;
    isa_float_mode();
    pthread_mutex_lock(&w->lock);
    for (;;) {
        drop_cancelled(w), let_in(w);
        w->counts.running = w->runs;
        if (!w->runs && w->stopping) break;
        if (!w->runs) {
            pthread_cond_wait(&w->work, &w->lock);
            continue;
        }
        bool lane[2] = {false, false};
        for (i64 i = 0; i < w->runs; i++) lane[w->running[i]->lane] = true;
        pthread_mutex_unlock(&w->lock);
        struct err e = {0};
        for (i64 i = 0; i < w->lanes && !e.code; i++)
            if (lane[i]) engine_step(w->engine[i], &e);
        pthread_mutex_lock(&w->lock);
        if (e.code) step_failed(w, &e);
        drop_done(w);
        w->counts.engine = counted(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void clock_monotonic(pthread_cond_t *c) {
    pthread_condattr_t how;
    pthread_condattr_init(&how);
    pthread_condattr_setclock(&how, CLOCK_MONOTONIC);
    pthread_cond_init(c, &how);
    pthread_condattr_destroy(&how);
}

int worker_start(struct worker *w, const struct serve_model *m, const struct serve_plan *plan,
                 struct err *e) {
    *w = (struct worker){.plan = *plan, .model = &m->l->model, .lanes = m->base ? 2 : 1};
    const i64 model_most = w->model->config.max_position_embeddings,
              bytes = plan->kv_memory ? plan->kv_memory : device_available() / 10 * 9;
    pthread_mutex_init(&w->lock, NULL), clock_monotonic(&w->work);
    w->positions = plan->max_seq_length ? i64_min(plan->max_seq_length, model_most) : model_most;
    if (!(w->running = mem_new_array(2 * plan->max_requests, sizeof *w->running, e))) return -1;
    for (i64 i = 0; i < w->lanes; i++) {
        const struct engine_plan how = {
            .bytes = bytes / w->lanes, .chunk = plan->chunk, .bare = i == 1};
        if (!(w->engine[i] = engine_open(w->model, &how, e))) return -1;
    }
    const i64 room = engine_counted(w->engine[0]).most * ATTENTION_PAGE;
    if (room < ATTENTION_PAGE) {
        err_input(e, "--kv-memory %lld has no room for a page of states", (long long)bytes);
        return err_hint(e, "give more");
    }
    if (room < w->positions && !quiet)
        fprintf(stderr, "note: texts have at most %lld tokens, for which --kv-memory has room\n",
                (long long)room);
    w->positions = i64_min(w->positions, room);
    w->counts.engine = counted(w);
    if (pthread_create(&w->thread, NULL, work, w)) return err_memory(e, "cannot start a thread");
    w->started = true;
    return 0;
}

void worker_stop(struct worker *w) {
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        pthread_cond_signal(&w->work);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
    }
    for (i64 i = 0; i < 2; i++) engine_close(w->engine[i]), w->engine[i] = NULL;
    mem_free(w->running), w->running = NULL, w->started = false;
}

/* ---- what requests' threads call ---- */

int job_submit(struct worker *w, struct job *j, struct refusal *r) {
    clock_monotonic(&j->news);
    pthread_mutex_lock(&w->lock);
    const bool room = w->counts.waiting + j->count <= w->plan.max_queue;
    const char *why = w->stopping                     ? "the server is stopping"
                      : !room                         ? "too many texts wait already"
                      : mem_available() < SERVE_SPARE ? "the machine's memory is exhausted"
                                                      : NULL;
    for (i64 i = 0; !why && i < j->count; i++) {
        struct part *p = &j->part[i];
        p->job = j, p->asked = p->prompt.count, p->scores.top = p->top;
        if (w->last)
            w->last->next = p;
        else
            w->first = p;
        w->last = p, w->counts.waiting++, w->counts.requests++;
    }
    w->counts.refused += why != NULL;
    if (why) j->count = 0;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    return why ? refuse(r, 503, NULL, "%s; try again later", why) : 0;
}

i64 job_wait(struct worker *w, struct job *j, i64 seen) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
    pthread_mutex_lock(&w->lock);
    while (j->changes == seen && !pthread_cond_timedwait(&j->news, &w->lock, &until))
        ;
    const i64 changes = j->changes;
    pthread_mutex_unlock(&w->lock);
    return changes;
}

void part_cancel(struct worker *w, struct part *p) {
    pthread_mutex_lock(&w->lock);
    p->cancelled = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
}

void job_free(struct worker *w, struct job *j) {
    if (j->part && j->count) {
        pthread_mutex_lock(&w->lock);
        for (i64 i = 0; i < j->count; i++) j->part[i].cancelled = true;
        pthread_cond_signal(&w->work);
        while (j->ended < j->count) pthread_cond_wait(&j->news, &w->lock);
        pthread_mutex_unlock(&w->lock);
        pthread_cond_destroy(&j->news);
    }
}

struct worker_counts worker_counted(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    const struct worker_counts c = w->counts;
    pthread_mutex_unlock(&w->lock);
    return c;
}
