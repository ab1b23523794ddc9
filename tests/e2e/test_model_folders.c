/* test_model_folders.c: nothing of what a model's files hold is lost: an LM head that is not the
 * embedding although config.json ties them, the parts of a split GGUF file, files beside. */
#include "tests/e2e/tiny_run.h"

#define STORIES "recipes/data/stories260K"

static void ids_put(void) {
    static const i64 ids[] = {1, 403, 261, 280, 294, 262, 294, 426};
    struct stored s = {.name = "input_ids",
                       .dtype = I64,
                       .rank = 2,
                       .dim = {1, COUNT(ids)},
                       .data = (const u8 *)ids,
                       .bytes = sizeof ids};
    struct err e = {0};
    if (safetensors_write(tiny, "ids", &s, 1, SHARD_BYTES, &e)) fail_msg("%s", e.primary);
}

/* Of `hone forward`. */
static void logits_of(const char *model, float logits[8 * 512]) {
    struct safetensors s = {0};
    struct err e = {0};
    hone(0, "forward %s --ids %s --out %s --threads 1 --quiet", model, at("ids.safetensors"),
         at("out.safetensors"));
    if (safetensors_open(&s, at("out.safetensors"), &e)) fail_msg("%s", e.primary);
    const struct stored *t = safetensors_find(&s, "logits");
    assert_int_equal(8 * 512 * 4, t->bytes);
    memcpy(logits, t->data, (size_t)t->bytes);
    safetensors_close(&s);
}

/* stories260K with an LM head in its file: the embedding times `by`, by which logits grow too. */
static void head_added(const char *name, float by) {
    struct safetensors s = {0};
    struct err e = {0};
    const char *folder = at("%s", name);
    assert_int_equal(0, shell("cp -r " STORIES " %s && rm %s/model.safetensors", folder, folder));
    if (safetensors_open(&s, STORIES "/model.safetensors", &e)) fail_msg("%s", e.primary);
    struct stored *all = calloc((size_t)s.count + 1, sizeof *all);
    memcpy(all, s.tensor, (size_t)s.count * sizeof *all);
    all[s.count] = *safetensors_find(&s, "model.embed_tokens.weight");
    float *values = malloc((size_t)all[s.count].bytes);
    for (i64 i = 0; i < all[s.count].bytes / 4; i++)
        values[i] = by * ((const float *)(const void *)all[s.count].data)[i];
    all[s.count].name = "lm_head.weight", all[s.count].data = (u8 *)values;
    if (safetensors_write(folder, "model", all, s.count + 1, SHARD_BYTES, &e))
        fail_msg("%s", e.primary);
    safetensors_close(&s), free(all), free(values);
}

/* A kind of codes that is not read, beside plain numbers. */
static void test_other_codes(void **state) {
    (void)state;
    assert_int_equal(0, shell("cp -r " STORIES " %s && sed -i '1,/{/s/{/{\"quantization_config\": "
                              "{\"quant_method\": \"gptq\", \"bits\": 4},/' %s/config.json",
                              at("gptq"), at("gptq")));
    hone(0, "generate %s --prompt a --max-new-tokens 2", at("gptq"));
    expect(complained(), "quantization_config names gptq, which is not read: the weights are taken "
                         "as the numbers that the file has");
}

