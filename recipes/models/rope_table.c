/* rope_table.c: cosines and sines of RoPE, in f64 by base's own functions.
 *
 * Frequencies f_i = theta^(-2i/n), n the dimensions that turn, scaled as the configuration says:
 *   linear (Chen et al., 2023): f / s
 *   dynamic: theta' = theta (s L / Lmax - (s - 1))^(n / (n - 2)), L the longest row but at least
 *     Lmax. The cache of a generation is made for its whole length, so its keys have one theta
 *     (transformers grows theta from token to token and leaves older keys as they were)
 *   llama3 (Llama 3.1 model card): by wave length 2 pi / f between f / s and f
 *   yarn (Peng et al., 2023): between f and f / s by a ramp over i; c(r) = n ln(orig / 2 pi r) /
 *     (2 ln theta), from c(beta_fast) to c(beta_slow), to whole numbers unless truncate is false
 *   longrope (Ding et al., 2024): f / short_i for documents up to the original length, f / long_i
 *     for longer ones: the table holds both, one after the other (model_bind chooses)
 * rounded to f32 as transformers keeps them; the angle is position * f_i in f64. yarn and longrope
 * multiply cosines and sines by attention_factor. A row holds n/2 cosines, then n/2 sines.
 * query_beta (Ministral 3) scales queries by position; since they are turned anyway, that is a
 * second table for them.
 *
 * A table never changes: a longer one is another constant (autograd.h), and graphs keep the one
 * they were traced with. But for dynamic scaling a row is the same in a table of any length, so
 * that the length decides no bit. A dynamic table depends on it beyond max_position_embeddings
 * alone, which texts that are generated do not pass: the longest batch sets it for a whole run. */
#include "recipes/models/models_int.h"

static const double pi = 3.14159265358979323846;

static double llama3(const struct rope_config *r, double f) {
    const double wave = 2 * pi / f, original = r->original_length;
    if (wave > original / r->low_freq_factor) return f / r->factor;
    if (wave < original / r->high_freq_factor) return f;
    const double t =
        (original / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - t) * f / r->factor + t * f;
}

static double yarn(const struct rope_config *r, double f, i64 i) {
    const double n = (double)r->dims, per = n / (2 * m_log(r->theta));
    double low = per * m_log(r->original_length / (2 * pi * r->beta_fast)),
           high = per * m_log(r->original_length / (2 * pi * r->beta_slow));
    if (r->truncate) low = __builtin_floor(low), high = __builtin_ceil(high);
    if (low < 0) low = 0;
    if (high > n - 1) high = n - 1;
    if (low == high) high += 0.001;
    double ramp = ((double)i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return f / r->factor * ramp + f * (1 - ramp);
}

static double frequency(const struct config *c, const struct rope_config *r, i64 i, i64 positions,
                        bool beyond) {
    double theta = r->theta;
    const double n = (double)r->dims, longest = (double)c->max_position_embeddings;
    if (r->type == ROPE_DYNAMIC && (double)positions > longest)
        theta *= m_pow(r->factor * (double)positions / longest - (r->factor - 1), n / (n - 2));
    const double power = m_pow(theta, 2.0 * (double)i / n);
    if (r->type == ROPE_LONGROPE)
        return 1 / ((double)(beyond ? r->long_factor : r->short_factor)[i] * power);
    const double f = (double)(float)(1 / power);
    if (r->type == ROPE_LINEAR) return f / r->factor;
    if (r->type == ROPE_LLAMA3) return llama3(r, f);
    return r->type == ROPE_YARN ? yarn(r, f, i) : f;
}

double rope_factor(const struct rope_config *r, i64 i, bool beyond) {
    if (r->type == ROPE_LONGROPE) return (double)(beyond ? r->long_factor : r->short_factor)[i];
    if (r->type == ROPE_LINEAR) return r->factor;
    const double f = 1 / m_pow(r->theta, 2.0 * (double)i / (double)r->dims);
    return r->type == ROPE_LLAMA3 ? f / llama3(r, f) : 1;
}

struct rows {
    float *table;
    const double *f;
    double factor;
    const struct rope_config *query; /* NULL: the table is for keys as well */
    i64 half;
};
static void fill_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct rows *r = arg;
    for (i64 p = begin; p < end; p++) {
        double a = r->factor;
        if (r->query)
            a *= 1 + r->query->query_beta *
                         m_log(1 + __builtin_floor((double)p / r->query->original_length));
        for (i64 i = 0; i < r->half; i++) {
            r->table[p * 2 * r->half + i] = (float)(a * m_cos((double)p * r->f[i]));
            r->table[p * 2 * r->half + r->half + i] = (float)(a * m_sin((double)p * r->f[i]));
        }
    }
}

