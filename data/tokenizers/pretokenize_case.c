/* pretokenize_case.c: scanners for the patterns that look at letter case (o200k of GPT-4o, gpt-oss
 * and Llama 4; Mistral's Tekken; Kimi K2) and for the three stages of DeepSeek V3. Held against
 * PCRE2 like the others.
 *
 * In what follows U is [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and D is [\p{Ll}\p{Lm}\p{Lo}\p{M}]: the
 * caseless letters are in both, so that the regular expression backtracks; the scanner looks where
 * it would end up. */
#include <string.h>
#include "data/tokenizers/pretokenize_scan.h"

#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define ENDS  "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define LEAD  "[^\\r\\n\\p{L}\\p{N}]?"
#define BLANK "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define NOHAN "&&[^\\p{Han}]"

const char pattern_o200k[] = LEAD "[" UPPER "]*[" LOWER "]+" ENDS "|" LEAD "[" UPPER "]+[" LOWER
                                  "]*" ENDS "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANK;
const char pattern_tekken[] = LEAD "[" UPPER "]*[" LOWER "]+|" LEAD "[" UPPER "]+[" LOWER
                                   "]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANK;
const char pattern_kimi[] =
    "[\\p{Han}]+|" LEAD "[" UPPER NOHAN "]*[" LOWER NOHAN "]+" ENDS "|" LEAD "[" UPPER NOHAN
    "]+[" LOWER NOHAN "]*" ENDS "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" BLANK;
const char pattern_deepseek3_digits[] = "\\p{N}{1,3}";
const char pattern_deepseek3_cjk[] = "[一-龥぀-ゟ゠-ヿ]+";
/* The published file holds the two newlines as they are; the other spelling means the same. */
#define DEEPSEEK3(newlines)                                                                        \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^" newlines                            \
    "\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[" newlines "]*|\\s*[" newlines          \
    "]+|\\s+(?!\\S)|\\s+"
static const char pattern_deepseek3_escaped[] = DEEPSEEK3("\\r\\n");
const char pattern_deepseek3[] = DEEPSEEK3("\r\n");

struct rules {
    int digits;
    bool ends, slash,
        han; /* contractions end words; '/' ends runs of marks; Han letters are apart */
};

static inline int case_next(const char *text, i64 size, i64 at, i64 *next, bool han) {
    int bits = bits_next(text, size, at, next);
    if (bits >= 0 && han && bits & CLASS_HAN) bits &= ~(CLASS_UPPER | CLASS_LOWER | CLASS_CASELESS);
    return bits;
}

/* U*D+ from `at`, else -1. */
static inline i64 lower_word(const char *text, i64 size, i64 at, bool han) {
    i64 next, caseless = -1; /* the end of the last character of the run of U that is also in D */
    int bits;
    for (; (bits = case_next(text, size, at, &next, han)) >= 0; at = next) {
        if (!(bits & (CLASS_UPPER | CLASS_CASELESS))) break;
        if (bits & CLASS_CASELESS) caseless = next;
    }
    if (bits < 0 || !(bits & CLASS_LOWER)) return caseless;
    while ((bits = case_next(text, size, at, &next, han)) >= 0 &&
           bits & (CLASS_LOWER | CLASS_CASELESS))
        at = next;
    return at;
}

/* U+D* where U*D+ does not match: no D follows, none is within. */
static inline i64 upper_word(const char *text, i64 size, i64 at, bool han) {
    i64 next, from = at;
    int bits;
    while ((bits = case_next(text, size, at, &next, han)) >= 0 && bits & CLASS_UPPER) at = next;
    return at == from ? -1 : at;
}

/* The word, with the one character before it that may lead it, or -1. */
static inline i64 case_word(const char *text, i64 size, i64 at, i64 after, bool lead, bool han) {
    i64 end;
    if (lead && (end = lower_word(text, size, after, han)) >= 0) return end;
    if ((end = lower_word(text, size, at, han)) >= 0) return end;
    if (lead && (end = upper_word(text, size, after, han)) >= 0) return end;
    return upper_word(text, size, at, han);
}

