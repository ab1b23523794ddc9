/* test_prompts.c: rows as Axolotl's dataset types have them: the tokens that its own code makes
 * (tests/golden/rows/axolotl.jsonl), columns, what is wrong; rows that are too short or there
 * already; system messages that are dropped or added. */
#include "tests/unit/data/dataset_fixture.h"

#include <jansson.h>

/* A ':', '>' or line end and the letter behind it are one token, as in record_prompts.py. */
static int pair_encode(const void *arg, const char *text, i64 size, struct ids *out,
                       struct err *e) {
    (void)arg;
    for (i64 i = 0; i < size; i++) {
        const bool two = i + 1 < size && strchr(":>\n", text[i]) && text[i + 1] >= 'a';
        if (ids_add(out, two ? 'A' : (u8)text[i], e)) return -1;
        i += two;
    }
    return 0;
}

static struct dataset_job job_of(const char *const *source, const char *style, bool inputs) {
    struct dataset_job job = byte_job(source, in_folder("p.h5"));
    job.encoder.encode = pair_encode, job.encoder.bos = '^', job.encoder.eos = '$';
    job.encoder.before[0] = '^', job.encoder.before_count = 1, job.add_around = true;
    job.options.completion_only_loss = !inputs;
    job.options.rules.style = prompt_style_find(style);
    return job;
}

/* The names of Axolotl's types that are other names of a style. */
static const char *style_of(const char *type) {
    static const char *const same[][2] = {{"alpaca:instruct", "alpaca"},
                                          {"alpaca_instruct", "alpaca"},
                                          {"alpaca_chat", "alpaca:chat"},
                                          {"alpaca_w_system.load_chat", "alpaca_w_system"}};
    for (int i = 0; i < COUNT(same); i++)
        if (!strcmp(type, same[i][0])) return same[i][1];
    return type;
}

static void test_axolotl(void **state) {
    (void)state;
    struct err e = {0};
    struct text all = {0};
    i64 count = 0;
    assert_int_equal(file_read(&all, "tests/golden/rows/axolotl.jsonl", &e), 0);
    for (char *line = all.data, *end; (end = strchr(line, '\n')); line = end + 1, count++) {
        json_t *j = json_loadb(line, (size_t)(end - line), 0, NULL);
        const char *type = json_string_value(json_object_get(j, "type"));
        char *row = json_dumps(json_object_get(j, "row"), 0);
        const char *source = file_put("p.jsonl", row, (i64)strlen(row));
        const struct dataset_job job =
            job_of(&source, style_of(type), json_is_true(json_object_get(j, "train_on_inputs")));
        assert_non_null(job.options.rules.style);
        if (dataset_build(&job, &e)) fail_msg("%s: %s", type, e.primary);
        assert_string_equal(dataset_marked(job.path),
                            json_string_value(json_object_get(j, "tokens")));
        json_decref(j), free(row);
    }
    assert_int_equal(count, 72);
    text_free(&all);
}

