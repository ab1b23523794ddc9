/* fuzz_jinja.c: libFuzzer target. The input is a chat template, and after a zero byte (optional)
 * the JSON object of its variables. It must give a text or an error, soon, and valid UTF-8. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "data/templates/templates.h"

static const char usual[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
    "\"q\"},"
    "{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"id\": \"1\", \"type\": "
    "\"function\","
    "\"function\": {\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, null, true]}}}]},"
    "{\"role\": \"tool\", \"name\": \"f\", \"tool_call_id\": \"1\", \"content\": \"x\"}],"
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"d\","
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"array\"}}}}}],"
    "\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_generation_prompt\": true}";

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0}, ignored = {0};
    const u8 *zero = memchr(data, 0, size);
    const i64 n = zero ? zero - data : (i64)size;
    json_t *v = zero ? json_parse((const char *)zero + 1, (i64)size - n - 1, "variables", &ignored)
                     : json_parse(usual, (i64)sizeof usual - 1, "variables", &ignored);
    if (!json_is_object(v)) return json_decref(v), 0;
    struct text out = {0};
    struct spans spans = {0};
    struct template *t = template_new((const char *)data, n, "template", &e);
    const int rc = t ? template_render(t, v, 0, &out, &spans, &e) : -1;
    if (!rc != !e.code)
        fprintf(stderr, "fuzz_jinja: an error without a message, or the reverse\n"), abort();
    if (!rc && utf8_bad(out.data, out.size) >= 0)
        fprintf(stderr, "fuzz_jinja: broken UTF-8\n"), abort();
    for (i64 i = 0; i < spans.count; i++)
        if (spans.item[i].begin >= spans.item[i].end || spans.item[i].end > out.size) abort();
    template_free(t), text_free(&out), spans_free(&spans), json_decref(v);
    return 0;
}
