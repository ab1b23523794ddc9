/* jinja_text.c: what Python's str does, over UTF-8: white space, lines, case, and the methods that
 * templates call. Case follows the single-character mappings of Unicode; a character whose Python
 * mapping is several characters or depends on its neighbours is refused. */
#include "data/templates/jinja.h"

#include <string.h>
#include <utf8proc.h>

bool is_blank(i64 c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

i64 code_count(struct bytes s) {
    i64 n = 0;
    for (i64 i = 0; i < s.size; i++) n += (s.data[i] & 0xc0) != 0x80;
    return n;
}

i64 code_offset(struct bytes s, i64 index) {
    i64 at = 0;
    for (; at < s.size; at++)
        if ((s.data[at] & 0xc0) != 0x80 && index-- == 0) break;
    return at;
}

static i64 code_back(struct bytes s, i64 end, i64 *from) { /* the code point that ends at `end` */
    i64 at = end - 1;
    while (at > 0 && (s.data[at] & 0xc0) == 0x80) at--;
    *from = at;
    return utf8_next(s.data, s.size, &at);
}

static bool stripped(const struct bytes *what, i64 code) {
    if (!what) return is_blank(code);
    for (i64 at = 0; at < what->size;)
        if (utf8_next(what->data, what->size, &at) == code) return true;
    return false;
}

struct bytes strip(struct bytes s, const struct bytes *what, bool left, bool right) {
    i64 from = 0, end = s.size, next;
    while (left && from < end) {
        next = from;
        if (!stripped(what, utf8_next(s.data, end, &next))) break;
        from = next;
    }
    while (right && end > from) {
        const i64 code = code_back(s, end, &next);
        if (!stripped(what, code)) break;
        end = next;
    }
    return (struct bytes){s.data + from, end - from};
}

static bool line_end(i64 c) {
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

struct value split_lines(struct render *r, struct bytes s) {
    struct value list = v_list(r, LIST);
    i64 from = 0;
    for (i64 at = 0; at < s.size && jinja_step(r, 1);) {
        const i64 end = at, code = utf8_next(s.data, s.size, &at);
        if (!line_end(code)) continue;
        if (code == '\r' && at < s.size && s.data[at] == '\n') at++;
        list_add(r, list, v_text(s.data + from, end - from));
        from = at;
    }
    if (from < s.size) list_add(r, list, v_text(s.data + from, s.size - from));
    return list;
}

static bool several(i64 c, bool upper) { /* has more than a single-character mapping */
    if (!upper) return c == 0x130 || c == 0x3a3;
    return c == 0xdf || c == 0x149 || c == 0x1f0 || c == 0x390 || c == 0x3b0 || c == 0x587 ||
           (c >= 0x1e96 && c <= 0x1e9a) || (c >= 0x1f50 && c <= 0x1fff) ||
           (c >= 0xfb00 && c <= 0xfb17);
}

struct value to_case(struct render *r, struct bytes s, enum letter_case how) {
    struct text out = {0};
    bool start = true;
    for (i64 at = 0; at < s.size && !r->failed;) {
        char utf8[4];
        const int code = utf8_next(s.data, s.size, &at);
        const bool upper = how == UPPER || (start && how >= FIRST);
        if (several(code, upper)) {
            jinja_fail(r, "the case of U+%04X depends on more than itself, which is not supported",
                       (unsigned)code);
            break;
        }
        const i32 made = upper ? utf8proc_toupper(code) : utf8proc_tolower(code);
        jinja_put(r, &out, utf8, utf8_put((u32)made, utf8));
        /* the filter `title` starts words after blanks and - ( { [ < */
        start = how == TITLE && (is_blank(code) || (code < 128 && strchr("-({[<", code)));
    }
    return v_take(r, &out);
}

struct value replace_text(struct render *r, struct bytes s, struct bytes old, struct bytes with,
                          i64 count) {
    struct text out = {0};
    i64 at = 0;
    while (!r->failed && count != 0) {
        const char *hit =
            old.size ? memmem(s.data + at, (size_t)(s.size - at), old.data, (size_t)old.size)
                     : s.data + at;
        if (!hit) break;
        jinja_put(r, &out, s.data + at, hit - s.data - at);
        jinja_put(r, &out, with.data, with.size);
        at = hit - s.data + old.size, count--;
        if (old.size) continue;
        if (at >= s.size) break; /* between all characters, and at both ends */
        const i64 from = at;
        utf8_next(s.data, s.size, &at);
        jinja_put(r, &out, s.data + from, at - from);
    }
    jinja_put(r, &out, s.data + at, s.size - at);
    return v_take(r, &out);
}

struct value escape_text(struct render *r, struct value v) {
    static const char plain[] = "&<>'\"";
    static const char *const shown[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    if (v.kind == V_TEXT && v.safe) return v;
    const struct bytes s = text_of(r, v).as.text;
    struct text out = {0};
    for (i64 i = 0; i < s.size && !r->failed; i++) {
        const char *found = s.data[i] ? strchr(plain, s.data[i]) : NULL;
        const char *with = found ? shown[found - plain] : s.data + i;
        jinja_put(r, &out, with, found ? (i64)strlen(with) : 1);
    }
    v = v_take(r, &out);
    return v.safe = true, v;
}

/* ---- methods */

static struct bytes text_arg(struct render *r, struct call *c, i64 index, const char *name) {
    const struct value v = arg(c, index, name, v_none);
    if (v.kind == V_TEXT) return v.as.text;
    jinja_fail(r, "%.*s: expected a text as argument %lld, found %s", (int)c->name.size,
               c->name.data, (long long)index + 1, type_name(v));
    return (struct bytes){"", 0};
}
static i64 int_arg(struct render *r, struct call *c, i64 index, const char *name, i64 otherwise) {
    const struct value v = arg(c, index, name, v_int(otherwise));
    if (!is_integer(v)) jinja_fail(r, "%.*s: expected an integer", (int)c->name.size, c->name.data);
    return is_integer(v) ? integer_of(v) : 0;
}

typedef struct value text_method(struct render *r, struct bytes s, struct call *c);

static struct value m_strip_ends(struct render *r, struct bytes s, struct call *c, bool left,
                                 bool right) {
    const bool what = arg(c, 0, "chars", v_none).kind != V_NONE;
    const struct bytes chars = what ? text_arg(r, c, 0, "chars") : (struct bytes){"", 0};
    jinja_step(r, s.size + 8 * chars.size);
    s = strip(s, what ? &chars : NULL, left, right);
    return v_text(s.data, s.size);
}
static struct value m_strip(struct render *r, struct bytes s, struct call *c) {
    return m_strip_ends(r, s, c, true, true);
}
static struct value m_lstrip(struct render *r, struct bytes s, struct call *c) {
    return m_strip_ends(r, s, c, true, false);
}
static struct value m_rstrip(struct render *r, struct bytes s, struct call *c) {
    return m_strip_ends(r, s, c, false, true);
}

static bool ends_in(struct bytes s, struct bytes with, bool front) {
    return with.size <= s.size &&
           !memcmp(front ? s.data : s.data + s.size - with.size, with.data, (size_t)with.size);
}
static struct value m_with(struct render *r, struct bytes s, struct call *c, bool front) {
    const struct value v = arg(c, 0, "prefix", v_none);
    if (v.kind != V_LIST || v.as.list->form != TUPLE)
        return v_bool(ends_in(s, text_arg(r, c, 0, "prefix"), front));
    for (i64 i = 0; i < v.as.list->count; i++)
        if (v.as.list->item[i].kind == V_TEXT && ends_in(s, v.as.list->item[i].as.text, front))
            return v_bool(true);
    return v_bool(false);
}
static struct value m_startswith(struct render *r, struct bytes s, struct call *c) {
    return m_with(r, s, c, true);
}
static struct value m_endswith(struct render *r, struct bytes s, struct call *c) {
    return m_with(r, s, c, false);
}
static struct value m_removeprefix(struct render *r, struct bytes s, struct call *c) {
    const struct bytes p = text_arg(r, c, 0, "prefix");
    return ends_in(s, p, true) ? v_text(s.data + p.size, s.size - p.size) : v_text(s.data, s.size);
}
static struct value m_removesuffix(struct render *r, struct bytes s, struct call *c) {
    const struct bytes p = text_arg(r, c, 0, "suffix");
    return v_text(s.data, s.size - (ends_in(s, p, false) ? p.size : 0));
}

/* At blanks: runs count as one, and none at the ends. */
static struct value split_blank(struct render *r, struct bytes s, i64 most) {
    struct value list = v_list(r, LIST);
    for (s = strip(s, NULL, true, false); s.size && !r->failed; s = strip(s, NULL, true, false)) {
        i64 end = 0, next = 0;
        while (next < s.size && jinja_step(r, 1)) {
            if (is_blank(utf8_next(s.data, s.size, &next))) break;
            end = next;
        }
        if (most == 0) end = s.size;
        list_add(r, list, v_text(s.data, end));
        s.data += end, s.size -= end, most--;
    }
    return list;
}
static struct value m_split(struct render *r, struct bytes s, struct call *c) {
    const bool blank = arg(c, 0, "sep", v_none).kind == V_NONE;
    i64 most = int_arg(r, c, 1, "maxsplit", -1);
    if (blank) return split_blank(r, s, most);
    const struct bytes sep = text_arg(r, c, 0, "sep");
    struct value list = v_list(r, LIST);
    if (!sep.size) return jinja_fail(r, "split: empty separator");
    while (most != 0 && jinja_step(r, s.size)) {
        const char *hit = memmem(s.data, (size_t)s.size, sep.data, (size_t)sep.size);
        if (!hit) break;
        list_add(r, list, v_text(s.data, hit - s.data));
        s.size -= hit - s.data + sep.size, s.data = hit + sep.size, most--;
    }
    list_add(r, list, v_text(s.data, s.size));
    return list;
}
static struct value m_rsplit(struct render *r, struct bytes s, struct call *c) {
    const struct bytes sep = text_arg(r, c, 0, "sep");
    i64 most = int_arg(r, c, 1, "maxsplit", -1);
    if (r->failed || !sep.size) return jinja_fail(r, "rsplit needs a separator");
    struct value back = v_list(r, LIST), list = v_list(r, LIST);
    for (i64 at = s.size - sep.size; at >= 0 && most != 0 && jinja_step(r, 0); at--) {
        if (memcmp(s.data + at, sep.data, (size_t)sep.size)) continue;
        list_add(r, back, v_text(s.data + at + sep.size, s.size - at - sep.size));
        s.size = at, at -= sep.size - 1, most--;
    }
    list_add(r, list, v_text(s.data, s.size));
    for (i64 i = back.as.list->count; i-- > 0;) list_add(r, list, back.as.list->item[i]);
    return list;
}
static struct value m_splitlines(struct render *r, struct bytes s, struct call *c) {
    (void)c;
    return split_lines(r, s);
}
static struct value m_replace(struct render *r, struct bytes s, struct call *c) {
    const struct bytes old = text_arg(r, c, 0, "old"), with = text_arg(r, c, 1, "new");
    return replace_text(r, s, old, with, int_arg(r, c, 2, "count", -1));
}
static struct value m_upper(struct render *r, struct bytes s, struct call *c) {
    return (void)c, to_case(r, s, UPPER);
}
static struct value m_lower(struct render *r, struct bytes s, struct call *c) {
    return (void)c, to_case(r, s, LOWER);
}
static struct value m_capitalize(struct render *r, struct bytes s, struct call *c) {
    return (void)c, to_case(r, s, FIRST);
}
static struct value m_find(struct render *r, struct bytes s, struct call *c) {
    const struct bytes what = text_arg(r, c, 0, "sub");
    jinja_step(r, s.size);
    const char *hit = memmem(s.data, (size_t)s.size, what.data, (size_t)what.size);
    return v_int(hit ? code_count((struct bytes){s.data, hit - s.data}) : -1);
}
static struct value m_count(struct render *r, struct bytes s, struct call *c) {
    const struct bytes what = text_arg(r, c, 0, "sub");
    i64 n = 0;
    if (!what.size) return v_int(code_count(s) + 1);
    for (const char *hit; jinja_step(r, s.size); n++) {
        if (!(hit = memmem(s.data, (size_t)s.size, what.data, (size_t)what.size))) break;
        s.size -= hit - s.data + what.size, s.data = hit + what.size;
    }
    return v_int(n);
}
static struct value m_join(struct render *r, struct bytes s, struct call *c) {
    const struct list *l = items_of(r, arg(c, 0, "iterable", v_none));
    struct text out = {0};
    for (i64 i = 0; i < l->count && !r->failed; i++) {
        if (l->item[i].kind != V_TEXT)
            jinja_fail(r, "join: item %lld is '%s', expected a text", (long long)i,
                       type_name(l->item[i]));
        if (i) jinja_put(r, &out, s.data, s.size);
        if (!r->failed) jinja_put(r, &out, l->item[i].as.text.data, l->item[i].as.text.size);
    }
    return v_take(r, &out);
}
static struct value all_of(struct render *r, struct bytes s, bool (*is)(i64)) {
    jinja_step(r, s.size);
    for (i64 at = 0; at < s.size;)
        if (!is(utf8_next(s.data, s.size, &at))) return v_bool(false);
    return v_bool(s.size > 0);
}
bool is_digit(i64 c) { return utf8proc_category((i32)c) == UTF8PROC_CATEGORY_ND; }
static bool is_letter(i64 c) {
    const int k = utf8proc_category((i32)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
static struct value m_isdigit(struct render *r, struct bytes s, struct call *c) {
    return (void)c, all_of(r, s, is_digit);
}
static struct value m_isalpha(struct render *r, struct bytes s, struct call *c) {
    return (void)c, all_of(r, s, is_letter);
}
static struct value m_isspace(struct render *r, struct bytes s, struct call *c) {
    return (void)c, all_of(r, s, is_blank);
}

static const struct {
    const char *name;
    text_method *run;
} methods[] = {{"strip", m_strip},
               {"lstrip", m_lstrip},
               {"rstrip", m_rstrip},
               {"startswith", m_startswith},
               {"endswith", m_endswith},
               {"removeprefix", m_removeprefix},
               {"removesuffix", m_removesuffix},
               {"split", m_split},
               {"rsplit", m_rsplit},
               {"splitlines", m_splitlines},
               {"replace", m_replace},
               {"upper", m_upper},
               {"lower", m_lower},
               {"capitalize", m_capitalize},
               {"find", m_find},
               {"count", m_count},
               {"join", m_join},
               {"isdigit", m_isdigit},
               {"isalpha", m_isalpha},
               {"isspace", m_isspace}};

/* What Python's str can do besides, so that it is refused by name. */
static const char *const absent[] = {
    "casefold", "center",    "encode",    "expandtabs", "format",    "format_map",
    "index",    "isalnum",   "islower",   "isupper",    "isnumeric", "isdecimal",
    "ljust",    "partition", "rfind",     "rindex",     "rjust",     "rpartition",
    "swapcase", "title",     "translate", "zfill",      NULL};
/* Python's methods that change what they are called on: the sandbox refuses them, and so do we. */
static const char *const list_methods[] = {"index", "count", "copy", NULL},
                         *const dict_methods[] = {"get", "items", "keys", "values", "copy", NULL},
                         *const changing[] = {"append", "clear",   "extend",  "insert",
                                              "pop",    "popitem", "remove",  "setdefault",
                                              "sort",   "update",  "reverse", NULL};

static bool listed(const char *const *names, struct bytes name) {
    while (*names && !bytes_are(name, *names)) names++;
    return *names != NULL;
}

bool has_method(struct value v, struct bytes name) {
    if (v.kind == V_TEXT)
        for (int i = 0; i < COUNT(methods); i++)
            if (bytes_are(name, methods[i].name)) return true;
    if (v.kind == V_TEXT) return listed(absent, name);
    if (v.kind == V_LIST && v.as.list->form <= TUPLE)
        return listed(list_methods, name) || (v.as.list->form == LIST && listed(changing, name));
    return v.kind == V_DICT && (listed(dict_methods, name) || listed(changing, name));
}

static struct value dict_method(struct render *r, const struct dict *d, struct bytes name,
                                struct call *c) {
    if (bytes_are(name, "get")) {
        const struct value otherwise = arg(c, 1, "default", v_none);
        const struct value *found = dict_find(r, d, arg(c, 0, NULL, v_none));
        return found ? *found : otherwise;
    }
    if (bytes_are(name, "copy")) {
        struct value copy = v_dict(r);
        for (i64 i = 0; i < d->count && !r->failed; i++)
            dict_set(r, copy.as.dict, d->pair[i].key, d->pair[i].value);
        return copy;
    }
    struct value list = v_list(r, VIEW);
    for (i64 i = 0; i < d->count && !r->failed; i++) {
        struct value item = bytes_are(name, "keys") ? d->pair[i].key : d->pair[i].value;
        if (bytes_are(name, "items")) {
            item = v_list(r, TUPLE);
            list_add(r, item, d->pair[i].key), list_add(r, item, d->pair[i].value);
        }
        list_add(r, list, item);
    }
    return list;
}

static struct value list_method(struct render *r, const struct list *l, struct bytes name,
                                struct call *c) {
    i64 n = 0;
    struct value copy = v_list(r, l->form);
    const bool copies = bytes_are(name, "copy");
    const struct value what = copies ? v_none : arg(c, 0, NULL, v_none);
    for (i64 i = 0; i < l->count && jinja_step(r, 0); i++) {
        if (copies)
            list_add(r, copy, l->item[i]);
        else if (equal(r, l->item[i], what) && (n++, bytes_are(name, "index")))
            return v_int(i);
    }
    if (copies) return copy;
    return bytes_are(name, "count") ? v_int(n)
                                    : jinja_fail(r, "index: the value is not in the list");
}

struct value call_method(struct render *r, const struct method *m, struct call *c) {
    const struct value v = m->self;
    c->name = m->name;
    struct value out = v_none;
    if (v.kind == V_TEXT) {
        int i = 0;
        if (listed(absent, m->name))
            return jinja_fail(r, "the method '%.*s' is not supported", (int)m->name.size,
                              m->name.data);
        while (!bytes_are(m->name, methods[i].name)) i++;
        out = methods[i].run(r, v.as.text, c);
    } else if (listed(changing, m->name)) {
        return jinja_fail(r, "'%.*s' changes a %s, which the sandbox of templates does not allow",
                          (int)m->name.size, m->name.data, type_name(v));
    } else {
        out = v.kind == V_DICT ? dict_method(r, v.as.dict, m->name, c)
                               : list_method(r, v.as.list, m->name, c);
    }
    return call_done(r, c), out;
}
