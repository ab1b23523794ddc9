/* test_ema.c: a mixer with sequence state: trained, then in steps with a slot as in one pass, and
 * beside another document as alone, to the bit. */
#include "recipes/models/mixers/mixers.h"
#include "tests/e2e/tiny_run.h"
#include "train/engine/engine.h"

#include <stdlib.h>

enum { MOST = 50, CUT = 20, PAGES = 1 };

/* Logits of positions from..: of the document whose first row is `begin`. */
static void logits_of(struct model *m, struct states *states, const i32 *ids, i64 from, i64 tokens,
                      i64 cut, u8 *out) {
    struct err e = {0};
    struct pass p = {0};
    const struct pass_plan plan = {.model = m,
                                   .tokens = tokens,
                                   .gives = PASS_LOGITS,
                                   .states = states,
                                   .sequences = 1,
                                   .page_count = PAGES};
    static const i32 page[PAGES] = {0}, zero[MOST], slot[MOST] = {[0 ... MOST - 1] = 2};
    i32 position[MOST], begin[MOST] = {0}, last[MOST];
    for (i64 i = 0; i < tokens; i++) {
        const bool second = cut && i >= cut;
        position[i] = (i32)(from + i - (second ? cut : 0));
        last[i] = (i32)(from + i), begin[i] = second ? (i32)cut : 0;
    }
    const struct pass_inputs in = {
        .places = {ids + from, position, begin, last},
        .states = {.store = last, .sequence = zero, .pages = page, .slot = slot}};
    if (pass_open(&p, &plan, &e) || pass_bind(&p, &in, &e) || pass_run(&p, &e) ||
        pass_read(&p, out, &e))
        fail_msg("%s", e.primary);
    pass_close(&p);
}

static void test_trained(void **state) {
    (void)state;
    tiny_data();
    tiny_recipe(at("r.yaml"));
    hone(0,
         "train %s model.model_type=ema_toy 'model.layer_types=[moving_average, full_attention]' "
         "dataset.0.path=%s output_dir=%s max_steps=20 --quiet",
         at("r.yaml"), at("packed.h5"), at("run"));
    const struct log_rows rows = log_of(at("run"));
    assert_int_equal(20, rows.count);
    assert_true(rows.row[19].loss < rows.row[0].loss - 0.3);
}

/* LoRA finds the mixer's layers without being told of them. */
static void test_adapted(void **state) {
    (void)state;
    const char *recipe = "max_seq_length: 64\nglobal_batch_size: 8\nlearning_rate: 1.0e-3\n";
    put(at("lora.yaml"), recipe, (i64)strlen(recipe));
    hone(0,
         "train %s model_name_or_path=%s use_peft=true lora_target_modules=all-linear "
         "dataset.0.path=%s output_dir=%s max_steps=4 --quiet",
         at("lora.yaml"), at("run/checkpoints/step-000020"), at("packed.h5"), at("lora"));
    struct lora_config c = {0};
    struct safetensors s = {0};
    struct err e = {0};
    if (adapter_open(at("lora/checkpoints/step-000004"), &c, &s, &e)) fail_msg("%s", e.primary);
    assert_non_null(
        safetensors_find(&s, "base_model.model.model.layers.0.ema.in_proj.lora_B.weight"));
    safetensors_close(&s), lora_config_free(&c);
}

/* Two texts of other lengths in one engine: each id is what a pass over all before gives. */
static void test_generated(void **state) {
    (void)state;
    enum { NEW = 20 };
    struct err e = {0};
    struct model m = {0};
    static const u32 prompt[2][9] = {{5, 17, 300, 41, 8, 8, 90, 2, 77}, {500, 3, 5, 17}};
    const i64 length[2] = {9, 4};
    const struct sampling how = {.max_new_tokens = NEW, .ignore_eos = true};
    struct sequence list[2] = {{.prompt = prompt[0], .count = 9},
                               {.prompt = prompt[1], .count = 4}};
    assert_int_equal(0, pool_start(2, &e));
    if (model_open(&m, at("run/checkpoints/step-000020"), F32, false, &e) ||
        model_rope(&m, MOST, &e) || generate_batch(&m, list, 2, &how, &e))
        fail_msg("%s", e.primary);
    const i64 vocab = m.config.vocab_size;
    float *logits = mem_new(MOST * vocab * 4, &e);
    for (int k = 0; k < 2; k++) {
        i32 ids[MOST];
        i64 n = length[k];
        assert_int_equal(NEW, list[k].out.count);
        for (i64 i = 0; i < n; i++) ids[i] = (i32)prompt[k][i];
        for (i64 i = 0; i < NEW; i++, n++) {
            logits_of(&m, NULL, ids, 0, n, 0, (u8 *)logits);
            const float *row = logits + (n - 1) * vocab;
            i64 best = 0;
            for (i64 v = 1; v < vocab; v++)
                if (row[v] > row[best]) best = v;
            assert_int_equal(best, list[k].out.item[i]);
            ids[n] = (i32)best;
        }
        ids_free(&list[k].out);
    }
    mem_free(logits), model_free(&m), pool_stop();
}

static void test_bits(void **state) {
    (void)state;
    struct err e = {0};
    struct model m = {0};
    struct states states = {0};
    i32 ids[MOST];
    assert_int_equal(0, pool_start(2, &e));
    for (int d = 0; d < 2; d++) {
        if (model_open(&m, at("run/checkpoints/step-000020"), d ? BF16 : F32, false, &e) ||
            model_rope(&m, MOST, &e) || states_describe(&states, &m, false, &e) ||
            states_grow(&states, 1, 4, &e))
            fail_msg("%s", e.primary);
        assert_int_equal(STATE_SEQUENCE, states.layer[0].spec[0].kind);
        assert_int_equal(1, states.layer[0].count);
        assert_int_equal(STATE_TOKEN, states.layer[1].spec[0].kind);
        for (i64 i = 0; i < MOST; i++) ids[i] = (i32)(i * i % 599);
        const i64 row = m.config.vocab_size * dtype_size(m.weights.dtype);
        u8 *whole = mem_new(MOST * row, &e), *steps = mem_new(MOST * row, &e);
        logits_of(&m, NULL, ids, 0, MOST, 0, whole);
        logits_of(&m, &states, ids, 0, CUT, 0, steps);
        for (i64 i = CUT; i < MOST; i++) logits_of(&m, &states, ids, i, 1, 0, steps + i * row);
        assert_memory_equal(whole, steps, (size_t)(MOST * row));
        logits_of(&m, NULL, ids, 0, MOST, CUT, whole); /* two documents */
        logits_of(&m, NULL, ids + CUT, 0, MOST - CUT, 0, steps);
        assert_memory_equal(whole + CUT * row, steps, (size_t)((MOST - CUT) * row));
        mem_free(whole), mem_free(steps);
        states_free(&states), model_free(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trained), cmocka_unit_test(test_adapted),
        cmocka_unit_test(test_generated), cmocka_unit_test(test_bits)};
    return cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
}