/* `positions` rows; with longrope twice as many. */
static struct constant *table_new(const struct config *c, const struct rope_config *r, bool query,
                                  i64 positions, struct err *e) {
    const i64 half = r->dims / 2, tables = r->type == ROPE_LONGROPE ? 2 : 1;
    const struct view view = {.dtype = F32, .rank = 2, .dim = {tables * positions, r->dims}};
    float *table = mem_new(view_bytes(&view), e);
    double *f = table ? mem_new_array(half, sizeof *f, e) : NULL;
    for (i64 t = 0; f && t < tables; t++) {
        for (i64 i = 0; i < half; i++) f[i] = (double)(float)frequency(c, r, i, positions, t > 0);
        struct rows job = {table + t * positions * r->dims, f, r->attention_factor,
                           query ? r : NULL, half};
        pool_run(positions, fill_rows, &job);
    }
    struct constant *made = f ? constant_new(&view, table, e) : NULL;
    mem_free(f), mem_free(table);
    return made;
}

static struct constant *slopes_new(const struct config *c, struct err *e) {
    float slopes[4096];
    alibi_slopes(slopes, c->heads);
    const struct view view = {.dtype = F32, .rank = 1, .dim = {c->heads}};
    return constant_new(&view, slopes, e);
}

int model_rope(struct model *m, i64 positions, struct err *e) {
    const struct config *c = &m->config;
    if (positions <= m->rope_positions) return 0;
    if (positions > c->max_position_embeddings && c->rope[0].type != ROPE_DYNAMIC) {
        err_input(e, "%lld positions are asked for, but the model was made for %lld",
                  (long long)positions, (long long)c->max_position_embeddings);
        return err_hint(e, "use shorter sequences, or raise max_position_embeddings in the model's "
                           "config and train it on");
    }
    if (c->alibi && !m->slopes && !(m->slopes = slopes_new(c, e))) return -1;
    struct constant *k[MAX_ROPES] = {0}, *q[MAX_ROPES] = {0};
    bool whole = true;
    for (int i = 0; i < MAX_ROPES; i++) {
        const struct rope_config *r = &c->rope[i];
        if (r->dims && whole) whole = (k[i] = table_new(c, r, false, positions, e)) != NULL;
        if (r->dims && whole && r->query_beta > 0)
            whole = (q[i] = table_new(c, r, true, positions, e)) != NULL;
    }
    for (int i = 0; i < MAX_ROPES; i++) { /* all of them, or none after an error */
        constant_drop(whole ? m->rope[i] : k[i]), constant_drop(whole ? m->query_rope[i] : q[i]);
        if (whole) m->rope[i] = k[i], m->query_rope[i] = q[i];
    }
    if (!whole) return -1;
    m->rope_positions = positions;
    return 0;
}

static bool beyond(const struct rope_config *r, i64 length) {
    return r->type == ROPE_LONGROPE && (double)length > r->original_length;
}

int model_rope_kind(const struct model *m, i64 length) {
    return beyond(&m->config.rope[0], length);
}

int model_bind(struct build *b, const struct places *p, struct err *e) {
    b->ids->view.data = (void *)p->ids, b->position->view.data = (void *)p->position;
    b->begin->view.data = (void *)p->begin, b->last->view.data = (void *)p->last;
    if (b->dropout_place) b->dropout_place->view.data = b->dropout_at;
    const struct rope_config *r = &b->m->config.rope[0];
    if (r->type != ROPE_LONGROPE) return 0;
    const i64 tokens = view_count(&b->position->view);
    if (!b->row && !(b->row = arena_new(&b->g->arena, tokens * (i64)sizeof *b->row, e))) return -1;
    const i32 *of = b->sequence ? b->sequence->view.data : NULL;
    /* A document is a run of equal begin, in one sequence, and ends with its highest position. */
    for (i64 at = 0, end; at < tokens; at = end) {
        i64 length = 0;
        for (end = at; end < tokens && p->begin[end] == p->begin[at] && (!of || of[end] == of[at]);
             end++)
            length = i64_max(length, p->position[end] + 1);
        const i64 shift = beyond(r, length) ? b->positions : 0;
        for (i64 i = at; i < end; i++) b->row[i] = (i32)(p->position[i] + shift);
    }
    b->position->view.data = b->row;
    return 0;
}
