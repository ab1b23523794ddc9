/* test_blocks.c: GGUF files whose blocks are kept as they are stored: logits, losses, gradients of
 * adapters and what is made of them have the bits that plain weights give, in f32 and bf16, for
 * each type, for rows that are moved and for those that are mapped. */
#include "tests/unit/models/golden.h"

/* A copy of a GGUF file whose matrices have the type of their turn in `types`, names with spaces
 * between them. */
static void retyped(const char *from, const char *to, const char *types) {
    struct gguf g;
    struct gguf_writer w = {0};
    struct err e = {0};
    const struct gguf_type *of[8];
    int count = 0, used;
    for (char name[16]; sscanf(types, "%15s%n", name, &used) == 1; types += used)
        assert_non_null(of[count++] = gguf_type_of(name));
    ok(gguf_open(&g, from, &e), &e);
    struct gguf_tensor *t = calloc((size_t)g.count, sizeof *t);
    ok(gguf_put_like(&w, &g, "", "", &e), &e);
    for (i64 i = 0, turn = 0; i < g.count; i++) {
        t[i] = (struct gguf_tensor){g.tensor[i], gguf_type_of(g.tensor[i].type)};
        if (g.tensor[i].rank == 2) t[i].type = of[turn++ % count];
    }
    ok(gguf_write(to, &w, t, g.count, &e), &e);
    free(t), gguf_writer_free(&w), gguf_close(&g);
}

/* The two files hold the same bytes. */
static void same_files(const char *what, const char *a, const char *b) {
    if (strcmp(sha_of(a), sha_of(b))) fail_msg("%s: kept blocks give other bits", what);
}

static void forward_same(const char *model, const char *flags) {
    static const char *const precision[] = {"fp32", "bf16"};
    for (int p = 0; p < 2; p++) {
        for (int k = 0; k < 2; k++)
            hone(0, "forward %s --ids %s --out %s precision=%s %s --quantize %s", model,
                 at("ids.safetensors"), at("out-%d.safetensors", k), precision[p], flags,
                 k ? "none" : "auto");
        same_files(model, at("out-0.safetensors"), at("out-1.safetensors"));
    }
}

static const char *const packed[] = {"\"q4_0\"", "\"q4_1\"", "\"q5_0\"", "\"q5_1\"",
                                     "\"q8_0\"", "\"q4_k\"", "\"q5_k\"", "\"q6_k\""};
static const char *const made[] = {
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "Q4_K Q6_K Q4_0 F16 Q8_0"};

/* A model whose rows are whole blocks of every type. */
static void models_make(const char *family) {
    static const char recipe[] = "dataset: tests/golden/tokenizers/corpus.txt\nmax_seq_length: 32\n"
                                 "micro_batch_size: 1\nglobal_batch_size: 1\nmax_steps: 1\n"
                                 "tokenizer_name_or_path: recipes/data/stories260K\n"
                                 "model:\n  vocab_size: 512\n  hidden_size: 256\n  "
                                 "num_hidden_layers: 2\n  intermediate_size: 512\n"
                                 "  num_attention_heads: 4\n  num_key_value_heads: 2\n";
    put(at("%s.yaml", family), recipe, sizeof recipe - 1);
    hone(0, "train %s model.model_type=%s output_dir=%s --quiet", at("%s.yaml", family), family,
         at("%s", family));
    hone(0, "export %s --format gguf --type f32 --output %s",
         at("%s/checkpoints/step-000001", family), at("%s-f32.gguf", family));
    for (int i = 0; i < COUNT(made); i++)
        retyped(at("%s-f32.gguf", family), at("%s-%d.gguf", family, i), made[i]);
}

static void goldens(void **state) {
    (void)state;
    static const char *const model[] = {"llama-q8_0", "llama-q4_0", "qwen3-q8_0"};
    tiny_ids(24);
    for (int i = 0; i < COUNT(model); i++) {
        char file[64];
        snprintf(file, sizeof file, "tests/golden/gguf/%s.gguf", model[i]);
        forward_same(file, "");
        forward_same(file, "--generate 4");
        hone(0, "inspect %s --modules", file);
        expect(said(), i == 1 ? " q4_0" : " q8_0");
    }
}

