/* gguf_vocabulary.c: a model's tokenizer.json and its companions as the metadata of a GGUF file, as
 * llama.cpp's converter writes them. The way back: tokenizer_gguf.c.
 *
 * Byte-level BPE becomes "gpt2" (tokens as ByteLevel shows them, merges, the name of the
 * pre-tokenizer), SentencePiece-style BPE "llama" (a token's score is minus the rank of the first
 * merge that makes it, which is how the tokenizer.json was made from the scores), Unigram "t5".
 * What llama.cpp has no name for is refused. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct vocab {
    const char *where; /* tokenizer.json */
    i64 count;
    struct gguf_text *token;
    i32 *type;
    float *score;
    json_t *file, *model;
    struct arena arena;
};

static int token_put(struct vocab *v, const char *text, size_t size, i64 id, i32 type,
                     struct err *e) {
    if (id < 0 || id >= v->count)
        return err_input(e, "%s: token id %lld is outside the model's vocabulary of %lld", v->where,
                         (long long)id, (long long)v->count);
    v->token[id] = (struct gguf_text){text, (i64)size};
    v->type[id] = type;
    return 0;
}

/* "<0xE2>": a byte of SentencePiece's. */
static bool is_byte(const char *text, size_t size) {
    return size == 6 && !memcmp(text, "<0x", 3) && text[5] == '>';
}

static int tokens_collect(struct vocab *v, bool bytes, struct err *e) {
    const json_t *vocab = json_object_get(v->model, "vocab");
    const char *unk = json_string_value(json_object_get(v->model, "unk_token"));
    for (void *i = json_object_iter((json_t *)vocab); i;
         i = json_object_iter_next((json_t *)vocab, i)) {
        const char *text = json_object_iter_key(i);
        const size_t size = json_object_iter_key_len(i);
        const bool unknown = unk && strlen(unk) == size && !memcmp(unk, text, size);
        if (token_put(v, text, size, json_integer_value(json_object_iter_value(i)),
                      bytes && is_byte(text, size) ? TOKEN_BYTE
                      : unknown && bytes           ? TOKEN_UNKNOWN
                                                   : TOKEN_NORMAL,
                      e))
            return -1;
    }
    for (size_t i = 0; json_is_array(vocab) && i < json_array_size(vocab); i++) { /* Unigram */
        const json_t *pair = json_array_get(vocab, i), *text = json_array_get(pair, 0);
        const json_t *at = json_object_get(v->model, "unk_id");
        const size_t size = json_string_length(text);
        if (token_put(v, json_string_value(text), size, (i64)i,
                      at && json_integer_value(at) == (json_int_t)i     ? TOKEN_UNKNOWN
                      : bytes && is_byte(json_string_value(text), size) ? TOKEN_BYTE
                                                                        : TOKEN_NORMAL,
                      e))
            return -1;
        v->score[i] = (float)json_number_value(json_array_get(pair, 1));
    }
    const json_t *added = json_object_get(v->file, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i), *text = json_object_get(t, "content");
        const i64 id = json_integer_value(json_object_get(t, "id"));
        const bool unknown =
            bytes && unk && json_is_string(text) && !strcmp(unk, json_string_value(text));
        if (token_put(v, json_string_value(text), json_string_length(text), id,
                      unknown                                       ? TOKEN_UNKNOWN
                      : json_is_true(json_object_get(t, "special")) ? TOKEN_CONTROL
                                                                    : TOKEN_USER_DEFINED,
                      e))
            return -1;
    }
    for (i64 i = 0; i < v->count; i++) { /* rows of the embedding that no token has */
        if (v->token[i].data) continue;
        const char *name = arena_printf(&v->arena, e, "[PAD%lld]", (long long)i);
        if (!name || token_put(v, name, strlen(name), i, TOKEN_UNUSED, e)) return -1;
    }
    return 0;
}

