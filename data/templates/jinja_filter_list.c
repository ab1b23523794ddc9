/* jinja_filter_list.c: filters over lists and mappings. What Jinja makes lazily is made at once
 * here but keeps a generator's manners: true even if empty, without length, readable once. */
#include "data/templates/jinja.h"

#include <string.h>

/* item.a.0.b as `attribute="a.0.b"` means it. */
static struct value attribute_path(struct render *r, struct value of, struct value path,
                                   struct value otherwise) {
    if (path.kind == V_NONE) return of;
    if (is_integer(path)) return subscript(r, of, path);
    if (path.kind != V_TEXT)
        return jinja_fail(r, "an attribute name that is a '%s'", type_name(path));
    for (struct bytes s = path.as.text; s.size >= 0 && !r->failed;) {
        const char *dot = s.size ? memchr(s.data, '.', (size_t)s.size) : NULL;
        const struct bytes part = {s.data, dot ? dot - s.data : s.size};
        i64 number = 0, digits = 0;
        while (digits < part.size && digits < 9 && part.data[digits] >= '0' &&
               part.data[digits] <= '9')
            number = number * 10 + part.data[digits++] - '0';
        of = subscript(
            r, of, digits && digits == part.size ? v_int(number) : v_text(part.data, part.size));
        if (of.kind == V_UNDEFINED && otherwise.kind != V_NONE) of = otherwise;
        if (!dot) break;
        s.size -= part.size + 1, s.data = dot + 1;
    }
    return of;
}

static struct value folded(struct render *r, struct value v, bool case_sensitive) {
    return v.kind == V_TEXT && !case_sensitive ? to_case(r, v.as.text, LOWER) : v;
}

/* Stable, by keys; the item is moved with its key. */
static void sort_pairs(struct render *r, struct pair *p, i64 count, bool reverse) {
    struct pair *spare = jinja_make(r, count * (i64)sizeof *p);
    for (i64 width = 1; spare && width < count && !r->failed; width *= 2) {
        for (i64 from = 0; from < count; from += 2 * width) {
            const i64 middle = i64_min(from + width, count), end = i64_min(from + 2 * width, count);
            i64 a = from, b = middle;
            for (i64 at = from; at < end && jinja_step(r, 0); at++) {
                bool left = b == end;
                if (a < middle && b < end) {
                    const int o =
                        equal(r, p[a].key, p[b].key) ? 0 : jinja_order(r, p[a].key, p[b].key);
                    left = o != (reverse ? -1 : 1);
                }
                spare[at] = left ? p[a++] : p[b++];
            }
        }
        if (!r->failed) memcpy(p, spare, (size_t)count * sizeof *p);
    }
}

/* The keys and items of a list, for sorting, in memory of the rendering; NULL: empty or failed. */
static struct pair *keyed(struct render *r, const struct list *l, struct value path,
                          bool case_sensitive) {
    struct pair *p = l->count ? jinja_make(r, l->count * (i64)sizeof *p) : NULL;
    const bool several =
        path.kind == V_TEXT && memchr(path.as.text.data, ',', (size_t)path.as.text.size);
    if (several) return jinja_fail(r, "sorting by several attributes is not supported"), NULL;
    for (i64 i = 0; p && i < l->count && !r->failed; i++)
        p[i] = (struct pair){folded(r, attribute_path(r, l->item[i], path, v_none), case_sensitive),
                             l->item[i]};
    return p;
}

static struct value list_of_pairs(struct render *r, const struct pair *p, i64 count) {
    struct value list = v_list(r, LIST);
    for (i64 i = 0; p && i < count && !r->failed; i++) list_add(r, list, p[i].value);
    return list;
}

static struct value f_sort(struct render *r, struct value in, struct call *c) {
    const bool reverse = truth(arg(c, 0, "reverse", v_bool(false))),
               exact = truth(arg(c, 1, "case_sensitive", v_bool(false)));
    const struct list *l = items_of(r, in);
    struct pair *p = keyed(r, l, arg(c, 2, "attribute", v_none), exact);
    if (p) sort_pairs(r, p, l->count, reverse);
    return list_of_pairs(r, p, l->count);
}

static struct value f_dictsort(struct render *r, struct value in, struct call *c) {
    const bool exact = truth(arg(c, 0, "case_sensitive", v_bool(false)));
    const struct value by = arg(c, 1, "by", v_text("key", 3));
    const bool reverse = truth(arg(c, 2, "reverse", v_bool(false)));
    const bool value = by.kind == V_TEXT && bytes_are(by.as.text, "value");
    if (in.kind != V_DICT) return jinja_fail(r, "dictsort of a '%s'", type_name(in));
    const struct dict *d = in.as.dict;
    struct pair *p = d->count ? jinja_make(r, d->count * (i64)sizeof *p) : NULL;
    for (i64 i = 0; p && i < d->count && !r->failed; i++) {
        struct value item = v_list(r, TUPLE);
        list_add(r, item, d->pair[i].key), list_add(r, item, d->pair[i].value);
        p[i] = (struct pair){folded(r, value ? d->pair[i].value : d->pair[i].key, exact), item};
    }
    if (p) sort_pairs(r, p, d->count, reverse);
    return list_of_pairs(r, p, d->count);
}

