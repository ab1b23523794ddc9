/* tokenizer_added.c: finding added tokens in text, leftmost and longest, as Hugging Face does with
 * Aho-Corasick. A bitmap of first byte pairs rejects nearly every position; what is left compares
 * whole tokens. */
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

static int added_order(const void *a, const void *b) {
    const struct added_token *x = a, *y = b;
    u8 cx = (u8)x->content.data[0], cy = (u8)y->content.data[0];
    if (cx != cy) return cx < cy ? -1 : 1;
    if (x->content.size != y->content.size) return x->content.size > y->content.size ? -1 : 1;
    if (x->special != y->special) return x->special ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

void added_sort(struct added_set *s) {
    if (s->count) qsort(s->token, (size_t)s->count, sizeof *s->token, added_order);
    for (i64 i = 0; i < s->count; i++) {
        const u8 *c = (const u8 *)s->token[i].content.data;
        s->first[c[0] + 1]++;
        bool one = s->token[i].content.size == 1;
        for (int k = one ? 0 : c[1]; k <= (one ? 255 : c[1]); k++)
            s->pair[c[0] * 32 + k / 8] |= (u8)(1 << k % 8);
    }
    for (int i = 0; i < 256; i++) s->first[i + 1] += s->first[i];
}

const struct added_token *added_at(const struct added_set *s, const char *text, i64 left) {
    u8 c = (u8)text[0], second = left > 1 ? (u8)text[1] : 0;
    if (!(s->pair[c * 32 + second / 8] >> second % 8 & 1)) return NULL;
    for (i64 i = s->first[c]; i < s->first[c + 1]; i++) {
        struct bytes b = s->token[i].content;
        if (b.size <= left && !memcmp(b.data, text, (size_t)b.size)) return &s->token[i];
    }
    return NULL;
}

static i64 code_before(const char *text, i64 *at) {
    do --*at;
    while (*at && ((u8)text[*at] & 0xc0) == 0x80);
    i64 i = *at;
    return code_at(text, &i);
}

static bool is_space(i64 code) { return class_of_code[code] & CLASS_WHITE; }

static bool stands_alone(struct bytes text, i64 begin, i64 end) {
    if (begin && class_of_code[code_before(text.data, &(i64){begin})] & CLASS_WORD) return false;
    return end == text.size || !(class_of_code[code_at(text.data, &(i64){end})] & CLASS_WORD);
}

bool added_next(const struct added_set *s, struct bytes text, i64 done, i64 *at,
                struct added_match *m) {
    const struct added_token *t = NULL;
    i64 i = *at;
    if (!s->count) return false;
    for (; i < text.size; i++) {
        if (!(t = added_at(s, text.data + i, text.size - i))) continue;
        i64 end = i + t->content.size;
        if (!t->single_word || stands_alone(text, i, end)) break;
        i = end - 1; /* a rejected match is still consumed */
        t = NULL;
    }
    if (!t || i >= text.size) return false;
    *m = (struct added_match){i, i + t->content.size, t->id};
    *at = m->end;
    for (i64 k = m->begin; t->lstrip && k > done; m->begin = k)
        if (!is_space(code_before(text.data, &k))) break;
    if (t->lstrip) m->begin = i64_max(m->begin, done);
    for (i64 k = m->end; t->rstrip && k < text.size; m->end = k)
        if (!is_space(code_at(text.data, &k))) break;
    return true;
}
