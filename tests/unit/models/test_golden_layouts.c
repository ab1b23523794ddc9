/* test_golden_layouts.c: other forms of the same weights: all experts in one tensor, FP8 blocks,
 * MXFP4, other names. Their logits are those of transformers; and what is read and not trained is
 * saved byte for byte as it was, whatever the family and the form. */
#include "recipes/models/mixers/mixers.h"
#include "tests/unit/models/golden.h"

#include <jansson.h>

#define GOLDEN "tests/golden/"

/* golden: of the folder itself, or of the model whose weights these are. */
static void layout_check(const char *layout, const char *golden) {
    char ids[256];
    struct safetensors got, want;
    const char *out = at("layout.safetensors");
    snprintf(ids, sizeof ids, GOLDEN "%s/golden.safetensors", golden);
    hone(0, "forward " GOLDEN "layouts/%s --ids %s --out %s", layout, ids, out);
    open_file(&got, out), open_file(&want, ids);
    near(layout, need(&got, "logits"), need(&want, "logits"), 1e-4, false);
    safetensors_close(&got), safetensors_close(&want);
}
static void test_layouts(void **state) {
    (void)state;
    layout_check("mixtral_stacked", "models/mixtral");
    layout_check("qwen3_moe_stacked", "models/qwen3_moe");
    layout_check("gpt_oss_mxfp4", "layouts/gpt_oss_mxfp4");
    layout_check("deepseek_v3_fp8", "layouts/deepseek_v3_fp8");
}

/* What is loaded and saved again has the names, shapes and numbers of the file, and nothing else;
 * also where the file's names have another root: `with` in the place of `root`. */
static void saved_as_read(const char *folder, const char *root, const char *with) {
    char path[256];
    struct safetensors s;
    struct stored_list list;
    struct arena names = {0};
    struct model m;
    struct config c;
    struct err e = {0};
    snprintf(path, sizeof path, GOLDEN "%s/config.json", folder);
    json_t *j = json_open(path, &e);
    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", folder);
    open_file(&s, path);
    for (i64 n = 0; n < s.count; n++)
        if (root && !strncmp(s.tensor[n].name, root, strlen(root)))
            s.tensor[n].name =
                arena_printf(&names, &e, "%s%s", with, s.tensor[n].name + strlen(root));
    ok(!j || config_read(&c, j, path, &e) || model_new(&m, &c, F32, false, &e) ||
           model_load(&m, &s, path, &e) || model_stored(&m, false, &list, &e),
       &e);
    assert_int_equal(list.count, s.count);
    for (i64 n = 0; n < s.count; n++) {
        const struct stored *a = &s.tensor[n], *b = NULL;
        for (i64 t = 0; t < list.count; t++)
            if (!strcmp(list.tensor[t].name, a->name)) b = &list.tensor[t];
        if (!b) fail_msg("%s: %s is not saved", folder, a->name);
        assert_int_equal(a->rank, b->rank), assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->dim, b->dim, sizeof *a->dim * (size_t)a->rank);
        if (memcmp(a->data, b->data, (size_t)a->bytes))
            fail_msg("%s: %s has other numbers", folder, a->name);
    }
    stored_free(&list), model_free(&m), json_decref(j), safetensors_close(&s);
    arena_free(&names);
}
static void test_saved_as_read(void **state) {
    (void)state;
    char folder[128];
    for (i64 i = 0; i < COUNT(golden_models); i++) {
        snprintf(folder, sizeof folder, "models/%s", golden_models[i]);
        saved_as_read(folder, NULL, NULL);
    }
    saved_as_read("layouts/mixtral_stacked", NULL, NULL);
    saved_as_read("layouts/qwen3_moe_stacked", NULL, NULL);
    saved_as_read("models/gpt2", "transformer.", "");
    saved_as_read("models/bloom", "transformer.", "");
    saved_as_read("models/gemma3_text", "model.", "language_model.model.");
    saved_as_read("models/mistral", "model.", "model.language_model.");
}

/* GLM-4 as its authors' code names it has no golden: the same numbers in its fused tensors must
 * give the same bits. */
typedef const struct module_type *module;
static const struct param *param_at(const struct model *m, module type, i64 layer, bool bias) {
    return bias ? model_module(m, layer, type)->bias : model_module(m, layer, type)->weight;
}
static void rows_copy(const struct model *to, module type, i64 layer, bool bias,
                      const struct model *from, const module *parts, int count) {
    const struct param *p = param_at(to, type, layer, bias);
    i64 done = 0;
    for (int i = 0; i < count; i++) {
        const struct param *q = param_at(from, parts[i], layer, bias);
        memcpy((u8 *)p->view.data + done, q->view.data, (size_t)view_bytes(&q->view));
        done += view_bytes(&q->view);
    }
    assert_int_equal(done, view_bytes(&p->view));
}

