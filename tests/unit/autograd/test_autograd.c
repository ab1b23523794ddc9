/* test_autograd.c: the graph over whole decoders. Planned, eager and recomputed runs give the same
 * bits; what is frozen costs neither accumulators nor kept activations; a micro-batch continues the
 * chain of the one before; two uses of a tied weight add up to its gradient; errors name the
 * operation and the place. */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 2, LENGTH = 40, TOKENS = ROWS * LENGTH, VOCAB = 300, LAYERS = 6, SLOTS = 256 };
#define SIZES                                                                                      \
    "\"vocab_size\": 300, \"hidden_size\": 64, \"intermediate_size\": 160,"                        \
    "\"num_hidden_layers\": 6, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"            \
    "\"initializer_range\": 0.2"
static const char olmo2[] = "{\"model_type\": \"olmo2\"," SIZES "}";
static const char llama[] = "{\"model_type\": \"llama\"," SIZES "}";
static const char tied[] = "{\"model_type\": \"llama\", \"tie_word_embeddings\": true," SIZES "}";

/* ---- a model, a batch, and its graphs ---- */

static i32 ids[TOKENS], targets[TOKENS], position[TOKENS], begin[TOKENS], last[TOKENS];

static void model_make(struct model *m, const char *json, enum dtype d) {
    struct err e = {0};
    struct config c;
    *m = (struct model){0};
    json_t *j = json_parse(json, (i64)strlen(json), "the test's config", &e);
    if (!j || config_read(&c, j, "config", &e) || model_new(m, &c, d, true, &e) ||
        model_rope(m, LENGTH, &e))
        fail_msg("%s", e.primary);
    json_decref(j);
    model_init(m, 11);
}

static void lora_make(struct model *m, struct lora_config *c) {
    struct err e = {0};
    *c = (struct lora_config){.r = 4, .lora_alpha = 8, .target_regex = "all-linear"};
    if (lora_add(m, c, 3, &e)) fail_msg("%s", e.primary);
    for (i64 i = 0; i < m->weights.params; i++) { /* B is not zero, as after some training */
        struct param *p = m->weights.param[i];
        const struct rng r = {9, RNG_TEST, 0, (u32)i};
        for (i64 k = 0; !p->type && k < view_count(&p->view); k++)
            ((float *)p->view.data)[k] = 0.1f * rng_normal(&r, (u64)k);
    }
}

struct run {
    struct graph *g;
    struct build build;
    struct tensor *loss;
    i64 tokens;
    struct tensor *slot[SLOTS]; /* with memory of the test */
    int slots;
};
enum mode { PLANNED, EAGER, RECOMPUTE };

static void run_bind(struct run *r, i64 from) {
    const struct places p = {
        .ids = ids + from, .position = position + from, .begin = begin, .last = last};
    struct err e = {0};
    assert_int_equal(0, model_bind(&r->build, &p, &e));
    for (int i = 0; i < r->g->tensors; i++)
        if (!strcmp(r->g->tensor[i]->name, "labels")) r->g->tensor[i]->view.data = targets + from;
}

static void run_open(struct run *r, struct model *m, i64 tokens, enum mode mode) {
    static float weights[TOKENS];
    struct err e = {0};
    for (i64 i = 0; i < TOKENS; i++) weights[i] = 1.0f / 64;
    *r = (struct run){.g = graph_new(&e), .tokens = tokens};
    assert_non_null(r->g);
    r->g->recompute = mode == RECOMPUTE;
    r->build = (struct build){.g = r->g, .m = m};
    struct tensor *hidden = model_hidden(&r->build, tokens),
                  *labels = graph_input(r->g, "labels", I32, DIMS(tokens)),
                  *weight = graph_input(r->g, "weight", F32, DIMS(tokens));
    r->loss = model_loss(&r->build, hidden, labels);
    graph_keep(r->loss), graph_backward(r->g, &(struct seed){r->loss, weight}, 1);
    if (graph_plan(r->g, mode == EAGER, &e)) fail_msg("%s", e.primary);
    weight->view.data = weights;
    run_bind(r, 0);
    for (int i = 0; i < r->g->tensors; i++) {
        struct tensor *t = r->g->tensor[i];
        if (t->kind != TENSOR_SLOT) continue;
        assert_true(r->slots < SLOTS);
        assert_non_null(t->view.data = mem_new(view_bytes(&t->view), &e));
        r->slot[r->slots++] = t;
    }
}
static void run_go(struct run *r) {
    struct err e = {0};
    if (graph_run(r->g, &e)) fail_msg("%s", e.primary);
}
static const float *losses(const struct run *r) {
    return (const float *)(r->g->memory + r->loss->offset);
}
static void run_close(struct run *r) {
    for (int i = 0; i < r->slots; i++) mem_free(r->slot[i]->view.data);
    graph_free(r->g);
}

