/* regex_translate.c: a pattern as Oniguruma (Hugging Face) and Rust's regex (tiktoken) read it, in
 * PCRE2's words:
 *
 *   \uXXXX            \x{XXXX}
 *   \h \w \s          hex digits; letters as Oniguruma counts them (marks, and \xb2 and its like,
 *                     but the latter only outside classes); White_Space
 *   \p{Han}           \p{sc:Han}: the script, not the script extensions
 *   [a[bc]]           (?:[a]|[bc])
 *   [a&&[^b]]         (?:(?=[a])[^b])
 *   [^...]            with either inside: (?:(?!...)\p{Any})
 *   {,n}              {0,n}
 *   {n}+, {n,m}+      (?:...{n})+ in Oniguruma, possessive in PCRE2: refused, for what is repeated
 * is not known here
 *
 * A class without any of this is copied as it stands. */
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

struct translator {
    const char *s; /* what is left */
    struct text *out;
    const char *regex, *where;
    int depth;
};

static int refuse(const struct translator *t, const char *what, struct err *e) {
    return err_input(e, "%s: the pattern \"%.200s\" is not supported: %s", t->where, t->regex,
                     what);
}

static int put(struct text *out, const char *s, i64 size, struct err *e) {
    return text_add(out, s, size, e);
}
static int puts_text(struct text *out, const char *s, struct err *e) {
    return put(out, s, (i64)strlen(s), e);
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* One escape, in or out of a class. */
static int escape(struct translator *t, struct text *out, bool class, struct err *e) {
    const char *s = t->s;
    if (!s[1]) return refuse(t, "it ends with a backslash", e);
    if (s[1] == 'u' && is_hex(s[2]) && is_hex(s[3]) && is_hex(s[4]) && is_hex(s[5])) {
        t->s += 6;
        return text_printf(out, e, "\\x{%.4s}", s + 2);
    }
    if (s[1] == 'u') return refuse(t, "\\u without four hex digits", e);
    static const struct {
        char name;
        const char *list;
    } known[] = {
        {'h', "0-9A-Fa-f"},
        {'s', "\\t-\\r\\x{85}\\p{Z}"},
        {'w', "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"
              "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"},
    };
    for (int i = 0; i < COUNT(known); i++) {
        if ((s[1] | 32) != known[i].name || (class && s[1] == 'S')) continue;
        bool not = s[1] < 'a';
        if (class && not ) return refuse(t, "\\H or \\W in a class", e);
        t->s += 2;
        const char *latin = known[i].name == 'w' && !class ? "\\xb2\\xb3\\xb9\\xbc-\\xbe" : "";
        return text_printf(out, e, class ? "%s%s%s" : "[%s%s%s]", not ? "^" : "", known[i].list,
                           latin);
    }
    i64 n = 2;
    if ((s[1] == 'p' || s[1] == 'P' || s[1] == 'x') && s[2] == '{')
        for (n = 3; s[n - 1] && s[n - 1] != '}';) n++;
    if (!s[n - 1]) return refuse(t, "a { is not closed", e);
    t->s += n;
    if (n > 5 && (s[1] | 32) == 'p' && regex_is_script(s + 3, n - 4))
        return text_printf(out, e, "\\%c{sc:%.*s}", s[1], (int)n - 4, s + 3);
    return put(out, s, n, e);
}

static int class_read(struct translator *t, struct text *out, struct err *e);

/* The members up to && or ], as one class without brackets; classes within that are more than a
 * list of characters go to `other`, as alternatives. */
static int class_part(struct translator *t, struct text *list, struct text *other, struct err *e) {
    for (bool first = true; *t->s != ']' || first; first = false) {
        if (!*t->s) return refuse(t, "a [ is not closed", e);
        if (t->s[0] == '&' && t->s[1] == '&') return 0;
        if (*t->s == '[' && t->s[1] == ':') {
            const char *end = strstr(t->s, ":]");
            if (!end) return refuse(t, "a [: is not closed", e);
            if (put(list, t->s, end + 2 - t->s, e)) return -1;
            t->s = end + 2;
        } else if (*t->s == '[') {
            t->s++;
            if ((other->size && puts_text(other, "|", e)) || class_read(t, other, e)) return -1;
        } else if (*t->s == '\\' ? escape(t, list, true, e) : put(list, t->s++, 1, e))
            return -1;
    }
    return 0;
}

static int part_join(struct text *all, const struct text *list, const struct text *other, bool last,
                     struct err *e) {
    if (!list->size && !other->size) return 0;
    if (puts_text(all, last ? "(?:" : "(?=", e)) return -1;
    if (list->size && (puts_text(all, "[", e) || put(all, list->data, list->size, e) ||
                       puts_text(all, other->size ? "]|" : "]", e)))
        return -1;
    return (other->size && put(all, other->data, other->size, e)) || puts_text(all, ")", e) ? -1
                                                                                            : 0;
}

/* After '['. */
static int class_read(struct translator *t, struct text *out, struct err *e) {
    struct text list = {0}, other = {0}, all = {0};
    bool not = *t->s == '^';
    int rc = ++t->depth > 20 ? refuse(t, "classes nest too deep", e) : 0, parts = 0;
    t->s += not ;
    for (bool more = true; !rc && more;) {
        list.size = other.size = 0;
        rc = class_part(t, &list, &other, e);
        more = !rc && *t->s == '&';
        if (more || parts || other.size) rc = rc || part_join(&all, &list, &other, !more, e);
        if (!rc) t->s += more ? 2 : 1;
        parts++;
    }
    if (rc)
        ;
    else if (!all.size)
        rc = puts_text(out, not ? "[^" : "[", e) || put(out, list.data, list.size, e) ||
             puts_text(out, "]", e);
    else if (not )
        rc = puts_text(out, "(?:(?!", e) || put(out, all.data, all.size, e) ||
             puts_text(out, ")\\p{Any})", e);
    else
        rc = puts_text(out, "(?:", e) || put(out, all.data, all.size, e) || puts_text(out, ")", e);
    t->depth--;
    text_free(&list), text_free(&other), text_free(&all);
    return rc ? -1 : 0;
}

/* {n}, {n,}, {n,m}, {,n}: its length, else 0. */
static i64 repeat(const char *s) {
    i64 n = 1, digits = 0;
    for (; s[n] >= '0' && s[n] <= '9'; n++) digits++;
    if (s[n] == ',')
        for (n++; s[n] >= '0' && s[n] <= '9'; n++) digits++;
    return digits && s[n] == '}' ? n + 1 : 0;
}

int regex_translate(const char *regex, struct text *out, const char *where, struct err *e) {
    struct translator t = {regex, out, regex, where, 0};
    if (puts_text(out, "", e)) return -1;
    while (*t.s) {
        i64 n = *t.s == '{' ? repeat(t.s) : 0;
        int rc;
        if (n && t.s[n] == '+') return refuse(&t, "a + after {n}", e);
        if (n && t.s[1] == ',') {
            rc = puts_text(out, "{0", e) || put(out, t.s + 1, n - 1, e);
            t.s += n;
        } else if (*t.s == '\\')
            rc = escape(&t, out, false, e);
        else if (*t.s == '[') {
            t.s++;
            rc = class_read(&t, out, e);
        } else
            rc = put(out, t.s++, 1, e);
        if (rc) return -1;
    }
    return 0;
}
