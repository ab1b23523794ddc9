/* test_gguf_model.c: a GGUF file as a model: what llama.cpp computes with it is what hone computes.
 */
#include "tests/unit/models/golden.h"

#include <jansson.h>

/* Of f32: the numbers, and how many. */
static const float *floats(const struct safetensors *s, const char *name, i64 *count) {
    const struct stored *t = need(s, name);
    assert_int_equal(F32, t->dtype);
    *count = t->bytes / 4;
    return (const float *)t->data;
}

/* llama.cpp's products quantise activations, so logits are near; a wrong layout would be far (the
 * logits reach 6). */
static void near_llama_cpp(void **state) {
    (void)state;
    static const char *const models[][2] = {
        {"llama", "q8_0"}, {"llama", "q4_0"}, {"qwen3", "q8_0"}};
    for (int i = 0; i < COUNT(models); i++) {
        char golden[128], name[32];
        struct safetensors want, got;
        i64 n, m;
        snprintf(golden, sizeof golden, "tests/golden/gguf/%s.safetensors", models[i][0]);
        snprintf(name, sizeof name, "logits.%s", models[i][1]);
        hone(0, "forward tests/golden/gguf/%s-%s.gguf --ids %s --out %s", models[i][0],
             models[i][1], golden, at("out.safetensors"));
        open_file(&want, golden), open_file(&got, at("out.safetensors"));
        const float *a = floats(&want, name, &n), *b = floats(&got, "logits", &m);
        assert_int_equal(n, m);
        for (i64 k = 0; k < n; k++)
            if (!(fabs((double)a[k] - (double)b[k]) < 0.15))
                fail_msg("%s-%s: logit %lld is %g, llama.cpp's %g", models[i][0], models[i][1],
                         (long long)k, (double)b[k], (double)a[k]);
        safetensors_close(&want), safetensors_close(&got);
    }
}

static void inspected(void **state) {
    (void)state;
    hone(0, "inspect tests/golden/gguf/qwen3-q8_0.gguf --tensors");
    expect(said(), "qwen3 (Qwen3ForCausalLM)");
    expect(said(), "blk.0.attn_q.weight");
}

/* The same logits from two models, up to `bound`. */
static void same_logits(const char *a, const char *b, double bound) {
    struct safetensors x, y;
    i64 n, m;
    hone(0, "forward %s --ids %s --out %s", a, at("ids.safetensors"), at("a.safetensors"));
    hone(0, "forward %s --ids %s --out %s", b, at("ids.safetensors"), at("b.safetensors"));
    open_file(&x, at("a.safetensors")), open_file(&y, at("b.safetensors"));
    const float *p = floats(&x, "logits", &n), *q = floats(&y, "logits", &m);
    assert_int_equal(n, m);
    for (i64 k = 0; k < n; k++)
        if (!(fabs((double)p[k] - (double)q[k]) <= bound))
            fail_msg("%s, %s: logit %lld is %g and %g", a, b, (long long)k, (double)p[k],
                     (double)q[k]);
    safetensors_close(&x), safetensors_close(&y);
}

/* Written as f32 GGUF and read again, a model has the same bits; its RoPE too, but where the file
 * holds factors of no published model, which come back as numbers rounded to f32. */
static void there_and_back(void **state) {
    (void)state;
    static const char *const models[] = {"llama",   "llama_rope3_tied", "mistral", "qwen2",
                                         "qwen3",   "smollm3",          "olmo2",   "apertus",
                                         "glm4_moe"};
    for (int i = 0; i < COUNT(models); i++) {
        const char *file = at("%s.gguf", models[i]), *back = at("%s-back", models[i]);
        char from[128];
        snprintf(from, sizeof from, "tests/golden/models/%s", models[i]);
        tiny_ids(strstr(models[i], "mistral") || strstr(models[i], "qwen2") ? 7
                                                                            : 24); /* window 7 */
        hone(0, "export %s --format gguf --type f32 --output %s --json", from, file);
        same_logits(from, file, strstr(models[i], "rope3") ? 1e-5 : 0);
        hone(0, "export %s --precision fp32 --output %s", file, back);
        same_logits(from, back, strstr(models[i], "rope3") ? 1e-5 : 0);
    }
}