static void same_slots(const struct run *a, const struct run *b) {
    assert_int_equal(a->slots, b->slots);
    for (int i = 0; i < a->slots; i++) {
        const struct tensor *x = a->slot[i], *y = NULL;
        for (int k = 0; k < b->slots; k++)
            if (b->slot[k]->key == x->key && b->slot[k]->use == x->use) y = b->slot[k];
        assert_non_null(y);
        if (memcmp(x->view.data, y->view.data, (size_t)view_bytes(&x->view)))
            fail_msg("the gradient of %s differs", x->name);
    }
}

/* ---- the same bits ---- */

static void check_modes(struct model *m) {
    struct run plan, eager, again;
    run_open(&plan, m, TOKENS, PLANNED), run_open(&eager, m, TOKENS, EAGER);
    run_open(&again, m, TOKENS, RECOMPUTE);
    run_go(&plan), run_go(&eager), run_go(&again);
    assert_memory_equal(losses(&plan), losses(&eager), TOKENS * 4);
    assert_memory_equal(losses(&plan), losses(&again), TOKENS * 4);
    same_slots(&plan, &eager), same_slots(&plan, &again);
    assert_true(again.g->peak < plan.g->peak);
    assert_true(plan.g->peak < eager.g->peak);
    run_close(&plan), run_close(&eager), run_close(&again);
}
static void test_modes(void **state) {
    (void)state;
    static const char *const configs[] = {olmo2, llama, tied};
    for (i64 i = 0; i < COUNT(configs); i++)
        for (int d = 0; d < 2; d++) {
            struct model m;
            model_make(&m, configs[i], d ? BF16 : F32);
            check_modes(&m);
            model_free(&m);
        }
    struct model m;
    struct lora_config c;
    model_make(&m, olmo2, F32), lora_make(&m, &c);
    check_modes(&m);
    model_free(&m);
}

static void test_chain(void **state) { /* NUMERICS.md 5: two micro-batches, one chain */
    (void)state;
    struct model m;
    model_make(&m, tied, BF16);
    struct run whole, is_bf16;
    run_open(&whole, &m, TOKENS, PLANNED), run_open(&is_bf16, &m, LENGTH, PLANNED);
    run_go(&whole);
    for (i64 row = 0; row < ROWS; row++) {
        run_bind(&is_bf16, row * LENGTH), run_go(&is_bf16);
        assert_memory_equal(losses(&is_bf16), losses(&whole) + row * LENGTH, LENGTH * 4);
    }
    same_slots(&whole, &is_bf16);
    run_close(&whole), run_close(&is_bf16), model_free(&m);
}

static void test_shared_memory(void **state) {
    (void)state;
    struct model m;
    struct graph_memory memory = {0};
    model_make(&m, llama, F32);
    struct run small, large, alone;
    run_open(&small, &m, LENGTH, PLANNED), run_open(&large, &m, TOKENS, PLANNED);
    run_open(&alone, &m, LENGTH, PLANNED);
    small.g->shared = large.g->shared = &memory;
    run_go(&small), run_go(&large), run_go(&small), run_go(&alone), run_go(&alone);
    assert_int_equal(memory.bytes, large.g->peak);
    same_slots(&small, &alone);
    assert_memory_equal(losses(&small), losses(&alone), LENGTH * 4);
    run_close(&small), run_close(&large), run_close(&alone);
    device_free(memory.data), model_free(&m);
}

