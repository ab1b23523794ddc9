/* rope_table.c: cosines and sines of RoPE, in f64 by base's own functions.
 *
 * Frequencies f_i = theta^(-2i/Z), scaled as the configuration says (formulas: Llama 3.1 model
 * card; linear: Chen et al., 2023), are rounded to f32 as transformers keeps them; the angle is
 * position * f_i in f64. A row holds Z/2 cosines, then Z/2 sines. */
#include "recipes/models/models_int.h"

static double frequency(const struct config *c, i64 i) {
    const double pi = 3.14159265358979323846;
    double f = 1 / m_pow(c->rope_theta, 2.0 * (double)i / (double)c->head_dim);
    f = (double)(float)f;
    if (c->rope_type == ROPE_LINEAR) return f / c->rope_factor;
    if (c->rope_type != ROPE_LLAMA3) return f;
    const double wave = 2 * pi / f, original = c->rope_original_length;
    if (wave > original / c->rope_low_freq_factor) return f / c->rope_factor;
    if (wave < original / c->rope_high_freq_factor) return f;
    const double t = (original / wave - c->rope_low_freq_factor) /
                     (c->rope_high_freq_factor - c->rope_low_freq_factor);
    return (1 - t) * f / c->rope_factor + t * f;
}

struct rows {
    float *table;
    const double *f;
    i64 half;
};
static void fill_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct rows *r = arg;
    for (i64 p = begin; p < end; p++)
        for (i64 i = 0; i < r->half; i++) {
            r->table[p * 2 * r->half + i] = (float)m_cos((double)p * r->f[i]);
            r->table[p * 2 * r->half + r->half + i] = (float)m_sin((double)p * r->f[i]);
        }
}

int model_rope(struct model *m, i64 positions, struct err *e) {
    if (positions <= m->rope_positions) return 0;
    if (positions > m->config.max_position_embeddings) {
        err_input(e, "%lld positions are asked for, but the model was made for %lld",
                  (long long)positions, (long long)m->config.max_position_embeddings);
        return err_hint(e, "use shorter sequences, or raise max_position_embeddings in the model's "
                           "config and train it on");
    }
    const i64 half = m->config.head_dim / 2;
    float *table = mem_new_array(positions, 2 * half * (i64)sizeof *table, e);
    double *f = table ? mem_new_array(half, sizeof *f, e) : NULL;
    float *there = f ? device_new(positions * 2 * half * (i64)sizeof *table, e) : NULL;
    if (!there) return mem_free(table), mem_free(f), -1;
    for (i64 i = 0; i < half; i++) f[i] = (double)(float)frequency(&m->config, i);
    struct rows job = {table, f, half};
    pool_run(positions, fill_rows, &job);
    const int rc =
        device_write(there, table, positions * 2 * half * (i64)sizeof *table, e) || device_sync(e);
    mem_free(f), mem_free(table), device_free(m->rope_table);
    m->rope_table = there, m->rope_positions = positions;
    return rc ? -1 : 0;
}
