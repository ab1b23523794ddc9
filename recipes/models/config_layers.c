/* config_layers.c: what differs from layer to layer: windows, RoPE and its scalings. Expanded once,
 * when the configuration is read, so that the decoder looks up and decides nothing. */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>
#include <string.h>

static const char *const rope_names[] = {"default", "linear", "dynamic",
                                         "llama3",  "yarn",   "longrope"};

static int rope_type_of(struct rope_config *r, const char *type, const char *where, struct err *e) {
    if (!strcmp(type, "su")) type = "longrope"; /* its name in Phi-3's first files */
    for (int i = 0; i < COUNT(rope_names); i++)
        if (!strcmp(type, rope_names[i])) return r->type = i, 0;
    err_input(e, "%s: RoPE scaling '%s' is not supported", where, type);
    return err_detail(e, "supported: default, linear, dynamic, llama3, yarn, longrope");
}
const char *rope_text(const struct rope_config *r) { return rope_names[r->type]; }

static void factors_read(float *to, i64 count, const json_t *j, const char *key, const char *where,
                         struct err *e) {
    const json_t *list = json_object_get(j, key);
    bool good = json_is_array(list) && (i64)json_array_size(list) == count;
    for (i64 i = 0; good && i < count; i++) {
        const json_t *x = json_array_get(list, (size_t)i);
        good = json_is_number(x) && json_number_value(x) > 0;
        if (good) to[i] = (float)json_number_value(x);
    }
    if (!good)
        err_input(e, "%s: longrope needs '%s', a list of %lld positive numbers", where, key,
                  (long long)count);
}

/* The factor of cosines and sines that yarn's paper gives for a scale. */
static double yarn_scale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * m_log(factor) + 1;
}

static void yarn_read(struct rope_config *r, const json_t *j, const char *where, struct err *e) {
    const double mscale = json_f64(j, "mscale", 0, where, e);
    r->mscale_all_dim = json_f64(j, "mscale_all_dim", 0, where, e);
    r->beta_fast = json_f64(j, "beta_fast", 32, where, e);
    r->beta_slow = json_f64(j, "beta_slow", 1, where, e);
    r->truncate = json_bool(j, "truncate", true, where, e);
    const double usual =
        mscale != 0 && r->mscale_all_dim != 0
            ? yarn_scale(r->factor, mscale) / yarn_scale(r->factor, r->mscale_all_dim)
            : yarn_scale(r->factor, 1);
    r->attention_factor = json_f64(j, "attention_factor", usual, where, e);
    r->query_beta = json_f64(j, "llama_4_scaling_beta", 0, where, e);
    if (!e->code && !(r->beta_fast > 0 && r->beta_slow > 0 && r->attention_factor > 0))
        err_input(e, "%s: yarn needs positive beta_fast, beta_slow and attention_factor", where);
}

