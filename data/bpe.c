/* bpe.c: byte-pair encoding of one word (Sennrich et al., 2016, arXiv 1508.07909): merge the
 * adjacent pair of lowest rank, the leftmost of equals, until none is left.
 *
 * Short words: scan for the lowest rank again after each merge; quadratic, but it all sits in the
 * first-level cache. Long ones (Llama 2's "word" is the whole text): a heap of (rank, position)
 * over a linked list, stale entries dropped when they surface. Words repeat (98 % in English), so
 * results are cached per thread. Rejected: an automaton that needs no merges; it is exact only for
 * vocabularies whose ranks agree with their merges. */
#include <string.h>
#include "data/data_int.h"

#define SHORT_WORD                                                                                 \
    96 /* symbols; heap and scan cross between 64 and 160 on English, measured on GPT-2 */
#define NO_RANK UINT32_MAX

struct symbol {
    u32 id;         /* NO_RANK: merged away */
    u32 rank, made; /* of the pair with the next symbol */
    i32 before, after;
};

static u64 pair_of(u32 left, u32 right) { return (u64)left << 32 | right; }

static struct merge *merge_slot(const struct bpe *b, u64 pair) {
    u64 i = pair * 0x9e3779b97f4a7c15u >> b->shift;
    while (b->merge[i].id != UINT32_MAX && b->merge[i].pair != pair)
        i = (i + 1) & (u64)(b->slots - 1);
    return &b->merge[i];
}

int bpe_reserve(struct bpe *b, i64 merges, struct err *e) {
    b->slots = 16;
    b->shift = 60;
    for (; b->slots < 3 * merges; b->slots *= 2) b->shift--;
    if (!(b->merge = mem_new_array(b->slots, sizeof *b->merge, e))) return -1;
    for (i64 i = 0; i < b->slots; i++) b->merge[i].id = UINT32_MAX;
    return 0;
}

void bpe_add_merge(struct bpe *b, u32 left, u32 right, u32 rank, u32 id) {
    struct merge *m = merge_slot(b, pair_of(left, right));
    b->merges += m->id == UINT32_MAX;
    *m = (struct merge){pair_of(left, right), rank, id};
}

static const char word_mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */

/* No merge joins anything but marks to a mark on its right: then words can be cut there, and
 * nothing changes but speed, because Llama 2's whole text in one word defeats the cache. Measured:
 * 9 against 40 MB/s on English. */
static bool marks_start_words(const struct bpe *b, const struct vocab *v) {
    if (b->ignore_merges || vocab_find(v, word_mark, 3) < 0) return false;
    for (i64 i = 0; i < b->slots; i++) {
        struct bytes t;
        if (!vocab_text(v, b->merge[i].id == UINT32_MAX ? -1 : (i64)b->merge[i].id, &t)) continue;
        for (i64 k = 1; k + 3 <= t.size; k++)
            if (!memcmp(t.data + k, word_mark, 3) &&
                (k < 3 || memcmp(t.data + k - 3, word_mark, 3)))
                return false;
    }
    return true;
}

void bpe_finish(struct bpe *b, const struct vocab *v, bool bytes) {
    for (int i = 0; i < 256; i++) {
        char u[8];
        int n = utf8_put(byte_to_code((u8)i), u);
        b->single_id[i] = bytes     ? vocab_find(v, u, n)
                          : i < 128 ? vocab_find(v, &(char){(char)i}, 1)
                                    : -1;
        snprintf(u, sizeof u, "<0x%02X>", (unsigned)i);
        b->fallback_id[i] = vocab_find(v, u, 6);
    }
    b->bytes = bytes;
    b->cut = !bytes && marks_start_words(b, v);
}

void bpe_free(struct bpe *b) { mem_free(b->merge); }

static void pair_look(const struct bpe *b, u32 left, u32 right, u32 *rank, u32 *made) {
    const struct merge *m = merge_slot(b, pair_of(left, right));
    *rank = m->id == UINT32_MAX ? NO_RANK : m->rank;
    *made = m->id;
}

