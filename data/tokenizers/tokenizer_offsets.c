/* tokenizer_offsets.c: which bytes of the input each token comes from.
 *
 * Beside each text that encoding makes of the input (repaired, normalised, with prefixes) stands a
 * span of the input for each of its bytes: at least the whole character. A token's span goes from
 * the first of its first byte to the last of its last one, as in Hugging Face's library. What a
 * normalizer turns into what is found by normalising ever longer pieces until one gives what comes
 * next: it then holds for every normalizer, and costs nothing where no offsets are asked for. What
 * several characters became together, and what was put before one, has the span of all of them.
 *
 * The same for models: which part of a word a token stands for is read off the token's text, so
 * that the cache and the four algorithms know nothing of offsets. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

/* `size` bytes come from [begin, end) of the text whose spans are `from`. */
static int carry(struct spans *to, const struct span *from, i64 begin, i64 end, i64 size,
                 struct err *e) {
    for (i64 i = 0; i < size; i++)
        if (spans_push(to, from[begin].begin, from[end - 1].end, e)) return -1;
    return 0;
}

static int carry_same(struct spans *to, const struct span *from, i64 begin, i64 end,
                      struct err *e) {
    int rc = 0;
    for (i64 i = begin; !rc && i < end; i++) rc = carry(to, from, i, i + 1, 1, e);
    return rc;
}

int offsets_start(struct work *w, struct bytes raw, struct bytes text, struct err *e) {
    struct spans *to = &w->align[ALIGN_CLEAN];
    to->count = 0;
    for (i64 at = 0, n; at < raw.size; at += n) {
        bool ok;
        n = utf8_subpart((const u8 *)raw.data + at, raw.size - at, &ok);
        for (i64 i = 0; i < (ok ? n : 3); i++)
            if (spans_push(to, at, at + n, e)) return -1;
    }
    w->place = (struct place){text.data, to->item};
    return 0;
}

int offsets_add(struct work *w, struct bytes token, struct err *e) {
    const struct span *from = w->place.from + (token.data - w->place.text);
    return spans_push(w->offsets, from[0].begin, from[token.size - 1].end, e);
}

int offsets_replaced(struct work *w, const struct pattern *p, i64 with, i64 lead, struct bytes in,
                     struct spans *to, struct err *e) {
    const struct span *from = w->place.from + (in.data - w->place.text);
    struct search s = {.text = in.data, .size = in.size, .scratch = &w->scratch};
    i64 at = 0, begin, end;
    int found = 0;
    to->count = 0;
    if (carry(to, from, 0, 1, lead, e)) return -1;
    for (; p && (found = pattern_next(p, &s, &begin, &end, e)) > 0; at = end) {
        const i64 first = begin < end || begin < in.size ? begin : begin - 1;
        if (carry_same(to, from, at, begin, e) ||
            carry(to, from, first, i64_max(end, first + 1), with, e))
            return -1;
    }
    return found ? -1 : carry_same(to, from, at, in.size, e);
}

int offsets_shown(struct work *w, struct bytes in, struct spans *to, struct err *e) {
    const struct span *from = w->place.from + (in.data - w->place.text);
    int rc = 0;
    to->count = 0;
    for (i64 i = 0; !rc && i < in.size; i++)
        rc = carry(to, from, i, i + 1, byte_to_code((u8)in.data[i]) < 128 ? 1 : 2, e);
    return rc;
}

/* ---- normalizers ----------------------------------------------------------------------------- */

static bool is_blank(struct bytes b) {
    return (b.size == 1 && *b.data == ' ') || (b.size == 3 && !memcmp(b.data, "\xe2\x96\x81", 3));
}

/* Whether [done, ...) of `out` begins with what n makes of `unit`. */
static int unit_fits(struct work *w, const struct norm *n, struct bytes unit, struct bytes out,
                     i64 done, struct text buffer[2], struct bytes *got, bool *fits,
                     struct err *e) {
    bool starts = false;
    if (normalize(n, 1, unit, buffer, &w->scratch, got, &starts, e)) return -1;
    *fits = !got->size || (got->size <= out.size - done &&
                           !memcmp(out.data + done, got->data, (size_t)got->size));
    return 0;
}

/* `lead`: bytes of `out` that stand before anything n makes of `in`; `squeeze`: it may have left
 * out any space. */
static int align_units(struct work *w, const struct norm *n, struct bytes in, struct bytes out,
                       i64 lead, bool squeeze, struct spans *to, struct err *e) {
    const struct span *from = w->place.from + (in.data - w->place.text);
    struct text buffer[2] = {0};
    i64 done = lead;
    to->count = 0;
    int rc = carry(to, from, 0, 1, lead, e);
    for (i64 at = 0, end = 0; !rc && at < in.size; at = end) {
        struct bytes got, unit;
        bool fits = false;
        while (!rc && !fits && end < in.size) { /* longer by a share each time: not quadratic */
            for (i64 k = 0; k <= (end - at) / 8 && end < in.size; k++) code_at(in.data, &end);
            unit = (struct bytes){in.data + at, end - at};
            rc = unit_fits(w, n, unit, out, done, buffer, &got, &fits, e);
            if (!rc && !fits && squeeze && is_blank(got)) fits = true, got.size = 0;
        }
        if (rc) break;
        if (!fits) got = (struct bytes){out.data + done, out.size - done};
        rc = got.size == unit.size && !memcmp(got.data, unit.data, (size_t)unit.size)
                 ? carry_same(to, from, at, end, e)
                 : carry(to, from, at, end, got.size, e);
        done += got.size;
        if (end == in.size) rc = rc || carry(to, from, at, end, out.size - done, e);
    }
    text_free(&buffer[0]), text_free(&buffer[1]);
    return rc ? -1 : 0;
}

