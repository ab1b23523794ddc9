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
#include "train/engine/pool.h"

#include <string.h>

/* A pass and its inputs; kept as long as steps are of the same shape. */
struct pass_batch {
    struct pass pass;
    i64 tokens, rows, page_count, gathered, moves;
    i32 *places; /* ids, position, begin, last, store, sequence, slot: [7][tokens] */
    i32 *row, *step, *pages, *gather;
    struct sample_how *how;
    u8 *had; /* [rows][V], where there is a penalty */
    bool penalty;
};

struct engine {
    struct model *m;
    struct pool pool;
    struct sequence **list;
    i64 count, room;
    struct pass_batch batch;
    i32 *compact; /* latents: what a page is called in the pass's list; -1: not in it */
    i64 compacts;
    struct engine_count counted;
};

static void batch_free(struct pass_batch *b) {
    pass_close(&b->pass);
    mem_free(b->places), mem_free(b->row), mem_free(b->step), mem_free(b->pages);
    mem_free(b->gather), mem_free(b->how), mem_free(b->had);
    *b = (struct pass_batch){0};
}

/* What the texts of this step need of a pass. */
static struct pass_batch batch_need(const struct engine *g) {
    struct pass_batch n = {.moves = g->pool.moves};
    for (i64 i = 0; i < g->count; i++) {
        const struct sequence *q = g->list[i];
        if (q->own.row < 0) continue;
        n.rows += 1 + q->own.drafted, n.tokens += q->own.ids.count - q->own.known;
        n.page_count = i64_max(n.page_count, q->own.pages.count);
        n.gathered += q->own.pages.count;
        n.penalty |= penalised(q->how);
    }
    if (!g->pool.states.latent) n.gathered = 0;
    return n;
}

/* Sizes of tables grow in steps of an eighth, so that a pass serves for a while. */
static i64 rounded(i64 n, i64 least) {
    i64 step = least;
    while (step * 16 <= n) step *= 2;
    return round_up(n, step);
}

static bool batch_serves(const struct engine *g, const struct pass_batch *b,
                         const struct pass_batch *n) {
    const bool decodes = b->tokens == b->rows && n->tokens == n->rows;
    return b->pass.graph && decodes && n->rows <= b->rows && n->rows > b->rows / 2 &&
           n->page_count <= b->page_count && n->gathered <= b->gathered && n->moves == b->moves &&
           n->penalty <= b->penalty && b->pass.build.positions == g->m->rope_positions;
}

static int batch_open(struct engine *g, const struct pass_batch *need, struct err *e) {
    struct pass_batch *b = &g->batch;
    batch_free(b);
    *b = *need;
    b->page_count = rounded(need->page_count, 8);
    b->gathered = need->gathered ? rounded(need->gathered, 1) : 0;
    const struct pass_plan plan = {.model = g->m,
                                   .tokens = b->tokens,
                                   .gives = PASS_IDS,
                                   .rows = b->rows,
                                   .penalty = b->penalty,
                                   .states = &g->pool.states,
                                   .sequences = b->rows,
                                   .page_count = b->page_count,
                                   .gathered = b->gathered,
                                   .eager = globals.eager};
    const i64 size = sizeof(i32);
    if (!(b->places = mem_new_array(7 * b->tokens, size, e)) ||
        !(b->row = mem_new_array(b->rows, size, e)) ||
        !(b->step = mem_new_array(2 * b->rows, size, e)) ||
        !(b->pages = mem_new_array(b->rows * b->page_count, size, e)) ||
        !(b->gather = mem_new_array(b->gathered * ATTENTION_PAGE, size, e)) ||
        !(b->how = mem_new_array(b->rows, sizeof *b->how, e)) ||
        (b->penalty && !(b->had = mem_new_array(b->rows, g->m->config.vocab_size, e))))
        return -1;
    return pass_open(&b->pass, &plan, e);
}

/* ---- the inputs of a pass ---- */

static i32 row_of_page(i32 page, i64 place) {
    return (i32)(page * ATTENTION_PAGE + place % ATTENTION_PAGE);
}