static void test_head_kept(void **state) {
    (void)state;
    static float tied[8 * 512], own[8 * 512];
    head_added("same", 1), head_added("differs", 2);
    logits_of(STORIES, tied), logits_of(at("same"), own);
    assert_memory_equal(tied, own, sizeof own);
    hone(0, "forward %s --ids %s --out %s", at("differs"), at("ids.safetensors"),
         at("out.safetensors"));
    expect(complained(), "tie_word_embeddings is true, but lm_head.weight is not the embeddings");
    hone(0, "export %s --output %s --quiet", at("differs"), at("exported"));
    put(at("text.jsonl"), "{\"text\": \"Once upon a time\"}\n", 29);
    put(at("r.yaml"), "learning_rate: 0\npacking: false\n", 32);
    hone(0, "train %s model_name_or_path=%s dataset=%s max_steps=1 output_dir=%s --quiet",
         at("r.yaml"), at("differs"), at("text.jsonl"), at("run"));
    hone(0, "export %s --format gguf --type f32 --output %s --quiet", at("differs"),
         at("differs.gguf"));
    const char *const model[] = {"differs", "exported", "run/checkpoints/step-000001",
                                 "differs.gguf"};
    for (int i = 0; i < COUNT(model); i++) {
        logits_of(at("%s", model[i]), own);
        for (int k = 0; k < 8 * 512; k++) /* a power of two: the same bits but for the exponent */
            if (own[k] != 2 * tied[k])
                fail_msg("%s: logit %d is %g, %g", model[i], k, own[k], tied[k]);
        if (i > 0 && i < 3)
            expect(text_of(at("%s/config.json", model[i])), "\"tie_word_embeddings\": false");
    }
}

/* Runs of recipe version 1 have the embedding as their LM head, as the program had that made them:
 * all weights, an adapter and what uses it. */
static void test_head_of_version_1(void **state) {
    (void)state;
    static float tied[8 * 512], is[8 * 512];
    static const char *const more[] = {"", "use_peft=true lora_r=2"};
    logits_of(STORIES, tied);
    for (int i = 0; i < COUNT(more); i++) {
        char run[512], last[512];
        snprintf(run, sizeof run, "%s", at("tied%d", i));
        snprintf(last, sizeof last, "%s", at("tied%d/checkpoints/step-000002", i));
        for (int steps = 1; steps < 3; steps++)
            hone(0,
                 "train %s recipe_version=1 model_name_or_path=%s dataset=%s max_steps=%d "
                 "output_dir=%s resume_from_checkpoint=auto %s",
                 at("r.yaml"), at("differs"), at("text.jsonl"), steps, run, more[i]);
        expect(said(), "lm_head.weight is not the embeddings: it is not used, as in the run");
        hone(0, "verify %s --replay --quiet", run);
        logits_of(last, is);
        assert_memory_equal(tied, is, sizeof is);
        struct safetensors s = {0};
        struct err e = {0};
        if (i) continue;
        assert_int_equal(
            0, safetensors_open(&s, at("tied%d/checkpoints/step-000002/model.safetensors", i), &e));
        assert_null(safetensors_find(&s, "lm_head.weight"));
        safetensors_close(&s);
    }
}

/* Two files of the tensors of `whole`, cut at its half, as gguf-split does. */
static void split(const char *whole, i64 parts_said) {
    struct gguf g = {0};
    struct err e = {0};
    if (gguf_open(&g, whole, &e)) fail_msg("%s", e.primary);
    const i64 half = g.count / 2;
    struct gguf_tensor *t = calloc((size_t)g.count, sizeof *t);
    for (i64 i = 0; i < g.count; i++)
        t[i] = (struct gguf_tensor){g.tensor[i], gguf_type_of(g.tensor[i].type)};
    for (int part = 0; part < 2; part++) {
        struct gguf_writer w = {0};
        assert_false((part == 0 && gguf_put_like(&w, &g, "", "", &e)) ||
                     gguf_put_u32(&w, "split.no", part, &e) ||
                     gguf_put_u32(&w, "split.count", parts_said, &e) ||
                     gguf_put_u32(&w, "split.tensors.count", g.count, &e));
        unlink(at("sp-0000%d-of-00002.gguf", part + 1));
        if (gguf_write(at("sp-0000%d-of-00002.gguf", part + 1), &w, t + part * half,
                       part ? g.count - half : half, &e))
            fail_msg("%s", e.primary);
        gguf_writer_free(&w);
    }
    gguf_close(&g), free(t);
}

