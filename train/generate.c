/* generate.c: continuing a text. The prompt runs as one forward pass that fills the key-value
 * cache; then one pass a token. By the definition of attention (ops/attention.c) both give the bits
 * of an uncached forward pass. */
#include "train/train.h"

/* A graph for `tokens` new positions whose result is the id that follows the last of them. */
struct decoder {
    struct graph *graph;
    struct build build;
    struct tensor *row, *step, *id;
    i32 *inputs; /* ids, position, begin, last: [4][tokens] */
    i64 tokens;
    i32 row_value, step_value;
};

static int decoder_new(struct decoder *d, struct model *m, struct cache *cache, i64 tokens,
                       const struct sampling *s, struct err *e) {
    *d = (struct decoder){.graph = graph_new(e), .tokens = tokens, .row_value = (i32)tokens - 1};
    if (!d->graph || !(d->inputs = mem_new_array(tokens, 4 * (i64)sizeof *d->inputs, e))) return -1;
    struct graph *g = d->graph;
    d->build = (struct build){.g = g, .m = m, .cache = cache};
    struct tensor *hidden = model_hidden(&d->build, tokens);
    d->row = graph_input(g, "row", I32, DIMS(1)), d->step = graph_input(g, "step", I32, DIMS(1));
    struct tensor *last = graph_op(g, &op_embedding, NULL, d->row, hidden, NULL, NULL);
    const struct sample_attr attr = {s->temperature, s->top_k, s->top_p, s->min_p, (u64)s->seed};
    d->id = graph_op(g, &op_sample, &attr, model_logits(&d->build, last), d->step, NULL, NULL);
    graph_keep(d->id);
    if (graph_plan(g, globals.eager, e)) return -1;
    d->row->view.data = &d->row_value, d->step->view.data = &d->step_value;
    return 0;
}

static void decoder_free(struct decoder *d) {
    graph_free(d->graph), mem_free(d->inputs);
    *d = (struct decoder){0};
}

/* Runs positions at..at+tokens of the sequence; *id is what follows. */
static int decoder_run(struct decoder *d, const u32 *ids, i64 at, u32 *id, struct err *e) {
    for (i64 i = 0; i < d->tokens; i++) {
        d->inputs[i] = (i32)ids[i];
        d->inputs[d->tokens + i] = d->inputs[3 * d->tokens + i] = (i32)(at + i);
        d->inputs[2 * d->tokens + i] = 0;
    }
    d->step_value = (i32)(at + d->tokens);
    const struct places p = {d->inputs, d->inputs + d->tokens, d->inputs + 2 * d->tokens,
                             d->inputs + 3 * d->tokens};
    if (model_bind(&d->build, &p, e)) return -1;
    return graph_run(d->graph, e) || graph_read(d->graph, d->id, id, e) ? -1 : 0;
}

/* Where a longer sequence takes other RoPE frequencies, the keys so far are made again with them:
 * the cache is filled by one pass over prompt and answer. *id is what follows. */
static int cache_refill(struct model *m, struct cache *cache, const u32 *prompt, i64 count,
                        const u32 *answer, i64 more, const struct sampling *s, u32 *id,
                        struct err *e) {
    struct decoder all = {0};
    u32 *ids = mem_new_array(count + more, sizeof *ids, e);
    int rc = ids ? 0 : -1;
    for (i64 i = 0; !rc && i < count + more; i++)
        ids[i] = i < count ? prompt[i] : answer[i - count];
    if (!rc)
        rc = decoder_new(&all, m, cache, count + more, s, e) || decoder_run(&all, ids, 0, id, e);
    decoder_free(&all), mem_free(ids);
    return rc ? -1 : 0;
}

int generate_ids(struct model *m, const u32 *prompt, i64 count, const struct sampling *s,
                 struct ids *out, token_fn *each, void *arg, struct err *e) {
    struct cache cache = {0};
    struct decoder first = {0}, next = {0};
    if (count < 1) {
        err_input(e, "the prompt is empty");
        return err_hint(e, "give at least one token to go on from");
    }
    const i64 positions = m->config.max_position_embeddings;
    if (count >= positions) {
        err_input(e, "the prompt has %lld tokens, but the model was made for %lld with the answer",
                  (long long)count, (long long)positions);
        return err_hint(e, "shorten the prompt");
    }
    const i64 room = i64_min(count + s->max_new_tokens, positions);
    u32 id = 0;
    int rc = model_rope(m, room, e) || cache_new(&cache, m, room, e) ||
             decoder_new(&first, m, &cache, count, s, e) || decoder_run(&first, prompt, 0, &id, e);
    decoder_free(&first);
    if (!rc) rc = decoder_new(&next, m, &cache, 1, s, e);
    const i64 begun = out->count;
    for (i64 at = count; !rc && at < room; at++) {
        if (!s->ignore_eos && is_eos(&m->config, id)) break;
        if ((rc = ids_add(out, id, e)) || (each && each(arg, id))) break;
        if (at + 1 == room) break;
        if (model_turns_at(m, at + 1))
            rc = cache_refill(m, &cache, prompt, count, out->item + begun, out->count - begun, s,
                              &id, e);
        else
            rc = decoder_run(&next, &id, at, &id, e);
    }
    decoder_free(&next), cache_free(&cache, m);
    return rc ? err_frame(e, "while generating") : 0;
}

int generate_text(struct model *m, const struct tokenizer *t, const char *prompt,
                  const struct sampling *s, struct text *out, struct err *e) {
    struct ids ids = {0}, more = {0};
    i64 size = 0;
    while (prompt[size]) size++;
    int rc = tokenizer_encode(t, prompt, size, true, &ids, e);
    if (!rc && !ids.count && tokenizer_bos(t) >= 0) rc = ids_add(&ids, (u32)tokenizer_bos(t), e);
    if (!rc && !ids.count && tokenizer_eos(t) >= 0) rc = ids_add(&ids, (u32)tokenizer_eos(t), e);
    if (!rc)
        rc = generate_ids(m, ids.item, ids.count, s, &more, NULL, NULL, e) ||
             tokenizer_decode(t, more.item, more.count, true, out, e);
    ids_free(&ids), ids_free(&more);
    return rc ? -1 : 0;
}
