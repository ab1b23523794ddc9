/* test_serve.c: `hone serve` answers as `hone generate` and `hone chat` do, streamed or not, alone
 * or among many; with probabilities of prompt and answer; says what it cannot follow; and is not
 * impressed by clients that leave, wait, or send what is no request. */
#include "tests/e2e/served.h"

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"

/* What `hone generate --json` says. */
PRINTF(1, 2) static const char *generated(const char *fmt, ...) {
    static char text[4096];
    char arguments[1024];
    FORMAT(arguments, fmt);
    hone(0, "generate %s --json --quiet --threads 1", arguments);
    json_t *j = json_read(said());
    snprintf(text, sizeof text, "%s", json_string_value(json_object_get(j, "text")));
    json_decref(j);
    return text;
}

static void test_same_as_generate(void **state) {
    (void)state;
    struct served s = serve_start(NULL, STORIES " --quiet");
    const char *body = ask(&s, 200, TEXT,
                           "{\"prompt\": \"Once upon a time\", \"max_tokens\": 40, "
                           "\"seed\": 7, \"stop\": \"Tim\"}");
    assert_string_equal(generated(STORIES " --prompt 'Once upon a time' --max-new-tokens 40 "
                                          "--seed 7 --stop Tim"),
                        choice_text(body, 0, "text"));
    body = ask(&s, 200, TEXT,
               "{\"prompt\": [1, 403], \"max_tokens\": 30, \"temperature\": 1.1, \"top_k\": 20, "
               "\"top_p\": 1, \"min_p\": 0.01, \"repetition_penalty\": 1.2, \"seed\": -3, "
               "\"ignore_eos\": true, \"model\": \"stories260K\", \"user\": \"x\"}");
    assert_string_equal(generated(STORIES " --prompt Once --max-new-tokens 30 --temperature 1.1 "
                                          "--top-k 20 --top-p 1 --min-p 0.01 --ignore-eos "
                                          "--repetition-penalty 1.2 --seed -3"),
                        choice_text(body, 0, "text"));
    body = ask(&s, 200, TEXT,
               "{\"prompt\": \"The dog\", \"max_tokens\": 9, \"temperature\": 0, "
               "\"echo\": true}");
    expect(choice_text(body, 0, "text"), "The dog");
    assert_string_equal(generated(STORIES " --prompt 'The dog' --max-new-tokens 9 --greedy"),
                        choice_text(body, 0, "text") + strlen("The dog"));
    expect(body, "\"finish_reason\": \"length\"");
    expect(body, "\"completion_tokens\": 9");
    expect(body, "\"system_fingerprint\": \"hone-");
    assert_int_equal(0, serve_end(&s, SIGTERM));
}

#define MESSAGES "\"messages\": [{\"role\": \"user\", \"content\": \"Tell a story\"}]"
static void test_same_as_chat(void **state) {
    (void)state;
    int events;
    struct served s = serve_start(at("socket"), STORIES " --chat-template chatml --quiet");
    const char *body =
        ask(&s, 200, CHAT, "{" MESSAGES ", \"max_tokens\": 30, \"seed\": 5, \"temperature\": 1}");
    char text[2048];
    snprintf(text, sizeof text, "%s", choice_text(body, 0, "content"));
    put(at("said"), "Tell a story\n", 13);
    hone(0,
         "chat " STORIES " --chat-template chatml --max-new-tokens 30 --seed 5 --temperature 1 "
         "--json --quiet --threads 1 < %s",
         at("said"));
    json_t *j = json_read(said());
    assert_string_equal(json_string_value(json_object_get(j, "content")), text);
    json_decref(j);
    body = ask(&s, 200, CHAT,
               "{" MESSAGES ", \"max_completion_tokens\": 30, \"seed\": 5, \"temperature\": 1, "
               "\"stream\": true, \"stream_options\": {\"include_usage\": true}}");
    assert_string_equal(text, stream_text(body, "content", &events));
    assert_true(events >= 4);
    expect(body, "\"delta\": {\"role\": \"assistant\"");
    expect(body, "\"finish_reason\": \"length\"");
    expect(body, "\"choices\": [], \"usage\": {\"prompt_tokens\": ");
    body = ask(&s, 200, CHAT,
               "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
               "\"text\", \"text\": \"Tell \"}, {\"type\": \"text\", \"text\": \"a "
               "story\"}]}], \"max_tokens\": 30, \"seed\": 5, \"temperature\": 1, "
               "\"n\": 3}");
    assert_string_equal(text, choice_text(body, 0, "content"));
    assert_string_not_equal(text, choice_text(body, 2, "content"));
    expect(ask(&s, 200, "/apply-template", "{" MESSAGES "}"),
           "<|im_start|>user\\nTell a story<|im_end|>\\n<|im_start|>assistant\\n");
    assert_int_equal(0, serve_end(&s, SIGINT));
    assert_false(path_exists(s.path));
}

