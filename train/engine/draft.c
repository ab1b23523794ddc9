/* draft.c: what may come next, guessed from what a text has already: where the last few ids stood
 * before, those that followed them then (prompt lookup: Saxena, 2023). A guess costs a row of the
 * next pass, and is taken only where the pass gives the same id, so that it changes no text. */
#include "train/engine/pool.h"

#include <string.h>

enum { LONGEST = 4, SHORTEST = 2, BACK = 4096 /* ids that are looked through */ };

static i64 guess_by_lookup(const struct ids *ids, u32 *to, i64 most) {
    const i64 count = ids->count;
    const u32 *id = ids->item;
    for (i64 n = LONGEST; n >= SHORTEST; n--)
        for (i64 at = count - n - 1; at >= i64_max(0, count - BACK); at--) {
            if (memcmp(id + at, id + count - n, (size_t)n * sizeof *id)) continue;
            const i64 found = i64_min(most, count - at - n);
            memcpy(to, id + at + n, (size_t)found * sizeof *id);
            return found;
        }
    return 0;
}

draft_guess *draft_guesser = guess_by_lookup;

/* Guesses behind the text's ids, where its next pass would be of one. */
int drafts_add(struct sequence *q, const struct model *m, struct engine_count *counted,
               struct err *e) {
    u32 guess[DRAFTS];
    const i64 most = i64_min(i64_min(q->how->draft, DRAFTS), q->own.room - q->own.ids.count - 1);
    const bool decodes = q->own.known && q->own.known == q->own.ids.count - 1;
    q->own.drafted = 0;
    if (most < 1 || !decodes || q->own.slot >= 0 || q->logits || penalised(q->how)) return 0;
    const i64 count = draft_guesser(&q->own.ids, guess, most);
    if (model_rope_kind(m, q->own.ids.count + count) != q->own.kind) return 0;
    for (i64 i = 0; i < count; i++, q->own.drafted++)
        if (ids_add(&q->own.ids, guess[i], e)) return -1;
    counted->drafted += count;
    return 0;
}

void drafts_drop(struct sequence *q) { q->own.ids.count -= q->own.drafted, q->own.drafted = 0; }

/* Of guesses those stay that the pass gives, too, one after another. */
void drafts_judge(struct sequence *q, const u32 *ids, struct pool *p,
                  struct engine_count *counted) {
    const i64 real = q->own.ids.count - q->own.drafted;
    i64 right = 0;
    while (right < q->own.drafted && ids[right] == q->own.ids.item[real + right]) right++;
    q->own.ids.count = real + right;
    if (right < q->own.drafted) pool_trim(p, &q->own.pages, q->own.ids.count);
    counted->accepted += right, q->own.drafted = right;
}
