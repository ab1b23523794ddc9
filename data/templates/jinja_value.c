/* jinja_value.c: the values of a template and what Python would say of them: truth, equality,
 * order, membership, length, iteration. Integers have 64 bits; a result that needs more is an
 * error, never another number. */
#include "data/templates/jinja.h"

#include <string.h>

struct value jinja_fail(struct render *r, const char *fmt, ...) {
    struct value none = {0};
    if (r->failed) return none;
    char what[384];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    r->failed = true;
    err_input(r->e, "%s:%d: %s", r->t->name, r->line, what);
    return none;
}

bool jinja_step(struct render *r, i64 bytes) {
    r->steps += 1 + bytes / 16;
    if (!r->failed && r->steps > JINJA_STEPS)
        jinja_fail(r, "the template takes too long: more than %d steps", JINJA_STEPS);
    return !r->failed;
}

bool deeper(struct render *r) {
    if (++r->depth > JINJA_EVAL) jinja_fail(r, "more than %d levels within each other", JINJA_EVAL);
    return !r->failed;
}

void *jinja_make(struct render *r, i64 bytes) {
    r->bytes += bytes;
    if (!r->failed && r->bytes > jinja_bytes)
        jinja_fail(r, "the template makes more than %lld bytes", (long long)jinja_bytes);
    void *p = jinja_step(r, bytes) ? arena_new(&r->arena, bytes, r->e) : NULL;
    if (!p) r->failed = true;
    return p;
}

bool bytes_same(struct bytes a, struct bytes b) {
    return a.size == b.size && !memcmp(a.data, b.data, (size_t)a.size);
}
bool bytes_are(struct bytes a, const char *text) {
    return a.size == (i64)strlen(text) && !memcmp(a.data, text, (size_t)a.size);
}

struct value v_undefined(const char *data, i64 size) {
    struct value v = v_text(data, size);
    return v.kind = V_UNDEFINED, v;
}

struct value v_copy(struct render *r, const char *data, i64 size) {
    char *copy = jinja_make(r, size + 1);
    if (!copy) return v_text("", 0);
    if (size) memcpy(copy, data, (size_t)size);
    return v_text(copy, size);
}

struct value v_take(struct render *r, struct text *t) {
    const struct value v = v_copy(r, t->data ? t->data : "", t->size);
    text_free(t);
    return v;
}

/* What stands for a list or dict that could not be made: empty, and nobody adds to it. */
static struct list no_list;
static struct dict no_dict;

struct value v_list(struct render *r, enum list_form form) {
    struct list *l = jinja_make(r, sizeof *l);
    if (l) l->form = form;
    return (struct value){V_LIST, false, {.list = l ? l : &no_list}};
}

void list_add(struct render *r, struct value list, struct value item) {
    struct list *l = list.as.list;
    if (!jinja_step(r, 0)) return;
    if (l->count == l->capacity || *l->used != l->count) {
        const i64 wanted = i64_max(8, 2 * l->count), size = wanted * (i64)sizeof item;
        struct value *grown = jinja_make(r, size + (i64)sizeof *l->used);
        if (!grown) return;
        if (l->count) memcpy(grown, l->item, (size_t)l->count * sizeof *grown);
        l->item = grown, l->capacity = wanted, l->used = (i64 *)(void *)((u8 *)grown + size);
    }
    l->item[l->count++] = item;
    *l->used = l->count;
}

/* Begins with a's own items, which nobody changes; what is added goes behind them, if no other list
 * went on there before. So `seen = seen + [message]` in a loop is linear, and need not copy. */
struct value list_joined(struct render *r, const struct list *a, const struct list *b) {
    const struct list first = *a, more = *b;
    struct value out = v_list(r, first.form);
    if (r->failed) return out;
    *out.as.list = first;
    for (i64 i = 0; i < more.count && !r->failed; i++) list_add(r, out, more.item[i]);
    return out;
}

struct value v_dict(struct render *r) {
    struct dict *d = jinja_make(r, sizeof *d);
    return (struct value){V_DICT, false, {.dict = d ? d : &no_dict}};
}

struct value *dict_find(struct render *r, const struct dict *d, struct value key) {
    if (key.kind == V_LIST && key.as.list->form != TUPLE)
        return jinja_fail(r, "unhashable type: '%s'", type_name(key)), NULL;
    if (key.kind == V_DICT) return jinja_fail(r, "unhashable type: 'dict'"), NULL;
    if (key.kind == V_TEXT) return jinja_step(r, d->count), dict_find_text(d, key.as.text);
    for (i64 i = 0; i < d->count && jinja_step(r, 0); i++)
        if (equal(r, d->pair[i].key, key)) return &d->pair[i].value;
    return NULL;
}

struct value *dict_find_text(const struct dict *d, struct bytes key) {
    for (i64 i = 0; i < d->count; i++)
        if (d->pair[i].key.kind == V_TEXT && bytes_same(d->pair[i].key.as.text, key))
            return &d->pair[i].value;
    return NULL;
}

