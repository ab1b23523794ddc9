/* logprobs.c: probabilities in the forms of chat and of completions. An id's text is what it adds
 * to the text of those before it, so that the texts of all ids make the whole; a special token,
 * which is no text, has its name. A probability of zero is -9999, as JSON has no infinity. */
#include "train/serve/serve_int.h"

#include <string.h>

enum { BEFORE = 16 }; /* ids in front of one, enough for what decoders look back at */

struct pieces {
    const struct tokenizer *t;
    struct ids before; /* and, at its end, the id */
    struct text head;
    struct err *e;
};

static int pieces_begin(struct pieces *p, const struct teller *t, i64 at) {
    const struct ids *prompt = &t->prompt->ids;
    p->before.count = p->head.size = 0;
    for (i64 i = i64_max(0, at - BEFORE); i < at; i++) {
        const u32 id = i < prompt->count ? prompt->item[i] : t->ids.item[i - prompt->count];
        if (tokenizer_has(p->t, id) && ids_add(&p->before, id, p->e)) return -1;
    }
    return tokenizer_decode(p->t, p->before.item, p->before.count, true, &p->head, p->e);
}

static int piece_of(struct pieces *p, u32 id, struct text *out) {
    out->size = 0;
    if (!tokenizer_has(p->t, id)) return text_printf(out, p->e, "<%u>", id);
    if (tokenizer_special(p->t, id)) return tokenizer_decode(p->t, &id, 1, false, out, p->e);
    if (ids_add(&p->before, id, p->e) ||
        tokenizer_decode(p->t, p->before.item, p->before.count, true, out, p->e))
        return -1;
    p->before.count--;
    const i64 head = p->head.size;
    if (out->size >= head &&
        !memcmp(out->data ? out->data : "", p->head.data ? p->head.data : "", (size_t)head)) {
        if (head) memmove(out->data, out->data + head, (size_t)(out->size - head + 1));
        out->size -= head;
        return out->data ? 0 : text_add(out, "", 0, p->e);
    }
    out->size = 0;
    return tokenizer_decode(p->t, &id, 1, false, out, p->e);
}

static int value_add(struct text *out, double x, struct err *e) {
    if (x != x) return text_printf(out, e, "null");
    return x < -9999 ? text_printf(out, e, "-9999.0") : text_f64(out, x, e);
}

static int quoted(struct text *out, const struct text *t, struct err *e) {
    return json_text_add(out, t->data ? t->data : "", t->size, e);
}

/* {"token", "logprob", "bytes"}, without the closing brace. */
static int entry_add(struct text *out, const struct text *piece, double x, struct err *e) {
    int rc = text_printf(out, e, "{\"token\": ") || quoted(out, piece, e) ||
             text_printf(out, e, ", \"logprob\": ") || value_add(out, x, e);
    const bool broken = piece->size && memmem(piece->data, (size_t)piece->size, "\xef\xbf\xbd", 3);
    rc = rc || text_printf(out, e, broken ? ", \"bytes\": null" : ", \"bytes\": [");
    for (i64 i = 0; !rc && !broken && i < piece->size; i++)
        rc = text_printf(out, e, "%s%u", i ? ", " : "", (unsigned)(u8)piece->data[i]);
    return rc || (!broken && text_printf(out, e, "]"));
}

/* The score of the id at a place of the whole text; false: the first has none. */
static bool score_at(struct answer *a, const struct teller *t, i64 at, struct score *s) {
    const struct part *p = t->part;
    const i64 i = p->echoed ? at - 1 : at - t->prompt->ids.count;
    pthread_mutex_lock(&a->w->lock);
    const bool is = i >= 0 && i < p->scores.count;
    if (is) scores_get(&p->scores, i, s);
    pthread_mutex_unlock(&a->w->lock);
    return is;
}

static u32 id_at(const struct teller *t, i64 at) {
    const struct ids *prompt = &t->prompt->ids;
    return at < prompt->count ? prompt->item[at] : t->ids.item[at - prompt->count];
}

