/* jinja_parse.c: the statements of a template. What Jinja has and we have not (inheritance,
 * imports, recursive loops, autoescape) is refused by name. */
#include "data/templates/jinja.h"

#include <string.h>

static struct node *parse_body(struct parser *p, const char *const *ends);
#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The next tag's name is one of `ends`, which is taken. */
static bool at_end(struct parser *p, const char *const *ends) {
    for (; *ends; ends++)
        if (is_name(p->at, *ends)) return true;
    return false;
}

static void end_tag(struct parser *p) {
    if (p->failed) return;
    if (p->at->kind == T_BLOCK_END)
        p->at++;
    else
        parse_fail(p, "found '%.*s' where the end of the tag was expected",
                   (int)i64_min(p->at->text.size, 40), p->at->text.data);
}

/* Names, attributes of a namespace (if `attributes`), or a tuple of them. */
static struct node *parse_target(struct parser *p, bool attributes, bool tuple) {
    struct node *first = NULL, **end = &first;
    const bool bracket = tuple && take_op(p, "(");
    bool many = bracket;
    while (!p->failed) {
        struct node *n = tree_new(p, N_NAME);
        const struct token *t = p->at;
        const struct bytes name = expect_name(p);
        if (p->failed) return n;
        if (is_name(t, "true") || is_name(t, "false") || is_name(t, "none") || is_name(t, "True") ||
            is_name(t, "False") || is_name(t, "None") || is_name(t, "loop"))
            return parse_fail(p, "'%.*s' cannot be assigned to", (int)name.size, name.data);
        n->name = name;
        if (attributes && take_op(p, ".")) {
            struct node *of = n;
            n = tree_new(p, N_ATTR);
            const struct bytes attr = expect_name(p);
            if (p->failed) return n;
            n->kid[0] = of, n->name = attr;
        }
        *end = n, end = &n->next;
        if (!tuple || !take_op(p, ",")) break;
        many = true;
        if (p->at->kind != T_NAME || is_name(p->at, "in")) break;
    }
    if (bracket) expect_op(p, ")");
    if (!many) return first;
    struct node *n = tree_new(p, N_TUPLE);
    if (!p->failed) n->kid[0] = first;
    return n;
}

static struct node *parse_if(struct parser *p) {
    struct node *n = tree_new(p, N_IF), *condition = parse_tuple(p, false, NULL);
    end_tag(p);
    struct node *body = parse_body(p, ENDS("elif", "else", "endif")), *otherwise = NULL;
    if (p->failed) return n;
    if (take_name(p, "elif")) {
        if (++p->depth > JINJA_DEPTH) return parse_fail(p, "more than %d 'elif'", JINJA_DEPTH);
        otherwise = parse_if(p);
        p->depth--;
    } else {
        if (take_name(p, "else")) end_tag(p), otherwise = parse_body(p, ENDS("endif"));
        if (!p->failed) p->at++;
    }
    if (!p->failed) n->kid[0] = condition, n->kid[1] = body, n->kid[2] = otherwise;
    return n;
}

static struct node *parse_for(struct parser *p) {
    struct node *n = tree_new(p, N_FOR), *kid[5] = {NULL};
    kid[0] = parse_target(p, false, true);
    if (!p->failed && !take_name(p, "in")) parse_fail(p, "a for without 'in'");
    if (!p->failed) kid[1] = parse_tuple(p, false, "recursive");
    if (take_name(p, "if")) kid[2] = parse_expression(p);
    if (is_name(p->at, "recursive")) return parse_fail(p, "'recursive' loops are not supported");
    end_tag(p);
    p->loops++;
    kid[3] = parse_body(p, ENDS("endfor", "else"));
    p->loops--;
    if (!p->failed && take_name(p, "else")) end_tag(p), kid[4] = parse_body(p, ENDS("endfor"));
    if (p->failed) return n;
    p->at++;
    memcpy(n->kid, kid, sizeof kid);
    return n;
}

static struct node *parse_set(struct parser *p) {
    struct node *n = tree_new(p, N_SET), *target = parse_target(p, true, true), *value;
    if (take_op(p, "=")) {
        value = parse_tuple(p, true, NULL);
        if (!p->failed) n->kid[0] = target, n->kid[1] = value;
        return n;
    }
    value = parse_filters(p, tree_new(p, N_INPUT), false);
    end_tag(p);
    struct node *body = parse_body(p, ENDS("endset"));
    if (p->failed) return n;
    p->at++;
    n->kind = N_SET_BLOCK, n->kid[0] = target, n->kid[1] = value, n->kid[3] = body;
    return n;
}

/* (a, b=1) */
static struct node *parse_parameters(struct parser *p) {
    struct node *first = NULL, **end = &first;
    expect_op(p, "(");
    while (!p->failed && !take_op(p, ")")) {
        if (first) {
            expect_op(p, ",");
            if (take_op(p, ")")) break;
        }
        struct node *n = tree_new(p, N_NAME);
        const struct bytes name = expect_name(p);
        struct node *otherwise = take_op(p, "=") ? parse_expression(p) : NULL;
        if (p->failed) break;
        n->name = name, n->kid[0] = otherwise;
        *end = n, end = &n->next;
    }
    return first;
}

