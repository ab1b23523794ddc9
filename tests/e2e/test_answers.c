/* test_answers.c: a trained model is used as it was trained: by its template, to where its answers
 * end, as its generation_config.json says; and its checkpoints are found and evaluated as the run
 * left them. */
#include "tests/e2e/tiny_run.h"

#define STORIES "recipes/data/stories260K"
#define END     "<|im_end|>"
static const char other_template[] =
    "{% for m in messages %}{{ 'OTHER ' + m.role + ': ' + m.content + '\\n' }}{% endfor %}";

static void json_put(const char *path, json_t *j) {
    struct err e = {0};
    if (json_save(j, path, 2, &e)) fail_msg("%s", e.primary);
    json_decref(j);
}
static json_t *json_of(const char *path) {
    struct err e = {0};
    json_t *j = json_open(path, &e);
    if (!j) fail_msg("%s", e.primary);
    return j;
}

/* stories260K with room for 8 tokens more, of which the tokenizer has two: <|im_start|> 512 and
 * <|im_end|> 513. `chat_template` as tokenizer_config.json has it. */
static void grown_model(const char *name, json_t *chat_template, json_t *generation) {
    enum { VOCAB = 512, MORE = 8, D = 64 };
    struct safetensors s = {0};
    struct err e = {0};
    const char *folder = at("%s", name);
    assert_int_equal(0, shell("mkdir %s && cp " STORIES "/*.json %s", folder, folder));
    if (safetensors_open(&s, STORIES "/model.safetensors", &e)) fail_msg("%s", e.primary);
    float *rows = calloc(VOCAB + MORE, D * sizeof *rows);
    for (i64 i = 0; i < s.count; i++) {
        struct stored *t = &s.tensor[i];
        if (strcmp(t->name, "model.embed_tokens.weight")) continue;
        memcpy(rows, t->data, VOCAB * D * sizeof *rows);
        for (i64 k = 0; k < MORE * D; k++) rows[VOCAB * D + k] = 0.01f * (float)(k % 7 - 3);
        t->dim[0] += MORE, t->data = (u8 *)rows, t->bytes = (VOCAB + MORE) * D * 4;
    }
    if (safetensors_write(folder, "model", s.tensor, s.count, SHARD_BYTES, &e))
        fail_msg("%s", e.primary);
    safetensors_close(&s), free(rows);
    json_t *j = json_of(at("%s/config.json", name));
    json_object_set_new(j, "vocab_size", json_integer(VOCAB + MORE));
    json_put(at("%s/config.json", name), j);
    j = json_of(at("%s/tokenizer.json", name));
    static const char *const token[] = {"<|im_start|>", END};
    for (int i = 0; i < 2; i++)
        json_array_append_new(json_object_get(j, "added_tokens"),
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", VOCAB + i,
                                        "content", token[i], "single_word", 0, "lstrip", 0,
                                        "rstrip", 0, "normalized", 0, "special", 1));
    json_put(at("%s/tokenizer.json", name), j);
    j = json_of(at("%s/tokenizer_config.json", name));
    if (chat_template) json_object_set_new(j, "chat_template", chat_template);
    json_put(at("%s/tokenizer_config.json", name), j);
    if (generation) json_put(at("%s/generation_config.json", name), generation);
}

