/* config.c: config.json to struct config.
 *
 * A key counts if all families have it (`common`) or if the family's defaults name it: then the
 * file's value, or the default of the family's class. Keys of other families that a file happens to
 * hold change nothing, as in transformers. What would change the computation and is not implemented
 * is refused by name (`fixed` of the family); what does not concern the computation is left alone
 * (the file itself is copied along unchanged). */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>
#include <string.h>

static const char *const common[] = {"model_type",
                                     "vocab_size",
                                     "hidden_size",
                                     "intermediate_size",
                                     "num_hidden_layers",
                                     "num_attention_heads",
                                     "num_key_value_heads",
                                     "head_dim",
                                     "max_position_embeddings",
                                     "rms_norm_eps",
                                     "initializer_range",
                                     "tie_word_embeddings",
                                     "hidden_act",
                                     "rope_theta",
                                     "rope_scaling",
                                     "rope_parameters",
                                     "partial_rotary_factor",
                                     "layer_types",
                                     "bos_token_id",
                                     "eos_token_id"};
/* Other spellings of the same. */
static const struct {
    const char *also, *key;
} aliases[] = {{"n_embd", "hidden_size"},
               {"n_embed", "hidden_size"},
               {"n_layer", "num_hidden_layers"},
               {"num_layers", "num_hidden_layers"},
               {"kv_channels", "head_dim"},
               {"padded_vocab_size", "vocab_size"},
               {"multi_query_group_num", "num_key_value_heads"},
               {"layernorm_epsilon", "rms_norm_eps"},
               {"n_head", "num_attention_heads"},
               {"n_head_kv", "num_key_value_heads"},
               {"num_kv_heads", "num_key_value_heads"},
               {"n_inner", "intermediate_size"},
               {"ffn_hidden_size", "intermediate_size"},
               {"n_positions", "max_position_embeddings"},
               {"seq_length", "max_position_embeddings"},
               {"layer_norm_eps", "rms_norm_eps"},
               {"layer_norm_epsilon", "rms_norm_eps"},
               {"hidden_activation", "hidden_act"},
               {"activation_function", "hidden_act"},
               {"activation", "hidden_act"},
               {"num_local_experts", "num_experts"},
               {"n_routed_experts", "num_experts"},
               {"experts_per_token", "num_experts_per_tok"},
               {"rotary_emb_base", "rope_theta"},
               {"rotary_pct", "partial_rotary_factor"}};

/* The family of a file, and the object that describes it: the file, or a wrapper's text part. */
static const json_t *family_find(struct config *c, const json_t *j, const char *where,
                                 struct err *e) {
    const char *type = json_text(j, "model_type", NULL, where, e);
    if (e->code) return NULL;
    if (!type) return err_input(e, "%s: 'model_type' is missing", where), NULL;
    const json_t *text = json_object_get(j, "text_config");
    int best = 0;
    for (int i = 0; i < family_count; i++) {
        const struct family *f = families[i];
        if (json_is_object(text) && f->wrapper && !strcmp(f->wrapper, type)) {
            const char *inner = json_text(text, "model_type", f->model_type, where, e);
            if (e->code || strcmp(inner, f->model_type)) continue;
            snprintf(c->note, sizeof c->note,
                     "%s is multimodal; its text part (%s) is what is read, run and saved", type,
                     f->model_type);
            c->wrapped = true;
            return c->family = f, text;
        }
        if (!strcmp(f->model_type, type)) return c->family = f, json_is_object(text) ? text : j;
        if (edit_distance(type, f->model_type) < edit_distance(type, families[best]->model_type))
            best = i;
    }
    err_input(e, "%s: model type '%s' is not supported", where, type);
    err_detail(e, "the nearest that is: '%s'", families[best]->model_type);
    err_hint(e, "`hone inspect families` lists what this version reads");
    return NULL;
}

/* The file's keys that count, over the family's defaults. A new reference. */
static json_t *effective(const struct family *f, const json_t *j, struct err *e) {
    json_t *all = json_parse(f->defaults, (i64)strlen(f->defaults), f->model_type, e);
    for (int i = 0; all && i < COUNT(common); i++)
        if (!json_object_get(all, common[i])) json_object_set_new(all, common[i], json_null());
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(all, next, key, value) {
        json_t *given = json_object_get(j, key);
        for (int i = 0; i < COUNT(aliases) && json_is_null(given ? given : json_null()); i++)
            if (!strcmp(aliases[i].key, key) && json_object_get(j, aliases[i].also))
                given = json_object_get(j, aliases[i].also);
        if (given) json_object_set(all, key, given);
    }
    return all;
}

static int fixed_check(const struct family *f, const json_t *j, const char *where, struct err *e) {
    json_t *fixed = f->fixed ? json_parse(f->fixed, (i64)strlen(f->fixed), f->model_type, e) : NULL;
    const char *key;
    json_t *value;
    json_object_foreach(fixed, key, value) {
        const json_t *given = json_object_get(j, key);
        if (!given || json_is_null(given) || json_equal(given, value)) continue;
        if (json_is_number(given) && json_is_number(value) &&
            json_number_value(given) == json_number_value(value))
            continue;
        err_input(e, "%s: '%s' has a value that is not supported for %s", where, key,
                  f->model_type);
        err_detail(e, "supported: %s",
                   json_is_true(value)    ? "true"
                   : json_is_false(value) ? "false"
                   : json_is_null(value)  ? "null"
                                          : "the default");
    }
    json_decref(fixed);
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

static int act_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    static const struct {
        const char *name;
        enum act act;
    } act[] = {{"silu", ACT_SILU},
               {"swish", ACT_SILU},
               {"gelu", ACT_GELU},
               {"gelu_new", ACT_GELU_TANH},
               {"gelu_fast", ACT_GELU_TANH},
               {"gelu_pytorch_tanh", ACT_GELU_TANH},
               {"relu", ACT_RELU}};
    const char *name = json_text(j, "hidden_act", "silu", where, e);
    if (e->code) return -1;
    for (int i = 0; i < COUNT(act); i++)
        if (!strcmp(act[i].name, name)) return c->act = act[i].act, 0;
    err_input(e, "%s: activation '%s' is not supported", where, name);
    return err_detail(e, "supported: silu, gelu, gelu_new, gelu_pytorch_tanh, relu");
}

