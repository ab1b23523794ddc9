/* test_rows.c: what rows of files mean: columns under other names, what is not used and what is
 * left out, rows of ids; what stands around texts; prompts and completions as one text. */
#include "tests/unit/data/dataset_fixture.h"

#define PLAIN                                                                                      \
    "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ '</s>\n' }}{% endfor %}"           \
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
#define BAD "{\"messages\": [{\"role\": \"Zed\", \"content\": \"a\"}]}\n"
#define GOOD                                                                                       \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "         \
    "\"content\": \"a\"}]}\n"
#define SAID "<user>q</s>\n<assistant>[a</s>]\n"

static const struct rows_case {
    const char *columns, *rows, *want, *notes; /* want: "! error"; notes: %s the file */
    bool skip, plain;                          /* plain: instructions are no conversations */
} cases[] = {
    {"{\"prompt\": \"question\", \"completion\": \"answer\"}",
     "{\"question\": \"q\", \"answer\": \"a\", \"id\": 7, \"text\": \"t\", \"x\": null}\n", "q[a$]",
     "note: column 'id' of %s is not used (1 row)\nnote: column 'text' of %s is not used (1 row)\n",
     0, 0},
    {"{\"prompt\": \"question\", \"response\": \"answer\", \"system\": \"sys\"}",
     "{\"question\": \"q\", \"answer\": \"a\", \"sys\": \"s\", \"prompt\": \"p\"}\n",
     "<system>s</s>\n<user>q</s>\n<assistant>[a</s>]\n",
     "note: column 'prompt' of %s is not used (1 row)\n", 0, 0},
    {"{\"messages\": \"dialog\", \"role\": \"who\", \"content\": \"what\"}",
     "{\"dialog\": [{\"who\": \"HUMAN\", \"what\": \"q\", \"mood\": \"m\"}, {\"who\": \"bot\", "
     "\"what\": \"a\"}]}\n",
     SAID,
     "note: %s: key 'mood' of messages is not used: the chat template does not read it (1 time, "
     "line 1)\n",
     0, 0},
    {"{\"text\": \"body\"}", "{\"body\": \"b\"}\n{\"body\": \"\"}\n", "[b$]",
     "note: %s: the text is empty (1 time, line 2)\n", 0, 0},
    {"{\"text\": \"bdoy\"}", "{\"body\": \"b\", \"text\": \"t\"}\n",
     "! no text found; the keys are: 'body'", NULL, 0, 0},
    {"{\"system\": \"sys\"}", GOOD, "! no row has a column 'sys' (for system)", NULL, 0, 0},
    {NULL,
     "{\"system\": \"s\", \"messages\": [{\"role\": \"system\", \"content\": \"t\"}, {\"role\": "
     "\"assistant\", \"content\": \"a\"}], \"tools\": [{}]}\n",
     "<system>t</s>\n<assistant>[a</s>]\n",
     "note: %s: column 'tools' is not used: the chat template does not read it (1 time, line 1)\n"
     "note: %s: column 'system' is not used where a message of the conversation is the system's (1 "
     "time, line 1)\n",
     0, 0},
    {NULL,
     "{\"x\": null, \"messages\": [{\"role\": \"user\", \"content\": \"q\", \"tool_calls\": null}, "
     "{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": []}], \"tools\": "
     "[{\"function\": {\"a\": null}}]}\n",
     SAID,
     "note: %s: null deep inside a value is absent (1 time, line 1)\n"
     "note: %s: column 'tools' is not used: the chat template does not read it (1 time, line 1)\n",
     0, 0},
    {NULL,
     "{\"segments\": [{\"label\": false, \"text\": \"ab\"}, {\"label\": true, \"text\": \"cd\"}, "
     "{\"label\": false, \"text\": \"e\"}, {\"label\": true, \"text\": \"f\"}]}\n",
     "ab[cd]e[f]", "", 0, 0},
    {NULL, "{\"segments\": [{\"label\": 1, \"text\": \"ab\"}]}\n",
     "! segment 1 is no text with a label", NULL, 0, 0},
    {NULL, BAD BAD GOOD BAD BAD, SAID,
     "note: %s: left out: a message has the unknown role 'Zed' (4 times, lines 1, 2, 4, ...)\n",
     true, 0},
    {NULL, GOOD "{\"prompt\": \"p\", \"completion\": \"\"}\n{\"text\": 7}\n{\"text\": \n", SAID,
     "note: %s: left out: the completion is empty (1 time, line 2)\n"
     "note: %s: left out: 'text' is an integer (1 time, line 3)\n"
     "note: %s: left out: not valid JSON: unexpected token near end of file (1 time, line 4)\n",
     true, 0},
    {"{\"user_tag\": \"Customer\", \"assistant_tag\": \"Agent\"}",
     "{\"id\": 123456789012345678901, \"messages\": [{\"role\": \"Customer\", \"content\": "
     "\"q\"}, {\"role\": \"Agent\", \"content\": \"a\"}]}\n",
     SAID, "note: column 'id' of %s is not used (1 row)\n", 0, 0},
    {NULL, "{\"prompt\": \"p\", \"completion\": \"\"}\n", "! the completion is empty", NULL, 0, 0},
    {NULL,
     "{\"input_ids\": [97, 98, 99, 0], \"labels\": [-100, 98, 99, -100], \"attention_mask\": [1, "
     "1, 1, 0], \"length\": 4}\n",
     "a[bc]",
     "note: %s: tokens that attention_mask leaves out at the ends are padding (1 time, line "
     "1)\nnote: column 'length' of %s is not used (1 row)\n",
     0, 0},
    {NULL, "{\"input_ids\": [97, 98], \"completion_mask\": [0, 1], \"text\": \"ab\"}\n", "a[b]",
     "note: column 'text' of %s is not used (1 row)\n", 0, 0},
    {NULL, "{\"input_ids\": [97, 258]}\n", "! 'input_ids' holds what is no token at place 1", NULL,
     0, 0},
    {NULL, "{\"input_ids\": [97, 98], \"labels\": [98, 99]}\n",
     "! 'labels' has 98 where the id is 97, at place 0", NULL, 0, 0},
    {NULL, "{\"input_ids\": [97, 98], \"labels\": [97]}\n",
     "! 'labels' and 'input_ids' are not of one length", NULL, 0, 0},
    {NULL, "{\"input_ids\": [97, 98], \"labels\": [-100, -100]}\n",
     "! no token of the row is trained", NULL, 0, 0},
    {NULL,
     "{\"system\": \"s\", \"query\": \"r\", \"response\": \"b\", \"history\": [[\"q\", \"a\"]], "
     "\"solution\": \"4\"}\n",
     "<system>s</s>\n<user>q</s>\n<assistant>[a</s>]\n<user>r</s>\n<assistant>[b</s>]\n",
     "note: column 'solution' of %s is not used (1 row)\n", 0, 0},
    {NULL, "{\"query\": \"q\", \"response\": [\"a\", \"b\"]}\n",
     "! 'response' is a list, expected a text", NULL, 0, 0},
    {NULL, "{\"query\": \"q\", \"response\": \"a\", \"text\": \"t\"}\n", "[t$]",
     "note: column 'query' of %s is not used (1 row)\nnote: column 'response' of %s is not used (1 "
     "row)\n",
     0, 0},
    {NULL, "{\"query\": \"q\", \"response\": \"a\", \"images\": [\"x.png\"]}\n",
     "! the row has 'images', which are not supported", NULL, 0, 0},
    {NULL, "{\"instruction\": \"i\", \"context\": \"c\", \"response\": \"r\"}\n",
     "! 'output' is missing, expected a text", NULL, 0, 0},
    {"{\"instruction\": \"instruction\", \"input\": \"context\", \"output\": \"response\"}",
     "{\"instruction\": \"i\", \"context\": \"c\", \"response\": \"r\"}\n",
     "<user>i\n\nc</s>\n<assistant>[r</s>]\n", "", 0, 0},
    /* answers to choose between, and some that are not wanted */
    {NULL, "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}\n",
     "! the row has 'chosen' and 'rejected': answers to choose between", NULL, 0, 0},
    {NULL,
     "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": "
     "\"a\"}, {\"from\": \"human\", \"value\": \"r\"}], \"chosen\": {\"from\": \"gpt\", \"value\": "
     "\"b\"}, \"rejected\": {\"from\": \"gpt\", \"value\": \"c\"}}\n",
     "! the row has 'chosen' and 'rejected': answers to choose between", NULL, 0, 0},
    {NULL,
     "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\"}], \"rejected_response\": \"b\"}\n",
     "! the row has 'rejected_response': answers to choose between", NULL, 0, 0},
    {NULL, "{\"text\": \"t\", \"rejected\": null, \"chosen\": \"\"}\n", "[t$]", "", 0, 0},
    {"{\"prompt\": \"prompt\", \"completion\": \"chosen\"}",
     "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}\n", "p[c$]",
     "note: column 'rejected' of %s is not used (1 row)\n", 0, 0},
    {"{\"messages\": \"chosen\"}",
     "{\"chosen\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
     "\"content\": \"a\"}], \"rejected\": []}\n",
     "<user>q</s>\n<assistant>[a</s>]\n", "", 0, 0},
    {NULL, "{\"prompt\": \"p\", \"completion\": \"c\", \"label\": false}\n",
     "! 'label' is false: an answer that is not wanted", NULL, 0, 0},
    {NULL,
     "{\"prompt\": \"p\", \"completion\": \"c\", \"label\": true}\n{\"prompt\": \"p\", "
     "\"completion\": \"d\", \"label\": \"False\"}\n{\"prompt\": \"p\", \"completion\": \"e\", "
     "\"label\": 0}\n",
     "p[c$]p[e$]",
     "note: %s: left out: 'label' is false: an answer that is not wanted, as KTO has them (1 time, "
     "line 2)\nnote: column 'label' of %s is not used (1 row)\n",
     true, 0},
    {NULL, "{\"text\": \"t\", \"label\": false}\n", "[t$]",
     "note: column 'label' of %s is not used (1 row)\n", 0, 0},
    {NULL, "{\"instruction\": \"i\", \"output\": \"o\", \"history\": [[\"q\", \"a\"]]}\n",
     "! 'history' beside an instruction needs a chat template", NULL, 0, true},
};

