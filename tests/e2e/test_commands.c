/* test_commands.c: every command as a user types it, on one tiny run: exit codes 0, 1 and 2, and
 * output that says what it should. What the numbers are is other tests' business, except where two
 * commands must agree. */
#include "tests/e2e/tiny_run.h"

#include <jansson.h>

static const char *model(void) { return at("full/checkpoints/step-000008"); }
static const char *adapter(void) { return at("lora/checkpoints/step-000004"); }

static json_t *said_json(void) {
    struct err e = {0};
    json_t *j = json_open(at("stdout"), &e);
    if (!j) fail_msg("%s: %s", e.primary, said());
    return j;
}
static double number(const char *key) {
    json_t *j = said_json(), *value = json_object_get(j, key);
    if (!json_is_number(value)) fail_msg("no number %s in %s", key, said());
    const double x = json_number_value(value);
    json_decref(j);
    return x;
}

static const char *const names[] = {"train",  "tokenize", "tokenizer", "generate", "eval",
                                    "export", "inspect",  "verify",    "report",   "forward",
                                    "encode", "decode",   "bench",     "doctor",   "help"};
static void help(void **state) {
    (void)state;
    hone(0, "help");
    for (int i = 0; i < COUNT(names); i++) expect(said(), names[i]);
    expect(said(), "Exit codes");
    for (int i = 0; i < COUNT(names); i++) {
        char head[64], *whole;
        snprintf(head, sizeof head, "hone %s ", names[i]);
        hone(0, "help %s", names[i]);
        assert_memory_equal(head, said(), strlen(head) - 1);
        whole = strdup(said());
        hone(0, "%s --help", names[i]);
        assert_string_equal(whole, said());
        free(whole);
    }
    hone(0, "help train");
    for (const struct option *o = recipe_options; o->key; o++) expect(said(), o->key);
    hone(2, "help nothing");
    hone(2, "trian x.yaml");
    expect(complained(), "did you mean `hone train`");
    hone(2, "--isa nothing doctor");
    hone(2, "--device cuda doctor");
    hone(2, "--threads");
    hone(2, "train");
    hone(2, "verify");
}

static void doctor(void **state) {
    (void)state;
    hone(0, "doctor --threads 2");
    for (int i = 0; i <= (int)isa_best(); i++) expect(said(), isa_name[i]);
    expect(said(), "numerics_version");
    hone(0, "doctor --isa plain");
    expect(said(), "plain (in use)");
    hone(2, "doctor now");
}

static void inspect(void **state) {
    (void)state;
    hone(0, "inspect ops");
    for (int i = 0; i < op_count; i++) expect(said(), op_table[i]->name);
    hone(0, "inspect ops --json");
    json_t *j = said_json();
    assert_int_equal(op_count, json_array_size(j));
    json_decref(j);
    hone(0, "inspect families");
    expect(said(), "Olmo2ForCausalLM");
    hone(0, "inspect %s", model());
    expect(said(), "olmo2 (Olmo2ForCausalLM)");
    hone(0, "inspect %s --tensors", model());
    expect(said(), "model.layers.1.mlp.down_proj.weight");
    hone(0, "inspect %s --json", model());
    assert_true(number("layers") == 2 && number("vocab_size") == 600);
    hone(0, "inspect %s", adapter());
    expect(said(), "rank 4, alpha 16, scale 4");
    hone(0, "inspect %s", at("full"));
    char state_start[17];
    snprintf(state_start, sizeof state_start, "%.16s", manifest_of(model()).state_sha256);
    expect(said(), state_start);
    hone(0, "inspect %s/model.safetensors", model());
    expect(said(), "[600, 48]");
    hone(0, "inspect " TINY_TOKENIZER);
    hone(0, "inspect %s --tokens 5 --tokenizer " TINY_TOKENIZER, at("packed.h5"));
    expect(said(), "\033[90m|"); /* our own colours are no text to be made harmless */
    assert_null(strstr(said(), "\\u001b"));
    expect(said(), "documents");
    put(at("data.yaml"), "include: full.yaml\ndataset: [corpus.txt]\n", 41);
    hone(0, "inspect %s", at("data.yaml"));
    expect(said(), "\"learning_rate\": 0.003");
    hone(2, "inspect %s", at("nothing"));
    hone(2, "inspect %s", tiny);
}

