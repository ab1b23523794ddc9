/* bpe.c: byte-pair encoding of one word (Sennrich et al., 2016, arXiv 1508.07909): merge the
 * adjacent pair of lowest rank, the leftmost of equals, until none is left.
 *
 * Short words: scan for the lowest rank again after each merge; quadratic, but it all sits in the
 * first-level cache. Long ones (Llama 2's "word" is the whole text): a heap of (rank, position)
 * over a linked list, stale entries dropped when they surface. Rejected: an automaton that needs no
 * merges; it is exact only for vocabularies whose ranks agree with their merges. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

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

void bpe_finish(struct tokenizer *t, bool bytes) {
    for (int i = 0; i < 256; i++) {
        char u[4];
        int n = utf8_put(byte_to_code((u8)i), u);
        t->bpe.single_id[i] = bytes     ? vocab_model(&t->vocab, u, n)
                              : i < 128 ? vocab_model(&t->vocab, &(char){(char)i}, 1)
                                        : -1;
    }
    t->bpe.bytes = bytes;
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

/* A symbol at the border of a word may be in the vocabulary with a prefix or a suffix only. */
static int affixed_id(struct work *w, struct bytes symbol, bool first, bool last, i64 *id,
                      struct err *e) {
    const struct bpe *b = &w->t->bpe;
    w->shown.size = 0;
    if ((!first && text_add(&w->shown, b->prefix.data, b->prefix.size, e)) ||
        text_add(&w->shown, symbol.data, symbol.size, e) ||
        (last && text_add(&w->shown, b->suffix.data, b->suffix.size, e)))
        return -1;
    *id = vocab_model(&w->t->vocab, w->shown.data, w->shown.size);
    return 0;
}

#define FROZEN 0x80000000u /* in a symbol's id: takes no part in merges */

/* Characters, and whole user-defined symbols. As in Hugging Face a pending unknown is written when
 * the next known character arrives, after any byte pieces between them; without an unknown token
 * unknown characters vanish. */
static i64 symbols_of_text(struct work *w, struct bytes word, struct symbol *s, struct err *e) {
    const struct tokenizer *t = w->t;
    const struct bpe *b = &t->bpe;
    i64 n = 0;
    bool pending = false;
    for (i64 at = 0, next = 0; at < word.size; at = next) {
        u8 c = (u8)word.data[at];
        const struct added_token *user =
            t->user.count ? added_at(&t->user, word.data + at, word.size - at) : NULL;
        if (user)
            next = at + user->content.size;
        else
            code_at(word.data, &next);
        struct bytes symbol = {word.data + at, next - at};
        i64 id = user      ? (i64)(user->id | FROZEN)
                 : c < 128 ? b->single_id[c]
                           : vocab_model(&t->vocab, symbol.data, symbol.size);
        if ((b->prefix.size || b->suffix.size) &&
            affixed_id(w, symbol, !at, next == word.size, &id, e))
            return -1;
        if (id >= 0) {
            if (pending) s[n++].id = (u32)t->unk_id;
            pending = false;
            s[n++].id = (u32)id;
        } else if (fallback_bytes(t, symbol)) {
            for (i64 i = at; i < next; i++) s[n++].id = (u32)t->fallback_id[(u8)word.data[i]];
        } else if (t->unk_id >= 0) {
            if (pending && !b->fuse_unk) s[n++].id = (u32)t->unk_id;
            pending = true;
        }
    }
    if (pending) s[n++].id = (u32)t->unk_id;
    return n;
}

static int emit(struct work *w, const struct symbol *s, i64 n, struct err *e) {
    for (i64 i = 0; i < n; i++)
        if (ids_add(w->out, s[i].id & ~FROZEN, e)) return -1;
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
    *id = vocab_model(v, word.data, word.size);
    return 0;
}

int bpe_word(struct work *w, struct bytes word, struct err *e) {
    const struct bpe *b = &w->t->bpe;
    i64 id, n;
    if (word.size > INT32_MAX)
        return err_input(e, "%s: one word of %lld bytes", w->t->path, (long long)word.size),
               err_detail(e, "words may have 2 GiB");
    if (whole_word(w, word, &id, e)) return -1;
    if (id >= 0) return ids_add(w->out, (u32)id, e);
    if (word.size > w->symbols) {
        i64 capacity = i64_max(1024, word.size + word.size / 2);
        mem_free(w->symbol);
        w->symbol = NULL;
        w->symbols = 0;
        if (!(w->symbol = mem_new_array(capacity, sizeof *w->symbol, e))) return -1;
        w->symbols = capacity;
    }
    struct symbol *s = w->symbol;
    n = b->bytes ? symbols_of_bytes(b, word, s) : symbols_of_text(w, word, s, e);
    if (n < 0) return -1;
    if (n <= SHORT_WORD) return emit(w, s, merge_short(b, s, n), e);
    struct heap h = {w->heap, 0, w->heaps};
    n = merge_long(b, s, n, &h, e);
    w->heap = h.item;
    w->heaps = h.capacity;
    return n < 0 ? -1 : emit(w, s, n, e);
}