static void test_meaning(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(cases); i++) {
        const struct rows_case *c = &cases[i];
        struct err e = {0};
        struct text notes = {0}, want = {0};
        struct chat *chat = chat_open(PLAIN, NULL, NULL, &e);
        json_t *columns = c->columns ? json_loads(c->columns, 0, NULL) : NULL;
        const char *source = file_put("r.jsonl", c->rows, (i64)strlen(c->rows));
        struct dataset_job job = byte_job(&source, in_folder("r.h5"));
        job.notes = &notes;
        job.options = (struct source_options){.chat = chat,
                                              .chat_instructions = !c->plain,
                                              .assistant_only_loss = true,
                                              .completion_only_loss = true,
                                              .rules = {.columns = columns, .skip = c->skip}};
        const int rc = dataset_build(&job, &e);
        if (*c->want == '!') {
            if (!rc || !strstr(e.primary, c->want + 2))
                fail_msg("case %d: %d '%s', expected '%s'", (int)i, rc, e.primary, c->want);
        } else {
            if (rc) fail_msg("case %d: %s", (int)i, e.primary);
            assert_string_equal(dataset_marked(job.path), c->want);
        }
        for (const char *p = c->notes ? c->notes : ""; *p; p += *p == '%' ? 2 : 1)
            if (*p == '%' ? text_add(&want, source, (i64)strlen(source), &e)
                          : text_add(&want, p, 1, &e))
                fail_msg("%s", e.primary);
        if (c->notes) assert_string_equal(notes.data ? notes.data : "", want.data ? want.data : "");
        chat_free(chat), json_decref(columns), text_free(&notes), text_free(&want);
    }
}

