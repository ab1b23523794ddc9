/* loader_sample.c: which tokens the n-th sample of a run holds, as a function of n alone.
 *
 * Without weights the datasets are laid end to end and permuted as one: each sample comes once an
 * epoch. With weights the sample number picks a place in a repeating mix of 65,536 places, filled
 * so that after any number of samples each dataset is within one of its share (the place goes to
 * whom is owed most: Tijdeman 1980, "The chairman assignment problem"); the k-th sample drawn from
 * a dataset then follows the dataset's own permutation of its own epoch. Nothing is random at run
 * time, and nothing has to be remembered to resume. */
#include "data/datasets/datasets_int.h"
#include <math.h>
#include <string.h>

enum { SAMPLER_SLOTS = 65536 };

static i64 dataset_samples(const struct loader_config *c, const struct dataset *d) {
    const struct dataset_info *f = dataset_info(d);
    if (!c->packing) return f->documents / c->rows;
    const bool all = c->one_pass || c->last_block;
    return (f->tokens - 1 + (all ? c->max_seq_length - 1 : 0)) / c->max_seq_length;
}

/* The samples of a dataset; -1: an error. */
static i64 samples_find(struct sampler *s, i64 i, struct err *e) {
    const struct loader_config *c = &s->config;
    if (!plan_needed(c, c->datasets[i])) return dataset_samples(c, c->datasets[i]);
    s->plan[i] = arena_new(&s->arena, sizeof *s->plan[i], e);
    if (!s->plan[i] || plan_open(s->plan[i], c, c->datasets[i], &s->facts[i], e)) return -1;
    return s->plan[i]->samples;
}

/* Why a dataset gives no sample. */
static int samples_none(const struct sampler *s, i64 i, struct err *e) {
    const struct loader_config *c = &s->config;
    const struct dataset_info *f = dataset_info(c->datasets[i]);
    const struct loader_facts *x = &s->facts[i];
    if (s->plan[i]) {
        err_input(e, "'%s': none of the %lld documents is left", f->path, (long long)f->documents);
        err_detail(e, "%lld are longer than max_seq_length %lld, %lld have no token to train",
                   (long long)x->dropped, (long long)c->max_seq_length,
                   (long long)(x->untrained + x->untrained_blocks));
        return err_hint(e, "look at what is trained: hone inspect %s --tokens 40", f->path);
    }
    err_input(e, "'%s' has %lld tokens, too few for one sample", f->path, (long long)f->tokens);
    err_detail(e, "a sample is %lld tokens and the one that follows",
               c->one_pass || c->last_block ? 1LL : (long long)c->max_seq_length);
    return err_hint(e, "use a smaller max_seq_length, packing: false, or more text");
}

static int samples_count(struct sampler *s, struct err *e) {
    const struct loader_config *c = &s->config;
    const struct dataset_info *one = dataset_info(c->datasets[0]);
    s->count = arena_new(&s->arena, c->datasets_count * (i64)sizeof *s->count, e);
    s->plan = arena_new(&s->arena, c->datasets_count * (i64)sizeof *s->plan, e);
    s->facts = arena_new(&s->arena, c->datasets_count * (i64)sizeof *s->facts, e);
    if (!s->count || !s->plan || !s->facts) return -1;
    for (i64 i = 0; i < c->datasets_count; i++) {
        s->facts[i].documents = dataset_info(c->datasets[i])->documents;
        if ((s->count[i] = samples_find(s, i, e)) < 0) return -1;
        s->total += s->facts[i].samples = s->count[i];
        if (dataset_check_tokenizer(c->datasets[i], one->tokenizer_sha256, one->vocab_size, e))
            return err_frame(e, "while mixing it with '%s'", one->path);
        if (!s->count[i]) return samples_none(s, i, e);
    }
    if (c->epochs && c->drop_last && s->total < c->global_batch_size)
        return err_input(e, "%lld samples are fewer than a batch of %lld, and drop_last is true",
                         (long long)s->total, (long long)c->global_batch_size);
    return 0;
}

/* Shares of the mix by largest remainder. */
static int shares_round(struct sampler *s, struct err *e) {
    const i64 n = s->config.datasets_count;
    double sum = 0;
    i64 left = SAMPLER_SLOTS;
    double *rest = arena_new(&s->arena, n * (i64)sizeof *rest, e);
    if (!(s->share = arena_new(&s->arena, n * (i64)sizeof *s->share, e)) || !rest) return -1;
    for (i64 i = 0; i < n; i++) {
        double w = s->config.weights[i];
        if (!(w > 0 && w < 1e12))
            return err_input(e, "the weight of '%s' is %g; weights are above 0 and below 1e12",
                             dataset_info(s->config.datasets[i])->path, w);
        sum += w;
    }
    for (i64 i = 0; i < n; i++) {
        double exact = s->config.weights[i] / sum * SAMPLER_SLOTS;
        s->share[i] = (i64)exact, rest[i] = exact - floor(exact), left -= s->share[i];
    }
    for (; left > 0; left--) {
        i64 best = 0;
        for (i64 i = 1; i < n; i++)
            if (rest[i] > rest[best]) best = i;
        s->share[best]++, rest[best] = -1;
    }
    for (i64 i = 0; i < n; i++)
        if (!s->share[i])
            return err_input(e, "the weight of '%s' is less than one %dth of all",
                             dataset_info(s->config.datasets[i])->path, SAMPLER_SLOTS);
    return 0;
}