static void types(void **state) {
    (void)state;
    static const char *const type[] = {"f16", "bf16", "q8_0", "q4_0", "q4_k"};
    for (int i = 0; i < COUNT(type); i++) {
        hone(0,
             "export tests/golden/models/llama --format gguf --type %s --output %s --json "
             "--max-kl 1",
             type[i], at("%s.gguf", type[i]));
        expect(said(), "\"top1_agreement\":");
    }
    hone(2, "export tests/golden/models/llama --format gguf --type q5_0 --output %s",
         at("no.gguf"));
}

/* The adapter alone: names, shapes and scale; B of queries lies as llama.cpp's rows do. */
static void adapter(void **state) {
    (void)state;
    struct gguf g;
    struct err e = {0};
    struct arena a = {0};
    hone(0,
         "export tests/golden/models/llama --adapter tests/golden/models/llama/lora --format gguf "
         "--adapter-only --output %s",
         at("adapter"));
    ok(gguf_open(&g, at("adapter/adapter.gguf"), &e), &e);
    assert_string_equal(gguf_text(&g, "general.type", "", &a, "F", &e), "adapter");
    assert_true(gguf_f64(&g, "adapter.lora.alpha", 0, "F", &e) == 8);
    assert_int_equal(g.count % 2, 0);
    assert_true(g.count > 0);
    assert_non_null(strstr(g.tensor[0].name, "blk.0."));
    assert_non_null(strstr(g.tensor[0].name, ".weight.lora_a"));
    arena_free(&a), gguf_close(&g);
    expect(text_of(at("adapter/Modelfile")),
           "FROM tests/golden/models/llama\nADAPTER ./adapter.gguf");
    hone(2, "export tests/golden/models/llama --adapter-only --output %s", at("none"));
}

/* Nothing trained, nothing changed: names, shapes, types, bytes, configuration. */
static void untouched(void **state) {
    (void)state;
    /* names, and the bits of weights trained */
    FILE *all = fopen("tests/golden/interop/families/sha256.txt", "r");
    assert_non_null(all);
    for (int i = 0, more = 1; more; i++) {
        char model[64], from[128], file[160];
        more = fscanf(all, "%63s %*s", model) == 1;
        const char *to = at("untouched-%d", i);
        struct safetensors x, y;
        snprintf(from, sizeof from, "tests/golden/%s", "layouts/llama_sharded_bf16");
        if (more) snprintf(from, sizeof from, "tests/golden/models/%s", model);
        snprintf(file, sizeof file, "%s/model.safetensors%s", from, more ? "" : ".index.json");
        hone(0, "export %s --output %s --json", from, to);
        expect(said(), "\"kl\": 0.0,");
        open_file(&x, file), open_file(&y, at("untouched-%d/model.safetensors", i));
        assert_int_equal(x.count, y.count);
        for (i64 k = 0; k < x.count; k++) {
            const struct stored *a = &x.tensor[k], *b = &y.tensor[k];
            assert_string_equal(a->name, b->name);
            assert_int_equal(a->dtype, b->dtype);
            assert_int_equal(a->rank, b->rank);
            assert_memory_equal(a->dim, b->dim, sizeof *a->dim * (size_t)a->rank);
            assert_memory_equal(a->data, b->data, (size_t)a->bytes);
        }
        safetensors_close(&x), safetensors_close(&y);
        assert_int_equal(0, shell("cmp %s/config.json %s/config.json", from, to));
    }
    fclose(all);
}

/* A folder `name` in the test's own: a golden model with other values in its configuration. */
static void adjusted(const char *name, const char *model, json_t *values) {
    struct err e = {0};
    const char *to = at("%s", name);
    assert_int_equal(0, shell("mkdir -p %s && cp tests/golden/models/%s/*.* %s/", to, model, to));
    json_t *config = json_open(at("%s/config.json", name), &e);
    ok(!config, &e);
    assert_int_equal(0, json_object_update(config, values));
    assert_int_equal(0, json_dump_file(config, at("%s/config.json", name), 0));
    json_decref(config);
}

