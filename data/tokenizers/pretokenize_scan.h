/* pretokenize_scan.h: what the scanners share. All take valid UTF-8 and give byte offsets. */
#ifndef HONE_DATA_PRETOKENIZE_SCAN_H
#define HONE_DATA_PRETOKENIZE_SCAN_H

#include "data/tokenizers/tokenizers_int.h"

/* Class and bits of the character at `at`, or -1 at the end; *next: where the following one starts.
 */
static inline int bits_next(const char *text, i64 size, i64 at, i64 *next) {
    *next = at;
    if (at >= size) return -1;
    if ((u8)text[at] < 0x80) return class_of_code[(u8)text[(*next)++]];
    return class_of_code[code_at(text, next)];
}
static inline int class_next(const char *text, i64 size, i64 at, i64 *next) {
    int bits = bits_next(text, size, at, next);
    return bits < 0 ? -1 : bits & CLASS_MASK;
}

static inline i64 run_end(const char *text, i64 size, i64 at, int class) {
    for (i64 next; class_next(text, size, at, &next) == class; at = next) {
    }
    return at;
}

/* The white-space tail of all patterns: \s+(?!\S)|\s+ : a run gives up its last character when
 * something follows. *newline: end of the last \r or \n in the run, 0 if there is none. */
static inline i64 spaces_end(const char *text, i64 size, i64 at, i64 *newline) {
    i64 next, last = at, end = at;
    for (int c; (c = class_next(text, size, end, &next)) >= CLASS_SPACE; end = next) {
        last = end;
        if (c == CLASS_NEWLINE) *newline = next;
    }
    return end == size || last == at ? end : last;
}

/* 's 't 'm 'd 're 've 'll: length including the apostrophe, or 0. Without case U+017F counts as an
 * s too. */
static inline i64 contraction(const char *text, i64 left, bool fold) {
    if (left < 2 || text[0] != '\'') return 0;
    int fold_bit = fold ? 0x20 : 0, a = text[1] | fold_bit, b = left > 2 ? text[2] | fold_bit : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return fold && left > 2 && (u8)text[1] == 0xc5 && (u8)text[2] == 0xbf ? 3 : 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : a run that holds a newline ends after its last one. */
static inline i64 blanks_end(const char *text, i64 size, i64 at) {
    i64 newline = 0, end = spaces_end(text, size, at, &newline);
    return newline ? newline : end;
}

struct scanner {
    const char *pattern;
    scan_fn *scan;
    bool gaps;
};
extern const struct scanner scanners_case[]; /* pretokenize_case.c; ends with NULL */

#endif
