/* test_adapters.c: what PEFT does beside plain LoRA on linear layers, on golden/adapters: several
 * adapters at once, LM heads, PiSSA, DoRA. */
#include "recipes/models/mixers/mixers.h"
#include "tests/unit/models/golden.h"

#define MODEL    "tests/golden/models/llama"
#define ADAPTERS "tests/golden/adapters/"

/* Tensor `a` of one file within `bound` of `b` of another, relative to the largest. */
static void alike(const char *file, const char *a, const char *golden, const char *b,
                  double bound) {
    struct safetensors got, want;
    open_file(&got, file), open_file(&want, golden);
    near(file, need(&got, a), need(&want, b), bound, true);
    safetensors_close(&got), safetensors_close(&want);
}

/* PEFT's add_weighted_adapter(combination_type="cat"): other modules, ranks and scales in each. */
static void test_stack(void **state) {
    (void)state;
    static const struct {
        const char *flags, *key;
    } of[] = {
        {"--adapter " ADAPTERS "first --adapter=" ADAPTERS "second", "logits.sum"},
        {"--adapter " ADAPTERS "first=0.5 --adapter " ADAPTERS "second=-0.75", "logits.weighted"}};
    for (int i = 0; i < COUNT(of); i++) {
        const char *ids = ADAPTERS "stack.safetensors", *out = at("out.safetensors"),
                   *merged = at("merged-%d", i);
        hone(0, "forward " MODEL " %s --ids %s --out %s", of[i].flags, ids, out);
        alike(out, "logits", ids, of[i].key, 3e-6);
        hone(0, "export " MODEL " %s --output %s --quiet", of[i].flags, merged);
        hone(0, "forward %s --ids %s --out %s", merged, ids, at("merged.safetensors"));
        alike(at("merged.safetensors"), "logits", ids, of[i].key, 3e-6);
        hone(0, "forward " MODEL " %s --ids %s --out %s --precision bf16", of[i].flags, ids, out);
        alike(out, "logits", ids, of[i].key, 0.1);
    }
    const char *ids = ADAPTERS "stack.safetensors";
    hone(2, "forward " MODEL " --adapter %s=1 --adapter %s --grad --ids %s --out %s",
         ADAPTERS "first", ADAPTERS "second", ids, at("out.safetensors"));
    expect(complained(), "--grad: the gradients are those of one adapter, and 2 are named");
    hone(0, "export " MODEL " %s --output %s --format gguf --adapter-only --quiet",
         "--adapter " MODEL "/lora=2", at("gguf"));
    hone(2, "export " MODEL " --adapter " ADAPTERS "first --output %s --format gguf --adapter-only",
         at("no"));
    expect(complained(), "an adapter with the embedding cannot be written as GGUF");
}

/* Logits, loss and gradients; decoding with the cache takes the largest logits; the merged model,
 * where there can be one, and the adapter as one of a stack give the same. */
static void single_check(const char *name, const char *model, const char *no_merge, double bound) {
    const char *out = at("out.safetensors"), *merged = at("merged-%s", name);
    char golden[128], flags[256];
    struct safetensors s, t;
    snprintf(golden, sizeof golden, ADAPTERS "%s/golden.safetensors", name);
    snprintf(flags, sizeof flags, "--ids tests/golden/models/%s/golden.safetensors --out", model);
    hone(0, "forward tests/golden/models/%s --adapter " ADAPTERS "%s %s %s --grad --generate 3",
         model, name, flags, out);
    open_file(&s, golden), open_file(&t, out);
    assert_int_equal(t.count, s.count + 1); /* generated */
    for (i64 i = 0; i < s.count; i++) alike(out, s.tensor[i].name, golden, s.tensor[i].name, 2e-5);
    safetensors_close(&s), safetensors_close(&t);
    hone(no_merge ? 2 : 0,
         "export tests/golden/models/%s --adapter " ADAPTERS "%s --output %s --precision fp32",
         model, name, merged);
    if (no_merge) {
        expect(complained(), no_merge);
        return;
    }
    hone(0, "forward %s %s %s --generate 3", merged, flags, at("merged.safetensors"));
    alike(at("merged.safetensors"), "logits", golden, "logits", bound);
    alike(at("merged.safetensors"), "loss", golden, "loss", bound);
    open_file(&s, at("merged.safetensors")), open_file(&t, out);
    struct err e = {0};
    assert_memory_equal(safetensors_need(&s, "generated", &e)->data,
                        safetensors_need(&t, "generated", &e)->data, 3 * sizeof(i64));
    safetensors_close(&s), safetensors_close(&t);
}

