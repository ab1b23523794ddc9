/* backward.c: the backward pass, by interpreting gradient rows.
 *
 * Nodes are visited from last to first. A row is emitted if something it gives is wanted: the
 * gradient of an input that needs one, or a value that a wanted row of the same node reads (dt of a
 * LoRA product). Rows of frozen inputs are therefore never emitted, and a tensor that only they
 * would read is not kept: lifetimes follow from what is emitted (plan.c).
 *
 * A tensor that feeds several operations gets its gradients added in the order in which they are
 * found, which is fixed. A parameter gets one accumulator per use, so that the chain over tokens of
 * one use is never interrupted by another (NUMERICS.md 5); the optimizer adds them.
 *
 * Recompute: on first reaching a node of a block, the block's nodes are cloned here, and the rows
 * read the clones' outputs; clones that nobody reads are dropped by the plan. */
#include "autograd/autograd_int.h"

#include <string.h>

enum { NAMES = 40 };

/* What a name means inside the rows of one node. */
struct scope {
    const char *name[NAMES];
    struct tensor *tensor[NAMES];
    int count;
};

static void scope_add(struct scope *s, const char *name, struct tensor *t) {
    s->name[s->count] = name, s->tensor[s->count++] = t;
}
static struct tensor *scope_get(const struct scope *s, const char *name) {
    for (int i = s->count; i-- > 0;)
        if (!strcmp(s->name[i], name)) return s->tensor[i];
    return NULL;
}

/* "dx=dr" is one result for two targets. Returns the second target's name, cut off the first. */
static char *alias_of(char *name) {
    char *second = strchr(name, '=');
    if (second) *second++ = 0;
    return second;
}

struct pass {
    struct graph *g;
    struct tensor **clone; /* by tensor index; what recomputation gave, or NULL */
    struct tensor **origin;
    int origins;
    int block; /* the block that is cloned at present */
};

static struct tensor *value_of(const struct pass *p, struct tensor *t) {
    for (int i = 0; t && i < p->origins; i++)
        if (p->origin[i] == t) return p->clone[i];
    return t;
}

static void contribute(struct pass *p, struct tensor *to, struct tensor *gradient) {
    if (!to || !to->needs_grad || !gradient) return;
    if (!to->grad)
        to->grad = gradient;
    else
        to->grad = graph_op(p->g, &op_add, NULL, BIND({"a", to->grad}, {"b", gradient}));
}

static int index_of(const struct op_arg *arg, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(arg[i].name, name)) return i;
    return -1;
}

/* Which rows of a node are wanted, as bits. */
static unsigned rows_wanted(const struct node *n, const struct op_arg *in, int ins,
                            const struct scope *s) {
    unsigned rows = 0;
    char local[OP_IN * OP_GRADS][24];
    int locals = 0;
    for (int r = OP_GRADS - 1; r >= 0; r--) {
        if (!n->op->grad[r].in) continue;
        struct op_arg out[OP_IN], need[OP_IN];
        bool wanted = false;
        for (int i = op_args(n->op->grad[r].out, out); i-- > 0;) {
            char *second = alias_of(out[i].name);
            const int at = index_of(in, ins, out[i].name + 1),
                      at2 = second ? index_of(in, ins, second + 1) : -1;
            wanted |= at >= 0 && n->in[at] && n->in[at]->needs_grad;
            wanted |= at2 >= 0 && n->in[at2] && n->in[at2]->needs_grad;
            for (int k = 0; k < locals; k++) wanted |= !strcmp(local[k], out[i].name);
        }
        if (!wanted) continue;
        rows |= 1u << r;
        for (int i = op_args(n->op->grad[r].in, need); i-- > 0;)
            if (need[i].name[0] == 'd' && !scope_get(s, need[i].name))
                memcpy(local[locals++], need[i].name, 24);
    }
    return rows;
}

