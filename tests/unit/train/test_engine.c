/* test_engine.c: the engine gives every text the ids that uncached passes over it alone give, of
 * every family in tests/golden/models: several texts with settings of their own, with and without a
 * beginning in common, in a pool too small for all of them, with keys and values or latents as
 * states, after a rollback; and of a toy with states of sequences. What it computes is counted. */
#include "ops/ops_int.h"
#include "recipes/models/mixers/mixers.h"
#include "train/engine/pool.h"
#include <dirent.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <cmocka.h>

struct globals globals; /* main.c's */

enum { NEW = 9, TEXTS = 4, MOST = 140 };
static struct model model;
static u32 text[MOST];

static void ok(bool good, const struct err *e) {
    if (!good) fail_msg("%s: %s", e->primary, e->detail);
}

static void model_use(const char *folder, enum dtype d) {
    struct err e = {0};
    const struct rng r = {5, RNG_TEST, 0, 0};
    ok(!model_open(&model, folder, d, false, &e), &e);
    for (i64 i = 0; i < MOST; i++)
        text[i] = (u32)(rng_uniform_f64(&r, (u64)i) * (double)model.config.vocab_size);
}

/* Settings of text n. */
static struct sampling how_of(int n) {
    return (struct sampling){.temperature = n % 3 ? 0.7 + 0.2 * n : 0,
                             .top_p = n == 1 ? 0.9 : 1,
                             .top_k = n == 2 ? 30 : 0,
                             .seed = 11 + n,
                             .max_new_tokens = NEW,
                             .ignore_eos = true,
                             .repetition_penalty = n == 3 ? 1.4 : 1};
}

/* The id that follows `ids`, by a pass over all of them that knows nothing of states. */
static u32 next_of(const u32 *ids, i64 count, const struct sampling *s, i64 stream) {
    static u8 seen[1 << 18];
    struct err e = {0};
    struct pass p = {0};
    i32 position[MOST], begin[MOST] = {0}, id = 0, row = (i32)count - 1,
                        step[2] = {(i32)count, (i32)stream};
    const struct pass_plan plan = {
        .model = &model, .tokens = count, .gives = PASS_IDS, .rows = 1, .penalty = true};
    const struct sample_how how = {
        s->temperature, s->top_k,     s->top_p,
        s->min_p,       (u64)s->seed, s->repetition_penalty > 0 ? s->repetition_penalty : 1};
    const struct pass_inputs in = {.places = {(const i32 *)ids, position, begin, position},
                                   .row = &row,
                                   .step = step,
                                   .how = &how,
                                   .seen = seen};
    memset(seen, 0, sizeof seen);
    for (i64 i = 0; i < count; i++) position[i] = (i32)i, seen[ids[i]] = 1;
    ok(!model_rope(&model, count, &e) && !pass_open(&p, &plan, &e) && !pass_bind(&p, &in, &e) &&
           !pass_run(&p, &e) && !pass_read(&p, &id, &e),
       &e);
    pass_close(&p);
    return (u32)id;
}
static void right(const struct sequence *q, const struct sampling *s, const char *what) {
    u32 ids[MOST];
    memcpy(ids, q->prompt, (size_t)q->count * sizeof *ids);
    assert_int_equal(q->out.count, s->max_new_tokens);
    for (i64 i = 0; i < q->out.count; i++) {
        ids[q->count + i] = next_of(ids, q->count + i, s, q->stream);
        if (ids[q->count + i] != q->out.item[i])
            fail_msg("%s: id %lld of the answer to %lld ids is %u, expected %u", what, (long long)i,
                     (long long)q->count, q->out.item[i], ids[q->count + i]);
    }
}

/* Lengths from one id to more than a page; with `common`, all have one beginning. */
static void texts_make(struct sequence *list, struct sampling *how, bool common) {
    static const i64 lengths[TEXTS] = {60, 1, 33, 66};
    static u32 own[TEXTS][MOST];
    const i64 most = i64_min(model.config.max_position_embeddings - NEW - 1, MOST - NEW);
    for (int n = 0; n < TEXTS; n++) {
        const i64 count = i64_min(lengths[n], most - n);
        memcpy(own[n], text + (common ? 0 : n), (size_t)count * sizeof **own);
        if (common && count > 3) own[n][count - 3] = (u32)n;
        how[n] = how_of(n);
        list[n] = (struct sequence){.prompt = own[n], .count = count, .stream = n, .how = &how[n]};
    }
}

