/* loader.c: the batches of a step, one step ahead.
 *
 * A step is a pure function of the configuration and its number, so the loader has no state worth
 * saving: to resume is to ask for another step. Two buffers are used in turn: one is with the
 * caller, a thread fills the other with the step that follows. The digest is of samples, not of
 * micro-batches, so it does not change with the split. */
#include "data/datasets/datasets_int.h"
#include <pthread.h>
#include <string.h>

enum {
    IGNORED = -100
}; /* target of a token that is not trained: the convention of torch and transformers */

struct prepared {
    i64 step; /* -1: nothing */
    struct err err;
    struct step_batches out;
    struct sample *sample;  /* [rows] */
    struct sample_row *row; /* [rows of the global batch] */
    char (*digest)[65];     /* [global batch] of each sample */
    struct batch *batch;    /* [micro-batches] */
    i32 *column;            /* [6, capacity]: ids, targets, position, begin, last, real */
    i64 capacity;
    u32 *ids; /* [max_seq_length + 1] of a sample, and what may be its last target */
    u8 *trained,
        *begins; /* the same: may be a target; is the first of a document that stands alone */
};

struct loader {
    struct sampler sampler;
    struct prepared slot[2];
    int front; /* the slot the caller has */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of what follows; slots change hands under it */
    pthread_cond_t turn;
    i64 wanted; /* step the thread is to put into the other slot; -1: none */
    bool stop;
};

/* Reads a sample's tokens; how many may be looked at, -1: error. */
static i64 sample_read(struct prepared *p, const struct sample *x, const struct loader_config *c,
                       struct err *e) {
    const bool mask = c->packing && c->document_mask;
    const struct dataset_info *f = dataset_info(x->dataset);
    i64 at = 0;
    for (i64 k = 0; k < x->pieces; k++) {
        const struct extent *piece = x->piece ? &x->piece[k] : &x->own;
        const i64 known = piece->count + piece->more, end = piece->first + known;
        if (dataset_read(x->dataset, piece->first, known, p->ids + at, e)) return -1;
        dataset_trained(x->dataset, piece->first, known, p->trained + at);
        memset(p->begins + at, 0, (size_t)known);
        p->begins[at] = mask;
        for (i64 d = dataset_document(x->dataset, piece->first) + 1;
             mask && d < f->documents && (i64)f->documents_at[d] < end; d++)
            p->begins[at + (i64)f->documents_at[d] - piece->first] = 1;
        at += known;
    }
    return at;
}

/* Writes one sample at `at` of the step's columns; its micro-batch starts at `origin`. Padding
 * takes positions below `length` too: a model may have no more. */
static int sample_fill(struct prepared *p, const struct sample *x, const struct loader_config *c,
                       i64 at, i64 origin, i64 *trained, struct err *e) {
    const i64 length = c->max_seq_length, known = sample_read(p, x, c, e);
    i32 *ids = p->column + at, *targets = ids + p->capacity, *position = targets + p->capacity;
    i32 *begin = position + p->capacity, *last = begin + p->capacity, *given = last + p->capacity;
    i64 start = 0, padded = round_up(x->inputs, LOADER_PAD);
    if (known < 0) return -1;
    for (i64 i = 0; i < padded; i++) {
        bool real = i < x->inputs;
        if (i == x->inputs || (!real && i - start == length)) start = i; /* within the tables */
        if (real && p->begins[i]) start = i;
        bool target = real && i + 1 < known && p->trained[i + 1] && !p->begins[i + 1];
        ids[i] = real ? (i32)p->ids[i] : 0;
        targets[i] = target ? (i32)p->ids[i + 1] : IGNORED;
        position[i] = (i32)(i - start);
        begin[i] = (i32)(at - origin + start), last[i] = (i32)(at - origin + i);
        given[i] = real, *trained += target;
    }
    return 0;
}