static void encode_and_decode(void **state) {
    (void)state;
    static const char text[] = "{\"text\":\"First Citizen:\\n  h\\u00e9llo \\u4f60\\u597d\"}\n"
                               "{\"text\":\"\"}\n{\"text\":\"We know't, we know't.\"}\n";
    put(at("in"), text, (i64)strlen(text));
    hone(0, "encode " TINY_TOKENIZER " < %s", at("in"));
    expect(said(), "{\"ids\": []}\n");
    put(at("ids"), said(), path_size(at("stdout")));
    hone(0, "decode " TINY_TOKENIZER " < %s", at("ids"));
    expect(said(), "{\"text\": \"We know't, we know't.\"}\n");
    json_t *want = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL),
           *got = json_loads(said(), JSON_DISABLE_EOF_CHECK, NULL);
    assert_true(json_equal(want, got));
    json_decref(want), json_decref(got);
    put(at("in"), "{\"hex\":\"c3a9ff\"}\n", 17);
    hone(0, "encode " TINY_TOKENIZER " --offsets < %s", at("in"));
    expect(said(), "], \"offsets\": [[0, 2], [0, 2], [2, 3], [2, 3], [2, 3]]}\n");
    put(at("in"), "{\"ids\":[-1]}\n", 13);
    hone(2, "decode " TINY_TOKENIZER " < %s", at("in"));
    expect(complained(), "line 1 of standard input");
    put(at("in"), "{\"ids\":[600]}\n", 14);
    hone(2, "decode " TINY_TOKENIZER " < %s", at("in"));
    put(at("in"), "[\n", 2);
    hone(2, "encode " TINY_TOKENIZER " < %s", at("in"));
    hone(2, "encode %s < /dev/null", at("nothing"));
}

static void generate(void **state) {
    (void)state;
    static const char words[] = "--prompt 'First Citizen:' --max-new-tokens 24 --ignore-eos";
    char first[4096];
    hone(0, "generate %s %s --seed 3", model(), words);
    strcpy(first, said());
    expect(first, "First Citizen:");
    assert_true(strlen(first) > 24);
    hone(0, "generate %s %s --seed 3 --threads 3 --isa plain --eager", model(), words);
    assert_string_equal(first, said());
    hone(0, "generate %s %s --seed 4", model(), words);
    assert_string_not_equal(first, said());
    hone(0, "generate %s %s --greedy", model(), words);
    strcpy(first, said());
    hone(0, "generate %s %s --temperature 0 --seed 9", model(), words);
    assert_string_equal(first, said());
    hone(0, "generate %s %s --top-k 1 --seed 9", model(), words);
    assert_string_equal(first, said());
    hone(0, "generate %s %s --greedy --json", model(), words);
    json_t *j = said_json();
    assert_int_equal(24, json_array_size(json_object_get(j, "ids")));
    expect(first, json_string_value(json_object_get(j, "text")));
    json_decref(j);
    hone(0, "generate %s %s --greedy --precision bf16", model(), words);
    hone(0, "generate %s --max-new-tokens 2", model()); /* from the start token */
    hone(2, "generate %s %s --temperature -1", model(), words);
    hone(2, "generate %s %s --precision fp9", model(), words);
    hone(2, "generate %s %s", at("nothing"), words);
    hone(2, "generate %s %s --adapter %s", model(), words, at("nothing"));
}

