/* jinja.c: chat templates: the part of Jinja2 that they use, with the settings and additions of
 * transformers (trim_blocks, lstrip_blocks, loop controls, the immutable sandbox, tojson without
 * HTML escapes, raise_exception, strftime_now, {% generation %}). This file runs statements.
 *
 * Names are looked up where they are used, from the innermost scope out. Loops, macros, set and
 * filter blocks open a scope; `if` does not; each turn of a loop starts with a fresh one. That
 * gives what Jinja's compiled code gives. A template is untrusted: it can neither hang, nor
 * overflow, nor reach anything but what it is given. Rejected: an engine by someone else (two to
 * four thousand lines of C++) and a fixed list of known templates, which is wrong on the first
 * edited one. */
#include "data/templates/jinja.h"

#include <string.h>
#include <time.h>

static void bind(struct render *r, struct scope *s, struct bytes name, struct value v) {
    for (struct binding *b = s->first; b; b = b->next)
        if (bytes_same(b->name, name)) return (void)(b->value = v);
    struct binding *b = jinja_make(r, sizeof *b);
    if (!b) return;
    *b = (struct binding){s->first, name, v};
    s->first = b;
}

static struct scope *scope_new(struct render *r, struct scope *outer) {
    struct scope *s = jinja_make(r, sizeof *s);
    if (s) s->outer = outer;
    return s;
}

void assign(struct render *r, struct bytes name, struct value v) {
    if (!r->failed) bind(r, r->scope, name, v);
}

void assign_target(struct render *r, const struct node *target, struct value v) {
    if (r->failed) return;
    r->line = target->line;
    if (target->kind == N_NAME) return assign(r, target->name, v);
    if (target->kind == N_ATTR) {
        const struct value of = jinja_eval(r, target->kid[0]);
        if (r->failed) return;
        if (of.kind != V_NAMESPACE)
            return (void)jinja_fail(r, "cannot assign attribute on non-namespace object '%.*s'",
                                    (int)i64_min(target->kid[0]->name.size, 80),
                                    target->kid[0]->name.data);
        if (target->name.data[0] == '_')
            return (void)jinja_fail(r, "a namespace cannot have an attribute that starts with '_'");
        return dict_set(r, of.as.dict, v_text(target->name.data, target->name.size), v);
    }
    const struct list *l = items_of(r, v);
    i64 count = 0, i = 0;
    for (const struct node *k = target->kid[0]; k; k = k->next) count++;
    if (!r->failed && count != l->count)
        return (void)jinja_fail(r, "%lld values for %lld names", (long long)l->count,
                                (long long)count);
    for (const struct node *k = target->kid[0]; k && !r->failed; k = k->next)
        assign_target(r, k, l->item[i++]);
}

/* Runs a body in a scope of its own and gives its text. */
static struct value captured(struct render *r, const struct node *body, struct scope *scope) {
    struct text text = {0}, *out = r->out;
    struct scope *before = r->scope;
    struct value v = v_text("", 0);
    if (!scope || !deeper(r)) return r->depth -= scope != NULL, v;
    r->out = &text, r->scope = scope;
    run_body(r, body);
    r->out = out, r->scope = before, r->depth--;
    return v_take(r, &text);
}

static struct value with_input(struct render *r, const struct node *filters, struct value input) {
    const struct value before = r->input;
    r->input = input;
    const struct value v = jinja_eval(r, filters);
    return r->input = before, v;
}

/* ---- macros */

struct value macro_new(struct render *r, struct node *n) {
    struct macro *m = jinja_make(r, sizeof *m);
    if (!m) return v_none;
    *m = (struct macro){n, r->scope};
    return (struct value){V_MACRO, false, {.macro = m}};
}

struct value macro_call(struct render *r, struct macro *m, struct call *c) {
    static const struct bytes caller = {"caller", 6};
    struct scope *scope = scope_new(r, m->scope), *before = r->scope;
    if (!scope) return v_none;
    r->scope = scope;
    c->name = m->node->name;
    i64 index = 0;
    for (const struct node *p = m->node->kid[0]; p && !r->failed; p = p->next, index++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)i64_min(p->name.size, 127), p->name.data);
        const bool has = given(c, index, name);
        struct value v =
            has ? arg(c, index, name, v_none) : v_undefined(p->name.data, p->name.size);
        if (!has && p->kid[0]) v = jinja_eval(r, p->kid[0]);
        assign(r, p->name, v);
    }
    if (given(c, INT32_MAX, "caller")) assign(r, caller, arg(c, INT32_MAX, "caller", v_none));
    call_done(r, c);
    r->scope = before;
    return r->failed ? v_none : captured(r, m->node->kid[3], scope);
}

