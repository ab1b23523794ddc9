/* test_chat.c: conversations as training data: every form of row, which bytes and tokens of it are
 * the assistant's, and what is refused. */
#include "tests/unit/data/dataset_fixture.h"
#include "data/templates/chat.h"

#define JINJA "tests/golden/jinja/"
#define PLAIN                                                                                      \
    "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ '</s>\n' }}{% endfor %}"           \
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
#define CHATML /* as given by a user: its markers need not be tokens */                            \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"    \
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}"                  \
    "{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
#define CALLS                                                                                      \
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>"           \
    "{{ m.tool_calls | tojson if m.tool_calls else m.content }}</s>{% endfor %}"                   \
    "{% if add_generation_prompt %}<assistant>{% endif %}"
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
    /* whoever wrote it: names of roles in any case, under either key */
    {PLAIN,
     "{\"conversations\": [{\"from\": \"Human\", \"value\": \"q\"}, {\"from\": \"GPT\", \"value\": "
     "\"a\"}, {\"role\": \"human\", \"content\": \"r\"}, {\"role\": \"bard\", \"content\": "
     "\"b\"}]}",
     "<user>q</s>\n<assistant>[a</s>]\n<user>r</s>\n<assistant>[b</s>]\n", 0, 0},
    {PLAIN,
     "{\"messages\": \"[{\\\"role\\\": \\\"developer\\\", \\\"content\\\": \\\"s\\\"}, "
     "{\\\"role\\\": \\\"prompter\\\", \\\"content\\\": \\\"q\\\"}, {\\\"role\\\": \\\"Bing\\\", "
     "\\\"content\\\": \\\"a\\\"}]\"}",
     "<system>s</s>\n<user>q</s>\n<assistant>[a</s>]\n", 0, 0},
    {"{% if false %}'narrator'{% endif %}" PLAIN,
     "{\"messages\": [{\"role\": \"narrator\", \"content\": \"n\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\"}]}",
     "<narrator>n</s>\n<assistant>[a</s>]\n", 0, 0},
    {PLAIN,
     "{\"text\": null, \"prompt\": null, \"messages\": [{\"from\": null, \"role\": \"user\", "
     "\"content\": \"q\", \"weight\": null}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
     "<user>q</s>\n<assistant>[a</s>]\n", 0, 0},
    {PLAIN,
     "{\"system\": \"s\", \"conversations\": [{\"from\": \"system\", \"value\": \"t\"}, {\"from\": "
     "\"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}",
     "<system>t</s>\n<user>q</s>\n<assistant>[a</s>]\n", 0, 0},
    {PLAIN,
     "{\"instruction\": \"i\", \"input\": null, \"output\": \"o\", \"history\": [[\"q\", \"a\"]], "
     "\"system\": \"s\"}",
     "<system>s</s>\n<user>q</s>\n<assistant>[a</s>]\n<user>i</s>\n<assistant>[o</s>]\n", 0, 0},
    /* an answer that opens the conversation */
    {PLAIN,
     "{\"messages\": [{\"role\": \"gpt\", \"content\": \"w\"}, {\"role\": \"user\", \"content\": "
     "\"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
     "<assistant>[w</s>]\n<user>q</s>\n<assistant>[a</s>]\n", 0, 0},
    /* parts */
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"q\"}, "
     "{\"type\": \"text\", \"value\": \"r\"}, \"s\"]}, {\"role\": \"assistant\", \"content\": "
     "[{\"type\": \"text\", \"text\": \"a\"}]}]}",
     "<user>qrs</s>\n<assistant>[a</s>]\n", 0, 0},
    /* what is not to be learnt */
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\", \"loss_weight\": 0.0}, {\"role\": "
     "\"assistant\", \"content\": \"a\", \"weight\": 0}, {\"role\": \"user\", \"content\": \"r\"}, "
     "{\"role\": \"assistant\", \"content\": \"b\", \"train\": true}]}",
     "<user>q</s>\n<assistant>a</s>\n<user>r</s>\n<assistant>[b</s>]\n", 0, 0},
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\", \"loss_weight\": 0.0}, {\"role\": \"user\", \"content\": \"r\"}, "
     "{\"role\": \"assistant\", \"content\": \"b\"}]}",
     "[<user>q</s>\n<assistant>]a</s>[\n<user>r</s>\n<assistant>b</s>\n]", true, 0},
    {CHATML,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\", \"train\": false}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
     "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>assistant\n"
     "[b<|im_end|>]\n",
     0, 0},
    /* calls: arguments are decoded once, for templates that want texts they are texts */
    {CALLS,
     "{\"functions\": [{\"name\": \"f\"}], \"messages\": [{\"role\": \"user\", \"content\": "
     "\"q\"}, "
     "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
     "\"f\", \"arguments\": \"{\\\"x\\\": null}\"}}]}, {\"role\": \"function\", \"content\": "
     "{\"y\": 1}}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
     "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]<user>q</s><assistant>"
     "[[{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": null}}}]</s>]"
     "<tool>{'y': 1}</s><assistant>[a</s>]",
     0, 0},
    {CALLS,
     "{\"tools\": [\"{\\\"n\\\": 1}\"], \"messages\": [{\"role\": \"user\", \"content\": \"q\"}, "
     "{\"role\": \"assistant\", \"function_call\": {\"name\": \"f\", \"arguments\": \"\"}}]}",
     "[{\"n\": 1}]<user>q</s><assistant>[[{\"type\": \"function\", \"function\": {\"name\": \"f\", "
     "\"arguments\": {}}}]</s>]",
     0, 0},
    {"{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}"
     "{{ '(' + c.function.arguments + ')' }}{% endfor %}</s>{% endfor %}"
     "{% if add_generation_prompt %}<assistant>{% endif %}",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": 1}}}]}]}",
     "<user>q</s><assistant>[({\"x\": 1})</s>]", 0, 0},
    /* a tool's message that is written otherwise when it is the last (Hermes 2 and 3) */
    {"{% for m in messages %}<{{ m.role }}>{{ m.tool_calls | tojson if m.tool_calls else m.content "
     "}}"
     "{{ '\\n' if m.role == 'tool' and not loop.last }}</s>{% endfor %}"
     "{% if add_generation_prompt %}<assistant>{% endif %}",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q<assistant>\"}, {\"role\": "
     "\"assistant\", \"tool_calls\": [{\"name\": \"f\"}]}, {\"role\": \"tool\", \"content\": "
     "\"1\"}, {\"role\": \"assistant\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": "
     "\"r\"}, {\"role\": \"assistant\", \"content\": \"<assistant>b\"}]}",
     "<user>q<assistant></s><assistant>[[{\"name\": \"f\"}]</s>]<tool>1\n</s><assistant>[a</s>]"
     "<user>r</s><assistant>[<assistant>b</s>]",
     0, 0},
    /* refused */
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"Zed\", \"content\": "
     "\"a\"}]}",
     "!:1: message 2 has the unknown role 'Zed'", 0, 0},
    {PLAIN, "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}",
     "!:1: the assistant says nothing", 0, 0},
    {PLAIN,
     "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": "
     "null}]}",
     "!:1: message 2 has no content", 0, 0},
    {PLAIN,
     "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": "
     "\"\"}]}",
     "!:1: the assistant's answers are empty", 0, 0},
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\", \"weight\": 0.5}]}",
     "!:1: message 2 has 'weight': 0.5", 0, 0},
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\", \"weight\": 0}]}",
     "!:1: no answer is trained: each has weight 0", 0, 0},
    {PLAIN,
     "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": "
     "\"x\"}]}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
     "!:1: message 1 has a part of type 'image_url', which is not supported", 0, 0},
    {PLAIN, "{\"messages\": [{\"role\": \"user\", \"content\": \"q\", \"value\": \"r\"}]}",
     "!:1: message 1 has both 'content' and 'value', which differ", 0, 0},
    {CALLS,
     "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", "
     "\"arguments\": \"{\"}}]}]}",
     "!:1: message 1 calls f with arguments that are no JSON", 0, 0},
    {PLAIN,
     "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"function\": "
     "{\"name\": \"f\", \"arguments\": {}}}]}]}",
     "!:1: message 1 calls a tool, and the chat template does not write tool calls", 0, 0},
    {PLAIN, "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}], \"completion\": \"a\"}",
     "!:1: 'prompt' is a list and 'completion' a text, expected two lists of messages or two texts",
     0, 0},
    {PLAIN,
     "{\"images\": [\"x.png\"], \"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}",
     "!:1: the row has 'images', which are not supported", 0, 0},
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
            assert_string_equal(dataset_shown(d), c->want);
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
    struct chat *chat = chat_open(CHATML, NULL, NULL, &e);
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

