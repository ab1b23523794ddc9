/* pool.c: pages and slots: given, shared, copied, found again by ids, evicted. Invariants: the
 * pages of a sequence are a path of a tree; a page that others follow is full; a page without
 * references that holds nothing is free; a parent was used later than its children. */
#include "train/engine/pool.h"

#include <string.h>

void pool_open(struct pool *p, struct states *states, i64 bytes) {
    *p = (struct pool){.states = *states, .free = -1, .root = {-1, -1}};
    const i64 slot = states_slot_bytes(states);
    if (slot) p->kept_most = bytes / 4 / slot, bytes -= bytes / 4;
    p->most = i64_min(bytes / i64_max(1, states_page_bytes(states)), INT32_MAX / ATTENTION_PAGE);
    *states = (struct states){0};
}

void pool_close(struct pool *p) {
    states_free(&p->states), mem_free(p->page), mem_free(p->slot);
    *p = (struct pool){0};
}

/* ---- the trees ---- */

static i32 *children(struct pool *p, i32 parent, int kind) {
    return parent >= 0 ? &p->page[parent].child : &p->root[kind];
}

static void page_link(struct pool *p, i32 n, i32 parent, int kind) {
    i32 *first = children(p, parent, kind);
    p->page[n].parent = parent, p->page[n].kind = kind;
    p->page[n].sibling = *first, *first = n;
}

static void page_unlink(struct pool *p, i32 n) {
    if (p->page[n].kind < 0) return;
    i32 *at = children(p, p->page[n].parent, p->page[n].kind);
    while (*at != n) at = &p->page[*at].sibling;
    *at = p->page[n].sibling;
    p->page[n].kind = p->page[n].parent = p->page[n].sibling = -1;
}

static void page_free(struct pool *p, i32 n) {
    struct page *page = &p->page[n];
    page_unlink(p, n);
    if (page->snapshot >= 0) pool_slot_free(p, page->snapshot);
    *page =
        (struct page){.parent = -1, .child = -1, .sibling = p->free, .kind = -1, .snapshot = -1};
    p->free = n;
}

int pool_reserve(struct pool *p, i64 pages, struct err *e) {
    const i64 had = p->states.pages, size = (i64)sizeof *p->page;
    pages = i64_min(pages, p->most);
    if (pages <= had) return 0;
    void *more = mem_grow(p->page, had * size, pages * size, e);
    if (!more) return -1;
    p->page = more, p->moves++;
    if (states_grow(&p->states, pages, p->states.slots, e)) return -1;
    for (i64 n = pages - 1; n >= had; n--)
        p->page[n].kind = p->page[n].snapshot = -1, page_free(p, (i32)n);
    return 0;
}

/* Of the pages that nobody holds, the one used longest ago that no other follows. */
static bool evict(struct pool *p) {
    i32 oldest = -1;
    for (i32 n = 0; n < p->states.pages; n++)
        if (!p->page[n].refs && p->page[n].kind >= 0 && p->page[n].child < 0 &&
            (oldest < 0 || p->page[n].used < p->page[oldest].used))
            oldest = n;
    if (oldest < 0) return false;
    page_free(p, oldest), p->evicted++;
    return true;
}

/* An empty page after `parent`, held once; -1: the pool is full, -2: an error. */
static i32 page_new(struct pool *p, i32 parent, int kind, struct err *e) {
    if (p->free < 0 && !evict(p) && p->states.pages < p->most &&
        pool_reserve(p, p->states.pages + i64_max(4, p->states.pages / 2), e))
        return -2;
    if (p->free < 0) return -1;
    const i32 n = p->free;
    p->free = p->page[n].sibling;
    p->page[n].sibling = -1, p->page[n].refs = 1, p->page[n].used = ++p->clock;
    page_link(p, n, parent, kind);
    return n;
}

/* ---- lists of pages ---- */

static int list_add(struct page_list *list, i32 page, struct err *e) {
    if (list->count == list->room) {
        const i64 size = (i64)sizeof *list->item, room = 2 * list->room + 8;
        void *more = mem_grow(list->item, list->count * size, room * size, e);
        if (!more) return -1;
        list->item = more, list->room = room;
    }
    list->item[list->count++] = page;
    return 0;
}
static i32 list_last(const struct page_list *list) {
    return list->count ? list->item[list->count - 1] : -1;
}

/* A child's time must not pass its parent's, so that a path is evicted from its end. */
static void list_used(struct pool *p, const struct page_list *list) {
    for (i64 i = list->count - 1; i >= 0; i--) p->page[list->item[i]].used = ++p->clock;
}

/* Pages from `kept` on; a page keeps what is ready. */
static void pages_drop(struct pool *p, struct page_list *list, i64 kept) {
    while (list->count > kept) {
        const i32 n = list->item[--list->count];
        struct page *page = &p->page[n];
        page->count = page->refs > 1 ? page->count : page->ready;
        if (!--page->refs && !page->count) page_free(p, n);
    }
}