/* The template puts <think> in front of the answer, whose thought ends at "</think>". */
static void test_thoughts(void **state) {
    (void)state;
    int events;
    static const char template[] =
        "{% for m in messages %}{{ m.content }}{% endfor %}{# </think> #}{{ '<think>\\n' }}";
    put(at("think.jinja"), template, sizeof template - 1);
    struct served s =
        serve_start(at("socket"), STORIES " --chat-template %s --quiet", at("think.jinja"));
    static const char all[] = "{" MESSAGES ", \"max_tokens\": 20, \"stream\": %s}";
    char json[256];
    snprintf(json, sizeof json, all, "false");
    const char *body = ask(&s, 200, CHAT, json);
    char thought[1024];
    snprintf(thought, sizeof thought, "%s", choice_text(body, 0, "reasoning_content"));
    assert_string_equal("", choice_text(body, 0, "content"));
    assert_true(strlen(thought) > 3);
    snprintf(json, sizeof json, all, "true");
    assert_string_equal(thought,
                        stream_text(ask(&s, 200, CHAT, json), "reasoning_content", &events));
    serve_end(&s, SIGTERM);
}

/* The numbers of an answer's tokens are those of the same tokens as a prompt, to the last digit,
 * and the most likely one's is the largest. */
static void test_probabilities(void **state) {
    (void)state;
    struct served s = serve_start(at("socket"), STORIES " --quiet --chunk 3");
    json_t *answer = json_read(ask(&s, 200, TEXT,
                                   "{\"prompt\": [1, 403, 407, 261, 378], \"max_tokens\": 12, "
                                   "\"temperature\": 0, \"logprobs\": 2, \"echo\": true}")),
           *choice = json_array_get(json_object_get(answer, "choices"), 0),
           *scores = json_object_get(choice, "logprobs"),
           *own = json_object_get(scores, "token_logprobs"),
           *tops = json_object_get(scores, "top_logprobs");
    assert_int_equal(17, json_array_size(own)), assert_int_equal(17, json_array_size(tops));
    assert_true(json_is_null(json_array_get(own, 0)));
    for (size_t i = 5; i < 17; i++) {
        double most = -1e9;
        const char *key;
        json_t *value;
        json_object_foreach(json_array_get(tops, i), key, value) most =
            json_real_value(value) > most ? json_real_value(value) : most;
        assert_true(json_real_value(json_array_get(own, i)) == most);
    }
    struct text again = {0};
    struct err e = {0};
    hone(0, "generate " STORIES " --prompt 'Once upon a time' --max-new-tokens 12 --greedy --json "
            "--quiet --threads 1");
    json_t *ids = json_read(said());
    text_printf(&again, &e, "{\"prompt\": [[1, 403, 407, 261, 378");
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(ids, "ids"), i, id)
        text_printf(&again, &e, ", %lld", (long long)json_integer_value(id));
    text_printf(&again, &e, "], [403]], \"max_tokens\": 0, \"logprobs\": 2, \"echo\": true}");
    json_t *read = json_read(ask(&s, 200, TEXT, again.data)),
           *first = json_array_get(json_object_get(read, "choices"), 0);
    assert_true(
        json_equal(own, json_object_get(json_object_get(first, "logprobs"), "token_logprobs")));
    assert_true(
        json_equal(tops, json_object_get(json_object_get(first, "logprobs"), "top_logprobs")));
    assert_true(json_equal(json_object_get(first, "text"), json_object_get(choice, "text")));
    json_decref(read), json_decref(ids), json_decref(answer), text_free(&again);
    serve_end(&s, SIGTERM);
}

