/* run.c: executes a planned graph. Caller-owned memory (inputs, parameters, accumulators) is read
 * from the tensors at each run, so that one plan serves every batch of its shape; parameters and
 * accumulators of a graph that runs on a GPU stay where they were at its second run. */
#include "autograd/autograd_int.h"

#include <stdlib.h>
#include <string.h>

bool op_profile, graph_sync;
static struct {
    double seconds;
    i64 calls;
} profile[256];

void op_profile_print(FILE *to) {
    const int count = (int)i64_min(op_count, COUNT(profile));
    double total = 0;
    for (int i = 0; i < count; i++) total += profile[i].seconds;
    for (int i = 0; i < count; i++)
        if (profile[i].calls)
            fprintf(to, "%-20s %8lld calls %9.3f s %5.1f %%\n", op_table[i]->name,
                    (long long)profile[i].calls, profile[i].seconds,
                    100 * profile[i].seconds / total);
}

static void profile_add(const struct op *op, double seconds) {
    for (int i = 0; i < op_count && i < COUNT(profile); i++)
        if (op_table[i] == op) profile[i].seconds += seconds, profile[i].calls++;
}

static int memory_open(struct graph *g, struct err *e) {
    struct graph_memory *m = g->shared;
    if (m && m->bytes >= g->peak) return g->memory = m->data, 0;
    if (!m && (g->memory || !g->peak)) return 0;
    if (m) device_free(m->data), *m = (struct graph_memory){0};
    if (!(g->memory = device_new(g->peak, e))) {
        err_detail(e, "the plan of this step needs %.1f MiB for activations",
                   (double)g->peak / (1 << 20));
        return err_hint(e, "a smaller micro_batch_size or gradient_checkpointing: true needs less");
    }
    if (m) *m = (struct graph_memory){g->memory, g->peak};
#ifdef HONE_DEBUG
    if (device_now() == DEVICE_CPU)
        memset(g->memory, 0xff, (size_t)g->peak); /* NaN: reading what nobody wrote shows */
#endif
    return 0;
}

/* On a GPU the inputs lie together, so that one copy from pinned memory brings them. */
static int inputs_write(struct graph *g, struct err *e) {
    if (device_now() == DEVICE_CPU) return 0;
    i64 bytes = 0;
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i]->kind == TENSOR_INPUT)
            g->tensor[i]->offset = bytes, bytes += round_up(view_bytes(&g->tensor[i]->view), 256);
    if (bytes != g->input_bytes) {
        g->input_bytes = bytes;
        if (!(g->inputs = device_new(bytes, e)) || !(g->staging = device_host_new(bytes, e)))
            return -1;
    }
    for (int i = 0; i < g->tensors; i++) {
        const struct tensor *t = g->tensor[i];
        if (t->kind == TENSOR_INPUT && t->view.data)
            memcpy(g->staging + t->offset, t->view.data, (size_t)view_bytes(&t->view));
    }
    return device_write(g->inputs, g->staging, bytes, e);
}

static void *place_of(const struct graph *g, const struct tensor *t) {
    if (t->kind == TENSOR_STEP) return g->memory + t->offset;
    return t->kind == TENSOR_INPUT && g->inputs ? g->inputs + t->offset : t->view.data;
}

#ifdef HONE_DEBUG
static int red_zones(const struct graph *g, const struct node *n, struct err *e) {
    if (device_now() != DEVICE_CPU) return 0;
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
    for (int k = 0; k < OP_OUT && device_now() == DEVICE_CPU; k++) {
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

static int node_run(struct graph *g, struct node *n, struct err *e) {
    for (int k = 0; k < OP_IN; k++) n->call.in[k].data = n->in[k] ? place_of(g, n->in[k]) : NULL;
    for (int k = 0; k < OP_OUT; k++)
        n->call.out[k].data = n->out[k] ? place_of(g, n->out[k]) : NULL;
    n->call.scratch = n->scratch ? g->memory + n->scratch_offset : NULL;
    red_zones_set(g, n);
    const double start = op_profile ? clock_seconds() : 0;
    if (op_run(&n->call, e) || red_zones(g, n, e) || ((graph_sync || op_profile) && device_sync(e)))
        return err_frame(e, "while running %s at %s", n->op->name,
                         n->where ? n->where : "the model");
    if (op_profile) profile_add(n->op, clock_seconds() - start);
    return 0;
}

static int nodes_run(struct graph *g, struct err *e) {
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i]->live && node_run(g, g->node[i], e)) return -1;
    return 0;
}

/* On a GPU the first run launches kernel by kernel, which also brings in what libraries load when
 * first used; the second is recorded, and from then on the recording is replayed. */
static int run_recorded(struct graph *g, struct err *e) {
    if (!g->recording) {
        struct err unused = {0};
        if (device_record_begin(e)) return -1;
        const int rc = nodes_run(g, e);
        if (device_record_end(&g->recording, rc ? &unused : e) || rc) return -1;
    }
    return device_replay(g->recording, e);
}

int graph_run(struct graph *g, struct err *e) {
    const u8 *before = g->memory;
    if (memory_open(g, e) || inputs_write(g, e)) return -1;
    if (g->memory != before) device_record_free(g->recording), g->recording = NULL;
    const bool plain =
        device_now() == DEVICE_CPU || g->eager || graph_sync || op_profile || !g->runs;
    g->runs += g->runs < 1;
    if (plain ? nodes_run(g, e) : run_recorded(g, e)) return -1;
    return device_sync(e) ? err_frame(e, "while running a graph of %d operations", g->nodes) : 0;
}

i64 graph_bytes(const struct graph *g) {
    const i64 block = g->shared || !g->memory ? 0 : g->peak;
    return arena_bytes(&g->arena) + g->node_capacity * (i64)sizeof *g->node +
           g->tensor_capacity * (i64)sizeof *g->tensor + block + 2 * g->input_bytes;
}

int graph_read(const struct graph *g, const struct tensor *t, void *host, struct err *e) {
    return device_read(host, place_of(g, t), view_bytes(&t->view), e);
}