#include "tests/unit/train/engine_drafts.h"

/* Twice, so that the second time finds what the first one left. */
static void texts_case(const char *name, struct engine *g, bool common) {
    struct sequence list[TEXTS], again[TEXTS];
    struct sampling how[TEXTS];
    struct err e = {0};
    texts_make(list, how, common), memcpy(again, list, sizeof again);
    ok(!engine_generate(g, list, TEXTS, NULL, &e), &e);
    ok(!engine_generate(g, again, TEXTS, NULL, &e), &e);
    for (int n = 0; n < TEXTS; n++) {
        right(&list[n], &how[n], name);
        assert_int_equal(again[n].out.count, NEW);
        assert_memory_equal(list[n].out.item, again[n].out.item, NEW * sizeof(u32));
    }
    drafts_case(g, list);
    for (int n = 0; n < TEXTS; n++) ids_free(&list[n].out), ids_free(&again[n].out);
}

/* A pool of so many pages. */
static struct engine_count pool_case(const char *name, i64 pages, bool common, int latent) {
    struct err e = {0};
    struct states states = {0};
    ok(!states_describe(&states, &model, latent == LATENT_ALWAYS, &e), &e);
    const struct engine_plan plan = {.bytes = pages * states_page_bytes(&states), .latent = latent};
    states_free(&states);
    struct engine *g = engine_open(&model, &plan, &e);
    ok(g, &e);
    texts_case(name, g, common);
    const struct engine_count c = engine_counted(g);
    engine_close(g);
    return c;
}

static void families_case(const char *name) {
    char path[600];
    snprintf(path, sizeof path, "tests/golden/models/%s", name);
    model_use(path, F32);
    const bool latent = model.config.mla.kv_rank > 0;
    const struct engine_count roomy = pool_case(name, 40, true, LATENT_NEVER),
                              tight = pool_case(name, 3, latent, latent ? LATENT_ALWAYS : 0);
    assert_true(roomy.reused > 0 && !roomy.preempted);
    assert_true(tight.pages <= 3);
    if (model.config.max_position_embeddings > 100)
        assert_true(tight.evicted > 0 && tight.preempted > 0);
    model_free(&model);
}

static void all_families(void **state) {
    (void)state;
    DIR *d = opendir("tests/golden/models");
    int count = 0;
    for (struct dirent *at; (at = readdir(d));)
        if (*at->d_name != '.' && !strstr(at->d_name, "README")) families_case(at->d_name), count++;
    closedir(d);
    assert_true(count >= 40);
}

static void is_bf16(void **state) {
    (void)state;
    model_use("tests/golden/models/deepseek_v3", BF16);
    pool_case("deepseek_v3 in bf16", 6, true, LATENT_ALWAYS);
    pool_case("deepseek_v3 in bf16", 4, false, LATENT_NEVER);
    model_free(&model);
}

/* A conversation: each turn is the whole text so far and some ids, of which only the new ones and
 * the last of the answer, which no pass has read yet, are computed. */
static void turns(void **state) {
    (void)state;
    struct err e = {0};
    u32 ids[MOST];
    const struct sampling how = how_of(1);
    model_use("tests/golden/models/llama", F32);
    struct engine *g = engine_open(&model, NULL, &e);
    ok(g, &e);
    i64 count = 20, computed = 0;
    memcpy(ids, text, sizeof ids);
    for (int turn = 0; turn < 5; turn++) {
        struct sequence q = {.prompt = ids, .count = count};
        const i64 new = turn ? 12 + 1 : count;
        ok(!engine_generate(g, &q, 1, &how, &e), &e);
        right(&q, &how, "turns");
        assert_int_equal(engine_counted(g).computed - computed, new + NEW - 1);
        computed = engine_counted(g).computed;
        memcpy(ids + count, q.out.item, NEW * sizeof *ids);
        count += NEW + 12;
        ids_free(&q.out);
    }
    /* Another beginning, then an older turn again: no more than its last id is computed. */
    struct sequence other = {.prompt = ids + 1, .count = 30}, again = {.prompt = ids, .count = 41};
    ok(!engine_generate(g, &other, 1, &how, &e) && !engine_generate(g, &again, 1, &how, &e), &e);
    right(&other, &how, "another"), right(&again, &how, "again");
    assert_int_equal(engine_counted(g).computed - computed, 30 + NEW - 1 + NEW);
    ids_free(&other.out), ids_free(&again.out);
    engine_close(g), model_free(&model);
}

