/* test_pool.c: the pool of an engine by itself: pages and slots of texts that come, grow, go back
 * and end at random; slots of sequence states, as bytes. */
#include "train/engine/pool.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void ok(bool good, const struct err *e) {
    if (!good) fail_msg("%s: %s", e->primary, e->detail);
}

/* Texts at random, whose state of a position is a number made of all ids up to it, begin as others,
 * grow, go back and end; no page holds what is another text's. With slots that number is a
 * recurrent state, too, which a pass goes on from: in the slot are the number after the last full
 * chunk and the ids since then, as states.h says. */

enum { POOL_TEXTS = 5, POOL_MOST = 230, POOL_PAGES = 13 };
struct pool_text {
    u32 ids[POOL_MOST];
    i64 count, known;
    struct page_list pages;
    i32 slot; /* -1: none */
};
static float *position_of(struct pool *p, const struct pool_text *t, i64 at) {
    return (float *)p->states.layer->view[0].data +
           t->pages.item[at / ATTENTION_PAGE] * ATTENTION_PAGE + at % ATTENTION_PAGE;
}
static i64 random_below(u64 *n, i64 below) {
    const struct rng r = {9, RNG_TEST, 0, 77};
    return (i64)(rng_uniform_f64(&r, (*n)++) * (double)below);
}
static u32 sum_next(u32 sum, u32 id) { return (sum * 31 + id + 1) % 65521; }
/* The number after position `at`, by the slot. */
static u32 slot_sum(struct pool *p, const struct pool_text *t, i64 at) {
    float *slot = (float *)p->states.layer->view[1].data + t->slot * (1 + ATTENTION_PAGE);
    const i64 row = at % ATTENTION_PAGE;
    if (!at) slot[0] = 1;
    slot[1 + row] = (float)t->ids[at];
    u32 sum = (u32)slot[0];
    for (i64 i = 0; i <= row; i++) sum = sum_next(sum, (u32)slot[1 + i]);
    if (row + 1 == ATTENTION_PAGE) slot[0] = (float)sum;
    return sum;
}
/* Stores what is new, and compares all. */
static void pool_pass(struct pool *p, struct pool_text *t) {
    struct err e = {0};
    u32 sum = 1;
    for (i64 at = 0; at < t->count; at++) {
        sum = sum_next(sum, t->ids[at]);
        if (at >= t->known && t->slot >= 0) assert_int_equal(slot_sum(p, t, at), sum);
        if (at >= t->known) *position_of(p, t, at) = (float)sum;
        if (*position_of(p, t, at) != (float)sum)
            fail_msg("position %lld of %lld is not its text's", (long long)at, (long long)t->count);
    }
    t->known = t->count;
    pool_ready(p, &t->pages);
    if (t->slot >= 0) ok(!pool_slot_ran(p, t->slot, &t->pages, t->known, &e), &e);
}
static void slot_step(struct pool *p, struct pool_text *t, i64 *reused) {
    struct err e = {0};
    const i64 at = pool_slot_to(p, t->slot, &t->pages, t->known, &e);
    assert_true(at >= 0 && at <= t->known);
    *reused += at;
    if (at < t->known) pool_release(p, &t->pages, t->known = at);
}
static void pool_step(struct pool *p, struct pool_text *all, u64 *n, i64 *reused, i64 *went_on) {
    struct err e = {0};
    struct pool_text *t = &all[random_below(n, POOL_TEXTS)];
    const struct pool_text *like = &all[random_below(n, POOL_TEXTS)];
    const i64 what = random_below(n, 8);
    if (what == 0 || !t->count) { /* another text, which begins as one that there is */
        pool_release(p, &t->pages, t->known = 0);
        if (t->slot >= 0) pool_slot_free(p, t->slot), t->slot = pool_slot(p, &e);
        const i64 same = random_below(n, like->count + 1);
        memcpy(t->ids, like->ids, (size_t)same * sizeof *t->ids);
        t->count = same + 1 + random_below(n, POOL_MOST - 30 - same > 60 ? 60 : 20);
        if (t->count > POOL_MOST - 20) t->count = same + 1;
        for (i64 i = same; i < t->count; i++) t->ids[i] = (u32)random_below(n, 2);
    } else if (what == 1) {
        t->count = 1 + random_below(n, t->count);
        t->known = i64_min(t->known, t->count - 1);
        pool_release(p, &t->pages, t->known);
    } else if (t->count < POOL_MOST - 10) {
        for (i64 i = random_below(n, 10); i >= 0; i--) t->ids[t->count++] = (u32)random_below(n, 2);
    }
    if (!t->known && !t->pages.count) {
        t->known = pool_match(p, 0, t->ids, t->count - 1, &t->pages, &e);
        assert_true(t->known >= 0), *reused += t->known;
    }
    if (t->slot >= 0) slot_step(p, t, went_on);
    const int rc = pool_extend(p, 0, t->ids, t->known, t->count, &t->pages, &e);
    assert_true(rc >= 0);
    if (rc)
        pool_pass(p, t);
    else /* full: it is computed again some time */
        pool_release(p, &t->pages, t->known = 0);
}

