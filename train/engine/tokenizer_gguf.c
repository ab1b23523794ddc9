/* tokenizer_gguf.c: the tokenizer, and the chat template, of any file a command is given: a GGUF
 * model carries its vocabulary in its metadata (tokenizer.ggml.*, docs/gguf.md of
 * github.com/ggml-org/ggml); everything else is data's. What a key stands for where it is missing
 * is as llama.cpp has it. */
#include <jansson.h>
#include <string.h>
#include "train/engine/engine.h"

struct vocabulary {
    struct tokenizer_parts parts;
    struct arena memory;
};

static struct bytes *texts(const struct gguf *g, const char *key, i64 *count, struct arena *a,
                           const char *where, struct err *e) {
    const struct gguf_text *t = gguf_texts(g, key, count, a, where, e);
    struct bytes *p = t ? arena_new(a, *count * (i64)sizeof *p + 1, e) : NULL;
    for (i64 i = 0; p && i < *count; i++) p[i] = (struct bytes){t[i].data, t[i].size};
    return p;
}

static int read_lists(struct vocabulary *v, const struct gguf *g, const char *where,
                      struct err *e) {
    struct tokenizer_parts *p = &v->parts;
    i64 merges = -1;
    p->count = -1;
    p->token = texts(g, "tokenizer.ggml.tokens", &p->count, &v->memory, where, e);
    if (!p->token) {
        err_input(e, "%s: no tokenizer.ggml.tokens", where);
        return err_hint(e, "give the tokenizer of the model this file was made from");
    }
    i64 scores = -1, types = -1;
    const double *score = gguf_numbers(g, "tokenizer.ggml.scores", &scores, &v->memory, where, e);
    const double *type =
        e->code ? NULL : gguf_numbers(g, "tokenizer.ggml.token_type", &types, &v->memory, where, e);
    p->merge = e->code ? NULL : texts(g, "tokenizer.ggml.merges", &merges, &v->memory, where, e);
    p->merges_count = p->merge ? merges : 0;
    if (!e->code && ((score && scores != p->count) || (type && types != p->count)))
        err_input(e, "%s: %lld tokens, but %lld scores and %lld types", where, (long long)p->count,
                  (long long)scores, (long long)types);
    float *f = score && !e->code ? arena_new(&v->memory, p->count * 4, e) : NULL;
    i32 *t = type && !e->code ? arena_new(&v->memory, p->count * 4, e) : NULL;
    for (i64 i = 0; f && i < p->count; i++) f[i] = (float)score[i];
    for (i64 i = 0; t && i < p->count; i++) t[i] = type[i] >= 1 && type[i] <= 6 ? (i32)type[i] : 0;
    p->score = f, p->type = t;
    return e->code ? -1 : 0;
}

static int read_vocabulary(struct vocabulary *v, const struct gguf *g, const char *where,
                           struct err *e) {
    struct tokenizer_parts *p = &v->parts;
    const struct gguf_value *map = gguf_find(g, "tokenizer.ggml.precompiled_charsmap");
    p->name = where;
    p->model = gguf_text(g, "tokenizer.ggml.model", "", &v->memory, where, e);
    p->pre = gguf_text(g, "tokenizer.ggml.pre", NULL, &v->memory, where, e);
    if (e->code || read_lists(v, g, where, e)) return -1;
    const bool llama = !strcmp(p->model, "llama"), t5 = !strcmp(p->model, "t5");
    p->bos = gguf_i64(g, "tokenizer.ggml.bos_token_id", llama ? 1 : -1, where, e);
    p->eos = gguf_i64(g, "tokenizer.ggml.eos_token_id", llama ? 2 : t5 ? 1 : -1, where, e);
    p->unk = gguf_i64(g, "tokenizer.ggml.unknown_token_id", llama ? 0 : t5 ? 2 : -1, where, e);
    p->sep = gguf_i64(g, "tokenizer.ggml.seperator_token_id", -1, where, e); /* so spelt */
    p->cls = gguf_i64(g, "tokenizer.ggml.cls_token_id", p->bos, where, e);
    p->add_bos = gguf_bool(g, "tokenizer.ggml.add_bos_token", llama, where, e);
    p->add_eos = gguf_bool(g, "tokenizer.ggml.add_eos_token", t5, where, e);
    p->add_space_prefix = gguf_bool(g, "tokenizer.ggml.add_space_prefix", llama || t5, where, e);
    p->remove_extra_whitespaces =
        gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", t5, where, e);
    p->escape_whitespaces = p->cut_added = true;
    if (map && map->kind == GGUF_LIST && map->bytes)
        p->charsmap = (struct bytes){(const char *)map->data, map->bytes};
    return e->code ? -1 : 0;
}

