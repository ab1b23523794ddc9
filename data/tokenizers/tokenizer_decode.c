/* tokenizer_decode.c: the decoders of a tokenizer.json: each turns a list of token texts into
 * another; the last list is joined. Without a decoder tokens are joined by spaces, as Hugging Face
 * does. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

struct tokens {
    struct text text;
    struct text ends; /* i64 offsets, as bytes */
};

static int tokens_end(struct tokens *t, struct err *e) {
    return text_add(&t->ends, &t->text.size, sizeof(i64), e);
}
static i64 tokens_count(const struct tokens *t) { return t->ends.size / (i64)sizeof(i64); }
static struct bytes token_at(const struct tokens *t, i64 i) {
    const i64 *end = (const i64 *)(const void *)t->ends.data;
    i64 begin = i ? end[i - 1] : 0;
    return (struct bytes){t->text.data ? t->text.data + begin : "", end[i] - begin};
}
static void tokens_clear(struct tokens *t) { t->text.size = t->ends.size = 0; }
static void tokens_free(struct tokens *t) {
    text_free(&t->text);
    text_free(&t->ends);
}

/* A token that is not wholly in the byte alphabet stands for itself. */
static int add_mapped(struct text *out, struct bytes token, struct err *e) {
    i64 start = out->size;
    for (i64 at = 0; at < token.size;) {
        int byte = byte_of_code(code_at(token.data, &at));
        if (byte < 0) {
            out->size = start;
            return text_add(out, token.data, token.size, e);
        }
        if (text_add(out, &(char){(char)byte}, 1, e)) return -1;
    }
    return 0;
}