static int mix_fill(struct sampler *s, struct err *e) {
    const i64 n = s->config.datasets_count;
    s->slot = arena_new(&s->arena, SAMPLER_SLOTS * (i64)sizeof *s->slot, e);
    s->before = arena_new(&s->arena, SAMPLER_SLOTS * (i64)sizeof *s->before, e);
    i64 *used = arena_new(&s->arena, n * (i64)sizeof *used, e);
    if (!s->slot || !s->before || !used) return -1;
    for (i64 place = 0; place < SAMPLER_SLOTS; place++) {
        i64 best = 0, most = INT64_MIN;
        for (i64 i = 0; i < n; i++) {
            i64 owed = s->share[i] * (place + 1) - SAMPLER_SLOTS * used[i];
            if (owed > most) best = i, most = owed;
        }
        s->slot[place] = (u16)best, s->before[place] = (u32)used[best]++;
    }
    return 0;
}

int sampler_open(struct sampler *s, const struct loader_config *c, struct err *e) {
    *s = (struct sampler){.config = *c};
    s->config.rows = i64_max(c->rows, 1);
    const i64 n = c->datasets_count, length = c->max_seq_length, rows = s->config.rows;
    if (n < 1 || n > UINT16_MAX)
        return err_input(e, "%lld datasets; at least one is needed, at most %d", (long long)n,
                         UINT16_MAX);
    if (length < 1 || c->global_batch_size < 1 || c->micro_batch_size < 1)
        return err_input(e,
                         "max_seq_length %lld, global batch size %lld and micro_batch_size %lld "
                         "must be at least 1",
                         (long long)length, (long long)c->global_batch_size,
                         (long long)c->micro_batch_size);
    if (rows > 1 && (c->packing || rows > UINT16_MAX))
        return err_input(e, "samples of %lld documents: at most %d, and packing must be false",
                         (long long)rows, UINT16_MAX);
    if (rows > 1 && c->truncation == TRUNCATE_SPLIT)
        return err_input(e, "truncation: split, but samples are %lld documents", (long long)rows);
    if (c->weights) s->config.epochs = false; /* shares of the samples drawn: there is no pass */
    if (length > INT32_MAX / 2 || c->global_batch_size > INT32_MAX / rows ||
        round_up(length, LOADER_PAD) >
            INT32_MAX / (rows * i64_min(c->micro_batch_size, c->global_batch_size)))
        return err_input(
            e, "a micro-batch of %lld samples of %lld tokens is over the limit of %d tokens",
            (long long)c->micro_batch_size, (long long)length, INT32_MAX);
    struct dataset **datasets = arena_new(&s->arena, n * (i64)sizeof *datasets, e);
    if (datasets)
        memcpy(datasets, c->datasets, (size_t)n * sizeof *datasets), s->config.datasets = datasets;
    if (datasets && !samples_count(s, e) &&
        (!c->weights || (!shares_round(s, e) && !mix_fill(s, e))))
        return 0;
    sampler_close(s);
    return -1;
}

void sampler_close(struct sampler *s) {
    for (i64 i = 0; s->plan && i < s->config.datasets_count; i++)
        if (s->plan[i]) plan_close(s->plan[i]);
    s->plan = NULL;
    arena_free(&s->arena);
}

i64 sampler_epoch_steps(const struct sampler *s) {
    const struct loader_config *c = &s->config;
    if (c->epochs && c->drop_last) return s->total / c->global_batch_size;
    return (s->total - 1) / c->global_batch_size + 1;
}

i64 sampler_step(const struct sampler *s, i64 step, i64 *first) {
    const struct loader_config *c = &s->config;
    const i64 batch = c->global_batch_size, steps = sampler_epoch_steps(s),
              at = c->epochs ? step % steps * batch : step * batch;
    *first = c->epochs ? step / steps * s->total + at : at;
    return c->epochs || c->one_pass ? i64_min(batch, s->total - at) : batch;
}

static i64 shuffled(const struct sampler *s, i64 k, i64 count, u32 stream) {
    if (!s->config.shuffle || s->config.one_pass) return k % count;
    struct order o = order_new((u64)count, s->config.seed, (u32)(k / count), stream);
    return (i64)order_at(&o, (u64)(k % count));
}

struct sample sampler_at(const struct sampler *s, i64 global, i64 row) {
    const i64 length = s->config.max_seq_length;
    i64 which = 0, index;
    if (s->slot) {
        i64 place = global % SAMPLER_SLOTS;
        which = s->slot[place];
        index = shuffled(s, global / SAMPLER_SLOTS * s->share[which] + s->before[place],
                         s->count[which], (u32)which);
    } else {
        index = shuffled(s, global, s->total, 0);
        while (index >= s->count[which]) index -= s->count[which++];
    }
    struct sample x = {.dataset = s->config.datasets[which], .pieces = 1};
    const struct dataset_info *f = dataset_info(x.dataset);
    const struct plan *p = s->plan[which];
    if (p) {
        x.piece = p->piece + p->at[index] + row;
        if (s->config.rows == 1) x.pieces = p->at[index + 1] - p->at[index];
        for (i64 i = 0; i < x.pieces; i++) x.inputs += x.piece[i].count;
        return x;
    }
    if (s->config.packing) {
        x.own = (struct extent){index * length, 0, true};
        x.inputs = i64_min(length, f->tokens - 1 - x.own.first);
    } else {
        index = index * s->config.rows + row;
        x.own.first = (i64)f->documents_at[index];
        x.inputs = i64_min(length, (i64)f->documents_at[index + 1] - x.own.first);
    }
    x.own.count = (i32)x.inputs;
    return x;
}