/* ---- what is frozen, what is dead ---- */

static int backward_nodes_at(const struct graph *g, const char *where) {
    int count = 0;
    for (int i = g->forward_nodes; i < g->nodes; i++)
        count += !strncmp(g->node[i]->where, where, strlen(where));
    return count;
}

static void test_frozen_layers(void **state) {
    (void)state;
    struct model m;
    struct run full, part;
    model_make(&m, olmo2, F32);
    run_open(&full, &m, TOKENS, PLANNED);
    int trainable = 0;
    for (i64 i = 0; i < m.weights.params; i++) {
        struct param *p = m.weights.param[i];
        p->trainable = p->layer >= LAYERS - 2 || p->type == &top_head;
        trainable += p->trainable;
    }
    run_open(&part, &m, TOKENS, PLANNED);
    run_go(&full), run_go(&part);
    assert_int_equal(full.slots, m.weights.params), assert_int_equal(part.slots, trainable);
    for (int i = 0; i < part.slots; i++)
        for (int k = 0; k < full.slots; k++)
            if (full.slot[k]->key == part.slot[i]->key)
                assert_memory_equal(full.slot[k]->view.data, part.slot[i]->view.data,
                                    (size_t)view_bytes(&part.slot[i]->view));
    assert_true(part.g->peak < full.g->peak * 2 / 3);
    assert_int_equal(backward_nodes_at(part.g, "layers.3."), 0);
    assert_int_equal(backward_nodes_at(part.g, "embed_tokens"), 0);
    assert_true(backward_nodes_at(part.g, "layers.4.") > 0);
    assert_true(backward_nodes_at(full.g, "layers.3.") > 0);
    run_close(&full), run_close(&part), model_free(&m);
}

static void test_frozen_base(void **state) {
    (void)state;
    struct model m;
    struct lora_config c;
    struct run lora;
    model_make(&m, olmo2, F32);
    const i64 base = m.weights.params;
    lora_make(&m, &c);
    run_open(&lora, &m, TOKENS, PLANNED);
    assert_int_equal(lora.slots, m.weights.params - base);
    for (int i = 0; i < lora.slots; i++) assert_non_null(strstr(lora.slot[i]->name, ".lora_"));
    run_close(&lora), model_free(&m);
}

/* An activation that only a frozen weight's gradient would read ends with its forward reader. */
static void test_frozen_lifetime(void **state) {
    (void)state;
    struct model m;
    struct run r;
    model_make(&m, llama, F32);
    for (i64 i = 0; i < m.weights.params; i++)
        m.weights.param[i]->trainable = m.weights.param[i]->type == &glu_down;
    run_open(&r, &m, TOKENS, PLANNED);
    int attention = 0, products = 0;
    for (int i = 0; i < r.g->forward_nodes; i++) {
        const struct node *n = r.g->node[i];
        const bool first = strstr(n->where, "layers.0.self_attn");
        if (first && n->op == &op_attention)
            attention++, assert_true(n->out[0]->last < r.g->forward_nodes);
        if (strstr(n->where, "mlp") && n->op == &op_glu) /* read by dw of down_proj */
            products++, assert_true(n->out[0]->last >= r.g->forward_nodes);
    }
    assert_int_equal(attention, 1), assert_int_equal(products, LAYERS);
    run_close(&r), model_free(&m);
}

static void test_dead_nodes(void **state) {
    (void)state;
    struct err e = {0};
    struct view v = {.dtype = F32, .rank = 2, .dim = {8, 16}};
    float x[128];
    i64 peak[2];
    for (int i = 0; i < 128; i++) x[i] = (float)i;
    for (int dead = 0; dead < 2; dead++) {
        struct graph *g = graph_new(&e);
        struct tensor *in = graph_input(g, "x", F32, v.rank, v.dim);
        struct tensor *kept = graph_op(g, &op_add, NULL, BIND({"a", in}, {"b", in}));
        for (int i = 0; dead && i < 5; i++)
            in = graph_op(g, &op_add, NULL, BIND({"a", in}, {"b", kept}));
        graph_keep(kept);
        assert_int_equal(graph_plan(g, false, &e), 0);
        assert_int_equal(g->nodes, dead ? 6 : 1);
        for (int i = 0; i < g->nodes; i++) assert_int_equal(g->node[i]->live, i == 0);
        peak[dead] = g->peak;
        g->tensor[0]->view.data = x;
        assert_int_equal(graph_run(g, &e), 0);
        assert_true(((float *)(g->memory + kept->offset))[7] == 14);
        graph_free(g);
    }
    assert_int_equal(peak[0], peak[1]);
}

