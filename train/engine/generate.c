/* generate.c: continuing texts. The prompts run as one forward pass that fills the key-value cache;
 * then one pass a token of all of them. A sequence has rows of its own in the cache and sees
 * nothing else, so by the definition of attention (ops/attention/attention.c) all this gives the
 * bits of an uncached forward pass of each text alone, and its random numbers are its own. */
#include "train/engine/engine.h"

#include <string.h>

/* A pass over `tokens` new positions, of which `rows` are last of their sequence; its result is the
 * ids that follow those. */
struct decoder {
    struct pass pass;
    i32 *inputs; /* ids, position, begin, last: [4][tokens]; row [rows]; step [rows][2] */
    struct sample_how *how; /* [rows] */
    u8 *had;                /* [rows][V], where there is a penalty */
    i64 tokens, rows;
};

static bool penalised(const struct sampling *s) {
    return s->repetition_penalty > 0 && s->repetition_penalty != 1;
}

static int decoder_new(struct decoder *d, struct model *m, struct cache *cache, i64 tokens,
                       i64 rows, const struct sampling *s, struct err *e) {
    *d = (struct decoder){.tokens = tokens, .rows = rows};
    const struct pass_plan plan = {.model = m,
                                   .tokens = tokens,
                                   .gives = PASS_IDS,
                                   .rows = rows,
                                   .penalty = penalised(s),
                                   .cache = cache,
                                   .eager = globals.eager};
    if (!(d->inputs = mem_new_array(4 * tokens + 3 * rows, (i64)sizeof *d->inputs, e)) ||
        !(d->how = mem_new_array(rows, sizeof *d->how, e)) ||
        (plan.penalty && !(d->had = mem_new_array(rows, m->config.vocab_size, e))))
        return -1;
    for (i64 i = 0; i < rows; i++)
        d->how[i] = (struct sample_how){s->temperature, s->top_k,     s->top_p,
                                        s->min_p,       (u64)s->seed, s->repetition_penalty};
    return pass_open(&d->pass, &plan, e);
}

static void decoder_free(struct decoder *d) {
    pass_close(&d->pass), mem_free(d->inputs), mem_free(d->how), mem_free(d->had);
    *d = (struct decoder){0};
}

/* Adds `count` tokens of q from `at` as inputs n..; row r samples after the last. */
static void decoder_put(struct decoder *d, i64 n, i64 r, const struct sequence *q, const u32 *ids,
                        i64 at, i64 count) {
    const i64 t = d->tokens, vocab = d->pass.plan.model->config.vocab_size;
    for (i64 i = 0; i < count; i++, n++) {
        d->inputs[n] = (i32)ids[i];
        d->inputs[t + n] = (i32)(at + i);
        d->inputs[2 * t + n] = (i32)q->base;
        d->inputs[3 * t + n] = (i32)(q->base + at + i);
    }
    i32 *row = d->inputs + 4 * t, *step = row + d->rows;
    row[r] = (i32)n - 1, step[2 * r] = (i32)(at + count), step[2 * r + 1] = (i32)q->stream;
    if (!d->had) return;
    memset(d->had + r * vocab, 0, (size_t)vocab);
    for (i64 i = 0; i < q->count; i++) d->had[r * vocab + q->prompt[i]] = 1;
    for (i64 i = 0; i < q->out.count; i++) d->had[r * vocab + q->out.item[i]] = 1;
}

static int decoder_run(struct decoder *d, u32 *ids, struct err *e) {
    const i32 *in = d->inputs;
    const i64 t = d->tokens;
    const struct pass_inputs inputs = {.places = {in, in + t, in + 2 * t, in + 3 * t},
                                       .row = in + 4 * t,
                                       .step = in + 4 * t + d->rows,
                                       .how = d->how,
                                       .seen = d->had};
    return pass_bind(&d->pass, &inputs, e) || pass_run(&d->pass, e) || pass_read(&d->pass, ids, e)
               ? -1
               : 0;
}

