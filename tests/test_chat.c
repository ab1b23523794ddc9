/* test_chat.c: conversations as training data: every form of row, which bytes and tokens of it are
 * the assistant's, and what is refused. */
#include "tests/dataset_fixture.h"
#include <jansson.h>

#define JINJA "tests/golden/jinja/"
#define PLAIN                                                                                      \
    "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ '</s>\n' }}{% endfor %}"           \
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
#define TALK                                                                                       \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "         \
    "\"content\": \"a\"}, {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", "    \
    "\"content\": \"b \"}]}"
#define QA                                                                                         \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "         \
    "\"content\": \"a\"}]}"

static const struct chat_case {
    const char *template, *row,
        *want;                /* [trained], $ for eos; or "! error" after the file's name */
    bool everything, prompts; /* not assistant_only_loss, not completion_only_loss */
} cases[] = {
    {PLAIN, TALK, "<user>q</s>\n<assistant>[a</s>]\n<user>r</s>\n<assistant>[b </s>]\n", 0, 0},
    {PLAIN, TALK, "[<user>q</s>\n<assistant>a</s>\n<user>r</s>\n<assistant>b </s>\n]", true, 0},
    {"chatml", TALK,
     "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n<|im_start|>user\nr<|im_"
     "end|>\n"
     "<|im_start|>assistant\n[b <|im_end|>]\n",
     0, 0},
    /* published ones without marks, one of which rewrites earlier answers, one with an end of its
       own */
    {JINJA "qwen3.jinja", TALK,
     "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n<|im_start|>user\nr<|im_"
     "end|>\n"
     "<|im_start|>assistant\n[<think>\n\n</think>\n\nb <|im_end|>]\n",
     0, 0},
    {JINJA "phi3.jinja", TALK,
     "<|user|>\nq<|end|>\n<|assistant|>\n[a<|end|>]\n<|user|>\nr<|end|>\n<|assistant|>\n[b "
     "<|end|>]\nE",
     0, 0},
    {JINJA "mistral_v3.jinja", TALK, "B[INST]q[/INST][aE][INST]r[/INST][b E]", 0, 0},
    /* nothing after answers: the end of text is added, and learnt */
    {"{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ ' ' }}{% endfor %}"
     "{% if add_generation_prompt %}a:{% endif %}",
     QA, "u:q a:[a $]", 0, 0},
    /* tool calls, tools as a text */
    {"{{ tools | tojson }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls | "
     "tojson if "
     "m.tool_calls }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
     "{\"tools\": \"[{\\\"n\\\": 1}]\", \"conversations\": [{\"from\": \"human\", \"value\": "
     "\"q\"}, {\"from\": "
     "\"function_call\", \"value\": \"{\\\"name\\\": \\\"f\\\"}\"}, {\"from\": \"observation\", "
     "\"value\": "
     "\"5\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}",
     "[{\"n\": 1}]<user>q</s><assistant>[[{\"type\": \"function\", \"function\": {\"name\": "
     "\"f\"}}]</s>]<tool>5</s><assistant>[a</s>]",
     0, 0},
    {PLAIN,
     "{\"system\": \"s\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": "
     "\"gpt\", \"value\": \"a\"}]}",
     "<system>s</s>\n<user>q</s>\n<assistant>[a</s>]\n", 0, 0},
    {PLAIN, "{\"instruction\": \"i\", \"input\": \"n\", \"output\": \"o\"}",
     "<user>i\n\nn</s>\n<assistant>[o</s>]\n", 0, 0},
    {PLAIN,
     "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"x\"}, {\"role\": "
     "\"user\", \"content\": \"r\"}], \"completion\": [{\"role\": \"assistant\", \"content\": "
     "\"a\"}]}",
     "<user>q</s>\n<assistant>x</s>\n<user>r</s>\n<assistant>[a</s>]\n", 0, 0},
    {PLAIN, "{\"prompt\": \"plain \", \"completion\": \"text\"}", "plain [text$]", 0, 0},
    {"{% for m in messages %}{{ m.content }}{{ greeting }}{% endfor %}",
     "{\"chat_template_kwargs\": {\"greeting\": \"!\"}, \"messages\": [{\"role\": \"assistant\", "
     "\"content\": \"a\"}]}",
     "[a!$]", 0, 0},
    {"{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
     "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
     "{{ '<|start|>assistant' if add_generation_prompt }}",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\"}, {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", "
     "\"content\": \"b\"}]}",
     "<|start|>user<|message|>q<|end|><|start|>assistant[<|message|>a<|end|>]"
     "<|start|>user<|message|>r<|end|><|start|>assistant[<|message|>b<|return|>$]",
     0, 0},
    /* refused */
    {PLAIN, "{\"messages\": []}", "!:1: a conversation without messages", 0, 0},
    {PLAIN, "{\"messages\": 7}", "!:1: the messages are no list", 0, 0},
    {PLAIN, "{\"messages\": [{\"content\": \"q\"}]}", "!:1: message 1 has no role", 0, 0},
    {PLAIN, "{\"tools\": \"[\", \"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}",
     "!:1: 'tools' is a text that is not JSON", 0, 0},
    {PLAIN, "{\"messages\": [{\"role\": \"user\", \"content\": 123456789012345678901}]}",
     "!:1: an integer of more than 64 bits", 0, 0},
    {"{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", TALK,
     "!:1: the chat template writes message 2 differently when others follow", 0, 0},
    {"{{ raise_exception('never') }}", TALK, "!", 0, 0},
};

