/* answers.c: how a model answers, as its folders say: by which template, where an answer ends, and
 * how it is sampled.
 *
 * A model is used by the template that it was trained with: that of the adapter's folder or of the
 * checkpoint goes before the one beside the tokenizer. What that template puts after an answer ends
 * it, be it named in generation_config.json or not. In a plain continuation only a special token
 * does: a template whose answers end with "." says nothing of stories. */
#include "train/engine/engine.h"

#include <jansson.h>
#include <math.h> /* NAN */
#include <stdlib.h>
#include <string.h>

int loaded_chat(struct chat **out, const char *chosen, const struct loaded *l, struct err *e) {
    const char *const folder[] = {l->adapter, l->base};
    const char *at = l->tokenizer ? tokenizer_path(l->tokenizer) : NULL;
    *out = NULL;
    for (int i = 0; i < 2 && !chosen && !*out; i++) {
        struct err none = {0};
        if (folder[i] && path_is_dir(folder[i]))
            *out = chat_of_file(folder[i], at, &none);
        else if (folder[i])
            *out = chat_of_file(NULL, folder[i], &none);
        if (none.starved) return *e = none, -1;
    }
    return *out ? 0 : chat_find(out, chosen, l->tokenizer, e);
}

int answer_end(struct answer_end *end, const struct chat *c, const json_t *row,
               const struct tokenizer *t, struct err *e) {
    const char *stop = c ? chat_stop(c, row) : "";
    struct ids ids = {0};
    struct text shown = {0};
    while (*stop == ' ') stop++;
    *end = (struct answer_end){.id = -1, .text = stop};
    int rc = *stop ? tokenizer_encode(t, stop, (i64)strlen(stop), false, &ids, e) : 0;
    if (!rc && ids.count == 1) {
        end->id = ids.item[0];
        rc = tokenizer_decode(t, ids.item, 1, true, &shown, e);
        end->special = !rc && !shown.size;
    }
    ids_free(&ids), text_free(&shown);
    return rc ? -1 : 0;
}

/* ---- generation_config.json */

/* The ids of "eos_token_id", a number or a list. */
static int eos_read(const json_t *eos, const char *path, struct ids *out, struct err *e) {
    for (size_t i = 0; eos && i < (json_is_array(eos) ? json_array_size(eos) : 1); i++) {
        const json_t *one = json_is_array(eos) ? json_array_get(eos, i) : eos;
        const bool id = json_is_integer(one) && json_integer_value(one) >= 0;
        if (id ? ids_add(out, (u32)json_integer_value(one), e) : !json_is_null(one))
            return e->code ? -1
                           : err_input(e, "%s: \"eos_token_id\" is no id and no list of ids", path);
    }
    return 0;
}

int answer_end_save(const char *folder, const struct answer_end *end, struct err *e) {
    if (!end->special) return 0;
    char *path = path_join(NULL, folder, "generation_config.json", e),
         *config = path ? path_join(NULL, folder, "config.json", e) : NULL;
    json_t *j = !config             ? NULL
                : path_exists(path) ? json_open(path, e)
                                    : json_pack("{s:b}", "_from_model_config", 1);
    json_t *model = j && path_exists(config) ? json_open(config, e) : NULL;
    const json_t *eos = json_object_get(j, "eos_token_id");
    if (!eos) eos = json_object_get(model, "eos_token_id");
    struct ids ids = {0};
    int rc = !j || e->code || eos_read(eos, path, &ids, e);
    bool known = false;
    for (i64 i = 0; i < ids.count; i++) known |= ids.item[i] == (u32)end->id;
    if (!rc && !known) {
        json_t *list = json_array();
        for (i64 i = 0; i < ids.count; i++) json_array_append_new(list, json_integer(ids.item[i]));
        json_array_append_new(list, json_integer(end->id));
        rc = json_object_set_new(j, "eos_token_id", list) ? err_memory(e, "out of memory")
                                                          : json_save(j, path, 2, e);
    }
    json_decref(j), json_decref(model), ids_free(&ids), mem_free(path), mem_free(config);
    return rc ? -1 : 0;
}