static void chat_rows(void) {
    static const char rows[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"},"
                               " {\"role\": \"assistant\", \"content\": \"Once upon a time\"}]}\n"
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"who\"},"
                               " {\"role\": \"assistant\", \"content\": \"Lily and Tom\"}]}\n";
    static const char asked[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n";
    put(at("chat.jsonl"), rows, sizeof rows - 1);
    put(at("asked.jsonl"), asked, sizeof asked - 1);
}
#define TRAIN                                                                                      \
    "train %s task=sft dataset=%s packing=false max_seq_length=64 micro_batch_size=1 max_steps=2 " \
    "--quiet --threads 1 "

static json_t *template_of(json_t *row) { /* of a line that generate --json printed */
    json_t *prompt = json_incref(json_object_get(row, "prompt"));
    json_decref(row);
    return prompt;
}
static void prompt_is(const char *model, const char *want) {
    struct err e = {0};
    hone(0, "generate %s --prompts %s --json --max-new-tokens 2 --quiet --threads 1", model,
         at("asked.jsonl"));
    json_t *row = json_parse(said(), (i64)strlen(said()), "stdout", &e);
    json_t *prompt = template_of(row);
    assert_string_equal(want, json_string_value(prompt));
    json_decref(prompt);
}

static void eos_has(const char *folder, i64 id) {
    json_t *j = json_of(at("%s/generation_config.json", folder));
    const json_t *eos = json_object_get(j, "eos_token_id");
    assert_true(json_is_array(eos));
    assert_int_equal(id, json_integer_value(json_array_get(eos, json_array_size(eos) - 1)));
    json_decref(j);
}

/* An adapter's template goes before that of the base, in generate, HF folders, GGUF and Modelfile;
 * one of a full run is the checkpoint's. */
static void test_template_travels(void **state) {
    (void)state;
    static const char chatml[] = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    put(at("empty.yaml"), "learning_rate: 1e-3\n", 20);
    grown_model("based", json_string(other_template), json_pack("{s:i}", "eos_token_id", 2));
    prompt_is(at("based"), "OTHER user: hi\n");
    hone(0, TRAIN "model_name_or_path=%s chat_template=chatml use_peft=true lora_r=2 output_dir=%s",
         at("empty.yaml"), at("chat.jsonl"), at("based"), at("lora"));
    hone(0, TRAIN "model_name_or_path=%s chat_template=chatml output_dir=%s", at("empty.yaml"),
         at("chat.jsonl"), at("based"), at("full"));
    char lora[512], full[512];
    snprintf(lora, sizeof lora, "%s", at("lora/checkpoints/step-000002"));
    snprintf(full, sizeof full, "%s", at("full/checkpoints/step-000002"));
    prompt_is(lora, chatml), prompt_is(full, chatml);
    hone(0, "generate %s --adapter %s --prompts %s --json --max-new-tokens 2", at("based"), lora,
         at("asked.jsonl"));
    expect(said(), "<|im_start|>user");
    eos_has("full/checkpoints/step-000002", 513);
    hone(0, "export %s --output %s", lora, at("hf"));
    prompt_is(at("hf"), chatml), eos_has("hf", 513);
    hone(0, "export %s --format gguf --type f32 --output %s", lora, at("gg"));
    prompt_is(at("gg/model.gguf"), chatml);
    expect(text_of(at("gg/Modelfile")), "PARAMETER stop \"<|im_end|>\"");
    struct gguf g = {0};
    struct err e = {0};
    assert_int_equal(0, gguf_open(&g, at("gg/model.gguf"), &e));
    assert_int_equal(513, gguf_i64(&g, "tokenizer.ggml.eot_token_id", -1, "", &e));
    gguf_close(&g);
    hone(0, "export %s --adapter %s --format gguf --type f32 --output %s", at("gg/model.gguf"),
         lora, at("again.gguf")); /* a GGUF base has one of its own */
    prompt_is(at("again.gguf"), chatml);
}

/* What is asked is read as rows of training are: roles under other names, parts, a column for the
 * system, arguments of calls as texts; a row that training refuses is refused. */
static void test_asked_as_trained(void **state) {
    (void)state;
    static const char template[] =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}"
        "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}";
    static const struct {
        const char *row, *text, *said;
    } rows[] = {
        {"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
         "\"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}]}",
         "<user>ab", ""},
        {"{\"system\": \"s\", \"conversations\": [{\"from\": \"Human\", \"value\": \"a\"}]}",
         "<system>s<user>a", ""},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"n\"}]}", "<user>a",
         "key 'name' of messages is not used: the chat template does not read it (1 time, line 1)"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
         "\"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": "
         "\"{\\\"x\\\": 1}\"}}]}, {\"role\": \"function\", \"content\": \"2\"}]}",
         "<user>a<assistant>{\"x\": 1}<tool>2", ""},
    };
    char want[256];
    put(at("asked.jinja"), template, sizeof template - 1);
    for (int i = 0; i < COUNT(rows); i++) {
        put(at("one.jsonl"), rows[i].row, (i64)strlen(rows[i].row));
        hone(0, "generate " STORIES " --prompts %s --chat-template %s --json --max-new-tokens 1",
             at("one.jsonl"), at("asked.jinja"));
        expect(complained(), rows[i].said);
        struct err e = {0};
        json_t *row = json_parse(said(), (i64)strlen(said()), "stdout", &e);
        json_t *prompt = template_of(row);
        snprintf(want, sizeof want, "%s<assistant>", rows[i].text);
        assert_string_equal(want, json_string_value(prompt));
        json_decref(prompt);
        assert_int_equal(0, shell("./hone render %s < %s", at("asked.jinja"), at("one.jsonl")));
        expect(complained(), rows[i].said);
        row = json_parse(said(), (i64)strlen(said()), "stdout", &e);
        assert_string_equal(rows[i].text, json_string_value(json_object_get(row, "text")));
        json_decref(row);
    }
    assert_int_equal(0, shell("./hone render %s --as-is < %s", at("asked.jinja"), at("one.jsonl")));
    expect(said(), "<function>2");
    static const char zed[] = "{\"messages\": [{\"role\": \"Zed\", \"content\": \"a\"}]}";
    put(at("one.jsonl"), zed, sizeof zed - 1);
    hone(2, "generate " STORIES " --prompts %s --chat-template %s", at("one.jsonl"),
         at("asked.jinja"));
    expect(complained(), "one.jsonl:1: message 1 has the unknown role 'Zed'");
    assert_null(strstr(complained(), "on_bad_row"));
}