/* Latents: the pages of all texts in one list, each once. */
static int gather_put(struct engine *g, const struct page_list *pages, i32 *table, i64 *listed,
                      struct err *e) {
    struct pass_batch *b = &g->batch;
    if (g->compacts < g->pool.states.pages) {
        mem_free(g->compact);
        g->compacts = g->pool.states.pages;
        if (!(g->compact = mem_new_array(g->compacts, sizeof *g->compact, e))) {
            g->compacts = 0;
            return -1;
        }
        *listed = 0;
    }
    if (!*listed)
        for (i64 i = 0; i < g->compacts; i++) g->compact[i] = -1;
    for (i64 i = 0; i < pages->count; i++) {
        i32 *at = &g->compact[pages->item[i]];
        if (*at < 0) {
            *at = (i32)(*listed)++;
            for (i64 k = 0; k < ATTENTION_PAGE; k++)
                b->gather[*at * ATTENTION_PAGE + k] = row_of_page(pages->item[i], k);
        }
        table[i] = *at;
    }
    return 0;
}

static void settings_put(struct pass_batch *b, i64 r, const struct sequence *q, i64 vocab) {
    const struct sampling *s = q->how; /* a text with a penalty has no guesses */
    b->how[r] =
        (struct sample_how){s->temperature, s->top_k,     s->top_p,
                            s->min_p,       (u64)s->seed, penalised(s) ? s->repetition_penalty : 1};
    if (!b->had) return;
    memset(b->had + r * vocab, 0, (size_t)vocab);
    for (i64 i = 0; i < q->own.ids.count; i++) b->had[r * vocab + q->own.ids.item[i]] = 1;
}

/* Adds what is new of q as inputs n.. of row r; how many. */
static i64 text_put(struct engine *g, const struct sequence *q, i64 r, i64 n) {
    struct pass_batch *b = &g->batch;
    const i64 t = b->tokens, first = n;
    for (i64 at = q->own.known; at < q->own.ids.count; at++, n++) {
        b->places[n] = (i32)q->own.ids.item[at];
        b->places[t + n] = b->places[3 * t + n] = (i32)at;
        b->places[2 * t + n] = 0;
        b->places[4 * t + n] = row_of_page(q->own.pages.item[at / ATTENTION_PAGE], at);
        b->places[5 * t + n] = (i32)r;
        b->places[6 * t + n] = q->own.slot < 0 ? 0 : q->own.slot;
    }
    for (i64 i = 0; i <= q->own.drafted; i++, r++) { /* what follows each guess, too */
        const i64 behind = q->own.drafted - i;
        b->row[r] = (i32)(n - 1 - behind);
        b->step[2 * r] = (i32)(q->own.ids.count - behind), b->step[2 * r + 1] = (i32)q->stream;
        settings_put(b, r, q, g->m->config.vocab_size);
    }
    return n - first;
}

/* Rows that no text has see nothing and are stored nowhere. */
static void idle_put(struct pass_batch *b, i64 r) {
    for (i64 t = b->tokens; r < b->rows; r++) {
        b->places[r] = b->places[t + r] = b->places[2 * t + r] = b->places[5 * t + r] = 0;
        b->places[3 * t + r] = b->places[4 * t + r] = -1;
        b->places[6 * t + r] = 0; /* nobody's */
        b->row[r] = (i32)r, b->step[2 * r] = b->step[2 * r + 1] = 0;
        b->how[r] = (struct sample_how){.top_p = 1, .repetition_penalty = 1};
    }
}

static int batch_put(struct engine *g, struct err *e) {
    struct pass_batch *b = &g->batch;
    i64 n = 0, rows = 0, listed = 0;
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        if (q->own.row < 0) continue;
        i32 *table = b->pages + rows * b->page_count;
        q->own.row = rows;
        if (!b->gathered)
            memcpy(table, q->own.pages.item, (size_t)q->own.pages.count * sizeof *table);
        else if (gather_put(g, &q->own.pages, table, &listed, e))
            return -1;
        n += text_put(g, q, rows, n), rows += 1 + q->own.drafted;
    }
    idle_put(b, rows);
    return 0;
}

