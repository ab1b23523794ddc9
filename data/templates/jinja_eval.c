/* jinja_eval.c: the value of an expression, as Python and Jinja's sandbox compute it. */
#include "data/templates/jinja.h"

#include <string.h>

static struct value lookup(struct render *r, struct bytes name) {
    for (const struct scope *s = r->scope; s; s = s->outer)
        for (const struct binding *b = s->first; b; b = b->next)
            if (bytes_same(b->name, name)) return b->value;
    const struct global *g = global_find(name);
    if (g) return (struct value){V_GLOBAL, false, {.global = g}};
    return v_undefined(name.data, name.size);
}

static struct value undefined_use(struct render *r, struct value v) {
    return jinja_fail(r, "'%.*s' is undefined", (int)i64_min(v.as.text.size, 80), v.as.text.data);
}

/* What `of.name` that does not exist becomes: printed as nothing, refused when looked into. */
static struct value missing(struct render *r, struct value of, struct bytes name) {
    char what[160];
    const int n = snprintf(what, sizeof what, "%s.%.*s", type_name(of), (int)i64_min(name.size, 80),
                           name.data);
    const struct value v = v_copy(r, what, i64_min(n, (i64)sizeof what - 1));
    return v_undefined(v.as.text.data, v.as.text.size);
}

struct value attribute(struct render *r, struct value of, struct bytes name) {
    const struct value *found = NULL;
    if (of.kind == V_UNDEFINED) return undefined_use(r, of);
    if (of.kind == V_LOOP) return loop_attribute(r, of.as.loop, name);
    if (of.kind == V_NAMESPACE || (of.kind == V_DICT && !has_method(of, name)))
        jinja_step(r, of.as.dict->count), found = dict_find_text(of.as.dict, name);
    if (found) return *found;
    if (of.kind == V_NAMESPACE || !has_method(of, name)) return missing(r, of, name);
    struct method *m = jinja_make(r, sizeof *m);
    if (!m) return v_none;
    *m = (struct method){of, name};
    return (struct value){V_METHOD, false, {.method = m}};
}

static struct value at_index(struct render *r, struct value of, i64 index) {
    const i64 count = of.kind == V_TEXT ? length_of(r, of) : of.as.list->count;
    if (index < 0) index += count;
    if (index < 0 || index >= count) return v_undefined("an item past the end", 20);
    if (of.kind == V_LIST) return of.as.list->item[index];
    const struct bytes s = of.as.text;
    const i64 from = code_offset(s, index), end = code_offset(s, index + 1);
    return v_text(s.data + from, end - from);
}

struct value subscript(struct render *r, struct value of, struct value at) {
    if (of.kind == V_UNDEFINED) return undefined_use(r, of);
    const bool hashable = at.kind != V_DICT && (at.kind != V_LIST || at.as.list->form == TUPLE);
    if (of.kind == V_DICT && hashable) {
        const struct value *found = dict_find(r, of.as.dict, at);
        if (found) return *found;
    }
    const bool indexed = of.kind == V_TEXT || (of.kind == V_LIST && of.as.list->form != LAZY &&
                                               of.as.list->form != VIEW);
    if (indexed && is_integer(at)) return at_index(r, of, integer_of(at));
    if (at.kind == V_TEXT) return attribute(r, of, at.as.text);
    return v_undefined("an item", 7);
}

