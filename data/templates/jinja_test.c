/* jinja_test.c: tests (`is ...`) and the functions that templates find without being given them. */
#include "data/templates/jinja.h"

#include <string.h>
#include <time.h>

typedef bool test_run(struct render *r, struct value in, struct call *c);
#define TEST(name, expression)                                                                     \
    static bool name(struct render *r, struct value in, struct call *c) {                          \
        (void)r, (void)c;                                                                          \
        return expression;                                                                         \
    }
static struct value other(struct call *c) { return arg(c, 0, NULL, v_none); }
static i64 modulo(struct render *r, struct value in, i64 by) {
    if (!is_integer(in) || !by)
        return jinja_fail(r, "'%s' is no integer to divide", type_name(in)), 0;
    return by == -1 ? 0 : integer_of(in) % by;
}
static bool cased(struct render *r, struct value in, enum letter_case how) {
    const struct bytes s = text_of(r, in).as.text;
    bool any = false; /* a letter that has a case */
    const struct value low = to_case(r, s, LOWER), up = to_case(r, s, UPPER);
    any = !bytes_same(low.as.text, up.as.text);
    return any && bytes_same(s, (how == LOWER ? low : up).as.text);
}

TEST(t_defined, in.kind != V_UNDEFINED)
TEST(t_undefined, in.kind == V_UNDEFINED)
TEST(t_none, in.kind == V_NONE)
TEST(t_string, in.kind == V_TEXT)
TEST(t_iterable, in.kind == V_TEXT || in.kind == V_LIST || in.kind == V_DICT ||
                     in.kind == V_UNDEFINED || in.kind == V_LOOP)
TEST(t_mapping, in.kind == V_DICT)
TEST(t_boolean, in.kind == V_BOOL)
TEST(t_true, in.kind == V_BOOL && in.as.truth)
TEST(t_false, in.kind == V_BOOL && !in.as.truth)
TEST(t_integer, in.kind == V_INT)
TEST(t_float, in.kind == V_FLOAT)
TEST(t_number, is_number(in))
TEST(t_sequence, in.kind == V_TEXT || in.kind == V_DICT || in.kind == V_UNDEFINED ||
                     (in.kind == V_LIST && in.as.list->form != LAZY && in.as.list->form != VIEW))
TEST(t_callable, in.kind >= V_MACRO || in.kind == V_UNDEFINED)
TEST(t_equal, equal(r, in, other(c)))
TEST(t_unequal, !equal(r, in, other(c)))
TEST(t_less, jinja_order(r, in, other(c)) == -1)
TEST(t_greater, jinja_order(r, in, other(c)) == 1)
TEST(t_least, jinja_order(r, in, other(c)) <= 0)
TEST(t_most, (unsigned)jinja_order(r, in, other(c)) <= 1)
TEST(t_in, contains(r, other(c), in))
TEST(t_odd, modulo(r, in, 2) != 0)
TEST(t_even, modulo(r, in, 2) == 0)
TEST(t_divisible, modulo(r, in, is_integer(other(c)) ? integer_of(other(c)) : 0) == 0)
TEST(t_lower, cased(r, in, LOWER))
TEST(t_upper, cased(r, in, UPPER))
TEST(t_filter, in.kind == V_TEXT && filter_find(in.as.text))
TEST(t_test, in.kind == V_TEXT && test_find(in.as.text))

static const struct test tests[] = {{"defined", t_defined},
                                    {"undefined", t_undefined},
                                    {"none", t_none},
                                    {"string", t_string},
                                    {"iterable", t_iterable},
                                    {"mapping", t_mapping},
                                    {"boolean", t_boolean},
                                    {"true", t_true},
                                    {"false", t_false},
                                    {"integer", t_integer},
                                    {"float", t_float},
                                    {"number", t_number},
                                    {"sequence", t_sequence},
                                    {"callable", t_callable},
                                    {"equalto", t_equal},
                                    {"eq", t_equal},
                                    {"==", t_equal},
                                    {"ne", t_unequal},
                                    {"!=", t_unequal},
                                    {"lt", t_less},
                                    {"lessthan", t_less},
                                    {"<", t_less},
                                    {"gt", t_greater},
                                    {"greaterthan", t_greater},
                                    {">", t_greater},
                                    {"le", t_least},
                                    {"<=", t_least},
                                    {"ge", t_most},
                                    {">=", t_most},
                                    {"in", t_in},
                                    {"odd", t_odd},
                                    {"even", t_even},
                                    {"divisibleby", t_divisible},
                                    {"lower", t_lower},
                                    {"upper", t_upper},
                                    {"filter", t_filter},
                                    {"test", t_test}};

