/* config.c: config.json to struct config. What would change the computation and is not supported is
 * refused by name; what does not concern the computation is left alone (the file itself is copied
 * along unchanged). */
#include "recipes/models/models.h"

#include <jansson.h>
#include <string.h>

const struct family *const families[] = {&family_llama, &family_olmo2};
const int family_count = COUNT(families);

static int family_find(struct config *c, const json_t *j, const char *where, struct err *e) {
    const char *type = json_text(j, "model_type", NULL, where, e);
    if (e->code) return -1;
    if (!type) return err_input(e, "%s: 'model_type' is missing", where);
    int best = 0;
    for (int i = 0; i < family_count; i++) {
        if (!strcmp(families[i]->model_type, type)) return c->family = families[i], 0;
        if (edit_distance(type, families[i]->model_type) <
            edit_distance(type, families[best]->model_type))
            best = i;
    }
    err_input(e, "%s: model type '%s' is not supported", where, type);
    err_detail(e, "the nearest that is: '%s'", families[best]->model_type);
    return err_hint(e, "`hone inspect families` lists what this version reads");
}

static i64 size_of(const json_t *j, const char *key, i64 otherwise, i64 top, const char *where,
                   struct err *e) {
    const i64 n = json_i64(j, key, otherwise, where, e);
    if (e->code) return 0;
    if (n >= 1 && n <= top) return n;
    const json_t *given = json_object_get(j, key);
    if (!given || json_is_null(given))
        err_input(e, "%s: '%s' is missing", where, key);
    else
        err_input(e, "%s: '%s' is %lld; expected 1 to %lld", where, key, (long long)n,
                  (long long)top);
    return 0;
}

static int rope_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const json_t *r = json_object_get(j, "rope_parameters");
    c->rope_theta = json_f64(j, "rope_theta", c->family->rope_theta, where, e);
    if (json_is_object(r))
        c->rope_theta = json_f64(r, "rope_theta", c->rope_theta, where, e);
    else
        r = json_object_get(j, "rope_scaling");
    if (e->code) return -1;
    if (!(c->rope_theta > 0))
        return err_input(e, "%s: 'rope_theta' is %g; expected a positive number", where,
                         c->rope_theta);
    if (!r || json_is_null(r)) return 0;
    if (!json_is_object(r))
        return err_input(e, "%s: 'rope_scaling' is no object; expected one, or null", where);
    const char *type =
        json_text(r, "rope_type", json_text(r, "type", "default", where, e), where, e);
    if (e->code) return -1;
    if (!strcmp(type, "default")) return 0;
    c->rope_factor = json_f64(r, "factor", 0, where, e);
    if (!e->code && !(c->rope_factor >= 1))
        err_input(e, "%s: RoPE scaling '%s' needs 'factor' of at least 1", where, type);
    if (!strcmp(type, "linear"))
        c->rope_type = ROPE_LINEAR;
    else if (!strcmp(type, "llama3")) {
        c->rope_type = ROPE_LLAMA3;
        c->rope_low_freq_factor = json_f64(r, "low_freq_factor", 1, where, e);
        c->rope_high_freq_factor = json_f64(r, "high_freq_factor", 4, where, e);
        c->rope_original_length = json_f64(r, "original_max_position_embeddings", 8192, where, e);
        if (!e->code &&
            !(c->rope_high_freq_factor > c->rope_low_freq_factor && c->rope_original_length > 0))
            err_input(e,
                      "%s: llama3 RoPE scaling needs low_freq_factor < high_freq_factor and a "
                      "positive original length",
                      where);
    } else if (!e->code) {
        err_input(e, "%s: RoPE scaling '%s' is not supported", where, type);
        err_detail(e, "supported: default, linear, llama3");
    }
    return e->code ? -1 : 0;
}

static int ids_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    c->bos_token_id = json_i64(j, "bos_token_id", -1, where, e);
    const json_t *eos = json_object_get(j, "eos_token_id");
    if (!json_is_array(eos)) {
        c->eos_token_id[0] = json_i64(j, "eos_token_id", -1, where, e);
        c->eos_count = c->eos_token_id[0] >= 0;
        return e->code ? -1 : 0;
    }
    for (size_t i = 0; i < json_array_size(eos); i++) {
        const json_t *id = json_array_get(eos, i);
        if (!json_is_integer(id) || i >= COUNT(c->eos_token_id))
            return err_input(e, "%s: 'eos_token_id' must be an integer or up to %d of them", where,
                             (int)COUNT(c->eos_token_id));
        c->eos_token_id[c->eos_count++] = json_integer_value(id);
    }
    return 0;
}

static int consistent(const struct config *c, const char *act, const char *where, struct err *e) {
    if (strcmp(act, "silu")) {
        err_input(e, "%s: activation '%s' is not supported for %s", where, act,
                  c->family->model_type);
        return err_detail(e, "supported: silu");
    }
    if (c->heads % c->kv_heads)
        return err_input(e, "%s: %lld attention heads cannot share %lld key-value heads evenly",
                         where, (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim % 2 || c->head_dim > 256)
        return err_input(e, "%s: the head size is %lld; expected an even number up to 256", where,
                         (long long)c->head_dim);
    if (!(c->rms_norm_eps >= 0))
        return err_input(e, "%s: 'rms_norm_eps' is %g; expected 0 or more", where, c->rms_norm_eps);
    return 0;
}

int config_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    *c = (struct config){0};
    if (!json_is_object(j)) return err_input(e, "%s: expected a JSON object", where);
    if (family_find(c, j, where, e)) return -1;
    c->vocab_size = size_of(j, "vocab_size", -1, 1 << 24, where, e);
    c->hidden_size = size_of(j, "hidden_size", -1, 1 << 20, where, e);
    c->intermediate_size = size_of(j, "intermediate_size", -1, 1 << 22, where, e);
    c->layers = size_of(j, "num_hidden_layers", -1, 4096, where, e);
    c->heads = size_of(j, "num_attention_heads", -1, 4096, where, e);
    c->kv_heads = size_of(j, "num_key_value_heads", c->heads, 4096, where, e);
    const json_t *head_dim = json_object_get(j, "head_dim");
    if (!e->code && (!head_dim || json_is_null(head_dim)) && c->hidden_size % c->heads)
        return err_input(e,
                         "%s: hidden_size %lld is not a multiple of the %lld attention heads, and "
                         "'head_dim' is not given",
                         where, (long long)c->hidden_size, (long long)c->heads);
    if (!e->code) c->head_dim = size_of(j, "head_dim", c->hidden_size / c->heads, 4096, where, e);
    c->max_position_embeddings = size_of(j, "max_position_embeddings", 2048, 1 << 30, where, e);
    c->rms_norm_eps = json_f64(j, "rms_norm_eps", c->family->rms_norm_eps, where, e);
    c->initializer_range = json_f64(j, "initializer_range", 0.02, where, e);
    c->tie_word_embeddings = json_bool(j, "tie_word_embeddings", false, where, e);
    c->attention_bias = json_bool(j, "attention_bias", false, where, e);
    c->mlp_bias = json_bool(j, "mlp_bias", false, where, e);
    const char *act = json_text(j, "hidden_act", "silu", where, e);
    if (e->code || rope_read(c, j, where, e) || ids_read(c, j, where, e)) return -1;
    return consistent(c, act, where, e);
}

bool is_eos(const struct config *c, i64 id) {
    for (i64 i = 0; i < c->eos_count; i++)
        if (c->eos_token_id[i] == id) return true;
    return false;
}
