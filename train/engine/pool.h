/* pool.h: whose the pages and slots of a model's states are, and which ids they hold the states of.
 *
 * Pages that hold positions form trees: a page's parent holds the positions before its own, so a
 * path from a root is a text's beginning. A text that begins with ids that the pool knows takes
 * those pages as its own: whole ones are shared and counted, one that it shares a part of is
 * copied. By NUMERICS.md a state depends on the ids up to its position alone, so that this changes
 * no bit (with `numerics: portable`; `fast` promises no bits across passes of different sizes).
 * Where a model's states depend on more, on which RoPE frequencies the text's length asks for
 * (`kind`, model_rope_kind), each kind has a root of its own.
 *
 * A page that no sequence holds stays known until its memory is wanted: those used longest ago go
 * first, and of a path the end. */
#ifndef HONE_POOL_H
#define HONE_POOL_H

#include "recipes/models/states.h"
#include "train/engine/engine.h"

enum { POOL_KINDS = 2 };
struct page {
    i32 refs;                   /* sequences that hold it */
    i32 parent, child, sibling; /* numbers of pages, -1: none. Free pages are a list of siblings */
    i32 kind;                   /* -1: free */
    i32 count;                  /* positions that it holds or, in this step, will hold; */
    i32 ready;                  /* of those, the ones whose states are there */
    i32 snapshot;               /* a slot as it is after the page's last position; -1: none */
    i64 used;
    u32 ids[ATTENTION_PAGE];
};
struct pool_slot {
    bool taken;
    i32 page;  /* whose snapshot it is; -1: a text's */
    i64 count; /* positions that it is after; -1: nobody knows */
    i64 used;  /* a snapshot: when it was made or copied last */
};
struct pool { /* zero-initialise; pool_close also after a failure */
    struct states states;
    i64 most;            /* pages at most */
    i64 kept, kept_most; /* snapshots */
    struct page *page;
    i32 root[POOL_KINDS], free;
    struct pool_slot *slot;
    i64 clock, moves, evicted; /* moves: how often the memory of the states became another */
};
/* `states` is described, without memory, and the pool's from now on. `bytes`: of pages and
 * snapshots, at most; where there are snapshots, a quarter is theirs. */
void pool_open(struct pool *p, struct states *states, i64 bytes);
void pool_close(struct pool *p);
int pool_reserve(struct pool *p, i64 pages, struct err *e); /* room for so many, within `most` */

/* Of a text without pages, the longest beginning of ids[0..count) that the pool holds: takes its
 * pages, and says how many positions they are; with slots only whole pages, of which pool_slot_to
 * says how many it can go on from. -1: an error. */
i64 pool_match(struct pool *p, int kind, const u32 *ids, i64 count, struct page_list *list,
               struct err *e);
/* Gives the text pages for ids[known..count), which the next pass computes. 1: done, 0: the pool is
 * full (and some pages may have been added), -1: an error. */
int pool_extend(struct pool *p, int kind, const u32 *ids, i64 known, i64 count,
                struct page_list *list, struct err *e);
void pool_ready(struct pool *p, const struct page_list *list); /* the pass has run */
/* The text gives back its pages but for those of the first `positions`. */
void pool_release(struct pool *p, struct page_list *list, i64 positions);
/* No page is known any more: a pass failed, or the weights are others. All texts have given theirs
 * back. */
/* Of what was extended and is not ready yet, only so many positions hold: the rest is as if it had
 * never been. */
void pool_trim(struct pool *p, struct page_list *list, i64 positions);
void pool_forget(struct pool *p);

/* ---- slots of sequence states (slots.c). What is in one: states.h. */
i32 pool_slot(struct pool *p, struct err *e); /* zeroed, after no position; -1: an error */
void pool_slot_free(struct pool *p, i32 slot);
/* A text's slot as it is after `positions`, or after the most before that there is a way to: how
 * many. Within the slot's own chunk that is all of them, else where a snapshot is of the text's
 * pages, else 0. -1: an error. */
i64 pool_slot_to(struct pool *p, i32 slot, const struct page_list *list, i64 positions,
                 struct err *e);
/* A pass has brought the slot to `positions`: a copy is kept behind the last full page, as long as
 * the page is known and no newer snapshot wants its memory. */
int pool_slot_ran(struct pool *p, i32 slot, const struct page_list *list, i64 positions,
                  struct err *e);

/* ---- guesses of the ids that follow (draft.c) */
/* At most `most` ids that may follow; how many. Any will do: none changes a text. */
typedef i64 draft_guess(const struct ids *ids, u32 *to, i64 most);
extern draft_guess *draft_guesser; /* tests have one of their own */
static inline bool penalised(const struct sampling *s) {
    return s->repetition_penalty > 0 && s->repetition_penalty != 1;
}
/* Behind the text's ids, where its next pass would be of one. */
int drafts_add(struct sequence *q, const struct model *m, struct engine_count *counted,
               struct err *e);
void drafts_drop(struct sequence *q);
/* Of guesses those stay that the pass gives, too, one after another: `ids` are those that follow
 * the text's own last and each guess. */
void drafts_judge(struct sequence *q, const u32 *ids, struct pool *p, struct engine_count *counted);

#endif
