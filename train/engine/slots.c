/* slots.c: the slots of sequence states in a pool: given, brought to a position, kept as they are
 * after a page. What is in a slot is the mixer's business (recipes/models/states.h); here it is
 * bytes. A slot is larger than a page, so there are few snapshots: the one made or used longest ago
 * makes room for the next. */
#include "train/engine/pool.h"

static int slots_more(struct pool *p, struct err *e) {
    const i64 had = p->states.slots, slots = had + i64_max(4, had / 2), size = (i64)sizeof *p->slot;
    void *more = mem_grow(p->slot, had * size, slots * size, e);
    if (!more) return -1;
    p->slot = more, p->moves++;
    return states_grow(&p->states, p->states.pages, slots, e);
}

/* Any slot that nobody has, its bytes as they are. */
static i32 slot_any(struct pool *p, struct err *e) {
    i32 n = 0;
    while (n < p->states.slots && p->slot[n].taken) n++;
    if (n == p->states.slots && slots_more(p, e)) return -1;
    p->slot[n] = (struct pool_slot){.taken = true, .page = -1, .count = -1};
    return n;
}

void pool_slot_free(struct pool *p, i32 slot) {
    struct pool_slot *s = &p->slot[slot];
    if (s->page >= 0) p->page[s->page].snapshot = -1, p->kept--;
    s->taken = false;
}

static int slot_zero(struct pool *p, i32 slot, struct err *e) {
    if (states_zero_slot(&p->states, slot, e)) return -1;
    p->slot[slot].count = 0;
    return 0;
}

i32 pool_slot(struct pool *p, struct err *e) {
    const i32 n = slot_any(p, e);
    if (n < 0 || !slot_zero(p, n, e)) return n;
    pool_slot_free(p, n);
    return -1;
}

static int slot_copy(struct pool *p, i32 to, i32 from, i64 count, struct err *e) {
    p->slot[to].count = -1;
    if (states_copy_slot(&p->states, to, from, e)) return -1;
    p->slot[to].count = count;
    return 0;
}

i64 pool_slot_to(struct pool *p, i32 slot, const struct page_list *list, i64 positions,
                 struct err *e) {
    const i64 had = p->slot[slot].count, page = positions / ATTENTION_PAGE;
    if (had >= positions && had / ATTENTION_PAGE == page) return p->slot[slot].count = positions;
    i64 n = i64_min(page, list->count);
    while (n > 0 && p->page[list->item[n - 1]].snapshot < 0) n--;
    if (!n) return slot_zero(p, slot, e);
    const i32 from = p->page[list->item[n - 1]].snapshot;
    p->slot[from].used = ++p->clock;
    n *= ATTENTION_PAGE;
    return slot_copy(p, slot, from, n, e) ? -1 : n;
}

static void snapshot_drop(struct pool *p) {
    i32 oldest = -1;
    for (i32 n = 0; n < p->states.slots; n++)
        if (p->slot[n].taken && p->slot[n].page >= 0 &&
            (oldest < 0 || p->slot[n].used < p->slot[oldest].used))
            oldest = n;
    pool_slot_free(p, oldest);
}

int pool_slot_ran(struct pool *p, i32 slot, const struct page_list *list, i64 positions,
                  struct err *e) {
    const i64 full = positions / ATTENTION_PAGE;
    p->slot[slot].count = positions;
    if (!full || p->page[list->item[full - 1]].snapshot >= 0 || !p->kept_most) return 0;
    if (p->kept == p->kept_most) snapshot_drop(p);
    const i32 to = slot_any(p, e), of = list->item[full - 1];
    if (to < 0) return -1;
    if (slot_copy(p, to, slot, full * ATTENTION_PAGE, e)) return pool_slot_free(p, to), -1;
    p->page[of].snapshot = to, p->slot[to].page = of, p->slot[to].used = ++p->clock, p->kept++;
    return 0;
}
