/* stream.c: text as its ids come, and where it ends. The whole answer is decoded again with each
 * id: what a decoder makes of an id can depend on those before it, and answers are short beside the
 * passes that make them. An id that no token has, of a vocabulary padded for speed, is no text, as
 * in transformers: a model that is hardly trained samples such ids. */
#include "train/engine/engine.h"

#include <string.h>

/* The bytes at the end that may be the start of a stop string. */
static i64 held(const struct stream *s) {
    i64 most = 0;
    for (i64 i = 0; s->stop && i < s->stop->count; i++) {
        const char *stop = s->stop->item[i];
        for (i64 n = i64_min((i64)strlen(stop) - 1, s->text.size); n > most; n--)
            if (!memcmp(s->text.data + s->text.size - n, stop, (size_t)n)) most = n;
    }
    return most;
}

static void stream_print(struct stream *s, i64 end) {
    if (s->to && end > s->printed)
        show_generated(s->to, s->text.data + s->printed, end - s->printed);
    s->printed = i64_max(s->printed, end);
    if (s->to) fflush(s->to);
}

/* Enough to begin in front of where the text does, few enough to decode again and again. */
enum { BEFORE = 16 };
int stream_begin(struct stream *s, const u32 *before, i64 count, struct err *e) {
    int rc = 0;
    for (i64 i = i64_max(0, count - BEFORE); !rc && i < count; i++)
        if (tokenizer_has(s->t, before[i])) rc = ids_add(&s->before, before[i], e);
    rc = rc || tokenizer_decode(s->t, s->before.item, s->before.count, true, &s->head, e);
    return rc ? -1 : 0;
}

/* The text of all ids, without that of those before. Where a decoder writes the latter otherwise
 * once something follows, the answer is decoded by itself. */
static int stream_decode(struct stream *s) {
    struct ids all = {0};
    struct text both = {0};
    int rc = 0;
    s->text.size = 0;
    for (i64 i = 0; !rc && s->head.size && i < s->before.count; i++)
        rc = ids_add(&all, s->before.item[i], s->e);
    for (i64 i = 0; !rc && s->head.size && i < s->ids.count; i++)
        rc = ids_add(&all, s->ids.item[i], s->e);
    rc = rc || tokenizer_decode(s->t, all.item, all.count, true, &both, s->e);
    const i64 head = s->head.size;
    if (!rc && head && both.size >= head && !memcmp(both.data, s->head.data, (size_t)head))
        rc = text_add(&s->text, both.data + head, both.size - head, s->e);
    else if (!rc)
        rc = tokenizer_decode(s->t, s->ids.item, s->ids.count, true, &s->text, s->e);
    ids_free(&all), text_free(&both);
    return rc ? -1 : 0;
}

int stream_token(void *arg, u32 id) {
    struct stream *s = arg;
    static const char unknown[] = "\xef\xbf\xbd";
    if ((tokenizer_has(s->t, id) && ids_add(&s->ids, id, s->e)) || stream_decode(s)) return -1;
    const char *first = NULL;
    for (i64 i = 0; s->stop && i < s->stop->count; i++) {
        const char *stop = s->stop->item[i];
        const char *hit =
            s->text.size ? memmem(s->text.data, (size_t)s->text.size, stop, strlen(stop)) : NULL;
        if (hit && *stop && (!first || hit < first)) first = hit;
    }
    if (first) {
        s->text.size = first - s->text.data, s->text.data[s->text.size] = 0, s->stopped = true;
        return stream_print(s, s->text.size), 1;
    }
    i64 end = s->text.size - held(s);
    while (end >= 3 && !memcmp(s->text.data + end - 3, unknown, 3)) end -= 3;
    stream_print(s, end);
    return s->to && ferror(s->to); /* nobody reads it any more: main says why */
}

void stream_end(struct stream *s) { stream_print(s, s->text.size); }

void stream_free(struct stream *s) {
    ids_free(&s->ids), text_free(&s->text), ids_free(&s->before), text_free(&s->head);
    s->printed = 0, s->stopped = false;
}
