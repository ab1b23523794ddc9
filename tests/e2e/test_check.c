/* test_check.c: `hone check` finds what a recipe would do: rows, who speaks, ends, copies, cuts,
 * memory, disk; says what would waste the run; proves packing and accumulation; leaves nothing. */
#include "tests/e2e/tiny_run.h"

#include <math.h>

static json_t *found; /* what the last check printed */

/* `hone check WHAT` must end with this code. */
PRINTF(2, 3) static void check(int code, const char *fmt, ...) {
    char line[2048];
    struct err e = {0};
    FORMAT(line, fmt);
    json_decref(found), found = NULL;
    hone(code, "check %s --json", line);
    if (code == 2) return;
    const char *text = said();
    if (!(found = json_parse(text, (i64)strlen(text), "check", &e))) fail_msg("%s", e.primary);
}

/* The n-th row of that label in the sections whose titles begin so. */
static const json_t *row(const char *title, const char *label, int n) {
    const json_t *section, *one;
    size_t i, k;
    json_array_foreach(json_object_get(found, "sections"), i, section) {
        const char *own = json_string_value(json_object_get(section, "title"));
        if (strncmp(own, title, strlen(title))) continue;
        json_array_foreach(
            json_object_get(section, "rows"), k,
            one) if (!strcmp(json_string_value(json_object_get(one, "label")), label) &&
                     !n--) return one;
    }
    return NULL;
}
static void is(const char *title, const char *label, const char *level, const char *part) {
    const json_t *one = NULL;
    for (int n = 0; (one = row(title, label, n)); n++)
        if (strstr(json_string_value(json_object_get(one, "value")), part)) break;
    if (!one) fail_msg("no row '%s' of '%s' has '%s':\n%s", label, title, part, said());
    if (strcmp(json_string_value(json_object_get(one, "level")), level))
        fail_msg("'%s' is not %s:\n%s", label, level, said());
}
static void suggested(const char *line) {
    const json_t *one;
    size_t i;
    json_array_foreach(
        json_object_get(found, "suggestions"), i,
        one) if (!strcmp(json_string_value(json_object_get(one, "line")), line)) return;
    fail_msg("'%s' is not suggested:\n%s", line, said());
}

/* 40 conversations; the last two are copies, and the one before has no answer. */
static void chats(const char *path) {
    struct text t = {0};
    struct err e = {0};
    for (int i = 0; i < 40; i++) {
        const int k = i < 38 ? i : 0;
        text_printf(
            &t, &e,
            "{\"messages\": [{\"role\": \"system\", \"content\": \"Be short.\"}, {\"role\": "
            "\"user\", \"content\": \"Number %d? \"}%s], \"id\": %d}\n",
            k,
            i == 37 ? ""
                    : ", {\"role\": \"assistant\", \"content\": \"It is <one>.\"}, "
                      "{\"role\": \"user\", \"content\": \"Sure?\"}, {\"role\": "
                      "\"assistant\", \"content\": \"Yes.\"}",
            i);
    }
    put(path, t.data, t.size);
    text_free(&t);
}

static const char stories[] = "model_name_or_path=recipes/data/stories260K";

static void test_data(void **state) {
    (void)state;
    static const char strips[] =
        "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content | trim }}"
        "</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
    check(0, "%s", at("chat.yaml"));
    is("training data", "rows", "note", "40 read, 1 left out");
    is("training data", "documents", "fine", "39, ");
    is("training data", "trained tokens", "fine", "assistant 8");
    is("training data", "trained tokens", "fine", "not at all: system, user");
    is("training data", "stop token", "fine", "ends 100.0 % of 78 trained texts");
    is("what was said", "note", "note", "the assistant says nothing (1 time, line 38)");
    is("what was said", "note", "note", "column 'id' of ");
    is("training against", "duplicates", "note", "5.1 % of 39 training documents");
    is("training against", "evaluation", "note", "no data for it");
    suggested("val_set_size: 0.05");
    assert_int_equal(2, json_array_size(json_object_get(found, "samples")));
    const json_t *section = json_array_get(json_object_get(found, "sections"), 0), *bin;
    i64 documents = 0;
    size_t i;
    json_array_foreach(json_object_get(section, "lengths"), i, bin) documents +=
        json_integer_value(json_object_get(bin, "count"));
    assert_int_equal(39, documents);
    /* a template that strips, drops and says so */
    put(at("strips.jinja"), strips, (i64)strlen(strips));
    check(0, "%s chat_template=%s", at("chat.yaml"), at("strips.jinja"));
    is("what was said", "note", "note", "removes white space at the ends of a message (39 times");
    is("what was said", "note", "note", "leaves out or rewrites what the system says (39 times");
    /* prompts with completions, of which some are tokenised otherwise apart */
    check(0, "%s dataset=%s val_set_size=0.2", at("chat.yaml"), at("sft.jsonl"));
    is("training data", "prompt + completion", "fine", "tokenised as one text; of ");
    is("training data", "trained tokens", "fine", "completions 100.0 % (100 % of theirs)");
    is("evaluation data", "rows", "fine", " read, 0 left out");
    is("training against", "overlap", "fine", "0.0 % of ");
}