/* As normalize, one at a time; w->place follows. */
int normalize_offsets(struct work *w, struct bytes *text, bool *starts, struct err *e) {
    for (i64 i = 0, used = 0; i < w->t->norms && text->size; i++) {
        struct norm n = w->t->norm[i];
        const struct bytes in = *text;
        const bool started = *starts;
        struct spans *to = &w->align[ALIGN_NORM + used];
        if (normalize(&n, 1, in, &w->norm[used], &w->scratch, text, starts, e)) return -1;
        if (n.kind == NORM_STRIP || text->data == in.data) continue; /* a part of what it was */
        int rc = 0;
        if (n.kind == NORM_PREPEND) {
            rc = offsets_replaced(w, NULL, 0, n.content.size, in, to, e);
        } else if (n.kind == NORM_REPLACE) {
            rc = offsets_replaced(w, &n.pattern, n.content.size, 0, in, to, e);
        } else {
            const bool lead = n.kind == NORM_SENTENCEPIECE && n.prefix && !n.suffix &&
                              (started || !n.once) && text->size;
            const bool squeeze = n.kind == NORM_SENTENCEPIECE && n.squeeze;
            if (n.kind == NORM_SENTENCEPIECE) n.prefix = n.squeeze = false;
            rc = align_units(w, &n, in, *text, !lead ? 0 : n.escape ? 3 : 1, squeeze, to, e);
        }
        if (rc) return -1;
        w->place = (struct place){text->data, to->item};
        used = !used;
    }
    return 0;
}

/* ---- words ----------------------------------------------------------------------------------- */

/* What the token stands for in a word, at its start or not. */
static struct bytes token_text(const struct tokenizer *t, u32 id, bool inside, i64 left) {
    const struct bytes lead = t->model == wordpiece_word ? t->wordpiece.prefix : t->bpe.prefix,
                       tail = t->bpe.suffix;
    struct bytes b = {"", 0};
    vocab_text(&t->vocab, id, &b);
    if (inside && lead.size && b.size > lead.size && !memcmp(b.data, lead.data, (size_t)lead.size))
        b = (struct bytes){b.data + lead.size, b.size - lead.size};
    if (tail.size && b.size > tail.size && b.size - tail.size <= left &&
        !memcmp(b.data + b.size - tail.size, tail.data, (size_t)tail.size))
        b.size -= tail.size;
    return b;
}

/* Bytes of `word` from `at` on that the token stands for, or -1: it cannot stand there. */
static i64 token_takes(const struct tokenizer *t, u32 id, struct bytes word, i64 at) {
    const struct bytes rest = {word.data + at, word.size - at};
    if (!rest.size) return -1;
    struct bytes b = token_text(t, id, at, rest.size);
    if (t->bpe.bytes) {
        i64 n = 0;
        for (i64 k = 0; k < b.size; n++) code_at(b.data, &k);
        return n <= rest.size ? n : -1;
    }
    if (b.size && b.size <= rest.size && !memcmp(b.data, rest.data, (size_t)b.size)) return b.size;
    return t->byte_fallback && t->fallback_id[(u8)*rest.data] == (i64)id ? 1 : -1;
}

/* From where to where it stands if characters between its own, which no token has, were dropped. */
static void token_scattered(const struct tokenizer *t, u32 id, struct bytes word, i64 *from,
                            i64 *to) {
    const struct bytes b = token_text(t, id, *to, word.size - *to);
    i64 at = *to, k = 0;
    for (*from = -1; at < word.size && k < b.size;) {
        const i64 begin = at;
        i64 next = k;
        if (code_at(word.data, &at) != code_at(b.data, &next)) continue;
        if (*from < 0) *from = begin;
        *to = at, k = next;
    }
    if (*from < 0) *from = i64_min(*to, word.size - 1), *to = word.size;
}

/* A token that is not in the text is the unknown one: it takes all up to where the next one stands,
 * or a character where that is unknown, too. */
int word_encode_offsets(struct work *w, struct bytes word, struct err *e) {
    const struct tokenizer *t = w->t;
    i64 i = w->out->count, to = 0;
    if (word_encode(w, word, e)) return -1;
    for (; i < w->out->count; i++) {
        const u32 id = w->out->item[i];
        const bool last = i + 1 == w->out->count;
        const u32 next = last ? 0 : w->out->item[i + 1];
        i64 from = to, size = token_takes(t, id, word, to);
        if (size >= 0) {
            to += size;
        } else if (to < word.size && id == (u64)t->unk_id) {
            for (code_at(word.data, &to); to < word.size; code_at(word.data, &to))
                if (!last && (next == id || token_takes(t, next, word, to) >= 0)) break;
        } else {
            token_scattered(t, id, word, &from, &to);
        }
        if (offsets_add(w, (struct bytes){word.data + from, to - from}, e)) return -1;
    }
    return 0;
}