bool tokenizer_is_at(const char *path) {
    if (!path_is_gguf(path)) return tokenizer_exists(path);
    struct gguf g;
    struct err e = {0}; /* a broken file: tokenizer_of_file says so */
    const bool is = gguf_open(&g, path, &e) || gguf_find(&g, "tokenizer.ggml.tokens");
    gguf_close(&g);
    return is;
}

struct tokenizer *tokenizer_of_file(const char *path, struct err *e) {
    if (!path_is_gguf(path)) return tokenizer_open(path, e);
    struct gguf g = {0};
    struct vocabulary v = {0};
    struct tokenizer *t = NULL;
    if (!gguf_open(&g, path, e) && !read_vocabulary(&v, &g, path, e))
        t = tokenizer_from_parts(&v.parts, e);
    gguf_close(&g), arena_free(&v.memory);
    return t;
}

/* ---- chat templates */

static void template_put(json_t *list, const struct gguf *g, const char *key, const char *name,
                         struct arena *a, const char *where, struct err *e) {
    const char *text = gguf_text(g, key, NULL, a, where, e);
    if (text) json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "template", text));
}

/* tokenizer.chat_template, those of tokenizer.chat_templates, and the texts of special tokens, as
 * a tokenizer_config.json has them. A new reference. */
static json_t *chat_config(const struct gguf *g, const char *where, struct err *e) {
    struct arena a = {0};
    i64 names = -1, tokens = -1;
    char key[256];
    json_t *o = json_object(), *list = json_array();
    template_put(list, g, "tokenizer.chat_template", "default", &a, where, e);
    const struct gguf_text *name =
        e->code ? NULL : gguf_texts(g, "tokenizer.chat_templates", &names, &a, where, e);
    for (i64 i = 0; name && !e->code && i < names; i++) {
        char one[128];
        snprintf(one, sizeof one, "%.*s", (int)i64_min(name[i].size, 100), name[i].data);
        snprintf(key, sizeof key, "tokenizer.chat_template.%s", one);
        template_put(list, g, key, one, &a, where, e);
    }
    const struct gguf_text *token =
        e->code ? NULL : gguf_texts(g, "tokenizer.ggml.tokens", &tokens, &a, where, e);
    static const char *const special[][2] = {{"bos", "bos"}, {"eos", "eos"}, {"unknown", "unk"}};
    for (int i = 0; token && !e->code && i < COUNT(special); i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", special[i][0]);
        const i64 id = gguf_i64(g, key, -1, where, e);
        snprintf(key, sizeof key, "%s_token", special[i][1]);
        if (id >= 0 && id < tokens)
            json_object_set_new(o, key, json_stringn(token[id].data, (size_t)token[id].size));
    }
    if (json_array_size(list)) json_object_set(o, "chat_template", list);
    json_decref(list), arena_free(&a);
    return o;
}

struct chat *chat_of_file(const char *chosen, const char *path, struct err *e) {
    struct gguf g = {0};
    json_t *config = NULL;
    if (path && path_is_gguf(path) && !gguf_open(&g, path, e)) config = chat_config(&g, path, e);
    struct chat *c = e->code ? NULL : chat_open(chosen, path, config, e);
    gguf_close(&g), json_decref(config);
    return c;
}
