/* facts.c: what the tokens of a dataset say about it: lengths, answers that end, copies. One pass
 * over the tokens, in memory that does not grow with them. */
#include "train/check/check.h"

#include <stdlib.h>
#include <string.h>

/* A text that is one token. */
static void stop_add(struct stops *s, const struct tokenizer *t, const char *text) {
    struct ids ids = {0};
    const i64 size = (i64)strlen(text) - (i64)(text[0] && text[strlen(text) - 1] == '\n');
    if (size > 0 && !tokenizer_encode(t, text, size, false, &ids, &(struct err){0}) &&
        ids.count == 1 && s->count < STOPS)
        s->id[s->count++] = ids.item[0];
    ids_free(&ids);
}

void stops_of(struct stops *s, const struct trainer *t) {
    *s = (struct stops){.bos = -1, .eos = -1};
    if (!t->tokenizer) return;
    s->bos = tokenizer_bos(t->tokenizer), s->eos = tokenizer_eos(t->tokenizer);
    if (s->eos >= 0) s->id[s->count++] = (u32)s->eos;
    if (t->chat) stop_add(s, t->tokenizer, chat_stop(t->chat, NULL));
}

/* ---- lengths */

static int lengths(const struct dataset_info *info, struct facts *f, struct err *e) {
    enum { EXACT = 1 << 20 }; /* longer documents count as this long for the median */
    i64 *of = mem_new_array(EXACT + 1, sizeof *of, e);
    if (!of) return -1;
    f->documents = info->documents, f->tokens = info->tokens, f->trained = info->trained;
    f->shortest = INT64_MAX;
    for (i64 i = 0; i < info->documents; i++) {
        const i64 n = (i64)(info->documents_at[i + 1] - info->documents_at[i]);
        int bin = 0;
        while (bin < LENGTH_BINS - 1 && n > (i64)1 << bin) bin++;
        f->bin[bin]++, of[i64_min(n, EXACT)]++;
        f->shortest = i64_min(f->shortest, n), f->longest = i64_max(f->longest, n);
    }
    for (i64 seen = 0; seen + of[f->median] <= info->documents / 2; f->median++)
        seen += of[f->median];
    return mem_free(of), 0;
}

/* ---- fingerprints */

enum { PRINTS_KEPT = 1 << 21 };

static u64 print_add(u64 print, const u32 *id, i64 count) {
    for (i64 i = 0; i < count; i++) {
        print = (print ^ id[i]) * 0xff51afd7ed558ccdu;
        print ^= print >> 32;
    }
    return print;
}

static void prints_thin(struct prints *p) {
    i64 kept = 0;
    p->mask = 2 * p->mask + 1;
    for (i64 i = 0; i < p->count; i++)
        if (!(p->item[i] & p->mask)) p->item[kept++] = p->item[i];
    p->count = kept;
}

static int prints_add(struct prints *p, u64 print, struct err *e) {
    p->all++;
    if (print & p->mask) return 0;
    if (p->count == PRINTS_KEPT) prints_thin(p);
    if (p->count == p->room) {
        const i64 room = 2 * p->room + 1024, size = (i64)sizeof *p->item;
        u64 *more = mem_grow(p->item, p->room * size, room * size, e);
        if (!more) return -1;
        p->item = more, p->room = room;
    }
    if (!(print & p->mask)) p->item[p->count++] = print;
    return 0;
}

static int by_value(const void *a, const void *b) {
    const u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return (x > y) - (x < y);
}

double prints_copies(struct prints *p) {
    i64 copies = 0;
    qsort(p->item, (size_t)p->count, sizeof *p->item, by_value);
    for (i64 i = 1; i < p->count; i++) copies += p->item[i] == p->item[i - 1];
    return p->count ? (double)copies / (double)p->count : 0;
}

double prints_among(const struct prints *p, struct prints *a) {
    i64 found = 0, looked = 0;
    const u64 mask = p->mask | a->mask;
    qsort(a->item, (size_t)a->count, sizeof *a->item, by_value);
    for (i64 i = 0; i < p->count; i++) {
        if (p->item[i] & mask) continue;
        looked++;
        found += bsearch(&p->item[i], a->item, (size_t)a->count, sizeof *a->item, by_value) != NULL;
    }
    return looked ? (double)found / (double)looked : 0;
}

/* ---- one document */

static bool is_stop(const struct stops *s, u32 id) {
    for (int i = 0; i < s->count; i++)
        if (s->id[i] == id) return true;
    return false;
}

struct walk {           /* along a document */
    u32 last, before;   /* ids of the two tokens before this one */
    bool trained, both; /* the last is trained; and the one before it */
    i64 seen;
    bool doubled;
    u64 print;
};

/* An answer's last token is its stop, or white space behind it, which templates put there. */
static void answer_ends(struct facts *f, const struct stops *s, const struct walk *w) {
    f->answers++;
    f->stopped += is_stop(s, w->last) || (w->both && is_stop(s, w->before));
}

static void walk_on(struct walk *w, struct facts *f, const struct stops *s, const u32 *id,
                    const u8 *trained, i64 count) {
    for (i64 i = 0; i < count; i++) {
        if (w->seen && id[i] == w->last && (id[i] == s->bos || id[i] == s->eos)) w->doubled = true;
        if (w->trained && !trained[i]) answer_ends(f, s, w);
        w->both = w->trained && trained[i], w->trained = trained[i];
        w->before = w->last, w->last = id[i], w->seen++;
    }
    w->print = print_add(w->print, id, count);
}

int facts_of(struct dataset *d, const struct stops *s, i64 most, struct facts *f,
             struct prints *prints, struct err *e) {
    enum { WINDOW = 1 << 16 };
    const struct dataset_info *info = dataset_info(d);
    u32 *id = mem_new_array(WINDOW, sizeof *id, e);
    u8 *trained = id ? mem_new_array(WINDOW, 1, e) : NULL;
    *f = (struct facts){0};
    int rc = trained ? lengths(info, f, e) : -1;
    f->read = most ? i64_min(most, f->documents) : f->documents;
    for (i64 i = 0; !rc && i < f->read; i++) {
        struct walk w = {.print = 0x9e3779b97f4a7c15u};
        const i64 end = (i64)info->documents_at[i + 1];
        for (i64 at = (i64)info->documents_at[i]; !rc && at < end; at += WINDOW) {
            const i64 count = i64_min(WINDOW, end - at);
            if ((rc = dataset_read(d, at, count, id, e))) break;
            dataset_trained(d, at, count, trained);
            walk_on(&w, f, s, id, trained, count);
        }
        if (w.trained) answer_ends(f, s, &w);
        f->doubled += w.doubled;
        if (!rc && prints) rc = prints_add(prints, w.print, e);
        if (!(i & 0xfff))
            progress_line("looking at document %lld of %lld", (long long)i, (long long)f->read);
    }
    progress_end(), mem_free(id), mem_free(trained);
    return rc ? -1 : 0;
}