/* Texts of one step share the pages of their beginning that the first of them computes. */
static void one_step(void **state) {
    (void)state;
    struct err e = {0};
    const struct sampling how = how_of(0);
    model_use("tests/golden/models/qwen3", F32);
    struct engine *g = engine_open(&model, NULL, &e);
    struct sequence list[3];
    ok(g, &e);
    for (int n = 0; n < 3; n++) list[n] = (struct sequence){.prompt = text, .count = 100 + n};
    ok(!engine_generate(g, list, 3, &how, &e), &e);
    for (int n = 0; n < 3; n++) right(&list[n], &how, "one step"), ids_free(&list[n].out);
    assert_int_equal(engine_counted(g).computed, 100 + 37 + 38 + 3 * (NEW - 1));
    engine_close(g), model_free(&model);
}

/* Ids are taken back, within a page and across one, while another text shares the pages; what is
 * drawn again is the same. */
static void rollback_case(void) {
    struct err e = {0};
    const struct sampling how = {
        .temperature = 0.8, .top_p = 1, .seed = 3, .max_new_tokens = 30, .ignore_eos = true};
    static const i64 back[] = {81, 70, 65, 64, 63, 60};
    struct engine *g = engine_open(&model, NULL, &e);
    struct sequence q = {.prompt = text, .count = 60, .how = &how},
                    beside = {.prompt = text, .count = 62, .how = &how, .stream = 1};
    u32 drawn[30];
    ok(g && !engine_add(g, &q, &e), &e);
    for (int i = 0; i < 25; i++) ok(engine_step(g, &e) == 1, &e);
    ok(!engine_add(g, &beside, &e), &e);
    ok(engine_step(g, &e) == 2, &e);
    memcpy(drawn, q.out.item, 26 * sizeof *drawn);
    for (int n = 0; n < COUNT(back); n++) {
        engine_rollback(g, &q, back[n]);
        assert_int_equal(q.out.count, back[n] - 60);
        for (int i = 0; i < 3; i++) ok(engine_step(g, &e) >= 1, &e);
        assert_memory_equal(drawn, q.out.item, (size_t)q.out.count * sizeof *drawn);
    }
    while (engine_step(g, &e) > 0) {
    }
    assert_int_equal(e.code, 0);
    right(&q, &how, "rollback"), right(&beside, &how, "beside a rollback");
    engine_remove(g, &q), engine_remove(g, &beside);
    ids_free(&q.out), ids_free(&beside.out);
    engine_close(g);
}
static void rollback(void **state) {
    (void)state;
    model_use("tests/golden/models/phi3", F32);
    rollback_case();
    model_free(&model);
}

/* ---- a recurrent toy after each MLP of llama: y_n = 0.97 y_(n-1) + x_n, column by column. A slot
 * holds what states.h says: y after the last full chunk, and the x since then. */

