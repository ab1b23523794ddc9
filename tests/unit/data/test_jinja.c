/* test_jinja.c: chat templates render as Jinja2 with transformers' settings renders them (goldens);
 * what is not supported is refused by name and line; no template hangs, overflows or leaks. */
#include "tests/unit/data/tokenizer_files.h"

#include <stdio.h>
#include <time.h>

#define JINJA "tests/golden/jinja/"
static const i64 now = 1767225600;
static const char special[] = "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"},"
                              " \"unk_token\": \"<unk>\", \"pad_token\": \"<pad>\"}";

/* Calls each line of a file of JSON lines. */
static void each_line(const char *path, void (*call)(const json_t *, i64, void *), void *arg) {
    struct err e = {0};
    struct text file;
    assert_int_equal(0, file_read(&file, path, &e));
    i64 n = 0;
    for (char *at = file.data, *end; at < file.data + file.size; at = end + 1, n++) {
        assert_non_null(end = memchr(at, '\n', (size_t)(file.data + file.size - at)));
        json_t *j = json_parse(at, end - at, path, &e);
        assert_non_null(j);
        call(j, n, arg);
        json_decref(j);
    }
    assert_true(n > 0);
    text_free(&file);
}

static json_t *variables(void) {
    struct err e = {0};
    static const char row[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": null,"
        "\"documents\": null, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\","
        "\"add_generation_prompt\": true}";
    return json_parse(row, (i64)strlen(row), "row", &e);
}

/* 0: rendered */
static int render(const char *source, i64 size, struct text *out, struct spans *spans,
                  struct err *e) {
    json_t *v = variables();
    struct template *t = template_new(source, size, "T", e);
    const int rc = t ? template_render(t, v, now, out, spans, e) : -1;
    template_free(t), json_decref(v);
    return rc;
}

static void snippet(const json_t *j, i64 line, void *arg) {
    (void)arg;
    struct err e = {0};
    struct text out = {0};
    struct spans spans = {0};
    const json_t *source = json_object_get(j, "template"), *text = json_object_get(j, "text");
    const int rc =
        render(json_string_value(source), (i64)json_string_length(source), &out, &spans, &e);
    if (!text && !rc) fail_msg("snippet %d: rendered, but Jinja2 raises", (int)line + 1);
    if (!text) {
        const bool missing = strstr(e.primary, "not supported");
        if (missing != json_is_true(json_object_get(j, "unsupported")))
            fail_msg("snippet %d: %s", (int)line + 1, e.primary);
    } else {
        if (rc) fail_msg("snippet %d: %s", (int)line + 1, e.primary);
        assert_int_equal(out.size, json_string_length(text));
        assert_memory_equal(out.data, json_string_value(text), out.size);
        const json_t *want = json_object_get(j, "generation");
        assert_int_equal(spans.count, json_array_size(want));
        for (i64 i = 0; i < spans.count; i++) {
            const json_t *span = json_array_get(want, (size_t)i);
            assert_int_equal(spans.item[i].begin, json_integer_value(json_array_get(span, 0)));
            assert_int_equal(spans.item[i].end, json_integer_value(json_array_get(span, 1)));
        }
    }
    text_free(&out), spans_free(&spans);
}
/* a + b begins with a's own items: what one list goes on with, no other sees. */
static void test_shared_lists(void **state) {
    (void)state;
    static const char source[] =
        "{% set a = [1] %}{% set b = a + [2] %}{% set c = a + [3] %}{% set d = b + [4] %}"
        "{% set f = b + b %}{% set g = [] + b %}{% set h = d + [] %}{% set i = h + [5] %}"
        "{% set j = d + [6] %}{% set k = (1, 2) + (3,) %}{% set l = b + [b + [7], b + [8]] %}"
        "{{ [a, b, c, d, f, g, h, i, j, k, l] }}"
        "{% set ns = namespace(x=[]) %}{% for n in range(40) %}{% set ns.x = ns.x + [n] %}"
        "{% set other = ns.x + ['no'] %}{% endfor %}{{ ns.x[:3] }}{{ ns.x|length }}{{ ns.x|sum }}";
    static const char want[] =
        "[[1], [1, 2], [1, 3], [1, 2, 4], [1, 2, 1, 2], [1, 2], [1, 2, 4], [1, 2, 4, 5], "
        "[1, 2, 4, 6], (1, 2, 3), [1, 2, [1, 2, 7], [1, 2, 8]]][0, 1, 2]40780";
    struct err e = {0};
    struct text out = {0};
    if (render(source, sizeof source - 1, &out, NULL, &e)) fail_msg("%s", e.primary);
    assert_string_equal(out.data, want);
    text_free(&out);
}

static void test_snippets(void **state) {
    (void)state;
    each_line(JINJA "snippets.jsonl", snippet, NULL);
}

struct published {
    const struct chat *chat;
    const char *name, *hashes;
};
static void row(const json_t *j, i64 line, void *arg) {
    const struct published *p = arg;
    struct err e = {0};
    struct text out = {0};
    const char *want = p->hashes;
    for (i64 i = 0; i < line; i++) want = strchr(want, '\n') + 1;
    const int rc =
        chat_render(p->chat, j, json_object_get(j, "messages"),
                    json_is_true(json_object_get(j, "add_generation_prompt")), &out, NULL, &e);
    char hex[65] = "refused";
    if (!rc) assert_int_equal(0, sha256_bytes(out.data, out.size, hex, &e));
    if (strncmp(want, hex, strcspn(want, "\n")))
        fail_msg("%s, row %d: %s", p->name, (int)line + 1, rc ? e.primary : out.data);
    text_free(&out);
}

static char *special_folder(void) { /* free() it */
    char *folder = temporary_folder(), path[100];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    assert_int_equal(0, file_write(path, special, (i64)strlen(special), &e));
    return folder;
}

static void test_published(void **state) {
    (void)state;
    static const char *const names[] = {"qwen3", "gpt_oss", "mistral_v3", "phi3", "functionary"};
    char *folder = special_folder(), path[100];
    for (int i = 0; i < COUNT(names); i++) {
        struct err e = {0};
        struct text hashes;
        snprintf(path, sizeof path, JINJA "%s.jinja.sha256", names[i]);
        assert_int_equal(0, file_read(&hashes, path, &e));
        *strrchr(path, '.') = 0;
        struct chat *c = chat_open(path, folder, NULL, &e);
        if (!c) fail_msg("%s", e.primary);
        each_line(JINJA "rows.jsonl", row, &(struct published){c, names[i], hashes.data});
        chat_free(c), text_free(&hashes);
    }
    assert_int_equal(0, dir_remove(folder, &(struct err){0}));
    free(folder);
}

/* ---- refusals */

static const struct {
    const char *source, *message;
} refused[] = {
    {"a\n{% include 'x' %}", "T:2: the statement 'include' is not supported"},
    {"{{ 1 | xmlattr }}", "T:1: the filter 'xmlattr' is not supported"},
    {"{{ 1 is weird }}", "T:1: the test 'weird' is not supported"},
    {"{% for x in y recursive %}{% endfor %}", "T:1: 'recursive' loops are not supported"},
    {"\n\n{{ 'x'.zfill(3) }}", "T:3: the method 'zfill' is not supported"},
    {"{{ f(*x) }}", "T:1: '*' arguments are not supported"},
    {"{{ x.y }}", "T:1: 'x' is undefined"},
    {"{{ messages[0].nope.z }}", "T:1: 'dict.nope' is undefined"},
    {"{{ messages.append(1) }}",
     "T:1: 'append' changes a list, which the sandbox of templates does not allow"},
    {"{{ raise_exception('no') }}", "T:1: the template refuses this conversation: no"},
    {"{% if 1 %}\n{{ 1 }}", "T:2: the block of line 1 has no end: expected 'elif'"},
    {"{% endfor %}", "T:1: 'endfor' ends nothing that is open here"},
    {"{{ 1 ", "T:1: a tag without end"},
    {"{# x", "T:1: a comment without end"},
    {"{% raw %}x", "T:1: a raw block without end"},
    {"{{ 'x }}", "T:1: a text without end"},
    {"{{ (1] }}", "T:1: a closing bracket that nothing opened"},
    {"{{ 1 + }}", "T:1: found '}}' where an expression was expected"},
    {"{{ 1 2 }}", "T:1: found '2' where }} was expected"},
    {"{{ ? }}", "T:1: an unexpected character U+003F in a tag"},
    {"{% break %}", "T:1: 'break' outside a loop"},
    {"{{ 9223372036854775807 }}", "T:1: a number that cannot be read"},
    {"{{ 9223372036854775806 + 2 }}", "T:1: '+': more than 64 bits"},
    {"{{ 'a' | replace('a') }}", "T:1: replace needs two texts"},
    {"{{ 'a' | upper(1) }}", "T:1: 'upper' takes fewer than 1 arguments"},
    {"{{ [1] | join(e=1) }}", "T:1: 'join' takes no argument 'e'"},
    {"\xff", "T: invalid UTF-8 at byte 0"},
};
static void test_refused(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(refused); i++) {
        struct err e = {0};
        struct text out = {0};
        assert_int_equal(-1,
                         render(refused[i].source, (i64)strlen(refused[i].source), &out, NULL, &e));
        assert_string_equal(e.primary, refused[i].message);
        assert_int_equal(e.code, ERR_INPUT);
        assert_int_equal(out.size, 0);
        text_free(&out);
    }
}

