/* tokenizer_vocab.c: token text to id and back: an open-addressing table over one pool of bytes. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

/* Multiply and fold, eight bytes at a time: a word or a token is short, so speed is in the setup.
 */
u64 bytes_hash(const char *data, i64 size) {
    u64 h = (u64)size * 0x9e3779b97f4a7c15u, x;
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&x, data, 8);
        h = (h ^ x) * 0xbf58476d1ce4e5b9u;
        h ^= h >> 29;
    }
    x = 0;
    for (i64 i = 0; i < size; i++) x = x << 8 | (u8)data[i];
    h = (h ^ x) * 0x94d049bb133111ebu;
    return h ^ h >> 32;
}

static i64 slot_of(const struct vocab *v, const char *text, i64 size) {
    i64 i = (i64)(bytes_hash(text, size) & (u64)(v->slots - 1));
    for (; v->slot[i]; i = (i + 1) & (v->slots - 1)) {
        const struct vocab_token *t = &v->token[v->slot[i] - 1];
        if (t->size == size && !memcmp(v->pool.data + t->at, text, (size_t)size)) break;
    }
    return i;
}

i64 vocab_find(const struct vocab *v, const char *text, i64 size) {
    if (!v->used || size > v->longest) return -1;
    return (i64)v->slot[slot_of(v, text, size)] - 1;
}

i64 vocab_model(const struct vocab *v, const char *text, i64 size) {
    i64 id = vocab_find(v, text, size);
    return id >= 0 && v->token[id].added ? -1 : id;
}

bool vocab_text(const struct vocab *v, i64 id, struct bytes *out) {
    if (id < 0 || id >= v->count || v->token[id].size < 0) return false;
    *out = (struct bytes){v->pool.data + v->token[id].at, v->token[id].size};
    return true;
}

static int vocab_rehash(struct vocab *v, struct err *e) {
    i64 slots = v->slots ? 2 * v->slots : 1024;
    u32 *slot = mem_new_array(slots, sizeof *slot, e);
    if (!slot) return -1;
    mem_free(v->slot);
    v->slot = slot;
    v->slots = slots;
    for (i64 id = 0; id < v->count; id++) {
        struct bytes t;
        if (vocab_text(v, id, &t)) v->slot[slot_of(v, t.data, t.size)] = (u32)id + 1;
    }
    return 0;
}

static int vocab_reach(struct vocab *v, i64 id, struct err *e) {
    if (id >= v->capacity) {
        i64 old = v->capacity, n = i64_max(id + 1, i64_max(1024, old + old / 2));
        void *p = mem_grow(v->token, old * (i64)sizeof *v->token, n * (i64)sizeof *v->token, e);
        if (!p) return -1;
        v->token = p;
        v->capacity = n;
    }
    for (; v->count <= id; v->count++) v->token[v->count] = (struct vocab_token){.size = -1};
    return 0;
}

int vocab_add(struct vocab *v, struct bytes text, i64 id, const char *where, struct err *e) {
    if (id < 0 || id >= VOCAB_LIMIT) {
        err_input(e, "%s: token \"%.*s\" has id %lld", where, (int)i64_min(text.size, 60),
                  text.data, (long long)id);
        return err_detail(e, "ids must be from 0 to %lld", (long long)VOCAB_LIMIT - 1);
    }
    if (text.size > INT32_MAX)
        return err_input(e, "%s: token %lld is too long", where, (long long)id);
    struct bytes other;
    if (vocab_text(v, id, &other))
        return err_input(e, "%s: id %lld is used twice: by \"%.*s\" and by \"%.*s\"", where,
                         (long long)id, (int)i64_min(other.size, 60), other.data,
                         (int)i64_min(text.size, 60), text.data);
    if (2 * (v->used + 1) > v->slots && vocab_rehash(v, e)) return -1;
    i64 slot = slot_of(v, text.data, text.size);
    if (v->slot[slot])
        return err_input(e, "%s: token \"%.*s\" has two ids, %u and %lld", where,
                         (int)i64_min(text.size, 60), text.data, v->slot[slot] - 1, (long long)id);
    if (vocab_reach(v, id, e)) return -1;
    i64 at = v->pool.size;
    if (text_add(&v->pool, text.data, text.size, e)) return -1;
    v->token[id] = (struct vocab_token){at, (i32)text.size, v->adding};
    v->slot[slot] = (u32)id + 1;
    v->longest = i64_max(v->longest, text.size);
    v->used++;
    return 0;
}

void vocab_free(struct vocab *v) {
    text_free(&v->pool);
    mem_free(v->token);
    mem_free(v->slot);
    *v = (struct vocab){0};
}

bool fallback_bytes(const struct tokenizer *t, struct bytes text) {
    for (i64 i = 0; i < text.size; i++)
        if (t->fallback_id[(u8)text.data[i]] < 0) return false;
    return t->byte_fallback;
}