static void test_waste(void **state) {
    (void)state;
    static const struct {
        const char *keys, *title, *label, *suggestion;
    } of[] = {
        {"warmup_steps=500", "the run", "learning rate", "warmup_steps: 0"},
        {"dataset=%s/sft.jsonl max_seq_length=16", "training data", "too long", NULL},
        {"max_seq_length=32", "the run", "it cannot begin", NULL},
        {"eval_dataset=%s/chat.jsonl", "training against", "overlap", NULL},
        {"use_peft=true lora_target_modules=nothing", "the run", "it cannot begin", NULL},
        {"dataset=%s/endless.h5", "training data", "stop token", NULL},
    };
    hone(0,
         "tokenize %s --tokenizer recipes/data/stories260K --completion-only-loss --add-eos=false "
         "--output %s --quiet",
         at("sft.jsonl"), at("endless.h5"));
    for (int i = 0; i < COUNT(of); i++) {
        char keys[600];
        const char *folder = strstr(of[i].keys, "%s");
        snprintf(keys, sizeof keys, "%.*s%s%s", folder ? (int)(folder - of[i].keys) : 500,
                 of[i].keys, folder ? tiny : "", folder ? folder + 2 : "");
        check(1, "%s %s", at("chat.yaml"), keys);
        is(of[i].title, of[i].label, "waste", "");
        if (of[i].suggestion) suggested(of[i].suggestion);
        expect(complained(), "would waste this run");
    }
    /* a model that is not there to be opened: its data is looked at all the same */
    check(1, "%s/big.yaml dataset=%s on_bad_row=skip", tiny, at("chat.jsonl"));
    is("training data", "rows", "note", "40 read, 1 left out");
    is("the run", "it cannot begin", "waste", "the machine has ");
    hone(2, "check %s dataset=%s", at("chat.yaml"), at("nothing.jsonl"));
    hone(2, "check %s on_bad_row=error", at("chat.yaml"));
    expect(complained(), "chat.jsonl:38: the assistant says nothing");
    put(at("broken.jinja"), "{% if messages %}", 17); /* which is no row's fault */
    hone(2, "check %s chat_template=%s", at("chat.yaml"), at("broken.jinja"));
    expect(complained(), "broken.jinja");
    assert_null(strstr(complained(), "left out"));
    hone(2, "check");
    expect(complained(), "usage: hone check");
}

static double mib_of(const char *title, const char *label, const char *after) {
    const json_t *one = row(title, label, 0);
    assert_non_null(one);
    const char *text = json_string_value(json_object_get(one, "value")),
               *from = strstr(text, after);
    assert_non_null(from);
    return strtod(from + strlen(after), NULL);
}

/* The plan is the run's, and a checkpoint is as large as was said. */
static void test_cost(void **state) {
    (void)state;
    for (int peft = 0; peft < 2; peft++) {
        const char *keys = peft ? "use_peft=true lora_r=4 max_steps=2" : "max_steps=2";
        check(0, "%s %s %s", at("chat.yaml"), stories, keys);
        const double memory = mib_of("what it takes", "memory", ""),
                     one = mib_of("what it takes", "checkpoint", "");
        hone(0, "train %s %s %s output_dir=%s", at("chat.yaml"), stories, keys, at("cost%d", peft));
        expect(said(), "chat.jsonl: 39 documents of ");
        expect(said(), "; of the first 39, 100 % of trained texts end with a stop token");
        const double planned = strtod(strstr(said(), "planned peak ") + 13, NULL);
        assert_true(fabs(memory - planned) <= 1);
        double bytes = 0;
        static const char *const file[] = {"model.safetensors", "adapter_model.safetensors",
                                           "state.h5"};
        for (int i = 0; i < COUNT(file); i++)
            bytes += (double)i64_max(
                0, path_size(at("cost%d/checkpoints/step-000002/%s", peft, file[i])));
        assert_true(one * (1 << 20) >= bytes && one * (1 << 20) < bytes + (2 << 20));
    }
}