static struct value slice(struct render *r, const struct node *n) {
    struct value of = jinja_eval(r, n->kid[0]), part[3];
    for (int i = 0; i < 3; i++) {
        part[i] = n->kid[i + 1] ? jinja_eval(r, n->kid[i + 1]) : v_none;
        if (part[i].kind != V_NONE && !is_integer(part[i]))
            return jinja_fail(r, "a slice bound that is '%s'", type_name(part[i]));
    }
    const i64 by = part[2].kind == V_NONE ? 1 : integer_of(part[2]);
    if (of.kind == V_UNDEFINED) return undefined_use(r, of);
    if (of.kind != V_TEXT &&
        (of.kind != V_LIST || of.as.list->form == LAZY || of.as.list->form == VIEW))
        return v_undefined("a slice", 7);
    if (!by) return jinja_fail(r, "a slice with step 0");
    const struct list *l = items_of(r, of);
    i64 bound[2] = {by > 0 ? 0 : l->count - 1, by > 0 ? l->count : -1};
    for (int i = 0; i < 2; i++) {
        if (part[i].kind == V_NONE) continue;
        i64 v = integer_of(part[i]);
        if (v < 0) v = i64_max(v + l->count, by > 0 ? 0 : -1);
        bound[i] = i64_min(v, by > 0 ? l->count : l->count - 1);
    }
    struct value out = v_list(r, of.kind == V_TEXT ? LIST : of.as.list->form);
    struct text text = {0};
    for (i64 i = bound[0]; (by > 0 ? i < bound[1] : i > bound[1]) && jinja_step(r, 0);) {
        if (of.kind == V_TEXT)
            jinja_put(r, &text, l->item[i].as.text.data, l->item[i].as.text.size);
        else
            list_add(r, out, l->item[i]);
        if (__builtin_add_overflow(i, by, &i)) break;
    }
    return of.kind == V_TEXT ? v_take(r, &text) : out;
}

static struct value joined(struct render *r, struct bytes a, struct bytes b) {
    char *copy = jinja_make(r, a.size + b.size + 1);
    if (!copy) return v_text("", 0);
    if (a.size) memcpy(copy, a.data, (size_t)a.size);
    if (b.size) memcpy(copy + a.size, b.data, (size_t)b.size);
    return v_text(copy, a.size + b.size);
}

static struct value repeated(struct render *r, struct value of, i64 times) {
    struct value out = of.kind == V_LIST ? v_list(r, of.as.list->form) : v_none;
    struct text text = {0};
    for (i64 i = 0; i < times && jinja_step(r, 0); i++) {
        if (of.kind == V_TEXT) jinja_put(r, &text, of.as.text.data, of.as.text.size);
        for (i64 k = 0; of.kind == V_LIST && k < of.as.list->count && !r->failed; k++)
            list_add(r, out, of.as.list->item[k]);
    }
    return of.kind == V_LIST ? out : v_take(r, &text);
}

static struct value add(struct render *r, struct value a, struct value b) {
    if (a.kind == V_TEXT && b.kind == V_TEXT) {
        const bool safe = a.safe || b.safe;
        if (safe) a = escape_text(r, a), b = escape_text(r, b);
        struct value v = joined(r, a.as.text, b.as.text);
        return v.safe = safe, v;
    }
    if (a.kind == V_LIST && b.kind == V_LIST && a.as.list->form == b.as.list->form &&
        a.as.list->form <= TUPLE)
        return list_joined(r, a.as.list, b.as.list);
    return jinja_fail(r, "'+' between '%s' and '%s'", type_name(a), type_name(b));
}

static double floor_of(double x) {
    const double whole = x >= -0x1p62 && x <= 0x1p62 ? (double)(i64)x : x;
    return whole > x ? whole - 1 : whole;
}

static struct value real_arithmetic(struct render *r, struct bytes op, double a, double b) {
    const bool divides = op.data[0] == '/' || op.data[0] == '%';
    if (divides && b == 0) return jinja_fail(r, "division by zero");
    if (bytes_are(op, "+")) return v_real(a + b);
    if (bytes_are(op, "-")) return v_real(a - b);
    if (bytes_are(op, "*")) return v_real(a * b);
    if (bytes_are(op, "/")) return v_real(a / b);
    if (bytes_are(op, "//")) return v_real(floor_of(a / b));
    return jinja_fail(r, "'%.*s' of numbers with a fraction is not supported", (int)op.size,
                      op.data);
}

