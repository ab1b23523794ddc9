/* cache.c: what a model keeps of earlier positions while it generates: a row for each position and
 * state of a layer, in the sizes that the layers' mixers state. */
#include "recipes/models/mixers/mixers.h"

int model_states(const struct config *c, i64 layer, enum dtype d,
                 struct mixer_state out[MAX_STATES]) {
    int count = 0;
    for (int s = 0; s < BLOCK_SLOTS; s++) {
        const struct mixer *mixer = c->layer[layer].mixer[s];
        if (mixer->states) count += mixer->states(c, layer, d, out + count);
    }
    return count;
}

int cache_new(struct cache *c, const struct model *m, i64 rows, struct err *e) {
    const i64 layers = m->config.layers;
    *c = (struct cache){.rows = rows};
    if (!(c->k = mem_new_array(layers, sizeof *c->k, e)) ||
        !(c->v = mem_new_array(layers, sizeof *c->v, e)))
        return -1;
    for (i64 l = 0; l < layers; l++) {
        struct mixer_state s[MAX_STATES];
        model_states(&m->config, l, m->weights.dtype,
                     s); /* keys and values: mixers/attention.c, mla.c */
        c->k[l] = (struct view){.dtype = s[0].dtype, .rank = 2, .dim = {rows, s[0].columns}};
        c->v[l] = (struct view){.dtype = s[1].dtype, .rank = 2, .dim = {rows, s[1].columns}};
        if (!(c->k[l].data = device_new(view_bytes(&c->k[l]), e)) ||
            !(c->v[l].data = device_new(view_bytes(&c->v[l]), e)))
            return err_detail(e, "for the key-value cache of %lld positions", (long long)rows);
    }
    return 0;
}

void cache_free(struct cache *c, const struct model *m) {
    for (i64 l = 0; l < m->config.layers; l++) {
        if (c->k) device_free(c->k[l].data);
        if (c->v) device_free(c->v[l].data);
    }
    mem_free(c->k), mem_free(c->v);
    *c = (struct cache){0};
}

struct tensor *build_cached(struct build *b, struct tensor *rows, const struct view *to) {
    if (!b->cache) return rows;
    struct tensor *all = graph_param(b->g, to->data, "cache", to, false);
    struct tensor *out[OP_OUT] = {all};
    graph_call(b->g, &op_kv_store, NULL, BIND({"x", rows}, {"at", b->last}), out);
    return out[0];
}
