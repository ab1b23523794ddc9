/* model.c: a model's parameters from its family's table: allocated, started, loaded, listed. */
#include "recipes/models/mixers/mixers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static i64 dim_of(const struct config *c, enum dim_name d) {
    const i64 z = c->head_dim;
    switch (d) {
    case DIM_SCALAR:
    case DIM_ONE: return 1;
    case DIM_D: return c->hidden_size;
    case DIM_F: return c->intermediate_size;
    case DIM_2F: return 2 * c->intermediate_size;
    case DIM_V: return c->vocab_size;
    case DIM_P: return c->max_position_embeddings;
    case DIM_HZ: return c->heads * z;
    case DIM_KZ: return c->kv_heads * z;
    case DIM_QKV: return (c->heads + 2 * c->kv_heads) * z;
    case DIM_Z: return z;
    case DIM_H: return c->heads;
    case DIM_E: return c->experts;
    case DIM_EF: return c->expert_size;
    case DIM_2EF: return 2 * c->expert_size;
    case DIM_SF: return c->shared_size;
    case DIM_QR: return c->mla.q_rank;
    case DIM_KVR: return c->mla.kv_rank;
    case DIM_KVRT: return c->mla.kv_rank + c->mla.rope_dim;
    case DIM_KVB: return c->heads * (c->mla.plain + c->mla.value);
    case DIM_HV: return c->heads * c->mla.value;
    default: return 0;
    }
}

static bool of_layers(const struct weight_rule *w) { return strstr(w->name, "%L") != NULL; }
static bool is_matrix(const struct weight_rule *w) {
    return w->cols != DIM_NONE && w->cols != DIM_BIAS;
}

/* Whether layer l, or with -1 the model, has this tensor: that of a mixer only where the layer has
 * the mixer. */
static bool applies(const struct config *c, const struct weight_rule *w, i64 l) {
    bool here = !w->type->mixer;
    for (int s = 0; s < BLOCK_SLOTS && !here; s++) here = c->layer[l].mixer[s] == w->type->mixer;
    return here && (w->when & ~c->has) == 0;
}

/* The family's rules, group after group. Returns how many. */
enum { RULES = 96 };
static int rules_of(const struct family *f, const struct weight_rule *list[RULES]) {
    int count = 0;
    for (int g = 0; f->weights[g]; g++)
        for (const struct weight_rule *w = f->weights[g]; w->name; w++) {
            assert(count < RULES);
            list[count++] = w;
        }
    return count;
}

/* How many numbers a rule stands for in a layer. */
static i64 rule_count(const struct config *c, const struct weight_rule *w) {
    return dim_of(c, w->rows) * (is_matrix(w) ? dim_of(c, w->cols) : 1) *
           (strstr(w->name, "%E") ? c->experts : 1);
}

/* Whether it is, or may be, packed. */
static bool rule_packed(const struct config *c, const struct weight_rule *w) {
    const enum module_kind kind = w->type->kind;
    if (c->quant.filed && is_matrix(w) && !strstr(w->name, "%E"))
        return kind == MODULE_LINEAR || kind == MODULE_HEAD || kind == MODULE_EMBEDDING;
    return (c->quant.packing || c->quant.stored) && w->type->kind == MODULE_LINEAR &&
           is_matrix(w) && of_layers(w) && !strstr(w->name, "%E");
}

/* Bytes in memory of the numbers of a rule; stored codes are counted as nf4, a GGUF file's blocks
 * by config_sum. */
static i64 rule_bytes(const struct config *c, const struct weight_rule *w, i64 size) {
    if (!rule_packed(c, w)) return rule_count(c, w) * size;
    if (c->quant.filed) return 0;
    const struct packing *p = c->quant.packing ? c->quant.packing : packing_find("nf4");
    return view_memory(&(struct view){.rank = 2,
                                      .dim = {dim_of(c, w->rows), dim_of(c, w->cols)},
                                      .packing = p,
                                      .block = {p->block[0], p->block[1]}});
}

static char *name_of(struct model *m, const char *pattern, i64 layer, struct err *e) {
    struct text t = {0};
    int rc = 0;
    for (const char *p = pattern, *at; !rc && *p; p = at ? at + 2 : p + strlen(p)) {
        at = strstr(p, "%L");
        rc = at ? text_printf(&t, e, "%.*s%lld", (int)(at - p), p, (long long)layer)
                : text_printf(&t, e, "%s", p);
    }
    char *name = rc ? NULL : arena_text(&m->weights.arena, t.data, e);
    text_free(&t);
    return name;
}