static struct value whole_arithmetic(struct render *r, struct bytes op, i64 a, i64 b) {
    i64 out = 1;
    bool over = false;
    if (bytes_are(op, "/"))
        return b ? v_real((double)a / (double)b) : jinja_fail(r, "division by zero");
    if (bytes_are(op, "+"))
        over = __builtin_add_overflow(a, b, &out);
    else if (bytes_are(op, "-"))
        over = __builtin_sub_overflow(a, b, &out);
    else if (bytes_are(op, "*"))
        over = __builtin_mul_overflow(a, b, &out);
    else if (bytes_are(op, "**")) {
        if (b < 0 || b > 4096)
            return jinja_fail(r, "'**' with %lld is not supported", (long long)b);
        for (i64 i = 0; i < b && !over; i++) over = __builtin_mul_overflow(out, a, &out);
    } else {
        if (!b) return jinja_fail(r, "division by zero");
        if (b == -1) {
            over = op.size == 2 && a == INT64_MIN;
            out = op.size == 2 && !over ? -a : 0;
        } else { /* both round towards minus infinity */
            const i64 rest = a % b, down = rest && (rest < 0) != (b < 0);
            out = op.size == 2 ? a / b - down : rest + (down ? b : 0);
        }
    }
    return over ? jinja_fail(r, "'%.*s': more than 64 bits", (int)op.size, op.data) : v_int(out);
}

static struct value binary(struct render *r, const struct node *n) {
    const struct value a = jinja_eval(r, n->kid[0]), b = jinja_eval(r, n->kid[1]);
    const struct bytes op = n->name;
    r->line = n->line;
    if (r->failed) return v_none;
    if (op.data[0] == '~') return joined(r, text_of(r, a).as.text, text_of(r, b).as.text);
    if (a.kind == V_UNDEFINED) return undefined_use(r, a);
    if (b.kind == V_UNDEFINED) return undefined_use(r, b);
    if (is_integer(a) && is_integer(b))
        return whole_arithmetic(r, op, integer_of(a), integer_of(b));
    if (is_number(a) && is_number(b)) return real_arithmetic(r, op, real_of(a), real_of(b));
    if (bytes_are(op, "+")) return add(r, a, b);
    const bool left = a.kind == V_TEXT || (a.kind == V_LIST && a.as.list->form <= TUPLE),
               right = b.kind == V_TEXT || (b.kind == V_LIST && b.as.list->form <= TUPLE);
    if (bytes_are(op, "*") && left && is_integer(b)) return repeated(r, a, integer_of(b));
    if (bytes_are(op, "*") && right && is_integer(a)) return repeated(r, b, integer_of(a));
    return jinja_fail(
        r, "'%.*s' between '%s' and '%s'%s", (int)op.size, op.data, type_name(a), type_name(b),
        bytes_are(op, "%") && a.kind == V_TEXT ? ": formatting is not supported" : "");
}

static bool compare(struct render *r, struct bytes op, struct value a, struct value b) {
    if (bytes_are(op, "in")) return contains(r, b, a);
    if (bytes_are(op, "not in")) return !contains(r, b, a);
    if (bytes_are(op, "==")) return equal(r, a, b);
    if (bytes_are(op, "!=")) return !equal(r, a, b);
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED)
        return undefined_use(r, a.kind == V_UNDEFINED ? a : b), false;
    const int o = jinja_order(r, a, b);
    if (o == 2) return false;
    const bool orequal = op.size == 2;
    return (orequal && !o) || o == (op.data[0] == '<' ? -1 : 1);
}

