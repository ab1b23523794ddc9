/* encoder.c: a tokenizer as what makes ids of texts, and what it puts around them. */
#include "data/datasets/datasets_int.h"
#include <string.h>

/* An encoder that knows no better: every beginning of the text from its start. */
int encoder_prefixes(const struct encoder *c, const char *text, const struct ids *all,
                     struct beginning *list, i64 count, struct err *e) {
    struct ids part = {0};
    int rc = 0;
    for (i64 i = 0; !rc && i < count; i++) {
        i64 n = 0;
        part.count = 0;
        rc = c->encode(c->arg, text, list[i].at, &part, e);
        while (n < part.count && n < all->count && part.item[n] == all->item[n]) n++;
        list[i].same = n, list[i].more = n < part.count;
    }
    ids_free(&part);
    return rc ? -1 : 0;
}

/* A built-in template on a tokenizer that lacks its markers trains on pieces of them. */
int markers_check(const struct encoder *c, const struct chat *chat, struct err *e) {
    const char *const *marker = chat_markers(chat);
    struct text missing = {0};
    struct ids ids = {0};
    int rc = 0;
    for (; !rc && marker && *marker && c->token; marker++) {
        const i64 id = c->token(c->arg, *marker);
        bool found = false;
        ids.count = 0;
        rc = c->encode(c->arg, *marker, (i64)strlen(*marker), &ids, e);
        for (i64 i = 0; i < ids.count; i++) found |= ids.item[i] == id;
        if (!rc && !found) rc = text_printf(&missing, e, "%s%s", missing.size ? ", " : "", *marker);
    }
    ids_free(&ids);
    if (!rc && missing.size) {
        rc = err_input(e, "the chat template's markers are no tokens of the tokenizer: %s",
                       missing.data);
        err_hint(e, "use the model's own template or chat_template: alpaca, which has no markers; "
                    "or give the tokenizer these tokens");
    }
    return text_free(&missing), rc ? -1 : 0;
}

bool encoder_ended(const struct encoder *c, const struct ids *ids, bool conversation) {
    const u32 last = ids->count ? ids->item[ids->count - 1] : 0;
    if (!ids->count) return false;
    return last == c->eos || (conversation && c->special && c->special(c->arg, last));
}

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