static void test_styles(void **state) {
    (void)state;
    static const struct {
        const char *style, *rows, *want; /* "! error" */
    } cases[] = {
        {"alpaca_chat.load_no_prompt", "{\"instruction\": \"q\", \"output\": \"a\", \"id\": 3}",
         "note: column 'id' of %s is not used (1 row)\n"},
        {"oasst", "{\"INSTRUCTION\": \"q\", \"output\": \"a\"}", "! the row has no 'RESPONSE'"},
        {"oasst", "{\"INSTRUCTION\": 4, \"RESPONSE\": \"a\"}", "! 'INSTRUCTION' is an integer"},
        {"alpaca", "{\"instruction\": \"q\", \"output\": \"\"}", "! the answer is empty"},
        {"alpaca", "{\"instruction\": \"q\", \"output\": \"a\", \"image\": \"x.png\"}",
         "! the row has 'image', which are not supported"},
        {"alpaca", "{\"input_ids\": [97, 98], \"labels\": [-100, 98]}", ""},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        struct text notes = {0};
        char want[400];
        const char *source = file_put("p.jsonl", cases[i].rows, (i64)strlen(cases[i].rows));
        struct dataset_job job = job_of(&source, cases[i].style, false);
        job.notes = &notes;
        const int rc = dataset_build(&job, &e);
        if (*cases[i].want == '!' && (!rc || !strstr(e.primary, cases[i].want + 2)))
            fail_msg("case %d: '%s'", i, e.primary);
        if (*cases[i].want != '!') {
            if (rc) fail_msg("case %d: %s", i, e.primary);
            snprintf(want, sizeof want,
                     *cases[i].want ? "note: column 'id' of %s is not used "
                                      "(1 row)\n"
                                    : "%.0s",
                     source);
            assert_string_equal(notes.data ? notes.data : "", want);
        }
        text_free(&notes);
    }
    for (const char *p = prompt_style_choices; *p; p += strcspn(p, " "), p += *p == ' ') {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p, " "), p);
        assert_non_null(prompt_style_find(name));
    }
    assert_null(prompt_style_find("alpaca:foo"));
}

/* ---- rows that are left out */

static void build(const struct dataset_job *job, const char *want, const char *notes) {
    struct err e = {0};
    if (dataset_build(job, &e)) fail_msg("%s", e.primary);
    assert_string_equal(dataset_marked(job->path), want);
    assert_string_equal(job->notes->data ? job->notes->data : "", notes);
    text_free(job->notes);
}

static void test_left_out(void **state) {
    (void)state;
    static const char rows[] = "{\"text\": \"ab\"}\n{\"text\": \"abc\"}\n{\"text\": \"ab\"}\n"
                               "{\"text\": \"c\"}\n{\"text\": \"abc\"}\n{\"text\": \"abcd\"}\n",
                      pairs[] =
                          "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"ab\"}\n"
                          "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"ab\", "
                          "\"completion\": \"c\"}\n{\"prompt\": \"a\", \"completion\": \"bc\"}\n";
    struct text notes = {0};
    struct seen seen = {0};
    char note[400];
    const char *source = file_put("p.jsonl", rows, sizeof rows - 1);
    struct dataset_job job = byte_job(&source, in_folder("p.h5"));
    job.notes = &notes, job.min_tokens = 4; /* eos counts */
    snprintf(note, sizeof note, "note: %s: left out: 3 documents of fewer than 4 tokens\n", source);
    build(&job, "[abc$abc$abcd$]", note);
    job.seen = &seen;
    snprintf(note, sizeof note,
             "note: %s: left out: 3 documents of fewer than 4 tokens\nnote: %s: left out: 1 "
             "document that is there already\n",
             source, source);
    build(&job, "[abc$abcd$]", note);
    assert_int_equal(seen.count, 2);
    job.min_tokens = 0; /* what the job before had seen is there already, too */
    snprintf(note, sizeof note, "note: %s: left out: 4 documents that are there already\n", source);
    build(&job, "[ab$c$]", note);
    seen_free(&seen);
    source = file_put("p.jsonl", pairs, sizeof pairs - 1); /* the same ids, other targets */
    job.options.completion_only_loss = true;
    snprintf(note, sizeof note, "note: %s: left out: 1 document that is there already\n", source);
    build(&job, "a[b$ab$]ab[c$]a[bc$]", note);
    seen_free(&seen);
}