/* Beginnings of a conversation that one rendering gives are those rendered by themselves; templates
 * that can see how many messages follow are left to the slow way. */
static const struct {
    const char *template;
    bool fast;
} turns[] = {
    {PLAIN, true},
    {"llama3", true},
    {"alpaca", true},
    {"{{ messages[0].content }}{% set ns = namespace(n=0) %}{% for m in messages %}"
     "{% set ns.n = ns.n + 1 %}{% if loop.first %}^{% endif %}{% if loop.index0 % 2 == 1 %}"
     "{{ loop.previtem.content }}{% endif %}{% for x in 'abc' %}{{ x }}{% if not loop.last %},"
     "{% endif %}{% endfor %}{{ m.role ~ ns.n ~ m.content }}{% if m.content == 'q3' %}"
     "{% continue %}{% endif %}.{% endfor %}{{ ns.n }}{% if not add_generation_prompt %}end"
     "{% else %}go{{ ns.n if ns.n > 4 }}{% endif %}",
     true},
    {"{% for m in messages %}{{ m.content }}{% if loop.last %}!{% endif %}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content ~ loop.length }}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content ~ loop['last'] }}{% endfor %}", false},
    {"{% for m in messages %}{% set l = loop %}{{ l.last }}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content ~ messages|length }}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content ~ (messages[loop.index] or '') }}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content ~ messages[-1].role }}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content }}{% if add_generation_prompt %}+{% endif %}{% endfor %}",
     false},
    {"{% set all = messages %}{% for m in messages %}{{ m.content ~ all|length }}{% endfor %}",
     false},
    {"{% macro f() %}{{ messages|length }}{% endmacro %}{% for m in messages %}{{ f() }}{% endfor "
     "%}",
     false},
    {"{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", false},
    {"{% for m in messages %}{{ m.content }}{% endfor %}{% for m in messages %}x{% endfor %}",
     false},
    {"{% set ns = namespace(n=0) %}{% for m in messages %}{{ ns.n ~ m.content }}{% endfor %}"
     "{% set ns.n = 5 %}{{ ns.n }}",
     false},
    {"{% set g = 'abc'|map('upper') %}{% for m in messages %}{{ m.content }}{% endfor %}"
     "{{ 'B' in g }}",
     false},
    {"{% for m in messages %}{% if m.content == 'q4' %}{% break %}{% endif %}{{ m.content }}"
     "{% endfor %}",
     false},
    {JINJA "qwen3.jinja", false},
    {JINJA "phi3.jinja", true},
    {JINJA "mistral_v3.jinja", false},
};

