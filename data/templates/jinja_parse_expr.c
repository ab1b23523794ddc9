/* jinja_parse_expr.c: the expressions of a template, by recursive descent, with Jinja's precedence:
 * if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary, postfix, filters and tests. Note
 * that ~ binds tighter than + and that a filter binds tighter than a sign. */
#include "data/templates/jinja.h"

#include <string.h>

struct node *parse_fail(struct parser *p, const char *fmt, ...) {
    if (p->failed) return NULL;
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    p->failed = true;
    err_input(p->e, "%s:%d: %s", p->t->name, p->at->line, what);
    return NULL;
}

/* A failed parser stands on T_END, so that every loop over tokens ends. */
static struct node failed_node = {.kind = N_CONST};
struct node *tree_new(struct parser *p, enum node_kind kind) {
    struct node *n = p->failed ? NULL : arena_new(&p->t->arena, sizeof *n, p->e);
    if (!n) {
        p->failed = true;
        p->at = p->t->token + p->t->tokens - 1;
        return &failed_node;
    }
    n->kind = kind, n->line = p->at->line;
    return n;
}

bool take_op(struct parser *p, const char *op) {
    if (!is_op(p->at, op)) return false;
    return p->at++, true;
}
bool take_name(struct parser *p, const char *name) {
    if (!is_name(p->at, name)) return false;
    return p->at++, true;
}
static const char *shown(const struct token *t) {
    return t->kind == T_END ? "the end of the template" : "this";
}
static void unexpected(struct parser *p, const char *wanted) {
    const struct bytes s = p->at->text;
    if (p->at->kind == T_END || !s.size)
        parse_fail(p, "found %s where %s was expected", shown(p->at), wanted);
    else
        parse_fail(p, "found '%.*s' where %s was expected", (int)i64_min(s.size, 40), s.data,
                   wanted);
}
void expect_op(struct parser *p, const char *op) {
    char wanted[16];
    snprintf(wanted, sizeof wanted, "'%s'", op);
    if (!take_op(p, op)) unexpected(p, wanted);
}
struct bytes expect_name(struct parser *p) {
    if (p->at->kind != T_NAME) return unexpected(p, "a name"), (struct bytes){"", 0};
    return (p->at++)->text;
}

static struct node *two(struct parser *p, enum node_kind kind, struct node *a, struct node *b) {
    struct node *n = tree_new(p, kind);
    if (p->failed) return n;
    n->kid[0] = a, n->kid[1] = b;
    return n;
}

static struct node *constant(struct parser *p, struct value v) {
    struct node *n = tree_new(p, N_CONST);
    if (!p->failed) n->value = v;
    return n;
}

/* ( a, b, name=c ) after the opening bracket was taken: a list of arguments. */
static struct node *parse_arguments(struct parser *p) {
    struct node *first = NULL, **end = &first;
    bool named = false;
    while (!p->failed && !take_op(p, ")")) {
        if (first) {
            expect_op(p, ",");
            if (take_op(p, ")")) break;
        }
        if (is_op(p->at, "*") || is_op(p->at, "**"))
            return parse_fail(p, "'*' arguments are not supported");
        struct bytes name = {NULL, 0};
        if (p->at->kind == T_NAME && is_op(p->at + 1, "="))
            name = p->at->text, p->at += 2, named = true;
        if (named && !name.data) return parse_fail(p, "a positional argument after a named one");
        struct node *n =
            tree_new(p, N_INPUT); /* one more level, so that `next` and name are free */
        if (p->failed) break;
        n->name = name, n->kid[0] = parse_expression(p);
        *end = n, end = &n->next;
    }
    return first;
}

static struct node *parse_items(struct parser *p, const char *close, bool pairs) {
    struct node *first = NULL, **end = &first;
    while (!p->failed && !take_op(p, close)) {
        if (first) {
            expect_op(p, ",");
            if (take_op(p, close)) break;
        }
        for (int i = 0; i < 1 + pairs; i++) {
            if (i) expect_op(p, ":");
            struct node *n = tree_new(p, N_INPUT);
            if (p->failed) return first;
            n->kid[0] = parse_expression(p);
            *end = n, end = &n->next;
        }
    }
    return first;
}

static struct node *parse_logic(struct parser *p, bool either);
struct node *parse_tuple(struct parser *p, bool conditional, const char *end_name) {
    struct node *first = NULL, **end = &first, *tuple = tree_new(p, N_TUPLE);
    for (i64 count = 0; !p->failed; count++) {
        const bool over = p->at->kind == T_BLOCK_END || p->at->kind == T_VARIABLE_END ||
                          is_op(p->at, ")") || (end_name && is_name(p->at, end_name));
        if (over && count) break;
        struct node *item = conditional ? parse_expression(p) : parse_logic(p, true);
        const bool more = take_op(p, ",");
        if (!count && !more) return item;
        struct node *n = tree_new(p, N_INPUT);
        if (p->failed) break;
        n->kid[0] = item;
        *end = n, end = &n->next;
        if (!more) break;
    }
    if (!p->failed) tuple->kid[0] = first;
    return tuple;
}

