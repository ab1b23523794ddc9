/* gguf_config.c: a GGUF file's metadata as the config.json that Hugging Face would have, and back.
 *
 * One table says which key is which; both directions read it. What llama.cpp derives from the
 * tensors or from the architecture's name (tied embeddings, biases, the factors of RoPE) is derived
 * here in the same way. A model that llama.cpp would compute differently is not written, by name.
 * Source: llama.cpp's converter and loader, as of the version that tests/interop checks. */
#include "recipes/models/models_int.h"

#include <jansson.h>
#include <string.h>

/* `model_type` none twice but where `tell` decides: reading takes the first row whose condition
 * holds. */
#define SIGMOID .tell = "expert_gating_func", .least = 2
static const struct gguf_arch archs[] = {
    {.name = "llama", .model_type = "mixtral", .tell = "expert_count", .rope_rows = true},
    {.name = "llama", .model_type = "llama", .rope_rows = true},
    {.name = "llama", .model_type = "mistral", .rope_rows = true},
    {.name = "llama", .model_type = "ministral", .rope_rows = true},
    {.name = "mistral3", .model_type = "ministral3", .rope_rows = true},
    {.name = "qwen2", .model_type = "qwen2"},
    {.name = "qwen2moe", .model_type = "qwen2_moe"},
    {.name = "qwen3", .model_type = "qwen3"},
    {.name = "qwen3moe", .model_type = "qwen3_moe"},
    {.name = "gemma", .model_type = "gemma", .one_plus = true},
    {.name = "gemma2", .model_type = "gemma2", .one_plus = true, .window = 2},
    {.name = "gemma3", .model_type = "gemma3_text", .one_plus = true, .window = 6},
    {.name = "phi2", .model_type = "phi"},
    {.name = "phi3", .model_type = "phi3"},
    {.name = "olmo", .model_type = "olmo", .rope_rows = true},
    {.name = "olmo2", .model_type = "olmo3", .tell = "attention.sliding_window", .window = 4},
    {.name = "olmo2", .model_type = "olmo2"},
    {.name = "olmoe", .model_type = "olmoe"},
    {.name = "smollm3", .model_type = "smollm3", .rope_rows = true},
    {.name = "stablelm", .model_type = "stablelm"},
    {.name = "glm4", .model_type = "glm4"},
    {.name = "chatglm", .model_type = "glm"},
    {.name = "gpt2", .model_type = "gpt2"},
    {.name = "gptneox", .model_type = "gpt_neox"},
    {.name = "falcon", .model_type = "falcon"},
    {.name = "bloom", .model_type = "bloom"},
    {.name = "apertus", .model_type = "apertus"},
    {.name = "gpt-oss", .model_type = "gpt_oss", .window = 2},
    {.name = "glm4moe", .model_type = "glm4_moe", .deep = true},
    {.name = "deepseek2", .model_type = "deepseek_v3", SIGMOID, .deep = true},
    {.name = "deepseek2", .model_type = "kimi_k2", SIGMOID, .deep = true},
    {.name = "deepseek2", .model_type = "deepseek_v2", .deep = true},
};

/* GGUF's key behind "ARCH.", ours, and its kind: integer, number, truth value; a capital: of the
 * architectures that are `deep`. */
static const struct {
    const char *gguf, *hf;
    char kind;
} keys[] = {
    {"context_length", "max_position_embeddings", 'i'},
    {"embedding_length", "hidden_size", 'i'},
    {"block_count", "num_hidden_layers", 'i'},
    {"feed_forward_length", "intermediate_size", 'i'},
    {"attention.head_count", "num_attention_heads", 'i'},
    {"attention.head_count_kv", "num_key_value_heads", 'i'},
    {"attention.key_length", "head_dim", 'i'},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", 'f'},
    {"attention.layer_norm_epsilon", "layer_norm_eps", 'f'},
    {"rope.freq_base", "rope_theta", 'f'},
    {"rope.freq_base_swa", "rope_local_base_freq", 'f'},
    {"attention.sliding_window", "sliding_window", 'i'},
    {"attn_logit_softcapping", "attn_logit_softcapping", 'f'},
    {"final_logit_softcapping", "final_logit_softcapping", 'f'},
    {"attention.clamp_kqv", "clip_qkv", 'f'},
    {"use_parallel_residual", "use_parallel_residual", 'b'},
    {"expert_count", "num_experts", 'i'},
    {"expert_count", "num_local_experts", 'i'},
    {"expert_used_count", "num_experts_per_tok", 'i'},
    {"expert_feed_forward_length", "moe_intermediate_size", 'i'},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size", 'i'},
    {"leading_dense_block_count", "first_k_dense_replace", 'I'},
    {"expert_shared_count", "n_shared_experts", 'I'},
    {"expert_weights_scale", "routed_scaling_factor", 'F'},
    {"expert_weights_norm", "norm_topk_prob", 'B'},
    {"expert_group_count", "n_group", 'I'},
    {"expert_group_used_count", "topk_group", 'I'},
    {"attention.q_lora_rank", "q_lora_rank", 'I'},
    {"attention.kv_lora_rank", "kv_lora_rank", 'I'},
    {"attention.value_length_mla", "v_head_dim", 'I'},
};