static void test_split_gguf(void **state) {
    (void)state;
    static float whole[8 * 512], parts[8 * 512];
    hone(0, "export " STORIES " --format gguf --type f32 --output %s --quiet", at("st.gguf"));
    split(at("st.gguf"), 2);
    logits_of(at("st.gguf"), whole), logits_of(at("sp-00001-of-00002.gguf"), parts);
    assert_memory_equal(whole, parts, sizeof whole);
    hone(0, "generate %s --prompt 'The cat' --greedy --max-new-tokens 4",
         at("sp-00001-of-00002.gguf"));
    hone(2, "generate %s --prompt a", at("sp-00002-of-00002.gguf"));
    expect(complained(), "part 2 of 2 of a split model");
    hone(
        0,
        "train %s model_name_or_path=%s use_peft=true dataset=%s max_steps=1 output_dir=%s --quiet",
        at("r.yaml"), at("sp-00001-of-00002.gguf"), at("text.jsonl"), at("splitrun"));
    expect(text_of(at("splitrun/recipe.lock")), "sp-00002-of-00002.gguf"); /* all are hashed */
    split(at("st.gguf"), 3);
    hone(2, "generate %s --prompt a", at("sp-00001-of-00002.gguf"));
    split(at("st.gguf"), 2);
    assert_int_equal(0,
                     shell("cp %s %s", at("sp-00001-of-00002.gguf"), at("sp-00002-of-00002.gguf")));
    hone(2, "generate %s --prompt a", at("sp-00001-of-00002.gguf"));
    expect(complained(), "says that it is part 1 of 2; expected 2 of 2");
    assert_int_equal(0, unlink(at("sp-00002-of-00002.gguf")));
    hone(2, "generate %s --prompt a", at("sp-00001-of-00002.gguf"));
    expect(complained(), "sp-00002-of-00002.gguf");
}

#define LORA                                                                                       \
    "train %s model_name_or_path=" STORIES " dataset=%s use_peft=true max_seq_length=16 "          \
    "max_steps=2 save_steps=1 --quiet output_dir=%s "

/* Both ends of a tied model trained whole are apart, as in PEFT; the run resumes, replays, and
 * another goes on from its adapter. */
static void test_ends_trained(void **state) {
    (void)state;
    static float was[8 * 512], is[8 * 512];
    char run[512], adapter[512];
    snprintf(run, sizeof run, "%s", at("ends"));
    snprintf(adapter, sizeof adapter, "%s", at("ends/checkpoints/step-000002"));
    put(at("rate.yaml"), "learning_rate: 1e-2\npacking: false\n", 35);
    hone(0, LORA "lora_modules_to_save=embed_tokens,lm_head lora_r=2 lora_alpha=3 max_steps=1",
         at("rate.yaml"), at("text.jsonl"), run);
    hone(0,
         LORA "lora_modules_to_save=embed_tokens,lm_head lora_r=2 lora_alpha=3 "
              "resume_from_checkpoint=auto",
         at("rate.yaml"), at("text.jsonl"), run);
    hone(0, "verify %s --replay", run);
    struct safetensors s = {0};
    struct err e = {0};
    assert_int_equal(
        0, safetensors_open(&s, at("ends/checkpoints/step-000002/adapter_model.safetensors"), &e));
    const struct stored *head = safetensors_find(&s, "base_model.model.lm_head.weight"),
                        *embed = safetensors_find(&s, "base_model.model.model.embed_tokens.weight");
    assert_true(head && embed && memcmp(head->data, embed->data, (size_t)head->bytes));
    safetensors_close(&s);
    logits_of(adapter, was);
    hone(0, "export %s --output %s --quiet", adapter, at("ends-hf"));
    logits_of(at("ends-hf"), is);
    for (int i = 0; i < 8 * 512; i++) assert_true(is[i] - was[i] < 1e-4f && was[i] - is[i] < 1e-4f);
    hone(0, LORA "learning_rate=0 adapter_name_or_path=%s", at("rate.yaml"), at("text.jsonl"),
         at("on"), adapter);
    logits_of(at("on/checkpoints/step-000002"), is);
    assert_memory_equal(was, is, sizeof was);
    hone(0, "verify %s --replay", at("on"));
    hone(2, LORA "lora_r=4 adapter_name_or_path=%s", at("rate.yaml"), at("text.jsonl"), at("off"),
         adapter);
    expect(complained(), "lora_r: the adapter ");
    hone(2, LORA "adapter_name_or_path=%s", at("rate.yaml"), at("text.jsonl"), at("off"),
         "tests/golden/adapters/forms/biases");
    expect(complained(), "has trained biases, which training does not go on with");
}