static int batch_run(struct engine *g, u32 *ids, struct err *e) {
    struct pass_batch *b = &g->batch;
    const i32 *in = b->places;
    const i64 t = b->tokens;
    const struct pass_inputs inputs = {
        .places = {in, in + t, in + 2 * t, in + 3 * t},
        .states = {in + 4 * t, in + 5 * t, b->pages, b->gather, in + 6 * t},
        .row = b->row,
        .step = b->step,
        .how = b->how,
        .seen = b->had};
    return batch_put(g, e) || pass_bind(&b->pass, &inputs, e) || pass_run(&b->pass, e) ||
                   pass_read(&b->pass, ids, e)
               ? -1
               : 0;
}

/* ---- who is in a step ---- */

/* Gives a text the pages for what is new of it. 1: done, 0: there are none, -1: an error. */
static int pages_give(struct engine *g, struct sequence *q, struct err *e) {
    const struct ids *ids = &q->own.ids;
    const int kind = model_rope_kind(g->m, ids->count);
    if (kind != q->own.kind) {
        pool_release(&g->pool, &q->own.pages, q->own.known = 0);
        if (q->own.slot >= 0) g->pool.slot[q->own.slot].count = -1;
    }
    q->own.kind = kind;
    const bool fresh = !q->own.known && !q->own.pages.count;
    if (fresh) {
        const i64 found = pool_match(&g->pool, kind, ids->item, ids->count - 1, &q->own.pages, e);
        if (found < 0) return -1;
        q->own.known = found;
    }
    if (q->own.slot >= 0) {
        const i64 at = pool_slot_to(&g->pool, q->own.slot, &q->own.pages, q->own.known, e);
        if (at < 0) return -1;
        if (at < q->own.known) pool_release(&g->pool, &q->own.pages, q->own.known = at);
    }
    if (fresh) g->counted.reused += q->own.known;
    const int rc =
        pool_extend(&g->pool, kind, ids->item, q->own.known, ids->count, &q->own.pages, e);
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

/* own.row of those that take part becomes 0; how many there are. */
static i64 schedule(struct engine *g, struct err *e) {
    i64 rows = 0;
    for (i64 i = 0; i < g->count; i++) g->list[i]->own.row = -1;
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        int rc = 0;
        if (q->own.done) continue;
        if (drafts_add(q, g->m, &g->counted, e)) return -1;
        rc = pages_give(g, q, e);
        if (!rc && q->own.drafted) drafts_drop(q), rc = pages_give(g, q, e);
        while (!rc && preempt(g, i)) rc = pages_give(g, q, e);
        if (rc < 0) return -1;
        if (rc) q->own.row = 0, rows++;
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
    if ((i32)id < 0) return not_finite(q, e);
    if ((q->own.done = stops(g->m, s, id))) return 0;
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

/* The pass has run: states are there, ids are given. How many texts go on. */
static i64 texts_take(struct engine *g, const u32 *ids, struct err *e) {
    i64 active = 0;
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        if (q->own.row < 0) continue;
        drafts_judge(q, ids + q->own.row, &g->pool, &g->counted);
        g->counted.computed += q->own.ids.count - q->own.known;
        q->own.known = q->own.ids.count;
        pool_ready(&g->pool, &q->own.pages);
        if (q->own.slot >= 0 &&
            pool_slot_ran(&g->pool, q->own.slot, &q->own.pages, q->own.known, e))
            return -1;
    }
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        if (q->own.row >= 0 && ids_take(g, q, ids, e)) return -1;
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
    if (q->count >= positions) {
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
    q->own.row = -1, q->out.count = 0;
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
    q->own.known = i64_min(q->own.known, count - 1); /* the last id's pass gives what follows */
    pool_release(&g->pool, &q->own.pages, q->own.known);
    q->own.done = false;
}

struct engine_count engine_counted(const struct engine *g) {
    struct engine_count c = g->counted;
    c.evicted = g->pool.evicted, c.pages = g->pool.states.pages;
    return c;
}

/* ---- the engine ---- */

struct engine *engine_open(struct model *m, const struct engine_plan *plan, struct err *e) {
    static const struct engine_plan usual;
    struct engine *g = mem_new(sizeof *g, e);
    struct states states = {0};
    if (!g) return NULL;
    if (!plan) plan = &usual;
    g->m = m;
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