/* ---- reading */

/* The shortest decimal that is this f32: 1e-6 again, not 9.99999997e-07. */
static double decimal(double x) {
    char text[32];
    double back = x;
    for (int digits = 1; digits < 10; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (sscanf(text, "%lf", &back) == 1 && (float)back == (float)x) return back;
    }
    return x;
}

static const struct gguf_arch *arch_of(const struct gguf *g, const char *arch, const char *where,
                                       struct err *e) {
    int best = 0;
    for (int i = 0; i < COUNT(archs); i++) {
        char key[128];
        snprintf(key, sizeof key, "%.60s.%s", arch, archs[i].tell ? archs[i].tell : "");
        if (!strcmp(archs[i].name, arch) &&
            (!archs[i].tell || gguf_i64(g, key, 0, where, e) >= i64_max(1, archs[i].least)))
            return &archs[i];
        if (edit_distance(arch, archs[i].name) < edit_distance(arch, archs[best].name)) best = i;
    }
    err_input(e, "%s: architecture '%.60s' is not supported", where, arch);
    err_detail(e, "the nearest that is: '%s'", archs[best].name);
    return NULL;
}

static const struct stored *tensor_of(const struct gguf *g, const char *name) {
    for (i64 i = 0; i < g->count; i++)
        if (!strcmp(g->tensor[i].name, name)) return &g->tensor[i];
    return NULL;
}

static int set(json_t *o, const char *key, json_t *value, struct err *e) {
    return json_object_set_new(o, key, value) ? err_memory(e, "out of memory") : 0;
}

/* A key of some files is a list, one number for each layer: taken where all are equal. */
static json_t *value_of(const struct gguf *g, const char *key, char kind, const char *where,
                        struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return NULL;
    if (v->kind != GGUF_LIST)
        return kind == 'i'   ? json_integer(gguf_i64(g, key, 0, where, e))
               : kind == 'b' ? json_boolean(gguf_bool(g, key, false, where, e))
                             : json_real(decimal(gguf_f64(g, key, 0, where, e)));
    struct arena a = {0};
    i64 n;
    const double *list = gguf_numbers(g, key, &n, &a, where, e);
    for (i64 i = 1; i < n && !e->code; i++)
        if (list[i] != list[0])
            err_input(e, "%s: %s differs between layers, which is not supported", where, key);
    json_t *j = !e->code && n ? json_integer((json_int_t)list[0]) : NULL;
    arena_free(&a);
    return j;
}

/* The RoPE factors of a tensor, as a JSON list. */
static json_t *factors_of(const struct stored *t) {
    json_t *list = json_array();
    for (i64 i = 0; i < t->dim[0]; i++) {
        float x;
        stored_read(t, i, 1, F32, &x);
        json_array_append_new(list, json_real(decimal((double)x)));
    }
    return list;
}

/* Factors that Llama 3's rule gives (low 1, high 4, 8192 positions): those of 3.1, 3.2 and 3.3. */
static bool is_llama3(const json_t *list, double theta) {
    const i64 n = (i64)json_array_size(list);
    const struct rope_config r = {.type = ROPE_LLAMA3,
                                  .dims = 2 * n,
                                  .theta = theta,
                                  .factor = json_number_value(json_array_get(list, (size_t)n - 1)),
                                  .low_freq_factor = 1,
                                  .high_freq_factor = 4,
                                  .original_length = 8192};
    for (i64 i = 0; i < n; i++) {
        const double share =
            json_number_value(json_array_get(list, (size_t)i)) / rope_factor(&r, i, false);
        if (!(share > 0.9999 && share < 1.0001)) return false;
    }
    return true;
}