/* Emits one row: its op's call, with outputs made for what is wanted. */
static void row_emit(struct pass *p, const struct node *n, const struct grad_row *row,
                     const struct op_arg *in, int ins, struct scope *s) {
    struct graph *g = p->g;
    struct op_arg from[OP_IN], to[OP_IN], takes[OP_IN], gives[OP_IN];
    const int froms = op_args(row->in, from), tos = op_args(row->out, to);
    if (!row->op) {
        contribute(p, n->in[index_of(in, ins, to[0].name + 1)], scope_get(s, from[0].name));
        return;
    }
    const struct op *op = op_find(row->op);
    const int take = op_args(op->in, takes);
    struct node *back = g->err.code ? NULL : graph_node(g);
    if (!back) return;
    *back = (struct node){.op = op, .attr = n->attr, .where = n->where};
    for (int i = 0; i < froms; i++) back->in[i] = scope_get(s, from[i].name);
    for (int i = 0; i < take; i++)
        if (!back->in[i] && !takes[i].optional) {
            g->nodes--; /* an argument that this call of the op does without */
            return;
        }
    op_args(op->out, gives);
    char *second[OP_OUT] = {0};
    for (int i = 0; i < tos; i++) {
        second[i] = alias_of(to[i].name);
        struct tensor *target = NULL;
        const int at = index_of(in, ins, to[i].name + 1);
        if (at >= 0) target = n->in[at];
        if (to[i].accumulate && target && target->needs_grad) {
            if (target->kind == TENSOR_PARAM)
                back->out[i] = graph_slot(g, target);
            else
                err_failed(&g->err, "operation %s: '%s' must be a parameter to be trained",
                           n->op->name, in[at].name);
        }
    }
    if (g->err.code || node_shape(g, back)) return;
    for (int i = 0; i < tos; i++) {
        if (to[i].accumulate) continue;
        const int at = index_of(in, ins, to[i].name + 1),
                  at2 = second[i] ? index_of(in, ins, second[i] + 1) : -1;
        struct tensor *a = at >= 0 ? n->in[at] : NULL, *b = at2 >= 0 ? n->in[at2] : NULL;
        const bool local = at < 0;
        if (!local && !(a && a->needs_grad) && !(b && b->needs_grad)) continue;
        if (!is_stored(&back->call.out[i])) continue;
        struct tensor *made = back->out[i] =
            graph_step_tensor(g, gives[i].name, &back->call.out[i]);
        if (!made) return;
        if (local) {
            char *name = arena_text(&g->arena, to[i].name, &g->err);
            if (name) scope_add(s, name, made);
        }
        contribute(p, a, made), contribute(p, b, made);
    }
}

/* A loss: its op is replaced by the one that also gives the gradients (row `root`). */
static void root_emit(struct pass *p, struct node *n) {
    struct graph *g = p->g;
    struct op_arg in[OP_IN], from[OP_IN], out[OP_IN];
    const int ins = op_args(n->op->in, in), froms = op_args(n->op->root.in, from),
              outs = op_args(n->op->root.out, out);
    struct tensor *given[OP_IN] = {0}, *target[OP_OUT] = {0};
    if (n->out[0]->grad->kind != TENSOR_INPUT) {
        err_failed(&g->err, "operation %s: the gradient of its loss must be an input", n->op->name);
        err_detail(&g->err, "it runs where the loss does, before anything of the backward pass");
        return;
    }
    for (int i = 0; i < froms; i++) {
        const int at = index_of(in, ins, from[i].name);
        given[i] = at >= 0 ? n->in[at] : n->out[0]->grad;
    }
    for (int i = 1; i < outs; i++) {
        struct tensor *t = n->in[index_of(in, ins, out[i].name + 1)];
        if (!t || !t->needs_grad) continue;
        target[i] = t;
        if (out[i].accumulate && !(n->out[i] = graph_slot(g, t))) return;
    }
    n->op = op_find(n->op->root.op);
    memcpy(n->in, given, sizeof n->in);
    if (node_shape(g, n)) return;
    for (int i = 1; i < outs; i++) {
        if (!target[i] || out[i].accumulate) continue;
        n->out[i] = graph_step_tensor(g, out[i].name, &n->call.out[i]);
        contribute(p, target[i], n->out[i]);
    }
}