static void test_turns(void **state) {
    (void)state;
    enum { MESSAGES = 8 };
    for (int k = 0; k < COUNT(turns); k++) {
        struct err e = {0};
        json_t *config = json_pack("{s:s, s:s}", "bos_token", "B", "eos_token", "E");
        struct chat *c = chat_open(turns[k].template, NULL, config, &e);
        json_t *row = json_object(), *list = json_array();
        struct turn turn[3 * MESSAGES] = {{0}};
        struct text all = {0}, whole = {0};
        assert_non_null(c);
        json_object_set_new(row, "messages", list);
        for (int i = 0; i < MESSAGES; i++) {
            char content[8];
            snprintf(content, sizeof content, "q%d", i);
            json_array_append_new(
                list,
                json_pack("{s:s, s:s}", "role", i % 2 ? "assistant" : "user", "content", content));
        }
        for (int i = 0; i < 2 * MESSAGES; i++)
            turn[i] = (struct turn){.messages = i / 2 + 1, .prompt = i % 2 == 0};
        const int rc = chat_render_turns(c, row, &all, turn, 2 * MESSAGES, &e);
        if (rc != !turns[k].fast) fail_msg("%s: %d %s", turns[k].template, rc, e.primary);
        if (!rc) assert_int_equal(chat_render(c, row, list, false, &whole, NULL, &e), 0);
        if (!rc) assert_string_equal(all.data, whole.data);
        for (int i = 0; !rc && i < 2 * MESSAGES; i++) {
            json_t *part = json_array();
            struct text want = {0}, got = {0};
            for (i64 n = 0; n < turn[i].messages; n++)
                json_array_append(part, json_array_get(list, (size_t)n));
            assert_int_equal(chat_render(c, row, part, turn[i].prompt, &want, NULL, &e), 0);
            assert_int_equal(text_add(&got, all.data, turn[i].at, &e), 0);
            assert_int_equal(text_add(&got, turn[i].tail.data ?: "", turn[i].tail.size, &e), 0);
            if (want.size != got.size || memcmp(want.data, got.data, (size_t)want.size))
                fail_msg("%s: %d messages: '%s', expected '%s'", turns[k].template,
                         (int)turn[i].messages, got.data, want.data);
            json_decref(part), text_free(&want), text_free(&got);
        }
        for (int i = 0; i < COUNT(turn); i++) text_free(&turn[i].tail);
        text_free(&all), text_free(&whole), json_decref(row), json_decref(config), chat_free(c);
    }
}

