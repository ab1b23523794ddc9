/* dataset_ngram.c: what counting scores, to print beside a validation loss.
 *
 * A model that has learnt less than which token follows which is no model; these two numbers say
 * where that line is for the very tokens it is judged on. */
#include "data/datasets/datasets_int.h"

/* Walks the targets of a dataset: (a, b) where b may be a target and a is before it in the same
 * document. */
struct pairs {
    struct dataset *d;
    i64 next, document, filled; /* next token; tokens below filled are in the block */
    u32 before, id[4096];
    u8 trained[4096];
};

static int pairs_next(struct pairs *p, u32 *a, u32 *b, struct err *e) {
    const struct dataset_info *f = dataset_info(p->d);
    for (;; p->next++) {
        if (p->next == f->tokens) return 0;
        if (p->next == p->filled) {
            i64 n = i64_min(COUNT(p->id), f->tokens - p->filled);
            if (dataset_read(p->d, p->filled, n, p->id, e)) return -1;
            dataset_trained(p->d, p->filled, n, p->trained);
            p->filled += n;
        }
        i64 at = p->next % COUNT(p->id);
        bool first = (u64)p->next == f->documents_at[p->document];
        if (first) p->document++;
        *a = p->before, *b = p->before = p->id[at];
        if (!first && p->trained[at]) return p->next++, 1;
    }
}

struct counts {
    u64 *unigram, *left; /* [vocabulary] as b, as a */
    u64 total;
    u64 *key, *count; /* [room] open addressing; key 0 is empty, else 1 + (a << 32 | b) */
    i64 room, used;
};

static i64 counts_find(const struct counts *c, u64 key) {
    i64 at = (i64)(key * 0x9e3779b97f4a7c15u >> 20) & (c->room - 1);
    while (c->key[at] && c->key[at] != key) at = (at + 1) & (c->room - 1);
    return at;
}

static int counts_grow(struct counts *c, struct err *e) {
    struct counts old = *c;
    c->room = old.room ? 2 * old.room : 1 << 16;
    c->key = mem_new_array(c->room, sizeof *c->key, e),
    c->count = mem_new_array(c->room, sizeof *c->count, e);
    bool good = c->key && c->count;
    for (i64 i = 0; i < old.room && good; i++)
        if (old.key[i]) {
            i64 at = counts_find(c, old.key[i]);
            c->key[at] = old.key[i], c->count[at] = old.count[i];
        }
    mem_free(old.key), mem_free(old.count);
    return good ? 0 : -1;
}

static int counts_fit(struct counts *c, struct dataset *d, struct err *e) {
    struct pairs p = {.d = d};
    u32 a, b;
    int r;
    while ((r = pairs_next(&p, &a, &b, e)) > 0) {
        if (2 * c->used >= c->room && counts_grow(c, e)) return -1;
        u64 key = 1 + ((u64)a << 32 | b);
        i64 at = counts_find(c, key);
        c->used += !c->key[at], c->key[at] = key, c->count[at]++;
        c->unigram[b]++, c->left[a]++, c->total++;
    }
    return r;
}

enum { GRID = 9 }; /* weights of the bigram: 0.1, ..., 0.9 */

static int counts_score(const struct counts *c, struct dataset *d, struct ngram *out,
                        struct err *e) {
    const double vocabulary = (double)dataset_info(d)->vocab_size,
                 all = (double)c->total + vocabulary;
    struct pairs p = {.d = d};
    double unigram = 0, bigram[GRID] = {0};
    u32 a, b;
    int r;
    for (*out = (struct ngram){0}; (r = pairs_next(&p, &a, &b, e)) > 0; out->targets++) {
        double one = ((double)c->unigram[b] + 1) / all, log_one = m_log(one), two = 0;
        if (c->left[a])
            two = (double)c->count[counts_find(c, 1 + ((u64)a << 32 | b))] / (double)c->left[a];
        unigram -= log_one;
        for (int i = 0; i < GRID; i++) {
            double weight = (i + 1) / (GRID + 1.0);
            bigram[i] -= c->left[a] ? m_log(weight * two + (1 - weight) * one) : log_one;
        }
    }
    if (r) return -1;
    if (!out->targets) return err_input(e, "'%s' has no token to predict", dataset_info(d)->path);
    int best = 0;
    for (int i = 1; i < GRID; i++)
        if (bigram[i] < bigram[best]) best = i;
    out->lambda = (best + 1) / (GRID + 1.0);
    out->unigram = unigram / (double)out->targets,
    out->bigram = bigram[best] / (double)out->targets;
    return 0;
}

int dataset_ngram(struct dataset *train, struct dataset *valid, struct ngram *out, struct err *e) {
    const struct dataset_info *t = dataset_info(train);
    struct counts c = {.unigram = mem_new_array(t->vocab_size, sizeof *c.unigram, e),
                       .left = mem_new_array(t->vocab_size, sizeof *c.left, e)};
    int r = c.unigram && c.left && !counts_grow(&c, e) &&
                    !dataset_check_tokenizer(valid, t->tokenizer_sha256, t->vocab_size, e) &&
                    !counts_fit(&c, train, e) && !counts_score(&c, valid, out, e)
                ? 0
                : -1;
    mem_free(c.unigram), mem_free(c.left), mem_free(c.key), mem_free(c.count);
    return r;
}