static double mean_of(const struct stored *t, i64 rows, i64 col) {
    double sum = 0;
    for (i64 i = 0; i < rows; i++)
        sum += (double)((const float *)(const void *)t->data)[i * 64 + col];
    return sum / (double)rows;
}

/* Tokens that a recipe adds: in the tokenizer of checkpoints and exports, with rows that start at
 * the mean of the others (transformers' mean_resizing), the same each time. */
static void test_more_tokens(void **state) {
    (void)state;
    static const char recipe[] =
        "learning_rate: 0\npacking: false\ntask: sft\nchat_template: chatml\n"
        "special_tokens: {eos_token: <|im_end|>, pad_token: <pad>}\n"
        "add_tokens: [<|im_start|>, wug]\n";
    static const char row[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a wug\"}, "
                              "{\"role\": \"assistant\", \"content\": \"Once\"}]}\n";
    put(at("more.yaml"), recipe, sizeof recipe - 1), put(at("chat.jsonl"), row, sizeof row - 1);
    char run[512];
    snprintf(run, sizeof run, "%s", at("more"));
    const char *line =
        "train %s model_name_or_path=" STORIES " dataset=%s output_dir=%s max_steps=1";
    hone(0, line, at("more.yaml"), at("chat.jsonl"), run);
    expect(complained(), "4 tokens are new");
    expect(complained(), "the vocabulary grows from 512 to 516 rows");
    hone(0,
         "train %s model_name_or_path=" STORIES " dataset=%s output_dir=%s max_steps=1 --threads 1",
         at("more.yaml"), at("chat.jsonl"), at("more-again"));
    assert_string_equal(manifest_of(at("more/checkpoints/step-000001")).state_sha256,
                        manifest_of(at("more-again/checkpoints/step-000001")).state_sha256);
    hone(0,
         "train %s model_name_or_path=" STORIES " dataset=%s output_dir=%s max_steps=2 --quiet "
         "resume_from_checkpoint=auto",
         at("more.yaml"), at("chat.jsonl"), run);
    hone(0, "verify %s --replay", run);
    struct safetensors s = {0};
    struct err e = {0};
    assert_int_equal(
        0, safetensors_open(&s, at("more/checkpoints/step-000002/model.safetensors"), &e));
    const struct stored *t = safetensors_find(&s, "model.embed_tokens.weight");
    assert_int_equal(516, t->dim[0]);
    double apart = 0;
    for (i64 c = 0; c < 64; c++)
        for (i64 i = 512; i < 516; i++) {
            const double d =
                (double)((const float *)(const void *)t->data)[i * 64 + c] - mean_of(t, 512, c);
            assert_true(d < 1e-3 && d > -1e-3);
            apart += d * d;
        }
    assert_true(apart > 0); /* drawn, not the mean itself */
    safetensors_close(&s);
    const char *config = at("more/checkpoints/step-000002/config.json");
    expect(text_of(config), "\"vocab_size\": 516");
    expect(text_of(config), "\"eos_token_id\": 512");
    hone(0, "generate %s --prompt '<|im_start|>a wug' --json --max-new-tokens 2 --greedy",
         at("more/checkpoints/step-000002"));
    static const char wug[] = "{\"text\": \"a wug<|im_end|>\"}\n";
    put(at("wug.jsonl"), wug, sizeof wug - 1);
    assert_int_equal(
        0, shell("./hone encode %s < %s", at("more/checkpoints/step-000002"), at("wug.jsonl")));
    expect(said(), "515, 512]");
    hone(0, "export %s --format gguf --output %s --quiet", at("more/checkpoints/step-000002"),
         at("more.gguf"));
    /* an adapter takes the rows and the tokenizer with it */
    hone(0,
         "train %s model_name_or_path=" STORIES
         " dataset=%s output_dir=%s max_steps=1 use_peft=true",
         at("more.yaml"), at("chat.jsonl"), at("more-lora"));
    expect(complained(), "the new rows are not trained; lora_modules_to_save");
    hone(0, "export %s --output %s --quiet", at("more-lora/checkpoints/step-000001"),
         at("more-hf"));
    expect(text_of(at("more-hf/config.json")), "\"vocab_size\": 516");
    assert_int_equal(0, shell("./hone encode %s < %s", at("more-hf"), at("wug.jsonl")));
    expect(said(), "515, 512]");
    hone(0,
         "train %s model_name_or_path=" STORIES
         " dataset=%s output_dir=%s max_steps=1 use_peft=true "
         "lora_modules_to_save=embed_tokens,lm_head --quiet",
         at("more.yaml"), at("chat.jsonl"), at("more-saved"));
    hone(0, "generate %s --prompt a --max-new-tokens 2", at("more-saved/checkpoints/step-000001"));
    /* a tokenizer with more tokens than rows, and nobody asked for them */
    hone(2, "train %s model_name_or_path=" STORIES " tokenizer=%s dataset=%s output_dir=%s",
         at("r.yaml"), at("more/tokenizer"), at("text.jsonl"), at("refused"));
    expect(complained(), "516 entries, but the model's vocabulary is 512");
}

/* Of an embedding that is tied some rows are trained, beside an adapter: those change, the others
 * keep their bits; the run resumes and replays, and another goes on from it. */
static void test_rows_trained(void **state) {
    (void)state;
    static float was[8 * 512], is[8 * 512];
    hone(0, LORA "trainable_token_indices=403,261 lora_r=2 max_steps=1", at("rate.yaml"),
         at("text.jsonl"), at("rows"));
    hone(0, LORA "trainable_token_indices=403,261 lora_r=2 resume_from_checkpoint=auto max_steps=2",
         at("rate.yaml"), at("text.jsonl"), at("rows"));
    hone(0, "verify %s --replay", at("rows"));
    hone(0, "export %s --output %s --quiet", at("rows/checkpoints/step-000002"), at("rows-hf"));
    struct safetensors s = {0}, base = {0};
    struct err e = {0};
    assert_int_equal(0, safetensors_open(&s, at("rows-hf/model.safetensors"), &e));
    assert_int_equal(0, safetensors_open(&base, STORIES "/model.safetensors", &e));
    const struct stored *t = safetensors_find(&s, "model.embed_tokens.weight"),
                        *u = safetensors_find(&base, "model.embed_tokens.weight");
    assert_int_equal(u->bytes, t->bytes);
    for (i64 i = 0; i < 512; i++)
        assert_int_equal(i == 403 || i == 261, !!memcmp(t->data + i * 256, u->data + i * 256, 256));
    safetensors_close(&s), safetensors_close(&base);
    logits_of(at("rows/checkpoints/step-000002"), was);
    hone(0, LORA "learning_rate=0 adapter_name_or_path=%s", at("rate.yaml"), at("text.jsonl"),
         at("rows-on"), at("rows/checkpoints/step-000002"));
    logits_of(at("rows-on/checkpoints/step-000002"), is);
    assert_memory_equal(was, is, sizeof was);
    hone(2, LORA "trainable_token_indices=403 weight_decay=0.1", at("rate.yaml"), at("text.jsonl"),
         at("off"));
    expect(complained(), "weight_decay would change the other rows too");
    hone(2, LORA "trainable_token_indices=403 optim=muon", at("rate.yaml"), at("text.jsonl"),
         at("off"));
    hone(2, LORA "trainable_token_indices=512", at("rate.yaml"), at("text.jsonl"), at("off"));
    expect(complained(), "the model has no token 512");
}

/* Dropouts of the model's own are not passed over. */
static void test_model_dropout(void **state) {
    (void)state;
    static const char asks[] = "\"attention_dropout\": 0.1,",
                      not_its_own[] = "\"attention_dropout\": 0.0, \"resid_pdrop\": 0.5,";
    static const struct {
        const char *added, *more, *want; /* want: NULL: it trains */
    } rows[] = {{asks, "", "attention_dropout 0.1"},
                {asks, "use_peft=true", "attention_dropout 0.1"},
                {asks, "model_dropout=ignore", NULL},
                {asks, "recipe_version=1", NULL},
                {not_its_own, "", NULL}};
    for (int i = 0; i < COUNT(rows); i++) {
        assert_int_equal(0,
                         shell("cp -r " STORIES " %s && sed -i 's/\"hidden_act/%s \"hidden_act/' "
                               "%s/config.json",
                               at("drop%d", i), rows[i].added, at("drop%d", i)));
        hone(rows[i].want ? 2 : 0,
             "train %s model_name_or_path=%s dataset=%s max_steps=1 output_dir=%s %s", at("r.yaml"),
             at("drop%d", i), at("text.jsonl"), at("dropped%d", i), rows[i].more);
        if (rows[i].want) expect(complained(), rows[i].want);
        if (i == 2) expect(complained(), "without its dropouts: attention_dropout 0.1");
    }
    hone(2,
         "train %s model.model_type=gpt2 model.n_embd=16 model.n_layer=1 model.n_head=2 "
         "model.resid_pdrop=0.5 tokenizer=" STORIES " dataset=%s max_steps=1 output_dir=%s",
         at("r.yaml"), at("text.jsonl"), at("gpt2"));
    expect(complained(), "model: resid_pdrop 0.5");
}

/* What an export does not copy is named; named templates and processors are copied. So it is of the
 * checkpoints of all weights, which have no named templates. */
static void test_files_beside(void **state) {
    (void)state;
    assert_int_equal(0,
                     shell("cp -r " STORIES " %s && cd %s && mkdir additional_chat_templates && "
                           "echo x > additional_chat_templates/rag.jinja && echo x > notes.txt && "
                           "echo '{}' > processor_config.json",
                           at("beside"), at("beside")));
    hone(0, "export %s --output %s", at("beside"), at("beside-out"));
    expect(complained(), "these are not copied: LICENSE, notes.txt");
    assert_true(path_exists(at("beside-out/additional_chat_templates/rag.jinja")));
    assert_true(path_exists(at("beside-out/processor_config.json")));
    hone(0, "train %s model_name_or_path=%s dataset=%s max_steps=1 output_dir=%s", at("r.yaml"),
         at("beside"), at("text.jsonl"), at("beside-run"));
    expect(complained(), "these are not copied to checkpoints: LICENSE, "
                         "additional_chat_templates, notes.txt\n");
    assert_true(path_exists(at("beside-run/checkpoints/step-000001/processor_config.json")));
}

static int set_up(void **state) {
    const int rc = tiny_folder(state);
    if (!rc) ids_put();
    return rc;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_codes),       cmocka_unit_test(test_head_kept),
        cmocka_unit_test(test_head_of_version_1), cmocka_unit_test(test_split_gguf),
        cmocka_unit_test(test_ends_trained),      cmocka_unit_test(test_rows_trained),
        cmocka_unit_test(test_more_tokens),       cmocka_unit_test(test_model_dropout),
        cmocka_unit_test(test_files_beside)};
    return cmocka_run_group_tests(tests, set_up, tiny_remove);
}