/* Named templates of the folder are of another: transformers takes them beside this one. */
int template_save(const char *folder, const struct chat *c, struct err *e) {
    i64 size = 0;
    const char *text = chat_source(c, &size);
    char *path = path_join(NULL, folder, "chat_template.jinja", e),
         *named = path ? path_join(NULL, folder, "additional_chat_templates", e) : NULL;
    const int rc =
        !named || file_replace(path, text, size, e) || (path_is_dir(named) && dir_remove(named, e));
    return mem_free(path), mem_free(named), rc ? -1 : 0;
}

bool template_differs(const char *folder, const struct chat *c, struct err *e) {
    struct err none = {0};
    struct chat *own = chat_of_file(NULL, folder, &none);
    const bool differs = !own || strcmp(chat_sha256(own), chat_sha256(c));
    if (none.starved) *e = none;
    return chat_free(own), differs;
}

/* ---- how it is sampled */

/* Keys that change no text here, and values with which others do not. */
static const struct {
    const char *key;
    double same; /* NAN: any value */
} harmless[] = {{"bos_token_id", NAN},
                {"pad_token_id", NAN},
                {"decoder_start_token_id", NAN},
                {"transformers_version", NAN},
                {"_from_model_config", NAN},
                {"_commit_hash", NAN},
                {"use_cache", NAN},
                {"cache_implementation", NAN},
                {"cache_config", NAN},
                {"return_dict_in_generate", NAN},
                {"output_attentions", NAN},
                {"output_hidden_states", NAN},
                {"output_scores", NAN},
                {"output_logits", NAN},
                {"renormalize_logits", NAN},
                {"remove_invalid_values", NAN},
                {"max_length", 20},
                {"min_length", 0},
                {"num_beams", 1},
                {"num_beam_groups", 1},
                {"num_return_sequences", 1},
                {"length_penalty", 1},
                {"diversity_penalty", 0},
                {"typical_p", 1},
                {"epsilon_cutoff", 0},
                {"eta_cutoff", 0},
                {"no_repeat_ngram_size", 0},
                {"encoder_no_repeat_ngram_size", 0},
                {"encoder_repetition_penalty", 1}};

static bool is_harmless(const char *key, const json_t *value) {
    if (json_is_null(value) || json_is_false(value)) return true;
    for (int i = 0; i < COUNT(harmless); i++)
        if (!strcmp(key, harmless[i].key))
            return harmless[i].same != harmless[i].same ||
                   (json_is_number(value) && json_number_value(value) == harmless[i].same);
    return false;
}

static int number_wrong(const char *path, const char *key, const json_t *value, double low,
                        double high, struct err *e) {
    char *found = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    err_input(e, "%s: \"%s\" is %.100s", path, key, found ? found : "unreadable");
    err_detail(e, "expected a number from %g to %g", low, high);
    free(found);
    return err_hint(e, "mend the file, or take the key out of it");
}

/* Takes a key that hone follows: 1; 0: not one of them. */
static int generation_take(struct generation *g, const char *key, const json_t *value,
                           const char *path, struct err *e) {
    const struct {
        const char *key;
        double *to, low, high;
    } number[] = {{"temperature", &g->temperature, 0, 100},
                  {"top_k", &g->top_k, -1, 1 << 24},
                  {"top_p", &g->top_p, 0, 1},
                  {"min_p", &g->min_p, 0, 1},
                  {"repetition_penalty", &g->repetition_penalty, 0.01, 100},
                  {"max_new_tokens", &g->max_new_tokens, 1, 1 << 24}};
    if (!strcmp(key, "eos_token_id")) return eos_read(value, path, &g->eos, e) ? -1 : 1;
    if (json_is_null(value)) return 1;
    if (!strcmp(key, "do_sample")) {
        if (!json_is_boolean(value))
            return err_input(e, "%s: \"do_sample\" is neither true nor false", path);
        return g->do_sample = json_is_true(value), 1;
    }
    for (int i = 0; i < COUNT(number); i++) {
        if (strcmp(key, number[i].key)) continue;
        const double x = json_number_value(value);
        if (!json_is_number(value) || !(x >= number[i].low && x <= number[i].high))
            return number_wrong(path, key, value, number[i].low, number[i].high, e);
        return *number[i].to = x, 1;
    }
    if (strcmp(key, "stop_strings")) return 0;
    for (size_t i = 0; i < (json_is_array(value) ? json_array_size(value) : 1); i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(one) || g->stops == (int)COUNT(g->stop))
            return err_input(e, "%s: \"stop_strings\" is no list of at most %d texts", path,
                             (int)COUNT(g->stop));
        if (!(g->stop[g->stops++] = arena_text(&g->arena, json_string_value(one), e))) return -1;
    }
    return 1;
}

