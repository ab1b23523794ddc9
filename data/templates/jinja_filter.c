/* jinja_filter.c: filters of single values, and how calls find their arguments. A filter that Jinja
 * has and these tables have not is refused by name when the template is read. */
#include "data/templates/jinja.h"

#include <stdlib.h>
#include <string.h>

static struct argument *arg_find(struct call *c, i64 index, const char *name) {
    for (i64 i = 0, at = 0; i < c->count; i++) {
        struct argument *a = c->item + i;
        if (a->name.data ? name && bytes_are(a->name, name) : at++ == index) return a;
    }
    return NULL;
}

struct value arg(struct call *c, i64 index, const char *name, struct value otherwise) {
    struct argument *a = arg_find(c, index, name);
    if (!a) return otherwise;
    return a->taken = true, a->value;
}
bool given(struct call *c, i64 index, const char *name) { return arg_find(c, index, name) != NULL; }

void call_done(struct render *r, struct call *c) {
    for (i64 i = 0; i < c->count; i++) {
        const struct argument *a = c->item + i;
        if (a->taken) continue;
        if (a->name.data)
            jinja_fail(r, "'%.*s' takes no argument '%.*s'", (int)c->name.size, c->name.data,
                       (int)i64_min(a->name.size, 40), a->name.data);
        else
            jinja_fail(r, "'%.*s' takes fewer than %lld arguments", (int)c->name.size, c->name.data,
                       (long long)i + 1);
    }
}

static struct bytes text_arg(struct render *r, struct call *c, i64 index, const char *name,
                             const char *otherwise) {
    return text_of(r, arg(c, index, name, v_text(otherwise, (i64)strlen(otherwise)))).as.text;
}
static i64 int_arg(struct render *r, struct call *c, i64 index, const char *name, i64 otherwise) {
    const struct value v = arg(c, index, name, v_int(otherwise));
    if (!is_integer(v))
        jinja_fail(r, "%.*s: '%s' is no integer", (int)c->name.size, c->name.data, name);
    return is_integer(v) ? integer_of(v) : 0;
}

static struct value f_length(struct render *r, struct value in, struct call *c) {
    return (void)c, v_int(length_of(r, in));
}
static struct value f_lower(struct render *r, struct value in, struct call *c) {
    return (void)c, to_case(r, text_of(r, in).as.text, LOWER);
}
static struct value f_upper(struct render *r, struct value in, struct call *c) {
    return (void)c, to_case(r, text_of(r, in).as.text, UPPER);
}
static struct value f_capitalize(struct render *r, struct value in, struct call *c) {
    return (void)c, to_case(r, text_of(r, in).as.text, FIRST);
}
static struct value f_title(struct render *r, struct value in, struct call *c) {
    return (void)c, to_case(r, text_of(r, in).as.text, TITLE);
}
static struct value f_string(struct render *r, struct value in, struct call *c) {
    return (void)c, text_of(r, in);
}
static struct value f_safe(struct render *r, struct value in, struct call *c) {
    (void)c;
    in = text_of(r, in);
    return in.safe = true, in;
}
static struct value f_escape(struct render *r, struct value in, struct call *c) {
    return (void)c, escape_text(r, in);
}
static struct value f_trim(struct render *r, struct value in, struct call *c) {
    const struct value chars = arg(c, 0, "chars", v_none);
    struct value v = text_of(r, in);
    if (chars.kind != V_NONE && chars.kind != V_TEXT)
        return jinja_fail(r, "trim: 'chars' is not a text");
    jinja_step(r, v.as.text.size);
    v.as.text = strip(v.as.text, chars.kind == V_TEXT ? &chars.as.text : NULL, true, true);
    return v;
}
static struct value f_replace(struct render *r, struct value in, struct call *c) {
    const struct bytes s = text_of(r, in).as.text, old = text_arg(r, c, 0, "old", ""),
                       with = text_arg(r, c, 1, "new", "");
    if (!given(c, 1, "new")) return jinja_fail(r, "replace needs two texts");
    const struct value count = arg(c, 2, "count", v_none);
    return replace_text(r, s, old, with, is_integer(count) ? integer_of(count) : -1);
}
static struct value f_default(struct render *r, struct value in, struct call *c) {
    (void)r;
    const struct value otherwise = arg(c, 0, "default_value", v_text("", 0));
    const bool boolean = truth(arg(c, 1, "boolean", v_bool(false)));
    return in.kind == V_UNDEFINED || (boolean && !truth(in)) ? otherwise : in;
}

