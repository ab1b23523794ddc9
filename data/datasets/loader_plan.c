/* loader_plan.c: the samples of a dataset as a table, where a formula does not give them: documents
 * that are too long for a sample, documents and blocks without a token to train, documents packed
 * whole.
 *
 * Packing is best-fit decreasing: the documents from the longest to the shortest, of one length in
 * their order, each into the fullest sample that it still fits into, else into a new one (at most
 * 11/9 of the fewest samples possible, and 6/9 of one: Dósa 2007). A sample has its documents in
 * the order of the dataset, and samples are in the order of their first documents, so that the
 * table is a function of the lengths alone. */
#include "data/datasets/datasets_int.h"

#include <string.h>

struct making {
    struct plan *plan;
    const struct loader_config *c;
    struct dataset *d;
    struct loader_facts *facts;
    u8 *trained; /* [max_seq_length + 1] */
};

/* Has one of the targets of these tokens a token to train? */
static bool piece_trained(const struct making *m, const struct extent *p) {
    const i64 known = p->count + p->more;
    if (known < 2) return false;
    dataset_trained(m->d, p->first + 1, known - 1, m->trained);
    const struct dataset_info *f = dataset_info(m->d);
    if (m->c->document_mask && p->more) /* the first token of a document is nobody's target */
        for (i64 k = dataset_document(m->d, p->first) + 1;
             k < f->documents && (i64)f->documents_at[k] < p->first + known; k++)
            m->trained[(i64)f->documents_at[k] - p->first - 1] = 0;
    return memchr(m->trained, 1, (size_t)(known - 1)) != NULL;
}

/* ---- documents and what is left of them ------------------------------------------------------ */

/* Writes the pieces of document `at`; how many, -1: error. */
static i64 document_pieces(struct making *m, i64 at, struct extent *out, struct err *e) {
    const struct dataset_info *f = dataset_info(m->d);
    const i64 most = m->c->max_seq_length;
    i64 first = (i64)f->documents_at[at], size = (i64)f->documents_at[at + 1] - first, count = 1;
    if (size > most) {
        switch (m->c->truncation) {
        case TRUNCATE_ERROR:
            err_input(e, "%s: document %lld has %lld tokens; a sample has at most %lld", f->path,
                      (long long)at + 1, (long long)size, (long long)most);
            return err_hint(e,
                            "a larger max_seq_length, or truncation: right, left, drop or split"),
                   -1;
        case TRUNCATE_DROP: m->facts->dropped++, m->facts->tokens_cut += size; return 0;
        case TRUNCATE_SPLIT: count = (size - 1) / most + 1, m->facts->cut++; break;
        case TRUNCATE_LEFT: first += size - most; /* fall through */
        case TRUNCATE_RIGHT: m->facts->cut++, m->facts->tokens_cut += size - most, size = most;
        }
    }
    i64 kept = 0;
    for (i64 i = 0; i < count; i++) {
        const struct extent p = {first + i * most, (i32)i64_min(most, size - i * most), false};
        if (m->c->trained_only && !piece_trained(m, &p))
            m->facts->untrained++;
        else
            out[kept++] = p;
    }
    return kept;
}

/* All documents in groups of `rows`, of which a sample that lacks one is left out. */
static int documents_cut(struct making *m, struct err *e) {
    const i64 rows = m->c->rows, documents = m->facts->documents / rows * rows;
    struct plan *p = m->plan;
    for (i64 i = 0; i < documents; i += rows) {
        i64 found = 0;
        for (i64 k = 0; k < rows; k++) {
            const i64 n = document_pieces(m, i + k, p->piece + p->pieces + found, e);
            if (n < 0) return -1;
            found += n;
        }
        if (rows == 1 || found == rows) p->pieces += found;
    }
    return 0;
}

/* Blocks of the token stream, of which those without a token to train are left out. */
static void blocks_cut(struct making *m) {
    const i64 most = m->c->max_seq_length, end = dataset_info(m->d)->tokens - 1;
    struct plan *p = m->plan;
    for (i64 at = 0; at < end; at += most) {
        const struct extent block = {at, (i32)i64_min(most, end - at), true};
        if (piece_trained(m, &block))
            p->piece[p->pieces++] = block;
        else
            m->facts->untrained_blocks++;
    }
}

/* How many pieces there are at most. */
static i64 pieces_most(const struct making *m, bool blocks) {
    const struct dataset_info *f = dataset_info(m->d);
    const i64 most = m->c->max_seq_length;
    i64 count = 0;
    if (blocks) return (f->tokens - 1) / most + 1;
    if (m->c->truncation != TRUNCATE_SPLIT) return f->documents;
    for (i64 i = 0; i < f->documents; i++)
        count += ((i64)(f->documents_at[i + 1] - f->documents_at[i]) - 1) / most + 1;
    return count;
}

/* ---- best fit -------------------------------------------------------------------------------- */

/* Samples that are not full, by the tokens that they still have room for: a stack for each number,
 * and a bit in `word` where the stack is not empty, a bit in `group` where a word is not 0. */
