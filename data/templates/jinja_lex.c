/* jinja_lex.c: a template's text to tokens, with transformers' settings: trim_blocks (the line
 * break after a block or comment goes), lstrip_blocks (blanks in front of a block that starts its
 * line go). `-` beside a delimiter takes all white space, `+` keeps it. White space is Python's. */
#include "data/templates/jinja.h"

#include <stdlib.h>
#include <string.h>

struct lexer {
    struct template *t;
    const char *data;
    i64 size, at, counted;
    int line;
    char open[JINJA_DEPTH];
    int opens;
    bool line_starts; /* the token before ended a line */
    struct err *e;
};

static int lex_fail(struct lexer *l, const char *what, const char *detail) {
    err_input(l->e, "%s:%d: %s", l->t->name, l->line, what);
    return detail ? err_detail(l->e, "%s", detail) : -1;
}

bool is_op(const struct token *t, const char *op) {
    return t->kind == T_OP && bytes_are(t->text, op);
}
bool is_name(const struct token *t, const char *name) {
    return t->kind == T_NAME && bytes_are(t->text, name);
}

static struct token *token_new(struct lexer *l, enum token_kind kind, const char *data, i64 size) {
    struct template *t = l->t;
    if (t->tokens == t->tokens_capacity) {
        const i64 wanted = i64_max(256, 2 * t->tokens_capacity);
        struct token *grown = arena_new(&t->arena, wanted * (i64)sizeof *grown, l->e);
        if (!grown) return NULL;
        if (t->tokens) memcpy(grown, t->token, (size_t)t->tokens * sizeof *grown);
        t->token = grown, t->tokens_capacity = wanted;
    }
    struct token *k = &t->token[t->tokens++];
    *k = (struct token){.kind = kind, .line = l->line, .text = {data, size}};
    return k;
}

static void lex_to(struct lexer *l, i64 at) {
    l->line_starts = at > l->at ? l->data[at - 1] == '\n' : false;
    for (; l->at < at; l->at++) l->line += l->data[l->at] == '\n';
}

static i64 blanks(const struct lexer *l, i64 at) { /* the end of white space from `at` */
    for (i64 next = at; next < l->size; at = next)
        if (!is_blank(utf8_next(l->data, l->size, &next))) break;
    return at;
}

static bool starts(const struct lexer *l, i64 at, const char *with) {
    const i64 n = (i64)strlen(with);
    return at + n <= l->size && !memcmp(l->data + at, with, (size_t)n);
}

/* The text in front of a tag, without what the tag's sign or lstrip_blocks takes. */
static int lex_data(struct lexer *l, i64 end, char sign, bool block) {
    struct bytes s = {l->data + l->at, end - l->at};
    if (sign == '-') {
        s = strip(s, NULL, false, true);
    } else if (sign != '+' && block) {
        const char *nl = s.size ? memrchr(s.data, '\n', (size_t)s.size) : NULL;
        const i64 from = nl ? nl + 1 - s.data : 0;
        const struct bytes tail = {s.data + from, s.size - from};
        if ((nl || l->line_starts) && !strip(tail, NULL, true, true).size) s.size = from;
    }
    return s.size && !token_new(l, T_DATA, s.data, s.size) ? -1 : 0;
}

/* The end of a tag whose closing delimiter starts at `at` (a sign first), or -1. */
static i64 tag_end(const struct lexer *l, i64 at, const char *close, bool trim) {
    const char sign = at < l->size ? l->data[at] : 0;
    const bool signed_ = sign == '-' || (sign == '+' && trim);
    if (!starts(l, at + signed_, close)) return -1;
    at += signed_ + 2;
    if (sign == '-') return blanks(l, at);
    return at + (trim && sign != '+' && at < l->size && l->data[at] == '\n');
}

static int lex_comment(struct lexer *l) {
    for (i64 at = l->at; at < l->size; at++) {
        const i64 end = tag_end(l, at, "#}", true);
        if (end >= 0) return lex_to(l, end), 0;
    }
    return lex_fail(l, "a comment without end", "expected #}");
}

/* After {% raw %}: everything up to {% endraw %} is text. */
static int lex_raw(struct lexer *l) {
    for (i64 at = l->at; at < l->size; at++) {
        if (!starts(l, at, "{%")) continue;
        const char sign = at + 2 < l->size ? l->data[at + 2] : 0;
        i64 word = blanks(l, at + 2 + (sign == '-' || sign == '+')), end;
        if (!starts(l, word, "endraw")) continue;
        if ((end = tag_end(l, blanks(l, word + 6), "%}", true)) < 0) continue;
        return lex_data(l, at, sign, true) ? -1 : (lex_to(l, end), 0);
    }
    return lex_fail(l, "a raw block without end", "expected {% endraw %}");
}