/* transformers' list of named templates is llama.cpp's keys. */
static void test_named_templates(void **state) {
    (void)state;
    grown_model("named",
                json_pack("[{s:s, s:s}, {s:s, s:s}]", "name", "default", "template", other_template,
                          "name", "tool_use", "template", "TOOLS{{ tools | tojson }}"),
                NULL);
    hone(0, "export %s --format gguf --output %s", at("named"), at("named.gguf"));
    struct gguf g = {0};
    struct err e = {0};
    struct arena a = {0};
    i64 count = 1;
    assert_int_equal(0, gguf_open(&g, at("named.gguf"), &e));
    assert_string_equal(other_template, gguf_text(&g, "tokenizer.chat_template", "", &a, "", &e));
    assert_string_equal("TOOLS{{ tools | tojson }}",
                        gguf_text(&g, "tokenizer.chat_template.tool_use", "", &a, "", &e));
    assert_non_null(gguf_texts(&g, "tokenizer.chat_templates", &count, &a, "", &e));
    /* rows of the model that no token has */
    const struct gguf_text *token = gguf_texts(&g, "tokenizer.ggml.tokens", &count, &a, "", &e);
    assert_int_equal(520, count);
    assert_memory_equal("[PAD514]", token[514].data, 8);
    gguf_close(&g), arena_free(&a);
    prompt_is(at("named.gguf"), "OTHER user: hi\n");
}

/* Where the template ends an answer with text, generate stops there as chat does, and plain
 * continuations go on. */
static void test_stops_of_templates(void **state) {
    (void)state;
    static const char dot[] = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
                              "{% else %}{{ m.content + '.' }}{% endif %}{% endfor %}";
    put(at("dot.jinja"), dot, sizeof dot - 1);
    hone(0, "generate " STORIES " --prompts %s --chat-template %s --json --greedy --quiet",
         at("asked.jsonl"), at("dot.jinja"));
    struct err e = {0};
    json_t *row = json_parse(said(), (i64)strlen(said()), "stdout", &e);
    char answer[512];
    snprintf(answer, sizeof answer, "%s", json_string_value(json_object_get(row, "text")));
    json_decref(row);
    assert_null(strchr(answer, '.'));
    assert_int_equal(0, shell("printf 'hi\\n' | ./hone chat " STORIES
                              " --chat-template %s --greedy --quiet --max-new-tokens 128",
                              at("dot.jinja")));
    assert_memory_equal(said(), answer, strlen(answer));
    hone(0, "generate " STORIES " --prompt 'The cat' --chat-template %s --greedy --quiet",
         at("dot.jinja"));
    expect(said(), "park. They");
}

