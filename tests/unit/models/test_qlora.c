/* test_qlora.c: adapters on a base of 4-bit codes. Files of bitsandbytes give what transformers and
 * peft compute with their decoded weights (golden/quant); quantising while loading gives the same;
 * a run saves only its adapter, goes on to the same bits, and is used and merged as it was trained.
 */
#include "tests/unit/models/golden.h"

#define QUANT "tests/golden/quant/"

static void test_goldens(void **state) {
    (void)state;
    static const char *const models[] = {QUANT "llama_nf4", QUANT "llama_fp4"};
    for (int i = 0; i < COUNT(models); i++) {
        struct safetensors want, got;
        char path[128];
        snprintf(path, sizeof path, "%s/golden.safetensors", models[i]);
        const char *out = at("out.safetensors");
        hone(0, "forward %s --ids %s --out %s", models[i], path, out);
        open_file(&got, out), open_file(&want, path);
        near(models[i], need(&got, "logits"), need(&want, "logits"), 2e-6, true);
        near(models[i], need(&got, "loss"), need(&want, "loss"), 1e-6, true);
        safetensors_close(&got), safetensors_close(&want);
        hone(0, "forward %s --adapter %s/lora --ids %s --out %s --grad", models[i], models[i], path,
             out);
        snprintf(path, sizeof path, "%s/lora/golden_lora.safetensors", models[i]);
        open_file(&got, out), open_file(&want, path);
        i64 gradients = 0;
        for (i64 k = 0; k < want.count; k++) {
            const struct stored *t = &want.tensor[k];
            if (!strcmp(t->name, "loss_after_step")) continue;
            const bool gradient = !strncmp(t->name, "grad.", 5);
            near(models[i], need(&got, t->name), t, gradient ? 2e-5 : 2e-6, true);
            gradients += gradient;
        }
        assert_int_equal(gradients, 28);
        safetensors_close(&got), safetensors_close(&want);
    }
    hone(2,
         "forward " QUANT "llama_nf4 --ids " QUANT "llama_nf4/golden.safetensors --out %s --grad",
         at("out.safetensors"));
    expect(complained(), "packed weights cannot be trained");
}

/* A file's codes, decoded, written and quantised again, are the same codes: to the same logits. */
static void test_quantised_while_loading(void **state) {
    (void)state;
    static const char *const name[] = {"nf4", "fp4"};
    for (int i = 0; i < 2; i++) {
        char model[64];
        snprintf(model, sizeof model, QUANT "llama_%s", name[i]);
        const char *plain = at("plain-%s", name[i]);
        hone(0, "export %s --output %s --precision fp32 --quiet", model, plain);
        assert_null(strstr(text_of(at("plain-%s/config.json", name[i])), "quantization_config"));
        struct safetensors a, b;
        for (int k = 0; k < 2; k++)
            hone(0, "forward %s --ids %s/golden.safetensors --out %s --quantize %s",
                 k ? model : plain, model, at("out-%d.safetensors", k), k ? "auto" : name[i]);
        open_file(&a, at("out-0.safetensors")), open_file(&b, at("out-1.safetensors"));
        /* doubly quantised scales are not absmax again to the last bit */
        near(model, need(&a, "logits"), need(&b, "logits"), 2e-6, true);
        safetensors_close(&a), safetensors_close(&b);
    }
}

static const char *base(void) { return at("full/checkpoints/step-000004"); }
static void train(const char *run, const char *more) {
    hone(0, "train %s model_name_or_path=%s dataset.0.path=%s output_dir=%s --quiet %s",
         at("qlora.yaml"), base(), at("packed.h5"), run, more);
}