static void run_call_block(struct render *r, struct node *n) {
    const struct node *call = n->kid[1];
    const struct value f = jinja_eval(r, call->kid[0]);
    struct call c = call_of(r, call->kid[0]->name, call->kid[1]), more = c;
    more.count = c.count + 1, more.item = jinja_make(r, more.count * (i64)sizeof *more.item);
    if (!more.item) return;
    if (c.count) memcpy(more.item, c.item, (size_t)c.count * sizeof *c.item);
    more.item[c.count] = (struct argument){{"caller", 6}, macro_new(r, n), false};
    jinja_print(r, r->out, call_value(r, f, &more), false);
}

/* ---- loops */

/* Does item `at` pass the loop's condition? Asked once, when the answer is first needed. */
static bool loop_passes(struct loop *l, i64 at) {
    struct render *r = l->r;
    if (!l->passed || r->failed) return true;
    if (!l->passed[at]) {
        struct scope *before = r->scope, *own = scope_new(r, l->scope);
        if (!own) return true;
        r->scope = own;
        assign_target(r, l->node->kid[0], l->items->item[at]);
        l->passed[at] = r->failed || truth(jinja_eval(r, l->node->kid[2])) ? 1 : 2;
        r->scope = before;
    }
    return l->passed[at] == 1;
}

static i64 loop_next(struct loop *l, i64 at) { /* the first item from `at` on that passes */
    while (at < l->items->count && !loop_passes(l, at)) at++;
    return at;
}

static i64 loop_length(struct loop *l) {
    i64 n = l->index + 1;
    for (i64 at = l->at; (at = loop_next(l, at + 1)) < l->items->count;) n++;
    return n;
}

static bool loop_last(struct loop *l) { return loop_next(l, l->at + 1) >= l->items->count; }

struct value loop_attribute(struct render *r, struct loop *l, struct bytes name) {
    if (bytes_are(name, "index")) return v_int(l->index + 1);
    if (bytes_are(name, "index0")) return v_int(l->index);
    if (bytes_are(name, "first")) return v_bool(!l->index);
    if (bytes_are(name, "last")) return v_bool(loop_last(l));
    if (bytes_are(name, "length")) return v_int(loop_length(l));
    if (bytes_are(name, "revindex")) return v_int(loop_length(l) - l->index);
    if (bytes_are(name, "revindex0")) return v_int(loop_length(l) - l->index - 1);
    if (bytes_are(name, "depth")) return v_int(1);
    if (bytes_are(name, "depth0")) return v_int(0);
    if (bytes_are(name, "previtem"))
        return l->previous < 0 ? v_undefined("there is no previous item", 25)
                               : l->items->item[l->previous];
    if (bytes_are(name, "nextitem"))
        return loop_last(l) ? v_undefined("there is no next item", 21)
                            : l->items->item[loop_next(l, l->at + 1)];
    return jinja_fail(r, "'loop.%.*s' is not supported", (int)i64_min(name.size, 40), name.data);
}

static enum flow run_for(struct render *r, struct node *n) {
    struct scope *before = r->scope;
    struct loop *l = jinja_make(r, sizeof *l);
    const struct value of = jinja_eval(r, n->kid[1]);
    if (r->failed) return BREAK;
    *l = (struct loop){.r = r, .node = n, .scope = before, .items = items_of(r, of), .index = -1};
    l->previous = -1;
    if (n->kid[2] && l->items->count) l->passed = jinja_make(r, l->items->count);
    for (i64 at = 0; !r->failed && (at = loop_next(l, at)) < l->items->count; at++) {
        l->previous = l->index < 0 ? -1 : l->at;
        l->at = at, l->index++;
        if (!(r->scope = scope_new(r, before))) break;
        bind(r, r->scope, (struct bytes){"loop", 4}, (struct value){V_LOOP, false, {.loop = l}});
        assign_target(r, n->kid[0], l->items->item[at]);
        const enum flow flow = run_body(r, n->kid[3]);
        r->scope = before;
        if (r->turns && r->turns->loop == n && !r->failed) turns_note(r, l);
        if (flow == BREAK) break;
    }
    r->scope = before;
    if (l->index < 0 && n->kid[4] && !r->failed && (r->scope = scope_new(r, before)))
        run_body(r, n->kid[4]);
    return r->scope = before, GO;
}

/* ---- statements */

static enum flow run_with(struct render *r, struct node *n) {
    struct scope *before = r->scope, *own = scope_new(r, before);
    const struct node *value = n->kid[1];
    if (!own) return BREAK;
    for (const struct node *t = n->kid[0]; t && !r->failed; t = t->next, value = value->next)
        bind(r, own, t->name, jinja_eval(r, value->kid[0]));
    r->scope = own;
    const enum flow flow = run_body(r, n->kid[3]);
    return r->scope = before, flow;
}

/* Spans are recorded only for text written directly to the result: where the text of a macro or a
 * set block lands is not known. */