/* Many answers are found as few are, without a mark in the template. */
static void test_many_answers(void **state) {
    (void)state;
    struct text row = {0}, got = {0};
    struct err e = {0};
    struct spans spans = {0};
    struct chat *c = chat_open(PLAIN, NULL, NULL, &e);
    text_printf(&row, &e, "{\"messages\": [");
    for (int i = 0; i < 40; i++)
        text_printf(&row, &e, "%s{\"role\": \"%s\", \"content\": \"%d\"}", i ? "," : "",
                    i % 3 ? "assistant" : "user", i);
    assert_int_equal(text_printf(&row, &e, "]}"), 0);
    json_t *j = json_parse(row.data, row.size, "row", &e);
    assert_int_equal(chat_document(c, j, "row", true, NULL, NULL, &got, &spans, NULL, &e), 0);
    assert_int_equal(spans.count, 26);
    for (i64 i = 0, n = 0; i < 40; i++) {
        if (i % 3 == 0) continue;
        char want[32];
        const struct span s = spans.item[n++];
        snprintf(want, sizeof want, "%lld</s>", (long long)i);
        if (s.end - s.begin != (i64)strlen(want) || memcmp(got.data + s.begin, want, strlen(want)))
            fail_msg("answer %d is '%.*s'", (int)i, (int)(s.end - s.begin), got.data + s.begin);
    }
    json_decref(j), text_free(&row), text_free(&got), spans_free(&spans), chat_free(c);
}

/* A template that may see what follows is rendered for each answer: refused where that is too much.
 */
static void test_too_many_answers(void **state) {
    (void)state;
    struct text row = {0}, got = {0};
    struct err e = {0};
    struct spans spans = {0};
    struct chat *c = chat_open(JINJA "qwen3.jinja", NULL, NULL, &e);
    text_printf(&row, &e, "{\"messages\": [");
    for (int i = 0; i < 20000; i++)
        text_printf(&row, &e, "%s{\"role\": \"%s\", \"content\": \"%d\"}", i ? "," : "",
                    i % 2 ? "assistant" : "user", i);
    assert_int_equal(text_printf(&row, &e, "]}"), 0);
    json_t *j = json_parse(row.data, row.size, "row", &e);
    assert_int_equal(chat_document(c, j, "row 1", true, NULL, NULL, &got, &spans, NULL, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.primary, "row 1: a conversation of 20000 messages is too long for its "
                                   "chat template");
    e = (struct err){0};
    assert_int_equal(chat_document(c, j, "row 1", false, NULL, NULL, &got, &spans, NULL, &e), 0);
    json_decref(j), text_free(&row), text_free(&got), spans_free(&spans), chat_free(c);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows),
                                       cmocka_unit_test(test_tokens),
                                       cmocka_unit_test(test_turns),
                                       cmocka_unit_test(test_many_answers),
                                       cmocka_unit_test(test_too_many_answers),
                                       cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