static struct node *parse_macro(struct parser *p, bool call) {
    struct node *n = tree_new(p, call ? N_CALL_BLOCK : N_MACRO), *called = NULL, *params = NULL;
    struct bytes name = {"caller", 6};
    if (!call) name = expect_name(p);
    if (!call || is_op(p->at, "(")) params = parse_parameters(p);
    if (call) {
        called = parse_expression(p);
        if (!p->failed && called->kind != N_CALL)
            return parse_fail(p, "a call block without a call");
    }
    end_tag(p);
    const int loops = p->loops;
    p->loops = 0, p->macros++;
    struct node *body = parse_body(p, call ? ENDS("endcall") : ENDS("endmacro"));
    p->loops = loops, p->macros--;
    if (p->failed) return n;
    p->at++;
    n->name = name, n->kid[0] = params, n->kid[1] = called, n->kid[3] = body;
    return n;
}

static struct node *parse_with(struct parser *p) {
    struct node *n = tree_new(p, N_WITH), *target = NULL, **targets = &target, *value = NULL,
                **values = &value;
    while (!p->failed && p->at->kind != T_BLOCK_END) {
        if (target) expect_op(p, ",");
        struct node *t = parse_target(p, false, false), *v = tree_new(p, N_INPUT);
        expect_op(p, "=");
        struct node *of = parse_expression(p);
        if (p->failed) return n;
        *targets = t, targets = &t->next;
        v->kid[0] = of, *values = v, values = &v->next;
    }
    end_tag(p);
    struct node *body = parse_body(p, ENDS("endwith"));
    if (p->failed) return n;
    p->at++;
    n->kid[0] = target, n->kid[1] = value, n->kid[3] = body;
    return n;
}

static struct node *parse_block(struct parser *p, enum node_kind kind, const char *end) {
    struct node *n = tree_new(p, kind), *filters = NULL;
    if (kind == N_FILTER_BLOCK) filters = parse_filters(p, tree_new(p, N_INPUT), true);
    end_tag(p);
    struct node *body = parse_body(p, ENDS(end));
    if (p->failed) return n;
    p->at++;
    n->kid[1] = filters, n->kid[3] = body;
    return n;
}

static struct node *parse_statement(struct parser *p) {
    const struct token *t = p->at;
    const struct bytes name = expect_name(p);
    if (p->failed) return NULL;
    if (is_name(t, "if")) return parse_if(p);
    if (is_name(t, "for")) return parse_for(p);
    if (is_name(t, "set")) return parse_set(p);
    if (is_name(t, "macro")) return parse_macro(p, false);
    if (is_name(t, "call")) return parse_macro(p, true);
    if (is_name(t, "with")) return parse_with(p);
    if (is_name(t, "filter")) return parse_block(p, N_FILTER_BLOCK, "endfilter");
    if (is_name(t, "generation"))
        return p->t->generation = true, parse_block(p, N_GENERATION, "endgeneration");
    const bool leave = is_name(t, "break");
    if (leave || is_name(t, "continue"))
        return p->loops ? tree_new(p, leave ? N_BREAK : N_CONTINUE)
                        : parse_fail(p, "'%.*s' outside a loop", (int)name.size, name.data);
    if (name.size > 3 && !memcmp(name.data, "end", 3))
        return parse_fail(p, "'%.*s' ends nothing that is open here", (int)i64_min(name.size, 40),
                          name.data);
    return parse_fail(p, "the statement '%.*s' is not supported", (int)i64_min(name.size, 40),
                      name.data);
}

/* Statements until a tag named in `ends`, which stays to be taken. */
static struct node *parse_body(struct parser *p, const char *const *ends) {
    struct node *first = NULL, **end = &first;
    const int opened = *ends ? (p->at - 1)->line : 1;
    if (++p->depth > JINJA_DEPTH) parse_fail(p, "blocks nested too deeply");
    while (!p->failed) {
        struct node *n = NULL;
        const enum token_kind kind = p->at->kind;
        if (kind == T_END) {
            if (*ends)
                parse_fail(p, "the block of line %d has no end: expected '%s'", opened, *ends);
            break;
        }
        if (kind == T_DATA) {
            n = tree_new(p, N_DATA);
            if (!p->failed) n->name = p->at++->text;
        } else if (kind == T_VARIABLE) {
            p->at++;
            struct node *of = parse_tuple(p, true, NULL);
            n = tree_new(p, N_OUTPUT);
            if (!p->failed && p->at->kind != T_VARIABLE_END)
                parse_fail(p, "found '%.*s' where }} was expected",
                           (int)i64_min(p->at->text.size, 40), p->at->text.data);
            if (!p->failed) n->kid[0] = of, n->line = of->line, p->at++;
        } else {
            p->at++;
            if (at_end(p, ends)) break;
            n = parse_statement(p);
            end_tag(p);
        }
        if (p->failed) break;
        *end = n, end = &n->next;
    }
    p->depth--;
    return first;
}

int jinja_parse(struct template *t, struct err *e) {
    struct parser p = {.t = t, .at = t->token, .e = e};
    t->body = parse_body(&p, (const char *const[]){NULL});
    return p.failed ? -1 : 0;
}