enum { TOY_ROWS = 1 + ATTENTION_PAGE, TOY_WIDTH = 64 };
static int toy_shape(struct op_call *c, struct err *e) {
    (void)e;
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static int toy_run(const struct op_call *c, struct err *e) {
    (void)e;
    const i32 *position = c->in[1].data, *slot = c->in[2].data;
    const i64 width = c->in[0].dim[1];
    for (i64 n = 0; n < c->in[0].dim[0]; n++) {
        float *first = (float *)c->out[1].data + slot[n] * TOY_ROWS * width;
        const i64 row = position[n] % ATTENTION_PAGE;
        for (i64 k = 0; k < width; k++) {
            if (!position[n]) first[k] = 0;
            float y = first[k];
            first[(1 + row) * width + k] = ((const float *)c->in[0].data)[n * width + k];
            for (i64 i = 0; i <= row; i++) y = 0.97f * y + first[(1 + i) * width + k];
            ((float *)c->out[0].data)[n * width + k] = y;
            if (row + 1 == ATTENTION_PAGE) first[k] = y;
        }
    }
    return 0;
}
static const struct op op_toy = {.name = "toy",
                                 .in = "x position slot",
                                 .out = "y =state",
                                 .shape = toy_shape,
                                 .cpu = {toy_run, toy_run, toy_run, toy_run}};
static struct tensor *toy_trace(struct build *b, struct tensor *x) {
    static float memory[TOY_ROWS * TOY_WIDTH]; /* of a pass that knows nothing of states */
    static struct view alone = {.data = memory, .dtype = F32, .rank = 2, .dim = {TOY_ROWS}};
    struct view *v = b->states ? &b->states->layer[b->layer].view[2] : &alone;
    alone.dim[1] = b->m->config.hidden_size;
    struct tensor *out[OP_OUT] = {NULL, graph_param(b->g, v->data, "state", v, false)};
    graph_call(b->g, &op_toy, NULL,
               BIND({"x", mixer_glu.trace(b, x)}, {"position", b->position},
                    {"slot", b->states ? b->slot : b->begin}),
               out);
    return out[0];
}
static int toy_states(const struct config *c, i64 l, enum dtype d, bool latent,
                      struct state_spec out[LAYER_STATES]) {
    (void)l, (void)latent;
    out[0] = (struct state_spec){"toy", STATE_SEQUENCE, d, TOY_ROWS, c->hidden_size};
    return 1;
}

/* Batches of texts, prefixes from the last snapshot on, too small a pool, rollbacks. */
static void recurrent(void **state) {
    (void)state;
    static const struct mixer toy = {.name = "toy", .trace = toy_trace, .states = toy_states};
    struct err e = {0};
    const struct sampling how = how_of(1);
    u32 ids[MOST];
    model_use("tests/golden/models/llama", F32);
    assert_true(model.config.hidden_size <= TOY_WIDTH);
    for (i64 l = 0; l < model.config.layers; l++) model.config.layer[l].mixer[1] = &toy;
    const struct engine_count roomy = pool_case("recurrent", 40, true, LATENT_NEVER),
                              tight = pool_case("recurrent", 4, false, LATENT_NEVER);
    assert_int_equal(roomy.reused, 2 * ATTENTION_PAGE); /* the second time, and with guesses */
    assert_true(tight.preempted > 0);
    rollback_case();
    /* A conversation goes on from what was kept while the last answer was written. */
    struct engine *g = engine_open(&model, NULL, &e);
    struct sequence q = {.prompt = text, .count = 120}, then = {.prompt = ids, .count = 131};
    ok(g && !engine_generate(g, &q, 1, &how, &e), &e);
    right(&q, &how, "recurrent");
    memcpy(ids, text, sizeof ids), memcpy(ids + 120, q.out.item, NEW * sizeof *ids);
    ok(!engine_generate(g, &then, 1, &how, &e), &e);
    right(&then, &how, "recurrent, from a snapshot");
    assert_int_equal(engine_counted(g).reused, 128);
    assert_int_equal(engine_counted(g).computed, 120 + NEW - 1 + 3 + NEW - 1);
    ids_free(&q.out), ids_free(&then.out);
    engine_close(g), model_free(&model);
}

/* What cannot be served is said, and the engine goes on. */
static void refused(void **state) {
    (void)state;
    struct err e = {0};
    const struct sampling how = how_of(0);
    u32 beyond = 100000;
    model_use("tests/golden/models/llama", F32);
    struct states states = {0};
    ok(!states_describe(&states, &model, false, &e), &e);
    const struct engine_plan plan = {.bytes = states_page_bytes(&states)};
    struct engine *g = engine_open(&model, &plan, &e);
    struct sequence empty = {.prompt = text}, bad = {.prompt = &beyond, .count = 1},
                    large = {.prompt = text, .count = 60}, good = {.prompt = text, .count = 50};
    ok(g, &e);
    assert_int_equal(engine_generate(g, &empty, 1, &how, &e), -1);
    assert_string_equal(e.primary, "the prompt is empty");
    e = (struct err){0};
    assert_int_equal(engine_generate(g, &bad, 1, &how, &e), -1);
    assert_string_equal(e.primary, "id 100000 is beyond the model's vocabulary of 131");
    e = (struct err){0};
    assert_int_equal(engine_generate(g, &large, 1, &how, &e), -1);
    assert_string_equal(e.primary,
                        "a text of 65 ids does not fit into the 64 positions of the pool");
    e = (struct err){0};
    ok(!engine_generate(g, &good, 1, &how, &e), &e);
    right(&good, &how, "after errors");
    ids_free(&good.out), ids_free(&large.out), states_free(&states);
    engine_close(g), model_free(&model);
}

/* Without memory somewhere: said, and the engine serves the next texts as ever. */
static void faults(void **state) {
    (void)state;
    model_use("tests/golden/models/deepseek_v3", F32);
    struct sampling how[TEXTS];
    i64 failures = 0;
    for (int n = 1, done = 0; !done; n += 1 + n / 16) {
        struct err e = {0};
        struct sequence list[TEXTS];
        char spec[32];
        texts_make(list, how, true);
        const struct engine_plan plan = {.latent = LATENT_ALWAYS};
        struct engine *g = engine_open(&model, &plan, &e);
        ok(g, &e);
        snprintf(spec, sizeof spec, "alloc:%d", n);
        fault_arm(spec);
        const int rc = engine_generate(g, list, TEXTS, NULL, &e);
        fault_arm(NULL);
        assert_int_equal(rc ? -1 : 0, rc);
        assert_true(!rc == !e.code && (!rc || e.starved));
        done = !rc, failures += !!rc;
        e = (struct err){0};
        ok(!engine_generate(g, list, 2, NULL, &e), &e);
        if (done || n < 40) right(&list[0], &how[0], "after a failure");
        for (int i = 0; i < TEXTS; i++) ids_free(&list[i].out);
        engine_close(g);
    }
    assert_true(failures > 30);
    model_free(&model);
}

/* ---- what latents cost (HONE_TABLE=1): a step of one layer with the heads of DeepSeek V3, whose
 * MLP and vocabulary are small, behind so many positions */

static double user_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec * 1e-6;
}

