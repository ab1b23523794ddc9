/* pretokenize.c: runs the pre-tokenizer's stages over one piece of text. Each stage hands the
 * pieces it makes straight to the next, and the last to the model, so no list of words ever exists.
 * A stage sees the text its predecessor left, mapped bytes included (Falcon counts digits after
 * ByteLevel, and so must we). */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

/* The next stage, on the text that this one made. */
static int run_made(struct work *w, i64 stage, bool first, struct err *e) {
    const struct bytes made = {w->stage[stage].data, w->stage[stage].size};
    const struct place before = w->place;
    w->place = (struct place){made.data, w->align[ALIGN_STAGE + stage].item};
    int rc = pretokenize(w, stage + 1, made, first, e);
    w->place = before;
    return rc;
}

static int run_bytes(struct work *w, i64 stage, struct bytes text, bool first, struct err *e) {
    struct text *to = &w->stage[stage];
    to->size = 0;
    if (bytes_show(to, text.data, text.size, e) ||
        (w->offsets && offsets_shown(w, text, &w->align[ALIGN_STAGE + stage], e)))
        return -1;
    return run_made(w, stage, first, e);
}

static int run_prefix(struct work *w, i64 stage, struct bytes text, bool first, struct err *e) {
    const struct stage *s = &w->t->stage[stage];
    struct text *to = &w->stage[stage];
    to->size = 0;
    bool has =
        text.size >= s->prefix.size && !memcmp(text.data, s->prefix.data, (size_t)s->prefix.size);
    if (s->spaces && text.data[0] == ' ') has = true;
    if (!has && (s->when == PREFIX_ALWAYS || (s->when == PREFIX_FIRST && first)) &&
        text_add(to, s->prefix.data, s->prefix.size, e))
        return -1;
    const i64 lead = to->size;
    static const struct pattern space = {.literal = {" ", 1}};
    if (s->spaces ? text_replace(&space, s->prefix, text, to, &w->scratch, e)
                  : text_add(to, text.data, text.size, e))
        return -1;
    if (w->offsets && offsets_replaced(w, s->spaces ? &space : NULL, s->prefix.size, lead, text,
                                       &w->align[ALIGN_STAGE + stage], e))
        return -1;
    return run_made(w, stage, first, e);
}

/* The pieces of a Split: gaps and matches in turn, joined as the behaviour says. One piece waits in
 * `begin`..`end` because the next may join it. */
struct splitter {
    struct work *w;
    const struct stage *s;
    i64 stage;
    struct bytes text;
    bool first, waiting, waiting_match;
    i64 begin, end;
};

static int split_flush(struct splitter *p, struct err *e) {
    if (!p->waiting) return 0;
    p->waiting = false;
    struct bytes piece = {p->text.data + p->begin, p->end - p->begin};
    return pretokenize(p->w, p->stage + 1, piece, p->first && !p->begin, e);
}

static int split_piece(struct splitter *p, i64 begin, i64 end, bool match, struct err *e) {
    bool join = false;
    switch (p->s->behaviour) {
    case SPLIT_REMOVED:
        if (match) return 0;
        break;
    case SPLIT_ISOLATED: break;
    case SPLIT_MERGED_WITH_PREVIOUS: join = match && !p->waiting_match; break;
    case SPLIT_MERGED_WITH_NEXT: join = p->waiting_match && !match; break;
    case SPLIT_CONTIGUOUS: join = match == p->waiting_match; break;
    }
    bool joined = join && p->waiting;
    if (!joined && split_flush(p, e)) return -1;
    if (!joined) p->begin = begin;
    p->end = end;
    p->waiting = true;
    p->waiting_match = match;
    return 0;
}

static int run_split(struct work *w, i64 stage, struct bytes text, bool first, struct err *e) {
    const struct stage *s = &w->t->stage[stage];
    struct splitter p = {.w = w, .s = s, .stage = stage, .text = text, .first = first};
    struct search search = {.text = text.data, .size = text.size, .scratch = &w->scratch};
    i64 from = 0, begin, end;
    int found;
    while ((found = pattern_next(&s->pattern, &search, &begin, &end, e)) > 0) {
        if (from != begin && split_piece(&p, from, begin, s->invert, e)) return -1;
        if (split_piece(&p, begin, end, !s->invert, e)) return -1;
        from = end;
    }
    if (found) return -1;
    if (from != text.size && split_piece(&p, from, text.size, s->invert, e)) return -1;
    return split_flush(&p, e);
}

/* Scanners give every word, and are used only where words are not joined: straight to the next
 * stage. */
static int run_scan(struct work *w, i64 stage, struct bytes text, bool first, struct err *e) {
    scan_fn *scan = w->t->stage[stage].pattern.scan;
    for (i64 at = 0, end; at < text.size; at = end) {
        end = scan(text.data, text.size, at);
        if (pretokenize(w, stage + 1, (struct bytes){text.data + at, end - at}, first && !at, e))
            return -1;
    }
    return 0;
}

int pretokenize(struct work *w, i64 stage, struct bytes text, bool first, struct err *e) {
    if (!text.size) return 0;
    if (stage == w->t->stages)
        return w->offsets ? word_encode_offsets(w, text, e) : word_encode(w, text, e);
    const struct stage *s = &w->t->stage[stage];
    if (s->kind == STAGE_BYTES) return run_bytes(w, stage, text, first, e);
    if (s->kind == STAGE_PREFIX) return run_prefix(w, stage, text, first, e);
    return (s->pattern.scan ? run_scan : run_split)(w, stage, text, first, e);
}
