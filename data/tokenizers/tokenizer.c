/* tokenizer.c: opening a tokenizer, and encoding: the order of the stages (README.md has the
 * picture).
 *
 * Text comes in as raw bytes. Malformed UTF-8 is replaced first, one U+FFFD per maximal subpart,
 * which is what Python's errors="replace" hands to Hugging Face's library. Then, as that library
 * does: added tokens are cut from the raw text, each remaining piece is normalised on its own and
 * cut again at the tokens that ask for normalised text, and what is left is pre-tokenised and
 * merged. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

typedef int piece_fn(struct work *w, struct bytes text, bool first, struct err *e);

/* From `at` on, where `done` is the end of what is encoded already. */
static int encode_between(struct work *w, int set, struct bytes text, i64 at, i64 done, bool first,
                          piece_fn *piece, struct err *e) {
    struct added_match m;
    while (added_next(&w->t->added[set], text, done, &at, &m)) {
        if (done < m.begin &&
            piece(w, (struct bytes){text.data + done, m.begin - done}, first && !done, e))
            return -1;
        /* Nothing is left of a token whose white space the one before has swallowed. */
        const struct bytes token = {text.data + m.begin, m.end - m.begin};
        if (token.size > 0 &&
            (ids_add(w->out, m.id, e) || (w->offsets && offsets_add(w, token, e))))
            return -1;
        done = m.begin < m.end ? m.end : i64_max(done, m.end);
    }
    if (done == text.size) return 0;
    return piece(w, (struct bytes){text.data + done, text.size - done}, first && !done, e);
}

static int encode_words(struct work *w, struct bytes text, bool first, struct err *e) {
    return pretokenize(w, 0, text, first, e);
}

static int encode_raw(struct work *w, struct bytes text, bool first, struct err *e) {
    const struct tokenizer *t = w->t;
    const struct place raw = w->place;
    int rc = w->offsets
                 ? normalize_offsets(w, &text, &first, e)
                 : normalize(t->norm, t->norms, text, w->norm, &w->scratch, &text, &first, e);
    rc = rc || encode_between(w, 1, text, 0, 0, first, encode_words, e);
    w->place = raw;
    return rc ? -1 : 0;
}

static int encode_text(struct work *w, struct bytes text, struct err *e) {
    const struct bytes raw = text;
    if (utf8_bad(text.data, text.size) >= 0) {
        w->clean.size = 0;
        if (utf8_repair(&w->clean, text, e)) return -1;
        text = (struct bytes){w->clean.data, w->clean.size};
    }
    if (w->offsets && offsets_start(w, raw, text, e)) return -1;
    return encode_between(w, 0, text, 0, 0, true, encode_raw, e);
}

int encode_from(struct work *w, struct bytes text, i64 at, i64 done, struct ids *out,
                struct err *e) {
    w->out = out, w->offsets = NULL;
    return encode_between(w, 0, text, at, done, true, encode_raw, e);
}

static int add_all(struct work *w, const struct ids *more, bool add, struct err *e) {
    for (i64 i = 0; add && i < more->count; i++)
        if (ids_add(w->out, more->item[i], e) || (w->offsets && spans_push(w->offsets, 0, 0, e)))
            return -1;
    return 0;
}