/* Each of many at once has the text it has alone. */
static void test_many(void **state) {
    (void)state;
    enum { MANY = 24 };
    static const char all[] = "{\"prompt\": \"%s\", \"max_tokens\": %d, \"seed\": %d, \"stream\": "
                              "%s, \"temperature\": 1, \"ignore_eos\": true}";
    static const char *const prompts[] = {"Once upon a time there was", "Once upon a time", "The",
                                          "Lily and Tom went to the park. They saw a big dog and"};
    struct served s = serve_start(at("socket"), STORIES
                                  " --quiet --max-requests 7 --chunk 5 --kv-memory 1500000");
    int fd[MANY], events;
    char json[MANY][512], *alone[MANY];
    const char *body;
    for (int i = 0; i < MANY; i++) {
        snprintf(json[i], sizeof json[i], all, prompts[i % 4], 20 + i, i, "false");
        alone[i] = strdup(choice_text(ask(&s, 200, TEXT, json[i]), 0, "text"));
        if (i % 3 == 1) snprintf(json[i], sizeof json[i], all, prompts[i % 4], 20 + i, i, "true");
    }
    for (int i = 0; i < MANY; i++)
        fd[i] = serve_send(&s, "POST", TEXT, "", json[i], strlen(json[i]));
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(200, serve_read(fd[i], &body));
        assert_string_equal(alone[i], i % 3 == 1 ? stream_text(body, "text", &events)
                                                 : choice_text(body, 0, "text"));
        free(alone[i]);
    }
    serve_end(&s, SIGTERM);
}

static i64 metric(const struct served *s, const char *name) {
    char line[128];
    snprintf(line, sizeof line, "\nhone_%s ", name);
    const char *found = strstr(ask(s, 200, "/metrics", NULL), line);
    return found ? atoll(found + strlen(line)) : -1;
}