static char *marked(struct dataset *d) {
    static char out[4096];
    struct err e = {0};
    const i64 n = dataset_info(d)->tokens;
    u32 ids[2048];
    u8 trained[2048];
    i64 at = 0;
    assert_true(n < 2000);
    assert_int_equal(dataset_read(d, 0, n, ids, &e), 0);
    dataset_trained(d, 0, n, trained);
    for (i64 i = 0; i < n; i++) {
        if (trained[i] && (!i || !trained[i - 1])) out[at++] = '[';
        out[at++] = ids[i] == BYTE_EOS ? '$' : (char)ids[i];
        if (trained[i] && (i + 1 == n || !trained[i + 1])) out[at++] = ']';
    }
    out[at] = 0;
    return out;
}

static void test_rows(void **state) {
    (void)state;
    static const char special[] = "{\"bos_token\": \"B\", \"eos_token\": \"E\"}";
    file_put("tokenizer_config.json", special, sizeof special - 1);
    for (i64 i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        const struct chat_case *c = &cases[i];
        struct chat *chat = chat_open(c->template, in_folder("tokenizer.json"), NULL, &e);
        if (!chat) fail_msg("case %d: %s", (int)i, e.primary);
        const char *source = file_put("c.jsonl", c->row, (i64)strlen(c->row));
        struct dataset_job job = byte_job(&source, in_folder("c.h5"));
        job.options = (struct source_options){.chat = chat,
                                              .chat_instructions = true,
                                              .assistant_only_loss = !c->everything,
                                              .completion_only_loss = !c->prompts};
        const int rc = dataset_build(&job, &e);
        if (*c->want == '!') {
            assert_int_equal(rc, -1);
            if (c->want[1]) assert_string_equal(e.primary + strlen(source), c->want + 1);
        } else {
            if (rc) fail_msg("case %d: %s", (int)i, e.primary);
            struct dataset *d = dataset_open(job.path, &e);
            assert_non_null(d);
            assert_string_equal(marked(d), c->want);
            if (strstr(c->row, "messages"))
                assert_non_null(strstr(dataset_info(d)->sources, chat_sha256(chat)));
            dataset_close(d);
        }
        chat_free(chat);
    }
}

/* With a real tokenizer: the ids are those of the whole text, as they will be when the model is
 * used, and the trained ones are the answers and their stop token. */
static void test_tokens(void **state) {
    (void)state;
    struct err e = {0};
    struct tokenizer *t = tokenizer_open("tests/golden/tokenizers/llama3.json", &e);
    struct chat *chat = chat_open("chatml", NULL, NULL, &e);
    struct text text = {0}, said = {0};
    struct ids whole = {0};
    const char *source = file_put("t.jsonl", TALK, sizeof TALK - 1);
    struct dataset_job job = byte_job(&source, in_folder("t.h5"));
    assert_non_null(t), assert_non_null(chat);
    job.encoder = encoder_of(t);
    job.options = (struct source_options){.chat = chat, .assistant_only_loss = true};
    assert_int_equal(dataset_build(&job, &e), 0);
    struct dataset *d = dataset_open(job.path, &e);
    json_t *row = json_parse(TALK, sizeof TALK - 1, "row", &e);
    assert_int_equal(
        chat_render(chat, row, json_object_get(row, "messages"), false, &text, NULL, &e), 0);
    assert_int_equal(tokenizer_encode(t, text.data, text.size, false, &whole, &e), 0);
    const i64 n = dataset_info(d)->tokens;
    u32 ids[256];
    u8 trained[256];
    assert_true(n < COUNT(ids));
    assert_int_equal(n, whole.count);
    assert_int_equal(dataset_read(d, 0, n, ids, &e), 0);
    assert_memory_equal(ids, whole.item, (size_t)n * sizeof *ids);
    dataset_trained(d, 0, n, trained);
    for (i64 i = 0; i < n; i++)
        if (trained[i]) assert_int_equal(tokenizer_decode(t, ids + i, 1, false, &said, &e), 0);
    assert_string_equal(said.data, "a<|im_end|>b <|im_end|>");
    json_decref(row), dataset_close(d), chat_free(chat), tokenizer_free(t);
    text_free(&text), text_free(&said), ids_free(&whole);
}

/* Any allocation that fails is an error, and leaves no dataset. */
static void test_faults(void **state) {
    (void)state;
    const char *source = file_put("f.jsonl", TALK "\n" TALK, 2 * sizeof TALK - 1);
    for (int n = 1;; n += 7) {
        struct err e = {0};
        char fault[32];
        snprintf(fault, sizeof fault, "alloc:%d", n);
        assert_int_equal(fault_arm(fault), 0);
        struct chat *chat = chat_open(PLAIN, NULL, NULL, &e);
        struct dataset_job job = byte_job(&source, in_folder("f.h5"));
        job.options = (struct source_options){.chat = chat, .assistant_only_loss = true};
        const int rc = chat ? dataset_build(&job, &e) : -1;
        fault_arm(NULL);
        chat_free(chat);
        assert_int_equal(rc, path_exists(job.path) ? 0 : -1);
        if (!rc) break;
        assert_true(e.starved && n < 4000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_tokens),
                                       cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