int tokenizer_encode_offsets(const struct tokenizer *t, const char *text, i64 size,
                             bool add_special_tokens, struct ids *out, struct spans *offsets,
                             struct err *e) {
    const i64 before = out->count, spans = offsets ? offsets->count : 0;
    struct work *w = work_take(t, e);
    if (!w) return -1;
    w->out = out, w->offsets = offsets;
    int rc = add_all(w, &t->prefix, add_special_tokens, e) ||
             encode_text(w, (struct bytes){text, size}, e) ||
             add_all(w, &t->suffix, add_special_tokens, e);
    work_give(t, w);
    if (rc) out->count = before;
    if (rc && offsets) offsets->count = spans;
    return rc ? -1 : 0;
}
int tokenizer_encode(const struct tokenizer *t, const char *text, i64 size, bool add_special_tokens,
                     struct ids *out, struct err *e) {
    return tokenizer_encode_offsets(t, text, size, add_special_tokens, out, NULL, e);
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
    char *file = path_join(NULL, folder, name, e), key[32];
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
    const i64 own[2] = {t->bos, t->eos}; /* what the file itself says comes after the folder's */
    t->bos = t->eos = -1;
    if (folder &&
        ((t->map_first && specials_from_file(t, folder, "special_tokens_map.json", "", e)) ||
         specials_from_file(t, folder, "tokenizer_config.json", "", e) ||
         specials_from_file(t, folder, "special_tokens_map.json", "", e) ||
         specials_from_file(t, folder, "config.json", "_id", e) ||
         specials_from_file(t, folder, "generation_config.json", "_id", e)))
        return -1;
    if (t->bos < 0) t->bos = own[0];
    if (t->eos < 0) t->eos = own[1];
    if (t->bos < 0) t->bos = token_named(t, bos);
    if (t->eos < 0) t->eos = token_named(t, eos);
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* A file that is not JSON: ranks start with base64, a SentencePiece model with the first field. */
static int load_parts(struct tokenizer *t, struct bytes file, const char *folder, struct err *e) {
    char *name = folder ? path_join(NULL, folder, "tokenizer_config.json", e) : NULL;
    if (folder && !name) return -1;
    json_t *config = folder && path_exists(name) ? json_open(name, e) : json_object();
    json_t *added = folder && config ? added_of_folder(folder, config, e) : NULL;
    int rc = e->code ? -1
             : file.size && file.data[0] == '\n'
                 ? sentencepiece_read(t, file, folder, config, added, e)
                 : tiktoken_read(t, file, config, added, e);
    json_decref(added), json_decref(config), mem_free(name);
    return rc;
}

/* The tokenizer's file in a folder: new text. */
static char *find_file(const char *folder, struct err *e) {
    static const char *const name[] = {"tokenizer.json", "tokenizer.model", "spiece.model",
                                       "sentencepiece.bpe.model", "tiktoken.model"};
    char **names = NULL, *found = NULL;
    i64 count = 0;
    for (int i = 0; i < COUNT(name); i++) {
        char *file = path_join(NULL, folder, name[i], e);
        if (!file || path_exists(file)) return file;
        mem_free(file);
    }
    char *merges = path_join(NULL, folder, "merges.txt", e),
         *vocab = merges ? path_join(NULL, folder, "vocab.json", e) : NULL;
    const bool pair = vocab && path_exists(merges) && path_exists(vocab);
    mem_free(merges);
    if (pair || !vocab) return vocab;
    mem_free(vocab);
    if (dir_list(folder, &names, &count, e)) return NULL;
    for (i64 i = 0; i < count && !found; i++) {
        if (ends_with(names[i], ".tiktoken")) found = path_join(NULL, folder, names[i], e);
    }
    names_free(names, count);
    return found || e->code ? found : path_join(NULL, folder, "tokenizer.json", e);
}

bool tokenizer_exists(const char *folder) {
    struct err e = {0};
    char *file = find_file(folder, &e);
    const bool exists = file && path_exists(file);
    mem_free(file);
    return exists;
}

/* Whole, decompressed if the name ends in .gz; the hash is of the stored bytes. */
static int read_whole(struct tokenizer *t, struct text *file, struct err *e) {
    struct byte_stream s;
    if (byte_stream_open(&s, t->path, e)) return -1;
    int rc = 0;
    while (!rc && !s.ended) rc = byte_stream_read(&s, file, e);
    if (!rc) sha256_end(&s.sha256, t->sha256);
    byte_stream_close(&s);
    return rc;
}

/* Of a vocabulary in two files the hash is of both. */
static int hash_merges(struct tokenizer *t, const char *folder, struct err *e) {
    char *path = path_join(NULL, folder, "merges.txt", e), both[129];
    int rc = path ? sha256_file(path, both + 64, e) : -1;
    memcpy(both, t->sha256, 64);
    rc = rc || sha256_bytes(both, 128, t->sha256, e);
    return mem_free(path), rc ? -1 : 0;
}

static int tokenizer_load(struct tokenizer *t, const char *path, struct err *e) {
    const char *folder = path_is_dir(path) ? path : NULL;
    struct text file = {0};
    t->path = folder ? find_file(path, e) : mem_text(path, e);
    if (!t->path || read_whole(t, &file, e)) return text_free(&file), -1;
    const bool json =
        !file.size || file.data[0] == '{' || file.data[0] == '[' || ends_with(t->path, ".json");
    json_t *j = json ? json_parse(file.size ? file.data : "", file.size, t->path, e) : NULL;
    if (j && folder && ends_with(t->path, "/vocab.json")) {
        json_t *whole = hash_merges(t, folder, e) ? NULL : tokenizer_of_pair(folder, j, e);
        json_decref(j);
        if (!(j = whole)) return text_free(&file), -1;
    }
    int rc = j      ? tokenizer_read(t, j, folder, e)
             : json ? -1
                    : load_parts(t, (struct bytes){file.data, file.size}, folder, e);
    json_decref(j), text_free(&file);
    return rc ? -1 : specials_find(t, folder, e);
}

struct tokenizer *tokenizer_open(const char *path, struct err *e) {
    struct tokenizer *t = tokenizer_new(e);
    if (t && !tokenizer_load(t, path, e)) return t;
    hub_hint(path, e), err_frame(e, "while opening tokenizer %s", path);
    tokenizer_free(t);
    return NULL;
}
