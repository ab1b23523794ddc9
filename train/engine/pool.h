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
    i32 snapshot; /* a slot, as it was after the last position of the page; -1: none */
    i64 used;
    u32 ids[ATTENTION_PAGE];
};
struct pool_slot {
    bool used;
    i64 boundary; /* positions before the chunk whose rows it holds */
};
struct pool { /* zero-initialise; pool_close also after a failure */
    struct states states;
    i64 most; /* pages at most */
    struct page *page;
    i32 root[POOL_KINDS], free;
    struct pool_slot *slot;
    i64 clock, moves, evicted; /* moves: how often the memory of the states became another */
};
/* `states` is described, without memory, and the pool's from now on. `bytes`: of pages, at most. */
void pool_open(struct pool *p, struct states *states, i64 bytes);
void pool_close(struct pool *p);
int pool_reserve(struct pool *p, i64 pages, struct err *e); /* room for so many, within `most` */

/* Of a text without pages, the longest beginning of ids[0..count) that the pool holds: takes its
 * pages, and says how many positions they are. -1: an error. */
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
void pool_forget(struct pool *p);

/* ---- slots of sequence states. A slot holds the state at the last boundary of a chunk, counted
 * from the text's beginning, and the rows of the chunk since then. */
i32 pool_slot(struct pool *p, struct err *e); /* zeroed; -1: an error */
void pool_slot_free(struct pool *p, i32 slot);
void pool_slot_at(struct pool *p, i32 slot, i64 boundary); /* after a pass */
/* Keeps a copy of the slot as what follows `page`, as long as the page is known. */
int pool_snapshot(struct pool *p, i32 slot, i32 page, struct err *e);
/* The slot as it is after `positions`, or the nearest before that there is: how many positions it
 * has then. Within the slot's own chunk that is all of them: its rows are there. -1: an error. */
i64 pool_slot_rollback(struct pool *p, i32 slot, const struct page_list *list, i64 positions,
                       struct err *e);

#endif