struct open_samples {
    i32 *top, *below; /* [max_seq_length + 1]; [pieces]; -1: none */
    u64 *word, *group;
    i64 words, groups;
};
static void open_push(struct open_samples *o, i64 room, i32 sample) {
    o->below[sample] = o->top[room], o->top[room] = sample;
    o->word[room / 64] |= 1ull << room % 64;
    o->group[room / 4096] |= 1ull << room / 64 % 64;
}
static i32 open_pop(struct open_samples *o, i64 room) {
    const i32 sample = o->top[room];
    if ((o->top[room] = o->below[sample]) >= 0) return sample;
    if (!(o->word[room / 64] &= ~(1ull << room % 64)))
        o->group[room / 4096] &= ~(1ull << room / 64 % 64);
    return sample;
}
/* The least room of at least `size` that a sample has; -1: none. */
static i64 open_room(const struct open_samples *o, i64 size) {
    i64 w = size / 64;
    u64 bits = o->word[w] >> size % 64 << size % 64;
    if (!bits) {
        i64 g = ++w / 64;
        if (g >= o->groups) return -1;
        u64 some = o->group[g] >> w % 64 << w % 64;
        while (!some && ++g < o->groups) some = o->group[g];
        if (!some) return -1;
        w = g * 64 + __builtin_ctzll(some), bits = o->word[w];
    }
    return w * 64 + __builtin_ctzll(bits);
}

/* which[i]: the sample of piece i, numbered as they were opened; how many. */
static i64 best_fit(const struct extent *piece, i64 count, i64 most, i32 *which, struct arena *a,
                    struct err *e) {
    struct open_samples o = {.words = most / 64 + 1, .groups = most / 4096 + 1};
    i64 samples = 0, *start = arena_new(a, (most + 2) * (i64)sizeof *start, e),
        *order = arena_new(a, (count + 1) * (i64)sizeof *order, e);
    o.top = arena_new(a, (most + 1) * (i64)sizeof *o.top, e);
    o.below = arena_new(a, (count + 1) * (i64)sizeof *o.below, e);
    o.word = arena_new(a, o.words * (i64)sizeof *o.word, e);
    o.group = arena_new(a, o.groups * (i64)sizeof *o.group, e);
    if (!start || !order || !o.top || !o.below || !o.word || !o.group) return -1;
    memset(o.top, -1, (size_t)(most + 1) * sizeof *o.top);
    for (i64 i = 0; i < count; i++) start[most - piece[i].count + 1]++;
    for (i64 i = 1; i <= most; i++) start[i] += start[i - 1];
    for (i64 i = 0; i < count; i++) order[start[most - piece[i].count]++] = i;
    for (i64 i = 0; i < count; i++) {
        const i64 size = piece[order[i]].count, room = open_room(&o, size);
        const i32 to = room < 0 ? (i32)samples++ : open_pop(&o, room);
        which[order[i]] = to, open_push(&o, (room < 0 ? most : room) - size, to);
    }
    return samples;
}

/* Sorts the pieces by sample, samples by their first piece. */
static int samples_pack(struct making *m, struct err *e) {
    struct plan *p = m->plan;
    struct arena a = {0};
    i32 *which = arena_new(&a, (p->pieces + 1) * (i64)sizeof *which, e),
        *name = arena_new(&a, (p->pieces + 1) * (i64)sizeof *name, e);
    struct extent *from = arena_new(&a, (p->pieces + 1) * (i64)sizeof *from, e);
    int rc = !which || !name || !from ||
             (p->samples = best_fit(p->piece, p->pieces, m->c->max_seq_length, which, &a, e)) < 0;
    if (!rc) {
        i64 next = 0;
        memcpy(from, p->piece, (size_t)p->pieces * sizeof *from);
        memset(name, -1, (size_t)p->pieces * sizeof *name);
        for (i64 i = 0; i < p->pieces; i++) {
            if (name[which[i]] < 0) name[which[i]] = (i32)next++;
            p->at[(which[i] = name[which[i]]) + 1]++;
        }
        for (i64 i = 0; i < p->samples; i++) p->at[i + 1] += p->at[i];
        for (i64 i = p->pieces; i-- > 0;) /* from the back: at[s + 1] sinks to where s begins */
            p->piece[--p->at[which[i] + 1]] = from[i];
        for (i64 i = 0; i < p->samples; i++) p->at[i] = p->at[i + 1];
        p->at[p->samples] = p->pieces;
    }
    arena_free(&a);
    return rc ? -1 : 0;
}

/* ---- */

bool plan_needed(const struct loader_config *c, const struct dataset *d) {
    const struct dataset_info *f = dataset_info(d);
    if (c->packing && c->packing_strategy == PACKING_WRAPPED)
        return c->trained_only && f->trained < f->tokens;
    return c->packing || c->trained_only || c->truncation != TRUNCATE_RIGHT;
}

int plan_open(struct plan *p, const struct loader_config *c, struct dataset *d,
              struct loader_facts *facts, struct err *e) {
    struct making m = {.plan = p, .c = c, .d = d, .facts = facts};
    const bool blocks = c->packing && c->packing_strategy == PACKING_WRAPPED;
    const i64 rows = c->rows, most = pieces_most(&m, blocks);
    *p = (struct plan){0}, *facts = (struct loader_facts){.documents = dataset_info(d)->documents};
    if (most > INT32_MAX)
        return err_input(e, "%s: %lld pieces of documents; a table of samples holds %d",
                         dataset_info(d)->path, (long long)most, INT32_MAX);
    int rc = !(m.trained = mem_new(c->max_seq_length + 1, e)) ||
             !(p->piece = mem_new_array(most + rows, sizeof *p->piece, e)) ||
             !(p->at = mem_new_array(most + 2, sizeof *p->at, e));
    if (!rc && blocks)
        blocks_cut(&m);
    else if (!rc)
        rc = documents_cut(&m, e);
    mem_free(m.trained);
    if (!rc && c->packing && !blocks) return samples_pack(&m, e);
    p->samples = p->pieces / rows;
    for (i64 i = 0; !rc && i <= p->samples; i++) p->at[i] = i * rows;
    return rc ? -1 : 0;
}

void plan_close(struct plan *p) { mem_free(p->piece), mem_free(p->at); }