/* ---- limits: what would hang, overflow the stack or eat the memory is an error, soon */

static const char *const greedy[] = {
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f() %}{{ f() ~ f() }}{% endmacro %}{{ f() }}",
    "{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x "
    "}}",
    "{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set n.x = {'k': n.x} %}{% endfor %}"
    "{{ n.x | tojson }}{{ n.x == n.x }}",
    "{{ 'a' * 999999999999 }}",
    "{{ [1] * 999999999999 }}",
    "{{ 'abc' | indent(999999999) | indent(99999999) | replace('', 'xxxxxxxxxxxx') }}"
    "{% for i in range(9999) %}{{ 'a\n' * 99999 | indent(9999) }}{% endfor %}",
    "{{ range(99999999999) }}",
    "{{ range(-9223372036854775806, 9223372036854775806, 9223372036854775800) | list }}"
    "{{ 'x'[9223372036854775806:-9223372036854775806:-9223372036854775806] }}{{ x.y }}",
};
static void test_greedy(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(greedy); i++) {
        struct err e = {0};
        struct text out = {0};
        assert_int_equal(-1, render(greedy[i], (i64)strlen(greedy[i]), &out, NULL, &e));
        text_free(&out);
    }
    static const char *const repeated[] = {"{% if 1 %}",
                                           "{{ (",
                                           "{{ [",
                                           "{{ -",
                                           "{{ not ",
                                           "{{ 1 if ",
                                           "{{ 1 + ",
                                           "a.",
                                           "{%",
                                           "{{",
                                           "{#",
                                           "{{ x|e",
                                           "{% if 1 %}{% elif 2 %}"};
    for (int i = 0; i < COUNT(repeated); i++) {
        struct err e = {0};
        struct text source = {0}, out = {0};
        for (int n = 0; n < 20000; n++)
            assert_int_equal(0, text_add(&source, repeated[i], (i64)strlen(repeated[i]), &e));
        if (repeated[i][0] == '{')
            assert_int_equal(-1, render(source.data, source.size, &out, NULL, &e));
        text_free(&source), text_free(&out);
    }
}

