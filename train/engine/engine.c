/* engine.c: texts that are continued together. A step puts the ids of each text whose states are
 * not there yet, for a new one its prompt without what the pool knows of it, into one pass, whose
 * result is the id that follows each. By the definition of attention (ops/attention/attention.c) a
 * row sees its own text alone, so all this gives the bits of an uncached pass over each text, and
 * its random numbers are its own. Ids of one text come neighbouring; in a pass, states are stored
 * before they are read, so two texts of one step can share the beginning that the first of them
 * computes.
 *
 * Texts are served in the order in which they came. Where pages run out, those that came last give
 * theirs back and wait; what the pool still knows of them then need not be computed again. */
#include "train/engine/batch.h"

#include <string.h>

/* ---- who is in a step ---- */

/* How far a text comes in this step, in which prompts have `left` ids to go. What logits take is
 * bounded, too. */
enum { LOGITS_BYTES = 32 << 20 };
static i64 reach(const struct engine *g, const struct sequence *q, i64 left) {
    const i64 row = g->m->config.vocab_size * (i64)sizeof(float), known = q->own.known;
    i64 fresh = q->own.ids.count - known;
    if (g->chunk && fresh > 1 + q->own.drafted) fresh = i64_min(fresh, left);
    if (q->logits && q->own.told < q->count)
        fresh = i64_min(fresh, i64_max(0, q->own.told - known) + i64_max(1, LOGITS_BYTES / row));
    return known + fresh;
}

/* Gives a text the pages for what is new of it, as far as it comes. 1: done, 0: there are none,
 * -1: an error. */
static int pages_give(struct engine *g, struct sequence *q, i64 left, struct err *e) {
    const struct ids *ids = &q->own.ids;
    const int kind = model_rope_kind(g->m, ids->count);
    if (kind != q->own.kind) {
        pool_release(&g->pool, &q->own.pages, q->own.known = 0);
        if (q->own.slot >= 0) g->pool.slot[q->own.slot].count = -1;
    }
    q->own.kind = kind;
    const bool fresh = !q->own.known && !q->own.pages.count;
    if (fresh) {
        const i64 most = q->logits ? i64_min(q->own.told, ids->count - 1) : ids->count - 1;
        const i64 found = pool_match(&g->pool, kind, ids->item, most, &q->own.pages, e);
        if (found < 0) return -1;
        q->own.known = found;
    }
    if (q->own.slot >= 0) {
        const i64 at = pool_slot_to(&g->pool, q->own.slot, &q->own.pages, q->own.known, e);
        if (at < 0) return -1;
        if (at < q->own.known) pool_release(&g->pool, &q->own.pages, q->own.known = at);
    }
    if (fresh) g->counted.reused += q->own.known;
    q->own.upto = reach(g, q, left);
    const int rc =
        pool_extend(&g->pool, kind, ids->item, q->own.known, q->own.upto, &q->own.pages, e);
    if (rc <= 0) pool_release(&g->pool, &q->own.pages, q->own.known);
    return rc;
}

/* The text that came last, after place `i`, and holds pages gives them back. */
static bool preempt(struct engine *g, i64 i) {
    i64 last = g->count - 1;
    while (last > i && !g->list[last]->own.pages.count) last--;
    if (last <= i) return false;
    pool_release(&g->pool, &g->list[last]->own.pages, g->list[last]->own.known = 0);
    g->counted.preempted++;
    return true;
}

/* own.row of those that take part becomes 0; how many there are. Texts of which one id is new
 * always do; prompts as far as they come with `chunk` ids in all. */
static i64 schedule(struct engine *g, struct err *e) {
    i64 rows = 0, left = g->chunk;
    for (i64 i = 0; i < g->count; i++) g->list[i]->own.row = -1;
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        int rc = 0;
        if (q->own.done) continue;
        if (g->chunk && !left && q->own.ids.count - q->own.known > 1) continue;
        if (drafts_add(q, g->m, &g->counted, e)) return -1;
        rc = pages_give(g, q, left, e);
        if (!rc && q->own.drafted) drafts_drop(q), rc = pages_give(g, q, left, e);
        while (!rc && preempt(g, i)) rc = pages_give(g, q, left, e);
        if (rc < 0) return -1;
        if (rc) q->own.row = 0, rows++;
        if (rc && q->own.upto - q->own.known > 1 + q->own.drafted)
            left -= q->own.upto - q->own.known;
        if (!rc && !rows) {
            err_failed(e, "a text of %lld ids does not fit into the %lld positions of the pool",
                       (long long)q->own.ids.count, (long long)(g->pool.most * ATTENTION_PAGE));
            return err_hint(e, "use shorter texts, or a machine with more memory");
        }
        if (!rc) return pool_release(&g->pool, &q->own.pages, q->own.known = 0), rows;
    }
    return rows;
}

