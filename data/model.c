/* model.c: from a word to ids, whatever the model: through a cache, because words repeat (98 % in
 * English), after cutting what may be cut.
 *
 * Llama 2's and Gemma's "word" is the whole text, which defeats a cache. It may be cut before a
 * U+2581 (SentencePiece's space) wherever no token holds that mark after the character in front of
 * it: then no merge and no piece crosses. Measured on Llama 2: 9 MB/s of English whole, 40 cut. */
#include <string.h>
#include "data/data_int.h"

static const char word_mark[] = "\xe2\x96\x81";
enum { MARK = sizeof word_mark - 1 };

void cuts_find(struct tokenizer *t) {
    const struct vocab *v = &t->vocab;
    struct bytes b;
    t->cuts.on = !t->bpe.bytes && !t->bpe.ignore_merges && !t->bpe.prefix.size &&
                 !t->bpe.suffix.size && t->model == bpe_word && vocab_find(v, word_mark, MARK) >= 0;
    for (i64 id = 0; t->cuts.on && id < v->count; id++) {
        if (!vocab_text(v, id, &b)) continue;
        const char *mark = b.data, *end = b.data + b.size;
        while ((mark = memmem(mark, (size_t)(end - mark), word_mark, MARK))) {
            if (mark > b.data) t->cuts.never[(u8)mark[-1]] = 1;
            mark += MARK;
        }
    }
}

bool fallback_bytes(const struct tokenizer *t, struct bytes text) {
    for (i64 i = 0; i < text.size; i++)
        if (t->fallback_id[(u8)text.data[i]] < 0) return false;
    return t->byte_fallback;
}

static int word_piece(struct work *w, struct bytes word, struct err *e) {
    if (word.size > (i64)sizeof w->cache->bytes) return w->t->model(w, word, e);
    struct cached_word *slot = &w->cache[bytes_hash(word.data, word.size) >> (64 - CACHE_BITS)];
    if (slot->size == word.size && !memcmp(slot->bytes, word.data, (size_t)word.size)) {
        for (int i = 0; i < slot->count; i++)
            if (ids_add(w->out, slot->id[i], e)) return -1;
        return 0;
    }
    i64 before = w->out->count;
    if (w->t->model(w, word, e)) return -1;
    i64 n = w->out->count - before;
    if (n > COUNT(slot->id)) return 0;
    slot->size = (u8)word.size;
    slot->count = (u8)n;
    memcpy(slot->bytes, word.data, (size_t)word.size);
    if (n) memcpy(slot->id, w->out->item + before, (size_t)n * sizeof *slot->id);
    return 0;
}

int word_encode(struct work *w, struct bytes word, struct err *e) {
    const struct cuts *c = &w->t->cuts;
    if (!c->on) return word_piece(w, word, e);
    i64 from = 0;
    const char *mark = word.data, *end = word.data + word.size;
    while ((mark = memmem(mark, (size_t)(end - mark), word_mark, MARK))) {
        i64 at = mark - word.data;
        mark += MARK;
        if (at == from || c->never[(u8)word.data[at - 1]]) continue;
        if (word_piece(w, (struct bytes){word.data + from, at - from}, e)) return -1;
        from = at;
    }
    return word_piece(w, (struct bytes){word.data + from, word.size - from}, e);
}