/* Chains of operators in brackets: a tree 285,000 levels deep, which nothing may walk by calling
 * itself without end. It is not evaluated, so the template renders. */
static void test_deep_tree(void **state) {
    (void)state;
    static const char *const chain[] = {"**1", "*1", "~1", "+1", " and 1", " or 1"};
    static const char loop[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    struct err e = {0};
    struct text deep = {0};
    int rc = text_printf(&deep, &e, "{%% if 0 %%}{{ %0*d", 96, 0);
    for (i64 i = deep.size - 96; !rc && i < deep.size; i++) deep.data[i] = '(';
    rc = rc || text_add(&deep, "1", 1, &e);
    for (int level = 0; level < 96; level++) {
        for (int i = 0; i < COUNT(chain); i++)
            for (int k = 0; k < 499; k++)
                rc = rc || text_add(&deep, chain[i], (i64)strlen(chain[i]), &e);
        rc = rc || text_add(&deep, ")", 1, &e);
    }
    rc = rc || text_printf(&deep, &e, " }}{%% endif %%}");
    for (int tail = 0; tail < 2 && !rc; tail++) {
        struct text source = {0}, out = {0}, whole = {0};
        struct turn turn[1] = {{.messages = 1}};
        rc = text_printf(&source, &e, "%s%s", tail ? loop : deep.data, tail ? deep.data : loop);
        json_t *v = variables();
        struct template *t = rc ? NULL : template_new(source.data, source.size, "T", &e);
        if (!t) fail_msg("%s", e.primary);
        assert_int_equal(1, template_render_turns(t, v, now, &out, turn, 1, &e));
        assert_int_equal(0, template_render(t, v, now, &whole, NULL, &e));
        template_free(t), json_decref(v);
        text_free(&source), text_free(&out), text_free(&whole);
    }
    assert_int_equal(0, rc);
    text_free(&deep);
}

/* ---- every allocation that fails is an error, never a crash or a wrong text */

static void test_faults(void **state) {
    (void)state;
    static const char source[] =
        "{% macro m(a, b=[1]) %}{{ a | tojson(indent=2) }}{{ b | join(',') }}{% endmacro %}"
        "{% for x in messages if x.role %}{% generation %}{{ m({'a': x}) | upper | indent }}"
        "{% endgeneration %}{% set q %}{{ loop.index }}{% endset %}{{ q ~ x.content[::-1] }}{% "
        "endfor %}"
        "{{ [3, 1] | sort | map('string') | list }}{{ 'a,b'.split(',') }}{{ messages | tojson }}";
    struct text want = {0};
    struct err e = {0};
    assert_int_equal(0, render(source, (i64)strlen(source), &want, NULL, &e));
    for (int n = 1;; n++) {
        char fault[32];
        struct text out = {0};
        struct spans spans = {0};
        snprintf(fault, sizeof fault, "alloc:%d", n);
        e = (struct err){0};
        assert_int_equal(0, fault_arm(fault));
        const int rc = render(source, (i64)strlen(source), &out, &spans, &e);
        fault_arm(NULL);
        if (!rc) assert_string_equal(out.data, want.data);
        if (rc) assert_true(e.starved);
        text_free(&out), spans_free(&spans);
        if (!rc) break;
        assert_true(n < 1000);
    }
    text_free(&want);
}

/* ---- where templates come from */

static void put_file(const char *folder, const char *name, const char *text) {
    char path[400];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(0, file_write(path, text, (i64)strlen(text), &e));
}

static void expect_text(const char *chosen, const char *folder, const char *tools,
                        const char *want) {
    struct err e = {0};
    struct text out = {0};
    json_t *v = variables(), *row = json_object();
    struct chat *c = chat_open(chosen, folder, NULL, &e);
    if (tools) json_object_set_new(row, "tools", json_loads(tools, 0, NULL));
    const int rc =
        c ? chat_render(c, row, json_object_get(v, "messages"), true, &out, NULL, &e) : -1;
    assert_string_equal(rc ? e.primary : out.data, want);
    json_decref(v), json_decref(row), chat_free(c), text_free(&out);
}

static void test_sources(void **state) {
    (void)state;
    char *folder = special_folder(), path[300];
    struct err e = {0};
    char none[300];
    snprintf(none, sizeof none, "%s has no chat template", folder);
    expect_text(NULL, folder, NULL, none);
    expect_text("chatml", folder, NULL, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    expect_text("{{ bos_token }}{{ messages[0].content }}", folder, NULL, "<s>hi");
    put_file(folder, "tokenizer_config.json",
             "{\"chat_template\": \"plain {{ messages[0].content }}\"}");
    expect_text(NULL, folder, NULL, "plain hi");
    put_file(folder, "tokenizer_config.json",
             "{\"eos_token\": \"E\", \"chat_template\": [{\"name\": \"default\", \"template\": "
             "\"d{{ eos_token }}\"}, {\"name\": \"tool_use\", \"template\": \"t\"}, {\"name\": "
             "\"rag\", \"template\": \"{% include 'x' %}\"}]}");
    expect_text(NULL, folder, NULL, "dE");
    expect_text(NULL, folder, "[{}]", "t");
    expect_text("tool_use", folder, NULL, "t");
    snprintf(path, sizeof path,
             "%s/tokenizer_config.json:1: the statement 'include' is not supported", folder);
    expect_text("rag", folder, NULL, path);
    put_file(folder, "chat_template.jinja", "file");
    expect_text(NULL, folder, NULL, "file");
    snprintf(path, sizeof path, "%s/tokenizer.json",
             folder); /* a file in the folder stands for it */
    expect_text(NULL, path, NULL, "file");
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    assert_int_equal(0, dir_make(path, &e));
    put_file(path, "more.jinja", "more");
    expect_text("more", folder, NULL, "more");
    expect_text("mroe", folder, NULL, "chat_template: 'mroe' is no template");
    snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
    expect_text(path, NULL, NULL, "file");
    put_file(folder, "tokenizer_config.json", "{\"chat_template\": 7}");
    expect_text(NULL, folder, NULL, "file"); /* which is not asked where there are files */
    assert_int_equal(0, remove(path));
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    assert_int_equal(0, dir_remove(path, &e));
    snprintf(
        path, sizeof path,
        "%s/tokenizer_config.json: \"chat_template\" is neither a text nor a list of named texts",
        folder);
    expect_text(NULL, folder, NULL, path);
    assert_int_equal(0, dir_remove(folder, &e));
    free(folder);
}

int main(void) {
    setenv("TZ", "UTC", 1), setenv("SOURCE_DATE_EPOCH", "1767225600", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snippets),  cmocka_unit_test(test_shared_lists),
        cmocka_unit_test(test_published), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_greedy),    cmocka_unit_test(test_faults),
        cmocka_unit_test(test_deep_tree), cmocka_unit_test(test_sources)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