/* ---- what follows ---- */

static bool stops(const struct model *m, const struct sampling *s, u32 id) {
    if (s->ignore_eos) return false;
    for (i64 i = 0; s->stops && i < s->stops->count; i++)
        if (s->stops->item[i] == id) return true;
    return is_eos(&m->config, id);
}

/* op_sample gives no id, but -1, for logits that are no numbers. */
static int not_finite(const struct sequence *q, struct err *e) {
    err_failed(e,
               "the logits for token %lld (%lld of the prompt, %lld of the answer) are not finite",
               (long long)(q->count + q->out.count), (long long)q->count, (long long)q->out.count);
    return err_hint(e,
                    "the weights were finite when they were loaded: values overflow in between; a "
                    "smaller adapter weight, or --precision fp32, may help");
}

static int text_take(struct engine *g, struct sequence *q, u32 id, struct err *e) {
    const struct sampling *s = q->how;
    if ((i32)id < 0) {
        const int rc = not_finite(q, q->wrong ? q->wrong : e);
        return (q->own.done = q->wrong) ? 0 : rc;
    }
    if ((q->own.done = q->own.ids.count >= q->own.room || stops(g->m, s, id))) return 0;
    if (ids_add(&q->out, id, e) || ids_add(&q->own.ids, id, e)) return -1;
    const int told = q->each ? q->each(q->arg, id) : 0;
    if (told < 0) return -1;
    const bool end = q->own.ids.count >= q->own.room;
    if (end && !told && q->out.count < s->max_new_tokens && s->full) ++*s->full;
    q->own.done = told > 0 || end;
    return 0;
}

/* The ids behind those that were there before the pass. */
static int ids_take(struct engine *g, struct sequence *q, const u32 *ids, struct err *e) {
    const i64 right = q->own.drafted;
    drafts_drop(q);
    for (i64 i = 0; i <= right && !q->own.done; i++)
        if (text_take(g, q, ids[q->own.row + i], e)) return -1;
    return 0;
}

/* Tells a text its logits; the row of its id. */
static i64 logits_tell(const struct engine *g, struct sequence *q, i64 upto, i64 rows) {
    const i64 vocab = g->m->config.vocab_size, last = q->own.row + rows - 1;
    for (i64 r = q->own.row; q->logits && r <= last; r++) {
        const i64 place = upto - 1 - (last - r);
        if (place < q->own.told) continue;
        q->logits(q->arg, place, g->batch.logits + r * vocab), q->own.told = place + 1;
    }
    return last;
}

/* The pass has run: states are there, ids are given. How many texts go on. */
static i64 texts_take(struct engine *g, const u32 *ids, struct err *e) {
    i64 active = 0;
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        if (q->own.row < 0) continue;
        const i64 rows = rows_of(q);
        drafts_judge(q, ids + q->own.row, &g->pool, &g->counted);
        const i64 known = i64_min(q->own.upto, q->own.ids.count);
        g->counted.computed += known - q->own.known;
        q->own.known = known;
        if (q->logits) q->own.row = logits_tell(g, q, q->own.upto, rows);
        pool_ready(&g->pool, &q->own.pages);
        if (q->own.slot >= 0 &&
            pool_slot_ran(&g->pool, q->own.slot, &q->own.pages, q->own.known, e))
            return -1;
    }
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        if (q->own.row >= 0 && q->own.known == q->own.ids.count && ids_take(g, q, ids, e))
            return -1;
        if (q->own.done) pool_release(&g->pool, &q->own.pages, q->own.known = 0);
        active += !q->own.done;
    }
    return active;
}

/* Nobody knows which states a failed pass has made. */
static void failed(struct engine *g) {
    for (i64 i = 0; i < g->count; i++) {
        drafts_drop(g->list[i]);
        pool_release(&g->pool, &g->list[i]->own.pages, g->list[i]->own.known = 0);
    }
    pool_forget(&g->pool);
    batch_free(&g->batch);
}

i64 engine_step(struct engine *g, struct err *e) {
    const i64 rows = schedule(g, e);
    if (!rows) return 0;
    const struct pass_batch need = batch_need(g);
    const bool fresh = rows > 0 && !batch_serves(g, &g->batch, &need);
    u32 *ids = NULL;
    int rc = rows < 0 || (fresh && batch_open(g, &need, e)) ||
             !(ids = mem_new_array(g->batch.rows, sizeof *ids, e)) || batch_run(g, ids, e);
    i64 active = -1;
    if (rc)
        failed(g);
    else
        g->counted.passes++, active = texts_take(g, ids, e);
    mem_free(ids);
    return active;
}

/* ---- texts come and go ---- */