static int generation_of(struct generation *g, const json_t *j, const char *path, struct err *e) {
    const char *key;
    json_t *value;
    if (!json_is_object(j)) return err_input(e, "%s is not a JSON object", path);
    json_object_foreach((json_t *)(uintptr_t)j, key, value) {
        const int taken = generation_take(g, key, value, path, e);
        if (taken < 0 || (!taken && !is_harmless(key, value) &&
                          text_printf(&g->unused, e, "%s%.60s", g->unused.size ? ", " : "", key)))
            return -1;
    }
    return 0;
}

/* What llama.cpp's converter writes of it, under transformers' names. */
static json_t *generation_of_gguf(const char *path, struct err *e) {
    static const char *const name[][2] = {
        {"temperature", "general.sampling.temp"},
        {"top_k", "general.sampling.top_k"},
        {"top_p", "general.sampling.top_p"},
        {"min_p", "general.sampling.min_p"},
        {"repetition_penalty", "general.sampling.penalty_repeat"}};
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    struct gguf g = {0};
    json_t *j = json_object(), *eos = json_array();
    int rc = gguf_open(&g, path, e);
    for (int i = 0; !rc && i < COUNT(name); i++) {
        const struct gguf_value *v = gguf_find(&g, name[i][1]);
        if (!v) continue;
        const bool whole = v->kind != GGUF_F32 && v->kind != GGUF_F64;
        json_object_set_new(j, name[i][0],
                            whole ? json_integer(gguf_i64(&g, name[i][1], 0, path, e))
                                  : json_real(gguf_f64(&g, name[i][1], 0, path, e)));
    }
    for (int i = 0; !rc && i < COUNT(ends); i++)
        if (gguf_find(&g, ends[i]))
            json_array_append_new(eos, json_integer(gguf_i64(&g, ends[i], 0, path, e)));
    gguf_close(&g);
    json_object_set_new(j, "eos_token_id", eos);
    if (rc || e->code) json_decref(j), j = NULL;
    return j;
}

int generation_read(struct generation *g, const struct loaded *l, struct err *e) {
    *g = (struct generation){.do_sample = -1,
                             .temperature = NAN,
                             .top_k = NAN,
                             .top_p = NAN,
                             .min_p = NAN,
                             .repetition_penalty = NAN,
                             .max_new_tokens = NAN};
    const char *const folder[] = {l->adapter, l->base};
    for (int i = 0; i < 2; i++) {
        if (!folder[i]) continue;
        const bool file = path_is_gguf(folder[i]);
        char *path =
            file ? mem_text(folder[i], e) : path_join(NULL, folder[i], "generation_config.json", e);
        const bool here = path && path_exists(path);
        json_t *j = !here ? NULL : file ? generation_of_gguf(path, e) : json_open(path, e);
        const int rc = !path || (here && !j) || (j && generation_of(g, j, path, e)) ? -1 : 0;
        json_decref(j), mem_free(path);
        if (rc || here) return rc;
    }
    return 0;
}

void generation_free(struct generation *g) {
    ids_free(&g->eos), text_free(&g->unused), arena_free(&g->arena);
}
