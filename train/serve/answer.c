/* answer.c: a request's texts on their way: handed to the engine's thread, decoded as their ids
 * come, ended where a stop text is found. What is decoded is what `hone generate` and `hone chat`
 * print of the same ids (engine/stream.c). */
#include "train/serve/serve_int.h"

#include <string.h>
#include <time.h>

static int part_fill(struct answer *a, struct part *p, const struct prompt *from, i64 choice,
                     struct err *e) {
    const struct request *q = &a->q;
    for (i64 i = 0; i < from->ids.count; i++)
        if (ids_add(&p->prompt, from->ids.item[i], e)) return -1;
    p->how = q->how, p->how.stops = &q->stops;
    p->how.max_new_tokens = i64_min(p->how.max_new_tokens, a->w->positions - from->ids.count);
    p->lane = q->lane, p->q.stream = choice;
    p->scored = q->scored, p->echoed = q->echo && q->scored, p->top = q->top;
    return 0;
}

static int teller_fill(struct answer *a, struct teller *t, struct part *p,
                       const struct prompt *from) {
    t->part = p, t->prompt = from;
    t->stream = (struct stream){.t = a->m->l->tokenizer, .stop = &a->q.stop, .e = &t->e};
    t->inside = a->q.split && thought_open(from->text.data, from->text.size);
    t->scores_sent = a->q.echo ? 0 : from->ids.count;
    if (a->q.chat) return 0;
    return stream_begin(&t->stream, from->ids.item, from->ids.count, &t->e);
}

int answer_begin(struct answer *a, struct refusal *r) {
    struct err e = {0};
    const i64 count = a->q.prompts * a->q.n;
    struct job *j = &a->job;
    a->created = (i64)time(NULL);
    if (count > a->w->plan.max_queue)
        return refuse(r, 400, "n", "%lld texts are asked for at once; at most %lld",
                      (long long)count, (long long)a->w->plan.max_queue);
    if (!(j->part = mem_new_array(count, sizeof *j->part, &e)) ||
        !(a->teller = mem_new_array(count, sizeof *a->teller, &e)))
        return refuse_err(r, NULL, &e);
    for (i64 i = 0; i < count; i++) {
        const struct prompt *from = &a->q.prompt[i / a->q.n];
        if (part_fill(a, &j->part[i], from, i % a->q.n, &e) ||
            teller_fill(a, &a->teller[i], &j->part[i], from))
            return refuse_err(r, NULL, e.code ? &e : &a->teller[i].e);
    }
    j->count = count;
    return job_submit(a->w, j, r);
}

/* Copies what is new of a part; its end, or -1 while it goes on. */
static int part_news(struct answer *a, struct teller *t) {
    const struct part *p = t->part;
    pthread_mutex_lock(&a->w->lock);
    for (i64 i = t->ids.count; i < p->out.count && !t->e.code; i++)
        ids_add(&t->ids, p->out.item[i], &t->e);
    const int end = p->state == PART_ENDED ? (int)p->end : -1;
    pthread_mutex_unlock(&a->w->lock);
    return end;
}

static int teller_end(struct answer *a, struct teller *t, const char *finish) {
    stream_end(&t->stream);
    t->ended = true, t->finish = finish, a->ended++;
    return 0;
}

static int teller_more(struct answer *a, struct teller *t, struct refusal *r) {
    const int end = part_news(a, t);
    while (t->taken < t->ids.count && !t->e.code) {
        const int told = stream_token(&t->stream, t->ids.item[t->taken++]);
        if (told <= 0) continue;
        t->ids.count = t->taken; /* what came after the stop text does not count */
        part_cancel(a->w, t->part);
        return teller_end(a, t, "stop");
    }
    if (t->e.code) return refuse_err(r, NULL, &t->e);
    switch (end) {
    case -1: return 0;
    case END_STOP: return teller_end(a, t, "stop");
    case END_LENGTH: return teller_end(a, t, "length");
    case END_WRONG: return refuse_err(r, NULL, &t->part->err);
    default: return refuse(r, 503, NULL, "the server is stopping");
    }
}

int answer_more(struct answer *a, struct refusal *r) {
    a->seen = job_wait(a->w, &a->job, a->seen);
    for (i64 i = 0; i < a->job.count; i++)
        if (!a->teller[i].ended && teller_more(a, &a->teller[i], r)) return -1;
    return a->ended == a->job.count;
}

void answer_free(struct answer *a) {
    job_free(a->w, &a->job);
    for (i64 i = 0; a->teller && i < a->q.prompts * a->q.n; i++) {
        stream_free(&a->teller[i].stream), ids_free(&a->teller[i].ids);
        struct part *p = &a->job.part[i];
        ids_free(&p->prompt), ids_free(&p->out), scores_free(&p->scores);
    }
    mem_free(a->teller), mem_free(a->job.part), text_free(&a->out), request_free(&a->q);
}