static double step_seconds(i64 positions, bool latent, double *bytes) {
    enum { STEPS = 3 };
    struct err e = {0};
    struct states states = {0};
    struct pass p = {0};
    const i64 pages = positions / ATTENTION_PAGE, gathered = latent ? pages : 0;
    i32 *table = mem_new_array(pages, sizeof *table, &e), zero = 0, last = (i32)positions - 1,
        id = 5, *gather = mem_new_array(positions, sizeof *gather, &e);
    for (i64 i = 0; i < pages; i++) table[i] = (i32)i;
    for (i64 i = 0; i < positions; i++) gather[i] = (i32)i;
    ok(!states_describe(&states, &model, latent, &e) && !states_grow(&states, pages, 0, &e), &e);
    for (int i = 0; i < 2; i++) { /* numbers near 0.01 */
        const struct view *v = &states.layer->view[i];
        memset(v->data, 0x3c, (size_t)view_bytes(v));
    }
    *bytes = (double)states_page_bytes(&states) / ATTENTION_PAGE;
    const struct pass_plan plan = {.model = &model,
                                   .tokens = 1,
                                   .gives = PASS_LOGITS,
                                   .states = &states,
                                   .sequences = 1,
                                   .page_count = pages,
                                   .gathered = gathered};
    const struct pass_inputs in = {.places = {&id, &last, &zero, &last},
                                   .states = {&last, &zero, table, gather, NULL}};
    ok(!pass_open(&p, &plan, &e) && !pass_bind(&p, &in, &e) && !pass_run(&p, &e), &e);
    const double start = user_seconds();
    for (int i = 0; i < STEPS; i++) ok(!pass_run(&p, &e), &e);
    const double seconds = (user_seconds() - start) / STEPS;
    pass_close(&p), states_free(&states), mem_free(table), mem_free(gather);
    return seconds;
}

static int latents_cost(void) {
    struct err e = {0};
    struct config c;
    json_t *j = json_open("tests/golden/configs/DeepSeek-V3.json", &e);
    json_object_set_new(j, "num_hidden_layers", json_integer(1));
    json_object_set_new(j, "first_k_dense_replace", json_integer(1));
    json_object_set_new(j, "intermediate_size", json_integer(64));
    json_object_set_new(j, "vocab_size", json_integer(64));
    ok(j && !config_read(&c, j, "DeepSeek-V3", &e), &e);
    json_decref(j);
    ok(!model_new(&model, &c, BF16, false, &e) && !model_rope(&model, 16384, &e), &e);
    model_init(&model, 1);
    printf("positions, states: CPU user time of a step, bytes of a position\n");
    for (i64 positions = 1024; positions <= 16384; positions *= 16)
        for (int latent = 0; latent < 2; latent++) {
            double bytes;
            const double seconds = step_seconds(positions, latent, &bytes);
            printf("%5lld, %s: %8.1f ms, %6.0f\n", (long long)positions,
                   latent ? "latents        " : "keys and values", seconds * 1e3, bytes);
        }
    model_free(&model);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(turns),     cmocka_unit_test(one_step),
                                       cmocka_unit_test(rollback),  cmocka_unit_test(refused),
                                       cmocka_unit_test(is_bf16),   cmocka_unit_test(faults),
                                       cmocka_unit_test(recurrent), cmocka_unit_test(all_families)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    if (getenv("HONE_TABLE")) return latents_cost();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
