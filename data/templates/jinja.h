/* jinja.h: what the files of the template engine share: tokens, the tree, values, one rendering.
 *
 * Failure is sticky: the first error lands in `r->e`, sets `failed`, and from then on every
 * evaluation gives undefined and every loop ends, so that no step needs a check of its own. What a
 * template may cost is bounded by `steps` (evaluations, and bytes touched in sixteens) and `depth`;
 * all memory of a rendering is one arena. */
#ifndef HONE_JINJA_H
#define HONE_JINJA_H

#include <jansson.h>
#include "data/templates/templates.h"

/* JINJA_DEPTH: brackets and blocks within each other; JINJA_CHAIN: operators in a row; JINJA_EVAL:
 * everything within each other while rendering, macros that call themselves included. */
enum {
    JINJA_DEPTH = 200,
    JINJA_CHAIN = 500,
    JINJA_EVAL = 1000,
    JINJA_STEPS = 20 << 20,
    JINJA_SOURCE = 4 << 20
};
static const i64 jinja_bytes = (i64)256 << 20; /* of text and lists that one rendering may make */

/* ---- tokens (jinja_lex.c) */
enum token_kind {
    T_END,
    T_DATA,
    T_BLOCK,     /* {% */
    T_BLOCK_END, /* %} */
    T_VARIABLE,
    T_VARIABLE_END,
    T_NAME,
    T_STRING, /* unescaped */
    T_INT,
    T_FLOAT,
    T_OP
};
struct token {
    enum token_kind kind;
    int line;
    struct bytes text;
    i64 integer;
    double real;
};
struct template {
    struct arena arena; /* everything below */
    const char *name;   /* starts messages */
    struct token *token;
    i64 tokens, tokens_capacity;
    struct node *body;
    bool generation; /* has {% generation %} */
};
int jinja_lex(struct template *t, const char *source, i64 size, struct err *e);
bool is_op(const struct token *t, const char *op);
bool is_name(const struct token *t, const char *name);

/* ---- the tree (jinja_parse.c, jinja_parse_expr.c): children in `kid`, lists by `next` */
enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,    /* kid 0: items */
    N_TUPLE,   /* the same */
    N_DICT,    /* kid 0: keys and values in turn */
    N_ATTR,    /* kid 0 . name */
    N_ITEM,    /* kid 0 [kid 1] */
    N_SLICE,   /* kid 0 [kid 1 : kid 2 : kid 3], each may be missing */
    N_CALL,    /* kid 0 (kid 1: arguments; those with a name are keyword arguments) */
    N_FILTER,  /* kid 0 | name(kid 1) */
    N_TEST,    /* kid 0 is name(kid 1) */
    N_UNARY,   /* op kid 0 */
    N_BINARY,  /* kid 0 op kid 1 */
    N_COMPARE, /* kid 0, then kid 1: list of right sides, each with its op */
    N_AND,
    N_OR,
    N_COND,  /* kid 1 if kid 0 else kid 2 */
    N_INPUT, /* what a filter or set block holds */
    /* statements */
    N_DATA,
    N_OUTPUT,
    N_IF,           /* if kid 0: kid 1 else: kid 2 */
    N_FOR,          /* for kid 0 in kid 1 if kid 2: kid 3, else: kid 4 */
    N_SET,          /* kid 0 = kid 1 */
    N_SET_BLOCK,    /* kid 0 = kid 1 (filters over N_INPUT) of body kid 3 */
    N_MACRO,        /* name (kid 0: parameters, each with a default in kid 0) body kid 3 */
    N_CALL_BLOCK,   /* the same, and kid 1: the call */
    N_FILTER_BLOCK, /* kid 1 of body kid 3 */
    N_WITH,         /* kid 0: targets, kid 1: values, body kid 3 */
    N_GENERATION,   /* body kid 3 */
    N_BREAK,
    N_CONTINUE
};
struct value {
    enum value_kind {
        V_UNDEFINED, /* text: what it was, for messages */
        V_NONE,
        V_BOOL,
        V_INT,
        V_FLOAT,
        V_TEXT,
        V_LIST,
        V_DICT,
        V_NAMESPACE,
        V_MACRO,
        V_LOOP,
        V_METHOD,
        V_GLOBAL
    } kind;
    bool safe; /* a text that `safe` or `escape` made: + escapes what is joined to it */
    union {
        bool truth;
        i64 integer;
        double real;
        struct bytes text;
        struct list *list;
        struct dict *dict; /* namespaces too */
        struct macro *macro;
        struct loop *loop;
        struct method *method;
        const struct global *global;
    } as;
};
struct node {
    enum node_kind kind;
    int line;
    struct bytes name; /* also the operator */
    struct value value;
    struct node *kid[5], *next;
    const void *use; /* a filter's or test's row */
};
int jinja_parse(struct template *t, struct err *e);
struct parser {
    struct template *t;
    struct token *at;
    struct err *e;
    int depth, loops, macros;
    bool failed;
};
struct node *parse_expression(struct parser *p);
struct node *parse_tuple(struct parser *p, bool conditional, const char *end);
struct node *parse_primary(struct parser *p);
struct node *parse_filters(struct parser *p, struct node *in, bool begun);
struct node *tree_new(struct parser *p, enum node_kind kind);
struct node *parse_fail(struct parser *p, const char *fmt, ...) PRINTF(2, 3); /* NULL */
bool take_op(struct parser *p, const char *op);
bool take_name(struct parser *p, const char *name);
void expect_op(struct parser *p, const char *op);
struct bytes expect_name(struct parser *p);

