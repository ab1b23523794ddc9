/* model.c: from a word to ids, whatever the model: through a cache, because words repeat (98 % in
 * English), after cutting what may be cut.
 *
 * Llama 2's and Gemma's "word" is the whole text, which defeats a cache. It may be cut between any
 * two characters that no token holds side by side, for then no merge crosses. Measured on Llama 2:
 * 9 MB/s of English whole, 40 cut at spaces. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

static const char word_mark[] = "\xe2\x96\x81";
enum { MARK = sizeof word_mark - 1 };

static i64 pair_bit(u8 last, u8 first) { return (i64)last << 8 | first; }

static void join(struct cuts *c, struct bytes token) {
    for (i64 i = 1; i < token.size; i++) {
        if (((u8)token.data[i] & 0xc0) == 0x80) continue;
        i64 bit = pair_bit((u8)token.data[i - 1], (u8)token.data[i]);
        c->joined[bit / 8] |= (u8)(1 << bit % 8);
    }
}

static bool cut_here(const struct cuts *c, const char *at) {
    i64 bit = pair_bit((u8)at[-1], (u8)at[0]);
    return !(c->joined[bit / 8] >> bit % 8 & 1);
}

/* Merges of byte pieces or of the unknown token join characters that their texts do not show. */
static bool merges_hidden(const struct tokenizer *t) {
    for (i64 i = 0; i < t->bpe.slots; i++) {
        const struct merge *m = &t->bpe.merge[i];
        if (m->id == UINT32_MAX) continue;
        for (int k = 0; k < 2; k++) {
            i64 part = (i64)(k ? m->pair & UINT32_MAX : m->pair >> 32);
            struct bytes b;
            if (part == t->unk_id) return true;
            if (t->byte_fallback && vocab_text(&t->vocab, part, &b) && b.size == 6 &&
                !memcmp(b.data, "<0x", 3))
                return true;
        }
    }
    return false;
}

void cuts_find(struct tokenizer *t) {
    struct cuts *c = &t->cuts;
    struct bytes b;
    bool fallback = t->byte_fallback; /* then no character is unknown, and none must be joined */
    for (int i = 0; i < 256; i++) fallback &= t->fallback_id[i] >= 0;
    c->marks = !fallback;
    c->on = t->model == bpe_word && !t->bpe.bytes && !t->bpe.ignore_merges && !t->bpe.prefix.size &&
            !t->bpe.suffix.size && !merges_hidden(t) &&
            (fallback || vocab_model(&t->vocab, word_mark, MARK) >= 0);
    for (i64 id = 0; c->on && id < t->vocab.count; id++)
        if (vocab_text(&t->vocab, id, &b)) join(c, b);
}

/* All eight places are copied: fewer instructions than counting. */
static int add_cached(struct ids *out, const struct cached_word *c, struct err *e) {
    if (out->capacity - out->count >= COUNT(c->id)) {
        memcpy(out->item + out->count, c->id, sizeof c->id);
        out->count += c->count;
        return 0;
    }
    for (int i = 0; i < c->count; i++)
        if (ids_add(out, c->id[i], e)) return -1;
    return 0;
}

static bool is_word(const struct cached_word *c, struct bytes word) {
    return c->size == word.size && !memcmp(c->bytes, word.data, (size_t)word.size);
}

static int word_piece(struct work *w, struct bytes word, struct err *e) {
    if (word.size > (i64)sizeof w->cache->bytes) return w->t->model(w, word, e);
    struct cached_word *set =
        &w->cache[bytes_hash(word.data, word.size) >> (64 - CACHE_BITS) & ~(u64)1];
    if (is_word(set, word)) return add_cached(w->out, set, e);
    if (is_word(set + 1, word)) return add_cached(w->out, set + 1, e);
    i64 before = w->out->count;
    if (w->t->model(w, word, e)) return -1;
    i64 n = w->out->count - before;
    if (n > COUNT(set->id)) return 0;
    set[1] = set[0];
    set->size = (u8)word.size;
    set->count = (u8)n;
    memcpy(set->bytes, word.data, (size_t)word.size);
    if (n) memcpy(set->id, w->out->item + before, (size_t)n * sizeof *set->id);
    return 0;
}

int word_encode(struct work *w, struct bytes word, struct err *e) {
    const struct cuts *c = &w->t->cuts;
    if (!c->on) return word_piece(w, word, e);
    i64 from = 0;
    for (i64 i = 1; i < word.size; i++) {
        const char *at = word.data + i;
        if (((u8)*at & 0xc0) == 0x80 || !cut_here(c, at)) continue;
        if (c->marks && (i + MARK > word.size || memcmp(at, word_mark, MARK))) continue;
        if (word_piece(w, (struct bytes){word.data + from, i - from}, e)) return -1;
        from = i;
    }
    return word_piece(w, (struct bytes){word.data + from, word.size - from}, e);
}