/* Who goes away is no longer computed for; who comes when all places are taken is told so. */
static void test_cancel(void **state) {
    (void)state;
    static const char long_one[] = "{\"prompt\": \"Once\", \"max_tokens\": 500, \"n\": 60, "
                                   "\"ignore_eos\": true, \"stream\": %s}";
    struct served s = serve_start(at("socket"), STORIES " --quiet --max-requests 1 --max-queue 60");
    for (int streamed = 0; streamed < 2; streamed++) {
        char json[256], part[64];
        snprintf(json, sizeof json, long_one, streamed ? "true" : "false");
        const int fd = serve_send(&s, "POST", TEXT, "", json, strlen(json));
        if (streamed) assert_true(recv(fd, part, sizeof part, 0) > 0);
        for (int i = 0; i < 500 && metric(&s, "requests_running") < 1; i++) poll(NULL, 0, 10);
        expect(ask(&s, 503, TEXT, "{\"prompt\": \"The\", \"n\": 30}"), "too many texts wait");
        expect(ask(&s, 400, TEXT, "{\"prompt\": \"The\", \"n\": 61}"), "at most 60");
        close(fd);
        for (int i = 0; i < 500 && metric(&s, "requests_running") > 0; i++) poll(NULL, 0, 10);
        assert_int_equal(0, metric(&s, "requests_running"));
        assert_int_equal(0, metric(&s, "requests_waiting"));
    }
    assert_true(metric(&s, "requests_cancelled_total") > 60);
    ask(&s, 200, TEXT, "{\"prompt\": \"The\", \"max_tokens\": 3}");
    serve_end(&s, SIGTERM);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *path, *body, *says;
        int status;
    } row[] = {
        {TEXT, "", "body", 400},
        {TEXT, "[]", "must be a JSON object", 400},
        {TEXT, "{\"prompt\": \"\\ud800\"}", "body", 400},
        {TEXT, "{\"prompt\": \"a\", \"prompt\": \"b\"}", "duplicate", 400},
        {TEXT, "{}", "\"param\": \"prompt\"", 400},
        {TEXT, "{\"prompt\": []}", "1 to 4096", 400},
        {TEXT, "{\"prompt\": [1, 99999]}", "no token's", 400},
        {TEXT, "{\"prompt\": \"a\", \"presence_penalty\": 0.5}", "presence_penalty", 400},
        {TEXT, "{\"prompt\": \"a\", \"logit_bias\": {\"5\": 1}}", "logit_bias", 400},
        {TEXT, "{\"prompt\": \"a\", \"messages\": []}", "messages", 400},
        {TEXT, "{\"prompt\": \"a\", \"temperature\": -1}", "from 0 to 100", 400},
        {TEXT, "{\"prompt\": \"a\", \"temperature\": \"1\"}", "must be a number", 400},
        {TEXT, "{\"prompt\": \"a\", \"max_tokens\": 1.5}", "whole number", 400},
        {TEXT, "{\"prompt\": \"a\", \"seed\": 1.5}", "whole number", 400},
        {TEXT, "{\"prompt\": \"a\", \"stop\": [\"\"]}", "stop", 400},
        {TEXT, "{\"prompt\": \"a\", \"stream_options\": {\"x\": 1}}", "stream option 'x'", 400},
        {TEXT, "{\"prompt\": \"a\", \"model\": \"gpt\"}", "there is 'stories260K'", 404},
        {TEXT, "{\"prompt\": \"a\", \"logprobs\": 101}", "from 0 to 100", 400},
        {CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "no chat template",
         400},
        {"/tokenize", "{\"prompt\": 1}", "expected a text", 400},
        {"/detokenize", "{\"tokens\": [70000]}", "no token's id", 400},
        {"/v1/models", "{}", "takes GET", 405},
        {TEXT, NULL, "takes POST", 405},
        {"/../etc/passwd", NULL, "nothing at this path", 404},
        {"/%2e%2e/%2e%2e/etc/passwd", NULL, "nothing at this path", 404},
        {"/page.js%00x", NULL, "", 404}};
    struct served s = serve_start(NULL, STORIES " --quiet --max-body 20000");
    const char *body;
    for (int i = 0; i < COUNT(row); i++) {
        body = ask(&s, row[i].status, row[i].path, row[i].body);
        expect(body, row[i].says);
    }
    expect(ask(&s, 200, TEXT,
               "{\"prompt\": \"a\", \"max_tokens\": 2, \"presence_penalty\": 0, "
               "\"logit_bias\": null, \"best_of\": 1, \"stop\": null}"),
           "\"choices\"");
    expect(ask(&s, 200, "/", NULL), "<!doctype html>");
    char large[40000];
    memset(large, ' ', sizeof large);
    int fd = serve_send(&s, "POST", TEXT, "", large, sizeof large);
    assert_int_equal(413, serve_read(fd, &body)), expect(body, "at most 20000 bytes");
    fd = serve_send(&s, "POST", TEXT, "", "{\"prompt\": \"\xff\"}", 15);
    assert_int_equal(400, serve_read(fd, &body)), expect(body, "UTF-8");
    fd = serve_send(&s, "GET", "/health", "Origin: http://evil.example\r\n", "", 0);
    assert_int_equal(403, serve_read(fd, &body));
    fd = serve_open(&s);
    serve_write(fd, "GET /health HTTP/1.1\r\nHost: evil.example:1\r\n\r\n", 46);
    shutdown(fd, SHUT_WR);
    assert_int_equal(403, serve_read(fd, &body));
    fd = serve_open(&s);
    serve_write(fd, "GET /health HTTP/1.1\r\nX: ", 25);
    for (int i = 0; i < 20; i++) memset(large, 'x', 9000), serve_write(fd, large, 9000);
    serve_write(fd, "\r\n\r\n", 4);
    const int status = serve_read(fd, &body);
    assert_true(!status || status == 431 || status == 413 || status == 400);
    fd = serve_open(&s);
    serve_write(fd, "\0\1\2\3 nonsense\r\n\r\n", 17);
    shutdown(fd, SHUT_WR), serve_read(fd, &body);
    ask(&s, 200, "/health", NULL);
    serve_end(&s, SIGTERM);
}