static int consistent(const struct config *c, const char *where, struct err *e) {
    if (c->heads % c->kv_heads)
        return err_input(e, "%s: %lld attention heads cannot share %lld key-value heads evenly",
                         where, (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim % 2 || c->head_dim > 256)
        return err_input(e, "%s: the head size is %lld; expected an even number up to 256", where,
                         (long long)c->head_dim);
    if (!(c->norm_eps >= 0))
        return err_input(e, "%s: 'rms_norm_eps' is %g; expected 0 or more", where, c->norm_eps);
    return 0;
}

static void flags_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const struct family *f = c->family;
    c->has = f->has;
    if (!json_bool(j, "tie_word_embeddings", false, where, e)) c->has |= HAS_UNTIED;
    for (int i = 0; i < FAMILY_FLAGS && f->flag[i].key; i++)
        c->has |= json_bool(j, f->flag[i].key, false, where, e) ? f->flag[i].if_true
                                                                : f->flag[i].if_false;
    c->logit_softcap = json_f64(j, "final_logit_softcapping", 0, where, e);
    if (!e->code && !(c->logit_softcap >= 0))
        err_input(e, "%s: soft caps and clip_qkv must be 0 or more", where);
}

/* What the mixers that the family names read. */
static int mixers_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    for (int s = 0; s < BLOCK_SLOTS; s++)
        for (const struct mixer *const *at = c->family->block[s].mixers; *at; at++)
            if ((*at)->config && (*at)->config(c, j, where, e)) return -1;
    return 0;
}

static int read(struct config *c, const json_t *j, const char *where, struct err *e) {
    c->vocab_size = config_size(j, "vocab_size", -1, 1 << 24, where, e);
    c->hidden_size = config_size(j, "hidden_size", -1, 1 << 20, where, e);
    c->intermediate_size = config_size(
        j, "intermediate_size", c->family->mlp_4x ? 4 * c->hidden_size : -1, 1 << 22, where, e);
    c->layers = config_size(j, "num_hidden_layers", -1, MAX_LAYERS, where, e);
    c->heads = config_size(j, "num_attention_heads", -1, 4096, where, e);
    c->kv_heads = config_size(j, "num_key_value_heads", c->heads, 4096, where, e);
    const json_t *head_dim = json_object_get(j, "head_dim");
    if (!e->code && json_is_null(head_dim) && c->hidden_size % c->heads)
        return err_input(e,
                         "%s: hidden_size %lld is not a multiple of the %lld attention heads, and "
                         "'head_dim' is not given",
                         where, (long long)c->hidden_size, (long long)c->heads);
    if (!e->code)
        c->head_dim = config_size(j, "head_dim", c->hidden_size / c->heads, 4096, where, e);
    if (c->family->multi_head && !e->code)
        c->kv_heads = c->heads, c->head_dim = c->hidden_size / c->heads;
    c->max_position_embeddings = config_size(j, "max_position_embeddings", 2048, 1 << 30, where, e);
    c->norm_eps = json_f64(j, "rms_norm_eps", 1e-5, where, e);
    c->initializer_range = json_f64(j, "initializer_range", 0.02, where, e);
    if (c->family->embedding_sqrt) c->embedding_scale = __builtin_sqrt((double)c->hidden_size);
    flags_read(c, j, where, e);
    if (e->code || (!(c->has & HAS_XIELU) && act_read(c, j, where, e)) || ids_read(c, j, where, e))
        return -1;
    if ((c->family->finish && c->family->finish(c, j, where, e)) || mixers_read(c, j, where, e))
        return -1;
    return consistent(c, where, e) || ropes_read(c, j, where, e) || layers_read(c, j, where, e);
}

json_t *config_effective(const json_t *j, const char *where, struct err *e) {
    struct config c = {0};
    const json_t *text = family_find(&c, j, where, e);
    return text ? effective(c.family, text, e) : NULL;
}

int config_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    *c = (struct config){0};
    if (!json_is_object(j)) return err_input(e, "%s: expected a JSON object", where);
    const json_t *text = family_find(c, j, where, e);
    json_t *all = text ? effective(c->family, text, e) : NULL;
    /* The ids that end a text may stand outside of a wrapper's text part. */
    json_t *eos = json_object_get(j, "eos_token_id");
    if (all && eos && json_is_null(json_object_get(all, "eos_token_id")))
        json_object_set(all, "eos_token_id", eos);
    const int rc = !all || fixed_check(c->family, text, where, e) || read(c, all, where, e) ||
                   quant_config_read(c, j, where, e);
    json_decref(all);
    return rc || e->code ? -1 : 0;
}

bool is_eos(const struct config *c, i64 id) {
    for (i64 i = 0; i < c->eos_count; i++)
        if (c->eos_token_id[i] == id) return true;
    return false;
}
