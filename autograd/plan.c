/* plan.c: what must run, how long each tensor lives, and where it lies.
 *
 * A node is live if it writes memory that outlives the run (kept results, accumulators, in-place
 * outputs) or something a live node reads. A tensor lives from the node that writes it to the last
 * that reads it; scratch lives during its node. Buffers are placed largest first at the lowest
 * offset that is free during their lifetime: within a few percent of the lower bound on decoders,
 * and simple enough to trust. Eager mode gives every buffer its own place instead; results are the
 * same bits. */
#include "autograd/autograd_int.h"

#include <stdlib.h>
#include <string.h>

struct buffer {
    i64 size, *offset;
    int first, last;
};

enum { ALIGN = 64, ALIGN_CUDA = 256 };
#ifdef HONE_DEBUG
enum { RED_ZONE = 64 };
#else
enum { RED_ZONE = 0 };
#endif

static void mark_live(struct graph *g) {
    for (int i = g->nodes - 1; i >= 0; i--) {
        struct node *n = g->node[i];
        struct op_arg arg[OP_IN];
        const int outs = op_args(n->op->out, arg);
        for (int k = 0; k < outs; k++) {
            const struct tensor *t = n->out[k];
            if (t) n->live |= t->keep || t->last >= 0 || arg[k].in_place || arg[k].accumulate;
        }
        for (int k = 0; n->live && k < OP_IN; k++)
            if (n->in[k] && n->in[k]->last < 0) n->in[k]->last = i;
    }
    for (int i = 0; i < g->nodes; i++)
        for (int k = 0; g->node[i]->live && k < OP_OUT; k++) {
            struct tensor *t = g->node[i]->out[k];
            if (!t) continue;
            if (t->first < 0) t->first = i;
            if (t->last < i) t->last = i;
            if (t->keep) t->last = g->nodes;
        }
}

static int by_size(const void *a, const void *b) {
    const struct buffer *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int by_offset(const void *a, const void *b) {
    const struct buffer *x = *(struct buffer *const *)a, *y = *(struct buffer *const *)b;
    return *x->offset < *y->offset ? -1 : *x->offset > *y->offset;
}

/* The lowest free offset for buffer `b`, given those placed already. `busy` has room for all of
 * them. */
static i64 place(const struct buffer *b, struct buffer *placed, int count, struct buffer **busy) {
    int n = 0;
    for (int i = 0; i < count; i++)
        if (placed[i].first <= b->last && b->first <= placed[i].last) busy[n++] = &placed[i];
    qsort(busy, (size_t)n, sizeof *busy, by_offset);
    i64 at = 0;
    for (int i = 0; i < n; i++) {
        if (*busy[i]->offset - at >= b->size) break;
        at = i64_max(at, *busy[i]->offset + busy[i]->size);
    }
    return at;
}

static int place_all(struct graph *g, struct err *e) {
    struct buffer *list = mem_new_array(g->tensors + g->nodes + 1, sizeof *list, e);
    struct buffer **busy = list ? mem_new_array(g->tensors + g->nodes + 1, sizeof *busy, e) : NULL;
    const i64 align = device_now() == DEVICE_CUDA ? ALIGN_CUDA : ALIGN;
    int count = 0;
    if (busy) {
        for (int i = 0; i < g->tensors; i++) {
            struct tensor *t = g->tensor[i];
            if (t->kind == TENSOR_STEP && t->first >= 0)
                list[count++] = (struct buffer){round_up(view_bytes(&t->view) + RED_ZONE, align),
                                                &t->offset, t->first, t->last};
        }
        for (int i = 0; i < g->nodes; i++) {
            struct node *n = g->node[i];
            if (n->live) n->scratch = op_scratch(&n->call);
            if (n->scratch)
                list[count++] = (struct buffer){round_up(n->scratch + RED_ZONE, align),
                                                &n->scratch_offset, i, i};
        }
        qsort(list, (size_t)count, sizeof *list, by_size);
        for (int i = 0; i < count; i++) {
            *list[i].offset = g->eager ? g->peak : place(&list[i], list, i, busy);
            g->peak = i64_max(g->peak, *list[i].offset + list[i].size);
        }
    }
    mem_free(list), mem_free(busy);
    return busy ? 0 : -1;
}

int graph_plan(struct graph *g, bool eager, struct err *e) {
    if (g->err.code) return *e = e->code ? *e : g->err, -1;
    g->eager = eager;
    mark_live(g);
    return place_all(g, e);
}