static void run_generation(struct render *r, struct node *n) {
    const i64 from = r->out->size;
    const struct value v = captured(r, n->kid[3], scope_new(r, r->scope));
    jinja_put(r, r->out, v.as.text.data, v.as.text.size);
    if (!r->generation || r->failed) return;
    if (r->out != r->root)
        jinja_fail(r, "'generation' inside a macro or a set block is not supported");
    else if (spans_add(r->generation, from, r->out->size, r->e))
        r->failed = true;
}

static enum flow run_node(struct render *r, struct node *n) {
    struct value v;
    r->line = n->line;
    switch (n->kind) {
    case N_DATA: jinja_put(r, r->out, n->name.data, n->name.size); break;
    case N_OUTPUT:
        v = jinja_eval(r, n->kid[0]);
        if (!r->failed) jinja_print(r, r->out, v, false);
        break;
    case N_IF:
        if (truth(jinja_eval(r, n->kid[0]))) return r->failed ? BREAK : run_body(r, n->kid[1]);
        return n->kid[2] ? run_body(r, n->kid[2]) : GO;
    case N_FOR: return run_for(r, n);
    case N_SET: assign_target(r, n->kid[0], jinja_eval(r, n->kid[1])); break;
    case N_SET_BLOCK:
        v = captured(r, n->kid[3], scope_new(r, r->scope));
        assign_target(r, n->kid[0], with_input(r, n->kid[1], v));
        break;
    case N_MACRO: assign(r, n->name, macro_new(r, n)); break;
    case N_CALL_BLOCK: run_call_block(r, n); break;
    case N_FILTER_BLOCK:
        v = with_input(r, n->kid[1], captured(r, n->kid[3], scope_new(r, r->scope)));
        if (!r->failed) jinja_print(r, r->out, v, false);
        break;
    case N_WITH: return run_with(r, n);
    case N_GENERATION: run_generation(r, n); break;
    case N_BREAK: return BREAK;
    case N_CONTINUE: return CONTINUE;
    default: jinja_fail(r, "an expression where a statement was expected");
    }
    return GO;
}

enum flow run_body(struct render *r, const struct node *n) {
    enum flow flow = GO;
    if (!deeper(r)) return r->depth--, BREAK;
    for (; n && flow == GO && jinja_step(r, 0); n = n->next) {
        flow = run_node(r, (struct node *)(uintptr_t)n);
        if (r->failed) flow = BREAK;
    }
    return r->depth--, flow;
}

/* ---- the public functions */

int spans_push(struct spans *s, i64 begin, i64 end, struct err *e) {
    if (s->count == s->capacity) {
        const i64 wanted = i64_max(8, 2 * s->capacity), size = (i64)sizeof *s->item;
        struct span *grown = mem_grow(s->item, s->count * size, wanted * size, e);
        if (!grown) return -1;
        s->item = grown, s->capacity = wanted;
    }
    s->item[s->count++] = (struct span){begin, end};
    return 0;
}
int spans_add(struct spans *s, i64 begin, i64 end, struct err *e) {
    return begin < end ? spans_push(s, begin, end, e) : 0;
}
void spans_free(struct spans *s) { mem_free(s->item), *s = (struct spans){0}; }

struct template *template_new(const char *source, i64 size, const char *name, struct err *e) {
    struct template *t = mem_new(sizeof *t, e);
    if (!t) return NULL;
    if (!(t->name = arena_text(&t->arena, name, e)) || jinja_lex(t, source, size, e) ||
        jinja_parse(t, e))
        return template_free(t), NULL;
    return t;
}

void template_free(struct template *t) {
    if (!t) return;
    arena_free(&t->arena);
    mem_free(t);
}

bool template_generation(const struct template *t) { return t->generation; }

int render_all(const struct template *t, const json_t *variables, i64 now, struct text *out,
               struct spans *generation, struct turns *turns, struct err *e) {
    struct render r = {.t = t,
                       .e = e,
                       .out = out,
                       .root = out,
                       .generation = generation,
                       .now = now,
                       .turns = turns};
    struct scope variable = {0}, top = {.outer = &variable};
    const i64 from = out->size, spans = generation ? generation->count : 0;
    r.scope = &variable;
    json_t *o = (json_t *)(uintptr_t)variables;
    for (void *at = json_object_iter(o); at && !r.failed; at = json_object_iter_next(o, at))
        assign(&r, (struct bytes){json_object_iter_key(at), (i64)json_object_iter_key_len(at)},
               v_json(&r, json_object_iter_value(at)));
    r.scope = &top;
    if (!r.failed) run_body(&r, t->body);
    arena_free(&r.arena);
    if (!r.failed) return text_add(out, "", 0, e);
    out->size = from; /* nothing half rendered */
    if (out->data) out->data[from] = 0;
    if (generation) generation->count = spans;
    return -1;
}

int template_render(const struct template *t, const json_t *variables, i64 now, struct text *out,
                    struct spans *generation, struct err *e) {
    return render_all(t, variables, now, out, generation, NULL, e);
}