/* A continuation begins within the text, be the tokenizer a SentencePiece one of any file. */
static void test_first_space(void **state) {
    (void)state;
    hone(0, "export " STORIES " --format gguf --type f32 --output %s", at("stories.gguf"));
    hone(0, "export " STORIES " --format gguf --type q4_k --output %s", at("q4.gguf"));
    expect(complained(), "note: 36 of 36 matrices are not in q4_k: their rows are no whole blocks");
    put(at("cat.jsonl"), "{\"prompt\": \"The cat\"}\n", 22);
    for (int i = 0; i < 2; i++) {
        const char *model = i ? at("stories.gguf") : STORIES;
        hone(0, "generate %s --prompt 'The cat' --greedy --quiet --max-new-tokens 8", model);
        assert_memory_equal(said(), "The cat and a boy", 17);
        hone(0, "generate %s --prompt 'The cat' --greedy --json --quiet --max-new-tokens 8", model);
        expect(said(), "\"text\": \" and a boy");
        hone(0, "generate %s --prompts %s --greedy --json --quiet --max-new-tokens 8", model,
             at("cat.jsonl"));
        expect(said(), "\"text\": \" and a boy");
        hone(0, "generate %s --prompt 'Once' --greedy --quiet --max-new-tokens 4", model);
        assert_memory_equal(said(), "Once upon a", 11);
    }
}

static void test_stop_flags(void **state) {
    (void)state;
    static const struct {
        const char *flags, *want;
    } rows[] = {{"--stop ' boy' --stop ' a'", "The cat and\n"},
                {"--stop ' a' --stop 'boy'", "The cat\n"},
                {"--stop ' boy' --stop 'girl'", "The cat and a\n"}};
    for (int i = 0; i < COUNT(rows); i++) {
        hone(0, "generate " STORIES " --prompt 'The cat' --greedy --quiet %s", rows[i].flags);
        if (i != 0) assert_string_equal(rows[i].want, said());
    }
    hone(0, "generate " STORIES " --prompt 'Once' --greedy --quiet --stop ,");
    assert_string_equal("Once upon a time\n", said());
    hone(0, "generate " STORIES " --prompt 'Once' --greedy --quiet --stop 'time, there'");
    assert_string_equal("Once upon a \n", said());
}

/* generation_config.json says how texts are sampled; flags go before it. */
static void test_generation_config(void **state) {
    (void)state;
    char first[2][1024];
    assert_int_equal(0, shell("cp -r " STORIES " %s", at("gc")));
    char config[512];
    snprintf(config, sizeof config, "%s", at("gc/generation_config.json"));
    json_put(config, json_pack("{s:b, s:i, s:i, s:i, s:n}", "do_sample", 0, "top_k", 1,
                               "eos_token_id", 2, "num_beams", 3, "forced_eos_token_id"));
    for (int i = 0; i < 2; i++) {
        hone(0, "generate %s --prompt 'Once upon a time' --seed %d", at("gc"), i + 1);
        snprintf(first[i], sizeof first[i], "%s", said());
        expect(complained(), "the most likely token each time; flags go before it; not followed: "
                             "num_beams");
    }
    assert_string_equal(first[0], first[1]);
    hone(0, "generate %s --prompt 'Once upon a time' --seed 1 --temperature 1 --top-k 0", at("gc"));
    assert_true(strcmp(first[0], said()));
    json_put(config, json_pack("{s:f, s:i, s:s}", "temperature", 0.7, "max_new_tokens", 3,
                               "stop_strings", " upon"));
    hone(0, "generate %s --prompt 'Once' --seed 1", at("gc"));
    expect(complained(), "temperature 0.7, top_k 50, top_p 1, max_new_tokens 3, stops at ' upon'");
    hone(0, "generate %s --prompt 'Once' --greedy", at("gc"));
    assert_string_equal("Once\n", said());
    hone(0, "generate %s --prompt 'The' --greedy --json", at("gc"));
    json_put(config, json_pack("{s:b, s:f, s:i}", "do_sample", 1, "temperature", 0.5, "top_k", 7));
    hone(0, "export %s --format gguf --type f32 --output %s --quiet", at("gc"), at("gc.gguf"));
    hone(0, "generate %s --prompt 'Once' --max-new-tokens 2", at("gc.gguf"));
    expect(complained(), "note: gc.gguf: temperature 0.5, top_k 7, top_p 1; flags go before it");
    json_put(config, json_pack("{s:s}", "temperature", "warm"));
    hone(2, "generate %s --prompt 'Once'", at("gc"));
    expect(complained(), "generation_config.json: \"temperature\" is \"warm\"");
}