static void dict_add(struct render *r, struct dict *d, struct value key, struct value value) {
    if (r->failed) return;
    if (d->count == d->capacity) {
        const i64 wanted = i64_max(8, 2 * d->capacity);
        struct pair *grown = jinja_make(r, wanted * (i64)sizeof *grown);
        if (!grown) return;
        if (d->count) memcpy(grown, d->pair, (size_t)d->count * sizeof *grown);
        d->pair = grown, d->capacity = wanted;
    }
    d->pair[d->count++] = (struct pair){key, value};
}

void dict_set(struct render *r, struct dict *d, struct value key, struct value value) {
    struct value *found = dict_find(r, d, key);
    if (r->failed) return;
    if (found)
        *found = value;
    else
        dict_add(r, d, key, value);
}

struct value v_json(struct render *r, const json_t *j) {
    struct value v = v_none;
    if (!j || !deeper(r)) return r->depth -= j != NULL, v;
    if (json_is_string(j)) {
        v = v_text(json_string_value(j), (i64)json_string_length(j));
    } else if (json_is_boolean(j)) {
        v = v_bool(json_is_true(j));
    } else if (json_is_integer(j)) {
        v = v_int(json_integer_value(j));
    } else if (json_is_real(j)) {
        v = v_real(json_real_value(j));
    } else if (json_is_array(j)) {
        v = v_list(r, LIST);
        for (size_t i = 0; i < json_array_size(j) && !r->failed; i++)
            list_add(r, v, v_json(r, json_array_get(j, i)));
    } else if (json_is_object(j)) {
        json_t *o = (json_t *)(uintptr_t)j;
        v = v_dict(r);
        for (void *at = json_object_iter(o); at && !r->failed; at = json_object_iter_next(o, at))
            dict_add(r, v.as.dict,
                     v_text(json_object_iter_key(at), (i64)json_object_iter_key_len(at)),
                     v_json(r, json_object_iter_value(at)));
    }
    return r->depth--, v;
}

bool truth(struct value v) {
    switch (v.kind) {
    case V_UNDEFINED:
    case V_NONE: return false;
    case V_BOOL: return v.as.truth;
    case V_INT: return v.as.integer != 0;
    case V_FLOAT: return v.as.real != 0;
    case V_TEXT: return v.as.text.size != 0;
    case V_LIST: return v.as.list->form == LAZY || v.as.list->count != 0;
    case V_DICT: return v.as.dict->count != 0;
    default: return true;
    }
}

bool is_integer(struct value v) { return v.kind == V_INT || v.kind == V_BOOL; }
bool is_number(struct value v) { return is_integer(v) || v.kind == V_FLOAT; }
i64 integer_of(struct value v) { return v.kind == V_BOOL ? v.as.truth : v.as.integer; }
double real_of(struct value v) { return v.kind == V_FLOAT ? v.as.real : (double)integer_of(v); }

/* An integer and a double, exactly: <0, 0, >0; a NaN is 2. */
static int order_mixed(i64 i, double x) {
    if (x != x) return 2;
    if (x >= 0x1p63) return -1;
    if (x < -0x1p63) return 1;
    const i64 whole = (i64)x;
    if (i != whole) return i < whole ? -1 : 1;
    return (double)whole < x ? -1 : (double)whole > x;
}

static int order_numbers(struct value a, struct value b) {
    if (is_integer(a) && is_integer(b)) {
        const i64 x = integer_of(a), y = integer_of(b);
        return x < y ? -1 : x > y;
    }
    if (is_integer(a)) return order_mixed(integer_of(a), b.as.real);
    if (is_integer(b)) {
        const int o = order_mixed(integer_of(b), a.as.real);
        return o == 2 ? 2 : -o;
    }
    if (a.as.real != a.as.real || b.as.real != b.as.real) return 2;
    return a.as.real < b.as.real ? -1 : a.as.real > b.as.real;
}

static bool equal_dicts(struct render *r, const struct dict *a, const struct dict *b) {
    bool same = a->count == b->count;
    for (i64 i = 0; same && i < a->count && jinja_step(r, b->count); i++) {
        const struct value *other = dict_find(r, b, a->pair[i].key);
        same = other && equal(r, a->pair[i].value, *other);
    }
    return same && !r->failed;
}