static i64 raw_begin(const struct lexer *l, i64 at) { /* the end of {% raw %} at `at`, or -1 */
    at = blanks(l, at);
    return starts(l, at, "raw") ? tag_end(l, blanks(l, at + 3), "%}", false) : -1;
}

static int escape(struct lexer *l, struct text *out, const char *s, i64 size, i64 *at) {
    static const char letter[] = "abfnrtv\\'\"", byte[] = "\a\b\f\n\r\t\v\\'\"";
    const char c = s[*at];
    const char *found = c ? strchr(letter, c) : NULL;
    const int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    char hex[9] = "", utf8[4];
    u32 code = 0;
    ++*at;
    if (c == '\n') return 0;
    if (found) return text_add(out, byte + (found - letter), 1, l->e);
    if (c == 'N') return lex_fail(l, "'\\N{...}' in a text is not supported", NULL);
    if (c >= '0' && c <= '7') {
        for (int i = 0, more = 1; more && i < 3; i++) {
            code = code * 8 + (u32)(s[*at - 1] - '0');
            more = i < 2 && *at < size && s[*at] >= '0' && s[*at] <= '7';
            *at += more;
        }
    } else if (digits) {
        if (*at + digits <= size) memcpy(hex, s + *at, (size_t)digits);
        if ((int)strspn(hex, "0123456789abcdefABCDEF") < digits)
            return lex_fail(l, "a text with a broken \\x, \\u or \\U", NULL);
        code = (u32)strtoul(hex, NULL, 16), *at += digits;
    } else {
        return text_add(out, s + *at - 2, 2, l->e);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return lex_fail(l, "a text with a code point that UTF-8 does not have", NULL);
    return text_add(out, utf8, utf8_put(code, utf8), l->e);
}

static int lex_string(struct lexer *l) {
    const char quote = l->data[l->at];
    i64 end = l->at + 1;
    while (end < l->size && l->data[end] != quote) end += l->data[end] == '\\' ? 2 : 1;
    if (end >= l->size) return lex_fail(l, "a text without end", "expected a closing quote");
    struct text made = {0};
    const char *s = l->data + l->at + 1;
    const i64 size = end - l->at - 1;
    int rc = text_add(&made, "", 0, l->e);
    for (i64 at = 0; !rc && at < size;) {
        const char *slash = memchr(s + at, '\\', (size_t)(size - at));
        const i64 plain = (slash ? slash - s : size) - at;
        rc = text_add(&made, s + at, plain, l->e);
        at += plain;
        if (!rc && slash) at++, rc = escape(l, &made, s, size, &at);
    }
    char *copy = rc ? NULL : arena_new(&l->t->arena, made.size + 1, l->e);
    if (copy) memcpy(copy, made.data, (size_t)made.size);
    if (copy && !token_new(l, T_STRING, copy, made.size)) copy = NULL;
    text_free(&made);
    return copy ? (lex_to(l, end + 1), 0) : -1;
}

static bool word_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (c & 0x80);
}
static bool digit(const struct lexer *l, i64 at) {
    return at < l->size && l->data[at] >= '0' && l->data[at] <= '9';
}

static int lex_number(struct lexer *l) {
    char clean[64];
    i64 end = l->at, n = 0;
    bool real = false;
    const bool based =
        l->data[end] == '0' && end + 1 < l->size && strchr("xXoObB", l->data[end + 1]);
    while (end < l->size) {
        const char c = l->data[end];
        const bool point = c == '.' && !real && !based && digit(l, end + 1);
        const bool power = (c == 'e' || c == 'E') && !based &&
                           (digit(l, end + 1) || (end + 1 < l->size && digit(l, end + 2) &&
                                                  strchr("+-", l->data[end + 1])));
        if (!digit(l, end) && c != '_' && !point && !power && !(based && word_byte(c))) break;
        if (n + 3 > COUNT(clean)) return lex_fail(l, "a number too long to read", NULL);
        real |= point || power;
        if (c != '_') clean[n++] = c;
        end++;
        if (power && !digit(l, end)) clean[n++] = l->data[end++];
        if (power)
            while (digit(l, end) && n + 1 < COUNT(clean)) clean[n++] = l->data[end++];
        if (power) break;
    }
    clean[n] = 0;
    char *rest;
    struct token *k = token_new(l, real ? T_FLOAT : T_INT, l->data + l->at, end - l->at);
    if (!k) return -1;
    if (real)
        k->real = strtod(clean, &rest);
    else
        k->integer = based && !strchr("xX", clean[1])
                         ? strtoll(clean + 2, &rest, strchr("bB", clean[1]) ? 2 : 8)
                         : strtoll(clean, &rest, based ? 16 : 10);
    if (*rest || (!real && k->integer == INT64_MAX))
        return lex_fail(l, "a number that cannot be read", "integers have at most 63 bits");
    return lex_to(l, end), 0;
}

