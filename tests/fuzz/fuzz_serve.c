/* fuzz_serve.c: libFuzzer target for the bodies of requests to `hone serve`; clang
 * -fsanitize=fuzzer,address,undefined.
 *
 * The first byte picks the endpoint. A body is refused with a status, a message and OpenAI's form
 * of it, or understood: then its prompts have ids of the vocabulary, its settings lie within their
 * ranges, and reading it again gives the same. Where an answer's thought ends never moves back as
 * the answer grows. */
#include "train/serve/serve_int.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

enum { POSITIONS = 512 };
static struct loaded loaded;
static struct ids stops;
static const struct text_list no_text;
static struct serve_model model = {
    .l = &loaded, .stops = &stops, .stop = &no_text, .name = "m", .base = "b", .precision = "fp32"};

static void check(bool holds) {
    if (!holds) abort();
}

static void fuzz_end(void) { chat_free(model.chat), tokenizer_free(loaded.tokenizer); }

static void fuzz_begin(void) {
    struct err e = {0};
    loaded.tokenizer = tokenizer_open("tests/golden/tokenizers/stories260K.json", &e);
    model.chat = chat_open("{{ tools | tojson if tools }}{% for m in messages %}<{{ m.role }}>"
                           "{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}"
                           "{% endfor %}{{ m.content }}{{ x }}</s>{% endfor %}"
                           "{% if add_generation_prompt %}<think></think>{% endif %}",
                           NULL, NULL, &e);
    check(loaded.tokenizer && model.chat);
    loaded.model.config.vocab_size = tokenizer_size(loaded.tokenizer);
    model.usual = (struct sampling){.temperature = 0.8,
                                    .top_p = 0.95,
                                    .max_new_tokens = 16,
                                    .seed = 42,
                                    .repetition_penalty = 1};
    model.asked = model.usual;
    atexit(fuzz_end);
}

static void refused_right(const struct refusal *r) {
    struct text out = {0};
    struct err e = {0};
    check(r->status >= 400 && r->status < 600 && *r->message && !refusal_json(r, &out, &e));
    json_t *j = json_loadb(out.data, (size_t)out.size, 0, NULL);
    check(json_is_string(json_object_get(json_object_get(j, "error"), "message")));
    json_decref(j), text_free(&out);
}

static void request_case(const json_t *j, bool chat) {
    struct request q = {0}, again = {0};
    struct refusal r = {0}, second = {0};
    const int rc = request_read(&q, &model, POSITIONS, j, chat, &r);
    check(request_read(&again, &model, POSITIONS, j, chat, &second) == rc);
    check(!rc == !r.status && r.status == second.status && !strcmp(r.message, second.message));
    if (rc) refused_right(&r);
    check(rc || (q.prompts > 0 && q.prompts == again.prompts && q.n >= 1 && q.n <= 128));
    check(rc || (q.how.temperature >= 0 && q.how.top_p >= 0 && q.how.top_p <= 1 &&
                 q.how.top_k >= 0 && q.top >= 0 && q.top <= SCORES_TOP));
    for (i64 i = 0; !rc && i < q.prompts; i++) {
        const struct ids *ids = &q.prompt[i].ids;
        check(ids->count > 0 && ids->count <= POSITIONS);
        check(ids->count == again.prompt[i].ids.count);
        for (i64 k = 0; k < ids->count; k++)
            check(ids->item[k] < (u64)loaded.model.config.vocab_size &&
                  ids->item[k] == again.prompt[i].ids.item[k]);
    }
    request_free(&q), request_free(&again);
}

static void little_case(const json_t *j, int which) {
    struct refusal r = {0};
    struct text out = {0};
    const int rc = which == 2   ? tokenize_json(&model, POSITIONS, j, &out, &r)
                   : which == 3 ? detokenize_json(&model, j, &out, &r)
                                : template_json(&model, j, &out, &r);
    if (rc) {
        refused_right(&r);
    } else {
        json_t *back = json_loadb(out.data, (size_t)out.size, JSON_ALLOW_NUL, NULL);
        check(json_is_object(back));
        json_decref(back);
    }
    text_free(&out);
}

static void thought_case(const char *text, i64 size) {
    for (int inside = 0; inside < 2; inside++) {
        struct thought before = {0};
        const struct thought all = thought_of(text, size, inside, true);
        for (i64 n = 0; n <= size; n++) {
            const struct thought t = thought_of(text, n, inside, false);
            check(t.begin <= t.end && t.end <= n && t.said_begin <= t.said_end && t.said_end <= n);
            check(t.end - t.begin >= 0 && (t.end == t.begin || t.end >= before.end));
            if (t.end > t.begin) before = t;
        }
        check(all.end >= before.end && all.said_end == size);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0};
    if (!loaded.tokenizer) fuzz_begin();
    if (!size) return 0;
    const char *body = (const char *)data + 1;
    const i64 count = (i64)size - 1;
    if (data[0] % 6 == 5) return thought_case(body, i64_min(count, 2000)), 0;
    json_t *j = utf8_bad(body, count) < 0 ? json_parse(body, count, "body", &e) : NULL;
    if (j && data[0] % 6 < 2) request_case(j, data[0] % 6);
    if (j && data[0] % 6 >= 2) little_case(j, data[0] % 6);
    json_decref(j);
    return 0;
}
