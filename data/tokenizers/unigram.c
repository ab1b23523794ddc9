/* unigram.c: the most probable pieces of a word (Kudo, 2018, arXiv 1804.10959): Viterbi over a trie
 * of pieces. What Hugging Face and SentencePiece do is kept to the last bit: a character that is no
 * piece costs the lowest score less 10, a tie goes to the piece that starts first, neighbouring
 * unknowns are one id or their bytes. Hugging Face sums in f64. SentencePiece keeps sums in f32,
 * over the whole text, so the text must not be cut. */
#include <math.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

#define UNKNOWN_PENALTY 10.0

struct step { /* the best path to a byte */
    double score;
    i32 start, next; /* of the last piece; -1: no path */
    u32 id;
    bool unknown;
};

/* An edge: node << 8 | byte in the upper 36 bits, the child below. */
static u64 *edge_slot(const struct unigram *u, u64 key) {
    u64 i = (key * 0x9e3779b97f4a7c15u >> 20) & (u64)(u->slots - 1);
    while (u->edge[i] && u->edge[i] >> 28 != key) i = (i + 1) & (u64)(u->slots - 1);
    return &u->edge[i];
}

static void piece_add(struct unigram *u, struct bytes text, u32 id) {
    u64 node = 0;
    for (i64 i = 0; i < text.size; i++) {
        u64 key = node << 8 | (u8)text.data[i], *edge = edge_slot(u, key);
        if (!*edge) *edge = key << 28 | (u64)u->nodes++;
        node = *edge & 0xfffffff;
    }
    u->piece[node] = id + 1;
}

int unigram_build(struct tokenizer *t, const double *score, i64 count, struct err *e) {
    struct unigram *u = &t->unigram;
    i64 bytes = t->vocab.pool.size;
    double low = INFINITY;
    if (bytes >= 1 << 27) return err_input(e, "%s: the pieces take more than 128 MiB", t->path);
    for (u->slots = 1024; u->slots < 2 * bytes;) u->slots *= 2;
    if (!(u->edge = mem_new_array(u->slots, sizeof *u->edge, e)) ||
        !(u->piece = mem_new_array(bytes + 1, sizeof *u->piece, e)) ||
        !(u->score = mem_new_array(i64_max(count, 1), sizeof *u->score, e)))
        return -1;
    u->nodes = 1;
    for (i64 id = 0; id < count; id++) {
        struct bytes text;
        u->score[id] = score[id];
        if (isnan(score[id]) || !vocab_text(&t->vocab, id, &text)) continue;
        piece_add(u, text, (u32)id);
        if (isinf(score[id])) continue;
        low = score[id] < low ? score[id] : low;
    }
    u->unknown = low - UNKNOWN_PENALTY;
    if (u->single) u->unknown = (float)u->unknown;
    return 0;
}

void unigram_free(struct unigram *u) {
    mem_free(u->score);
    mem_free(u->edge);
    mem_free(u->piece);
}

static void improve(const struct unigram *u, struct step *to, double score, i64 start, u32 id,
                    bool unknown) {
    if (u->single) score = (float)score;
    if (to->start >= 0 && !(score > to->score)) return;
    *to = (struct step){score, (i32)start, -1, id, unknown};
}

/* All pieces that start at `at`; *single: one of them is the character of `n` bytes. */
static void extend(const struct tokenizer *t, struct bytes word, i64 at, i64 n, struct step *path) {
    const struct unigram *u = &t->unigram;
    const double before = path[at].score;
    bool single = false;
    u64 node = 0;
    for (i64 end = at; end < word.size;) {
        u64 edge = *edge_slot(u, node << 8 | (u8)word.data[end]);
        if (!edge) break;
        node = edge & 0xfffffff;
        end++;
        if (!u->piece[node]) continue;
        u32 id = u->piece[node] - 1;
        double score = u->score[id];
        if (isinf(score)) score = (float)(0.1f * (float)(end - at) - 0.1); /* to be chosen */
        improve(u, &path[end], before + score, at, id, id == t->unk_id);
        single |= end - at == n;
    }
    if (!single) improve(u, &path[at + n], before + u->unknown, at, 0, true);
}

static int add_unknown(struct work *w, struct bytes text, struct err *e) {
    const struct tokenizer *t = w->t;
    i64 id = t->unigram.single ? -1 : vocab_model(&t->vocab, text.data, text.size);
    if (id >= 0) return ids_add(w->out, (u32)id, e);
    if (fallback_bytes(t, text)) {
        for (i64 i = 0; i < text.size; i++)
            if (ids_add(w->out, (u32)t->fallback_id[(u8)text.data[i]], e)) return -1;
        return 0;
    }
    if (t->unk_id >= 0) return ids_add(w->out, (u32)t->unk_id, e);
    return err_input(e, "%s: no piece for \"%.*s\", and no unk_id", t->path,
                     (int)i64_min(text.size, 40), text.data);
}

int unigram_word(struct work *w, struct bytes word, struct err *e) {
    const struct tokenizer *t = w->t;
    if (word.size >= INT32_MAX)
        return err_input(e, "%s: one word of %lld bytes", t->path, (long long)word.size),
               err_detail(e, "words may have 2 GiB");
    const i64 need = (word.size + 1) * (i64)sizeof(struct step);
    if (w->path.capacity < need) {
        text_free(&w->path);
        if (!(w->path.data = mem_new(need + need / 2, e))) return -1;
        w->path.capacity = need + need / 2;
    }
    struct step *path = (struct step *)(void *)w->path.data;
    for (i64 i = 0; i <= word.size; i++) path[i].start = -1;
    path[0].score = 0;
    for (i64 at = 0, next = 0; at < word.size; at = next) {
        code_at(word.data, &next);
        extend(t, word, at, next - at, path);
    }
    for (i64 at = word.size; at; at = path[at].start) path[path[at].start].next = (i32)at;
    for (i64 at = 0, end; at < word.size; at = end) {
        end = path[at].next;
        if (!path[end].unknown) {
            if (ids_add(w->out, path[end].id, e)) return -1;
            continue;
        }
        while (end < word.size && path[path[end].next].unknown) end = path[end].next;
        if (add_unknown(w, (struct bytes){word.data + at, end - at}, e)) return -1;
    }
    return 0;
}
