/* test_engine_logits.c: logits that the engine tells are those of a pass over the whole text, at
 * each place once and in order, whatever the pool knows, however prompts are cut and whoever is
 * beside; prompts in chunks change no id; a text that fills the model can be read; what is wrong
 * with one text ends that one alone. */
#include "train/engine/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>

struct globals globals; /* main.c's */

enum { MOST = 140 };
static struct model model;
static u32 text[MOST];

static void ok(bool good, const struct err *e) {
    if (!good) fail_msg("%s: %s", e->primary, e->detail);
}

static void model_use(enum dtype d) {
    struct err e = {0};
    const struct rng r = {5, RNG_TEST, 0, 0};
    ok(!model_open(&model, "tests/golden/models/llama", d, false, &e), &e);
    for (i64 i = 0; i < MOST; i++)
        text[i] = (u32)(rng_uniform_f64(&r, (u64)i) * (double)model.config.vocab_size);
}

static const struct sampling sampled = {
    .temperature = 0.9, .top_p = 0.9, .seed = 12, .max_new_tokens = 6, .ignore_eos = true};

/* Texts of an engine that computes so many ids of prompts in a step. */
static void texts_make(i64 chunk, struct ids out[3]) {
    struct err e = {0};
    const struct engine_plan plan = {.chunk = chunk};
    struct sequence list[3] = {{.prompt = text, .count = 50},
                               {.prompt = text + 5, .count = 1},
                               {.prompt = text, .count = 45, .stream = 3}};
    struct engine *g = engine_open(&model, &plan, &e);
    ok(g && !engine_generate(g, list, 3, &sampled, &e), &e);
    for (int i = 0; i < 3; i++) out[i] = list[i].out;
    engine_close(g);
}

static void chunks(void **state) {
    (void)state;
    struct ids whole[3], cut[3];
    model_use(F32);
    texts_make(0, whole);
    for (i64 chunk = 1; chunk < 60; chunk += 19) {
        texts_make(chunk, cut);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(6, cut[i].count);
            assert_memory_equal(whole[i].item, cut[i].item, 6 * sizeof(u32));
            ids_free(&cut[i]);
        }
    }
    for (int i = 0; i < 3; i++) ids_free(&whole[i]);
    model_free(&model);
}

struct heard {
    i64 next, first, vocab;
    float *logits; /* [MOST][vocab] */
};
static void hear(void *arg, i64 place, const float *logits) {
    struct heard *h = arg;
    assert_int_equal(place, h->next++);
    memcpy(h->logits + place * h->vocab, logits, (size_t)h->vocab * sizeof *logits);
}

/* The logits of a pass over the whole text. */
static void heard_right(const struct heard *h, const struct sequence *q, i64 all) {
    struct err e = {0};
    struct pass p = {0};
    i32 ids[MOST], position[MOST], begin[MOST] = {0};
    const struct pass_plan one = {.model = &model, .tokens = all, .gives = PASS_LOGITS};
    const struct pass_inputs in = {.places = {ids, position, begin, position}};
    float *whole = calloc((size_t)(all * h->vocab), sizeof *whole);
    for (i64 i = 0; i < all; i++)
        position[i] = (i32)i, ids[i] = (i32)(i < q->count ? q->prompt : q->out.item - q->count)[i];
    ok(!model_rope(&model, all, &e) && !pass_open(&p, &one, &e) && !pass_bind(&p, &in, &e) &&
           !pass_run(&p, &e) && !pass_read_logits(&p, whole, &e),
       &e);
    assert_int_equal(h->next, all);
    assert_memory_equal(whole + h->first * h->vocab, h->logits + h->first * h->vocab,
                        (size_t)((all - h->first) * h->vocab) * sizeof *whole);
    pass_close(&p), free(whole);
}

static void logits_case(enum dtype d, i64 chunk, i64 count, i64 new, i64 from) {
    struct err e = {0}, wrong = {0};
    const struct engine_plan plan = {.chunk = chunk};
    struct sampling how = sampled;
    how.max_new_tokens = new;
    model_use(d);
    struct heard h = {from, from, model.config.vocab_size, NULL};
    h.logits = calloc((size_t)(MOST * h.vocab), sizeof *h.logits);
    struct sequence q = {.prompt = text,
                         .count = count,
                         .how = &how,
                         .logits = hear,
                         .logits_from = from,
                         .arg = &h,
                         .wrong = &wrong},
                    before = {.prompt = text, .count = 30},
                    beside = {.prompt = text + 5, .count = 9, .how = &sampled};
    struct engine *g = engine_open(&model, &plan, &e);
    ok(g && !engine_generate(g, &before, 1, &sampled, &e) && !engine_add(g, &q, &e) &&
           !engine_add(g, &beside, &e),
       &e);
    for (i64 active = 1; active;) ok((active = engine_step(g, &e)) >= 0, &e);
    engine_remove(g, &q), engine_remove(g, &beside), engine_close(g);
    assert_int_equal(new, q.out.count), assert_int_equal(6, beside.out.count);
    heard_right(&h, &q, count + new - (new > 0));
    ids_free(&q.out), ids_free(&before.out), ids_free(&beside.out), free(h.logits);
    model_free(&model);
}

static void logits(void **state) {
    (void)state;
    logits_case(F32, 0, 40, 6, 0), logits_case(F32, 7, 40, 6, 0), logits_case(BF16, 7, 40, 6, 39);
    model_use(F32);
    const i64 most = i64_min(model.config.max_position_embeddings, MOST);
    model_free(&model);
    logits_case(F32, 16, most, 0, 0);
}

/* A model whose logits are no numbers from one id on. */
static void one_is_wrong(void **state) {
    (void)state;
    struct err e = {0}, wrong = {0};
    model_use(F32);
    const u32 bad = 3;
    u32 ids[8] = {1, 2, 4, 5, bad, 1, 2, 4};
    for (i64 k = 0; k < model.weights.params; k++) {
        const struct param *p = model.weights.param[k];
        if (strstr(p->name, "embed_tokens"))
            ((float *)p->view.data)[bad * model.config.hidden_size] = NAN;
    }
    struct sequence q = {.prompt = ids, .count = 8, .how = &sampled, .wrong = &wrong},
                    good = {.prompt = ids, .count = 3, .how = &sampled};
    struct engine *g = engine_open(&model, NULL, &e);
    ok(g && !engine_add(g, &q, &e) && !engine_add(g, &good, &e), &e);
    for (i64 active = 1; active;) ok((active = engine_step(g, &e)) >= 0, &e);
    assert_non_null(strstr(wrong.primary, "are not finite"));
    assert_int_equal(0, q.out.count), assert_int_equal(6, good.out.count);
    engine_remove(g, &q), engine_remove(g, &good), engine_close(g);
    ids_free(&q.out), ids_free(&good.out), model_free(&model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chunks), cmocka_unit_test(logits),
                                       cmocka_unit_test(one_is_wrong)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
