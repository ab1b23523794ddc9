/* batch.c: the pass of a step: opened for the texts that take part, kept as long as steps are of
 * the same shape, its inputs put together, run. */
#include "train/engine/batch.h"

#include <string.h>

void batch_free(struct pass_batch *b) {
    pass_close(&b->pass);
    mem_free(b->places), mem_free(b->row), mem_free(b->step), mem_free(b->pages);
    mem_free(b->gather), mem_free(b->how), mem_free(b->had), mem_free(b->logits);
    *b = (struct pass_batch){0};
}

i64 rows_of(const struct sequence *q) {
    const i64 last = q->own.upto - 1;
    return q->logits ? 1 + i64_max(0, last - i64_max(q->own.known, q->own.told))
                     : 1 + q->own.drafted;
}

struct pass_batch batch_need(const struct engine *g) {
    struct pass_batch n = {.moves = g->pool.moves};
    for (i64 i = 0; i < g->count; i++) {
        const struct sequence *q = g->list[i];
        if (q->own.row < 0) continue;
        n.texts++, n.rows += rows_of(q), n.tokens += q->own.upto - q->own.known;
        n.page_count = i64_max(n.page_count, q->own.pages.count);
        n.gathered += q->own.pages.count;
        n.penalty |= penalised(q->how), n.told |= q->logits != NULL;
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

bool batch_serves(const struct engine *g, const struct pass_batch *b, const struct pass_batch *n) {
    const bool decodes = b->tokens == b->rows && n->tokens == n->rows;
    return b->pass.graph && decodes && n->texts <= b->texts && n->rows <= b->rows &&
           n->rows > b->rows / 2 && n->page_count <= b->page_count && n->gathered <= b->gathered &&
           n->moves == b->moves && n->penalty <= b->penalty && n->told == b->told &&
           b->pass.build.positions == g->m->rope_positions;
}

int batch_open(struct engine *g, const struct pass_batch *need, struct err *e) {
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
                                   .logits = b->told,
                                   .bare = g->bare,
                                   .states = &g->pool.states,
                                   .sequences = b->texts,
                                   .page_count = b->page_count,
                                   .gathered = b->gathered,
                                   .eager = globals.eager};
    const i64 size = sizeof(i32), vocab = g->m->config.vocab_size;
    if (!(b->places = mem_new_array(7 * b->tokens, size, e)) ||
        !(b->row = mem_new_array(b->rows, size, e)) ||
        !(b->step = mem_new_array(2 * b->rows, size, e)) ||
        !(b->pages = mem_new_array(b->texts * b->page_count, size, e)) ||
        !(b->gather = mem_new_array(b->gathered * ATTENTION_PAGE, size, e)) ||
        !(b->how = mem_new_array(b->rows, sizeof *b->how, e)) ||
        (b->penalty && !(b->had = mem_new_array(b->rows, vocab, e))) ||
        (b->told && !(b->logits = mem_new_array(b->rows, vocab * (i64)sizeof *b->logits, e))))
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
    const struct sampling *s = q->how;
    b->how[r] =
        (struct sample_how){s->temperature, s->top_k,     s->top_p,
                            s->min_p,       (u64)s->seed, penalised(s) ? s->repetition_penalty : 1};
    if (!b->had) return;
    memset(b->had + r * vocab, 0, (size_t)vocab);
    for (i64 i = 0; i < q->own.ids.count; i++) b->had[r * vocab + q->own.ids.item[i]] = 1;
}

/* Adds what is new of q, the pass's text number `text`, as inputs n..; how many. */
static i64 text_put(struct engine *g, const struct sequence *q, i64 text, i64 n) {
    struct pass_batch *b = &g->batch;
    const i64 t = b->tokens, first = n, rows = rows_of(q);
    for (i64 at = q->own.known; at < q->own.upto; at++, n++) {
        b->places[n] = (i32)q->own.ids.item[at];
        b->places[t + n] = b->places[3 * t + n] = (i32)at;
        b->places[2 * t + n] = 0;
        b->places[4 * t + n] = row_of_page(q->own.pages.item[at / ATTENTION_PAGE], at);
        b->places[5 * t + n] = (i32)text;
        b->places[6 * t + n] = q->own.slot < 0 ? 0 : q->own.slot;
    }
    for (i64 r = q->own.row, i = n - rows; i < n; i++, r++) { /* what follows each guess, too */
        b->row[r] = (i32)i;
        b->step[2 * r] = (i32)(q->own.ids.count - (n - 1 - i)), b->step[2 * r + 1] = (i32)q->stream;
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
    i64 n = 0, texts = 0, rows = 0, listed = 0;
    for (i64 i = 0; i < g->count; i++) {
        struct sequence *q = g->list[i];
        if (q->own.row < 0) continue;
        i32 *table = b->pages + texts * b->page_count;
        q->own.row = rows, rows += rows_of(q);
        if (!b->gathered)
            memcpy(table, q->own.pages.item, (size_t)q->own.pages.count * sizeof *table);
        else if (gather_put(g, &q->own.pages, table, &listed, e))
            return -1;
        n += text_put(g, q, texts++, n);
    }
    idle_put(b, rows);
    return 0;
}

int batch_run(struct engine *g, u32 *ids, struct err *e) {
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
                   pass_read(&b->pass, ids, e) ||
                   (b->told && pass_read_logits(&b->pass, b->logits, e))
               ? -1
               : 0;
}