static struct value comparison(struct render *r, const struct node *n) {
    struct value left = jinja_eval(r, n->kid[0]);
    for (const struct node *k = n->kid[1]; k && !r->failed; k = k->next) {
        const struct value right = jinja_eval(r, k->kid[0]);
        r->line = n->line;
        if (r->failed || !compare(r, k->name, left, right)) return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

static struct value unary(struct render *r, const struct node *n) {
    const struct value v = jinja_eval(r, n->kid[0]);
    if (n->name.data[0] == 'n') return v_bool(!truth(v));
    const bool minus = n->name.data[0] == '-';
    if (v.kind == V_UNDEFINED) return undefined_use(r, v);
    if (!is_number(v)) return jinja_fail(r, "a sign in front of a '%s'", type_name(v));
    if (v.kind == V_FLOAT) return minus ? v_real(-v.as.real) : v;
    if (minus && integer_of(v) == INT64_MIN) return jinja_fail(r, "'-': more than 64 bits");
    return v_int(minus ? -integer_of(v) : integer_of(v));
}

struct call call_of(struct render *r, struct bytes name, const struct node *args) {
    struct call c = {.name = name};
    i64 count = 0;
    for (const struct node *n = args; n; n = n->next) count++;
    if (count) c.item = jinja_make(r, count * (i64)sizeof *c.item);
    if (!c.item) return c;
    for (const struct node *n = args; n; n = n->next)
        c.item[c.count++] = (struct argument){n->name, jinja_eval(r, n->kid[0]), false};
    return c;
}

struct value call_value(struct render *r, struct value f, struct call *c) {
    if (r->failed) return v_none;
    if (f.kind == V_MACRO) return macro_call(r, f.as.macro, c);
    if (f.kind == V_METHOD) return call_method(r, f.as.method, c);
    if (f.kind == V_UNDEFINED) return undefined_use(r, f);
    if (f.kind != V_GLOBAL) return jinja_fail(r, "a '%s' cannot be called", type_name(f));
    c->name = (struct bytes){f.as.global->name, (i64)strlen(f.as.global->name)};
    const struct value v = f.as.global->run(r, c);
    return call_done(r, c), v;
}

static struct value collection(struct render *r, const struct node *n) {
    if (n->kind == N_DICT) {
        struct value d = v_dict(r);
        for (const struct node *k = n->kid[0]; k && !r->failed; k = k->next->next) {
            const struct value key = jinja_eval(r, k->kid[0]),
                               value = jinja_eval(r, k->next->kid[0]);
            if (!r->failed) dict_set(r, d.as.dict, key, value);
        }
        return d;
    }
    struct value list = v_list(r, n->kind == N_TUPLE ? TUPLE : LIST);
    for (const struct node *k = n->kid[0]; k && !r->failed; k = k->next)
        list_add(r, list, jinja_eval(r, k->kid[0]));
    return list;
}

static struct value applied(struct render *r, const struct node *n) { /* a filter or a test */
    const struct value in = jinja_eval(r, n->kid[0]);
    struct call c = call_of(r, n->name, n->kid[1]);
    r->line = n->line;
    if (r->failed) return v_none;
    struct value out;
    if (n->kind == N_FILTER)
        out = ((const struct filter *)n->use)->run(r, in, &c);
    else
        out = v_bool(((const struct test *)n->use)->run(r, in, &c));
    return call_done(r, &c), out;
}

static struct value eval_node(struct render *r, const struct node *n) {
    struct value v;
    switch (n->kind) {
    case N_CONST: return n->value;
    case N_NAME: return lookup(r, n->name);
    case N_LIST:
    case N_TUPLE:
    case N_DICT: return collection(r, n);
    case N_ATTR:
        v = jinja_eval(r, n->kid[0]);
        r->line = n->line;
        return attribute(r, v, n->name);
    case N_ITEM: {
        v = jinja_eval(r, n->kid[0]);
        const struct value at = jinja_eval(r, n->kid[1]);
        r->line = n->line;
        return r->failed ? v_none : subscript(r, v, at);
    }
    case N_SLICE: return slice(r, n);
    case N_CALL: {
        v = jinja_eval(r, n->kid[0]);
        struct call c = call_of(r, n->kid[0]->name, n->kid[1]);
        r->line = n->line;
        return call_value(r, v, &c);
    }
    case N_FILTER:
    case N_TEST: return applied(r, n);
    case N_UNARY: return unary(r, n);
    case N_BINARY: return binary(r, n);
    case N_COMPARE: return comparison(r, n);
    case N_AND: v = jinja_eval(r, n->kid[0]); return truth(v) ? jinja_eval(r, n->kid[1]) : v;
    case N_OR: v = jinja_eval(r, n->kid[0]); return truth(v) ? v : jinja_eval(r, n->kid[1]);
    case N_COND:
        if (truth(jinja_eval(r, n->kid[0]))) return jinja_eval(r, n->kid[1]);
        return n->kid[2] ? jinja_eval(r, n->kid[2]) : v_undefined("an if without else", 18);
    case N_INPUT: return r->input;
    default: return jinja_fail(r, "a statement where an expression was expected");
    }
}

struct value jinja_eval(struct render *r, const struct node *n) {
    struct value v = v_none;
    if (deeper(r) && jinja_step(r, 0)) r->line = n->line, v = eval_node(r, n);
    return r->depth--, v;
}