const struct test *test_find(struct bytes name) {
    for (int i = 0; i < COUNT(tests); i++)
        if (bytes_are(name, tests[i].name)) return &tests[i];
    return NULL;
}

/* ---- functions */

static struct value g_raise(struct render *r, struct call *c) {
    const struct bytes s = text_of(r, arg(c, 0, "message", v_none)).as.text;
    return jinja_fail(r, "the template refuses this conversation: %.*s", (int)i64_min(s.size, 300),
                      s.data);
}

static struct value g_namespace(struct render *r, struct call *c) {
    struct value made = v_dict(r);
    made.kind = V_NAMESPACE;
    for (i64 i = 0; i < c->count && !r->failed; i++) {
        struct argument *a = c->item + i;
        if (!a->name.data && a->value.kind == V_DICT && !i) {
            for (i64 k = 0; k < a->value.as.dict->count; k++)
                dict_set(r, made.as.dict, a->value.as.dict->pair[k].key,
                         a->value.as.dict->pair[k].value);
        } else if (a->name.data) {
            dict_set(r, made.as.dict, v_text(a->name.data, a->name.size), a->value);
        } else {
            continue; /* call_done refuses it */
        }
        a->taken = true;
    }
    return made;
}

static struct value g_dict(struct render *r, struct call *c) {
    struct value made = g_namespace(r, c);
    return made.kind = V_DICT, made;
}

static struct value g_range(struct render *r, struct call *c) {
    i64 part[3] = {0, 0, 1};
    for (int i = 0; i < 3 && i < c->count; i++) {
        const struct value v = arg(c, i, NULL, v_none);
        if (!is_integer(v)) return jinja_fail(r, "range: '%s' is no integer", type_name(v));
        part[i] = integer_of(v);
    }
    if (c->count == 1) part[1] = part[0], part[0] = 0;
    if (!c->count || !part[2])
        return jinja_fail(r, "range needs 1 to 3 integers, and a step that is not 0");
    struct value list = v_list(r, RANGE);
    for (i64 i = part[0]; (part[2] > 0 ? i < part[1] : i > part[1]) && !r->failed;) {
        list_add(r, list, v_int(i));
        if (list.as.list->count > 100000) return jinja_fail(r, "range: more than 100000 items");
        if (__builtin_add_overflow(i, part[2], &i)) break;
    }
    return list;
}

static struct value g_strftime(struct render *r, struct call *c) {
    const struct bytes format = text_of(r, arg(c, 0, "format", v_text("", 0))).as.text;
    const time_t now = (time_t)r->now;
    struct tm t;
    char out[256];
    if (format.size > 200) return jinja_fail(r, "strftime_now: a format of more than 200 bytes");
    if (!format.size || !localtime_r(&now, &t)) return v_text("", 0);
    const struct bytes copy = v_copy(r, format.data, format.size).as.text;
    const size_t n = r->failed ? 0 : strftime(out, sizeof out, copy.data, &t);
    return v_copy(r, out, (i64)n);
}

static const struct global globals[] = {{"raise_exception", g_raise},
                                        {"namespace", g_namespace},
                                        {"dict", g_dict},
                                        {"range", g_range},
                                        {"strftime_now", g_strftime}};

const struct global *global_find(struct bytes name) {
    for (int i = 0; i < COUNT(globals); i++)
        if (bytes_are(name, globals[i].name)) return &globals[i];
    return NULL;
}