/* ---- tied weights ---- */

static double total_loss(struct run *r) {
    double sum = 0;
    run_go(r);
    for (i64 i = 0; i < r->tokens; i++) sum += targets[i] >= 0 ? (double)losses(r)[i] : 0;
    return sum / 64;
}

static void test_tied(void **state) {
    (void)state;
    struct model m;
    struct run r;
    model_make(&m, tied, F32);
    struct param *w = model_module(&m, -1, &top_embed)->weight;
    assert_ptr_equal(w, model_module(&m, -1, &top_head)->weight);
    run_open(&r, &m, TOKENS, PLANNED);
    float *grad[2] = {0}, *value = w->view.data;
    for (int i = 0; i < r.slots; i++)
        if (r.slot[i]->key == w) {
            assert_true(r.slot[i]->use < 2);
            grad[r.slot[i]->use] = r.slot[i]->view.data;
        }
    assert_non_null(grad[0]), assert_non_null(grad[1]);
    run_go(&r);
    const i64 count = view_count(&w->view);
    double *sum = malloc((size_t)count * sizeof *sum), *direction = malloc((size_t)count * 8);
    float *keep = malloc((size_t)count * 4);
    for (i64 k = 0; k < count; k++)
        sum[k] = (double)grad[0][k] + (double)grad[1][k], keep[k] = value[k];
    for (u32 trial = 0; trial < 4; trial++) {
        const struct rng g = {13, RNG_TEST, trial, 0};
        double want = 0, up, h = 1e-4;
        for (i64 k = 0; k < count; k++) {
            direction[k] = (sum[k] > 0 ? 1 : -1) * (double)rng_uniform(&g, (u64)k);
            want += direction[k] * sum[k];
        }
        for (i64 k = 0; k < count; k++) value[k] = (float)((double)keep[k] + h * direction[k]);
        up = total_loss(&r);
        for (i64 k = 0; k < count; k++) value[k] = (float)((double)keep[k] - h * direction[k]);
        const double slope = (up - total_loss(&r)) / (2 * h);
        if (!(fabs(slope - want) <= 2e-3 * fabs(want)))
            fail_msg("finite differences say %g, the two gradients together %g", slope, want);
    }
    free(sum), free(direction), free(keep);
    run_close(&r), model_free(&m);
}

/* ---- errors ---- */

static void test_sticky_error(void **state) {
    (void)state;
    struct err e = {0};
    struct graph *g = graph_new(&e);
    struct tensor *a = graph_input(g, "a", F32, DIMS(4, 8)),
                  *b = graph_input(g, "b", F32, DIMS(4, 9));
    graph_at(g, "layers.%d.self_attn", 3);
    assert_null(graph_op(g, &op_add, NULL, BIND({"a", a}, {"b", b})));
    const int nodes = g->nodes;
    graph_at(g, "layers.4.mlp");
    struct tensor *c = graph_op(g, &op_add, NULL, BIND({"a", a}, {"b", a}));
    assert_null(c);
    assert_null(graph_input(g, "late", F32, DIMS(1)));
    assert_null(graph_op(g, &op_add, NULL, BIND({"a", c}, {"b", c}))); /* NULL begets NULL */
    graph_keep(c);
    assert_int_equal(graph_backward(g, &(struct seed){c, a}, 1), -1);
    assert_int_equal(g->nodes, nodes);
    assert_int_equal(graph_plan(g, false, &e), -1);
    assert_non_null(strstr(e.primary, "operation add: 'b' is "));
    assert_int_equal(e.frames, 1);
    assert_string_equal(e.frame[0], "while recording add at layers.3.self_attn");
    print_message("%s; %s\n", e.primary, e.detail);
    graph_free(g);
}