/* Merges as texts "left right"; with `scores`, the rank of each merged token as its score. */
static int merges_put(struct vocab *v, struct gguf_writer *w, bool scores, struct err *e) {
    const json_t *merges = json_object_get(v->model, "merges"),
                 *vocab = json_object_get(v->model, "vocab");
    const i64 n = (i64)json_array_size(merges);
    struct gguf_text *list = arena_new(&v->arena, (n + 1) * (i64)sizeof *list, e);
    i64 count = 0;
    if (!list) return -1;
    for (i64 i = n - 1; i >= 0; i--) { /* the first merge of a token is the last to say */
        const json_t *m = json_array_get(merges, (size_t)i);
        const char *text = json_string_value(m);
        if (text && !strncmp(text, "#version", 8)) continue;
        if (json_is_array(m)) {
            const char *a = json_string_value(json_array_get(m, 0)),
                       *b = json_string_value(json_array_get(m, 1));
            if (!(text = arena_printf(&v->arena, e, "%s %s", a ? a : "", b ? b : ""))) return -1;
        }
        list[n - 1 - count++] = (struct gguf_text){text, text ? (i64)strlen(text) : 0};
        const char *cut = text ? strchr(text + (*text != 0), ' ') : NULL;
        if (!scores || !cut) continue;
        char *whole = arena_printf(&v->arena, e, "%.*s%s", (int)(cut - text), text, cut + 1);
        if (!whole) return -1;
        const json_t *id = json_object_get(vocab, whole);
        if (id && json_integer_value(id) < v->count)
            v->score[json_integer_value(id)] = -(float)(i + 1);
    }
    return scores ? 0 : gguf_put_texts(w, "tokenizer.ggml.merges", list + n - count, count, e);
}

/* A truth value of tokenizer_config.json; missing: what the post-processor of tokenizer.json does
 * with a text, told by what it adds. */
static bool adds(const json_t *config, const char *key, const struct tokenizer *t, bool first) {
    const json_t *said = json_object_get(config, key);
    if (json_is_boolean(said)) return json_is_true(said);
    struct ids ids = {0};
    struct err e = {0};
    const i64 id = first ? tokenizer_bos(t) : tokenizer_eos(t);
    tokenizer_encode(t, "a", 1, true, &ids, &e);
    const bool yes = ids.count > 1 && id >= 0 && ids.item[first ? 0 : ids.count - 1] == (u32)id;
    ids_free(&ids);
    return yes;
}

static json_t *companion(const char *folder, const char *name, struct err *e) {
    char *path = path_join(NULL, folder, name, e);
    json_t *j = path && path_exists(path) ? json_open(path, e) : NULL;
    return mem_free(path), j;
}

static int ids_put(struct gguf_writer *w, const struct tokenizer *t, const json_t *config,
                   struct err *e) {
    static const struct {
        const char *hf, *gguf;
    } names[] = {{"unk_token", "unknown"}, {"pad_token", "padding"}};
    const i64 bos = tokenizer_bos(t), eos = tokenizer_eos(t);
    int rc = (bos >= 0 && gguf_put_u32(w, "tokenizer.ggml.bos_token_id", bos, e)) ||
             (eos >= 0 && gguf_put_u32(w, "tokenizer.ggml.eos_token_id", eos, e));
    for (int i = 0; !rc && i < COUNT(names); i++) {
        const json_t *j = json_object_get(config, names[i].hf);
        if (json_is_object(j)) j = json_object_get(j, "content");
        const i64 id = json_is_string(j) ? tokenizer_id(t, json_string_value(j)) : -1;
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", names[i].gguf);
        if (id >= 0) rc = gguf_put_u32(w, key, id, e);
    }
    return rc ||
                   gguf_put_bool(w, "tokenizer.ggml.add_bos_token",
                                 adds(config, "add_bos_token", t, true), e) ||
                   gguf_put_bool(w, "tokenizer.ggml.add_eos_token",
                                 adds(config, "add_eos_token", t, false), e)
               ? -1
               : 0;
}

/* Whether a text begins with a space: Metaspace with prepend_scheme other than never, or a
 * normalizer that prepends. */
static bool prepends(const json_t *file) {
    char *text = json_dumps(json_object_get(file, "normalizer"), JSON_COMPACT | JSON_ENCODE_ANY);
    char *pre = json_dumps(json_object_get(file, "pre_tokenizer"), JSON_COMPACT | JSON_ENCODE_ANY);
    const bool yes = (text && strstr(text, "\"Prepend\"")) ||
                     (pre && strstr(pre, "\"Metaspace\"") && !strstr(pre, "\"never\"") &&
                      !strstr(pre, "\"add_prefix_space\":false"));
    free(text), free(pre);
    return yes;
}