static int prepared_room(struct prepared *p, i64 tokens, struct err *e) {
    if (tokens <= p->capacity) return 0;
    mem_free(p->column);
    p->capacity = 0;
    if (!(p->column = mem_new_array(tokens, 6 * (i64)sizeof *p->column, e))) return -1;
    p->capacity = tokens;
    return 0;
}

/* Version 1: a stream over the ids and targets of all samples. */
static int stream_digest(const struct step_batches *s, char hex[65], struct err *e) {
    struct sha256 h;
    if (sha256_begin(&h, e)) return -1;
    for (i64 i = 0; i < s->rows; i++) {
        const i64 at = s->row[i].at, bytes = s->row[i].tokens * (i64)sizeof(i32);
        sha256_add(&h, s->ids + at, bytes), sha256_add(&h, s->targets + at, bytes);
    }
    sha256_end(&h, hex);
    return 0;
}

static int step_digest(const struct prepared *p, struct step_batches *s, int version,
                       struct err *e) {
    const i64 rows = s->samples ? s->rows / s->samples : 0;
    if (version == 1) return stream_digest(s, s->digest, e);
    for (i64 i = 0; i < s->samples; i++)
        if (sample_digest(s->ids, s->targets, s->row + i * rows, rows, p->digest[i], e)) return -1;
    return batch_digest((const char(*)[65])p->digest, s->samples, s->digest, e);
}

static int step_prepare(const struct loader *l, struct prepared *p, i64 step, struct err *e) {
    const struct loader_config *c = &l->sampler.config;
    i64 first;
    struct step_batches out = {.step = step, .batch = p->batch, .row = p->row};
    out.samples = sampler_step(&l->sampler, step, &first);
    out.rows = out.samples * c->rows;
    for (i64 i = 0; i < out.rows; i++) {
        p->sample[i] = sampler_at(&l->sampler, first + i / c->rows, i % c->rows);
        out.tokens += round_up(p->sample[i].inputs, LOADER_PAD);
    }
    if (prepared_room(p, out.tokens, e)) return -1;
    out.ids = p->column, out.targets = p->column + p->capacity;
    i64 at = 0, origin = 0;
    for (i64 i = 0; i < out.rows; i++) {
        if (i % (c->rows * c->micro_batch_size) == 0) {
            const i32 *column = p->column + (origin = at);
            p->batch[out.count++] = (struct batch){.ids = column,
                                                   .targets = column + p->capacity,
                                                   .position = column + 2 * p->capacity,
                                                   .begin = column + 3 * p->capacity,
                                                   .last = column + 4 * p->capacity,
                                                   .real = column + 5 * p->capacity};
        }
        struct batch *b = &p->batch[out.count - 1];
        const struct sample *x = &p->sample[i];
        struct sample_row *row = &p->row[i];
        *row = (struct sample_row){.at = at, .tokens = x->inputs, .sample = i / c->rows};
        if (sample_fill(p, x, c, at, origin, &row->trained, e)) return -1;
        b->trained += row->trained, b->samples += (i + 1) % c->rows == 0;
        at += round_up(x->inputs, LOADER_PAD), b->tokens = at - origin;
    }
    for (i64 i = 0; i < out.count; i++) out.trained += p->batch[i].trained;
    if (step_digest(p, &out, c->digest_version, e)) return -1;
    p->out = out;
    return 0;
}