/* ---- values (jinja_value.c, jinja_print.c) */
struct list {
    struct value *item;
    i64 count, capacity;
    i64 *used; /* of `item`, by all lists that begin with the same items */
    enum list_form { LIST, TUPLE, RANGE, VIEW, LAZY } form; /* LAZY: a generator, read once */
};
struct pair {
    struct value key, value;
};
struct dict {
    struct pair *pair; /* in order of insertion */
    i64 count, capacity;
};
struct binding {
    struct binding *next;
    struct bytes name;
    struct value value;
};
struct scope {
    struct scope *outer;
    struct binding *first;
};
struct macro {
    struct node *node;
    struct scope *scope; /* where it was defined */
};
struct loop {
    struct render *r;
    struct node *node;
    struct scope *scope; /* around the loop */
    struct list *items;
    u8 *passed; /* [items] by the loop's condition: 0 not asked, 1 yes, 2 no; NULL: has none */
    i64 at, index, previous, depth;
    struct value changed;
};
struct method {
    struct value self;
    struct bytes name;
};
struct render {
    const struct template *t;
    struct arena arena;
    struct err *e;
    bool failed;
    int line, depth;
    i64 steps, bytes;
    struct scope *scope;
    struct text *out, *root;
    struct spans *generation;
    struct value input;
    struct loop *loop;
    i64 now;
    struct turns { /* jinja_turns.c; NULL: none are wanted */
        const struct node *loop;
        struct turn *item;
        i64 count, next;
    } * turns;
};
/* `l` has just ended a turn of the loop that is watched. */
void turns_note(struct render *r, const struct loop *l);
int render_all(const struct template *t, const json_t *variables, i64 now, struct text *out,
               struct spans *generation, struct turns *turns, struct err *e);
struct argument {
    struct bytes name; /* data NULL: positional */
    struct value value;
    bool taken;
};
struct call { /* one call's arguments */
    struct bytes name;
    struct argument *item;
    i64 count;
};
struct value jinja_fail(struct render *r, const char *fmt, ...) PRINTF(2, 3); /* undefined */
bool jinja_step(struct render *r, i64 bytes);  /* false: failed, or the limits are reached */
bool deeper(struct render *r);                 /* depth++; false: too deep. Pair with r->depth-- */
void *jinja_make(struct render *r, i64 bytes); /* zeroed; NULL: failed */