bool equal(struct render *r, struct value a, struct value b) {
    bool same = false;
    if (is_number(a) && is_number(b)) return !order_numbers(a, b);
    if (a.kind != b.kind || !deeper(r)) return r->depth -= a.kind == b.kind, false;
    switch (a.kind) {
    case V_UNDEFINED:
    case V_NONE: same = true; break;
    case V_TEXT:
        jinja_step(r, i64_min(a.as.text.size, b.as.text.size));
        same = bytes_same(a.as.text, b.as.text);
        break;
    case V_LIST: {
        const struct list *x = a.as.list, *y = b.as.list;
        same = x->form == y->form && x->count == y->count && x->form != LAZY;
        for (i64 i = 0; same && i < x->count && jinja_step(r, 0); i++)
            same = equal(r, x->item[i], y->item[i]);
        same = same || x == y;
        break;
    }
    case V_DICT: same = equal_dicts(r, a.as.dict, b.as.dict); break;
    case V_GLOBAL: same = a.as.global == b.as.global; break;
    default: same = a.as.dict == b.as.dict; /* one object or two */
    }
    return r->depth--, same;
}

int jinja_order(struct render *r, struct value a, struct value b) {
    if (is_number(a) && is_number(b)) return order_numbers(a, b);
    if (a.kind == V_TEXT && b.kind == V_TEXT) { /* UTF-8 sorts as code points do */
        const i64 n = i64_min(a.as.text.size, b.as.text.size);
        jinja_step(r, n);
        const int c = memcmp(a.as.text.data, b.as.text.data, (size_t)n);
        if (c) return c < 0 ? -1 : 1;
        return a.as.text.size < b.as.text.size ? -1 : a.as.text.size > b.as.text.size;
    }
    if (a.kind == V_LIST && b.kind == V_LIST && a.as.list->form == b.as.list->form &&
        a.as.list->form <= TUPLE && deeper(r)) {
        const struct list *x = a.as.list, *y = b.as.list;
        int o = 0;
        for (i64 i = 0; !o && i < x->count && i < y->count && jinja_step(r, 0); i++)
            if (!equal(r, x->item[i], y->item[i])) o = jinja_order(r, x->item[i], y->item[i]);
        r->depth--;
        return o ? o : x->count < y->count ? -1 : x->count > y->count;
    }
    jinja_fail(r, "'%s' and '%s' have no order", type_name(a), type_name(b));
    return 0;
}

bool contains(struct render *r, struct value in, struct value what) {
    if (in.kind == V_UNDEFINED) return false;
    if (in.kind == V_TEXT && what.kind == V_TEXT) {
        jinja_step(r, in.as.text.size);
        return memmem(in.as.text.data, (size_t)in.as.text.size, what.as.text.data,
                      (size_t)what.as.text.size) != NULL;
    }
    if (in.kind == V_TEXT)
        return jinja_fail(r, "'in' a text needs a text, not '%s'", type_name(what)), false;
    if (in.kind == V_DICT) return dict_find(r, in.as.dict, what) != NULL;
    if (in.kind != V_LIST)
        return jinja_fail(r, "'%s' has no members to look among with 'in'", type_name(in)), false;
    const struct list *l = items_of(r, in);
    for (i64 i = 0; i < l->count && jinja_step(r, 0); i++)
        if (equal(r, l->item[i], what)) return true;
    return false;
}

struct list *items_of(struct render *r, struct value v) {
    struct value made;
    if (v.kind == V_LIST && v.as.list->form == LAZY) { /* the generator is empty afterwards */
        made = v_list(r, LIST);
        if (r->failed) return &no_list;
        *made.as.list = *v.as.list;
        made.as.list->form = LIST;
        *v.as.list = (struct list){.form = LAZY};
        return made.as.list;
    }
    if (v.kind == V_LIST) return v.as.list;
    if (v.kind == V_UNDEFINED) return &no_list;
    made = v_list(r, LIST);
    if (v.kind == V_DICT) {
        for (i64 i = 0; i < v.as.dict->count; i++) list_add(r, made, v.as.dict->pair[i].key);
    } else if (v.kind == V_TEXT) {
        const struct bytes s = v.as.text;
        for (i64 at = 0, from = 0; at < s.size && !r->failed; from = at) {
            utf8_next(s.data, s.size, &at);
            list_add(r, made, v_text(s.data + from, at - from));
        }
    } else {
        jinja_fail(r, "'%s' is nothing to go through", type_name(v));
    }
    return r->failed ? &no_list : made.as.list;
}

i64 length_of(struct render *r, struct value v) {
    if (v.kind == V_UNDEFINED) return 0;
    if (v.kind == V_TEXT) return jinja_step(r, v.as.text.size), code_count(v.as.text);
    if (v.kind == V_DICT) return v.as.dict->count;
    if (v.kind == V_LIST && v.as.list->form != LAZY) return v.as.list->count;
    return jinja_fail(r, "'%s' has no length", type_name(v)), 0;
}

const char *type_name(struct value v) {
    static const char *const name[] = {"Undefined",   "NoneType", "bool",    "int",       "float",
                                       "str",         "list",     "dict",    "Namespace", "Macro",
                                       "LoopContext", "method",   "function"};
    static const char *const form[] = {"list", "tuple", "range", "dict_view", "generator"};
    return v.kind == V_LIST ? form[v.as.list->form] : name[v.kind];
}