/* A row that is damaged anywhere is read, or the error says in which line; with skip the file is
 * read to its end. */
static void test_damage(void **state) {
    (void)state;
    enum { ROWS = 1000 };
    struct err e = {0};
    struct text all = {0};
    const struct rng rng = {.seed = 13, .purpose = RNG_TEST};
    struct chat *chat = chat_open(PLAIN, NULL, NULL, &e);
    i64 read = 0, refused = 0, begin = 0;
    assert_int_equal(file_read(&all, "tests/golden/rows/trl.jsonl", &e), 0);
    for (u64 i = 0; i < ROWS; i++) {
        const char *line = strstr(all.data + begin, "\"row\": ");
        if (!line) line = strstr(all.data, "\"row\": ");
        const char *end = strstr(line, ", \"input_ids\"");
        const i64 size = end - line - 7;
        char row[2048], where[300];
        assert_true(size < (i64)sizeof row - 1);
        begin = end - all.data;
        memcpy(row, line + 7, (size_t)size);
        const i64 at = (i64)(rng_uniform_f64(&rng, 3 * i) * (double)size);
        static const char bytes[] = "\"{}[]:,01n\\ax\n\xff";
        const char byte = bytes[(i64)(rng_uniform_f64(&rng, 3 * i + 1) * (sizeof bytes - 1))];
        const int how = (int)(rng_uniform_f64(&rng, 3 * i + 2) * 3);
        i64 count = size;
        if (how == 0) row[at] = byte;
        if (how == 1) memmove(row + at, row + at + 1, (size_t)(size - at - 1)), count--;
        if (how == 2) count = at;
        for (int skip = 0; skip < 2; skip++) {
            struct document d;
            const struct source_options o = {
                .chat = chat, .assistant_only_loss = true, .rules.skip = skip};
            const char *path = file_put("damaged.jsonl", row, count);
            struct source *s = source_open(path, &o, &e);
            int r = 1;
            while (s && (r = source_next(s, &d, &e)) > 0) read += !skip;
            snprintf(where, sizeof where, "%s:", path);
            if (r < 0 && (skip || strncmp(e.primary, where, strlen(where)) ||
                          e.primary[strlen(where)] < '1' || e.primary[strlen(where)] > '9'))
                fail_msg("row %d, skip %d: %s", (int)i, skip, e.primary);
            refused += r < 0;
            source_close(s), e = (struct err){0};
        }
    }
    assert_true(read > 100 && refused > 300);
    text_free(&all), chat_free(chat);
}