static struct node *parse_string(struct parser *p) {
    struct text joined = {0};
    struct bytes s = p->at++->text;
    if (p->at->kind == T_STRING) { /* texts side by side are one */
        int rc = text_add(&joined, s.data, s.size, p->e);
        for (; !rc && p->at->kind == T_STRING; p->at++)
            rc = text_add(&joined, p->at->text.data, p->at->text.size, p->e);
        char *copy = rc ? NULL : arena_new(&p->t->arena, joined.size + 1, p->e);
        if (copy) memcpy(copy, joined.data, (size_t)joined.size);
        s = (struct bytes){copy ? copy : "", copy ? joined.size : 0};
        if (!copy) p->failed = true;
        text_free(&joined);
    }
    return constant(p, v_text(s.data, s.size));
}

struct node *parse_primary(struct parser *p) {
    const struct token *t = p->at;
    if (t->kind == T_STRING) return parse_string(p);
    if (t->kind == T_INT) return p->at++, constant(p, v_int(t->integer));
    if (t->kind == T_FLOAT) return p->at++, constant(p, v_real(t->real));
    if (t->kind == T_NAME) {
        p->at++;
        if (is_name(t, "true") || is_name(t, "True")) return constant(p, v_bool(true));
        if (is_name(t, "false") || is_name(t, "False")) return constant(p, v_bool(false));
        if (is_name(t, "none") || is_name(t, "None")) return constant(p, v_none);
        if (p->macros && (is_name(t, "varargs") || is_name(t, "kwargs")))
            return parse_fail(p, "'%.*s' of a macro is not supported", (int)t->text.size,
                              t->text.data);
        struct node *n = tree_new(p, N_NAME);
        if (!p->failed) n->name = t->text, n->line = t->line;
        return n;
    }
    if (take_op(p, "(")) {
        if (take_op(p, ")")) return tree_new(p, N_TUPLE);
        struct node *n = parse_tuple(p, true, NULL);
        expect_op(p, ")");
        return n;
    }
    if (take_op(p, "[")) return two(p, N_LIST, parse_items(p, "]", false), NULL);
    if (take_op(p, "{")) return two(p, N_DICT, parse_items(p, "}", true), NULL);
    unexpected(p, "an expression");
    return tree_new(p, N_CONST);
}

static struct node *parse_brackets(struct parser *p, struct node *of) {
    struct node *n = two(p, N_ITEM, of, NULL);
    struct node *part[3] = {NULL};
    int at = 0;
    if (!is_op(p->at, ":")) part[0] = parse_expression(p);
    while (!p->failed && at < 2 && take_op(p, ":")) {
        at++;
        if (!is_op(p->at, ":") && !is_op(p->at, "]")) part[at] = parse_expression(p);
    }
    if (is_op(p->at, ",")) return parse_fail(p, "several subscripts are not supported");
    expect_op(p, "]");
    if (p->failed) return n;
    n->kind = at ? N_SLICE : N_ITEM;
    memcpy(n->kid + 1, part, sizeof part);
    return n;
}

