/* test_peft.c: adapters of PEFT are read, written as PEFT writes them, and refused where hone would
 * compute something else. */
#include "tests/unit/checkpoints/fixture.h"
#include <jansson.h>
#include <math.h>

static char path[256];

static void goldens(void **state) {
    (void)state;
    static const struct {
        const char *folder;
        i64 tensors;
        double scale;
    } golden[] = {{"tests/golden/models/llama/lora", 28, 2},
                  {"tests/golden/models/llama/lora_rslora", 28, 4},
                  {"tests/golden/models/llama/lora_dora", 42, 2},
                  {"tests/golden/models/llama_rope3_tied/lora", 28, 2},
                  {"tests/golden/models/olmo2/lora", 28, 2}};
    for (i64 i = 0; i < COUNT(golden); i++) {
        struct lora_config c;
        struct safetensors s;
        struct err e = {0};
        char from[256];
        ok(adapter_open(golden[i].folder, &c, &s, &e), &e);
        assert_int_equal(s.count, golden[i].tensors);
        assert_true(c.r == 4 && c.lora_dropout == 0 && lora_scale(&c) == golden[i].scale);
        assert_int_equal(lora_match(&c, "model.layers.0.mlp.down_proj", &e), 1);
        assert_int_equal(lora_match(&c, "lm_head", &e), 0);
        ok(lora_config_write(&c, path, &e), &e);
        snprintf(from, sizeof from, "%s/adapter_config.json", golden[i].folder);
        json_t *a = json_open(from, &e), *b = json_open(path, &e);
        assert_true(a && b && json_equal(a, b));
        json_decref(a);
        json_decref(b);
        safetensors_close(&s);
        lora_config_free(&c);
    }
}

/* Patterns, layers and modules that are trained whole. */
static void partial(void **state) {
    (void)state;
    static const struct {
        const char *module;
        int match;
        i64 r;
        double scale;
    } want[] = {{"model.layers.1.mlp.down_proj", 1, 2, 3.5},
                {"model.layers.1.self_attn.q_proj", 1, 3, 5.0 / 3},
                {"model.layers.0.mlp.down_proj", 0, 2, 3.5},
                {"down_proj", 1, 2, 3.5},
                {"model.layers.1.mlp.up_proj", 0, 3, 5.0 / 3}};
    struct lora_config c;
    struct safetensors s;
    struct err e = {0};
    ok(adapter_open("tests/golden/models/llama/lora_partial", &c, &s, &e), &e);
    assert_int_equal(s.count, 5);
    for (i64 i = 0; i < COUNT(want); i++) {
        i64 r;
        double scale;
        ok(lora_of(&c, want[i].module, &r, &scale, &e), &e);
        assert_int_equal(lora_match(&c, want[i].module, &e), want[i].match);
        assert_true(r == want[i].r && scale == want[i].scale);
    }
    assert_true(lora_saves(&c, "lm_head.weight") && !lora_saves(&c, "model.norm.weight"));
    ok(lora_config_write(&c, path, &e), &e);
    json_t *a = json_open("tests/golden/models/llama/lora_partial/adapter_config.json", &e);
    json_t *b = json_open(path, &e);
    assert_true(a && b && json_equal(a, b));
    json_decref(a), json_decref(b);
    char *out[] = {"down_proj"};
    c.exclude_modules = (struct text_list){out, 1};
    assert_int_equal(lora_match(&c, "model.layers.1.mlp.down_proj", &e), 0);
    c.exclude_regex = ".*q_proj";
    assert_int_equal(lora_match(&c, "model.layers.1.self_attn.q_proj", &e), 0);
    assert_int_equal(lora_match(&c, "model.layers.1.mlp.down_proj", &e), 1);
    safetensors_close(&s), lora_config_free(&c);
}