static void *loader_thread(void *arg) {
    struct loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        if (l->wanted < 0) {
            pthread_cond_wait(&l->turn, &l->lock);
            continue;
        }
        struct prepared *p = &l->slot[!l->front];
        i64 step = l->wanted;
        pthread_mutex_unlock(&l->lock);
        p->err = (struct err){0};
        step_prepare(l, p, step, &p->err);
        pthread_mutex_lock(&l->lock);
        p->step = step, l->wanted = -1;
        pthread_cond_broadcast(&l->turn);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

struct loader *loader_open(const struct loader_config *c, struct err *e) {
    struct loader *l = mem_new(sizeof *l, e);
    if (!l) return NULL;
    pthread_mutex_init(&l->lock, NULL), pthread_cond_init(&l->turn, NULL);
    l->wanted = -1;
    int r = sampler_open(&l->sampler, c, e);
    if (!r && !c->digest_version) l->sampler.config.digest_version = DIGEST_VERSION;
    for (int i = 0; i < 2 && !r; i++) {
        struct prepared *p = &l->slot[i];
        p->step = -1;
        const i64 rows = c->global_batch_size * l->sampler.config.rows;
        p->sample = mem_new_array(rows, sizeof *p->sample, e);
        p->row = mem_new_array(rows, sizeof *p->row, e);
        p->digest = mem_new_array(c->global_batch_size, sizeof *p->digest, e);
        p->batch = mem_new_array((c->global_batch_size - 1) / c->micro_batch_size + 1,
                                 sizeof *p->batch, e);
        p->ids = mem_new_array(c->max_seq_length + 1, sizeof *p->ids, e);
        p->trained = mem_new_array(c->max_seq_length + 1, sizeof *p->trained, e);
        p->begins = mem_new_array(c->max_seq_length + 1, sizeof *p->begins, e);
        if (!p->sample || !p->row || !p->digest || !p->batch || !p->ids || !p->trained ||
            !p->begins)
            r = -1;
    }
    if (!r && !(l->started = !pthread_create(&l->thread, NULL, loader_thread, l)))
        r = err_failed(e, "cannot start the thread that reads data");
    if (!r) return l;
    loader_close(l);
    return NULL;
}

void loader_close(struct loader *l) {
    if (!l) return;
    if (l->started) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->turn);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    for (int i = 0; i < 2; i++) {
        struct prepared *p = &l->slot[i];
        mem_free(p->sample), mem_free(p->row), mem_free(p->digest), mem_free(p->batch),
            mem_free(p->column);
        mem_free(p->ids), mem_free(p->trained), mem_free(p->begins);
    }
    sampler_close(&l->sampler);
    pthread_cond_destroy(&l->turn), pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

static void loader_want(struct loader *l, i64 step) {
    l->wanted = step;
    pthread_cond_broadcast(&l->turn);
}

int loader_step(struct loader *l, i64 step, const struct step_batches **out, struct err *e) {
    const bool one_pass = l->sampler.config.one_pass;
    const i64 steps =
        one_pass ? loader_steps(l) : INT64_MAX / l->sampler.config.global_batch_size - 2;
    if (step < 0 || step >= steps)
        return err_failed(e, "step %lld was asked for; the last is %lld", (long long)step,
                          (long long)steps - 1);
    pthread_mutex_lock(&l->lock);
    while (l->wanted >= 0) pthread_cond_wait(&l->turn, &l->lock);
    struct prepared *p = &l->slot[!l->front];
    if (p->step != step) loader_want(l, step);
    while (l->wanted >= 0) pthread_cond_wait(&l->turn, &l->lock);
    int r = p->err.code ? -1 : 0;
    if (r) {
        if (!e->code) *e = p->err;
        p->step = -1; /* asked again, it is tried again */
    } else {
        l->front = !l->front;
        *out = &p->out;
        if (step + 1 < steps) loader_want(l, step + 1);
    }
    pthread_mutex_unlock(&l->lock);
    return r ? err_frame(e, "while reading the data of step %lld", (long long)step) : 0;
}

i64 loader_samples(const struct loader *l) { return l->sampler.total; }

i64 loader_steps(const struct loader *l) { return sampler_epoch_steps(&l->sampler); }

i64 loader_last(const struct loader *l) {
    i64 first;
    return sampler_step(&l->sampler, loader_steps(l) - 1, &first);
}

const struct loader_facts *loader_facts(const struct loader *l, i64 dataset) {
    return &l->sampler.facts[dataset];
}