static void pool_alone(bool slots) {
    static struct pool_text all[POOL_TEXTS];
    struct err e = {0};
    struct states states = {.layers = 1};
    struct pool p;
    u64 n = 0;
    i64 reused = 0, went_on = 0, free_pages = 0, taken = 0;
    memset(all, 0, sizeof all);
    ok((states.layer = mem_new(sizeof *states.layer, &e)), &e);
    states.layer->count = 1 + slots;
    states.layer->spec[0] = (struct state_spec){"sum", STATE_TOKEN, F32, 1, 1};
    states.layer->spec[1] =
        (struct state_spec){"so far", STATE_SEQUENCE, F32, 1 + ATTENTION_PAGE, 1};
    const i64 bytes = POOL_PAGES * ATTENTION_PAGE * 4;
    pool_open(&p, &states, slots ? bytes * 4 / 3 : bytes);
    assert_int_equal(p.kept_most, slots ? 4 : 0);
    for (int i = 0; i < POOL_TEXTS; i++)
        ok((all[i].slot = slots ? pool_slot(&p, &e) : -1) >= -!slots, &e);
    for (int i = 0; i < 200000; i++) pool_step(&p, all, &n, &reused, &went_on);
    assert_int_equal(p.states.pages, POOL_PAGES);
    assert_true(reused > (slots ? 100000 : 500000) && p.evicted > 5000);
    assert_true(!slots || went_on > 1000000);
    for (int i = 0; i < POOL_TEXTS; i++) {
        pool_release(&p, &all[i].pages, 0), mem_free(all[i].pages.item);
        if (slots) pool_slot_free(&p, all[i].slot);
    }
    pool_forget(&p);
    for (i32 at = p.free; at >= 0; at = p.page[at].sibling) free_pages++;
    for (i64 i = 0; i < p.states.slots; i++) taken += p.slot[i].taken;
    assert_int_equal(free_pages, POOL_PAGES); /* none is lost */
    assert_int_equal(taken + p.kept, 0);
    assert_true(p.states.slots <= POOL_TEXTS + 4 + 4);
    pool_close(&p);
}
static void pages_alone(void **state) { (void)state, pool_alone(false); }
static void pages_and_slots(void **state) { (void)state, pool_alone(true); }

/* ---- slots: a toy state of 3 rows of 5 floats, in a model that has pages too */

static float slot_get(struct pool *p, i32 slot, i64 i) {
    return ((float *)p->states.layer->view[0].data)[slot * 15 + i];
}
static void slot_put(struct pool *p, i32 slot, float x) {
    for (i64 i = 0; i < 15; i++)
        ((float *)p->states.layer->view[0].data)[slot * 15 + i] = x + (float)i;
}