static struct node *parse_call(struct parser *p, struct node *f) {
    struct node *n = two(p, N_CALL, f, NULL);
    p->at++;
    struct node *args = parse_arguments(p);
    if (!p->failed) n->kid[1] = args;
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n) {
    for (int count = 0; !p->failed; count++) {
        if (count == JINJA_DEPTH) return parse_fail(p, "an expression too long to follow");
        if (take_op(p, ".")) {
            const struct token *t = p->at;
            if (t->kind == T_INT) {
                p->at++;
                n = two(p, N_ITEM, n, constant(p, v_int(t->integer)));
                continue;
            }
            n = two(p, N_ATTR, n, NULL);
            const struct bytes name = expect_name(p);
            if (!p->failed) n->name = name;
        } else if (take_op(p, "[")) {
            n = parse_brackets(p, n);
        } else if (is_op(p->at, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

static struct bytes dotted_name(struct parser *p) {
    const struct bytes name = expect_name(p);
    if (is_op(p->at, ".")) parse_fail(p, "filters and tests with dots are not supported");
    return name;
}

/* | name(...) | ..., after `in`; `begun`: the first bar is missing. */
struct node *parse_filters(struct parser *p, struct node *in, bool begun) {
    for (int count = 0; !p->failed && (begun || take_op(p, "|")); count++, begun = false) {
        if (count == JINJA_DEPTH) return parse_fail(p, "too many filters in a row");
        struct node *n = two(p, N_FILTER, in, NULL);
        const struct bytes name = dotted_name(p);
        if (p->failed) return n;
        if (!(n->use = filter_find(name)))
            return parse_fail(p, "the filter '%.*s' is not supported", (int)i64_min(name.size, 60),
                              name.data);
        n->name = name;
        if (take_op(p, "(")) n->kid[1] = parse_arguments(p);
        in = n;
    }
    return in;
}

static struct node *parse_test(struct parser *p, struct node *in) {
    const bool negated = take_name(p, "not");
    struct node *n = two(p, N_TEST, in, NULL);
    const struct bytes name = dotted_name(p);
    if (p->failed) return n;
    if (!(n->use = test_find(name)))
        return parse_fail(p, "the test '%.*s' is not supported", (int)i64_min(name.size, 60),
                          name.data);
    n->name = name;
    const struct token *t = p->at;
    if (take_op(p, "(")) {
        n->kid[1] = parse_arguments(p);
    } else if ((t->kind == T_NAME || t->kind == T_STRING || t->kind == T_INT ||
                t->kind == T_FLOAT || is_op(t, "[") || is_op(t, "{")) &&
               !is_name(t, "else") && !is_name(t, "or") && !is_name(t, "and")) {
        if (is_name(t, "is")) return parse_fail(p, "tests cannot be chained with 'is'");
        struct node *a = tree_new(p, N_INPUT), *of = parse_postfix(p, parse_primary(p));
        if (!p->failed) a->kid[0] = of, n->kid[1] = a;
    }
    if (!negated) return n;
    n = two(p, N_UNARY, n, NULL);
    if (!p->failed) n->name = (struct bytes){"not", 3};
    return n;
}

static struct node *parse_unary(struct parser *p, bool filters) {
    struct node *n;
    const struct token *t = p->at;
    if (++p->depth > JINJA_DEPTH) {
        parse_fail(p, "an expression nested too deeply");
        return p->depth--, tree_new(p, N_CONST);
    }
    if (take_op(p, "-") || take_op(p, "+")) {
        n = two(p, N_UNARY, parse_unary(p, false), NULL);
        if (!p->failed) n->name = t->text;
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    for (int count = 0; filters && !p->failed; count++) {
        if (count == JINJA_DEPTH) parse_fail(p, "an expression too long to follow");
        if (is_op(p->at, "|"))
            n = parse_filters(p, n, false);
        else if (take_name(p, "is"))
            n = parse_test(p, n);
        else if (is_op(p->at, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return p->depth--, n;
}

/* Left-associative binary operators, loosest first. */
static const char *const level_ops[][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};

static struct node *parse_binary(struct parser *p, int level) {
    if (level == COUNT(level_ops)) return parse_unary(p, true);
    struct node *n = parse_binary(p, level + 1);
    for (int count = 0; !p->failed; count++) {
        int i = 0;
        while (level_ops[level][i] && !is_op(p->at, level_ops[level][i])) i++;
        if (!level_ops[level][i]) break;
        if (count == JINJA_CHAIN) return parse_fail(p, "an expression too long to follow");
        const struct bytes op = p->at++->text;
        struct node *right = parse_binary(p, level + 1);
        n = two(p, N_BINARY, n, right);
        if (!p->failed) n->name = op;
    }
    return n;
}

static struct node *parse_compare(struct parser *p) {
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    struct node *first = parse_binary(p, 0), *all = NULL, **end = NULL;
    while (!p->failed) {
        struct bytes op = {NULL, 0};
        for (int i = 0; i < COUNT(ops); i++)
            if (is_op(p->at, ops[i])) op = p->at->text;
        if (is_name(p->at, "in")) op = p->at->text;
        if (is_name(p->at, "not") && is_name(p->at + 1, "in"))
            op = (struct bytes){"not in", 6}, p->at++;
        if (!op.data) break;
        p->at++;
        if (!all) all = two(p, N_COMPARE, first, NULL), end = &all->kid[1];
        struct node *n = two(p, N_INPUT, parse_binary(p, 0), NULL);
        if (p->failed) break;
        n->name = op;
        *end = n, end = &n->next;
    }
    return all ? all : first;
}

static struct node *parse_not(struct parser *p) {
    if (!is_name(p->at, "not")) return parse_compare(p);
    struct node *n = tree_new(p, N_UNARY);
    if (++p->depth > JINJA_DEPTH) parse_fail(p, "an expression nested too deeply");
    p->at++;
    struct node *of = p->failed ? NULL : parse_not(p);
    p->depth--;
    if (!p->failed) n->name = (struct bytes){"not", 3}, n->kid[0] = of;
    return n;
}

static struct node *parse_logic(struct parser *p, bool either) {
    struct node *n = either ? parse_logic(p, false) : parse_not(p);
    for (int count = 0; !p->failed && take_name(p, either ? "or" : "and"); count++) {
        if (count == JINJA_CHAIN) return parse_fail(p, "an expression too long to follow");
        struct node *right = either ? parse_logic(p, false) : parse_not(p);
        n = two(p, either ? N_OR : N_AND, n, right);
    }
    return n;
}

struct node *parse_expression(struct parser *p) {
    if (++p->depth > JINJA_DEPTH) parse_fail(p, "an expression nested too deeply");
    struct node *n = p->failed ? tree_new(p, N_CONST) : parse_logic(p, true);
    for (int count = 0; !p->failed && take_name(p, "if"); count++) {
        if (count == JINJA_DEPTH) parse_fail(p, "an expression too long to follow");
        struct node *condition = parse_logic(p, true), *otherwise = NULL;
        if (take_name(p, "else")) otherwise = parse_expression(p);
        struct node *c = two(p, N_COND, condition, n);
        if (!p->failed) c->kid[2] = otherwise;
        n = c;
    }
    return p->depth--, n;
}
