/* jinja_print.c: values as text: Python's str and repr, and json.dumps. */
#include "data/templates/jinja.h"

#include <string.h>
#include <utf8proc.h>

void jinja_put(struct render *r, struct text *out, const char *data, i64 size) {
    r->bytes += size;
    if (!r->failed && r->bytes > jinja_bytes)
        jinja_fail(r, "the template makes more than %lld bytes", (long long)jinja_bytes);
    if (jinja_step(r, size) && text_add(out, data, size, r->e)) r->failed = true;
}
static void put_text(struct render *r, struct text *out, const char *text) {
    jinja_put(r, out, text, (i64)strlen(text));
}

/* str.isprintable: not a separator, control, format, surrogate, private or unassigned code point,
 * except the space. */
static bool printable(i32 code) {
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return code == ' ';
    default: return true;
    }
}

static void repr_text(struct render *r, struct text *out, struct bytes s) {
    const bool single = s.size && memchr(s.data, '\'', (size_t)s.size),
               twice = s.size && memchr(s.data, '"', (size_t)s.size);
    const char quote = single && !twice ? '"' : '\'';
    jinja_put(r, out, &quote, 1);
    for (i64 at = 0, from = 0; at < s.size && !r->failed; from = at) {
        const int code = utf8_next(s.data, s.size, &at);
        char shown[16] = "";
        if (code == quote || code == '\\')
            snprintf(shown, sizeof shown, "\\%c", code);
        else if (code == '\n' || code == '\r' || code == '\t')
            snprintf(shown, sizeof shown, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
        else if (!printable(code))
            snprintf(shown, sizeof shown,
                     code < 256     ? "\\x%02x"
                     : code < 65536 ? "\\u%04x"
                                    : "\\U%08x",
                     (unsigned)code);
        if (*shown)
            put_text(r, out, shown);
        else
            jinja_put(r, out, s.data + from, at - from);
    }
    jinja_put(r, out, &quote, 1);
}

static void print_list(struct render *r, struct text *out, const struct list *l) {
    if (l->form > TUPLE) {
        static const char *const form[] = {"range", "view", "generator"};
        jinja_fail(r, "printing a %s is not supported: use the filter 'list'",
                   form[l->form - RANGE]);
        return;
    }
    jinja_put(r, out, l->form == TUPLE ? "(" : "[", 1);
    for (i64 i = 0; i < l->count && !r->failed; i++) {
        if (i) jinja_put(r, out, ", ", 2);
        jinja_print(r, out, l->item[i], true);
    }
    if (l->form == TUPLE && l->count == 1) jinja_put(r, out, ",", 1);
    jinja_put(r, out, l->form == TUPLE ? ")" : "]", 1);
}

static void print_dict(struct render *r, struct text *out, const struct dict *d) {
    jinja_put(r, out, "{", 1);
    for (i64 i = 0; i < d->count && !r->failed; i++) {
        if (i) jinja_put(r, out, ", ", 2);
        jinja_print(r, out, d->pair[i].key, true);
        jinja_put(r, out, ": ", 2);
        jinja_print(r, out, d->pair[i].value, true);
    }
    jinja_put(r, out, "}", 1);
}

void jinja_print(struct render *r, struct text *out, struct value v, bool repr) {
    char number[32];
    if (!deeper(r)) return (void)r->depth--;
    switch (v.kind) {
    case V_UNDEFINED:
        if (repr) put_text(r, out, "Undefined");
        break;
    case V_NONE: put_text(r, out, "None"); break;
    case V_BOOL: put_text(r, out, v.as.truth ? "True" : "False"); break;
    case V_INT:
        snprintf(number, sizeof number, "%lld", (long long)v.as.integer);
        put_text(r, out, number);
        break;
    case V_FLOAT:
        if (jinja_step(r, 0) && text_f64(out, v.as.real, r->e)) r->failed = true;
        break;
    case V_TEXT:
        if (repr && v.safe)
            jinja_fail(r, "printing a list with a text marked 'safe' in it is not supported");
        else if (repr)
            repr_text(r, out, v.as.text);
        else
            jinja_put(r, out, v.as.text.data, v.as.text.size);
        break;
    case V_LIST: print_list(r, out, v.as.list); break;
    case V_DICT: print_dict(r, out, v.as.dict); break;
    default: jinja_fail(r, "printing a %s is not supported", type_name(v));
    }
    r->depth--;
}

struct value text_of(struct render *r, struct value v) {
    if (v.kind == V_TEXT) return v;
    struct text t = {0};
    jinja_print(r, &t, v, false);
    return v_take(r, &t);
}

/* ---- json.dumps */

static void json_quoted(struct render *r, struct text *out, struct bytes s, bool ascii) {
    r->bytes += s.size;
    if (!jinja_step(r, s.size)) return;
    if (!ascii) {
        if (json_text_add(out, s.data, s.size, r->e)) r->failed = true;
        return;
    }
    struct text plain = {0};
    if (json_text_add(&plain, s.data, s.size, r->e)) r->failed = true;
    for (i64 at = 0, from = 0; at < plain.size && !r->failed; from = at) {
        const int code = utf8_next(plain.data, plain.size, &at);
        char shown[16];
        if (code < 128) {
            jinja_put(r, out, plain.data + from, at - from);
            continue;
        }
        if (code < 0x10000)
            snprintf(shown, sizeof shown, "\\u%04x", (unsigned)code);
        else
            snprintf(shown, sizeof shown, "\\u%04x\\u%04x",
                     0xd800u + (unsigned)(code - 0x10000) / 1024,
                     0xdc00u + (unsigned)(code - 0x10000) % 1024);
        put_text(r, out, shown);
    }
    text_free(&plain);
}

static void json_number(struct render *r, struct text *out, double x) {
    if (x != x || x - x != 0)
        put_text(r, out, x != x ? "NaN" : x < 0 ? "-Infinity" : "Infinity");
    else if (jinja_step(r, 0) && text_f64(out, x, r->e))
        r->failed = true;
}

static void json_break(struct render *r, struct text *out, const struct json_form *f, i64 level) {
    if (!f->indent.data) return;
    jinja_put(r, out, "\n", 1);
    for (i64 i = 0; i < level && !r->failed; i++) jinja_put(r, out, f->indent.data, f->indent.size);
}

static void json_key(struct render *r, struct text *out, struct value key,
                     const struct json_form *f) {
    if (key.kind == V_TEXT) return json_quoted(r, out, key.as.text, f->ascii);
    if (key.kind != V_NONE && !is_number(key))
        return (void)jinja_fail(r, "tojson: a key that is a %s", type_name(key));
    jinja_put(r, out, "\"", 1);
    print_json(r, out, key, f, 0);
    jinja_put(r, out, "\"", 1);
}

static void json_dict(struct render *r, struct text *out, const struct dict *d,
                      const struct json_form *f, i64 level) {
    struct value keys = v_list(r, LIST);
    for (i64 i = 0; f->sorted && i < d->count; i++) { /* insertion sort: schemas are small */
        i64 at = keys.as.list->count;
        list_add(r, keys, v_int(i));
        for (; at > 0 && !r->failed; at--) {
            struct value *p = keys.as.list->item + at;
            if (jinja_order(r, d->pair[p[-1].as.integer].key, d->pair[i].key) <= 0) break;
            *p = p[-1], p[-1] = v_int(i);
            jinja_step(r, 0);
        }
    }
    jinja_put(r, out, "{", 1);
    for (i64 i = 0; i < d->count && !r->failed; i++) {
        const struct pair *p = d->pair + (f->sorted ? keys.as.list->item[i].as.integer : i);
        if (i) put_text(r, out, f->item);
        json_break(r, out, f, level + 1);
        json_key(r, out, p->key, f);
        put_text(r, out, f->key);
        print_json(r, out, p->value, f, level + 1);
    }
    if (d->count) json_break(r, out, f, level);
    jinja_put(r, out, "}", 1);
}

void print_json(struct render *r, struct text *out, struct value v, const struct json_form *f,
                i64 level) {
    if (!deeper(r)) return (void)r->depth--;
    if (v.kind == V_TEXT) {
        json_quoted(r, out, v.as.text, f->ascii);
    } else if (v.kind == V_NONE || v.kind == V_BOOL) {
        put_text(r, out, v.kind == V_NONE ? "null" : v.as.truth ? "true" : "false");
    } else if (v.kind == V_INT) {
        jinja_print(r, out, v, false);
    } else if (v.kind == V_FLOAT) {
        json_number(r, out, v.as.real);
    } else if (v.kind == V_DICT) {
        json_dict(r, out, v.as.dict, f, level);
    } else if (v.kind == V_LIST && v.as.list->form <= TUPLE) {
        const struct list *l = v.as.list;
        jinja_put(r, out, "[", 1);
        for (i64 i = 0; i < l->count && !r->failed; i++) {
            if (i) put_text(r, out, f->item);
            json_break(r, out, f, level + 1);
            print_json(r, out, l->item[i], f, level + 1);
        }
        if (l->count) json_break(r, out, f, level);
        jinja_put(r, out, "]", 1);
    } else {
        jinja_fail(r, "tojson: an object of type %s is not JSON", type_name(v));
    }
    r->depth--;
}
