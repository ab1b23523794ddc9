/* jinja_turns.c: one rendering of a conversation that also gives what its beginnings would render
 * to, in time linear in the messages.
 *
 * Finding answers by comparing texts (chat_rows.c) needs the text of the first 1, 2, 3, ...
 * messages. Most of that work is the same each time. Where a template is a head, one loop over
 * `messages` and a tail, and neither head nor loop can see how many messages follow, the text of
 * the first k messages is what the whole has after k turns of the loop, and then the tail. Whether
 * a template is of this kind is read off its tree, strictly: what is not known to be harmless makes
 * it another kind, rendered once for each beginning (chat_rows.c; numbers in README.md). */
#include "data/templates/jinja.h"

#include <string.h>

static const char list_name[] = "messages", prompt_name[] = "add_generation_prompt";

static bool named(const struct node *n, const char *name) {
    return n->kind != N_DATA && n->kind != N_CONST && bytes_are(n->name, name);
}

/* messages[0] and the like: the same for all beginnings that are longer than `*known`. */
static bool fixed_item(const struct node *n, i64 *known) {
    if (n->kind != N_ITEM || n->kid[0]->kind != N_NAME || !named(n->kid[0], list_name))
        return false;
    const struct node *at = n->kid[1];
    if (at->kind != N_CONST || at->value.kind != V_INT || at->value.as.integer < 0) return false;
    if (at->value.as.integer >= INT32_MAX) return false;
    *known = i64_max(*known, at->value.as.integer);
    return true;
}

static bool loop_backward(const struct node *n) { /* what a loop knows of the turns so far */
    static const char *const good[] = {"index", "index0", "first", "previtem", "depth", "depth0"};
    if (n->kind != N_ATTR || n->kid[0]->kind != N_NAME || !named(n->kid[0], "loop")) return false;
    for (int i = 0; i < COUNT(good); i++)
        if (bytes_are(n->name, good[i])) return true;
    return false;
}

/* `own`: inside the loop over messages, whose `loop` may look back only. Chains of operators in
 * brackets make trees far deeper than what can be rendered: such a template is of no kind here. */
static bool blind(const struct node *n, bool own, int deep, i64 *known) {
    if (deep > JINJA_EVAL) return false;
    for (; n; n = n->next) {
        if (fixed_item(n, known) || (own && loop_backward(n))) continue;
        if (named(n, list_name) || named(n, prompt_name) || (own && named(n, "loop"))) return false;
        for (int k = 0; k < COUNT(n->kid); k++) {
            const bool inner = own && !(n->kind == N_FOR && k == 3);
            if (!blind(n->kid[k], inner, deep + 1, known)) return false;
        }
    }
    return true;
}

/* The tail is run once for each beginning, so it must leave nothing behind: texts, conditions and
 * names alone. */
static bool plain_tail(const struct node *n, int deep, i64 *known) {
    if (deep > JINJA_EVAL) return false;
    for (; n; n = n->next) {
        if (fixed_item(n, known)) continue;
        if (n->kind >= N_DATA ? n->kind > N_IF
                              : n->kind == N_CALL || n->kind == N_FILTER || n->kind == N_TEST)
            return false;
        /* `in` may read a generator to its end */
        if (named(n, list_name) || named(n, "in") || named(n, "not in")) return false;
        for (int k = 0; k < COUNT(n->kid); k++)
            if (!plain_tail(n->kid[k], deep + 1, known)) return false;
    }
    return true;
}

static bool is_main(const struct node *n) {
    return n->kind == N_FOR && n->kid[1]->kind == N_NAME && named(n->kid[1], list_name) &&
           !n->kid[2] && !n->kid[4];
}

/* Finds the loop; `*known`: a beginning needs more messages than that. */
static const struct node *main_loop(const struct template *t, i64 *known) {
    const struct node *found = NULL;
    *known = 0;
    for (const struct node *n = t->body; n; n = n->next) {
        if (!found && is_main(n)) {
            found = n;
            if (!blind(n->kid[0], true, 0, known) || !blind(n->kid[3], true, 0, known)) return NULL;
            return plain_tail(n->next, 0, known) ? found : NULL;
        }
        struct node alone = *n; /* not its siblings */
        alone.next = NULL;
        if (!blind(&alone, false, 0, known)) return NULL;
    }
    return NULL;
}

static struct value *variable(struct render *r, const char *name) {
    for (struct scope *s = r->scope; s; s = s->outer)
        for (struct binding *b = s->first; b; b = b->next)
            if (bytes_are(b->name, name)) return &b->value;
    return NULL;
}

/* Ends the conversation here, and goes on as if nothing had been. */
static void turn_end(struct render *r, struct turn *turn, const struct node *tail) {
    struct value *prompt = variable(r, prompt_name), before = v_none;
    struct text *out = r->out;
    const i64 steps = r->steps;
    const int line = r->line;
    if (prompt) before = *prompt, *prompt = v_bool(turn->prompt);
    turn->at = out->size, turn->found = true, turn->tail.size = 0;
    r->out = &turn->tail;
    run_body(r, tail);
    r->out = out, r->steps = steps, r->line = line;
    if (prompt) *prompt = before;
}

void turns_note(struct render *r, const struct loop *l) {
    struct turns *s = r->turns;
    for (; s->next < s->count && s->item[s->next].messages <= l->at + 1; s->next++)
        if (s->item[s->next].messages == l->at + 1) turn_end(r, &s->item[s->next], l->node->next);
}

int template_render_turns(const struct template *t, const json_t *variables, i64 now,
                          struct text *out, struct turn *turn, i64 count, struct err *e) {
    i64 known;
    struct turns s = {.item = turn, .count = count, .loop = main_loop(t, &known)};
    if (!s.loop) return 1;
    for (i64 i = 0; i < count; i++) {
        turn[i].found = false;
        if (turn[i].messages <= known || (i && turn[i].messages < turn[i - 1].messages)) return 1;
    }
    if (render_all(t, variables, now, out, NULL, &s, e)) return -1;
    for (i64 i = 0; i < count; i++)
        if (!turn[i].found) return 1;
    return 0;
}