static int chat_add(struct answer *a, struct teller *t, struct pieces *p, i64 from, i64 to,
                    struct text *out) {
    struct text piece = {0};
    struct score s = {0};
    int rc = text_printf(out, p->e, "{\"content\": [");
    for (i64 at = from; !rc && at < to; at++) {
        if (!score_at(a, t, at, &s)) s.own = 0, s.top = 0;
        rc = (at > from && text_printf(out, p->e, ", ")) || pieces_begin(p, t, at) ||
             piece_of(p, id_at(t, at), &piece) || entry_add(out, &piece, s.own, p->e) ||
             text_printf(out, p->e, ", \"top_logprobs\": [");
        for (int k = 0; !rc && k < s.top; k++)
            rc = (k && text_printf(out, p->e, ", ")) || piece_of(p, s.id[k], &piece) ||
                 entry_add(out, &piece, s.value[k], p->e) || text_printf(out, p->e, "}");
        rc = rc || text_printf(out, p->e, "]}");
    }
    text_free(&piece);
    return rc || text_printf(out, p->e, "]}");
}

/* {"text": logprob}: the most likely, and the id itself. Texts that are alike are named once. */
static int tops_add(struct pieces *p, const struct score *s, u32 own, struct text *out) {
    struct text piece = {0};
    json_t *seen = json_object();
    int rc = text_printf(out, p->e, "{");
    for (int k = 0; !rc && k <= s->top; k++) {
        rc = piece_of(p, k < s->top ? s->id[k] : own, &piece);
        char *name = rc ? NULL : mem_printf(p->e, "%.*s", (int)piece.size, piece.data);
        if (!rc && !name) rc = -1;
        if (!rc && json_object_get(seen, name)) {
            mem_free(name);
            continue;
        }
        if (!rc) json_object_set_new_nocheck(seen, name, json_true());
        rc = rc || (k && json_object_size(seen) > 1 && text_printf(out, p->e, ", ")) ||
             quoted(out, &piece, p->e) || text_printf(out, p->e, ": ") ||
             value_add(out, k < s->top ? s->value[k] : s->own, p->e);
        mem_free(name);
    }
    json_decref(seen), text_free(&piece);
    return rc || text_printf(out, p->e, "}");
}

static i64 characters(const struct text *t) {
    i64 n = 0;
    for (i64 i = 0; i < t->size; i++) n += (t->data[i] & 0xc0) != 0x80;
    return n;
}

static int legacy_add(struct answer *a, struct teller *t, struct pieces *p, i64 from, i64 to,
                      struct text *out) {
    struct text tokens = {0}, values = {0}, tops = {0}, offsets = {0}, piece = {0};
    struct score s = {0};
    int rc = 0;
    for (i64 at = from; !rc && at < to; at++) {
        const char *comma = at > from ? ", " : "";
        const bool is = score_at(a, t, at, &s);
        rc = pieces_begin(p, t, at) || piece_of(p, id_at(t, at), &piece) ||
             text_printf(&tokens, p->e, "%s", comma) || quoted(&tokens, &piece, p->e) ||
             text_printf(&offsets, p->e, "%s%lld", comma, (long long)t->offset) ||
             text_printf(&values, p->e, "%s", comma) || text_printf(&tops, p->e, "%s", comma) ||
             (is ? value_add(&values, s.own, p->e) || tops_add(p, &s, id_at(t, at), &tops)
                 : text_printf(&values, p->e, "null") || text_printf(&tops, p->e, "null"));
        if (!tokenizer_special(p->t, id_at(t, at))) t->offset += characters(&piece);
    }
    rc = rc ||
         text_printf(out, p->e,
                     "{\"tokens\": [%s], \"token_logprobs\": [%s], \"text_offset\": [%s], "
                     "\"top_logprobs\": [",
                     tokens.data ? tokens.data : "", values.data ? values.data : "",
                     offsets.data ? offsets.data : "") ||
         text_add(out, tops.data ? tops.data : "", tops.size, p->e) || text_printf(out, p->e, "]}");
    text_free(&tokens), text_free(&values), text_free(&tops), text_free(&offsets);
    text_free(&piece);
    return rc;
}

int logprobs_add(struct answer *a, struct teller *t, i64 from, i64 to, struct text *out,
                 struct err *e) {
    struct pieces p = {.t = a->m->l->tokenizer, .e = e};
    const int rc = (a->q.chat ? chat_add : legacy_add)(a, t, &p, from, to, out);
    ids_free(&p.before), text_free(&p.head);
    return rc ? -1 : 0;
}