/* A key; clients that send too slowly; a second server on the same socket, and after a kill. */
static void test_guarded(void **state) {
    (void)state;
    const char *body;
    char part[16];
    struct served s = serve_start(at("socket"), STORIES " --quiet --api-key secret --timeout 0.6");
    ask(&s, 401, "/v1/models", NULL), ask(&s, 401, "/metrics", NULL);
    ask(&s, 200, "/health", NULL), ask(&s, 200, "/", NULL);
    int fd = serve_send(&s, "GET", "/v1/models", "Authorization: Bearer secre\r\n", "", 0);
    assert_int_equal(401, serve_read(fd, &body));
    fd = serve_send(&s, "GET", "/v1/models", "Authorization: Bearer secret\r\n", "", 0);
    assert_int_equal(200, serve_read(fd, &body)), expect(body, "\"id\": \"stories260K\"");
    fd = serve_open(&s);
    serve_write(fd, "POST /v1/comp", 13);
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < 100 && !poll(&ended, 1, 100); i++) serve_write(fd, "l", 1);
    assert_true(recv(fd, part, sizeof part, 0) <= 0), close(fd);
    hone(2, "serve " STORIES " --threads 1 --listen unix:%s --quiet", s.path);
    expect(complained(), "somebody listens there already");
    hone(2, "serve " STORIES " --threads 1 --listen unix:%s --quiet", at("served-1"));
    expect(complained(), "is there and is no socket");
    hone(2, "serve " STORIES " --threads 1 --listen nowhere"),
        expect(complained(), "there is no port in it");
    hone(2, "serve " STORIES " --threads 1 --listen 127.0.0.1:0 --kv-memory 10 --quiet");
    expect(complained(), "has no room for a page");
    assert_int_equal(-SIGKILL, serve_end(&s, SIGKILL));
    assert_true(path_exists(s.path));
    s = serve_start(at("socket"), STORIES " --quiet"); /* what it left behind is replaced */
    ask(&s, 200, "/health", NULL);
    serve_end(&s, SIGTERM);
}

/* What runs is answered after SIGTERM, as long as there is time; then it is told so. */
static void test_stop(void **state) {
    (void)state;
    static const char *const grace[] = {"30", "0"};
    for (int i = 0; i < 2; i++) {
        static const char json[] = "{\"prompt\": \"Once\", \"max_tokens\": 400, \"n\": 8, "
                                   "\"ignore_eos\": true, \"stream\": true, \"seed\": 1}";
        struct served s = serve_start(at("socket"), STORIES " --quiet --grace %s", grace[i]);
        const int fd = serve_send(&s, "POST", TEXT, "", json, sizeof json - 1);
        const char *body;
        char first[1];
        assert_int_equal(1, recv(fd, first, 1, MSG_PEEK));
        kill(s.pid, SIGTERM), serve_read(fd, &body);
        assert_int_equal(0, serve_wait(&s));
        assert_int_equal(-1, serve_open(&s));
        int ends = 0;
        for (const char *p = body; (p = strstr(p, "\"finish_reason\": \"length\"")); p++) ends++;
        if (!i) assert_int_equal(8, ends), expect(body, "data: [DONE]");
        if (i) assert_true(ends < 8);
    }
}