static inline i64 scan_case(const char *text, i64 size, i64 at, struct rules r) {
    i64 next, after, end;
    int bits = bits_next(text, size, at, &next), class = bits & CLASS_MASK;
    if (r.han && bits & CLASS_HAN) {
        while ((bits = bits_next(text, size, next, &after)) >= 0 && bits & CLASS_HAN) next = after;
        return next;
    }
    bool lead = class == CLASS_OTHER || class == CLASS_SPACE;
    if (class != CLASS_NUMBER && class != CLASS_NEWLINE &&
        (end = case_word(text, size, at, next, lead, r.han)) >= 0)
        return end + (r.ends ? contraction(text + end, size - end, true) : 0);
    if (class == CLASS_NUMBER) {
        for (int i = 1; i < r.digits && class_next(text, size, next, &after) == CLASS_NUMBER; i++)
            next = after;
        return next;
    }
    int then = class_next(text, size, next, &after);
    if (class == CLASS_OTHER || (text[at] == ' ' && then == CLASS_OTHER)) {
        end = run_end(text, size, next, CLASS_OTHER);
        while (end < size &&
               (text[end] == '\r' || text[end] == '\n' || (r.slash && text[end] == '/')))
            end++;
        return end;
    }
    return blanks_end(text, size, at);
}

static i64 scan_o200k(const char *text, i64 size, i64 at) {
    return scan_case(text, size, at, (struct rules){3, true, true, false});
}
static i64 scan_tekken(const char *text, i64 size, i64 at) {
    return scan_case(text, size, at, (struct rules){1, false, true, false});
}
static i64 scan_kimi(const char *text, i64 size, i64 at) {
    return scan_case(text, size, at, (struct rules){3, true, false, true});
}

static i64 scan_deepseek3_digits(const char *text, i64 size, i64 at) {
    i64 next, end = at;
    for (int i = 0; i < 3 && class_next(text, size, end, &next) == CLASS_NUMBER; i++) end = next;
    if (end > at) return end;
    for (int c; (c = class_next(text, size, end, &next)) >= 0 && c != CLASS_NUMBER;) end = next;
    return end;
}

static i64 scan_deepseek3_cjk(const char *text, i64 size, i64 at) {
    bool inside = false;
    for (i64 next = at, end = at; end < size; end = next) {
        if ((u8)text[end] < 0xe3) {
            next += (u8)text[end] < 0x80 ? 1 : (u8)text[end] < 0xe0 ? 2 : 3;
            if (inside) return end;
            continue;
        }
        i64 code = code_at(text, &next);
        bool cjk = (code >= 0x4e00 && code <= 0x9fa5) || (code >= 0x3040 && code <= 0x30ff);
        if (end > at && cjk != inside) return end;
        inside = cjk;
    }
    return size;
}

static bool ascii_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

static inline bool in_word(int bits) {
    return bits >= 0 && ((bits & CLASS_MASK) == CLASS_LETTER || bits & CLASS_MARK);
}

static i64 match_deepseek3(const char *text, i64 size, i64 at) { /* -1: none begins here */
    enum { SIGN = CLASS_PUNCTUATION | CLASS_SYMBOL };
    i64 next, after, end;
    int bits = bits_next(text, size, at, &next), then = bits_next(text, size, next, &after);
    int class = bits & CLASS_MASK;
    if (next == at + 1 && bits & SIGN && next < size && ascii_letter(text[next])) {
        while (next < size && ascii_letter(text[next])) next++;
        return next;
    }
    bool lead = !(bits & SIGN) && class != CLASS_LETTER && class != CLASS_NEWLINE;
    if (in_word(bits) || (lead && in_word(then))) {
        for (end = next; in_word(bits_next(text, size, end, &next));) end = next;
        return end;
    }
    if (bits & SIGN || (text[at] == ' ' && then >= 0 && then & SIGN)) {
        for (end = next; (bits = bits_next(text, size, end, &next)) >= 0 && bits & SIGN;)
            end = next;
        return run_end(text, size, end, CLASS_NEWLINE);
    }
    return class >= CLASS_SPACE ? blanks_end(text, size, at) : -1;
}

static i64 scan_deepseek3(const char *text, i64 size, i64 at) {
    i64 end = match_deepseek3(text, size, at);
    if (end >= 0) return end;
    for (end = at; end < size && match_deepseek3(text, size, end) < 0;) code_at(text, &end);
    return end;
}

const struct scanner scanners_case[] = {
    {pattern_o200k, scan_o200k, false},
    {pattern_tekken, scan_tekken, false},
    {pattern_kimi, scan_kimi, false},
    {pattern_deepseek3_digits, scan_deepseek3_digits, true},
    {pattern_deepseek3_cjk, scan_deepseek3_cjk, true},
    {pattern_deepseek3, scan_deepseek3, true},
    {pattern_deepseek3_escaped, scan_deepseek3, true},
    {NULL, NULL, false},
};
