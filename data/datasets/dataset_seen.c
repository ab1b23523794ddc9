/* dataset_seen.c: which documents there were: 127 bits of the SHA-256 of the ids and targets of
 * each, in a table that doubles before it is half full. */
#include "data/datasets/datasets_int.h"

#include <string.h>

/* Where the key is, or belongs. No key has a second half of 0. */
static u64 *slot_of(u64 (*slot)[2], i64 slots, const u64 key[2]) {
    const u64 mask = (u64)slots - 1;
    u64 at = key[0] & mask;
    while (slot[at][1] && memcmp(slot[at], key, sizeof *slot)) at = (at + 1) & mask;
    return slot[at];
}

static int grow(struct seen *s, struct err *e) {
    if (2 * (s->count + 1) <= s->slots) return 0;
    const i64 slots = i64_max(1024, 2 * s->slots);
    u64(*slot)[2] = mem_new_array(slots, sizeof *slot, e);
    if (!slot) return -1;
    for (i64 i = 0; i < s->slots; i++)
        if (s->slot[i][1]) memcpy(slot_of(slot, slots, s->slot[i]), s->slot[i], sizeof *slot);
    mem_free(s->slot);
    s->slot = slot, s->slots = slots;
    return 0;
}

static int seen_add(struct seen *s, const void *data, i64 size, struct err *e) {
    char hex[65];
    unsigned long long half[2];
    if (grow(s, e) || sha256_bytes(data, size, hex, e)) return -1;
    sscanf(hex, "%16llx%16llx", &half[0], &half[1]);
    const u64 key[2] = {half[0], half[1] | 1};
    u64 *slot = slot_of(s->slot, s->slots, key);
    if (slot[1]) return 1;
    memcpy(slot, key, sizeof key), s->count++;
    return 0;
}

int seen_document(struct seen *s, const struct text *ids, const struct text *spans,
                  const struct mark *m, struct err *e) {
    struct text all = {0};
    const u64 *span = (const u64 *)(const void *)spans->data;
    const i64 count = spans->size / 8, before = m->spans / 8;
    int rc = text_add(&all, ids->data + m->pending, ids->size - m->pending, e);
    /* The last span before may go on: then it ends in this document. */
    const bool on = before && span[before - 1] > m->last;
    const u64 begin = (u64)m->count, first[2] = {0, on ? span[before - 1] - begin : 0};
    if (!rc && on) rc = text_add(&all, first, sizeof first, e);
    for (i64 i = before; !rc && i < count; i++) {
        const u64 at = span[i] - begin;
        rc = text_add(&all, &at, sizeof at, e);
    }
    rc = rc ? -1 : seen_add(s, all.data, all.size, e);
    return text_free(&all), rc;
}

void seen_free(struct seen *s) {
    mem_free(s->slot);
    *s = (struct seen){0};
}