/* A run, stopped and gone on; LoRA, and DoRA, whose magnitudes start as the norms of the codes. */
static void run_check(const char *run, const char *more, i64 tensors) {
    char part[64], words[128];
    snprintf(part, sizeof part, "%s-part", run);
    snprintf(words, sizeof words, "%s save_at=2", more);
    train(at("%s", run), words);
    train(at("%s", part), words);
    assert_int_equal(0, dir_remove(at("%s/checkpoints/step-000004", part), &(struct err){0}));
    snprintf(words, sizeof words, "%s save_at=2 resume_from_checkpoint=auto", more);
    train(at("%s", part), words);
    const struct manifest a = manifest_of(at("%s/checkpoints/step-000004", run)),
                          b = manifest_of(at("%s/checkpoints/step-000004", part));
    assert_string_equal(a.state_sha256, b.state_sha256);
    logs_equal(at("%s", run), at("%s", part));
    hone(0, "verify %s --replay --from 2 --quiet", at("%s", run));
    struct safetensors s;
    open_file(&s, at("%s/checkpoints/step-000004/adapter_model.safetensors", run));
    assert_int_equal(s.count, tensors);
    for (i64 i = 0; i < s.count; i++) expect(s.tensor[i].name, "lora_");
    safetensors_close(&s);
    assert_false(path_exists(at("%s/checkpoints/step-000004/model.safetensors", run)));
}
static void test_run(void **state) {
    (void)state;
    run_check("whole", "", 28), run_check("dora", "use_dora=true", 42);
    run_check("ends", "use_dora=true lora_target_modules=embed_tokens,lm_head,q_proj", 12);
    for (int i = 0; i < packing_count; i++) {
        char more[80];
        snprintf(more, sizeof more, "load_in_4bit=false quantize=%s", packing_table[i]->name);
        run_check(packing_table[i]->name, more, 28);
    }
    const struct manifest a = manifest_of(at("whole/checkpoints/step-000004")),
                          b = manifest_of(at("nf4-double/checkpoints/step-000004")),
                          c = manifest_of(at("nf4/checkpoints/step-000004"));
    assert_string_equal(a.state_sha256, b.state_sha256); /* the same, said otherwise */
    assert_string_not_equal(a.state_sha256, c.state_sha256);
}

/* Every packed type: logits of the packed model are those of the model that it decodes to, bit for
 * bit, and others than the model's; a text is sampled from it. */
static void test_packings(void **state) {
    (void)state;
    const char *ids = QUANT "llama_nf4/golden.safetensors";
    hone(0, "forward %s --ids %s --out %s", base(), ids, at("plain.safetensors"));
    for (int i = 0; i < packing_count; i++) {
        const char *name = packing_table[i]->name;
        struct safetensors file[3];
        hone(0, "export %s --output %s --precision fp32 --quantize %s --max-kl 1 --quiet", base(),
             at("decoded-%s", name), name);
        hone(0, "forward %s --ids %s --out %s --quantize %s", base(), ids, at("got.safetensors"),
             name);
        hone(0, "forward %s --ids %s --out %s", at("decoded-%s", name), ids,
             at("want.safetensors"));
        open_file(&file[0], at("got.safetensors")), open_file(&file[1], at("want.safetensors"));
        open_file(&file[2], at("plain.safetensors"));
        const struct stored *got = need(&file[0], "logits"), *want = need(&file[1], "logits"),
                            *plain = need(&file[2], "logits");
        if (memcmp(got->data, want->data, (size_t)got->bytes)) fail_msg("%s: other logits", name);
        assert_memory_not_equal(got->data, plain->data, (size_t)got->bytes);
        for (int k = 0; k < 3; k++) safetensors_close(&file[k]);
        hone(0,
             "generate %s --tokenizer " TINY_TOKENIZER
             " --quantize %s --prompt 'First' --max-new-tokens 5 --greedy",
             base(), name);
    }
}

/* How many packed weights have, to the bit, the numbers that the file has without. */
static int numbers_kept(const char *path, const char *name, int *packed) {
    struct model plain, m;
    struct err e = {0};
    static float values[1 << 14];
    int kept = *packed = 0;
    const struct holding as = {.packing = packing_find(name)}, none = {.plain = true};
    if (model_open_as(&plain, path, F32, false, &none, &e)) fail_msg("%s", e.primary);
    if (model_open_as(&m, path, F32, false, &as, &e)) fail_msg("%s", e.primary);
    for (i64 i = 0; i < m.weights.params; i++) {
        const struct view *v = &m.weights.param[i]->view, *want = &plain.weights.param[i]->view;
        if (!v->packing) continue;
        assert_in_range(view_count(v), 1, COUNT(values));
        view_unpack(values, v, false), ++*packed;
        kept += !memcmp(values, want->data, (size_t)view_bytes(want));
    }
    model_free(&plain), model_free(&m);
    return kept;
}
/* f8 keeps the codes of an FP8 file, whose tiles have another size than those it makes; but for
 * weights whose rows lie otherwise in memory. q8_0 makes the same of what is q8_0 in a GGUF file:
 * rows of whole blocks. */
