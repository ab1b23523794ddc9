/* pretokenize_class.c: the classes of characters that patterns, normalizers and added tokens ask
 * for: two bytes for each code point, filled once from utf8proc (Unicode 15). The Han script, which
 * utf8proc does not know, is a table here. */
#include <pthread.h>
#include <utf8proc.h>
#include "data/tokenizers/tokenizers_int.h"

u16 class_of_code[0x110000];

struct range {
    i32 first, last;
};
static bool within(const struct range *r, i64 count, i32 code) {
    for (i64 i = 0; i < count; i++)
        if (code >= r[i].first && code <= r[i].last) return true;
    return false;
}

static bool white_space(i32 c) { /* Unicode's White_Space property */
    static const struct range r[] = {
        {9, 13},          {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
    return within(r, COUNT(r), c);
}

static bool han(i32 c) { /* Script=Han, Scripts.txt of Unicode 15 */
    static const struct range r[] = {{0x2e80, 0x2e99},   {0x2e9b, 0x2ef3},   {0x2f00, 0x2fd5},
                                     {0x3005, 0x3005},   {0x3007, 0x3007},   {0x3021, 0x3029},
                                     {0x3038, 0x303b},   {0x3400, 0x4dbf},   {0x4e00, 0x9fff},
                                     {0xf900, 0xfa6d},   {0xfa70, 0xfad9},   {0x16fe2, 0x16fe3},
                                     {0x16ff0, 0x16ff1}, {0x20000, 0x2a6df}, {0x2a700, 0x2b739},
                                     {0x2b740, 0x2b81d}, {0x2b820, 0x2cea1}, {0x2ceb0, 0x2ebe0},
                                     {0x2f800, 0x2fa1d}, {0x30000, 0x3134a}, {0x31350, 0x323af}};
    return c >= 0x2e80 && within(r, COUNT(r), c);
}

/* \w: letters, marks, Nd, Nl, Pc, the joiners, and circled and squared letters, which are
 * Alphabetic. */
static bool word(i32 code, utf8proc_category_t c) {
    static const struct range r[] = {{0x200c, 0x200d},
                                     {0x24b6, 0x24e9},
                                     {0x1f130, 0x1f149},
                                     {0x1f150, 0x1f169},
                                     {0x1f170, 0x1f189}};
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
           within(r, COUNT(r), code);
}

static u16 class_compute(i32 code) {
    static const u16 of_category[] = {
        [UTF8PROC_CATEGORY_LU] = CLASS_LETTER | CLASS_UPPER,
        [UTF8PROC_CATEGORY_LL] = CLASS_LETTER | CLASS_LOWER,
        [UTF8PROC_CATEGORY_LT] = CLASS_LETTER | CLASS_UPPER,
        [UTF8PROC_CATEGORY_LM] = CLASS_LETTER | CLASS_CASELESS,
        [UTF8PROC_CATEGORY_LO] = CLASS_LETTER | CLASS_CASELESS,
        [UTF8PROC_CATEGORY_MN] = CLASS_MARK | CLASS_NONSPACING | CLASS_CASELESS,
        [UTF8PROC_CATEGORY_MC] = CLASS_MARK | CLASS_CASELESS,
        [UTF8PROC_CATEGORY_ME] = CLASS_MARK | CLASS_CASELESS,
        [UTF8PROC_CATEGORY_ND] = CLASS_NUMBER | CLASS_NUMERIC,
        [UTF8PROC_CATEGORY_NL] = CLASS_NUMBER | CLASS_NUMERIC,
        [UTF8PROC_CATEGORY_NO] = CLASS_NUMBER | CLASS_NUMERIC,
        [UTF8PROC_CATEGORY_CO] = CLASS_CONTROL,
    };
    utf8proc_category_t c = utf8proc_category(code);
    u16 x = of_category[c];
    if (c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO)
        x |= CLASS_PUNCTUATION | CLASS_BERT_PUNCTUATION;
    if (c >= UTF8PROC_CATEGORY_SM && c <= UTF8PROC_CATEGORY_SO)
        x |= CLASS_SYMBOL | (code < 128 ? CLASS_BERT_PUNCTUATION : 0);
    if (word(code, c)) x |= CLASS_WORD;
    if (han(code)) x |= CLASS_HAN;
    if (code == '\r' || code == '\n') return x | CLASS_NEWLINE | CLASS_WHITE;
    if (c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF)
        x |= code == '\t' ? 0 : CLASS_CONTROL;
    return white_space(code) ? x | CLASS_SPACE | CLASS_WHITE : x;
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
