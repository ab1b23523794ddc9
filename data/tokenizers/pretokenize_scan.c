/* pretokenize_scan.c: hand-written scanners for the split patterns of GPT-2, Llama 3 (cl100k) and
 * Qwen 2. A scanner is taken only when the pattern's text is exactly the one it was written for;
 * the tests hold each against PCRE2 on random text. On English they are several times faster than
 * PCRE2. The younger patterns, which look at letter case, are in pretokenize_case.c. */
#include <string.h>
#include "data/tokenizers/pretokenize_scan.h"

const char pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
/* The same as tiktoken writes them: at the end of the text white space stays in one piece. */
static const char pattern_gpt2_tiktoken[] =
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s";
const char pattern_cl100k[] =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++"
    "[\\r\\n]*+|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s";
const char pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                             " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

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
static inline i64 scan_words(const char *text, i64 size, i64 at, int digits) {
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
    return blanks_end(text, size, at);
}

static i64 scan_llama3(const char *text, i64 size, i64 at) { return scan_words(text, size, at, 3); }
static i64 scan_qwen2(const char *text, i64 size, i64 at) { return scan_words(text, size, at, 1); }

static i64 scan_cl100k(const char *text, i64 size, i64 at) {
    i64 end = scan_words(text, size, at, 3), newline;
    if ((class_of_code[(u8)text[end - 1]] & CLASS_MASK) != CLASS_NEWLINE) return end;
    i64 next;
    if (class_next(text, size, at, &next) < CLASS_SPACE) return end;
    return spaces_end(text, size, at, &newline) == size ? size : end;
}

static const struct scanner plain[] = {
    {pattern_gpt2, scan_gpt2, false},     {pattern_gpt2_tiktoken, scan_gpt2, false},
    {pattern_llama3, scan_llama3, false}, {pattern_cl100k, scan_cl100k, false},
    {pattern_qwen2, scan_qwen2, false},   {NULL, NULL, false},
};

bool scan_ends_at_blanks(scan_fn *scan) {
    for (int k = 0; scan && k < 2; k++)
        for (const struct scanner *s = k ? scanners_case : plain; s->pattern; s++)
            if (s->scan == scan) return !s->gaps;
    return false;
}

scan_fn *scan_find(const char *pattern, bool gaps) {
    for (int k = 0; k < 2; k++)
        for (const struct scanner *s = k ? scanners_case : plain; s->pattern; s++)
            if (!strcmp(s->pattern, pattern)) return s->gaps && !gaps ? NULL : s->scan;
    return NULL;
}