static struct value f_indent(struct render *r, struct value in, struct call *c) {
    const struct value width = arg(c, 0, "width", v_int(4));
    const bool first = truth(arg(c, 1, "first", v_bool(false))),
               blank = truth(arg(c, 2, "blank", v_bool(false)));
    struct text made = {0}, out = {0};
    i64 spaces = is_integer(width) ? i64_min(integer_of(width), 1 << 16) : 0;
    if (width.kind == V_TEXT) jinja_put(r, &made, width.as.text.data, width.as.text.size);
    while (spaces-- > 0) jinja_put(r, &made, " ", 1);
    const struct bytes by = v_take(r, &made).as.text, s = text_of(r, in).as.text;
    jinja_put(r, &made, s.data, s.size),
        jinja_put(r, &made, "\n", 1); /* so that one at the end stays */
    const struct list *lines = items_of(r, split_lines(r, v_take(r, &made).as.text));
    if (first) jinja_put(r, &out, by.data, by.size);
    for (i64 i = 0; i < lines->count && !r->failed; i++) {
        const struct bytes line = lines->item[i].as.text;
        if (i) jinja_put(r, &out, "\n", 1);
        if (i && (blank || line.size)) jinja_put(r, &out, by.data, by.size);
        jinja_put(r, &out, line.data, line.size);
    }
    return v_take(r, &out);
}

static struct value f_tojson(struct render *r, struct value in, struct call *c) {
    const struct value indent = arg(c, 1, "indent", v_none),
                       separators = arg(c, 2, "separators", v_none);
    struct json_form f = {.ascii = truth(arg(c, 0, "ensure_ascii", v_bool(false))),
                          .sorted = truth(arg(c, 3, "sort_keys", v_bool(false)))};
    struct text spaces = {0}, out = {0};
    if (indent.kind == V_TEXT) f.indent = indent.as.text;
    if (is_integer(indent)) {
        i64 n = i64_min(integer_of(indent), 1 << 16);
        while (n-- > 0 && !r->failed) jinja_put(r, &spaces, " ", 1);
        f.indent = v_take(r, &spaces).as.text;
    } else if (indent.kind != V_NONE && indent.kind != V_TEXT) {
        return jinja_fail(r, "tojson: 'indent' is neither a number nor a text");
    }
    f.item = f.indent.data ? "," : ", ", f.key = ": ";
    if (separators.kind == V_LIST && separators.as.list->count == 2 &&
        separators.as.list->item[0].kind == V_TEXT && separators.as.list->item[1].kind == V_TEXT) {
        const struct bytes item = separators.as.list->item[0].as.text,
                           key = separators.as.list->item[1].as.text;
        f.item = v_copy(r, item.data, item.size).as.text.data; /* copies end with a NUL */
        f.key = v_copy(r, key.data, key.size).as.text.data;
    } else if (separators.kind != V_NONE) {
        return jinja_fail(r, "tojson: 'separators' is not a pair of texts");
    }
    print_json(r, &out, in, &f, 0);
    return v_take(r, &out);
}

/* A number as Python's int(text, base) and float(text) read one: blanks around, _ between digits.
 */
static bool clean_number(struct bytes s, char *out, i64 room) {
    i64 n = 0;
    s = strip(s, NULL, true, true);
    for (i64 i = 0; i < s.size; i++) {
        if (n + 1 >= room || (u8)s.data[i] < 33 || (u8)s.data[i] > 126) return false;
        const bool under = s.data[i] == '_';
        if (under && (!i || i + 1 == s.size || !strchr("0123456789", s.data[i - 1]) ||
                      !strchr("0123456789", s.data[i + 1])))
            return false;
        if (!under) out[n++] = s.data[i];
    }
    out[n] = 0;
    return n > 0;
}
static bool read_int(struct bytes s, i64 base, i64 *out) {
    char text[80], *rest;
    if (!clean_number(s, text, sizeof text) || base < 2 || base > 36) return false;
    *out = strtoll(text, &rest, (int)base);
    return !*rest && *out != INT64_MAX && *out != INT64_MIN;
}
static bool read_real(struct bytes s, double *out) {
    char text[400], *rest;
    if (!clean_number(s, text, sizeof text) || strpbrk(text, "xXpP(")) return false;
    *out = strtod(text, &rest);
    return !*rest;
}

