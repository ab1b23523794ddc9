/* tokenizer_prefix.c: what the beginnings of one text encode to, in time linear in the text.
 *
 * Which ids of a conversation an answer has is found by comparing the whole with the text up to the
 * answer. To encode each of those beginnings from its start would be quadratic in the turns. So it
 * is encoded from the last place before its end where encoding can begin anew: where all that was
 * decided in front of it depends on nothing behind the next character, and all that follows on
 * nothing in front of it. Such places are:
 *
 *   the end of an added token, which is cut from the raw text before anything else happens;
 *   a blank after one of a to z, where the first pre-tokenizer is one of our scanners for words:
 *   in all of their patterns a word that has such a letter ends in front of white space;
 *
 *   the start of a line, there too, where that and the end of the line before are visible ASCII: in
 *   none of their patterns a word goes on behind a newline, but with '/'.
 *
 * The pieces between these places are encoded once to count their ids. Should they not be those of
 * the whole, there is an error in this reasoning, and the caller does it the slow way. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

enum { RESTART_GAP = 256 }; /* bytes between two places, so that there are few calls */

struct restart {
    i64 at, done; /* as in encode_between: where to look for added tokens; end of what is taken */
    i64 ids;      /* in front of it */
};
struct restarts {
    struct restart *item;
    i64 count, capacity;
};

static bool restart_add(struct restarts *s, i64 at, i64 done, struct err *e) {
    if (s->count == s->capacity) {
        const i64 wanted = i64_max(16, 2 * s->capacity), size = (i64)sizeof *s->item;
        struct restart *grown = mem_grow(s->item, s->count * size, wanted * size, e);
        if (!grown) return false;
        s->item = grown, s->capacity = wanted;
    }
    s->item[s->count++] = (struct restart){.at = at, .done = done};
    return true;
}

static bool words_restart(const struct tokenizer *t) {
    for (i64 i = 0; i < t->norms; i++) /* those that neither move a blank nor look over one */
        if (t->norm[i].kind > NORM_LOWERCASE) return false;
    return !t->added[1].count && t->stages && t->stage[0].kind == STAGE_SPLIT &&
           scan_ends_at_blanks(t->stage[0].pattern.scan);
}

static i64 last_of(const struct restarts *s) { return s->item[s->count - 1].done; }

static bool visible(char c) { return c > ' ' && c <= '~'; }

static bool words_end(const char *at, bool line) {
    if ((*at == ' ' || *at == '\n') && at[-1] >= 'a' && at[-1] <= 'z') return true;
    return line && at[-1] == '\n' && visible(at[-2]) && visible(*at) && *at != '/';
}

static bool words_find(struct bytes text, i64 from, i64 to, struct restarts *s, struct err *e) {
    for (i64 i = from + 1; i < to; i++) {
        if (!words_end(text.data + i, i > from + 1)) continue;
        if (i - last_of(s) >= RESTART_GAP && !restart_add(s, i, i, e)) return false;
    }
    return true;
}

static bool restarts_find(const struct tokenizer *t, struct bytes text, struct restarts *s,
                          struct err *e) {
    const bool words = words_restart(t);
    struct added_match m;
    i64 at = 0, done = 0;
    bool good = restart_add(s, 0, 0, e);
    while (good && added_next(&t->added[0], text, done, &at, &m)) {
        if (words) good = words_find(text, done, m.begin, s, e);
        done = m.begin < m.end ? m.end : i64_max(done, m.end);
        if (good && m.begin < m.end && done - last_of(s) >= RESTART_GAP)
            good = restart_add(s, at, done, e);
    }
    return good && (!words || words_find(text, done, text.size, s, e));
}

/* The last place in front of `end`, whose next character the text up to `end` still has. */
static const struct restart *restart_before(const struct restarts *s, i64 end) {
    i64 low = 0, high = s->count;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (s->item[middle].done < end)
            low = middle;
        else
            high = middle;
    }
    return &s->item[low];
}

static bool prefix_compare(struct work *w, struct bytes text, const struct restarts *s,
                           const struct ids *all, struct beginning *p, struct ids *part,
                           struct err *e) {
    const struct restart *r = restart_before(s, p->at);
    i64 n = 0;
    part->count = 0;
    if (p->at && encode_from(w, (struct bytes){text.data, p->at}, r->at, r->done, part, e))
        return false;
    while (n < part->count && r->ids + n < all->count && part->item[n] == all->item[r->ids + n])
        n++;
    p->same = r->ids + n, p->more = n < part->count;
    return true;
}

bool tokenizer_prefixes(const void *arg, const char *data, i64 size, const struct ids *all,
                        struct beginning *list, i64 count, struct err *e) {
    const struct tokenizer *t = arg;
    const struct bytes text = {data, size};
    struct restarts s = {0};
    struct ids part = {0};
    struct work *w = utf8_bad(data, size) < 0 ? work_take(t, e) : NULL;
    bool good = w && restarts_find(t, text, &s, e);
    i64 ids = 0;
    for (i64 i = 0; good && i < s.count; i++) {
        const i64 end = i + 1 < s.count ? s.item[i + 1].done : size;
        s.item[i].ids = ids, part.count = 0;
        good = !encode_from(w, (struct bytes){data, end}, s.item[i].at, s.item[i].done, &part, e) &&
               part.count <= all->count - ids &&
               (!part.count || !memcmp(part.item, all->item + ids, (size_t)part.count * 4));
        ids += part.count;
    }
    good = good && ids == all->count;
    for (i64 i = 0; good && i < count; i++)
        good = prefix_compare(w, text, &s, all, &list[i], &part, e);
    if (w) work_give(t, w);
    mem_free(s.item), ids_free(&part);
    return good;
}