static void slots(void **state) {
    (void)state;
    struct err e = {0};
    struct states states = {.layers = 1};
    ok((states.layer = mem_new(sizeof *states.layer, &e)), &e);
    states.layer->count = 2;
    states.layer->spec[0] = (struct state_spec){"toy", STATE_SEQUENCE, F32, 3, 5};
    states.layer->spec[1] = (struct state_spec){"rows", STATE_TOKEN, F32, 1, 2};
    struct pool p;
    pool_open(&p, &states, 1 << 20);
    struct page_list list = {0}, more = {0};
    u32 ids[200] = {0};
    ok(pool_extend(&p, 0, ids, 0, 200, &list, &e) == 1, &e);
    pool_ready(&p, &list);
    i32 slot[9];
    for (int n = 0; n < 9; n++) { /* memory grows, and what is in it stays */
        ok((slot[n] = pool_slot(&p, &e)) >= 0, &e);
        for (i64 i = 0; i < 15; i++) assert_true(slot_get(&p, slot[n], i) == 0);
        slot_put(&p, slot[n], (float)n * 100);
    }
    for (int n = 0; n < 9; n++) assert_true(slot_get(&p, slot[n], 14) == (float)n * 100 + 14);
    for (int n = 0; n < 9; n++) assert_int_equal(p.slot[slot[n]].count, 0);
    /* What was kept after the second page is there again when a text goes back, or begins as it. */
    ok(!pool_slot_ran(&p, slot[3], &list, 130, &e), &e);
    slot_put(&p, slot[3], 7);
    p.kept_most = 1; /* what has been kept stays until there is something newer */
    ok(!pool_slot_ran(&p, slot[3], &list, 170, &e), &e);
    assert_int_equal(pool_slot_to(&p, slot[3], &list, 150, &e), 150); /* in the chunk */
    assert_true(slot_get(&p, slot[3], 0) == 7);
    assert_int_equal(pool_slot_to(&p, slot[3], &list, 151, &e), 128); /* beyond what it is after */
    assert_true(slot_get(&p, slot[3], 2) == 302);
    assert_int_equal(pool_match(&p, 0, ids, 199, &more, &e), 192);
    assert_int_equal(pool_slot_to(&p, slot[5], &more, 192, &e), 128);
    assert_true(slot_get(&p, slot[5], 1) == 301);
    ok(!pool_slot_ran(&p, slot[5], &more, 128, &e), &e);
    assert_int_equal(pool_slot_to(&p, slot[5], &more, 127, &e), 0); /* nothing was kept before */
    assert_true(slot_get(&p, slot[5], 1) == 0);
    slot_put(&p, slot[4], 50);
    ok(!pool_slot_ran(&p, slot[4], &list, 199, &e), &e); /* newer, and there is room for one */
    assert_int_equal(p.kept, 1);
    assert_int_equal(pool_slot_to(&p, slot[5], &more, 128, &e), 0);
    assert_int_equal(pool_slot_to(&p, slot[5], &list, 195, &e), 192);
    assert_true(slot_get(&p, slot[5], 1) == 51);
    p.slot[slot[5]].count = -1; /* unknown: not to be gone on from */
    assert_int_equal(pool_slot_to(&p, slot[5], &list, 191, &e), 0);
    /* A slot that is given back is given again; a page that is evicted gives its own back. */
    pool_slot_free(&p, slot[0]);
    assert_int_equal(pool_slot(&p, &e), slot[0]);
    pool_release(&p, &list, 0), pool_release(&p, &more, 0);
    pool_forget(&p);
    assert_int_equal(pool_match(&p, 0, ids, 199, &more, &e), 0);
    i64 taken = 0;
    for (i64 n = 0; n < p.states.slots; n++) taken += p.slot[n].taken;
    assert_int_equal(taken, 9);
    mem_free(list.item), mem_free(more.item), pool_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_alone),
                                       cmocka_unit_test(pages_and_slots), cmocka_unit_test(slots)};
    struct err e = {0};
    if (pool_start(1, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