void pool_trim(struct pool *p, struct page_list *list, i64 positions) {
    const i64 kept = (positions + ATTENTION_PAGE - 1) / ATTENTION_PAGE;
    pages_drop(p, list, kept);
    if (!list->count) return;
    struct page *last = &p->page[list->item[list->count - 1]];
    const i64 held = positions - (list->count - 1) * ATTENTION_PAGE;
    if (last->refs == 1 && last->count > held) last->count = (i32)held;
}

void pool_release(struct pool *p, struct page_list *list, i64 positions) {
    const i64 kept = (positions + ATTENTION_PAGE - 1) / ATTENTION_PAGE;
    list_used(p, list);
    pages_drop(p, list, kept);
    if (!list->count) return;
    struct page *last = &p->page[list->item[list->count - 1]];
    if (last->refs == 1) last->count = last->ready;
}

void pool_forget(struct pool *p) {
    while (evict(p)) p->evicted--;
}

/* ---- prefixes ---- */

static i64 common(const struct page *page, const u32 *ids, i64 count) {
    i64 n = 0;
    while (n < page->count && n < count && page->ids[n] == ids[n]) n++;
    return n;
}

/* A page after `parent` with the first n positions of `from`; -1, -2 as page_new. */
static i32 page_copy(struct pool *p, i32 from, i64 n, i32 parent, int kind, struct err *e) {
    p->page[from].refs++; /* not to be evicted meanwhile */
    const i32 to = page_new(p, parent, kind, e);
    p->page[from].refs--;
    if (to < 0) return to;
    memcpy(p->page[to].ids, p->page[from].ids, (size_t)n * sizeof(u32));
    p->page[to].count = p->page[to].ready = (i32)n;
    return states_copy_page(&p->states, to, from, n, e) ? -2 : to;
}

/* Takes a page that holds n of the text's positions behind `list`; those of a page that goes on
 * otherwise, or is somebody's, are copied. Positions taken; -1: an error. */
static i64 page_take(struct pool *p, int kind, i32 n, i64 positions, struct page_list *list,
                     struct err *e) {
    struct page *page = &p->page[n];
    const bool whole = positions == ATTENTION_PAGE;
    if (whole || (!page->refs && page->child < 0 && page->count == positions)) {
        page->refs++;
    } else {
        n = page_copy(p, n, positions, list_last(list), kind, e);
        if (n == -1) return 0;
        if (n < 0) return -1;
    }
    return list_add(list, n, e) ? -1 : positions;
}

i64 pool_match(struct pool *p, int kind, const u32 *ids, i64 count, struct page_list *list,
               struct err *e) {
    const bool slots = states_have(&p->states, STATE_SEQUENCE); /* snapshots are of whole pages */
    i64 at = 0, took = ATTENTION_PAGE;
    while (at < count && took == ATTENTION_PAGE) {
        i32 best = -1;
        i64 most = 0;
        for (i32 n = *children(p, list_last(list), kind); n >= 0; n = p->page[n].sibling) {
            i64 same = common(&p->page[n], ids + at, count - at);
            if (same < ATTENTION_PAGE) same = i64_min(same, p->page[n].ready);
            if (same > most) most = same, best = n;
        }
        if (best < 0 || (slots && most < ATTENTION_PAGE)) break;
        if ((took = page_take(p, kind, best, most, list, e)) < 0) return -1;
        at += took;
    }
    list_used(p, list);
    return at;
}

/* The last page, which has `n` positions of the text, for more of them to be added. */
static int page_open(struct pool *p, int kind, i64 n, struct page_list *list, struct err *e) {
    struct page *page = &p->page[list_last(list)];
    if (page->refs == 1 && page->child < 0) {
        page->count = (i32)n, page->ready = (i32)i64_min(page->ready, n);
        return 1;
    }
    const i32 copy = page_copy(p, list_last(list), n, page->parent, kind, e);
    if (copy < 0) return copy == -1 ? 0 : -1;
    page = &p->page[list_last(list)];
    page->refs--;
    list->item[list->count - 1] = copy;
    return 1;
}

int pool_extend(struct pool *p, int kind, const u32 *ids, i64 known, i64 count,
                struct page_list *list, struct err *e) {
    for (i64 at = known; at < count;) {
        const i64 n = at % ATTENTION_PAGE;
        if (n) {
            const int rc = page_open(p, kind, n, list, e);
            if (rc <= 0) return rc;
        } else {
            const i32 page = page_new(p, list_last(list), kind, e);
            if (page < 0) return page == -1 ? 0 : -1;
            if (list_add(list, page, e)) return -1;
        }
        const i64 more = i64_min(ATTENTION_PAGE - n, count - at);
        struct page *page = &p->page[list_last(list)];
        memcpy(page->ids + n, ids + at, (size_t)more * sizeof *ids);
        page->count = (i32)(n + more), at += more;
    }
    return 1;
}

void pool_ready(struct pool *p, const struct page_list *list) {
    for (i64 i = list->count - 1; i >= 0; i--)
        p->page[list->item[i]].ready = p->page[list->item[i]].count;
}