static void block_clone(struct pass *p, int block, int nodes) {
    struct graph *g = p->g;
    p->block = block, p->origins = 0;
    for (int i = 0; i < nodes && !g->err.code; i++) {
        const struct node *n = g->node[i];
        if (n->block != block) continue;
        struct node *c = graph_node(g);
        if (!c) return;
        *c = (struct node){.op = n->op, .attr = n->attr, .where = n->where};
        for (int k = 0; k < OP_IN; k++) c->in[k] = value_of(p, n->in[k]);
        if (node_shape(g, c)) return;
        for (int k = 0; k < OP_OUT; k++) {
            if (!n->out[k]) continue;
            c->out[k] = graph_step_tensor(g, n->out[k]->name, &c->call.out[k]);
            if (!c->out[k]) return;
            p->origin[p->origins] = n->out[k], p->clone[p->origins++] = c->out[k];
        }
    }
}

static void node_back(struct pass *p, struct node *n) {
    struct op_arg in[OP_IN], out[OP_IN];
    const int ins = op_args(n->op->in, in), outs = op_args(n->op->out, out);
    char gradient[OP_OUT][40];
    struct scope s = {0};
    bool reached = false;
    for (int i = 0; i < ins; i++) scope_add(&s, in[i].name, value_of(p, n->in[i]));
    for (int i = 0; i < outs; i++) {
        scope_add(&s, out[i].name, value_of(p, n->out[i]));
        snprintf(gradient[i], sizeof gradient[i], "d%.23s", out[i].name);
        if (n->out[i] && n->out[i]->grad)
            scope_add(&s, gradient[i], n->out[i]->grad), reached = true;
    }
    if (!reached) return;
    const unsigned rows = rows_wanted(n, in, ins, &s);
    for (int r = 0; r < OP_GRADS; r++)
        if (rows & 1u << r) row_emit(p, n, &n->op->grad[r], in, ins, &s);
}

static int seeds_plant(struct graph *g, const struct seed *seed, int count) {
    for (int i = 0; i < count; i++) {
        struct tensor *t = seed[i].of, *d = seed[i].gradient;
        if (!t || !d) return err_failed(&g->err, "seed %d of the backward pass is missing", i);
        if (view_count(&t->view) != view_count(&d->view) || t->view.rank != d->view.rank)
            return err_failed(&g->err, "the seed of '%s' has %lld elements, not its %lld", t->name,
                              (long long)view_count(&d->view), (long long)view_count(&t->view));
        if (t->grad) return err_failed(&g->err, "'%s' has two seeds", t->name);
        t->grad = d;
    }
    return 0;
}

int graph_backward(struct graph *g, const struct seed *seed, int count) {
    if (g->err.code) return -1;
    const int nodes = g->nodes;
    struct pass p = {.g = g};
    p.clone = arena_new(&g->arena, g->tensors * (i64)sizeof *p.clone, &g->err);
    p.origin = arena_new(&g->arena, g->tensors * (i64)sizeof *p.origin, &g->err);
    if (g->err.code || seeds_plant(g, seed, count)) return -1;
    for (int i = nodes - 1; i >= 0 && !g->err.code; i--) {
        struct node *n = g->node[i];
        if (n->op->root.op && n->out[0] && n->out[0]->grad) {
            root_emit(&p, n);
            continue;
        }
        if (g->recompute && n->block && n->block != p.block) block_clone(&p, n->block, nodes);
        node_back(&p, n);
    }
    g->forward_nodes = nodes;
    return g->err.code ? -1 : 0;
}