static void types(void **state) {
    (void)state;
    static const char *const family[] = {"llama", "qwen3"};
    for (int f = 0; f < COUNT(family); f++) {
        models_make(family[f]);
        for (int i = 0; i < COUNT(made); i++) forward_same(at("%s-%d.gguf", family[f], i), "");
    }
    for (int i = 0; i < COUNT(packed); i++) {
        hone(0, "inspect %s --modules --json", at("llama-%d.gguf", i));
        expect(said(), packed[i]);
    }
    hone(0, "inspect %s --modules --quantize none", at("llama-0.gguf"));
    expect(said(), "decoded");
}

/* What adapters learn beside kept blocks, and what is made of both. */
static void trained(void **state) {
    (void)state;
    static const struct {
        int model;
        const char *flags;
    } runs[] = {
        {8, "lora_target_modules=all-linear"},
        {0, "'lora_target_modules=[q_proj, embed_tokens, lm_head]'"},
        {7, "lora_target_modules=all-linear use_dora=true"},
        {5, "'lora_target_modules=[embed_tokens, v_proj]' use_dora=true"},
        {5, "lora_target_modules=all-linear 'lora_modules_to_save=[embed_tokens, lm_head]'"},
        {6, "lora_target_modules=all-linear init_lora_weights=pissa"}};
    for (int r = 0; r < COUNT(runs); r++) {
        for (int k = 0; k < 2; k++) {
            const char *base = at("llama-%d.gguf", runs[r].model), *run = at("run-%d-%d", r, k);
            hone(0,
                 "train %s model_name_or_path=%s output_dir=%s use_peft=true lora_r=4 max_steps=2 "
                 "%s %s --quiet",
                 at("lora.yaml"), base, run, runs[r].flags, k ? "quantize=none" : "");
            hone(0, "export %s --precision fp32 --output %s",
                 at("run-%d-%d/checkpoints/step-000002", r, k), at("merged-%d-%d", r, k));
        }
        same_files(runs[r].flags,
                   at("run-%d-0/checkpoints/step-000002/adapter_model.safetensors", r),
                   at("run-%d-1/checkpoints/step-000002/adapter_model.safetensors", r));
        same_files(runs[r].flags, at("merged-%d-0/model.safetensors", r),
                   at("merged-%d-1/model.safetensors", r));
    }
}
static int begin(void **state) {
    static const char recipe[] = "dataset: tests/golden/tokenizers/corpus.txt\nmax_seq_length: 32\n"
                                 "micro_batch_size: 1\nglobal_batch_size: 1\n";
    if (golden_begin(state)) return -1;
    put(at("lora.yaml"), recipe, sizeof recipe - 1);
    return 0;
}

/* A scale that is no number is found, and named as it is where blocks become values. */
static void not_finite(void **state) {
    (void)state;
    struct gguf g;
    struct err e = {0};
    struct text bytes = {0};
    ok(gguf_open(&g, at("llama-0.gguf"), &e), &e);
    ok(file_read(&bytes, at("llama-0.gguf"), &e), &e);
    for (i64 i = 0; i < g.count; i++)
        if (strstr(g.tensor[i].name, "blk.1.ffn_up.weight"))
            bytes.data[g.tensor[i].data - g.map.data + 18 * 40 + 1] = 0x7c;
    put(at("broken.gguf"), bytes.data, bytes.size);
    text_free(&bytes), gguf_close(&g);
    hone(2, "forward %s --ids %s --out %s", at("broken.gguf"), at("ids.safetensors"),
         at("none.safetensors"));
    expect(complained(), "blk.1.ffn_up.weight");
    expect(complained(), "at element");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(goldens), cmocka_unit_test(types),
                                       cmocka_unit_test(trained), cmocka_unit_test(not_finite)};
    return cmocka_run_group_tests(tests, begin, golden_end);
}
