/* run.c: executes a planned graph. Caller-owned memory (inputs, parameters, accumulators) is read
 * from the tensors at each run, so that one plan serves every batch of its shape. */
#include "autograd/autograd_int.h"

#include <stdlib.h>
#include <string.h>

bool op_profile;
static struct {
    double seconds;
    i64 calls;
} profile[64];

void op_profile_print(FILE *to) {
    double total = 0;
    for (int i = 0; i < op_count; i++) total += profile[i].seconds;
    for (int i = 0; i < op_count; i++)
        if (profile[i].calls)
            fprintf(to, "%-20s %8lld calls %9.3f s %5.1f %%\n", op_table[i]->name,
                    (long long)profile[i].calls, profile[i].seconds,
                    100 * profile[i].seconds / total);
}

static void profile_add(const struct op *op, double seconds) {
    for (int i = 0; i < op_count; i++)
        if (op_table[i] == op) profile[i].seconds += seconds, profile[i].calls++;
}

static int memory_open(struct graph *g, struct err *e) {
    struct graph_memory *m = g->shared;
    if (m && m->bytes >= g->peak) return g->memory = m->data, 0;
    if (!m && (g->memory || !g->peak)) return 0;
    if (m) mem_free(m->data), *m = (struct graph_memory){0};
    if (!(g->memory = mem_new(g->peak, e))) {
        err_detail(e, "the plan of this step needs %.1f MiB for activations",
                   (double)g->peak / (1 << 20));
        return err_hint(e, "a smaller micro_batch_size or gradient_checkpointing: true needs less");
    }
    if (m) *m = (struct graph_memory){g->memory, g->peak};
#ifdef HONE_DEBUG
    memset(g->memory, 0xff, (size_t)g->peak); /* NaN: reading what nobody wrote shows */
#endif
    return 0;
}

static void *place_of(const struct graph *g, const struct tensor *t) {
    return t->kind == TENSOR_STEP ? g->memory + t->offset : t->view.data;
}

#ifdef HONE_DEBUG
static int red_zones(const struct graph *g, const struct node *n, struct err *e) {
    for (int k = 0; k < OP_OUT; k++) {
        const struct tensor *t = n->out[k];
        if (!t || t->kind != TENSOR_STEP) continue;
        const u8 *end = g->memory + t->offset + view_bytes(&t->view);
        for (int i = 0; i < 64; i++)
            if (end[i] != 0xfd)
                return err_failed(e, "operation %s wrote past the end of '%s'", n->op->name,
                                  t->name);
    }
    return 0;
}
static void red_zones_set(const struct graph *g, const struct node *n) {
    for (int k = 0; k < OP_OUT; k++) {
        const struct tensor *t = n->out[k];
        if (t && t->kind == TENSOR_STEP)
            memset(g->memory + t->offset + view_bytes(&t->view), 0xfd, 64);
    }
}
#else
static int red_zones(const struct graph *g, const struct node *n, struct err *e) {
    return (void)g, (void)n, (void)e, 0;
}
static void red_zones_set(const struct graph *g, const struct node *n) { (void)g, (void)n; }
#endif

int graph_run(struct graph *g, struct err *e) {
    if (memory_open(g, e)) return -1;
    for (int i = 0; i < g->nodes; i++) {
        struct node *n = g->node[i];
        if (!n->live) continue;
        for (int k = 0; k < OP_IN; k++)
            n->call.in[k].data = n->in[k] ? place_of(g, n->in[k]) : NULL;
        for (int k = 0; k < OP_OUT; k++)
            n->call.out[k].data = n->out[k] ? place_of(g, n->out[k]) : NULL;
        n->call.scratch = n->scratch ? g->memory + n->scratch_offset : NULL;
        red_zones_set(g, n);
        const double start = op_profile ? clock_seconds() : 0;
        if (op_run(&n->call, e) || red_zones(g, n, e))
            return err_frame(e, "while running %s at %s", n->op->name,
                             n->where ? n->where : "the model");
        if (op_profile) profile_add(n->op, clock_seconds() - start);
    }
    return 0;
}