static int sequence_check(const struct model *m, const struct sequence *q, struct err *e) {
    const i64 positions = m->config.max_position_embeddings;
    if (q->count < 1) {
        err_input(e, "the prompt is empty");
        return err_hint(e, "give at least one token to go on from");
    }
    if (q->count >= positions + !q->how->max_new_tokens) {
        err_input(e, "the prompt has %lld tokens, but the model was made for %lld with the answer",
                  (long long)q->count, (long long)positions);
        return err_hint(e, "shorten the prompt");
    }
    for (i64 k = 0; k < q->count; k++)
        if (q->prompt[k] >= (u64)m->config.vocab_size)
            return err_input(e, "id %u is beyond the model's vocabulary of %lld", q->prompt[k],
                             (long long)m->config.vocab_size);
    return 0;
}

int engine_add(struct engine *g, struct sequence *q, struct err *e) {
    memset(&q->own, 0, sizeof q->own);
    q->own.row = -1, q->out.count = 0, q->own.told = q->logits_from;
    if (sequence_check(g->m, q, e)) return -1;
    q->own.room = i64_min(q->count + q->how->max_new_tokens, g->m->config.max_position_embeddings);
    if (model_rope(g->m, q->own.room, e)) return -1;
    q->own.slot = -1;
    if (g->count == g->room) {
        const i64 size = (i64)sizeof *g->list, room = 2 * g->room + 8;
        void *more = mem_grow(g->list, g->count * size, room * size, e);
        if (!more) return -1;
        g->list = more, g->room = room;
    }
    for (i64 i = 0; i < q->count; i++)
        if (ids_add(&q->own.ids, q->prompt[i], e)) return ids_free(&q->own.ids), -1;
    if (states_have(&g->pool.states, STATE_SEQUENCE) && (q->own.slot = pool_slot(&g->pool, e)) < 0)
        return ids_free(&q->own.ids), -1;
    g->list[g->count++] = q;
    return 0;
}

void engine_remove(struct engine *g, struct sequence *q) {
    i64 at = 0;
    while (at < g->count && g->list[at] != q) at++;
    if (at == g->count) return;
    memmove(g->list + at, g->list + at + 1, (size_t)(--g->count - at) * sizeof *g->list);
    pool_release(&g->pool, &q->own.pages, 0);
    mem_free(q->own.pages.item), ids_free(&q->own.ids);
    if (q->own.slot >= 0) pool_slot_free(&g->pool, q->own.slot);
    memset(&q->own, 0, sizeof q->own);
}

void engine_rollback(struct engine *g, struct sequence *q, i64 count) {
    count = i64_max(count, q->count);
    if (count >= q->own.ids.count) return;
    q->own.ids.count = count, q->out.count = count - q->count;
    q->own.told = i64_min(q->own.told, count - 1);
    q->own.known = i64_min(q->own.known, count - 1); /* the last id's pass gives what follows */
    pool_release(&g->pool, &q->own.pages, q->own.known);
    q->own.done = false;
}

struct engine_count engine_counted(const struct engine *g) {
    struct engine_count c = g->counted;
    c.evicted = g->pool.evicted, c.pages = g->pool.states.pages, c.most = g->pool.most;
    return c;
}

/* ---- the engine ---- */

struct engine *engine_open(struct model *m, const struct engine_plan *plan, struct err *e) {
    static const struct engine_plan usual;
    struct engine *g = mem_new(sizeof *g, e);
    struct states states = {0};
    if (!g) return NULL;
    if (!plan) plan = &usual;
    g->m = m, g->chunk = plan->chunk, g->bare = plan->bare;
    const i64 bytes = plan->bytes ? plan->bytes : device_available() / 10 * 9,
              wanted = plan->positions ? plan->positions : m->config.max_position_embeddings;
    int rc = states_describe(&states, m, plan->latent == LATENT_ALWAYS, e);
    if (!rc && plan->latent == LATENT_AUTO &&
        wanted / ATTENTION_PAGE > bytes / i64_max(1, states_page_bytes(&states))) {
        states_free(&states);
        rc = states_describe(&states, m, true, e);
    }
    pool_open(&g->pool, &states, bytes);
    if (!rc && states_have(&g->pool.states, STATE_SEQUENCE)) rc = pool_slot(&g->pool, e) < 0;
    if (!rc && !engine_reserve(g, plan->positions, e)) return g;
    engine_close(g);
    return NULL;
}

struct model *engine_model(const struct engine *g) {
    return g->m;
}

int engine_reserve(struct engine *g, i64 positions, struct err *e) {
    return pool_reserve(&g->pool, (positions + ATTENTION_PAGE - 1) / ATTENTION_PAGE, e);
}

void engine_close(struct engine *g) {
    if (!g) return;
    batch_free(&g->batch), pool_close(&g->pool);
    mem_free(g->list), mem_free(g->compact), mem_free(g);
}