static struct value f_int(struct render *r, struct value in, struct call *c) {
    const struct value otherwise = arg(c, 0, "default", v_int(0));
    i64 whole = 0, base = int_arg(r, c, 1, "base", 10);
    double x = 0;
    if (in.kind == V_UNDEFINED)
        return jinja_fail(r, "'%.*s' is undefined", (int)in.as.text.size, in.as.text.data);
    if (is_integer(in)) return v_int(integer_of(in));
    if (in.kind == V_TEXT && read_int(in.as.text, base, &whole)) return v_int(whole);
    for (i64 at = 0, code; in.kind == V_TEXT && at < in.as.text.size;)
        if ((code = utf8_next(in.as.text.data, in.as.text.size, &at)) > 127 && is_digit(code))
            return jinja_fail(r, "int: digits beyond ASCII are not supported");
    if (in.kind == V_FLOAT)
        x = in.as.real;
    else if (in.kind != V_TEXT || !read_real(in.as.text, &x))
        return otherwise;
    if (x != x || x - x != 0) return otherwise;
    if (x >= 0x1p63 || x < -0x1p63) return jinja_fail(r, "int: %g has more than 64 bits", x);
    return v_int((i64)x);
}
static struct value f_float(struct render *r, struct value in, struct call *c) {
    const struct value otherwise = arg(c, 0, "default", v_real(0));
    double x = 0;
    if (in.kind == V_UNDEFINED)
        return jinja_fail(r, "'%.*s' is undefined", (int)in.as.text.size, in.as.text.data);
    if (is_number(in)) return v_real(real_of(in));
    return in.kind == V_TEXT && read_real(in.as.text, &x) ? v_real(x) : otherwise;
}
static struct value f_abs(struct render *r, struct value in, struct call *c) {
    (void)c;
    if (is_integer(in) && integer_of(in) != INT64_MIN)
        return v_int(integer_of(in) < 0 ? -integer_of(in) : integer_of(in));
    if (in.kind != V_FLOAT) return jinja_fail(r, "abs of a '%s'", type_name(in));
    return v_real(in.as.real < 0 ? -in.as.real : in.as.real);
}
/* round(x, 0, "common"): the nearest whole number, halves to even; other precisions by decimal
 * text, which rounds as Python does. */
static struct value f_round(struct render *r, struct value in, struct call *c) {
    const i64 places = int_arg(r, c, 0, "precision", 0);
    const struct bytes how = text_arg(r, c, 1, "method", "common");
    if (!is_number(in) || !bytes_are(how, "common") || places < 0 || places > 15)
        return jinja_fail(r, "round of a '%s' with these arguments is not supported",
                          type_name(in));
    char text[400];
    snprintf(text, sizeof text, "%.*f", (int)places, real_of(in));
    const struct value v = v_real(strtod(text, NULL));
    return is_integer(in) ? v_int(integer_of(in)) : v;
}

static const struct filter filters[] = {{"length", f_length},
                                        {"count", f_length},
                                        {"lower", f_lower},
                                        {"upper", f_upper},
                                        {"capitalize", f_capitalize},
                                        {"title", f_title},
                                        {"string", f_string},
                                        {"safe", f_safe},
                                        {"escape", f_escape},
                                        {"e", f_escape},
                                        {"trim", f_trim},
                                        {"replace", f_replace},
                                        {"default", f_default},
                                        {"d", f_default},
                                        {"indent", f_indent},
                                        {"tojson", f_tojson},
                                        {"int", f_int},
                                        {"float", f_float},
                                        {"abs", f_abs},
                                        {"round", f_round}};

const struct filter *filter_find(struct bytes name) {
    for (int i = 0; i < COUNT(filters); i++)
        if (bytes_are(name, filters[i].name)) return &filters[i];
    for (const struct filter *f = list_filters; f->name; f++)
        if (bytes_are(name, f->name)) return f;
    return NULL;
}