/* Adapters as PEFT and training scripts leave them behind: the same logits, of the merged model
 * too, which has an LM head of its own where training gave it one, and more tokens. */
static void test_forms(void **state) {
    (void)state;
    static const char *const form[] = {"default_names",   "both_ends", "head_saved",
                                       "embedding_saved", "resized",   "resized_embedding",
                                       "tokens",          "tokens_of", "biases",
                                       "layers",          "orthogonal"};
    const char *golden = ADAPTERS "forms/logits.safetensors",
               *base = "tests/golden/models/llama_rope3_tied";
    for (int i = 0; i < COUNT(form); i++) {
        const char *out = at("form.safetensors"), *merged = at("form-%d", i);
        hone(0, "forward " ADAPTERS "forms/%s --ids %s --out %s --quiet", form[i], golden, out);
        alike(out, "logits", golden, form[i], 3e-6);
        hone(0, "export %s --adapter " ADAPTERS "forms/%s --output %s --quiet", base, form[i],
             merged);
        hone(0, "forward %s --ids %s --out %s", merged, golden, out);
        alike(out, "logits", golden, form[i], 3e-6);
    }
    expect(text_of(at("form-1/config.json")), "\"tie_word_embeddings\": false");
    expect(text_of(at("form-4/config.json")), "\"vocab_size\": 136");
    expect(text_of(at("form-4/config.json")), "\"tie_word_embeddings\": true");
    hone(2, "forward %s --adapter " ADAPTERS "forms/tokens=0.5 --ids %s --out %s", base, golden,
         at("form.safetensors"));
    expect(complained(), "an adapter with trainable_token_indices has no weight");
    hone(2,
         "forward %s --adapter " ADAPTERS "forms/layers --adapter " ADAPTERS
         "forms/resized --ids %s --out %s",
         base, golden, at("form.safetensors"));
    assert_int_equal(0,
                     shell("cp -r " ADAPTERS "forms/layers %s && mv %s/adapter_model.safetensors "
                           "%s/adapter_model.bin",
                           at("bin"), at("bin"), at("bin")));
    hone(2, "forward %s --ids %s --out %s", at("bin"), golden, at("form.safetensors"));
    expect(complained(), "adapter_model.bin is a Python pickle");
}

/* The adapter in a folder of its own, with one number of a tensor changed. */
static void altered(const char *name, const char *key) {
    struct safetensors s;
    struct err e = {0};
    char path[128];
    snprintf(path, sizeof path, ADAPTERS "%s/adapter_model.safetensors", name);
    const char *to = at("altered-%s", name);
    assert_int_equal(0, shell("cp -r " ADAPTERS "%s %s", name, to));
    open_file(&s, path);
    for (i64 i = 0; i < s.count; i++)
        if (!strcmp(s.tensor[i].name, key)) {
            float *data = malloc((size_t)s.tensor[i].bytes);
            memcpy(data, s.tensor[i].data, (size_t)s.tensor[i].bytes), data[5] += 1;
            s.tensor[i].data = (u8 *)data;
            assert_int_equal(
                0, safetensors_write(to, "adapter_model", s.tensor, s.count, INT64_MAX, &e));
            free(data);
        }
    safetensors_close(&s);
}