/* ---- around texts */

static i64 byte_token(const void *arg, const char *name) {
    (void)arg;
    return !strcmp(name, "<|im_start|>") ? 'S' : -1;
}
static bool byte_special(const void *arg, u32 id) { return (void)arg, id == '>'; }

/* What the encoder puts around texts is put there once; a recipe of version 1 has it as it was. */
static void test_around(void **state) {
    (void)state;
    static const struct {
        const char *row, *want, *old; /* ^ bos, $ eos; bytes 1 and 2 are put around texts */
        bool before, after;
    } texts[] = {
        {"{\"text\": \"ab\"}", "[^ab$]", "[ab$]", true, false},
        {"{\"text\": \"^ab\"}", "[^ab$]", "[^ab$]", true, false},
        {"{\"text\": \"ab$\"}", "[^ab$]", "[ab$$]", true, false},
        {"{\"text\": \"ab\"}", "[^ab$]", "[ab$]", true, true},
        {"{\"text\": \"ab$\"}", "[ab$]", "[ab$$]", false, true},
        {"{\"prompt\": \"p\", \"completion\": \"c\"}", "^p[c$]", "p[c$]", true, false},
        {"{\"prompt\": \"^p\", \"completion\": \"c$\"}", "^p[c$]", "^p[c$$]", true, true},
    };
    for (i64 i = 0; i < COUNT(texts); i++)
        for (int version = 1; version <= 2; version++) {
            struct err e = {0};
            const char *source = file_put("a.jsonl", texts[i].row, (i64)strlen(texts[i].row));
            struct dataset_job job = byte_job(&source, in_folder("a.h5"));
            job.encoder.bos = '^', job.encoder.eos = '$', job.add_around = version == 2;
            if (texts[i].before) job.encoder.before[0] = '^', job.encoder.before_count = 1;
            if (texts[i].after) job.encoder.after[0] = '$', job.encoder.after_count = 1;
            job.options.completion_only_loss = true, job.options.rules.version = version;
            if (dataset_build(&job, &e)) fail_msg("%s", e.primary);
            assert_string_equal(dataset_marked(job.path),
                                version == 2 ? texts[i].want : texts[i].old);
        }
}