/* "MODULE.weight" or "MODULE.bias" without the last part; experts are called as all of them in one
 * tensor are. */
static const char *path_of(struct model *m, const struct weight_rule *w, i64 layer, struct err *e) {
    const char *name = name_of(m, w->stacked ? w->stacked : w->name, layer, e),
               *dot = name ? strrchr(name, '.') : NULL;
    if (!dot || (strcmp(dot, ".weight") && strcmp(dot, ".bias"))) return name;
    return arena_printf(&m->weights.arena, e, "%.*s", (int)(dot - name), name);
}

/* The module that a rule's tensor belongs to. */
static struct module *module_of(struct model *m, const struct weight_rule *w, i64 layer,
                                struct err *e) {
    struct module *at = model_module(m, layer, w->type);
    if (at) return at;
    struct module_range *r = &m->range[layer + 1];
    const char *path = path_of(m, w, layer, e);
    if (!path) return NULL;
    at = &m->weights.module[r->first + r->count++];
    *at = (struct module){.type = w->type, .path = path, .layer = layer};
    return at;
}

/* How parameters are made. */
struct making {
    bool trainable, outline;
};
static int rule_apply(struct model *m, const struct weight_rule *w, i64 layer,
                      const struct making *how, struct err *e) {
    const struct config *c = &m->config;
    struct module *to = module_of(m, w, layer, e);
    i64 dim[3];
    int rank = 0;
    if (strstr(w->name, "%E")) dim[rank++] = c->experts;
    dim[rank++] = dim_of(c, w->rows);
    if (is_matrix(w)) dim[rank++] = dim_of(c, w->cols);
    const char *name = name_of(m, w->name, layer, e);
    const enum dtype d = w->type->kind == MODULE_FIXED ? F32 : m->weights.dtype;
    const bool later = how->outline || rule_packed(c, w);
    struct param *p = name && to ? param_add(&m->weights, name, rank, dim, d, later, e) : NULL;
    if (!p) return -1;
    p->type = w->type, p->layer = layer, p->rule = w, p->layout = w->layout;
    p->trainable =
        how->trainable && w->type->kind != MODULE_FIXED && w->type->kind != MODULE_BUFFER;
    p->stacked = w->stacked_layout & LAYOUT_STACKED, p->rope_dim = c->mla.rope_dim,
    p->keys = c->mla.plain;
    p->decay = is_matrix(w);
    p->heads = w->type->kind == MODULE_NORM && w->type->of_keys ? c->kv_heads : c->heads,
    p->kv_heads = c->kv_heads;
    *(w->cols == DIM_BIAS ? &to->bias : &to->weight) = p;
    return 0;
}

/* Room for the modules: those of the model, with a head that may be tied, then layer by layer. */
static int modules_new(struct model *m, struct err *e) {
    const struct weight_rule *list[RULES];
    const struct config *c = &m->config;
    const int count = rules_of(c->family, list);
    if (!(m->range = mem_new_array(1 + c->layers, sizeof *m->range, e))) return -1;
    m->weights.modules = 0;
    for (i64 l = -1; l < c->layers; l++) {
        m->range[l + 1].first = m->weights.modules;
        m->weights.modules += l < 0 && !(c->has & HAS_UNTIED);
        for (int i = 0; i < count; i++)
            m->weights.modules += list[i]->cols != DIM_BIAS && of_layers(list[i]) == (l >= 0) &&
                                  applies(c, list[i], l);
    }
    return (m->weights.module = mem_new_array(m->weights.modules, sizeof *m->weights.module, e))
               ? 0
               : -1;
}

/* The module of a head that has the embedding's weight: its adapter is its own, and its bias. */
static int head_tie(struct model *m, struct err *e) {
    if (m->config.has & HAS_UNTIED) return 0;
    const struct weight_rule *head = head_rule(m->config.family);
    static const struct weight_rule usual = {.type = &top_head, .name = "lm_head.weight"};
    struct module *at = module_of(m, head ? head : &usual, -1, e);
    if (at) at->weight = model_module(m, -1, &top_embed)->weight;
    return at ? 0 : -1;
}

/* The order of parameters: what precedes the layers in the table, layer by layer, what follows. */
static int rules_apply(struct model *m, const struct making *how, struct err *e) {
    const struct weight_rule *list[RULES];
    const struct config *c = &m->config;
    const int count = rules_of(c->family, list);
    for (int i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && of_layers(list[end]) == of_layers(list[i]);) end++;
        const bool layers = of_layers(list[i]);
        for (i64 l = layers ? 0 : -1; l < (layers ? c->layers : 0); l++)
            for (int k = i; k < end; k++)
                if (applies(c, list[k], l) && rule_apply(m, list[k], l, how, e)) return -1;
    }
    return 0;
}