/* llama.cpp multiplies yarn's own factor by attn_factor. */
static void yarn_of(const struct gguf *g, const char *arch, double factor, json_t *o,
                    const char *where, struct err *e) {
    static const char *const key[] = {"yarn_beta_fast", "yarn_beta_slow", "attn_factor"},
                             *const hf[] = {"beta_fast", "beta_slow", "attention_factor"};
    for (int i = 0; i < COUNT(key); i++) {
        char name[128];
        snprintf(name, sizeof name, "%.60s.rope.scaling.%s", arch, key[i]);
        const double x = gguf_f64(g, name, 0, where, e),
                     times = i < 2 ? 1 : 1 + 0.1 * m_log(factor);
        if (x > 0) set(o, hf[i], json_real(decimal(x * times)), e);
    }
    char name[128];
    snprintf(name, sizeof name, "%.60s.rope.scaling.yarn_log_multiplier", arch);
    double all = 10 * gguf_f64(g, name, 0, where, e);
    if (!strcmp(arch, "mistral3")) {
        snprintf(name, sizeof name, "%.60s.attention.temperature_scale", arch);
        set(o, "llama_4_scaling_beta", json_real(decimal(gguf_f64(g, name, 0, where, e))), e);
        all = 1;
    }
    if (all > 0)
        set(o, "mscale", json_real(decimal(all)), e),
            set(o, "mscale_all_dim", json_real(decimal(all)), e);
    if (!strcmp(arch, "gpt-oss")) set(o, "truncate", json_false(), e); /* llama.cpp: always true */
}

static json_t *scaling_of(const struct gguf *g, const char *arch, double theta, const char *where,
                          struct err *e) {
    char key[128];
    struct arena a = {0};
    const struct stored *all = tensor_of(g, "rope_freqs.weight"),
                        *near = tensor_of(g, "rope_factors_short.weight"),
                        *far = tensor_of(g, "rope_factors_long.weight");
    json_t *o = json_object();
    snprintf(key, sizeof key, "%.60s.rope.scaling.original_context_length", arch);
    const i64 original = gguf_i64(g, key, 0, where, e);
    if (original) set(o, "original_max_position_embeddings", json_integer(original), e);
    snprintf(key, sizeof key, "%.60s.rope.scaling.factor", arch);
    const double factor = gguf_f64(g, key, 0, where, e);
    if (factor > 0) set(o, "factor", json_real(decimal(factor)), e);
    snprintf(key, sizeof key, "%.60s.rope.scaling.type", arch);
    const char *type = gguf_text(g, key, "none", &a, where, e);
    if ((near && far) || all) {
        json_t *list = factors_of(all ? all : near);
        if (all && json_array_size(list) && is_llama3(list, theta)) {
            type = "llama3";
            set(o, "factor", json_incref(json_array_get(list, json_array_size(list) - 1)), e);
            set(o, "low_freq_factor", json_real(1), e);
            set(o, "high_freq_factor", json_real(4), e);
            set(o, "original_max_position_embeddings", json_integer(8192), e);
        } else {
            type = "longrope";
            snprintf(key, sizeof key, "%.60s.rope.scaling.attn_factor", arch);
            const double scale = gguf_f64(g, key, all ? 1 : 0, where, e);
            if (scale > 0) set(o, "attention_factor", json_real(decimal(scale)), e);
            set(o, "short_factor", json_incref(list), e);
            set(o, "long_factor", all ? json_incref(list) : factors_of(far), e);
        }
        json_decref(list);
    } else if (!type || !strcmp(type, "none") || factor <= 0) {
        json_decref(o);
        arena_free(&a);
        return NULL;
    }
    if (!strcmp(type, "yarn")) yarn_of(g, arch, factor, o, where, e);
    set(o, "rope_type", json_string(type), e);
    arena_free(&a);
    return o;
}

