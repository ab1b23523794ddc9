/* test_constants.c: tables that a graph reads live as long as the graph: RoPE's cosines and sines,
 * the second table of queries, ALiBi's slopes. A model that makes longer ones leaves the old ones
 * to the graphs that were traced with them, and gives a graph that is traced then the same bits. */
#include "recipes/models/models.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS = 40, VOCAB = 50 };
#define SIZES                                                                                      \
    "\"vocab_size\": 50, \"hidden_size\": 32, \"intermediate_size\": 24, \"num_hidden_layers\": "  \
    "2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"initializer_range\": 0.2"
static const char llama[] = "{\"model_type\": \"llama\"," SIZES "}";
static const char bloom[] = "{\"model_type\": \"bloom\"," SIZES "}";
static const char longrope[] =
    "{\"model_type\": \"phi3\"," SIZES ", \"original_max_position_embeddings\": 16,"
    "\"max_position_embeddings\": 400, \"rope_scaling\": {\"type\": \"longrope\","
    "\"short_factor\": [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],"
    "\"long_factor\": [1, 2, 3, 4, 5, 6, 7, 8]}}";
static const char queries[] =
    "{\"model_type\": \"ministral3\"," SIZES ", \"head_dim\": 16, \"rope_parameters\": {"
    "\"rope_type\": \"yarn\", \"rope_theta\": 1e4, \"factor\": 4,"
    "\"original_max_position_embeddings\": 16, \"llama_4_scaling_beta\": 0.1}}";

static void model_make(struct model *m, const char *json) {
    struct err e = {0};
    struct config c;
    json_t *j = json_parse(json, (i64)strlen(json), "the test's config", &e);
    *m = (struct model){0};
    if (!j || config_read(&c, j, "config", &e) || model_new(m, &c, F32, false, &e) ||
        model_rope(m, TOKENS, &e))
        fail_msg("%s", e.primary);
    json_decref(j);
    model_init(m, 11);
}

struct pass {
    struct build build;
    struct tensor *logits;
    float value[TOKENS * VOCAB];
};
static void pass_open(struct pass *p, struct model *m) {
    struct err e = {0};
    *p = (struct pass){.build = {.g = graph_new(&e), .m = m}};
    assert_non_null(p->build.g);
    graph_keep(p->logits = model_logits(&p->build, model_hidden(&p->build, TOKENS)));
    if (graph_plan(p->build.g, false, &e)) fail_msg("%s", e.primary);
}
static void pass_run(struct pass *p) {
    static i32 ids[TOKENS], position[TOKENS], begin[TOKENS];
    struct err e = {0};
    for (i32 i = 0; i < TOKENS; i++) ids[i] = i * 7 % VOCAB, position[i] = i;
    const struct places places = {
        .ids = ids, .position = position, .begin = begin, .last = position};
    if (model_bind(&p->build, &places, &e) || graph_run(p->build.g, &e) ||
        graph_read(p->build.g, p->logits, p->value, &e))
        fail_msg("%s", e.primary);
}

static void test_longer(void **state) {
    struct model m;
    struct err e = {0};
    static struct pass first, again, second;
    model_make(&m, *state);
    pass_open(&first, &m), pass_run(&first), again = first;
    struct constant *table = m.slopes ? m.slopes : m.rope[0];
    const int rope = table == m.rope[0];
    assert_int_equal(table->users, 2);
    assert_int_equal(model_rope(&m, TOKENS, &e), 0);
    assert_int_equal(table->users, 2);
    assert_int_equal(model_rope(&m, 5 * TOKENS, &e), 0);
    assert_int_equal(table->users, rope ? 1 : 2);
    pass_open(&second, &m);
    pass_run(&again), pass_run(&second);
    assert_memory_equal(first.value, again.value, sizeof first.value);
    assert_memory_equal(first.value, second.value, sizeof first.value);
    graph_free(first.build.g);
    table = rope ? m.rope[0] : m.slopes;
    model_free(&m);
    assert_int_equal(table->users, 1); /* the second graph's */
    graph_free(second.build.g);
}

/* A model that cannot make longer tables has those it had, all of the same length. */
static void test_no_memory(void **state) {
    struct model m;
    struct err e = {.code = 1};
    model_make(&m, *state);
    const struct constant *k = m.rope[0], *q = m.query_rope[0];
    for (int n = 1; e.code; n++) {
        char spec[32];
        assert_true(n < 100);
        assert_true(m.rope[0] == k && m.query_rope[0] == q && m.rope_positions == TOKENS);
        snprintf(spec, sizeof spec, "alloc:%d", n);
        e = (struct err){0};
        assert_int_equal(fault_arm(spec), 0);
        const int rc = model_rope(&m, 100, &e);
        fault_arm(NULL);
        assert_int_equal(rc, e.code ? -1 : 0);
    }
    assert_true(m.rope[0] != k && m.query_rope[0] != q && m.rope_positions == 100);
    model_free(&m);
}

#define OF(test, config)                                                                           \
    { #test " " #config, test, NULL, NULL, (void *)config }
int main(void) {
    const struct CMUnitTest tests[] = {OF(test_longer, llama), OF(test_longer, bloom),
                                       OF(test_longer, longrope), OF(test_longer, queries),
                                       OF(test_no_memory, queries)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
