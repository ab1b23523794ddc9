/* thought.c: where an answer's thought ends and what it says begins, by the <think> tags that
 * templates of reasoning models use. Of a text that is not whole yet, parts are given out of which
 * nothing will change: what may become a tag, and newlines before one, wait. The newlines around
 * tags are no part of either, as templates strip them when the conversation goes on. */
#include "train/serve/serve_int.h"

#include <string.h>

static const char opens[] = "<think>", closes[] = "</think>";
enum { OPENS = sizeof opens - 1, CLOSES = sizeof closes - 1 };

/* The bytes at the end of text[0..size) that a tag may begin with. */
static i64 held(const char *text, i64 size, const char *tag, i64 length) {
    for (i64 n = i64_min(length - 1, size); n > 0; n--)
        if (!memcmp(text + size - n, tag, (size_t)n)) return n;
    return 0;
}

struct thought thought_of(const char *text, i64 size, bool inside, bool whole) {
    struct thought t = {0};
    if (!inside) {
        i64 at = 0;
        while (at < size && strchr(" \t\r\n", text[at])) at++;
        const i64 n = i64_min(size - at, OPENS);
        if (memcmp(text + at, opens, (size_t)n) || (n < OPENS && whole))
            return (struct thought){.said_end = size};
        if (n < OPENS) return t;
        t.begin = at + OPENS;
    }
    while (t.begin < size && text[t.begin] == '\n') t.begin++;
    const char *close =
        size > t.begin ? memmem(text + t.begin, (size_t)(size - t.begin), closes, CLOSES) : NULL;
    t.end = close ? close - text : size;
    if (!close && !whole) t.end -= held(text + t.begin, size - t.begin, closes, CLOSES);
    while ((close || !whole) && t.end > t.begin && text[t.end - 1] == '\n') t.end--;
    t.said_begin = close ? close - text + CLOSES : size;
    while (close && t.said_begin < size && text[t.said_begin] == '\n') t.said_begin++;
    t.said_end = size;
    return t;
}

bool thought_open(const char *prompt, i64 size) {
    while (size > 0 && strchr(" \t\r\n", prompt[size - 1])) size--;
    return size >= OPENS && !memcmp(prompt + size - OPENS, opens, OPENS);
}