static struct value extreme(struct render *r, struct value in, struct call *c, int sign) {
    const bool exact = truth(arg(c, 0, "case_sensitive", v_bool(false)));
    const struct list *l = items_of(r, in);
    struct pair *p = keyed(r, l, arg(c, 1, "attribute", v_none), exact);
    i64 best = 0;
    for (i64 i = 1; p && i < l->count && jinja_step(r, 0); i++)
        if (jinja_order(r, p[i].key, p[best].key) == sign) best = i;
    return p && !r->failed ? p[best].value : v_undefined("an item of an empty list", 24);
}
static struct value f_max(struct render *r, struct value in, struct call *c) {
    return extreme(r, in, c, 1);
}
static struct value f_min(struct render *r, struct value in, struct call *c) {
    return extreme(r, in, c, -1);
}

static struct value f_unique(struct render *r, struct value in, struct call *c) {
    const bool exact = truth(arg(c, 0, "case_sensitive", v_bool(false)));
    const struct list *l = items_of(r, in);
    struct pair *p = keyed(r, l, arg(c, 1, "attribute", v_none), exact);
    struct value list = v_list(r, LAZY);
    for (i64 i = 0; p && i < l->count && !r->failed; i++) {
        i64 same = 0;
        while (same < i && jinja_step(r, 0) && !equal(r, p[same].key, p[i].key)) same++;
        if (same == i) list_add(r, list, l->item[i]);
    }
    return list;
}

static struct value f_join(struct render *r, struct value in, struct call *c) {
    const struct bytes between = text_of(r, arg(c, 0, "d", v_text("", 0))).as.text;
    const struct value path = arg(c, 1, "attribute", v_none);
    const struct list *l = items_of(r, in);
    struct text out = {0};
    for (i64 i = 0; i < l->count && !r->failed; i++) {
        if (i) jinja_put(r, &out, between.data, between.size);
        jinja_print(r, &out, attribute_path(r, l->item[i], path, v_none), false);
    }
    return v_take(r, &out);
}

static struct value copied(struct render *r, struct value in, enum list_form form, bool back) {
    const struct list *l = items_of(r, in);
    struct value list = v_list(r, form);
    for (i64 i = 0; i < l->count && !r->failed; i++)
        list_add(r, list, l->item[back ? l->count - 1 - i : i]);
    return list;
}
static struct value f_list(struct render *r, struct value in, struct call *c) {
    return (void)c, copied(r, in, LIST, false);
}
static struct value f_reverse(struct render *r, struct value in, struct call *c) {
    (void)c;
    struct value list = copied(r, in, in.kind == V_TEXT ? LIST : LAZY, true);
    if (in.kind != V_TEXT) return list;
    struct text out = {0};
    for (i64 i = 0; i < list.as.list->count; i++)
        jinja_print(r, &out, list.as.list->item[i], false);
    return v_take(r, &out);
}
static struct value f_first(struct render *r, struct value in, struct call *c) {
    (void)c;
    const struct list *l = items_of(r, in);
    return l->count ? l->item[0] : v_undefined("the first item of an empty list", 31);
}
static struct value f_last(struct render *r, struct value in, struct call *c) {
    (void)c;
    if (in.kind == V_LIST && in.as.list->form == LAZY) return jinja_fail(r, "last of a generator");
    const struct list *l = items_of(r, in);
    return l->count ? l->item[l->count - 1] : v_undefined("the last item of an empty list", 30);
}
static struct value f_items(struct render *r, struct value in, struct call *c) {
    (void)c;
    struct value list = v_list(r, LAZY);
    if (in.kind == V_UNDEFINED) return list;
    if (in.kind != V_DICT) return jinja_fail(r, "items of a '%s'", type_name(in));
    for (i64 i = 0; i < in.as.dict->count && !r->failed; i++) {
        struct value item = v_list(r, TUPLE);
        list_add(r, item, in.as.dict->pair[i].key), list_add(r, item, in.as.dict->pair[i].value);
        list_add(r, list, item);
    }
    return list;
}
static struct value f_sum(struct render *r, struct value in, struct call *c) {
    const struct value path = arg(c, 0, "attribute", v_none);
    struct value total = arg(c, 1, "start", v_int(0));
    const struct list *l = items_of(r, in);
    for (i64 i = 0; i < l->count && jinja_step(r, 0); i++) {
        const struct value v = attribute_path(r, l->item[i], path, v_none);
        i64 whole = 0;
        if (!is_number(v) || !is_number(total))
            return jinja_fail(r, "sum over a '%s'", type_name(v));
        if (v.kind == V_FLOAT || total.kind == V_FLOAT)
            total = v_real(real_of(total) + real_of(v));
        else if (__builtin_add_overflow(integer_of(total), integer_of(v), &whole))
            return jinja_fail(r, "sum: more than 64 bits");
        else
            total = v_int(whole);
    }
    return total;
}