/* A run goes on under another name and in another folder; so it is verified. */
static void test_moved_run(void **state) {
    (void)state;
    hone(0, TRAIN "model_name_or_path=" STORIES " chat_template=alpaca output_dir=%s",
         at("empty.yaml"), at("chat.jsonl"), at("before"));
    assert_int_equal(0, shell("mkdir %s && mv %s %s", at("deep"), at("before"), at("deep/after")));
    hone(0,
         TRAIN "model_name_or_path=" STORIES " chat_template=alpaca output_dir=%s max_steps=4 "
               "resume_from_checkpoint=auto",
         at("empty.yaml"), at("chat.jsonl"), at("deep/after"));
    hone(0, "verify %s --replay", at("deep/after"));
    assert_int_equal(0, shell("printf x >> %s", at("deep/after/data/train-0.h5")));
    hone(2,
         TRAIN "model_name_or_path=" STORIES " chat_template=alpaca output_dir=%s max_steps=6 "
               "resume_from_checkpoint=auto",
         at("empty.yaml"), at("chat.jsonl"), at("deep/after"));
}

/* hone eval says of a checkpoint what its run said, however it packed. */
static void test_eval_as_run(void **state) {
    (void)state;
    static const char *const way[] = {"packing=true", "document_mask=false", "packing=false",
                                      "precision=bf16"};
    static const char docs[] = "{\"text\": \"Once upon a time\"}\n{\"text\": \"Lily had a dog\"}\n"
                               "{\"text\": \"The cat and a boy were playing in the park.\"}\n";
    put(at("docs.jsonl"), docs, sizeof docs - 1);
    hone(0, "tokenize %s --tokenizer " STORIES " --output %s --quiet", at("docs.jsonl"),
         at("docs.h5"));
    for (int i = 0; i < COUNT(way); i++) {
        hone(0,
             "train %s model_name_or_path=" STORIES " dataset=%s eval_dataset=%s max_seq_length=24 "
             "eval_steps=1 max_steps=1 output_dir=%s %s --quiet",
             at("empty.yaml"), at("docs.h5"), at("docs.h5"), at("way%d", i), way[i]);
        struct log_rows rows = log_of(at("way%d", i));
        const double want = rows.row[rows.count - 1].eval_loss;
        hone(0, "eval %s --data %s --json", at("way%d/checkpoints/step-000001", i), at("docs.h5"));
        expect(complained(), "note: as in its run: max_seq_length 24");
        struct err e = {0};
        json_t *j = json_parse(said(), (i64)strlen(said()), "stdout", &e);
        const double got = json_number_value(json_object_get(j, "loss"));
        if (!(got - want < 1e-7 && want - got < 1e-7)) /* 9 digits are said */
            fail_msg("%s: %.17g, the run had %.17g", way[i], got, want);
        json_decref(j), log_rows_free(&rows);
    }
}

static int set_up(void **state) {
    const int rc = tiny_folder(state);
    if (!rc) chat_rows();
    return rc;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_travels),  cmocka_unit_test(test_named_templates),
        cmocka_unit_test(test_asked_as_trained),  cmocka_unit_test(test_stops_of_templates),
        cmocka_unit_test(test_first_space),       cmocka_unit_test(test_stop_flags),
        cmocka_unit_test(test_generation_config), cmocka_unit_test(test_moved_run),
        cmocka_unit_test(test_eval_as_run)};
    return cmocka_run_group_tests(tests, set_up, tiny_remove);
}