/* One token inside a tag. */
static int lex_inside(struct lexer *l) {
    static const char *const op[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                     "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                     ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const char c = l->data[l->at];
    i64 end = l->at, next;
    if (c == '\'' || c == '"') return lex_string(l);
    if (digit(l, end)) return lex_number(l);
    if (word_byte(c)) {
        while (end < l->size && word_byte(l->data[end])) end++;
        return token_new(l, T_NAME, l->data + l->at, end - l->at) ? (lex_to(l, end), 0) : -1;
    }
    int i = 0;
    while (i < COUNT(op) && !starts(l, end, op[i])) i++;
    if (i == COUNT(op)) {
        char what[64];
        next = end;
        const int code = utf8_next(l->data, l->size, &next);
        snprintf(what, sizeof what, "an unexpected character U+%04X in a tag", (unsigned)code);
        return lex_fail(l, what, NULL);
    }
    if (strchr("([{", c)) {
        if (l->opens == JINJA_DEPTH) return lex_fail(l, "too many open brackets", NULL);
        l->open[l->opens++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (!l->opens || l->open[l->opens - 1] != c)
            return lex_fail(l, "a closing bracket that nothing opened", NULL);
        l->opens--;
    }
    end += (i64)strlen(op[i]);
    return token_new(l, T_OP, l->data + l->at, end - l->at) ? (lex_to(l, end), 0) : -1;
}

static int lex_tag(struct lexer *l, bool block) {
    while (l->at < l->size) {
        const i64 end = l->opens ? -1 : tag_end(l, l->at, block ? "%}" : "}}", block);
        if (end >= 0) {
            struct token *k =
                token_new(l, block ? T_BLOCK_END : T_VARIABLE_END, l->data + l->at, 2);
            return k ? (lex_to(l, end), 0) : -1;
        }
        const i64 after = blanks(l, l->at);
        if (after > l->at)
            lex_to(l, after);
        else if (lex_inside(l))
            return -1;
    }
    return lex_fail(l, "a tag without end", block ? "expected %}" : "expected }}");
}

static int lex_all(struct lexer *l) {
    while (l->at < l->size) {
        i64 at = l->at;
        while (at < l->size && !(l->data[at] == '{' && at + 1 < l->size &&
                                 strchr("{%#", l->data[at + 1]) && l->data[at + 1]))
            at++;
        if (at == l->size) return lex_data(l, at, '+', false) ? -1 : (lex_to(l, at), 0);
        const char kind = l->data[at + 1], next = at + 2 < l->size ? l->data[at + 2] : 0;
        const char sign = next == '-' || next == '+' ? next : 0;
        if (lex_data(l, at, sign, kind != '{')) return -1;
        lex_to(l, at + 2 + (sign != 0));
        const i64 raw = kind == '%' ? raw_begin(l, l->at) : -1;
        if (raw >= 0) {
            lex_to(l, raw);
            if (lex_raw(l)) return -1;
        } else if (kind == '#') {
            if (lex_comment(l)) return -1;
        } else if (!token_new(l, kind == '%' ? T_BLOCK : T_VARIABLE, l->data + at, 2) ||
                   lex_tag(l, kind == '%')) {
            return -1;
        }
    }
    return 0;
}

int jinja_lex(struct template *t, const char *source, i64 size, struct err *e) {
    struct lexer l = {.t = t, .line = 1, .line_starts = true, .e = e};
    if (size > JINJA_SOURCE)
        return err_input(e, "%s: a template of %lld bytes; at most %d are read", t->name,
                         (long long)size, JINJA_SOURCE);
    char *copy = arena_new(&t->arena, size + 1, e);
    if (!copy) return -1;
    const i64 bad = utf8_bad(source, size);
    if (bad >= 0) return err_input(e, "%s: invalid UTF-8 at byte %lld", t->name, (long long)bad);
    for (i64 i = 0; i < size; i++) { /* \r\n and \r are line breaks too */
        if (source[i] == '\r' && i + 1 < size && source[i + 1] == '\n') continue;
        copy[l.size++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (l.size && copy[l.size - 1] == '\n') l.size--; /* one at the end is not kept */
    l.data = copy;
    return lex_all(&l) || !token_new(&l, T_END, "", 0) ? -1 : 0;
}