/* Base, base with adapter, the LoRA checkpoint by itself, merged: the last three are one model. */
static void evaluate_and_export(void **state) {
    (void)state;
    char line[600];
    snprintf(line, sizeof line, "--data %s --max-seq-length 64 --json", at("packed.h5"));
    hone(0, "eval %s %s", model(), line);
    const double base = number("loss"), tokens = number("tokens");
    hone(0, "eval %s %s --adapter %s", model(), line, adapter());
    const double adapted = number("loss");
    hone(0, "eval %s %s", adapter(), line);
    assert_true(adapted == number("loss") && tokens == number("tokens"));
    assert_true(base > 1 && adapted < base && tokens > 10000);
    hone(0, "export %s --adapter %s --output %s --json", model(), adapter(), at("merged"));
    assert_true(number("kl") < 1e-8 && number("kl") > -1e-8 && number("top1_agreement") > 0.99);
    hone(0, "eval %s %s", at("merged"), line);
    assert_true(number("loss") - adapted < 1e-5 && adapted - number("loss") < 1e-5);
    hone(0, "export %s --output %s --precision bf16 --json", adapter(), at("merged-bf16"));
    assert_true(number("kl") < 1e-3);
    hone(0, "eval %s %s --precision bf16", at("merged-bf16"), line);
    assert_true(number("loss") - adapted < 0.02 && adapted - number("loss") < 0.02);
    hone(0, "generate %s --adapter %s --prompt All --greedy --max-new-tokens 8 --quiet", model(),
         adapter());
    char *text = strdup(said());
    hone(0, "generate %s --prompt All --greedy --max-new-tokens 8 --quiet", at("merged"));
    assert_string_equal(text, said());
    free(text);
    hone(2, "export %s --output %s", model(), at("merged"));
    expect(complained(), "exists already");
    hone(1, "export %s --output %s --precision bf16 --max-kl 0", adapter(), at("no"));
    assert_false(path_exists(at("no")));
    hone(2, "export %s", model());
    hone(2, "eval %s", model());
}

static void tokenizer_and_tokenize(void **state) {
    (void)state;
    hone(0, "tokenizer train " TINY_CORPUS " --vocab-size 300 --pattern gpt2 --output %s",
         at("new.json"));
    expect(said(), "300 entries");
    hone(0, "tokenize " TINY_CORPUS " --tokenizer %s --output %s --json", at("new.json"),
         at("new.h5"));
    const double all = number("tokens");
    assert_true(all > 20000 && number("documents") == 1);
    hone(0,
         "tokenize %s --tokenizer %s --output %s --validation 0.2 --validation-output %s "
         "--quiet",
         at("sft.jsonl"), at("new.json"), at("a.h5"), at("b.h5"));
    hone(2, "tokenize %s --tokenizer %s --output %s --validation 0.2", at("sft.jsonl"),
         at("new.json"), at("c.h5"));
    assert_int_equal(0, shell("cd %s && mkdir -p set/data && echo text > set/data/test-0.csv && "
                              "printf 'text,id\\na,1\\nb\\n' > set/data/train-0.csv && printf "
                              "'text\\nc\\n' > set/data/train-1.csv && echo a > set/LICENSE",
                              tiny));
    hone(0, "tokenize %s --tokenizer %s --output %s --on-bad-row skip", at("set"), at("new.json"),
         at("set.h5"));
    expect(complained(), "set: 2 files read, 2 not read: LICENSE, data/test-0.csv\n");
    expect(complained(), "data/train-0.csv: 2 rows, 1 document\n");
    expect(complained(), "1 field, and the header names 2 columns (1 time, data/train-0.csv:3)");
    expect(complained(), "set: 2 files, 3 rows\n");
    hone(2, "tokenizer train " TINY_CORPUS " --vocab-size 100 --output %s", at("small.json"));
    hone(2, "tokenizer learn " TINY_CORPUS " --output %s", at("small.json"));
    hone(2, "tokenizer train %s --output %s", at("nothing"), at("small.json"));
    hone(2, "eval %s --data %s", model(), at("new.h5")); /* of another tokenizer */
    put(at("line.txt"), "a line", 6);
    hone(0, "tokenize $(yes %s | head -n 5000) --tokenizer %s --output %s", at("line.txt"),
         at("new.json"), at("many.h5"));
    expect(said(), "5000 documents");
    static const char talk[] = "[{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}]";
    put(at("talk.json"), talk, sizeof talk - 1);
    hone(0, /* a template in place of a file's name, and too long to be one */
         "tokenize %s --tokenizer %s --output %s --assistant-only-loss=false "
         "--chat-template '{# %0300d #}{{ messages[0].content }}'",
         at("talk.json"), at("new.json"), at("talk.h5"), 0);
}