/* So many documents that the table grows and chunks are written in between. */
static void test_many(void **state) {
    (void)state;
    enum { ROWS = 20000, KINDS = 7000 };
    struct text rows = {0}, notes = {0};
    struct err e = {0};
    struct seen seen = {0};
    for (i64 i = 0; i < ROWS; i++)
        if (text_printf(&rows, &e, "{\"text\": \"row %lld of many, long enough to fill chunks\"}\n",
                        (long long)(i * 31 % KINDS)))
            fail_msg("%s", e.primary);
    const char *source = file_put("p.jsonl", rows.data, rows.size);
    struct dataset_job job = byte_job(&source, in_folder("p.h5"));
    job.notes = &notes, job.seen = &seen;
    if (dataset_build(&job, &e)) fail_msg("%s", e.primary);
    struct dataset *d = dataset_open(job.path, &e);
    assert_int_equal(dataset_info(d)->documents, KINDS);
    assert_int_equal(seen.count, KINDS);
    for (i64 i = 0; i < KINDS; i++) {
        const struct dataset_info *f = dataset_info(d);
        u32 ids[64];
        char want[64];
        const i64 size = (i64)(f->documents_at[i + 1] - f->documents_at[i]);
        snprintf(want, sizeof want, "row %lld of many", (long long)(i * 31 % KINDS));
        assert_int_equal(dataset_read(d, (i64)f->documents_at[i], size, ids, &e), 0);
        for (i64 k = 0; want[k]; k++) assert_int_equal(ids[k], want[k]);
    }
    dataset_close(d), seen_free(&seen), text_free(&rows), text_free(&notes);
}

/* ---- system messages */

#define TALK                                                                                       \
    "{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}"
#define SYSTEM   "{\"role\": \"system\", \"content\": \"s\"}"
#define ANSWERED "<user>q</s>\n<assistant>[a</s>]\n"

static void test_system(void **state) {
    (void)state;
    static const char plain[] =
        "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ '</s>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";
    static const struct {
        const char *row, *want, *said;
        bool drop;
        const char *system;
    } cases[] = {
        {"{\"messages\": [" SYSTEM ", " TALK "]}", ANSWERED, "a first system message is dropped",
         true, NULL},
        {"{\"messages\": [" TALK "], \"system\": \"s\"}", ANSWERED,
         "a first system message is dropped", true, NULL},
        {"{\"messages\": [" TALK "]}", ANSWERED, "", true, NULL},
        {"{\"messages\": [" TALK "]}", "<system>d</s>\n" ANSWERED, "gets that of default_system",
         false, "d"},
        {"{\"messages\": [" SYSTEM ", " TALK "]}", "<system>s</s>\n" ANSWERED, "", false, "d"},
        {"{\"messages\": [" SYSTEM ", " TALK "]}", "<system>d</s>\n" ANSWERED, "is dropped", true,
         "d"},
        {"{\"prompt\": [" SYSTEM ", {\"role\": \"user\", \"content\": \"q\"}], \"completion\": "
         "[{\"role\": \"assistant\", \"content\": \"a\"}]}",
         ANSWERED, "is dropped", true, NULL},
        {"{\"instruction\": \"q\", \"output\": \"a\"}", "<system>d</s>\n" ANSWERED,
         "gets that of default_system", false, "d"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        struct text notes = {0};
        struct chat *chat = chat_open(plain, NULL, NULL, &e);
        const char *source = file_put("p.jsonl", cases[i].row, (i64)strlen(cases[i].row));
        struct dataset_job job = byte_job(&source, in_folder("p.h5"));
        job.notes = &notes;
        job.options = (struct source_options){
            .chat = chat,
            .chat_instructions = true,
            .assistant_only_loss = true,
            .rules = {.drop_system = cases[i].drop, .system = cases[i].system}};
        if (dataset_build(&job, &e)) fail_msg("case %d: %s", i, e.primary);
        assert_string_equal(dataset_marked(job.path), cases[i].want);
        if (!strstr(notes.data ? notes.data : "", cases[i].said) || (!*cases[i].said && notes.size))
            fail_msg("case %d: '%s'", i, notes.data ? notes.data : "");
        chat_free(chat), text_free(&notes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_axolotl),
                                       cmocka_unit_test(test_styles),
                                       cmocka_unit_test(test_left_out), cmocka_unit_test(test_many),
                                       cmocka_unit_test(test_system)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