static const struct value v_none = {.kind = V_NONE};
static inline struct value v_bool(bool b) { return (struct value){V_BOOL, false, {.truth = b}}; }
static inline struct value v_int(i64 i) { return (struct value){V_INT, false, {.integer = i}}; }
static inline struct value v_real(double x) { return (struct value){V_FLOAT, false, {.real = x}}; }
static inline struct value v_text(const char *data, i64 size) { /* borrows */
    return (struct value){V_TEXT, false, {.text = {data, size}}};
}
struct value v_undefined(const char *data, i64 size);
struct value v_copy(struct render *r, const char *data, i64 size); /* of bytes */
struct value v_take(struct render *r, struct text *t);             /* copies and frees t */
struct value v_list(struct render *r, enum list_form form);
void list_add(struct render *r, struct value list, struct value item);
struct value list_joined(struct render *r, const struct list *a, const struct list *b); /* a + b */
struct value v_dict(struct render *r);
void dict_set(struct render *r, struct dict *d, struct value key, struct value value);
struct value *dict_find(struct render *r, const struct dict *d, struct value key); /* or NULL */
struct value *dict_find_text(const struct dict *d, struct bytes key);
struct value v_json(struct render *r, const json_t *j);
bool truth(struct value v);
bool is_integer(struct value v); /* bools too, as in Python */
bool is_number(struct value v);
i64 integer_of(struct value v);
double real_of(struct value v);
bool equal(struct render *r, struct value a, struct value b);
/* -1, 0, 1, or 2 where neither is less, as NaN; fails where Python does. */
int jinja_order(struct render *r, struct value a, struct value b);
bool contains(struct render *r, struct value in, struct value what);
struct list *items_of(struct render *r, struct value v); /* what a for loop sees; never NULL */
i64 length_of(struct render *r, struct value v);         /* fails as len() does */
const char *type_name(struct value v);                   /* Python's */
bool bytes_same(struct bytes a, struct bytes b);
bool bytes_are(struct bytes a, const char *text);

/* Appends str(v); `repr`: repr(v). */
void jinja_print(struct render *r, struct text *out, struct value v, bool repr);
struct value text_of(struct render *r, struct value v); /* str(v) */
struct json_form {
    const char *item, *key; /* separators */
    struct bytes indent;    /* data NULL: one line */
    bool ascii, sorted;
};
void print_json(struct render *r, struct text *out, struct value v, const struct json_form *f,
                i64 level);
void jinja_put(struct render *r, struct text *out, const char *data, i64 size);

/* ---- texts (jinja_text.c): Python's str */
bool is_blank(i64 code); /* str.isspace */
bool is_digit(i64 code); /* decimal, of any script */
i64 code_count(struct bytes s);
i64 code_offset(struct bytes s,
                i64 index); /* bytes in front of a code point; s.size past the end */
struct bytes strip(struct bytes s, const struct bytes *what, bool left, bool right);
struct value split_lines(struct render *r, struct bytes s);
enum letter_case { LOWER, UPPER, FIRST, TITLE }; /* FIRST: capitalize */
struct value to_case(struct render *r, struct bytes s, enum letter_case how);
struct value replace_text(struct render *r, struct bytes s, struct bytes old, struct bytes with,
                          i64 count); /* count < 0: all */
struct value escape_text(struct render *r, struct value v);
struct value call_method(struct render *r, const struct method *m, struct call *c);
bool has_method(struct value v, struct bytes name);

/* ---- filters, tests, globals (jinja_filter.c, jinja_filter_list.c, jinja_test.c) */
struct filter {
    const char *name;
    struct value (*run)(struct render *r, struct value in, struct call *c);
};
struct test {
    const char *name;
    bool (*run)(struct render *r, struct value in, struct call *c);
};
struct global {
    const char *name;
    struct value (*run)(struct render *r, struct call *c);
};
const struct filter *filter_find(struct bytes name);
extern const struct filter list_filters[];
const struct test *test_find(struct bytes name);
const struct global *global_find(struct bytes name);
/* The argument at a position or by its name; `otherwise` if it was not given. */
struct value arg(struct call *c, i64 index, const char *name, struct value otherwise);
bool given(struct call *c, i64 index, const char *name);
void call_done(struct render *r, struct call *c); /* fails if an argument was not taken */

/* ---- evaluation (jinja_eval.c, jinja_run.c) */
struct value jinja_eval(struct render *r, const struct node *n);
struct value call_value(struct render *r, struct value f, struct call *c);
struct call call_of(struct render *r, struct bytes name, const struct node *args);
struct value attribute(struct render *r, struct value of, struct bytes name);
struct value subscript(struct render *r, struct value of, struct value at);
struct value loop_attribute(struct render *r, struct loop *l, struct bytes name);
struct value macro_call(struct render *r, struct macro *m, struct call *c);
struct value macro_new(struct render *r, struct node *n);
void assign(struct render *r, struct bytes name, struct value v);
void assign_target(struct render *r, const struct node *target, struct value v);
enum flow { GO, BREAK, CONTINUE };
enum flow run_body(struct render *r, const struct node *n);

#endif