/* Numbers, or, with the size of an element, bytes in memory. */
static i64 config_sum(const struct config *c, i64 size) {
    const struct weight_rule *list[RULES];
    i64 count = size ? c->quant.filed : 0;
    for (int i = rules_of(c->family, list); i-- > 0;) {
        if (list[i]->type->kind == MODULE_BUFFER) continue;
        const bool layers = of_layers(list[i]);
        for (i64 l = layers ? 0 : -1; l < (layers ? c->layers : 0); l++)
            if (applies(c, list[i], l))
                count += size ? rule_bytes(c, list[i], size) : rule_count(c, list[i]);
    }
    return count;
}
i64 config_parameters(const struct config *c) { return config_sum(c, 0); }

static int model_make(struct model *m, const struct config *c, enum dtype d,
                      const struct making *how, struct err *e) {
    *m = (struct model){.config = *c, .weights = {.dtype = d}};
    return modules_new(m, e) || rules_apply(m, how, e) || head_tie(m, e) ? -1 : 0;
}

int model_outline(struct model *m, const struct config *c, struct err *e) {
    return model_make(m, c, F32, &(struct making){.outline = true}, e);
}

int model_new(struct model *m, const struct config *c, enum dtype d, bool trainable,
              struct err *e) {
    *m = (struct model){0};
    const i64 bytes = config_sum(c, dtype_size(d)), left = mem_available();
    if (bytes >
        left) { /* untouched pages cost nothing, so the allocations themselves would succeed */
        err_failed(e,
                   "a model of %lld parameters needs %.1f GiB in %s; the machine has %.1f GiB left",
                   (long long)config_parameters(c), (double)bytes / (1 << 30), dtype_info[d].name,
                   (double)left / (1 << 30));
        return err_hint(e, d == F32 && bytes / 2 <= left ? "precision bf16 needs half of that"
                                                         : "a smaller model may fit");
    }
    return model_make(m, c, d, &(struct making){.trainable = trainable}, e);
}

int model_place(struct model *m, struct err *e) { return weights_place(&m->weights, e); }

int model_decode(struct model *m, struct err *e) {
    if (weights_decode(&m->weights, e)) return -1;
    m->config.quant = (struct quant_config){0};
    return 0;
}

void model_free(struct model *m) {
    weights_free(&m->weights), mem_free(m->range);
    constant_drop(m->slopes);
    for (int i = 0; i < MAX_ROPES; i++) constant_drop(m->rope[i]), constant_drop(m->query_rope[i]);
    *m = (struct model){0};
}

/* ---- values */

struct init {
    struct param *p;
    struct rng rng;
    float std;
};
static void init_range(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct init *n = arg;
    for (i64 i = begin; i < end; i++) param_set(n->p, i, n->std * rng_normal(&n->rng, (u64)i));
}

/* Initial value of parameters that are not random. */
static float start_of(const struct model *m, const struct param *p) {
    if (p->type->kind != MODULE_NORM) return p->type->start;
    /* a norm that adds one to its weights starts from zero */
    return p->rule->cols == DIM_NONE && !m->config.family->norm_one_plus ? 1 : 0;
}

/* Buffers are numbers to the operations, so they are looked at while they are in host memory. */
static void buffers_read(struct model *m) {
    for (i64 i = 0; i < m->weights.modules; i++) {
        struct module *at = &m->weights.module[i];
        if (at->type->kind == MODULE_BUFFER && !at->weight->placed)
            at->value = param_get(at->weight, 0);
    }
}

void model_init(struct model *m, u64 seed) {
    for (i64 k = 0; k < m->weights.params; k++) {
        struct param *p = m->weights.param[k];
        const i64 n = view_count(&p->view);
        struct init job = {p, {seed, RNG_INIT, 0, (u32)k}, (float)m->config.initializer_range};
        if (p->decay)
            pool_run(n, init_range, &job);
        else
            for (i64 i = 0; i < n; i++) param_set(p, i, start_of(m, p));
    }
    buffers_read(m);
}

/* Roots that files use instead of the modules' own, found by where the embedding is. */
static const struct prefix prefixes[] = {{"model.", "language_model.model.", "language_model."},
                                         {"model.", "model.language_model.", ""},
                                         {"model.", "", ""},
                                         {"transformer.", "", ""},
                                         {"gpt_neox.", "", ""}};