static void report_and_verify(void **state) {
    (void)state;
    hone(0, "verify %s --replay --threads 3", at("full"));
    expect(said(), "equals the published one");
    assert_non_null(strstr(text_of(at("full/verify.jsonl")), "\"check\": \"replay\""));
    hone(0, "report %s", at("full"));
    const char *page = text_of(at("full/report.html"));
    expect(page, "<html");
    expect(page, sha_of(at("full/checkpoints/step-000008/manifest.json")));
    assert_null(strstr(page, "src=\"http"));
    hone(0, "report %s %s --output %s", at("full"), at("lora"), at("both.html"));
    assert_true(path_size(at("both.html")) > 10000);
    hone(2, "report %s", at("nothing"));
    hone(2, "verify %s", at("nothing"));
    assert_true(path_exists(at("full/log.csv")) && path_is_dir(at("full/tensorboard")));
    /* Somebody else's run: a link or a pipe where results are noted. */
    assert_int_equal(0, shell("cd %s && cp -r lora hers && rm -f hers/verify.jsonl && "
                              "echo mine > mine && ln -s ../mine hers/verify.jsonl",
                              tiny));
    hone(2, "verify %s", at("hers"));
    expect(complained(), "verify.jsonl is not a regular file");
    assert_string_equal("mine\n", text_of(at("mine")));
    assert_int_equal(0, shell("cd %s/hers && rm verify.jsonl && mkfifo verify.jsonl", tiny));
    hone(2, "verify %s", at("hers"));
    expect(complained(), "verify.jsonl is not a regular file");
}

/* A run in the folder of a whole project: its data and model have no names that the run writes. */
static void run_in_a_project(void **state) {
    (void)state;
    assert_int_equal(0, shell("mkdir -p %s/project/data && cp %s %s/project/data && "
                              "cp -r %s %s/project/model",
                              tiny, at("packed.h5"), tiny, model(), tiny));
    hone(0, "train %s model_name_or_path=%s dataset.0.path=%s output_dir=%s --quiet",
         at("lora.yaml"), at("project/model"), at("project/data/packed.h5"), at("project"));
    hone(0, "verify %s", at("project"));
    assert_string_equal(sha_of(at("project/model/model.safetensors")),
                        sha_of(at("full/checkpoints/step-000008/model.safetensors")));
}

static void forward(void **state) {
    (void)state;
    static const char llama[] = "tests/golden/models/llama";
    hone(0, "forward %s --ids %s/golden.safetensors --out %s --grad --generate 4", llama, llama,
         at("out.safetensors"));
    struct safetensors s = {0};
    struct err e = {0};
    assert_int_equal(0, safetensors_open(&s, at("out.safetensors"), &e));
    assert_non_null(safetensors_find(&s, "logits"));
    assert_non_null(safetensors_find(&s, "loss"));
    assert_non_null(safetensors_find(&s, "grad.lm_head.weight"));
    assert_int_equal(4, safetensors_find(&s, "generated")->dim[0]);
    safetensors_close(&s);
    hone(2, "forward %s --ids %s/golden.safetensors", llama, llama);
    hone(2, "forward %s --ids %s/golden.safetensors --out %s", llama, llama, at("out.txt"));
    hone(2, "forward %s --ids %s/model.safetensors --out %s", llama, llama, at("out.safetensors"));
}

/* Every line of --json is JSON, whatever names hold; `path` is the name, with U+FFFD for what is
 * not UTF-8. */
static void lines_are_json(i64 wanted, const char *path) {
    struct err e = {0};
    i64 lines = 0;
    const char *text = said();
    for (const char *p = text, *end; (end = strchr(p, '\n')); p = end + 1, lines++) {
        json_t *j = json_parse(p, end - p, "stdout", &e);
        if (!j) fail_msg("%s in: %s", e.primary, text);
        const char *found = json_string_value(json_object_get(j, path ? "path" : "none"));
        if (path && (!found || strcmp(found, path))) fail_msg("the path is not '%s': %s", path, p);
        json_decref(j);
    }
    if (wanted < 0 ? !lines : lines != wanted)
        fail_msg("%d lines, expected %d: %s", (int)lines, (int)wanted, text);
}