/* What the presence and shape of tensors say. */
static int from_tensors(const struct gguf *g, json_t *o, const char *where, struct err *e) {
    const struct stored *embed = tensor_of(g, "token_embd.weight");
    if (!embed || embed->rank != 2)
        return err_input(e, "%s: there is no tensor token_embd.weight [V, D]", where);
    const bool bias = tensor_of(g, "blk.0.attn_q.bias") || tensor_of(g, "blk.0.attn_qkv.bias"),
               qk_norm = tensor_of(g, "blk.0.attn_q_norm.weight") != NULL;
    if (!strcmp(json_string_value(json_object_get(o, "model_type")), "falcon") &&
        (set(o, "new_decoder_architecture",
             json_boolean(tensor_of(g, "blk.0.attn_norm_2.weight") != NULL), e) ||
         set(o, "multi_query",
             json_boolean(json_integer_value(json_object_get(o, "num_key_value_heads")) == 1), e)))
        return -1;
    return set(o, "vocab_size", json_integer(embed->dim[0]), e) ||
                   set(o, "tie_word_embeddings", json_boolean(!tensor_of(g, "output.weight")), e) ||
                   set(o, "attention_bias", json_boolean(bias), e) ||
                   set(o, "use_qkv_bias", json_boolean(bias), e) ||
                   set(o, "qk_layernorm", json_boolean(qk_norm), e) ||
                   set(o, "use_qk_norm", json_boolean(qk_norm), e) ||
                   set(o, "mlp_bias", json_boolean(tensor_of(g, "blk.0.ffn_up.bias") != NULL), e)
               ? -1
               : 0;
}

static i64 whole(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

/* What DeepSeek and its relatives have besides. */
static int deep_of(const struct gguf *g, const char *arch, json_t *o, const char *where,
                   struct err *e) {
    char key[128];
    i64 x[3];
    static const char *const name[] = {"nextn_predict_layers", "rope.dimension_count",
                                       "attention.key_length_mla"};
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, name[i]);
        x[i] = gguf_i64(g, key, 0, where, e);
    }
    set(o, "num_hidden_layers", json_integer(whole(o, "num_hidden_layers") - x[0]), e);
    /* files of before the key: DeepSeek V3, with groups, or Kimi K2 */
    if (!json_object_get(o, "n_group") && whole(o, "num_experts") != 256)
        set(o, "n_group", json_integer(1), e), set(o, "topk_group", json_integer(1), e);
    if (whole(o, "n_group") > 1 &&
        !strcmp(json_string_value(json_object_get(o, "model_type")), "deepseek_v2"))
        set(o, "topk_method", json_string("group_limited_greedy"), e);
    if (!json_object_get(o, "kv_lora_rank") || e->code) return e->code ? -1 : 0;
    if (!x[2])
        return err_input(e,
                         "%s: %s is missing: keys and values are in one tensor, as llama.cpp "
                         "wrote them before 2025-04; convert the model again",
                         where, key);
    set(o, "qk_rope_head_dim", json_integer(x[1]), e);
    set(o, "qk_nope_head_dim", json_integer(x[2] - x[1]), e);
    set(o, "num_key_value_heads", json_incref(json_object_get(o, "num_attention_heads")), e);
    if (!json_object_get(o, "q_lora_rank")) set(o, "q_lora_rank", json_null(), e);
    json_object_del(o, "head_dim"), json_object_del(o, "attention_bias");
    return e->code ? -1 : 0;
}

bool is_wide_gemma(const char *model_type, i64 layers) {
    return (!strcmp(model_type, "gemma2") && layers == 46) ||
           (!strcmp(model_type, "gemma3_text") && layers == 62);
}