/* Templates that end answers in two ways: no second eos behind the eos or another special token. */
static void test_stops(void **state) {
    (void)state;
    static const char olmo[] =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        "{{ eos_token if loop.last and m.role != 'user' else '|' }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
                      special[] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
                                  "{{ '>' if loop.last and m.role != 'user' else '|' }}{% endfor %}"
                                  "{% if add_generation_prompt %}<assistant>{% endif %}";
    static const struct {
        const char *template, *want, *old;
    } stops[] = {{olmo, "<user>q|<assistant>[a$]", "<user>q|<assistant>[a$$]"},
                 {special, "<user>q|<assistant>[a>]", "<user>q|<assistant>[a>$]"}};
    for (i64 i = 0; i < COUNT(stops); i++)
        for (int version = 1; version <= 2; version++) {
            struct err e = {0};
            json_t *config = json_pack("{s:s}", "eos_token", "$");
            struct chat *chat = chat_open(stops[i].template, NULL, config, &e);
            const char *source = file_put("s.jsonl", GOOD, sizeof GOOD - 1);
            struct dataset_job job = byte_job(&source, in_folder("s.h5"));
            job.encoder.eos = '$', job.encoder.special = byte_special;
            job.options = (struct source_options){
                .chat = chat, .assistant_only_loss = true, .rules.version = version};
            if (dataset_build(&job, &e)) fail_msg("%s", e.primary);
            assert_string_equal(dataset_marked(job.path),
                                version == 2 ? stops[i].want : stops[i].old);
            chat_free(chat), json_decref(config);
        }
}

