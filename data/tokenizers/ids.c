/* ids.c: a growing list of token ids. */
#include "data/tokenizers/tokenizers.h"

int ids_add(struct ids *ids, u32 id, struct err *e) {
    if (ids->count == ids->capacity) {
        i64 capacity = i64_max(256, 2 * ids->capacity);
        void *p = mem_grow(ids->item, ids->capacity * 4, capacity * 4, e);
        if (!p) return -1;
        ids->item = p;
        ids->capacity = capacity;
    }
    ids->item[ids->count++] = id;
    return 0;
}

void ids_free(struct ids *ids) {
    mem_free(ids->item);
    *ids = (struct ids){0};
}
