/* graph.c: recording. A node's outputs get their dtypes and shapes at once, from the op's own shape
 * rule, so that model code can look at them, and so that a wrong shape is reported where the model
 * code wrote it. */
#include "autograd/autograd_int.h"

#include <stdarg.h>
#include <string.h>

struct graph *graph_new(struct err *e) {
    return mem_new(sizeof(struct graph), e);
}

struct constant *constant_new(const struct view *v, const void *host, struct err *e) {
    struct constant *c = mem_new(sizeof *c, e);
    if (!c) return NULL;
    *c = (struct constant){.view = *v, .users = 1};
    c->view.data = device_new(view_bytes(v), e);
    if (c->view.data && !device_write(c->view.data, host, view_bytes(v), e) && !device_sync(e))
        return c;
    return constant_drop(c), NULL;
}

void constant_drop(struct constant *c) {
    if (!c || --c->users) return;
    device_free(c->view.data), mem_free(c);
}

void graph_free(struct graph *g) {
    if (!g) return;
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i]->kind == TENSOR_CONST) constant_drop((void *)g->tensor[i]->key);
    if (!g->shared) device_free(g->memory);
    device_free(g->inputs), device_host_free(g->staging), device_record_free(g->recording);
    mem_free(g->node), mem_free(g->tensor);
    arena_free(&g->arena);
    mem_free(g);
}

static struct tensor *tensor_new(struct graph *g, const char *name, enum tensor_kind kind,
                                 const struct view *v) {
    if (g->err.code) return NULL;
    if (g->tensors == g->tensor_capacity) {
        const int grown = g->tensor_capacity ? g->tensor_capacity * 2 : 256;
        void *more = mem_grow(g->tensor, g->tensors * (i64)sizeof *g->tensor,
                              grown * (i64)sizeof *g->tensor, &g->err);
        if (!more) return NULL;
        g->tensor = more, g->tensor_capacity = grown;
    }
    struct tensor *t = arena_new(&g->arena, sizeof *t, &g->err);
    if (!t || !(t->name = arena_text(&g->arena, name, &g->err))) return NULL;
    t->view = *v, t->kind = kind;
    t->first = t->last = -1;
    return g->tensor[g->tensors++] = t;
}

struct tensor *graph_step_tensor(struct graph *g, const char *name, const struct view *v) {
    struct view empty = *v;
    empty.data = NULL;
    return tensor_new(g, name, TENSOR_STEP, &empty);
}

struct tensor *graph_slot(struct graph *g, const struct tensor *param) {
    int use = 0;
    for (int i = 0; i < g->tensors; i++)
        use += g->tensor[i]->kind == TENSOR_SLOT && g->tensor[i]->key == param->key;
    struct view v = param->view;
    v.data = NULL, v.dtype = F32;
    struct tensor *t = tensor_new(g, param->name, TENSOR_SLOT, &v);
    if (t) t->key = param->key, t->use = use;
    return t;
}

struct tensor *graph_input(struct graph *g, const char *name, enum dtype d, int rank,
                           const i64 *dim) {
    struct view v = {.dtype = d, .rank = rank};
    memcpy(v.dim, dim, sizeof *dim * (size_t)rank);
    return tensor_new(g, name, TENSOR_INPUT, &v);
}

struct tensor *graph_param(struct graph *g, const void *key, const char *name, const struct view *v,
                           bool trainable) {
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i]->kind == TENSOR_PARAM && g->tensor[i]->key == key) return g->tensor[i];
    struct tensor *t = tensor_new(g, name, TENSOR_PARAM, v);
    if (t) t->key = key, t->needs_grad = trainable;
    return t;
}

struct tensor *graph_const(struct graph *g, const char *name, struct constant *c) {
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i]->kind == TENSOR_CONST && g->tensor[i]->key == c) return g->tensor[i];
    struct tensor *t = tensor_new(g, name, TENSOR_CONST, &c->view);
    if (t) t->key = c, c->users++;
    return t;
}

void graph_keep(struct tensor *t) {
    if (t) t->keep = true;
}