static void test_heads(void **state) {
    (void)state;
    single_check("head", "llama", NULL, 2e-6);
    single_check("head_tied", "llama_rope3_tied", NULL, 2e-6);
    const char *other = at("other"), *out = at("out.safetensors");
    hone(0,
         "forward " MODEL " --adapter " ADAPTERS "head=0.5 --adapter " ADAPTERS
         "first --ids " ADAPTERS "stack.safetensors --out %s",
         out);
    hone(0,
         "export " MODEL " --adapter " ADAPTERS "head=0.5 --adapter " ADAPTERS "first --output %s",
         other);
    hone(0, "forward %s --ids " ADAPTERS "stack.safetensors --out %s", other,
         at("other.safetensors"));
    alike(out, "logits", at("other.safetensors"), "logits", 3e-6);
    static const char *const again[][2] = {{"head", MODEL " --adapter " ADAPTERS "first"},
                                           {"head_tied", "tests/golden/models/llama_rope3_tied"}};
    for (int i = 0; i < COUNT(again); i++) {
        altered(again[i][0], "base_model.model.lm_head.base_layer.weight");
        hone(2, "forward %s --adapter %s --ids " ADAPTERS "stack.safetensors --out %s", again[i][1],
             at("altered-%s", again[i][0]), out);
        expect(complained(), "its base_model.model.lm_head.base_layer.weight is not that of the");
    }
}

/* What it starts from is PEFT's to the error of its f32; a run's first loss is the base's; what is
 * saved is plain, means on the whole base what the run had, and goes on to the same bits. */