/* No published template, whatever it writes itself, leads to two eos or two bos in a row. */
static void test_once(void **state) {
    (void)state;
    static const char talk[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
        "\"content\": \"a\"}, {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\"}]}";
    static const char *const templates[] = {
        "chatml", "llama3", "alpaca", "tests/golden/jinja/functionary.jinja",
        "tests/golden/jinja/gpt_oss.jinja", "tests/golden/jinja/mistral_v3.jinja",
        "tests/golden/jinja/phi3.jinja", "tests/golden/jinja/qwen3.jinja",
        /* OLMo 2's and OLMo 3's way */
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == "
        "'assistant' %}{{ eos_token }}{% if not loop.last %}\n{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.role == "
        "'assistant' and loop.last %}{{ eos_token }}{% else %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"};
    struct err e = {0};
    struct tokenizer *t = tokenizer_open("tests/golden/tokenizers/gpt2.json", &e);
    const struct encoder encoder = encoder_of(t);
    for (i64 i = 0; i < COUNT(templates); i++) {
        json_t *config =
            json_pack("{s:s, s:s}", "eos_token", "<|endoftext|>", "bos_token", "<|endoftext|>");
        struct chat *chat = chat_open(templates[i], NULL, config, &e);
        if (!chat) fail_msg("%s", e.primary);
        const char *source = file_put("o.jsonl", talk, sizeof talk - 1);
        struct dataset_job job = byte_job(&source, in_folder("o.h5"));
        job.encoder = encoder, job.encoder.token = NULL, job.add_around = true;
        job.options = (struct source_options){.chat = chat, .assistant_only_loss = true};
        if (dataset_build(&job, &e)) fail_msg("%s: %s", templates[i], e.primary);
        struct dataset *d = dataset_open(job.path, &e);
        const i64 n = dataset_info(d)->tokens;
        u32 ids[2048];
        assert_true(n < COUNT(ids) && !dataset_read(d, 0, n, ids, &e));
        for (i64 k = 1; k < n; k++)
            if (ids[k] == encoder.eos && ids[k - 1] == encoder.eos)
                fail_msg("%s: two eos at %d", templates[i], (int)k);
        dataset_close(d), chat_free(chat), json_decref(config);
    }
    tokenizer_free(t);
}

/* A built-in template whose markers are no tokens is refused, with those that are missing. */
static void test_markers(void **state) {
    (void)state;
    struct err e = {0};
    struct chat *chat = chat_open("chatml", NULL, NULL, &e);
    const char *source = file_put("m.jsonl", GOOD, sizeof GOOD - 1);
    struct dataset_job job = byte_job(&source, in_folder("m.h5"));
    job.options = (struct source_options){.chat = chat, .assistant_only_loss = true};
    job.encoder.token = byte_token;
    assert_int_equal(dataset_build(&job, &e), -1);
    assert_string_equal(e.primary, "the chat template's markers are no tokens of the tokenizer: "
                                   "<|im_start|>, <|im_end|>");
    e = (struct err){0}, job.options.rules.version = 1;
    assert_int_equal(dataset_build(&job, &e), 0);
    source = file_put("m.jsonl", "{\"text\": \"plain\"}", 17);
    job.options.rules.version = 0;
    assert_int_equal(dataset_build(&job, &e), 0);
    chat_free(chat);
}

/* Pairs of bytes that are letters become one token: across the border, too, and then it is the
 * completion's. */
static int pair_encode(const void *arg, const char *text, i64 size, struct ids *out,
                       struct err *e) {
    (void)arg;
    for (i64 i = 0; i < size; i++) {
        const bool two = i + 1 < size && text[i] >= 'a' && text[i + 1] >= 'a';
        if (ids_add(out, two ? 'A' : (u8)text[i], e)) return -1;
        i += two;
    }
    return 0;
}

static void test_border(void **state) {
    (void)state;
    static const char row[] = "{\"prompt\": \"1abc\", \"completion\": \"d2\"}";
    struct err e = {0};
    const char *source = file_put("b.jsonl", row, sizeof row - 1);
    struct dataset_job job = byte_job(&source, in_folder("b.h5"));
    job.encoder.encode = pair_encode, job.options.completion_only_loss = true;
    assert_int_equal(dataset_build(&job, &e), 0);
    assert_string_equal(dataset_marked(job.path), "1A[A2$]");
    job.options.rules.version = 1;
    assert_int_equal(dataset_build(&job, &e), 0);
    assert_string_equal(dataset_marked(job.path), "1Ac[d2$]");
}

/* What a tokenizer puts around texts is what `hone generate` has in front of a prompt. */
static void test_tokenizers(void **state) {
    (void)state;
    struct err e = {0};
    struct tokenizer *t = tokenizer_open("recipes/data/stories260K", &e);
    if (!t) fail_msg("%s", e.primary);
    const struct encoder c = encoder_of(t);
    assert_int_equal(c.before_count, 1), assert_int_equal(c.before[0], tokenizer_bos(t));
    assert_int_equal(c.after_count, 0), assert_true(c.special(t, (u32)tokenizer_eos(t)));
    tokenizer_free(t);
    t = tokenizer_open("tests/golden/tokenizers/gpt2.json", &e);
    assert_int_equal(encoder_of(t).before_count, 0);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meaning), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_around),  cmocka_unit_test(test_stops),
        cmocka_unit_test(test_once),    cmocka_unit_test(test_markers),
        cmocka_unit_test(test_border),  cmocka_unit_test(test_tokenizers)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