/* ---- short words ----------------------------------------------------------------------------- */
static i64 merge_short(const struct bpe *b, struct symbol *s, i64 n) {
    u32 rank[SHORT_WORD], made[SHORT_WORD], id[SHORT_WORD];
    for (i64 i = 0; i < n; i++) id[i] = s[i].id;
    for (i64 i = 0; i + 1 < n; i++) pair_look(b, id[i], id[i + 1], &rank[i], &made[i]);
    while (n > 1) {
        i64 best = 0;
        for (i64 i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        id[best] = made[best];
        size_t tail = (size_t)(n - best - 2) * sizeof *id;
        memmove(id + best + 1, id + best + 2, tail);
        memmove(rank + best, rank + best + 1, tail);
        memmove(made + best, made + best + 1, tail);
        n--;
        if (best) pair_look(b, id[best - 1], id[best], &rank[best - 1], &made[best - 1]);
        if (best + 1 < n) pair_look(b, id[best], id[best + 1], &rank[best], &made[best]);
    }
    for (i64 i = 0; i < n; i++) s[i].id = id[i];
    return n;
}

/* ---- long words: rank << 32 | position orders by rank, then leftmost ---------------------------
 */
struct heap {
    u64 *item;
    i64 count, capacity;
};

static int heap_push(struct heap *h, u64 x, struct err *e) {
    if (h->count == h->capacity) {
        i64 n = i64_max(1024, 2 * h->capacity);
        void *p = mem_grow(h->item, h->capacity * 8, n * 8, e);
        if (!p) return -1;
        h->item = p;
        h->capacity = n;
    }
    i64 i = h->count++;
    for (i64 up; i && h->item[up = (i - 1) / 2] > x; i = up) h->item[i] = h->item[up];
    h->item[i] = x;
    return 0;
}

static u64 heap_pop(struct heap *h) {
    u64 top = h->item[0], x = h->item[--h->count];
    i64 i = 0;
    for (i64 down; (down = 2 * i + 1) < h->count; i = down) {
        if (down + 1 < h->count && h->item[down + 1] < h->item[down]) down++;
        if (h->item[down] >= x) break;
        h->item[i] = h->item[down];
    }
    h->item[i] = x;
    return top;
}

static int pair_update(const struct bpe *b, struct symbol *s, i64 i, struct heap *h,
                       struct err *e) {
    s[i].rank = NO_RANK;
    if (s[i].after < 0) return 0;
    pair_look(b, s[i].id, s[s[i].after].id, &s[i].rank, &s[i].made);
    return s[i].rank == NO_RANK ? 0 : heap_push(h, (u64)s[i].rank << 32 | (u64)i, e);
}

static i64 merge_long(const struct bpe *b, struct symbol *s, i64 n, struct heap *h, struct err *e) {
    h->count = 0;
    for (i64 i = 0; i < n; i++) {
        s[i].before = (i32)i - 1;
        s[i].after = i + 1 < n ? (i32)i + 1 : -1;
    }
    for (i64 i = 0; i < n; i++)
        if (pair_update(b, s, i, h, e)) return -1;
    while (h->count) {
        u64 top = heap_pop(h);
        i64 i = (i64)(top & 0xffffffffu);
        if (s[i].rank != top >> 32) continue; /* the pair at i has changed since */
        i64 gone = s[i].after;
        s[i].id = s[i].made;
        s[i].after = s[gone].after;
        s[gone].id = s[gone].rank = NO_RANK;
        if (s[i].after >= 0) s[s[i].after].before = (i32)i;
        if (pair_update(b, s, i, h, e)) return -1;
        if (s[i].before >= 0 && pair_update(b, s, s[i].before, h, e)) return -1;
    }
    i64 kept = 0;
    for (i64 i = 0; i >= 0; i = s[i].after) s[kept++].id = s[i].id;
    return kept;
}

/* ---- a word's first symbols ------------------------------------------------------------------ */
static i64 symbols_of_bytes(const struct bpe *b, struct bytes word, struct symbol *s) {
    for (i64 i = 0; i < word.size; i++) s[i].id = (u32)b->single_id[(u8)word.data[i]];
    return word.size;
}

static bool fallback_known(const struct bpe *b, const char *text, i64 begin, i64 end) {
    for (; begin < end; begin++)
        if (b->fallback_id[(u8)text[begin]] < 0) return false;
    return b->byte_fallback;
}

/* Characters. As in Hugging Face a pending unknown is written when the next known character
 * arrives, after any byte pieces between them; without an unknown token unknown characters vanish.
 */
static i64 symbols_of_text(const struct bpe *b, const struct vocab *v, struct bytes word,
                           struct symbol *s) {
    i64 n = 0;
    bool pending = false;
    for (i64 at = 0, next = 0; at < word.size; at = next) {
        u8 c = (u8)word.data[at];
        code_at(word.data, &next);
        i64 id = c < 128 ? b->single_id[c] : vocab_find(v, word.data + at, next - at);
        if (id >= 0) {
            if (pending) s[n++].id = (u32)b->unk_id;
            pending = false;
            s[n++].id = (u32)id;
        } else if (fallback_known(b, word.data, at, next)) {
            for (i64 i = at; i < next; i++) s[n++].id = (u32)b->fallback_id[(u8)word.data[i]];
        } else if (b->unk_id >= 0) {
            if (pending && !b->fuse_unk) s[n++].id = (u32)b->unk_id;
            pending = true;
        }
    }
    if (pending) s[n++].id = (u32)b->unk_id;
    return n;
}

static int emit(struct work *w, const struct symbol *s, i64 n, struct cached_word *slot,
                struct bytes word, struct err *e) {
    for (i64 i = 0; i < n; i++)
        if (ids_add(w->out, s[i].id, e)) return -1;
    if (!slot || n > COUNT(slot->id)) return 0;
    slot->size = (u8)word.size;
    slot->count = (u8)n;
    memcpy(slot->bytes, word.data, (size_t)word.size);
    for (i64 i = 0; i < n; i++) slot->id[i] = s[i].id;
    return 0;
}

static int whole_word(struct work *w, struct bytes word, i64 *id, struct err *e) {
    const struct vocab *v = &w->t->vocab;
    *id = -1;
    if (!w->t->bpe.ignore_merges || word.size > v->longest) return 0;
    if (w->t->bpe.bytes) {
        w->shown.size = 0;
        if (bytes_show(&w->shown, word.data, word.size, e)) return -1;
        word = (struct bytes){w->shown.data, w->shown.size};
    }
    *id = vocab_find(v, word.data, word.size);
    return 0;
}

static int bpe_new_word(struct work *w, struct bytes word, struct cached_word *slot,
                        struct err *e) {
    const struct tokenizer *t = w->t;
    const struct bpe *b = &t->bpe;
    i64 id, n;
    if (word.size > INT32_MAX)
        return err_input(e, "%s: one word of %lld bytes", t->path, (long long)word.size),
               err_detail(e, "words may have 2 GiB");
    if (whole_word(w, word, &id, e)) return -1;
    if (id >= 0) return emit(w, &(struct symbol){.id = (u32)id}, 1, slot, word, e);
    if (word.size > w->symbols) {
        i64 capacity = i64_max(1024, word.size + word.size / 2);
        mem_free(w->symbol);
        w->symbols = 0;
        if (!(w->symbol = mem_new_array(capacity, sizeof *w->symbol, e))) return -1;
        w->symbols = capacity;
    }
    struct symbol *s = w->symbol;
    n = b->bytes ? symbols_of_bytes(b, word, s) : symbols_of_text(b, &t->vocab, word, s);
    if (n <= SHORT_WORD) return emit(w, s, merge_short(b, s, n), slot, word, e);
    struct heap h = {w->heap, 0, w->heaps};
    n = merge_long(b, s, n, &h, e);
    w->heap = h.item;
    w->heaps = h.capacity;
    return n < 0 ? -1 : emit(w, s, n, slot, word, e);
}

static int bpe_piece(struct work *w, struct bytes word, struct err *e) {
    if (word.size > (i64)sizeof w->cache->bytes) return bpe_new_word(w, word, NULL, e);
    struct cached_word *slot = &w->cache[bytes_hash(word.data, word.size) >> (64 - CACHE_BITS)];
    if (slot->size != word.size || memcmp(slot->bytes, word.data, (size_t)word.size))
        return bpe_new_word(w, word, slot, e);
    for (int i = 0; i < slot->count; i++)
        if (ids_add(w->out, slot->id[i], e)) return -1;
    return 0;
}

int bpe_word(struct work *w, struct bytes word, struct err *e) {
    if (!w->t->bpe.cut) return bpe_piece(w, word, e);
    for (i64 at = 0, end; at < word.size; at = end) {
        for (end = at; end + 3 <= word.size && !memcmp(word.data + end, word_mark, 3);) end += 3;
        const char *mark = memmem(word.data + end, (size_t)(word.size - end), word_mark, 3);
        end = mark ? mark - word.data : word.size;
        if (bpe_piece(w, (struct bytes){word.data + at, end - at}, e)) return -1;
    }
    return 0;
}