static const struct prefix *prefix_of(const struct model *m, const struct safetensors *s) {
    const char *name = model_module(m, -1, &top_embed)->weight->name;
    if (safetensors_find(s, name)) return NULL;
    for (int i = 0; i < COUNT(prefixes); i++) {
        char text[256];
        const struct prefix *x = &prefixes[i];
        const size_t n = strlen(x->module);
        snprintf(text, sizeof text, "%s%s", x->file, name + n);
        if (!strncmp(name, x->module, n) && safetensors_find(s, text)) return x;
    }
    return NULL;
}

/* What files may hold besides: masks and frequencies that older versions of transformers stored, a
 * copy of tied embeddings, the other parts of a multimodal model, layers beyond the last. */
static bool may_stay_out(const struct model *m, const struct naming *names, const char *name) {
    static const char *const buffer[] = {".attn.bias",          ".attn.masked_bias",
                                         ".attention.bias",     ".attention.masked_bias",
                                         "rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"};
    static const char *const part[] = {"vision_tower.", "multi_modal_projector.", "vision_model.",
                                       "visual."};
    const size_t n = strlen(name);
    if (names->gguf && !strncmp(name, "rope_f", 6)) return true; /* its factors: gguf_config.c */
    for (int i = 0; i < COUNT(buffer); i++) {
        const size_t k = strlen(buffer[i]);
        if (n >= k && !strcmp(name + n - k, buffer[i])) return true;
    }
    if (!strncmp(name, "model.layers.", 13) && strtoll(name + 13, NULL, 10) >= m->config.layers)
        return true; /* DeepSeek V3, GLM 4.5: layers that predict several tokens */
    for (int i = 0; m->config.wrapped && i < COUNT(part); i++)
        if (strstr(name, part[i])) return true;
    return !(m->config.has & HAS_UNTIED) &&
           (strstr(name, "lm_head.weight") || strstr(name, "embed_out.weight"));
}

static int weights_read(struct model *m, const struct naming *names, const struct safetensors *s,
                        const char *where, struct err *e) {
    u8 *seen = mem_new(i64_max(s->count, 1), e);
    int rc = seen ? 0 : -1;
    for (i64 i = 0; !rc && i < m->weights.params; i++)
        if (m->weights.param[i]->type && !(names->gguf && m->weights.param[i]->type->gguf.list))
            rc = param_read(m, names, m->weights.param[i], s, seen, where, e);
    const char *out = NULL;
    i64 left = 0;
    for (i64 i = 0; !rc && i < s->count; i++) {
        if (seen[i] || s->tensor[i].part) continue;
        const char *name = s->tensor[i].name;
        const bool may = may_stay_out(m, names, name);
        if (may && !names->gguf && !strstr(name, "lm_head.") && !strstr(name, "embed_out."))
            left++, out = out ? out : name;
        if (!may) {
            rc = err_input(e, "%s: tensor '%s' has no place in a model of type %s", where,
                           s->tensor[i].name, m->config.family->model_type);
            err_hint(e, "the weights belong to another model, or to a variant that this version "
                        "does not know");
        }
    }
    if (!rc && left && !*m->config.note)
        snprintf(m->config.note, sizeof m->config.note,
                 "%lld tensors of the file are not read: buffers, further layers or other parts of "
                 "the model (the first is %.60s)",
                 (long long)left, out);
    mem_free(seen);
    if (!rc) buffers_read(m);
    return rc ? err_frame(e, "while loading the weights of %s", where) : 0;
}

int model_load(struct model *m, const struct safetensors *s, const char *where, struct err *e) {
    m->prefix = prefix_of(m, s);
    return weights_read(m, &(struct naming){.prefix = m->prefix}, s, where, e);
}

/* The numbers that a GGUF file has as lists among its keys. */
static int lists_read(struct model *m, const struct gguf *g, const char *where, struct err *e) {
    struct arena a = {0};
    for (i64 i = 0; !e->code && i < m->weights.params; i++) {
        struct param *p = m->weights.param[i];
        const char *key = p->type->gguf.list;
        i64 n = m->config.layers;
        const double *x = key ? gguf_numbers(g, key, &n, &a, where, e) : NULL;
        if (key && !x && !e->code) err_input(e, "%s: '%s' is missing", where, key);
        if (x && !e->code) param_set(p, 0, (float)x[p->layer]);
    }
    arena_free(&a);
    return e->code ? -1 : 0;
}