static void test_proof(void **state) {
    (void)state;
    check(0, "packing %s", at("chat.yaml"));
    is("packed against alone", "losses", "fine", "each the bits that it has alone");
    check(0, "packing %s packing_strategy=wrapped max_seq_length=96", at("chat.yaml"));
    is("packed against alone", "losses", "fine", "each the bits that it has alone");
    check(1, "packing %s document_mask=false", at("chat.yaml"));
    is("packed against alone", "document_mask", "waste", "");
    suggested("document_mask: true");
    check(0, "packing %s packing=false", at("chat.yaml"));
    check(0, "accumulation %s global_batch_size=6 micro_batch_size=6 packing=false",
          at("chat.yaml"));
    is("one step", "micro-batch", "fine", "1: loss ");
    is("one step", "micro-batch", "fine", "3: loss ");
    is("one step", "micro-batch", "fine", "6: loss ");
}

static void test_page(void **state) {
    (void)state;
    hone(0, "check %s --html %s", at("chat.yaml"), at("page.html"));
    expect(said(), "nothing was found that would waste this run\n");
    const char *page = text_of(at("page.html"));
    expect(page, "<h2>training data: ");
    expect(page, "It is &lt;one&gt;.");
    assert_null(strstr(page, "http"));
    assert_null(strstr(page, "<one>"));
}

/* Nothing stays behind, not even of a check that is interrupted. */
static void test_folder(void **state) {
    (void)state;
    char **names;
    i64 count;
    struct err e = {0};
    assert_int_equal(0, shell("mkdir -p %s", at("tmp")));
    hone(0, "check %s --quiet && true", at("chat.yaml"));
    char line[1024];
    assert_int_equal(0, shell("cp %s %s; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat %s %s > %s; "
                              "mv %s %s; done",
                              at("chat.jsonl"), at("much.jsonl"), at("much.jsonl"),
                              at("much.jsonl"), at("twice"), at("twice"), at("much.jsonl")));
    snprintf(line, sizeof line, "TMPDIR=%s exec ./hone check %s dataset=%s", at("tmp"),
             at("chat.yaml"), at("much.jsonl"));
    const pid_t pid = shell_start(line);
    for (int i = 0; i < 2000 && !e.code; i++) {
        assert_int_equal(0, dir_list(at("tmp"), &names, &count, &e));
        names_free(names, count);
        if (count) break;
        usleep(5000);
    }
    assert_int_equal(1, count);
    kill(pid, SIGINT);
    assert_int_equal(-SIGINT, shell_end(pid));
    assert_int_equal(0, dir_list(at("tmp"), &names, &count, &e));
    names_free(names, count);
    assert_int_equal(0, count);
}

static int set_up(void **state) {
    static const char keys[] =
        "model_name_or_path: recipes/data/stories260K\ntask: sft\nchat_template: chatml\n"
        "special_tokens: ['<|im_start|>', '<|im_end|>']\nmax_seq_length: 512\non_bad_row: skip\n"
        "num_train_epochs: 2\nprecision: fp32\n";
    static const char model[] =
        "model: {model_type: llama, hidden_size: 8192, intermediate_size: 28672, "
        "num_hidden_layers: 120, num_attention_heads: 64, num_key_value_heads: 8, "
        "max_position_embeddings: 8192}\ntokenizer: recipes/data/stories260K\ntask: sft\n"
        "chat_template: alpaca\n";
    if (tiny_folder(state)) return -1;
    char recipe[1024];
    snprintf(recipe, sizeof recipe, "%sdataset: %s\noutput_dir: %s\n", keys, at("chat.jsonl"),
             at("run"));
    put(at("chat.yaml"), recipe, (i64)strlen(recipe));
    snprintf(recipe, sizeof recipe, "%soutput_dir: %s\n", model, at("run"));
    put(at("big.yaml"), recipe, (i64)strlen(recipe));
    chats(at("chat.jsonl"));
    tiny_jsonl(120);
    return 0;
}
static int tear_down(void **state) {
    json_decref(found);
    return tiny_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_data), cmocka_unit_test(test_waste),
                                       cmocka_unit_test(test_cost), cmocka_unit_test(test_proof),
                                       cmocka_unit_test(test_page), cmocka_unit_test(test_folder)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