static void test_chatglm(void **state) {
    (void)state;
    static const char text[] =
        "{\"model_type\": \"chatglm\", \"padded_vocab_size\": 131, \"hidden_size\": 32, "
        "\"ffn_hidden_size\": 44, \"num_layers\": 2, \"num_attention_heads\": 4, "
        "\"multi_query_group_num\": 2, \"kv_channels\": 12, \"layernorm_epsilon\": 1.5625e-07, "
        "\"add_qkv_bias\": true, \"add_bias_linear\": false, \"rmsnorm\": true, "
        "\"seq_length\": 160, \"rope_ratio\": 1, \"tie_word_embeddings\": false}\n";
    static const module qkv[] = {&attention_q, &attention_k, &attention_v},
                        same[] = {&norm_input, &attention_o, &norm_pre_ffn, &glu_gate_up,
                                  &glu_down},
                        top[] = {&top_embed, &top_norm, &top_head};
    struct err e = {0};
    struct config c;
    struct model glm, chat;
    struct stored_list list;
    json_t *j = json_parse(text, sizeof text - 1, "chatglm", &e);
    ok(!j || config_read(&c, j, "chatglm", &e) || model_new(&chat, &c, F32, false, &e) ||
           model_open(&glm, MODELS "glm", F32, false, &e),
       &e);
    for (int i = 0; i < COUNT(top); i++) rows_copy(&chat, top[i], -1, false, &glm, &top[i], 1);
    for (i64 l = 0; l < c.layers; l++) {
        for (int k = 0; k < 2; k++) rows_copy(&chat, &attention_qkv, l, k, &glm, qkv, 3);
        for (int i = 0; i < COUNT(same); i++)
            rows_copy(&chat, same[i], l, false, &glm, &same[i], 1);
    }
    ok(model_stored(&chat, false, &list, &e), &e);
    assert_int_equal(0, shell("mkdir -p %s", at("chatglm")));
    ok(file_write(at("chatglm/config.json"), text, sizeof text - 1, &e) ||
           safetensors_write(at("chatglm"), "model", list.tensor, list.count, INT64_MAX, &e),
       &e);
    stored_free(&list), model_free(&chat), model_free(&glm), json_decref(j);
    hone(0, "forward " MODELS "glm --ids " MODELS "glm/golden.safetensors --out %s",
         at("glm.safetensors"));
    hone(0, "forward %s --ids " MODELS "glm/golden.safetensors --out %s", at("chatglm"),
         at("chat.safetensors"));
    assert_int_equal(0, shell("cmp %s %s", at("glm.safetensors"), at("chat.safetensors")));
}

/* Phi's LM head has a bias, also where its weight is the embedding's: as if it had a copy. */
static void test_tied_bias(void **state) {
    (void)state;
    struct err e = {0};
    struct model m;
    struct stored_list list;
    const char *ids = GOLDEN "models/phi/golden.safetensors";
    ok(model_open(&m, GOLDEN "models/phi", F32, false, &e), &e);
    rows_copy(&m, &top_head, -1, false, &m, (module[]){&top_embed}, 1);
    ok(model_stored(&m, false, &list, &e), &e);
    assert_int_equal(0, shell("cp -r " GOLDEN "models/phi %s", at("phi")));
    ok(safetensors_write(at("phi"), "model", list.tensor, list.count, INT64_MAX, &e), &e);
    stored_free(&list), model_free(&m);
    hone(0, "forward %s --ids %s --out %s", at("phi"), ids, at("copy.safetensors"));
    assert_int_equal(0, shell("sed -i 's/\"tie_word_embeddings\": false/"
                              "\"tie_word_embeddings\": true/' %s/config.json",
                              at("phi")));
    hone(0, "forward %s --ids %s --out %s", at("phi"), ids, at("tied.safetensors"));
    struct safetensors copy, tied;
    open_file(&copy, at("copy.safetensors")), open_file(&tied, at("tied.safetensors"));
    near("phi", need(&tied, "logits"), need(&copy, "logits"), 0, false);
    safetensors_close(&copy), safetensors_close(&tied);
    hone(0, "inspect %s --modules", at("phi"));
    expect(said(), "\nlm_head ");
}

/* A file whose scales do not fit its weights is refused by name; so is a configuration that cannot
 * be. */
static void refused(const char *folder, const char *edit, const char *text) {
    const char *to = at("refused");
    assert_int_equal(0, shell("rm -rf %s && cp -r " GOLDEN "%s %s && sed -i '%s' %s/config.json",
                              to, folder, to, edit, to));
    hone(2, "forward %s --ids " GOLDEN "models/mixtral/golden.safetensors --out %s", to,
         at("x.safetensors"));
    expect(complained(), text);
}
static void test_refused(void **state) {
    (void)state;
    refused("layouts/deepseek_v3_fp8", "s/^   16/   8/",
            "the blocks of its weight, 8 by 8, ask for F32 [4, 4]");
    refused("models/mixtral", "s/\"num_experts_per_tok\": 2/\"num_experts_per_tok\": 5/",
            "'num_experts_per_tok' is 5; expected 1 to 4");
    refused("models/deepseek_v3", "s/\"n_group\": 4/\"n_group\": 3/",
            "2 of 3 groups of 8 experts cannot be chosen");
    refused("models/deepseek_v3", "s/\"topk_group\": 2/\"topk_group\": 1/",
            "'topk_group' leaves 2 experts, of which 3 are to be chosen");
    refused("models/deepseek_v3", "1s/{/{\"output_router_logits\": true,/",
            "'output_router_logits' has a value that is not supported");
    refused("models/qwen3_moe", "s/coef\": 0.02/coef\": -1/",
            "'router_aux_loss_coef' is -1; expected 0 or more");
    refused("models/mixtral", "s/\"num_local_experts\": 4/\"num_local_experts\": 3/", "has shape");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_saved_as_read),
        cmocka_unit_test(test_chatglm), cmocka_unit_test(test_tied_bias),
        cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, golden_begin, golden_end);
}