/* op_sample gives no id, but -1, for logits that are no numbers. */
static int next_set(struct sequence *q, u32 id, struct err *e) {
    q->next = id;
    if ((i32)id >= 0) return 0;
    err_failed(e,
               "the logits for token %lld (%lld of the prompt, %lld of the answer) are not finite",
               (long long)(q->count + q->out.count), (long long)q->count, (long long)q->out.count);
    return err_hint(e,
                    "the weights were finite when they were loaded: values overflow in between; a "
                    "smaller adapter weight, or --precision fp32, may help");
}

/* Fills the cache with all prompts, or with one sequence and its answer so far; what follows goes
 * to each `next`. */
static int prefill(struct model *m, struct cache *cache, struct sequence *list, i64 count,
                   const struct sampling *s, struct err *e) {
    struct decoder d = {0};
    i64 tokens = 0, at = 0;
    for (i64 i = 0; i < count; i++) tokens += list[i].count + list[i].out.count;
    u32 *ids = mem_new_array(count, sizeof *ids, e);
    int rc = !ids || decoder_new(&d, m, cache, tokens, count, s, e);
    for (i64 i = 0; !rc && i < count; i++) {
        const struct sequence *q = &list[i];
        decoder_put(&d, at, i, q, q->prompt, 0, q->count), at += q->count;
        if (q->out.count)
            decoder_put(&d, at, i, q, q->out.item, q->count, q->out.count), at += q->out.count;
    }
    if (!rc) rc = decoder_run(&d, ids, e);
    for (i64 i = 0; !rc && i < count; i++) rc = next_set(&list[i], ids[i], e);
    decoder_free(&d), mem_free(ids);
    return rc ? -1 : 0;
}

static bool stops(const struct model *m, const struct sampling *s, u32 id) {
    if (s->ignore_eos) return false;
    for (i64 i = 0; s->stops && i < s->stops->count; i++)
        if (s->stops->item[i] == id) return true;
    return is_eos(&m->config, id);
}

/* Takes what follows each sequence; how many go on. -1: an error. */
static i64 take_next(const struct model *m, struct sequence *list, i64 count,
                     const struct sampling *s, struct err *e) {
    i64 active = 0;
    for (i64 i = 0; i < count; i++) {
        struct sequence *q = &list[i];
        if (q->done || (q->done = stops(m, s, q->next))) continue;
        if (ids_add(&q->out, q->next, e)) return -1;
        const int told = q->each ? q->each(q->arg, q->next) : 0;
        if (told < 0) return -1;
        const bool end = q->count + q->out.count >= q->room;
        if (end && !told && q->out.count < s->max_new_tokens && s->full) ++*s->full;
        q->done = told > 0 || end;
        active += !q->done;
    }
    return active;
}

void positions_note(const struct model *m, i64 full) {
    if (!full || quiet) return;
    progress_end();
    fprintf(stderr, "note: %lld text%s ended at the model's %lld positions\n", (long long)full,
            full == 1 ? "" : "s", (long long)m->config.max_position_embeddings);
}

/* One token of each sequence that goes on; d is planned anew when half of its rows are idle. */
static int decode_step(struct decoder *d, struct model *m, struct cache *cache,
                       struct sequence *list, i64 count, i64 active, const struct sampling *s,
                       u32 *ids, struct err *e) {
    if (!d->pass.graph || active <= d->rows / 2) {
        decoder_free(d);
        if (decoder_new(d, m, cache, active, active, s, e)) return -1;
    }
    i64 r = 0, idle = d->rows - active; /* idle rows repeat what a finished sequence had */
    for (i64 i = 0; i < count; i++) {
        struct sequence *q = &list[i];
        if (q->done && idle-- <= 0) continue;
        if (q->done && !q->out.count) {
            decoder_put(d, r, r, q, q->prompt + q->count - 1, q->count - 1, 1), r++;
            continue;
        }
        decoder_put(d, r, r, q, q->out.item + q->out.count - 1, q->count + q->out.count - 1, 1);
        r++;
    }
    if (decoder_run(d, ids, e)) return -1;
    r = 0, idle = d->rows - active;
    for (i64 i = 0; i < count; i++) {
        if (list[i].done && idle-- <= 0) continue;
        if (next_set(&list[i], ids[r++], e)) return -1;
    }
    return 0;
}

