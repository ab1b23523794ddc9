/* tokenizer.c: opening a tokenizer, and encoding: the order of the stages (data/README.md has the
 * picture).
 *
 * Text comes in as raw bytes. Malformed UTF-8 is replaced first, one U+FFFD per maximal subpart,
 * which is what Python's errors="replace" hands to Hugging Face's library. Then, as that library
 * does: added tokens are cut from the raw text, each remaining piece is normalised on its own and
 * cut again at the tokens that ask for normalised text, and what is left is pre-tokenised and
 * merged. */
#include <pthread.h>
#include <string.h>
#include "data/data_int.h"

struct work_pool {
    pthread_mutex_t mutex;
    struct work *free;
};

static void work_free(struct work *w) {
    text_free(&w->clean);
    text_free(&w->shown);
    for (int i = 0; i < 2; i++) text_free(&w->norm[i]);
    for (int i = 0; i < STAGE_LIMIT; i++) text_free(&w->stage[i]);
    scratch_free(w->scratch);
    mem_free(w->cache);
    mem_free(w->symbol);
    mem_free(w->heap);
    mem_free(w);
}

/* Threads borrow a workspace for one call, so there are as many as calls ever ran at once, and none
 * outlives the tokenizer, whichever threads come and go. */
struct work *work_take(const struct tokenizer *t, struct err *e) {
    pthread_mutex_lock(&t->pool->mutex);
    struct work *w = t->pool->free;
    if (w) t->pool->free = w->next;
    pthread_mutex_unlock(&t->pool->mutex);
    if (w) return w;
    if (!(w = mem_new(sizeof *w, e))) return NULL;
    w->t = t;
    if ((w->cache = mem_new_array((i64)1 << CACHE_BITS, sizeof *w->cache, e))) return w;
    work_free(w);
    return NULL;
}

void work_give(const struct tokenizer *t, struct work *w) {
    pthread_mutex_lock(&t->pool->mutex);
    w->next = t->pool->free;
    t->pool->free = w;
    pthread_mutex_unlock(&t->pool->mutex);
}

typedef int piece_fn(struct work *w, struct bytes text, bool first, struct err *e);

static int encode_between(struct work *w, int set, struct bytes text, bool first, piece_fn *piece,
                          struct err *e) {
    struct added_match m;
    i64 done = 0, at = 0;
    while (added_next(&w->t->added[set], text, done, &at, &m)) {
        if (done < m.begin &&
            piece(w, (struct bytes){text.data + done, m.begin - done}, first && !done, e))
            return -1;
        if (ids_add(w->out, m.id, e)) return -1;
        done = m.end;
    }
    if (done == text.size) return 0;
    return piece(w, (struct bytes){text.data + done, text.size - done}, first && !done, e);
}

static int encode_words(struct work *w, struct bytes text, bool first, struct err *e) {
    return pretokenize(w, 0, text, first, e);
}

static int encode_raw(struct work *w, struct bytes text, bool first, struct err *e) {
    const struct tokenizer *t = w->t;
    if (normalize(t->norm, t->norms, text, w->norm, &w->scratch, &text, e)) return -1;
    return encode_between(w, 1, text, first, encode_words, e);
}

static int encode_text(struct work *w, struct bytes text, struct err *e) {
    if (utf8_bad(text.data, text.size) >= 0) {
        w->clean.size = 0;
        if (utf8_repair(&w->clean, text, e)) return -1;
        text = (struct bytes){w->clean.data, w->clean.size};
    }
    return encode_between(w, 0, text, true, encode_raw, e);
}

static int add_all(struct ids *out, const struct ids *more, bool add, struct err *e) {
    for (i64 i = 0; add && i < more->count; i++)
        if (ids_add(out, more->item[i], e)) return -1;
    return 0;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, i64 size, bool add_special_tokens,
                     struct ids *out, struct err *e) {
    i64 before = out->count;
    struct work *w = work_take(t, e);
    if (!w) return -1;
    w->out = out;
    int rc = add_all(out, &t->prefix, add_special_tokens, e) ||
             encode_text(w, (struct bytes){text, size}, e) ||
             add_all(out, &t->suffix, add_special_tokens, e);
    work_give(t, w);
    if (rc) out->count = before;
    return rc ? -1 : 0;
}

/* ---- begin and end of text ------------------------------------------------------------------- */
static i64 token_named(const struct tokenizer *t, const char *const *names) {
    for (i64 id; *names; names++) /* Qwen's vocabulary has a plain "</s>" */
        if ((id = tokenizer_id(t, *names)) >= 0 && t->special[id]) return id;
    return -1;
}

/* "bos_token" is text or {"content": text}; "bos_token_id" a number or a list, of which the first
 * counts. */