/* The bytes of json.dumps(config, indent=2, sort_keys=True), as PEFT saves them. */
static void exact_text(void **state) {
    (void)state;
    char *targets[] = {"q_proj", "down_proj"}, *saved[] = {"lm_head"};
    struct lora_config c = {.r = 8,
                            .lora_alpha = 16,
                            .lora_dropout = 0.05,
                            .target_modules = {targets, 2},
                            .modules_to_save = {saved, 1},
                            .init_lora_weights = "gaussian",
                            .base_model_name_or_path = "a/\"b\""};
    struct err e = {0};
    struct text text;
    ok(lora_config_write(&c, path, &e), &e);
    ok(file_read(&text, path, &e), &e);
    assert_non_null(strstr(
        text.data, "\n  \"base_model_name_or_path\": \"a/\\\"b\\\"\",\n  \"bias\": \"none\",\n"));
    assert_non_null(strstr(text.data, "\n  \"init_lora_weights\": \"gaussian\",\n"));
    assert_non_null(
        strstr(text.data,
               "\n  \"lora_alpha\": 16,\n  \"lora_bias\": false,\n  \"lora_dropout\": 0.05,\n"));
    assert_non_null(strstr(text.data, "\n  \"modules_to_save\": [\n    \"lm_head\"\n  ],\n"));
    assert_non_null(
        strstr(text.data, "\n  \"target_modules\": [\n    \"down_proj\",\n    \"q_proj\"\n  ],\n"));
    assert_int_equal(text.data[text.size - 1], '}');
    text_free(&text);
    struct lora_config back;
    ok(lora_config_read(&back, path, &e), &e);
    assert_string_equal(back.init_lora_weights, "gaussian");
    assert_string_equal(back.modules_to_save.item[0], "lm_head");
    assert_true(back.lora_dropout == 0.05);
    lora_config_free(&back);
}

#define OK "\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"]"
static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
    } bad[] = {
        {"[]", " is not a JSON object"},
        {"{\"peft_type\": \"IA3\"}", ": peft_type is IA3"},
        {"{}", ": peft_type is missing or not text"},
        {"{" OK ", \"task_type\": \"SEQ_CLS\"}", ": task_type is SEQ_CLS"},
        {"{" OK ", \"bias\": \"some\"}", ": bias is some; expected none, lora_only or all"},
        {"{" OK ", \"trainable_token_indices\": [\"a\"]}",
         ": trainable_token_indices: item 0 is no id"},
        {"{" OK ", \"trainable_token_indices\": {\"embed\": []}}",
         ": trainable_token_indices names no tokens"},
        {"{" OK ", \"rank_pattern\": {\"q\": 0}}",
         ": rank_pattern of 'q' is not a number from 1 to 1048576"},
        {"{" OK ", \"alpha_pattern\": [2]}", ": alpha_pattern is not an object"},
        {"{" OK ", \"layers_to_transform\": [-1]}",
         ": layers_to_transform is not a list of layer numbers"},
        {"{" OK ", \"layers_pattern\": 3}", ": layers_pattern is not a list"},
        {"{" OK ", \"invented\": 1}", ": invented is set, which hone does not support"},
        {"{" OK ", \"init_lora_weights\": \"olora\"}",
         ": init_lora_weights is olora; supported: true, false, gaussian, "
         "orthogonal, eva, pissa"},
        {"{" OK ", \"r\": 0}", ": r is 0; expected 1 to 1048576"},
        {"{" OK ", \"r\": \"x\"}", ": \"r\" is \"x\"; expected an integer"},
        {"{" OK ", \"lora_dropout\": 1}",
         ": lora_dropout is 1; expected 0 or more and less than 1"},
        {"{" OK ", \"modules_to_save\": \"lm_head\"}", ": modules_to_save is not a list"},
        {"{" OK ", \"modules_to_save\": [1]}", ": item 0 of modules_to_save is not a name"},
        {"{\"peft_type\": \"LORA\"}", ": target_modules is missing or empty"},
    };
    for (i64 i = 0; i < COUNT(bad); i++) {
        struct lora_config c;
        struct err e = {0};
        ok(file_write(path, bad[i].config, (i64)strlen(bad[i].config), &e), &e);
        assert_int_equal(lora_config_read(&c, path, &e), -1);
        assert_string_equal(e.primary + strlen(path), bad[i].message);
        assert_int_equal(e.code, ERR_INPUT);
        lora_config_free(&c);
    }
}