static void names_in_json(void **state) {
    (void)state;
    static const char *const odd[][2] = {
        {"q\"b\\n\nt\t\xc3\xa9\x01{}", "q\"b\\n\nt\t\xc3\xa9\x01{}"},
        {"x\xff\xe4\xbdy", "x\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdy"}};
    char dir[300], shown[300], model_at[320], line[1200];
    for (int i = 0; i < COUNT(odd); i++) {
        snprintf(dir, sizeof dir, "%s/%s", tiny, odd[i][0]);
        snprintf(shown, sizeof shown, "%s/%s/out", tiny, odd[i][1]);
        snprintf(model_at, sizeof model_at, "%s/m\nodel\"", dir);
        assert_int_equal(dir_make(dir, &(struct err){0}), 0);
        snprintf(line, sizeof line, "cp -r '%s' '%s' && cp " TINY_TOKENIZER " '%s/t\\.json'",
                 model(), model_at, dir);
        assert_int_equal(shell("%s", line), 0);
        hone(0, "tokenize %s --tokenizer '%s/t\\.json' --output '%s/out' --json", at("sft.jsonl"),
             dir, dir);
        lines_are_json(1, shown);
        hone(0,
             "tokenize %s --tokenizer '%s/t\\.json' --output '%s/out' --validation 0.5 "
             "--validation-output '%s/out2' --json",
             at("sft.jsonl"), dir, dir, dir);
        lines_are_json(2, NULL);
        hone(0, "eval '%s' --data '%s' --json", model_at, at("packed.h5"));
        lines_are_json(1, NULL);
        hone(0, "inspect '%s' --json", model_at);
        lines_are_json(1, NULL);
        hone(0, "generate '%s' --tokenizer '%s/t\\.json' --prompt '\"\\' --max-new-tokens 2 --json",
             model_at, dir);
        lines_are_json(1, NULL);
        hone(0, "encode '%s/t\\.json' --json < %s", dir, at("text.jsonl"));
        lines_are_json(1, NULL);
        hone(0, "bench tokenizer --tokenizer '%s/t\\.json' --text %s --seconds 0.01 --json", dir,
             at("text.jsonl"));
        lines_are_json(-1, NULL);
        snprintf(line, sizeof line, "rm '%s/out'", dir);
        assert_int_equal(shell("%s", line), 0);
        hone(0, "export '%s' --adapter %s --output '%s/out' --json", model_at, adapter(), dir);
        lines_are_json(1, shown);
    }
    hone(0, "chat %s --chat-template chatml --max-new-tokens 2 --json < %s", model(),
         at("text.jsonl"));
    lines_are_json(1, NULL);
}

static void profile(void **state) {
    (void)state;
    hone(0, "eval %s --data %s --max-seq-length 64 --profile", model(), at("packed.h5"));
    expect(complained(), "linear_xent");
}

static int set_up(void **state) {
    if (tiny_folder(state)) return -1;
    tiny_data();
    tiny_recipe(at("full.yaml"));
    hone(0,
         "train %s max_steps=8 save_steps=4 save_at=0,1 tokenizer=" TINY_TOKENIZER
         " dataset.0.path=%s eval_dataset.0.path=%s eval_steps=4 eval_batches=2 "
         "report_to=tensorboard,csv sample_prompts=All sample_tokens=4 output_dir=%s",
         at("full.yaml"), at("packed.h5"), at("packed.h5"), at("full"));
    expect(said(), "step 8/8  validation loss");
    expect(said(), "done: step 8; peak memory");
    static const char lora[] = "use_peft: true\nlora_r: 4\nlora_alpha: 16\nmax_seq_length: 64\n"
                               "global_batch_size: 8\nmax_steps: 4\nlearning_rate: 1.0e-2\n";
    put(at("lora.yaml"), lora, (i64)strlen(lora));
    hone(0, "train %s model_name_or_path=%s dataset.0.path=%s output_dir=%s --quiet",
         at("lora.yaml"), model(), at("packed.h5"), at("lora"));
    static const char row[] = "{\"text\": \"a \\u00e9\"}\n";
    put(at("text.jsonl"), row, sizeof row - 1);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help),
        cmocka_unit_test(doctor),
        cmocka_unit_test(inspect),
        cmocka_unit_test(encode_and_decode),
        cmocka_unit_test(generate),
        cmocka_unit_test(evaluate_and_export),
        cmocka_unit_test(tokenizer_and_tokenize),
        cmocka_unit_test(report_and_verify),
        cmocka_unit_test(run_in_a_project),
        cmocka_unit_test(forward),
        cmocka_unit_test(names_in_json),
        cmocka_unit_test(profile),
    };
    return cmocka_run_group_tests_name("commands", tests, set_up, tiny_remove);
}
