/* pretokenize_scan.c: hand-written scanners for the three split patterns nearly every byte-level
 * model uses, and the character classes they stand on. A scanner is taken only when the pattern's
 * text is exactly the one it was written for; the tests hold each against PCRE2 on random text. On
 * English they are several times faster than PCRE2.
 *
 * Classes come from utf8proc (Unicode 15): L*, N*, White_Space. One byte per code point, filled
 * once. */
#include <pthread.h>
#include <string.h>
#include <utf8proc.h>
#include "data/data_int.h"

const char pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                             " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

u8 class_of_code[0x110000];

static bool white_space(i32 c) { /* Unicode's White_Space property */
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static u8 class_compute(i32 code) {
    utf8proc_category_t c = utf8proc_category(code);
    if (code == '\r' || code == '\n') return CLASS_NEWLINE;
    if (white_space(code)) return CLASS_SPACE;
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) return CLASS_LETTER | CLASS_WORD;
    if (c >= UTF8PROC_CATEGORY_ND &&
        c <= UTF8PROC_CATEGORY_NO) /* \w has Nd, and Nl through Alphabetic */
        return CLASS_NUMBER | (c == UTF8PROC_CATEGORY_NO ? 0 : CLASS_WORD);
    bool word =
        (c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME) || c == UTF8PROC_CATEGORY_PC ||
        code == 0x200c || code == 0x200d || (code >= 0x24b6 && code <= 0x24e9) ||
        (code >= 0x1f130 && code <= 0x1f149) || (code >= 0x1f150 && code <= 0x1f169) ||
        (code >= 0x1f170 && code <= 0x1f189); /* circled and squared letters are Alphabetic */
    return CLASS_OTHER | (word ? CLASS_WORD : 0);
}

static void classes_build(void) {
    for (i32 c = 0; c < 0x110000; c++) class_of_code[c] = class_compute(c);
}

void classes_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, classes_build);
}

i64 code_at(const char *text, i64 *at) {
    const u8 *s = (const u8 *)text + *at;
    if (s[0] < 0x80) return *at += 1, s[0];
    if (s[0] < 0xe0) return *at += 2, (s[0] & 31) << 6 | (s[1] & 63);
    if (s[0] < 0xf0) return *at += 3, (s[0] & 15) << 12 | (s[1] & 63) << 6 | (s[2] & 63);
    return *at += 4, (s[0] & 7) << 18 | (s[1] & 63) << 12 | (s[2] & 63) << 6 | (s[3] & 63);
}

/* Class of the character at `at`, or -1 at the end; *next: where the following one starts. */
static inline int class_next(const char *text, i64 size, i64 at, i64 *next) {
    *next = at;
    if (at >= size) return -1;
    if ((u8)text[at] < 0x80) return class_of_code[(u8)text[(*next)++]] & CLASS_MASK;
    return class_of_code[code_at(text, next)] & CLASS_MASK;
}

static inline i64 run_end(const char *text, i64 size, i64 at, int class) {
    for (i64 next; class_next(text, size, at, &next) == class; at = next) {
    }
    return at;
}

/* The white-space tail of all patterns: \s+(?!\S)|\s+ : a run gives up its last character when
 * something follows. *newline: end of the last \r or \n in the run, 0 if there is none. */
static i64 spaces_end(const char *text, i64 size, i64 at, i64 *newline) {
    i64 next, last = at, end = at;
    for (int c; (c = class_next(text, size, end, &next)) >= CLASS_SPACE; end = next) {
        last = end;
        if (c == CLASS_NEWLINE) *newline = next;
    }
    return end == size || last == at ? end : last;
}

/* 's 't 'm 'd 're 've 'll: length including the apostrophe, or 0. Without case U+017F counts as an
 * s too. */
static i64 contraction(const char *text, i64 left, bool fold) {
    if (left < 2 || text[0] != '\'') return 0;
    int fold_bit = fold ? 0x20 : 0, a = text[1] | fold_bit, b = left > 2 ? text[2] | fold_bit : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return fold && left > 2 && (u8)text[1] == 0xc5 && (u8)text[2] == 0xbf ? 3 : 0;
}

static i64 scan_gpt2(const char *text, i64 size, i64 at) {
    i64 n = contraction(text + at, size - at, false), next, newline;
    if (n) return at + n;
    int class = class_next(text, size, at, &next);
    if (text[at] == ' ') {
        int after = class_next(text, size, at + 1, &next);
        if (after >= 0 && after < CLASS_SPACE) class = after;
    }
    if (class >= CLASS_SPACE) return spaces_end(text, size, at, &newline);
    return run_end(text, size, next, class);
}

/* llama3 and qwen2 differ in how many digits make a word. */
static inline i64 scan_cl100k(const char *text, i64 size, i64 at, int digits) {
    i64 n = contraction(text + at, size - at, true), next, after;
    if (n) return at + n;
    int class = class_next(text, size, at, &next);
    if (class == CLASS_LETTER) return run_end(text, size, next, CLASS_LETTER);
    if (class == CLASS_NUMBER) {
        for (int i = 1; i < digits && class_next(text, size, next, &after) == CLASS_NUMBER; i++)
            next = after;
        return next;
    }
    int then = class_next(text, size, next, &after);
    if (class != CLASS_NEWLINE && then == CLASS_LETTER)
        return run_end(text, size, after, CLASS_LETTER);
    if (class == CLASS_OTHER || (text[at] == ' ' && then == CLASS_OTHER))
        return run_end(text, size, run_end(text, size, next, CLASS_OTHER), CLASS_NEWLINE);
    i64 newline = 0, end = spaces_end(text, size, at, &newline);
    return newline ? newline : end;
}

static i64 scan_llama3(const char *text, i64 size, i64 at) {
    return scan_cl100k(text, size, at, 3);
}
static i64 scan_qwen2(const char *text, i64 size, i64 at) { return scan_cl100k(text, size, at, 1); }

scan_fn *scan_find(const char *pattern) {
    if (!strcmp(pattern, pattern_gpt2)) return scan_gpt2;
    if (!strcmp(pattern, pattern_llama3)) return scan_llama3;
    return strcmp(pattern, pattern_qwen2) ? NULL : scan_qwen2;
}