/* One table: `j` is `rope_scaling`, `rope_parameters`, or a part of the latter; NULL for none. */
static int rope_read(struct config *c, struct rope_config *r, const json_t *all, const json_t *j,
                     double theta, const char *where, struct err *e) {
    r->theta = json_is_object(j) ? json_f64(j, "rope_theta", theta, where, e) : theta;
    double share = json_f64(all, "partial_rotary_factor", 1, where, e);
    if (json_is_object(j)) share = json_f64(j, "partial_rotary_factor", share, where, e);
    if (e->code) return -1;
    if (!(r->theta > 0))
        return err_input(e, "%s: 'rope_theta' is %g; expected a positive number", where, r->theta);
    if (!(share > 0 && share <= 1))
        return err_input(e, "%s: 'partial_rotary_factor' is %g; expected more than 0, at most 1",
                         where, share);
    r->dims = c->mla.kv_rank ? c->mla.rope_dim : (i64)((double)c->head_dim * share);
    r->attention_factor = 1;
    if (r->dims < 2 || r->dims % 2)
        return err_input(e, "%s: RoPE would turn %lld of %lld dimensions; expected an even number",
                         where, (long long)r->dims, (long long)c->head_dim);
    if (!j || json_is_null(j)) return 0;
    if (!json_is_object(j))
        return err_input(e, "%s: 'rope_scaling' is no object; expected one, or null", where);
    const char *type =
        json_text(j, "rope_type", json_text(j, "type", "default", where, e), where, e);
    if (e->code || rope_type_of(r, type, where, e)) return -1;
    if (r->type == ROPE_DEFAULT) return 0;
    const double length = (double)c->max_position_embeddings;
    r->original_length =
        json_f64(j, "original_max_position_embeddings",
                 json_f64(all, "original_max_position_embeddings", length, where, e), where, e);
    const bool ratio = r->type == ROPE_YARN || r->type == ROPE_LONGROPE;
    r->factor = json_f64(j, "factor", ratio ? length / r->original_length : 0, where, e);
    if (!e->code && !(r->original_length > 0))
        err_input(e, "%s: 'original_max_position_embeddings' must be positive", where);
    if (!e->code && !(r->factor >= 1))
        err_input(e, "%s: RoPE scaling '%s' needs 'factor' of at least 1", where, type);
    if (e->code) return -1;
    if (r->type == ROPE_LLAMA3) {
        r->low_freq_factor = json_f64(j, "low_freq_factor", 1, where, e);
        r->high_freq_factor = json_f64(j, "high_freq_factor", 4, where, e);
        if (!e->code && !(r->high_freq_factor > r->low_freq_factor))
            err_input(e,
                      "%s: llama3 RoPE scaling needs low_freq_factor < high_freq_factor and a "
                      "positive original length",
                      where);
    } else if (r->type == ROPE_YARN)
        yarn_read(r, j, where, e);
    else if (r->type == ROPE_LONGROPE) {
        const double usual =
            r->factor <= 1 ? 1 : __builtin_sqrt(1 + m_log(r->factor) / m_log(r->original_length));
        r->attention_factor = json_f64(j, "attention_factor", usual, where, e);
        factors_read(r->short_factor, r->dims / 2, j, "short_factor", where, e);
        factors_read(r->long_factor, r->dims / 2, j, "long_factor", where, e);
    } else if (r->type == ROPE_DYNAMIC && r->dims < 4)
        err_input(e, "%s: dynamic RoPE scaling needs more than 2 dimensions", where);
    return e->code ? -1 : 0;
}

int ropes_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    if (c->alibi || c->family->learned_positions) return 0;
    const double theta = json_f64(j, "rope_theta", 10000, where, e) *
                         json_f64(j, "rope_ratio", 1, where, e); /* ChatGLM */
    const json_t *p = json_object_get(j, "rope_parameters");
    if (!json_is_object(p)) p = json_object_get(j, "rope_scaling");
    const json_t *full = json_object_get(p, "full_attention"),
                 *local = json_object_get(p, "sliding_attention");
    if (rope_read(c, &c->rope[0], j, full ? full : p, theta, where, e)) return -1;
    if (!c->family->local_rope) return 0;
    const double near = json_f64(j, "rope_local_base_freq", c->rope[0].theta, where, e);
    return e->code ? -1 : rope_read(c, &c->rope[1], j, local, near, where, e);
}

static bool is_type(const struct mixer *m, const char *type) {
    for (const char *const *t = m->types; t && *t; t++)
        if (!strcmp(*t, type)) return true;
    return false;
}

/* What `layer_types` says of layer l: the type, which a mixer of the family must have; NULL: the
 * file does not say, or an error. */
