/* test_families.c: `hone inspect` of the configuration of each published model of the families that
 * are known prints exactly the number of parameters that the model has (golden/configs). What
 * layers may be and what they keep, by configurations of a line. */
#include "recipes/models/states.h"
#include "tests/e2e/tiny_run.h"

#include <jansson.h>

/* The parameters of listed modules: weights that are no other module's, and biases by row. */
static i64 modules_count(json_t *list) {
    i64 sum = 0;
    size_t i, k;
    json_t *m, *dim;
    json_array_foreach(list, i, m) {
        i64 count = 1, last = 1;
        json_array_foreach(json_object_get(m, "shape"), k, dim) {
            last = k ? json_integer_value(dim) : 1;
            count *= json_integer_value(dim);
        }
        if (!strcmp(json_string_value(json_object_get(m, "kind")), "buffer")) continue;
        if (!json_is_true(json_object_get(m, "tied"))) sum += count;
        if (json_is_true(json_object_get(m, "bias"))) sum += count / last;
    }
    return json_decref(list), sum;
}

static void test_parameters(void **state) {
    (void)state;
    struct err e = {0};
    struct text list = {0};
    int models = 0;
    if (file_read(&list, "tests/golden/configs/parameters.tsv", &e)) fail_msg("%s", e.primary);
    for (char *line = list.data, *end; (end = strchr(line, '\n')); line = end + 1, models++) {
        const char *tab = strchr(line, '\t');
        assert_true(tab && tab < end);
        const i64 wanted = strtoll(tab, NULL, 10);
        hone(0, "inspect tests/golden/configs/%.*s.json --json", (int)(tab - line), line);
        json_t *j = json_open(at("stdout"), &e);
        if (!j) fail_msg("%s", e.primary);
        const i64 found = json_integer_value(json_object_get(j, "parameters"));
        if (found != wanted)
            fail_msg("%.*s: %lld parameters, not %lld", (int)(tab - line), line, (long long)found,
                     (long long)wanted);
        json_decref(j);
        hone(0, "inspect tests/golden/configs/%.*s.json --modules --json", (int)(tab - line), line);
        if (modules_count(json_open(at("stdout"), &e)) != wanted)
            fail_msg("%.*s: its modules have not %lld parameters", (int)(tab - line), line,
                     (long long)wanted);
    }
    assert_true(models >= 77);
    text_free(&list);
}

/* Modules by the paths that adapters name them by, with what is attached to them. */
static void test_modules(void **state) {
    (void)state;
    const char *llama = "tests/golden/models/llama",
               *line =
                   "model.layers.1.mlp.down_proj                     linear     [32, 44]       ";
    hone(0, "inspect %s --modules", llama);
    expect(said(), line);
    expect(said(), "lm_head                                          head       [131, 32]");
    assert_null(strstr(said(), "LoRA"));
    hone(0, "inspect %s --modules --adapter %s/lora --quantize nf4", llama, llama);
    expect(said(), line);
    expect(said(), "model.layers.1.mlp.down_proj                     linear     [32, 44]           "
                   "    LoRA 4   nf4\n");
    hone(0, "inspect tests/golden/quant/llama_fp4 --modules");
    expect(said(), " fp4\n");
    hone(0, "inspect tests/golden/models/llama_rope3_tied --modules");
    expect(said(), "head       [131, 32]       tied");
    hone(2, "inspect tests/golden/quant/README.md --modules");
    expect(complained(), "README.md is no model, so it has no modules");
}

static void ok(int status, const struct err *e) {
    if (status || e->code) fail_msg("%s %s", e->primary, e->detail);
}

static int config_of(struct config *c, const char *more, struct err *e) {
    char text[1024];
    const int n = snprintf(text, sizeof text,
                           "{\"vocab_size\": 32, \"hidden_size\": 32, \"intermediate_size\": 64, "
                           "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, %s}",
                           more);
    json_t *j = json_parse(text, n, "c.json", e);
    const int rc = !j || config_read(c, j, "c.json", e) ? -1 : 0;
    json_decref(j);
    return rc;
}

static void test_layer_types(void **state) {
    (void)state;
    static struct config c;
    struct err e = {0};
    const char *known = "\"model_type\": \"qwen3\", \"use_sliding_window\": true, "
                        "\"layer_types\": [\"sliding_attention\", \"full_attention\"]";
    ok(config_of(&c, known, &e), &e);
    assert_int_equal(4096, c.layer[0].window);
    assert_int_equal(0, c.layer[1].window);
    const char *other = "\"model_type\": \"qwen3\", "
                        "\"layer_types\": [\"full_attention\", \"linear_attention\"]";
    assert_int_equal(-1, config_of(&c, other, &e));
    assert_int_equal(ERR_INPUT, e.code);
    assert_string_equal("c.json: 'layer_types' says 'linear_attention' of layer 1 of qwen3",
                        e.primary);
    assert_string_equal("expected full_attention or sliding_attention", e.detail);
}

/* Keys and values of as many heads as have them; latent attention's of all, or its latents. */
static void states_of(const char *more, bool latent, const i64 *columns) {
    static struct model m;
    struct err e = {0};
    struct state_spec s[LAYER_STATES];
    m.weights.dtype = BF16;
    ok(config_of(&m.config, more, &e), &e);
    assert_int_equal(2, model_states(&m, 1, latent, s));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(STATE_TOKEN, s[i].kind);
        assert_int_equal(BF16, s[i].dtype);
        assert_int_equal(columns[i], s[i].columns);
    }
}
static void test_states(void **state) {
    (void)state;
    const char *deep = "\"model_type\": \"deepseek_v3\", \"v_head_dim\": 8, \"kv_lora_rank\": 16, "
                       "\"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 4, \"q_lora_rank\": null";
    states_of("\"model_type\": \"llama\", \"num_key_value_heads\": 2", false, (i64[]){16, 16});
    states_of(deep, false, (i64[]){4 * 12, 4 * 8});
    states_of(deep, true, (i64[]){16, 4});
}

/* Dropout draws by layer and by the module's number in it: no two modules of a family's layers have
 * the same. */
static void test_streams(void **state) {
    (void)state;
    for (int f = 0; f < family_count; f++) {
        const struct module_type *of[STREAMS] = {0};
        for (const struct weight_rule *const *group = families[f]->weights; *group; group++)
            for (const struct weight_rule *w = *group; w->name; w++) {
                if (w->type->kind != MODULE_LINEAR && w->type->kind != MODULE_HEAD) continue;
                assert_in_range(w->type->stream, 1, STREAMS - 1);
                const struct module_type **at = &of[w->type->stream];
                if (*at && *at != w->type)
                    fail_msg("%s: %s and %s", families[f]->model_type, (*at)->name, w->type->name);
                *at = w->type;
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters), cmocka_unit_test(test_modules),
        cmocka_unit_test(test_layer_types), cmocka_unit_test(test_states),
        cmocka_unit_test(test_streams)};
    return cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
}