static void test_missing_argument(void **state) {
    (void)state;
    struct err e = {0};
    struct graph *g = graph_new(&e);
    const struct norm_attr attr = {.eps = 1e-5};
    struct tensor *x = graph_input(g, "x", F32, DIMS(4, 8));
    graph_at(g, "norm");
    assert_null(graph_op(g, &op_rmsnorm_add, &attr, BIND({"x", x})));
    assert_int_equal(graph_plan(g, false, &e), -1);
    assert_string_equal(e.primary, "operation rmsnorm_add: argument 'r' is missing");
    assert_string_equal(e.frame[0], "while recording rmsnorm_add at norm");
    graph_free(g);
}

/* A name that the operation does not have, and one given twice. */
static void test_wrong_names(void **state) {
    (void)state;
    static const char *const said[] = {"operation add has no input 'c'",
                                       "operation add is given its input 'a' twice"};
    for (int twice = 0; twice < 2; twice++) {
        struct err e = {0};
        struct graph *g = graph_new(&e);
        struct tensor *a = graph_input(g, "a", F32, DIMS(4));
        graph_at(g, "layers.0");
        assert_null(graph_op(g, &op_add, NULL, BIND({"a", a}, {twice ? "a" : "c", a})));
        assert_int_equal(graph_plan(g, false, &e), -1);
        assert_string_equal(e.primary, said[twice]);
        assert_string_equal(e.detail, "its inputs are: a b");
        assert_string_equal(e.frame[0], "while recording add at layers.0");
        graph_free(g);
    }
}

static void test_no_memory(void **state) { /* at any allocation: an error, nothing lost */
    (void)state;
    struct model m;
    model_make(&m, tied, F32);
    bool failed = true;
    for (int n = 1; failed; n++) {
        assert_true(n < 1000);
        struct err e = {0};
        char spec[32];
        snprintf(spec, sizeof spec, "alloc:%d", n);
        assert_int_equal(fault_arm(spec), 0);
        struct graph *g = graph_new(&e);
        if (g) {
            g->recompute = true;
            struct build build = {.g = g, .m = &m};
            struct tensor *hidden = model_hidden(&build, TOKENS),
                          *labels = graph_input(g, "labels", I32, DIMS(TOKENS)),
                          *weight = graph_input(g, "weight", F32, DIMS(TOKENS));
            graph_keep(model_logits(&build, hidden));
            struct tensor *loss = model_loss(&build, hidden, labels);
            graph_keep(loss), graph_backward(g, &(struct seed){loss, weight}, 1);
            graph_plan(g, false, &e);
        }
        graph_free(g);
        fault_arm(NULL);
        failed = e.code;
        if (failed) assert_int_equal(e.code, ERR_FAILED);
    }
    model_free(&m);
}

static int setup(void **state) {
    (void)state;
    struct err e = {0};
    const struct rng r = {1, RNG_TEST, 0, 0};
    isa_float_mode();
    for (i32 i = 0; i < TOKENS; i++) {
        ids[i] = (i32)(rng_uniform(&r, (u64)i) * VOCAB);
        position[i] = i % LENGTH, begin[i] = i - i % LENGTH, last[i] = i;
        targets[i] = i % 5 ? (i32)(rng_uniform(&r, (u64)i + TOKENS) * VOCAB) : -100;
    }
    return pool_start(2, &e);
}
static int teardown(void **state) {
    (void)state;
    return pool_stop(), 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),         cmocka_unit_test(test_chain),
        cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_frozen_layers),
        cmocka_unit_test(test_frozen_base),   cmocka_unit_test(test_frozen_lifetime),
        cmocka_unit_test(test_dead_nodes),    cmocka_unit_test(test_tied),
        cmocka_unit_test(test_sticky_error),  cmocka_unit_test(test_missing_argument),
        cmocka_unit_test(test_wrong_names),   cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