static const char *type_of(const struct config *c, const json_t *types, i64 l, const char *where,
                           struct err *e) {
    if (!json_is_array(types)) return NULL;
    const char *type = json_string_value(json_array_get(types, (size_t)l));
    struct text known = {0};
    for (int s = 0; s < BLOCK_SLOTS; s++)
        for (const struct mixer *const *m = c->family->block[s].mixers; *m; m++) {
            if (type && is_type(*m, type)) return text_free(&known), type;
            for (const char *const *t = (*m)->types; t && *t; t++)
                text_printf(&known, e, "%s%s", known.size ? " or " : "", *t);
        }
    err_input(e, "%s: 'layer_types' says '%.60s' of layer %lld of %s", where,
              type ? type : "nothing", (long long)l, c->family->model_type);
    err_detail(e, "expected %s", known.data ? known.data : "no such key");
    return text_free(&known), NULL;
}

/* The mixers of layer l: of each slot the one that has its type, or the last that takes it. */
static void mixers_choose(struct config *c, const json_t *j, const char *type, i64 l,
                          const char *where, struct err *e) {
    struct layer_config *at = &c->layer[l];
    for (int s = 0; s < BLOCK_SLOTS; s++) {
        const struct mixer *const *m = c->family->block[s].mixers;
        at->mixer[s] = *m;
        for (bool typed = false; *m && !typed; m++) {
            typed = type && is_type(*m, type);
            if (typed || ((*m)->at && (*m)->at(j, l, where, e))) at->mixer[s] = *m;
        }
    }
}

static bool rule_window(const struct config *c, const json_t *j, i64 l, const char *where,
                        struct err *e) {
    const bool used = json_bool(j, "use_sliding_window", true, where, e);
    switch (c->family->window) {
    case WINDOW_ALL: return true;
    case WINDOW_PATTERN: return (l + 1) % json_i64(j, "sliding_window_pattern", 1, where, e) != 0;
    case WINDOW_FROM: return used && l >= json_i64(j, "max_window_layers", 0, where, e);
    case WINDOW_NOPE: return used && c->layer[l].rope < 0;
    default: return false;
    }
}

int layers_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const json_t *types = json_object_get(j, "layer_types"),
                 *turns = json_object_get(j, "no_rope_layers");
    const i64 interval = json_i64(j, "no_rope_layer_interval", 0, where, e),
              pattern = json_i64(j, "sliding_window_pattern", 1, where, e);
    i64 window = json_i64(j, "sliding_window", 0, where, e);
    const double query = json_f64(j, "query_pre_attn_scalar", (double)c->head_dim, where, e);
    if (e->code) return -1;
    if (window < 0 || interval < 0 || pattern < 1 || !(query > 0))
        return err_input(e,
                         "%s: sliding_window, its pattern, no_rope_layer_interval and "
                         "query_pre_attn_scalar must be positive",
                         where);
    if (!json_bool(j, "use_sliding_window", true, where, e)) window = 0;
    for (i64 l = 0; l < c->layers; l++) {
        struct layer_config *at = &c->layer[l];
        const json_t *turn = json_array_get(turns, (size_t)l);
        const bool nope = turn ? !json_integer_value(turn) && !json_is_true(turn)
                               : interval && (l + 1) % interval == 0;
        *at = (struct layer_config){.scale = 1 / __builtin_sqrt(query)};
        if (c->mla.kv_rank && c->rope[0].mscale_all_dim != 0) {
            const double m = yarn_scale(c->rope[0].factor, c->rope[0].mscale_all_dim);
            at->scale *= m * m;
        }
        at->rope = nope || !c->rope[0].dims ? -1 : 0;
        const char *type = type_of(c, types, l, where, e);
        if (e->code) return -1;
        mixers_choose(c, j, type, l, where, e);
        const int said = type ? !strcmp(type, "sliding_attention") : -1; /* -1: nothing */
        if (c->family->window != WINDOW_NONE && (said < 0 ? rule_window(c, j, l, where, e) : said))
            at->window = window;
        if (c->family->local_rope && (said < 0 ? at->window > 0 : said)) at->rope = nope ? -1 : 1;
        if (json_bool(j, "scale_attn_by_inverse_layer_idx", false, where, e))
            at->scale /= (double)(l + 1);
    }
    return e->code ? -1 : 0;
}