static void test_files_kept(void **state) {
    (void)state;
    struct err e = {0};
    int packed;
    if (pool_start(1, &e)) fail_msg("%s", e.primary);
    assert_int_equal(numbers_kept("tests/golden/layouts/deepseek_v3_fp8", "f8", &packed), 14);
    assert_int_equal(packed, 16);
    assert_int_equal(numbers_kept("tests/golden/gguf/llama-q8_0.gguf", "q8_0", &packed), 10);
    assert_int_equal(packed, 14);
    pool_stop();
}

/* The base is held as the run had it, unless told otherwise: other logits. */
static void test_used_as_trained(void **state) {
    (void)state;
    char texts[3][2048];
    static const char *const how[] = {"", "--quantize nf4-double", "--quantize none"};
    for (int i = 0; i < 3; i++) {
        hone(0, "eval %s --data %s --json %s", at("whole/checkpoints/step-000004"), at("packed.h5"),
             how[i]);
        snprintf(texts[i], sizeof texts[i], "%s", said());
    }
    assert_string_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]);
    hone(0,
         "generate %s --tokenizer " TINY_TOKENIZER " --prompt 'First' --max-new-tokens 5 --greedy",
         at("whole/checkpoints/step-000004"));
    for (int i = 0; i < 2; i++) { /* also where the recipe says it by name */
        hone(0, "eval %s --data %s --json %s", at("q8_0/checkpoints/step-000004"), at("packed.h5"),
             i ? "--quantize q8_0" : "");
        snprintf(texts[i], sizeof texts[i], "%s", said());
    }
    assert_string_equal(texts[0], texts[1]);
}

static void test_merge(void **state) {
    (void)state;
    double kl[2];
    for (int i = 0; i < 2; i++) {
        hone(0, "export %s --output %s --merge-into %s --precision fp32 --max-kl 1 --json",
             at("whole/checkpoints/step-000004"), at("merged-%d", i),
             i ? "original" : "dequantized");
        const char *text = strstr(said(), "\"kl\": ");
        assert_non_null(text);
        kl[i] = strtod(text + 6, NULL);
        hone(0,
             "generate %s --tokenizer " TINY_TOKENIZER
             " --prompt 'First' --max-new-tokens 5 --greedy",
             at("merged-%d", i));
    }
    assert_true(kl[0] < 1e-9 && kl[1] > 1e-7); /* what was trained, and what it was made from */
    struct safetensors a, b;
    open_file(&a, at("merged-1/model.safetensors"));
    open_file(&b, at("full/checkpoints/step-000004/model.safetensors"));
    assert_int_equal(a.count, b.count);
    safetensors_close(&a), safetensors_close(&b);
}

static int setup(void **state) {
    static const char qlora[] =
        "max_seq_length: 64\nglobal_batch_size: 8\nmicro_batch_size: 4\nmax_steps: 4\n"
        "learning_rate: 3.0e-3\nuse_peft: true\nlora_r: 4\nlora_alpha: 8\nload_in_4bit: true\n"
        "bnb_4bit_use_double_quant: true\n";
    if (tiny_folder(state)) return -1;
    tiny_data();
    tiny_recipe(at("full.yaml"));
    put(at("qlora.yaml"), qlora, (i64)strlen(qlora));
    hone(0, "train %s dataset.0.path=%s output_dir=%s --quiet", at("full.yaml"), at("packed.h5"),
         at("full"));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),    cmocka_unit_test(test_quantised_while_loading),
        cmocka_unit_test(test_run),        cmocka_unit_test(test_packings),
        cmocka_unit_test(test_files_kept), cmocka_unit_test(test_used_as_trained),
        cmocka_unit_test(test_merge)};
    return cmocka_run_group_tests(tests, setup, tiny_remove);
}