void graph_at(struct graph *g, const char *fmt, ...) {
    char text[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    g->where = arena_text(&g->arena, text, &g->err);
}

void graph_block_begin(struct graph *g) { g->block = ++g->blocks; }
void graph_block_end(struct graph *g) { g->block = 0; }

struct node *graph_node(struct graph *g) {
    if (g->nodes == g->node_capacity) {
        const int grown = g->node_capacity ? g->node_capacity * 2 : 256;
        void *more = mem_grow(g->node, g->nodes * (i64)sizeof *g->node,
                              grown * (i64)sizeof *g->node, &g->err);
        if (!more) return NULL;
        g->node = more, g->node_capacity = grown;
    }
    struct node *n = arena_new(&g->arena, sizeof *n, &g->err);
    return n ? g->node[g->nodes++] = n : NULL;
}

/* The call of a node, shapes checked. Outputs that are given (in place, accumulators) are checked,
 * others set. */
int node_shape(struct graph *g, struct node *n) {
    n->call = (struct op_call){.op = n->op, .attr = n->attr};
    for (int i = 0; i < OP_IN; i++)
        if (n->in[i]) n->call.in[i] = n->in[i]->view;
    for (int i = 0; i < OP_OUT; i++)
        if (n->out[i]) n->call.out[i] = n->out[i]->view;
    if (!op_shape(&n->call, &g->err)) return 0;
    return err_frame(&g->err, "while recording %s at %s", n->op->name,
                     n->where ? n->where : "the model");
}

/* Puts each named input where the op has it. */
static int inputs_place(struct graph *g, struct node *n, const struct bind *in) {
    struct op_arg arg[OP_IN];
    const int ins = op_args(n->op->in, arg);
    for (; in->name; in++) {
        int at = 0;
        while (at < ins && strcmp(arg[at].name, in->name)) at++;
        if (at < ins && !n->in[at]) {
            n->in[at] = in->tensor;
            continue;
        }
        err_failed(&g->err,
                   at < ins ? "operation %s is given its input '%s' twice"
                            : "operation %s has no input '%s'",
                   n->op->name, in->name);
        err_detail(&g->err, "its inputs are: %s", n->op->in);
        return err_frame(&g->err, "while recording %s at %s", n->op->name,
                         n->where ? n->where : "the model");
    }
    return 0;
}

int graph_call(struct graph *g, const struct op *op, const void *attr, const struct bind *in,
               struct tensor **out) {
    struct op_arg arg[OP_IN];
    const int outs = op_args(op->out, arg);
    struct node *n = g->err.code ? NULL : graph_node(g);
    if (n && op->attr_size && (n->attr = arena_new(&g->arena, op->attr_size, &g->err)))
        if (attr) memcpy((void *)n->attr, attr, (size_t)op->attr_size);
    if (n && !g->err.code) {
        n->op = op, n->where = g->where, n->block = g->block;
        for (int i = 0; i < outs; i++)
            n->out[i] = arg[i].in_place || arg[i].accumulate ? out[i] : NULL;
        if (!inputs_place(g, n, in)) node_shape(g, n);
    }
    bool grad = false;
    for (int i = 0; n && i < OP_IN; i++) grad |= n->in[i] && n->in[i]->needs_grad;
    for (int i = 0; i < outs; i++) {
        if (g->err.code)
            out[i] = NULL;
        else if (!n->out[i] && is_stored(&n->call.out[i])) {
            out[i] = n->out[i] = graph_step_tensor(g, arg[i].name, &n->call.out[i]);
            if (out[i]) out[i]->needs_grad = grad && (op->grad[0].in || op->root.in);
        } else if (!n->out[i])
            out[i] = NULL;
    }
    if (!g->err.code) return g->forward_nodes = g->nodes, 0;
    return -1;
}

struct tensor *graph_op(struct graph *g, const struct op *op, const void *attr,
                        const struct bind *in) {
    struct tensor *out[OP_OUT] = {0};
    graph_call(g, op, attr, in, out);
    return out[0];
}
