/* slots.c: the slots of sequence states in a pool: given, kept as they are after a page, restored,
 * rolled back. What is in a slot is the mixer's business; here it is bytes. */
#include "train/engine/pool.h"

static int slots_more(struct pool *p, struct err *e) {
    const i64 had = p->states.slots, slots = 2 * had + 4, size = (i64)sizeof *p->slot;
    void *more = mem_grow(p->slot, had * size, slots * size, e);
    if (!more) return -1;
    p->slot = more, p->moves++;
    return states_grow(&p->states, p->states.pages, slots, e);
}

/* Any slot that nobody has, its bytes as they are. */
static i32 slot_any(struct pool *p, struct err *e) {
    i32 n = 0;
    while (n < p->states.slots && p->slot[n].used) n++;
    if (n == p->states.slots && slots_more(p, e)) return -1;
    p->slot[n] = (struct pool_slot){.used = true};
    return n;
}

i32 pool_slot(struct pool *p, struct err *e) {
    const i32 n = slot_any(p, e);
    if (n < 0 || !states_zero_slot(&p->states, n, e)) return n;
    pool_slot_free(p, n);
    return -1;
}

void pool_slot_free(struct pool *p, i32 slot) { p->slot[slot].used = false; }

void pool_slot_at(struct pool *p, i32 slot, i64 boundary) { p->slot[slot].boundary = boundary; }

int pool_snapshot(struct pool *p, i32 slot, i32 page, struct err *e) {
    struct page *of = &p->page[page];
    if (of->snapshot < 0 && (of->snapshot = slot_any(p, e)) < 0) return -1;
    p->slot[of->snapshot].boundary = p->slot[slot].boundary;
    return states_copy_slot(&p->states, of->snapshot, slot, e);
}

i64 pool_slot_rollback(struct pool *p, i32 slot, const struct page_list *list, i64 positions,
                       struct err *e) {
    if (positions >= p->slot[slot].boundary) return positions;
    i64 n = i64_min(positions / ATTENTION_PAGE, list->count);
    while (n > 0 && p->page[list->item[n - 1]].snapshot < 0) n--;
    p->slot[slot].boundary = 0;
    if (!n) return states_zero_slot(&p->states, slot, e) ? -1 : 0;
    const i32 from = p->page[list->item[n - 1]].snapshot;
    p->slot[slot].boundary = p->slot[from].boundary;
    return states_copy_slot(&p->states, slot, from, e) ? -1 : n * ATTENTION_PAGE;
}