static int special_from(const struct tokenizer *t, const char *file, const json_t *o,
                        const char *key, i64 *id, struct err *e) {
    const json_t *j = json_object_get(o, key);
    if (json_is_object(j)) j = json_object_get(j, "content");
    if (json_is_array(j)) j = json_array_get(j, 0);
    if (!j || json_is_null(j)) return 0;
    if (json_is_string(j))
        *id = vocab_find(&t->vocab, json_string_value(j), (i64)json_string_length(j));
    else if (json_is_integer(j))
        *id = json_integer_value(j);
    else
        return err_input(e, "%s: %s must be a token or an id", file, key);
    struct bytes text;
    if (vocab_text(&t->vocab, *id, &text)) return 0;
    if (json_is_string(j))
        return err_input(e, "%s: %s \"%s\" is not in %s", file, key, json_string_value(j), t->path);
    return err_input(e, "%s: %s %lld is not in %s", file, key, (long long)*id, t->path);
}

static int specials_from_file(struct tokenizer *t, const char *folder, const char *name,
                              const char *suffix, struct err *e) {
    static const char *const which[] = {"bos_token", "eos_token"};
    char *file = mem_printf(e, "%s/%s", folder, name), key[32];
    json_t *j = file && path_exists(file) ? json_open(file, e) : NULL;
    int rc = file && (j || !path_exists(file)) ? 0 : -1;
    for (int i = 0; !rc && j && i < 2; i++) {
        i64 *id = i ? &t->eos : &t->bos;
        snprintf(key, sizeof key, "%s%s", which[i], suffix);
        if (*id < 0) rc = special_from(t, file, j, key, id, e);
    }
    json_decref(j);
    mem_free(file);
    return rc;
}

static int specials_find(struct tokenizer *t, const char *folder, struct err *e) {
    static const char *const bos[] = {"<s>", "<|begin_of_text|>", NULL};
    static const char *const eos[] = {"</s>", "<|end_of_text|>", "<|endoftext|>", NULL};
    t->bos = t->eos = -1;
    if (folder && (specials_from_file(t, folder, "tokenizer_config.json", "", e) ||
                   specials_from_file(t, folder, "special_tokens_map.json", "", e) ||
                   specials_from_file(t, folder, "config.json", "_id", e) ||
                   specials_from_file(t, folder, "generation_config.json", "_id", e)))
        return -1;
    if (t->bos < 0) t->bos = token_named(t, bos);
    if (t->eos < 0) t->eos = token_named(t, eos);
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */
static int tokenizer_load(struct tokenizer *t, const char *path, struct err *e) {
    bool folder = path_is_dir(path);
    struct text file = {0};
    t->path = folder ? mem_printf(e, "%s/tokenizer.json", path) : mem_text(path, e);
    if (!t->path || file_read(&file, t->path, e) ||
        sha256_bytes(file.data, file.size, t->sha256, e)) {
        text_free(&file);
        return -1;
    }
    json_t *j = json_parse(file.data, file.size, t->path, e);
    text_free(&file);
    int rc = j ? tokenizer_read(t, j, e) : -1;
    json_decref(j);
    return rc ? -1 : specials_find(t, folder ? path : NULL, e);
}

struct tokenizer *tokenizer_open(const char *path, struct err *e) {
    classes_start();
    struct tokenizer *t = mem_new(sizeof *t, e);
    if (!t) return NULL;
    if ((t->pool = mem_new(sizeof *t->pool, e))) {
        pthread_mutex_init(&t->pool->mutex, NULL);
        if (!tokenizer_load(t, path, e)) return t;
    }
    err_frame(e, "while opening tokenizer %s", path);
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(struct tokenizer *t) {
    if (!t) return;
    for (struct work *w = t->pool ? t->pool->free : NULL, *next; w; w = next) {
        next = w->next;
        work_free(w);
    }
    if (t->pool) pthread_mutex_destroy(&t->pool->mutex);
    mem_free(t->pool);
    for (i64 i = 0; i < t->norms; i++) pattern_free(&t->norm[i].pattern);
    for (i64 i = 0; i < t->stages; i++) pattern_free(&t->stage[i].pattern);
    for (i64 i = 0; i < t->decoders; i++) pattern_free(&t->decoder[i].pattern);
    for (int i = 0; i < 2; i++) mem_free(t->added[i].token);
    mem_free(t->special);
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    ids_free(&t->prefix);
    ids_free(&t->suffix);
    mem_free(t->path);
    arena_free(&t->arena);
    mem_free(t);
}

i64 tokenizer_size(const struct tokenizer *t) { return t->vocab.count; }
i64 tokenizer_id(const struct tokenizer *t, const char *token) {
    return vocab_find(&t->vocab, token, (i64)strlen(token));
}
i64 tokenizer_bos(const struct tokenizer *t) { return t->bos; }
i64 tokenizer_eos(const struct tokenizer *t) { return t->eos; }
const char *tokenizer_sha256(const struct tokenizer *t) { return t->sha256; }
const char *tokenizer_path(const struct tokenizer *t) { return t->path; }
