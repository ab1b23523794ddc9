/* tokenizer_new.c: a tokenizer's memory, the workspaces of its running calls, what it tells of
 * itself. */
#include <pthread.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

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
    text_free(&w->path);
    for (int i = 0; i < COUNT(w->align); i++) spans_free(&w->align[i]);
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

struct tokenizer *tokenizer_new(struct err *e) {
    classes_start();
    struct tokenizer *t = mem_new(sizeof *t, e);
    if (!t) return NULL;
    t->bos = t->eos = t->unk_id = -1;
    if ((t->pool = mem_new(sizeof *t->pool, e)))
        return pthread_mutex_init(&t->pool->mutex, NULL), t;
    mem_free(t);
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
    mem_free(t->user.token);
    unigram_free(&t->unigram);
    mem_free(t->special);
    vocab_free(&t->vocab);
    json_decref(t->extra);
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
bool tokenizer_has(const struct tokenizer *t, u32 id) {
    return vocab_text(&t->vocab, id, &(struct bytes){0});
}
bool tokenizer_special(const struct tokenizer *t, u32 id) {
    return id < (u64)tokenizer_size(t) && t->special[id];
}
i64 tokenizer_bos(const struct tokenizer *t) { return t->bos; }
i64 tokenizer_eos(const struct tokenizer *t) { return t->eos; }
const char *tokenizer_sha256(const struct tokenizer *t) { return t->sha256; }
const char *tokenizer_path(const struct tokenizer *t) { return t->path; }