/* Rows in the cache. *turns: some length is the first with other RoPE frequencies. */
static int rooms(const struct model *m, struct sequence *list, i64 count, const struct sampling *s,
                 i64 *rows, i64 *longest, bool *turns, struct err *e) {
    const i64 positions = m->config.max_position_embeddings;
    *rows = *longest = 0, *turns = false;
    for (i64 i = 0; i < count; i++) {
        struct sequence *q = &list[i];
        if (q->count < 1) {
            err_input(e, "the prompt is empty");
            return err_hint(e, "give at least one token to go on from");
        }
        if (q->count >= positions) {
            err_input(e,
                      "the prompt has %lld tokens, but the model was made for %lld with the answer",
                      (long long)q->count, (long long)positions);
            return err_hint(e, "shorten the prompt");
        }
        for (i64 k = 0; k < q->count; k++)
            if (q->prompt[k] >= (u64)m->config.vocab_size)
                return err_input(e, "id %u is beyond the model's vocabulary of %lld", q->prompt[k],
                                 (long long)m->config.vocab_size);
        q->room = i64_min(q->count + s->max_new_tokens, positions);
        q->base = *rows, q->done = false, q->out.count = 0;
        *rows += q->room, *longest = i64_max(*longest, q->room);
        for (i64 k = q->count + 1; k <= q->room && !*turns; k++) *turns = model_turns_at(m, k);
    }
    return 0;
}

int generate_batch(struct model *m, struct sequence *list, i64 count, const struct sampling *s,
                   struct err *e) {
    struct cache cache = {0};
    struct decoder d = {0};
    i64 rows, longest, active = count;
    bool turns;
    if (rooms(m, list, count, s, &rows, &longest, &turns, e))
        return err_frame(e, "while generating");
    if (turns && count > 1) { /* keys are made again at a length that each reaches by itself */
        for (i64 i = 0; i < count; i++)
            if (generate_batch(m, list + i, 1, s, e)) return -1;
        return 0;
    }
    u32 *ids = mem_new_array(count, sizeof *ids, e);
    int rc = !ids || model_rope(m, longest, e) || cache_new(&cache, m, rows, e) ||
             prefill(m, &cache, list, count, s, e);
    while (!rc && (active = take_next(m, list, count, s, e)) > 0)
        rc = turns && model_turns_at(m, list->count + list->out.count)
                 ? prefill(m, &cache, list, count, s, e)
                 : decode_step(&d, m, &cache, list, count, active, s, ids, e);
    decoder_free(&d), cache_free(&cache, m), mem_free(ids);
    return rc || active < 0 ? err_frame(e, "while generating") : 0;
}

int generate_ids(struct model *m, const u32 *prompt, i64 count, const struct sampling *s,
                 struct ids *out, token_fn *each, void *arg, struct err *e) {
    struct sequence q = {.prompt = prompt, .count = count, .each = each, .arg = arg};
    int rc = generate_batch(m, &q, 1, s, e);
    for (i64 i = 0; !rc && i < q.out.count; i++) rc = ids_add(out, q.out.item[i], e);
    ids_free(&q.out);
    return rc ? -1 : 0;
}

int generate_text(struct model *m, const struct tokenizer *t, const char *prompt,
                  const struct sampling *s, struct text *out, struct err *e) {
    struct ids ids = {0}, more = {0};
    i64 size = 0;
    while (prompt[size]) size++;
    int rc = tokenizer_encode(t, prompt, size, true, &ids, e);
    if (!rc && !ids.count && tokenizer_bos(t) >= 0) rc = ids_add(&ids, (u32)tokenizer_bos(t), e);
    if (!rc && !ids.count && tokenizer_eos(t) >= 0) rc = ids_add(&ids, (u32)tokenizer_eos(t), e);
    rc = rc || generate_ids(m, ids.item, ids.count, s, &more, NULL, NULL, e);
    i64 kept = 0; /* no token, no text: stream.c */
    for (i64 i = 0; i < more.count; i++)
        if (tokenizer_has(t, more.item[i])) more.item[kept++] = more.item[i];
    rc = rc || tokenizer_decode(t, more.item, kept, true, out, e);
    ids_free(&ids), ids_free(&more);
    return rc ? -1 : 0;
}