static int decode_bytes(const struct tokens *in, struct tokens *out, struct err *e) {
    struct text raw = {0};
    int rc = 0;
    for (i64 i = 0; !rc && i < tokens_count(in); i++) rc = add_mapped(&raw, token_at(in, i), e);
    if (!rc)
        rc = utf8_repair(&out->text, (struct bytes){raw.data, raw.size}, e) || tokens_end(out, e);
    text_free(&raw);
    return rc ? -1 : 0;
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static int byte_piece(struct bytes t) { /* <0xNN> */
    if (t.size != 6 || memcmp(t.data, "<0x", 3) || t.data[5] != '>') return -1;
    int high = hex(t.data[3]), low = hex(t.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte pieces is text if it is valid UTF-8, else one U+FFFD per byte. */
static int fallback_flush(struct text *run, struct tokens *out, struct err *e) {
    if (!run->size) return 0;
    if (utf8_bad(run->data, run->size) < 0) {
        if (text_add(&out->text, run->data, run->size, e) || tokens_end(out, e)) return -1;
    } else
        for (i64 i = 0; i < run->size; i++)
            if (text_add(&out->text, "\xef\xbf\xbd", 3, e) || tokens_end(out, e)) return -1;
    run->size = 0;
    return 0;
}

static int decode_fallback(const struct tokens *in, struct tokens *out, struct err *e) {
    struct text run = {0};
    int rc = 0;
    for (i64 i = 0; !rc && i < tokens_count(in); i++) {
        struct bytes t = token_at(in, i);
        int byte = byte_piece(t);
        if (byte >= 0)
            rc = text_add(&run, &(char){(char)byte}, 1, e);
        else
            rc = fallback_flush(&run, out, e) || text_add(&out->text, t.data, t.size, e) ||
                 tokens_end(out, e);
    }
    if (!rc) rc = fallback_flush(&run, out, e);
    text_free(&run);
    return rc ? -1 : 0;
}

static bool starts_with(struct bytes t, struct bytes with) {
    return t.size >= with.size && !memcmp(t.data, with.data, (size_t)with.size);
}

/* What BERT's clean-up takes out of each token, in this order. */
static int tidy(struct text *out, i64 from, struct err *e) {
    static const char *const rule[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    void *scratch = NULL;
    for (int i = 0; i < COUNT(rule); i++) {
        struct pattern p = {.literal = {rule[i][0], (i64)strlen(rule[i][0])}};
        struct bytes in = {out->data + from, out->size - from},
                     with = {rule[i][1], (i64)strlen(rule[i][1])};
        if (!memmem(in.data, (size_t)in.size, p.literal.data, (size_t)p.literal.size)) continue;
        struct text next = {0};
        int rc = text_replace(&p, with, in, &next, &scratch, e);
        out->size = from;
        rc = rc || text_add(out, next.data, next.size, e);
        text_free(&next);
        if (rc) return -1;
    }
    return 0;
}

static int decode_wordpiece(const struct decoder *d, struct bytes t, bool first, struct text *out,
                            struct err *e) {
    i64 from = out->size;
    bool joined = starts_with(t, d->content);
    if (!first && joined) t = (struct bytes){t.data + d->content.size, t.size - d->content.size};
    if ((!first && !joined && text_add(out, " ", 1, e)) || text_add(out, t.data, t.size, e))
        return -1;
    return d->cleanup && out->size > from ? tidy(out, from, e) : 0;
}

static int decode_token(const struct decoder *d, struct bytes t, bool first, bool last,
                        struct text *out, void **scratch, struct err *e) {
    if (d->kind == DECODE_REPLACE) return text_replace(&d->pattern, d->content, t, out, scratch, e);
    if (d->kind == DECODE_METASPACE) {
        struct pattern mark = {.literal = d->content};
        return text_replace(&mark, (struct bytes){" ", first && d->start ? 0 : 1}, t, out, scratch,
                            e);
    }
    if (d->kind == DECODE_WORDPIECE) return decode_wordpiece(d, t, first, out, e);
    if (d->kind == DECODE_BPE) {
        struct pattern end = {.literal = d->content};
        return text_replace(&end, (struct bytes){" ", last ? 0 : 1}, t, out, scratch, e);
    }
    struct bytes c = d->content;
    for (i64 i = 0; i < d->start && starts_with(t, c); i++)
        t = (struct bytes){t.data + c.size, t.size - c.size};
    for (i64 i = 0; i < d->stop && t.size >= c.size; i++, t.size -= c.size)
        if (memcmp(t.data + t.size - c.size, c.data, (size_t)c.size)) break;
    return text_add(out, t.data, t.size, e);
}

static int decode_step(const struct decoder *d, const struct tokens *in, struct tokens *out,
                       void **scratch, struct err *e) {
    if (d->kind == DECODE_BYTES) return decode_bytes(in, out, e);
    if (d->kind == DECODE_FALLBACK) return decode_fallback(in, out, e);
    if (d->kind == DECODE_FUSE)
        return text_add(&out->text, in->text.data, in->text.size, e) || tokens_end(out, e);
    for (i64 i = 0; i < tokens_count(in); i++)
        if (decode_token(d, token_at(in, i), !i, i + 1 == tokens_count(in), &out->text, scratch,
                         e) ||
            tokens_end(out, e))
            return -1;
    return 0;
}

static int tokens_look_up(const struct tokenizer *t, const u32 *ids, i64 count, bool skip,
                          struct tokens *out, struct err *e) {
    for (i64 i = 0; i < count; i++) {
        struct bytes token;
        if (!vocab_text(&t->vocab, ids[i], &token)) {
            err_input(e, "%s: no token has id %u (number %lld of the sequence)", t->path, ids[i],
                      (long long)i);
            return err_detail(e, "the largest id is %lld", (long long)t->vocab.count - 1);
        }
        if (skip && t->special[ids[i]]) continue;
        if (!t->decodes && out->ends.size && text_add(&out->text, " ", 1, e)) return -1;
        if (text_add(&out->text, token.data, token.size, e) || tokens_end(out, e)) return -1;
    }
    return 0;
}

int tokenizer_decode(const struct tokenizer *t, const u32 *ids, i64 count, bool skip_special_tokens,
                     struct text *out, struct err *e) {
    struct tokens list[2] = {0};
    void *scratch = NULL;
    int rc = tokens_look_up(t, ids, count, skip_special_tokens, &list[0], e), from = 0;
    for (i64 i = 0; !rc && i < t->decoders; i++, from = !from) {
        tokens_clear(&list[!from]);
        rc = decode_step(&t->decoder[i], &list[from], &list[!from], &scratch, e);
    }
    if (!rc) rc = text_add(out, list[from].text.data, list[from].text.size, e);
    tokens_free(&list[0]);
    tokens_free(&list[1]);
    scratch_free(scratch);
    return rc ? -1 : 0;
}