static int vocab_put(struct vocab *v, struct gguf_writer *w, const struct tokenizer *t,
                     const json_t *config, struct err *e) {
    const char *type = json_string_value(json_object_get(v->model, "type"));
    const bool unigram = type && !strcmp(type, "Unigram"),
               fallback = json_is_true(json_object_get(v->model, "byte_fallback")),
               sentencepiece = unigram || fallback;
    if (type && strcmp(type, "BPE") && !unigram) {
        err_input(e, "%s: model %s has no counterpart in llama.cpp that hone writes", v->where,
                  type);
        return err_detail(e, "known: BPE, Unigram");
    }
    const char *pre = sentencepiece ? "default" : tokenizer_pre_name(v->file, v->where, e);
    if (!pre || tokens_collect(v, sentencepiece, e) ||
        gguf_put_text(w, "tokenizer.ggml.model",
                      unigram    ? "t5"
                      : fallback ? "llama"
                                 : "gpt2",
                      e) ||
        gguf_put_text(w, "tokenizer.ggml.pre", pre, e) ||
        gguf_put_texts(w, "tokenizer.ggml.tokens", v->token, v->count, e))
        return -1;
    if (!unigram && merges_put(v, w, fallback, e)) return -1;
    if (sentencepiece && gguf_put_f32s(w, "tokenizer.ggml.scores", v->score, v->count, e))
        return -1;
    if (gguf_put_i32s(w, "tokenizer.ggml.token_type", v->type, v->count, e)) return -1;
    if (sentencepiece && gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", prepends(v->file), e))
        return -1;
    return ids_put(w, t, config, e);
}

int gguf_put_tokenizer(struct gguf_writer *w, const struct loaded *l, struct err *e) {
    struct vocab v = {.where = tokenizer_path(l->tokenizer), .count = l->model.config.vocab_size};
    v.token = arena_new(&v.arena, v.count * (i64)sizeof *v.token, e);
    v.type = arena_new(&v.arena, v.count * 4, e), v.score = arena_new(&v.arena, v.count * 4, e);
    v.file = v.token && v.type && v.score ? tokenizer_json(l->tokenizer, e) : NULL;
    v.model = json_object_get(v.file, "model");
    json_t *config = companion(l->base, "tokenizer_config.json", e);
    int rc = v.file && !e->code ? 0 : -1;
    if (!rc && !json_is_object(v.model))
        rc = err_input(e, "%s is no tokenizer.json; GGUF files are written from one", v.where);
    rc = rc || vocab_put(&v, w, l->tokenizer, config, e);
    json_decref(config), json_decref(v.file), arena_free(&v.arena);
    return rc ? err_frame(e, "while writing the tokenizer of %s", l->base) : 0;
}

/* A name as llama.cpp's converter makes it part of a key. */
static void name_plain(char to[64], const char *name) {
    snprintf(to, 64, "%s", name);
    for (char *p = to; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", *p)) *p = '_';
}

int gguf_put_templates(struct gguf_writer *w, const struct chat *c, const struct tokenizer *t,
                       struct err *e) {
    enum { NAMES = 64 };
    static const char prefix[] = "tokenizer.chat_template.";
    struct gguf_text names[NAMES];
    char plain[NAMES][64], key[64 + sizeof prefix];
    const char *name, *text;
    i64 size, count = 0;
    struct answer_end end;
    const char *const used = chat_source(c, &size);
    int rc = gguf_put_text(w, "tokenizer.chat_template", used, e);
    for (i64 i = 0; !rc && count < NAMES && chat_named(c, i, &name, &text); i++) {
        if (text == used || !strcmp(name, "default")) continue;
        name_plain(plain[count], name);
        snprintf(key, sizeof key, "%s%s", prefix, plain[count]);
        names[count] = (struct gguf_text){plain[count], (i64)strlen(plain[count])};
        rc = gguf_put_text(w, key, text, e), count++;
    }
    rc = rc || (count && gguf_put_texts(w, "tokenizer.chat_templates", names, count, e)) ||
         answer_end(&end, c, NULL, t, e);
    if (!rc && end.special && end.id != tokenizer_eos(t))
        rc = gguf_put_u32(w, "tokenizer.ggml.eot_token_id", end.id, e);
    return rc ? -1 : 0;
}
