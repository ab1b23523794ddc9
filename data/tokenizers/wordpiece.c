/* wordpiece.c: WordPiece (BERT): the longest piece that starts the word, then the longest that
 * continues it, and so on; a word with no such pieces, or of too many characters, is unknown as a
 * whole. And WordLevel: the word itself or unknown. */
#include "data/tokenizers/tokenizers_int.h"

static int add_unknown(struct work *w, struct bytes word, struct err *e) {
    if (w->t->unk_id >= 0) return ids_add(w->out, (u32)w->t->unk_id, e);
    return err_input(e, "%s: \"%.*s\" is not in the vocabulary, and unk_token is not either",
                     w->t->path, (int)i64_min(word.size, 60), word.data);
}

int wordlevel_word(struct work *w, struct bytes word, struct err *e) {
    i64 id = vocab_model(&w->t->vocab, word.data, word.size);
    return id >= 0 ? ids_add(w->out, (u32)id, e) : add_unknown(w, word, e);
}

/* The longest token that is `lead` and then the start of `rest`; *size: bytes of rest it takes. */
static int longest(struct work *w, struct bytes lead, struct bytes rest, i64 *id, i64 *size,
                   struct err *e) {
    const struct vocab *v = &w->t->vocab;
    w->shown.size = 0;
    *id = -1;
    *size = i64_min(rest.size, v->longest - lead.size);
    if (*size <= 0) return 0;
    if (text_add(&w->shown, lead.data, lead.size, e) || text_add(&w->shown, rest.data, *size, e))
        return -1;
    for (; *size && (*id = vocab_model(v, w->shown.data, lead.size + *size)) < 0;) do
            --*size;
        while (*size && ((u8)rest.data[*size] & 0xc0) == 0x80);
    return 0;
}

int wordpiece_word(struct work *w, struct bytes word, struct err *e) {
    i64 before = w->out->count, characters = 0, id, size;
    for (i64 i = 0; i < word.size; i++) characters += ((u8)word.data[i] & 0xc0) != 0x80;
    if (characters > w->t->wordpiece.longest) return add_unknown(w, word, e);
    for (i64 at = 0; at < word.size; at += size) {
        struct bytes lead = at ? w->t->wordpiece.prefix : (struct bytes){"", 0};
        if (longest(w, lead, (struct bytes){word.data + at, word.size - at}, &id, &size, e))
            return -1;
        if (id < 0) {
            w->out->count = before;
            return add_unknown(w, word, e);
        }
        if (ids_add(w->out, (u32)id, e)) return -1;
    }
    return 0;
}
