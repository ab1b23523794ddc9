/* encoder.c: a tokenizer as what makes ids of texts, and what it puts around them. */
#include "data/datasets/datasets_int.h"
#include <string.h>

static int tokenizer_adapter(const void *t, const char *text, i64 size, struct ids *out,
                             struct err *e) {
    return tokenizer_encode(t, text, size, false, out, e);
}

static i64 token_adapter(const void *t, const char *name) { return tokenizer_id(t, name); }
static bool special_adapter(const void *t, u32 id) { return tokenizer_special(t, id); }

/* What stands around the ids of a text when special tokens are asked for. */
static void around_find(struct encoder *c, const struct tokenizer *t) {
    struct ids plain = {0}, whole = {0};
    struct err e = {0};
    if (!tokenizer_encode(t, "a", 1, false, &plain, &e) &&
        !tokenizer_encode(t, "a", 1, true, &whole, &e) && plain.count) {
        i64 at = 0;
        while (at + plain.count <= whole.count &&
               memcmp(whole.item + at, plain.item, (size_t)plain.count * sizeof *plain.item))
            at++;
        const i64 rest = whole.count - at - plain.count;
        if (rest >= 0 && rest <= ENCODER_AROUND && at <= ENCODER_AROUND) {
            memcpy(c->before, whole.item, (size_t)at * sizeof *c->before);
            memcpy(c->after, whole.item + at + plain.count, (size_t)rest * sizeof *c->after);
            c->before_count = (int)at, c->after_count = (int)rest;
        }
    }
    ids_free(&plain), ids_free(&whole);
}

struct encoder encoder_of(const struct tokenizer *t) {
    struct encoder c = {.arg = t,
                        .encode = tokenizer_adapter,
                        .vocab_size = tokenizer_size(t),
                        .bos = tokenizer_bos(t),
                        .eos = tokenizer_eos(t),
                        .sha256 = tokenizer_sha256(t),
                        .prefixes = tokenizer_prefixes,
                        .token = token_adapter,
                        .special = special_adapter};
    around_find(&c, t);
    return c;
}