/* The adapter under its name, the base beside it without. */
static void test_adapter(void **state) {
    (void)state;
    static const char rows[] = "{\"prompt\": \"Once\", \"completion\": \" a king\"}\n";
    put(at("rows.jsonl"), rows, sizeof rows - 1), put(at("lora.yaml"), "learning_rate: 0.5\n", 19);
    hone(0,
         "train %s task=sft dataset=%s model_name_or_path=" STORIES " packing=false "
         "max_seq_length=32 micro_batch_size=1 max_steps=2 use_peft=true lora_r=4 output_dir=%s "
         "--quiet --threads 1",
         at("lora.yaml"), at("rows.jsonl"), at("lora"));
    char adapter[512], json[256];
    snprintf(adapter, sizeof adapter, "%s", at("lora/checkpoints/step-000002"));
    struct served s = serve_start(at("socket"), STORIES " --quiet --adapter kings=%s", adapter);
    static const char all[] = "{\"model\": \"%s\", \"prompt\": \"Once\", \"max_tokens\": 20}";
    snprintf(json, sizeof json, all, "kings");
    char with[1024];
    snprintf(with, sizeof with, "%s", choice_text(ask(&s, 200, TEXT, json), 0, "text"));
    snprintf(json, sizeof json, all, "stories260K");
    const char *without = choice_text(ask(&s, 200, TEXT, json), 0, "text");
    assert_string_not_equal(with, without);
    assert_string_equal(generated(STORIES " --prompt Once --max-new-tokens 20"), without);
    assert_string_equal(
        generated(STORIES " --adapter %s --prompt Once --max-new-tokens 20", adapter), with);
    expect(ask(&s, 200, "/v1/models", NULL), "\"id\": \"kings\"");
    serve_end(&s, SIGTERM);
    hone(2, "serve " STORIES " --adapter a=%s --adapter b=%s --listen 127.0.0.1:0", adapter,
         adapter);
    expect(complained(), "one can be served beside its base");
}

/* Memory runs out somewhere: one request is told so, the others have their texts, and the server
 * goes on; or it does not start, and says why. */
static void test_memory(void **state) {
    (void)state;
    enum { AT_ONCE = 4 };
    static const char json[] = "{\"prompt\": \"Once upon a time\", \"max_tokens\": 30, "
                               "\"logprobs\": 1, \"seed\": 1}";
    char text[1024], line[64];
    snprintf(text, sizeof text, "%s",
             generated(STORIES " --prompt 'Once upon a time' --max-new-tokens 30 --seed 1"));
    for (int n = 4500; n < 7000; n += 311) {
        int fd[AT_ONCE], refused = 0;
        const char *body;
        snprintf(line, sizeof line, "alloc:%d", n);
        setenv("HONE_FAULT", line, 1);
        struct served s = serve_start(at("socket"), STORIES " --quiet");
        unsetenv("HONE_FAULT");
        for (int i = 0; i < AT_ONCE; i++)
            fd[i] = serve_send(&s, "POST", TEXT, "", json, sizeof json - 1);
        for (int i = 0; i < AT_ONCE; i++) {
            const int status = serve_read(fd[i], &body);
            refused += status != 200;
            if (status == 200) assert_string_equal(text, choice_text(body, 0, "text"));
            if (status) assert_true(status == 200 || status == 503);
        }
        assert_true(refused <= 1);
        fd[0] = serve_send(&s, "POST", TEXT, "", json, sizeof json - 1), serve_read(fd[0], &body);
        assert_string_equal(text, choice_text(ask(&s, 200, TEXT, json), 0, "text"));
        assert_int_equal(0, serve_end(&s, SIGTERM));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_as_generate),
                                       cmocka_unit_test(test_same_as_chat),
                                       cmocka_unit_test(test_thoughts),
                                       cmocka_unit_test(test_probabilities),
                                       cmocka_unit_test(test_many),
                                       cmocka_unit_test(test_cancel),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_guarded),
                                       cmocka_unit_test(test_stop),
                                       cmocka_unit_test(test_adapter),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, tiny_folder, serve_remove);
}