/* Files that llama.cpp was seen to compute the same greedy ids with (interop/check_gguf.py). */
static void recorded(void **state) {
    (void)state;
    struct err e = {0};
    json_t *all = json_open("tests/golden/gguf/llama_cpp.json", &e);
    ok(!all, &e);
    const char *name;
    json_t *row;
    json_object_foreach(all, name, row) {
        const json_t *prompt = json_object_get(row, "prompt"),
                     *greedy = json_object_get(row, "greedy");
        const char *file = at("%s-recorded.gguf", name);
        json_t *config = json_object_get(row, "config");
        if (config) adjusted(name, json_string_value(json_object_get(row, "model")), config);
        hone(0, "export %s/%s --format gguf --type f32 --output %s --max-kl 1",
             config   ? tiny
             : prompt ? "tests/golden/models"
                      : "recipes/data",
             name, file);
        assert_string_equal(sha_of(file), json_string_value(json_object_get(row, "sha256")));
        if (!prompt) continue;
        i64 ids[64], n = (i64)json_array_size(prompt);
        for (i64 i = 0; i < n; i++) ids[i] = json_integer_value(json_array_get(prompt, (size_t)i));
        struct stored s = {.name = "input_ids",
                           .dtype = I64,
                           .rank = 2,
                           .dim = {1, n},
                           .data = (u8 *)ids,
                           .bytes = n * 8};
        ok(safetensors_write(tiny, "prompt", &s, 1, INT64_MAX, &e), &e);
        hone(0, "forward %s --ids %s --out %s --generate %d", file, at("prompt.safetensors"),
             at("greedy.safetensors"), (int)json_array_size(greedy));
        struct safetensors got;
        open_file(&got, at("greedy.safetensors"));
        const i64 *made = (const i64 *)safetensors_find(&got, "generated")->data;
        for (size_t i = 0; i < json_array_size(greedy); i++)
            assert_int_equal(made[i], json_integer_value(json_array_get(greedy, i)));
        safetensors_close(&got);
    }
    json_decref(all);
}

/* A GGUF file as the base of training: an adapter, and all weights. */
static void trained(void **state) {
    (void)state;
    static const char recipe[] = "dataset: tests/golden/tokenizers/corpus.txt\nmax_seq_length: 64\n"
                                 "micro_batch_size: 1\nglobal_batch_size: 1\nmax_steps: 1\n";
    const char *base = at("base.gguf");
    put(at("recipe.yaml"), recipe, sizeof recipe - 1);
    hone(0, "export recipes/data/stories260K --format gguf --type q8_0 --output %s", base);
    hone(0, "generate %s --prompt 'Once' --max-new-tokens 3", base);
    for (int lora = 0; lora < 2; lora++) {
        hone(0, "train %s model_name_or_path=%s output_dir=%s use_peft=%s --quiet",
             at("recipe.yaml"), base, at("run-%d", lora), lora ? "true" : "false");
        hone(0, "generate %s --tokenizer %s --prompt 'Once' --max-new-tokens 3",
             at("run-%d/checkpoints/step-000001", lora), base);
    }
}

/* A chat template goes into the file and is found there. */
static void chat_template(void **state) {
    (void)state;
    static const char text[] =
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}";
    const char *model = at("chat"), *file = at("elsewhere/chat.gguf");
    assert_int_equal(0,
                     shell("mkdir %s; cp -r recipes/data/stories260K %s", at("elsewhere"), model));
    put(at("chat/chat_template.jinja"), text, sizeof text - 1);
    hone(0, "export %s --format gguf --type f32 --output %s", model, file);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(0,
                         shell("echo '{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}' |"
                               " ./hone render %s > %s",
                               i ? file : model, at("said")));
        expect(text_of(at("said")), "\"[user]a</s>\"");
    }
    assert_int_equal(0,
                     shell("printf 'Hello\\n/exit\\n' | ./hone chat %s --greedy --max-new-tokens 4"
                           " > %s",
                           file, at("said")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_llama_cpp), cmocka_unit_test(inspected),
        cmocka_unit_test(there_and_back), cmocka_unit_test(types),
        cmocka_unit_test(adapter),        cmocka_unit_test(untouched),
        cmocka_unit_test(recorded),       cmocka_unit_test(trained),
        cmocka_unit_test(chat_template)};
    return cmocka_run_group_tests(tests, golden_begin, golden_end);
}