static void start_check(void) {
    char *target[] = {"q_proj", "down_proj"};
    struct lora_config c = {
        .r = 4, .lora_alpha = 6, .target_modules = {target, 2}, .init_lora_weights = "pissa"};
    struct safetensors s;
    struct model m;
    struct err e = {0};
    open_file(&s, ADAPTERS "pissa.safetensors");
    if (model_open(&m, MODEL, F32, false, &e) || lora_add(&m, &c, 1, &e)) fail_msg("%s", e.primary);
    static const struct module_type *const type[] = {&attention_q, &glu_down};
    static const char *const module[] = {"self_attn.q_proj", "mlp.down_proj"};
    for (int i = 0; i < 2; i++) {
        const struct module *adapted = model_module(&m, 0, type[i]);
        const struct param *w = adapted->weight;
        const struct lora_pair *l = &adapted->adapter;
        const float *a = l->a->view.data, *b = l->b->view.data;
        const i64 cols = w->view.dim[1], r = l->a->view.dim[0];
        for (int part = 0; part < 2; part++) {
            const char *key = at("%s.model.layers.0.%s", part ? "residual" : "start", module[i]);
            const struct stored *t = safetensors_need(&s, key + strlen(tiny) + 1, &e);
            assert_non_null(t);
            for (i64 o = 0; o < w->view.dim[0]; o++)
                for (i64 n = 0; n < cols; n++) {
                    double sum = 0;
                    for (i64 k = 0; k < r; k++)
                        sum += (double)b[o * r + k] * (double)a[k * cols + n];
                    const double got =
                        part ? (double)((float *)w->view.data)[o * cols + n] : l->scale * sum;
                    assert_true(fabs(got - (double)((const float *)t->data)[o * cols + n]) < 2e-6);
                }
        }
    }
    safetensors_close(&s), model_free(&m);
}
static double number_of(const char *text, const char *key) {
    const char *found = strstr(text, key);
    if (!found) fail_msg("no %s in %s", key, text);
    return strtod(found + strlen(key), NULL);
}
static void test_pissa(void **state) {
    (void)state;
    start_check();
    single_check("pissa", "llama", NULL, 2e-5);
    static const char lora[] =
        "max_seq_length: 64\nglobal_batch_size: 8\nmicro_batch_size: 4\n"
        "max_steps: 4\nlearning_rate: 3.0e-3\nuse_peft: true\nlora_r: 4\n"
        "lora_alpha: 6\neval_steps: 4\nuse_rslora: true\n"
        "lora_rank_pattern: [o_proj=2]\nsave_at: [2]\ndocument_mask: false\n";
    tiny_data(), tiny_recipe(at("full.yaml")), put(at("lora.yaml"), lora, (i64)strlen(lora));
    hone(0, "train %s dataset.0.path=%s output_dir=%s --quiet", at("full.yaml"), at("packed.h5"),
         at("full"));
    double loss[3], learned[2];
    static const char *const init[] = {"true", "pissa", "pissa precision=bf16"};
    for (int i = 0; i < 3; i++) {
        const char *run = at("run-%d", i);
        char line[1024];
        snprintf(line, sizeof line,
                 "train %s model_name_or_path=%s dataset.0.path=%s eval_dataset.0.path=%s "
                 "output_dir=%s init_lora_weights=%s --quiet",
                 at("lora.yaml"), at("full/checkpoints/step-000004"), at("packed.h5"),
                 at("packed.h5"), run, init[i]);
        hone(0, "%s", line);
        struct log_rows rows = log_of(run);
        loss[i] = rows.row[rows.row[0].trained ? 0 : 1].loss;
        const struct log_row *last = &rows.row[rows.count - 1];
        while (!last->evaluated) last--;
        hone(0,
             "eval %s/checkpoints/step-000004 --data %s --max-seq-length 64 --packing --json "
             "--precision %s",
             run, at("packed.h5"), i == 2 ? "bf16" : "fp32");
        const double after = number_of(said(), "\"loss\": ");
        assert_true(fabs(after - last->eval_loss) < (i == 2 ? 2e-3 : 2e-6) * after);
        if (i < 2) learned[i] = after;
        log_rows_free(&rows);
        const struct manifest a = manifest_of(at("run-%d/checkpoints/step-000004", i));
        assert_int_equal(0, dir_remove(at("run-%d/checkpoints/step-000004", i), &(struct err){0}));
        hone(0, "%s resume_from_checkpoint=auto --threads 3", line);
        const struct manifest b = manifest_of(at("run-%d/checkpoints/step-000004", i));
        assert_string_equal(a.state_sha256, b.state_sha256);
    }
    assert_true(fabs(loss[1] - loss[0]) < 1e-6 * loss[0] && fabs(loss[2] - loss[0]) < 1e-2);
    assert_true(learned[0] != learned[1]);
    const char *config = text_of(at("run-1/checkpoints/step-000004/adapter_config.json"));
    expect(config, "\"init_lora_weights\": true");
    expect(config, "\"r\": 8"), expect(config, "\"o_proj\": 4");
    expect(config, "\"lora_alpha\": 8.48528137423857");
    hone(2,
         "train %s model_name_or_path=%s dataset.0.path=%s output_dir=%s precision=bf16 "
         "init_lora_weights=pissa resume_from_checkpoint=%s",
         at("lora.yaml"), at("full/checkpoints/step-000004"), at("packed.h5"), at("run-3"),
         at("run-1/checkpoints/step-000002"));
    hone(2, "export " MODEL " --adapter " ADAPTERS "pissa --output %s --format gguf --adapter-only",
         at("no"));
    expect(complained(), "an adapter with init_lora_weights pissa cannot be written as GGUF");
    hone(2,
         "forward " MODEL " --adapter " ADAPTERS "pissa=0.5 --ids " ADAPTERS
         "stack.safetensors --out %s",
         at("out.safetensors"));
    expect(complained(), "an adapter with init_lora_weights pissa has no weight");
}

/* DoRA wherever it goes: on weights in 4 bits, embeddings and LM heads (with a bias, a softcap). */
static void test_dora(void **state) {
    (void)state;
    single_check("dora_nf4", "../quant/llama_nf4", NULL, 2e-6);
    single_check("dora_fp4", "../quant/llama_fp4", NULL, 2e-6);
    single_check("dora_embedding", "llama", NULL, 2e-6);
    single_check("dora_embedding_tied", "llama_rope3_tied", NULL, 2e-6);
    single_check("dora_head", "llama", NULL, 2e-6);
    single_check("dora_head_phi", "phi", NULL, 2e-6);
    single_check("dora_head_gemma2", "gemma2", NULL, 2e-6);
    single_check("dora_embedding_gemma", "gemma", NULL, 2e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_stack),
                                       cmocka_unit_test(test_heads), cmocka_unit_test(test_pissa),
                                       cmocka_unit_test(test_dora)};
    return cmocka_run_group_tests(tests, tiny_folder, tiny_remove);
}