static int random_load(struct model *m, struct err *e) {
    for (i64 i = 0; i < m->weights.params; i++)
        if (param_random(m->weights.param[i], m->config.quant.packing, e)) return -1;
    return buffers_read(m), 0;
}

int model_open_as(struct model *m, const char *path, enum dtype d, bool trainable,
                  const struct holding *as, struct err *e) {
    struct model_folder f = {0};
    struct config c;
    const struct gguf_arch *arch = NULL;
    *m = (struct model){0};
    int rc = folder_open(&f, path, e) || folder_config(&f, &c, &arch, e);
    if (!rc) c.quant.packing = as->packing;
    if (!rc && arch && !trainable && !as->packing && !as->plain)
        c.quant.filed = blocks_bytes_of(&f.gguf, d);
    if (!rc && trainable && (c.quant.packing || c.quant.stored)) {
        rc = err_input(e, "%s: packed weights cannot be trained", path);
        err_hint(e, "use_peft: true trains an adapter beside them");
    }
    rc = rc || model_new(m, &c, d, trainable, e);
    if (!rc && as->random && !m->config.quant.filed) /* those cost nothing */
        rc = random_load(m, e);
    else if (!rc && arch)
        rc = lists_read(m, &f.gguf, path, e) ||
             weights_read(m, &(struct naming){.gguf = arch}, &f.weights, path, e);
    else
        rc = rc || model_load(m, &f.weights, path, e) ||
             model_head_keep(m, &f.weights, as->tied, path, e);
    if (m->config.quant.filed) /* parameters point into the file */
        m->weights.map = f.weights.map, m->weights.maps = f.weights.maps, f.weights.map = NULL,
        f.weights.maps = 0;
    folder_close(&f);
    return rc ? -1 : 0;
}

int model_open(struct model *m, const char *path, enum dtype d, bool trainable, struct err *e) {
    return model_open_as(m, path, d, trainable, &(struct holding){0}, e);
}

i64 model_count(const struct model *m, bool trainable_only) {
    return weights_count(&m->weights, trainable_only);
}

int model_stored(const struct model *m, bool adapter, struct stored_list *list, struct err *e) {
    *list = (struct stored_list){0};
    for (i64 i = 0; i < m->weights.params; i++) {
        const struct param *p = m->weights.param[i];
        const bool whole = adapter && (p->saved || (p->type && model_grown_part(m, p)));
        const bool rows = adapter && p->row && m->lora;
        if (!p->type != adapter && !whole && !rows) continue;
        const void *from = p->view.data;
        if (p->view.packing) {
            void *plain =
                arena_new(&list->arena, view_count(&p->view) * dtype_size(m->weights.dtype), e);
            if (!plain || param_decode(p, m->weights.dtype, plain, e)) return stored_free(list), -1;
            from = plain;
        } else if (p->placed) {
            void *copy = arena_new(&list->arena, i64_max(view_bytes(&p->view), 1), e);
            if (!copy || device_read(copy, from, view_bytes(&p->view), e))
                return stored_free(list), -1;
            from = copy;
        }
        if (rows && lora_tokens_stored(m, p, from, list, e)) return stored_free(list), -1;
        if (rows && !whole) continue;
        if (p->start ? pissa_stored(m, p, from, list, e)
                     : param_stored(m, p, whole ? "base_model.model." : "", from, p->view.dtype,
                                    list, e))
            return stored_free(list), -1;
    }
    return 0;
}

/* 6 per weight that takes part in a product and token (frozen ones 4: no weight gradient), and what
 * mixers have besides. */
double model_flops(const struct model *m, i64 tokens, i64 length) {
    const struct config *c = &m->config;
    const struct param *head = model_module(m, -1, &top_head)->weight;
    double per_token = 0;
    for (i64 i = 0; i < m->weights.params; i++) {
        const struct param *p = m->weights.param[i];
        const bool table = p->type && p->type->kind == MODULE_EMBEDDING && p != head;
        if (!p->decay || table) continue;
        const double used =
            p->view.rank > 2 ? (double)c->experts_per_token / (double)c->experts : 1;
        per_token += (p->trainable ? 6.0 : 4.0) * used * (double)view_count(&p->view);
    }
    for (i64 l = 0; l < c->layers; l++)
        for (int s = 0; s < BLOCK_SLOTS; s++) {
            const struct mixer *mixer = c->layer[l].mixer[s];
            if (mixer->flops) per_token += mixer->flops(c, l, length);
        }
    return (double)tokens * per_token;
}