/* The arguments of `c` from number `from` on, for another call; positions count anew. */
static struct call rest_of(struct call *c, i64 from, struct bytes name) {
    struct call rest = {
        .name = name, .item = from ? c->item + from : c->item, .count = c->count - from};
    for (i64 i = 0; i < from; i++) c->item[i].taken = true;
    return rest;
}

/* Arguments for each item of an empty list are not looked at. */
static void nobody_asked(const struct list *l, struct call *rest) {
    for (i64 i = 0; i < rest->count && !l->count; i++) rest->item[i].taken = true;
}

static struct value f_map(struct render *r, struct value in, struct call *c) {
    const struct list *l = items_of(r, in);
    struct value list = v_list(r, LAZY);
    if (!c->count || c->item[0].name.data) {
        if (!given(c, INT32_MAX, "attribute"))
            return jinja_fail(r, "map needs a filter or an attribute");
        const struct value path = arg(c, INT32_MAX, "attribute", v_none),
                           otherwise = arg(c, INT32_MAX, "default", v_none);
        for (i64 i = 0; i < l->count && !r->failed; i++)
            list_add(r, list, attribute_path(r, l->item[i], path, otherwise));
        return list;
    }
    const struct value name = c->item[0].value;
    const struct filter *f = name.kind == V_TEXT ? filter_find(name.as.text) : NULL;
    if (!f) return jinja_fail(r, "map: this filter is not supported");
    struct call rest = rest_of(c, 1, name.as.text);
    for (i64 i = 0; i < l->count && !r->failed; i++)
        list_add(r, list, f->run(r, l->item[i], &rest));
    return nobody_asked(l, &rest), list;
}

static struct value chosen(struct render *r, struct value in, struct call *c, bool by_attribute,
                           bool want) {
    struct value path = v_none, list = v_list(r, LAZY);
    static const struct list none; /* what is false is not looked into, even if it is no list */
    const struct list *l = truth(in) ? items_of(r, in) : &none;
    if (by_attribute && !c->count) return jinja_fail(r, "selectattr needs an attribute's name");
    if (by_attribute) path = c->item[0].value;
    const struct value name = c->count > by_attribute ? c->item[by_attribute].value : v_text("", 0);
    const struct test *test =
        name.kind == V_TEXT && name.as.text.size ? test_find(name.as.text) : NULL;
    struct call rest = rest_of(c, i64_min(c->count, 1 + by_attribute), name.as.text);
    if (c->count > by_attribute && !test)
        return jinja_fail(r, "select: this test is not supported");
    for (i64 i = 0; i < l->count && !r->failed; i++) {
        const struct value v = attribute_path(r, l->item[i], path, v_none);
        if ((test ? test->run(r, v, &rest) : truth(v)) == want) list_add(r, list, l->item[i]);
    }
    return nobody_asked(l, &rest), list;
}
static struct value f_select(struct render *r, struct value in, struct call *c) {
    return chosen(r, in, c, false, true);
}
static struct value f_reject(struct render *r, struct value in, struct call *c) {
    return chosen(r, in, c, false, false);
}
static struct value f_selectattr(struct render *r, struct value in, struct call *c) {
    return chosen(r, in, c, true, true);
}
static struct value f_rejectattr(struct render *r, struct value in, struct call *c) {
    return chosen(r, in, c, true, false);
}

const struct filter list_filters[] = {{"sort", f_sort},
                                      {"dictsort", f_dictsort},
                                      {"max", f_max},
                                      {"min", f_min},
                                      {"unique", f_unique},
                                      {"join", f_join},
                                      {"list", f_list},
                                      {"reverse", f_reverse},
                                      {"first", f_first},
                                      {"last", f_last},
                                      {"items", f_items},
                                      {"sum", f_sum},
                                      {"map", f_map},
                                      {"select", f_select},
                                      {"reject", f_reject},
                                      {"selectattr", f_selectattr},
                                      {"rejectattr", f_rejectattr},
                                      {NULL, NULL}};