static json_t *gguf_config(const struct gguf *g, const struct gguf_arch **arch, const char *where,
                           struct err *e) {
    struct arena a = {0};
    const char *name = gguf_text(g, "general.architecture", NULL, &a, where, e);
    if (!name) {
        err_input(e, "%s: general.architecture is missing", where);
        return arena_free(&a), NULL;
    }
    *arch = arch_of(g, name, where, e);
    json_t *o = *arch ? json_object() : NULL;
    if (o) set(o, "model_type", json_string((*arch)->model_type), e);
    char key[128];
    for (int i = 0; o && i < COUNT(keys); i++) {
        snprintf(key, sizeof key, "%s.%s", (*arch)->name, keys[i].gguf);
        const bool capital = keys[i].kind < 'a';
        json_t *j =
            capital && !(*arch)->deep ? NULL : value_of(g, key, keys[i].kind | 32, where, e);
        if (j) set(o, keys[i].hf, j, e);
    }
    if (o && !from_tensors(g, o, where, e)) {
        const double theta = json_number_value(json_object_get(o, "rope_theta"));
        json_t *scaling = scaling_of(g, (*arch)->name, theta > 0 ? theta : 10000, where, e);
        const bool usual = /* the family has a scaling where its config.json says nothing */
            !strcmp((*arch)->name, "gpt-oss") || !strcmp((*arch)->name, "mistral3");
        if (usual) set(o, "rope_parameters", json_null(), e);
        if (scaling || usual) set(o, "rope_scaling", scaling ? scaling : json_null(), e);
        if (!strcmp((*arch)->name, "qwen3moe")) set(o, "norm_topk_prob", json_true(), e);
        static const char *const id[] = {"bos", "eos"};
        for (int i = 0; i < 2; i++) {
            snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", id[i]);
            const i64 n = gguf_i64(g, key, -1, where, e);
            snprintf(key, sizeof key, "%s_token_id", id[i]);
            if (n >= 0) set(o, key, json_integer(n), e);
        }
        if ((*arch)->deep) deep_of(g, (*arch)->name, o, where, e);
        snprintf(key, sizeof key, "%s.rope.dimension_count", (*arch)->name);
        const bool latent = json_object_get(o, "kv_lora_rank") != NULL;
        const i64 turned = latent ? 0 : gguf_i64(g, key, 0, where, e),
                  heads = whole(o, "num_attention_heads"), width = whole(o, "hidden_size");
        const json_t *given = json_object_get(o, "head_dim");
        const i64 head = given ? json_integer_value(given) : heads > 0 ? width / heads : 0;
        const bool wide = is_wide_gemma((*arch)->model_type, whole(o, "num_hidden_layers"));
        if (!strncmp((*arch)->name, "gemma", 5) && heads > 0)
            set(o, "query_pre_attn_scalar", json_integer(wide ? width / heads : head), e);
        if (turned > 0 && head > turned)
            set(o, "partial_rotary_factor", json_real((double)turned / (double)head), e);
    }
    arena_free(&a);
    if (!e->code) return o;
    json_decref(o);
    err_frame(e, "reading the metadata of %s", where);
    return NULL;
}

int folder_config(struct model_folder *f, struct config *c, const struct gguf_arch **arch,
                  struct err *e) {
    const bool file = f->gguf.version != 0;
    *arch = NULL;
    char *where = file ? mem_text(f->path, e) : path_join(NULL, f->path, "config.json", e);
    if (where && file && !f->config) f->config = gguf_config(&f->gguf, arch, where, e);
    int rc = !where || !f->config || config_read(c, f->config, where, e);
    if (!rc && *arch)
        rc = set(f->config, "architectures", json_pack("[s]", c->family->architecture), e);
    return mem_free(where), rc ? -1 : 0;
}

/* ---- writing */

const struct gguf_arch *gguf_arch_of(const char *model_type) {
    for (int i = 0; i < COUNT(archs); i++)
        if (!strcmp(archs[i].model_type, model_type)) return &archs[i];
    return NULL;
}

int gguf_put_keys(struct gguf_writer *w, const struct gguf_arch *arch, const json_t *values,
                  struct err *e) {
    const char *last = "";
    for (int i = 0; i < COUNT(keys); i++) {
        const json_t *j = json_object_get(values, keys[i].hf);
        char key[128];
        snprintf(key, sizeof key, "%s.%s", arch->name, keys[i].gguf);
        if (!j || json_is_null(j) || !strcmp(last, keys[i].gguf)) continue;
        if (keys[i].kind < 'a' && !arch->deep) continue;
        const char kind = keys[i].kind | 32;
        if (kind == 'i'   ? gguf_put_u32(w, key, json_integer_value(j), e)
            : kind == 'b' ? gguf_put_bool(w, key, json_is_true(j), e)
                          : gguf_put_f32(w, key, json_number_value(j), e))
            return -1;
        last = keys[i].gguf;
    }
    return 0;
}