static void matching(void **state) {
    (void)state;
    char *names[] = {"q_proj", "mlp.up_proj"};
    struct lora_config c = {.target_modules = {names, 2}};
    struct err e = {0};
    assert_int_equal(lora_match(&c, "model.layers.0.self_attn.q_proj", &e), 1);
    assert_int_equal(lora_match(&c, "q_proj", &e), 1);
    assert_int_equal(lora_match(&c, "model.layers.0.self_attn.xq_proj", &e), 0);
    assert_int_equal(lora_match(&c, "model.layers.10.mlp.up_proj", &e), 1);
    c = (struct lora_config){.target_regex = "model\\.layers\\.[01]\\..*(q|k)_proj"};
    assert_int_equal(lora_match(&c, "model.layers.1.self_attn.k_proj", &e), 1);
    assert_int_equal(lora_match(&c, "model.layers.2.self_attn.k_proj", &e), 0);
    assert_int_equal(lora_match(&c, "model.layers.1.self_attn.k_proj.x", &e), 0);
    c.target_regex = "all-linear";
    assert_int_equal(lora_match(&c, "anything", &e), 1);
    c.target_regex = "(";
    assert_int_equal(lora_match(&c, "x", &e), -1);
    assert_string_equal(e.primary, "pattern \"(\": at byte 1: missing closing parenthesis");
}

static void keys(void **state) {
    (void)state;
    struct arena a = {0};
    struct err e = {0};
    enum lora_part part;
    char *name;
    static const char *const key[] = {
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.embed_tokens.lora_embedding_B",
        "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.base_layer.weight",
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
        "base_model.model.lm_head.weight"};
    static const char *const module[] = {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj",
                                         "model.embed_tokens",         "model.embed_tokens",
                                         "model.layers.0.mlp.up_proj", "model.embed_tokens",
                                         "model.embed_tokens",         "lm_head.weight"};
    for (int i = 0; i < COUNT(key); i++) {
        ok(lora_key_parse(key[i], &part, &name, &a, &e), &e);
        assert_int_equal(part, i);
        assert_string_equal(name, module[i]);
        assert_string_equal(lora_key(&a, name, part, &e), key[i]);
    }
    assert_int_equal(lora_key_parse("model.x", &part, &name, &a, &e), -1);
    assert_string_equal(e.primary, "adapter tensor model.x does not begin with base_model.model.");
    e = (struct err){0};
    assert_int_equal(lora_key_parse("base_model.model.x.lora_B.bias", &part, &name, &a, &e), -1);
    assert_string_equal(
        e.primary, "adapter tensor base_model.model.x.lora_B.bias: .lora_B.bias is not supported");
    arena_free(&a);
}

static void broken_adapters(void **state) {
    (void)state;
    static const u8 zero[64];
    static const struct {
        const char *name;
        i64 dim[2];
        const char *message;
    } bad[] = {
        {"base_model.model.q_proj.lora_A.weight",
         {2, 4},
         "adapter tensor base_model.model.q_proj.lora_A.weight has shape [2, 4]; with r 4 expected "
         "[r, in]"},
        {"base_model.model.q_proj.lora_B.weight",
         {4, 2},
         "adapter tensor base_model.model.q_proj.lora_B.weight has shape [4, 2]; with r 4 expected "
         "[out, r]"},
        {"base_model.model.q_proj.lora_A.weight",
         {4, 2},
         "adapter tensor base_model.model.q_proj.lora_A.weight is there, but not "
         "base_model.model.q_proj.lora_B.weight"},
        {"base_model.model.embed.weight",
         {4, 2},
         "adapter tensor base_model.model.embed.weight is no part of LoRA and not in "
         "modules_to_save"},
    };
    char *targets[] = {"q_proj"};
    struct lora_config c = {.r = 4, .lora_alpha = 8, .target_modules = {targets, 1}}, back;
    for (i64 i = 0; i < COUNT(bad); i++) {
        struct err e = {0};
        struct safetensors s;
        struct stored t = {.name = bad[i].name,
                           .dtype = F32,
                           .rank = 2,
                           .dim = {bad[i].dim[0], bad[i].dim[1]},
                           .data = zero,
                           .bytes = 4 * bad[i].dim[0] * bad[i].dim[1]};
        ok(lora_config_write(&c, path, &e) ||
               safetensors_write(folder, "adapter_model", &t, 1, SHARD_BYTES, &e),
           &e);
        assert_int_equal(adapter_open(folder, &back, &s, &e), -1);
        assert_string_equal(e.primary, bad[i].message);
        safetensors_close(&s);
        lora_config_free(&back);
    }
}

static int set_up(void **state) {
    if (folder_make(state)) return -1;
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),         cmocka_unit_test(partial),  cmocka_unit_test(exact_text),
        cmocka_unit_test(refusals),        cmocka_unit_test(matching), cmocka_unit_test(keys),
        cmocka_unit_test(broken_adapters),
    };
    return cmocka_run_group_tests(tests, set_up, folder_remove);
}
