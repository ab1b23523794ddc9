/* little.c: the endpoints that compute nothing: ids and texts, rendered templates, which models
 * there are, counters. /tokenize takes the fields of vLLM ("prompt", "messages") and llama.cpp
 * ("content"), whose defaults for special tokens differ. */
#include "train/serve/serve_int.h"

#include <string.h>

static bool yes(const json_t *j, const char *key, bool otherwise, struct refusal *r) {
    const json_t *v = json_object_get(j, key);
    if (!v) return otherwise;
    if (!json_is_boolean(v)) refuse(r, 400, key, "%s must be true or false", key);
    return json_is_true(v);
}

static int ids_print(const struct ids *ids, struct text *out, struct err *e) {
    int rc = text_printf(out, e, "[");
    for (i64 i = 0; !rc && i < ids->count; i++)
        rc = text_printf(out, e, "%s%u", i ? ", " : "", ids->item[i]);
    return rc || text_printf(out, e, "]");
}

int tokenize_json(const struct serve_model *m, i64 positions, const json_t *j, struct text *out,
                  struct refusal *r) {
    static const char *const known[] = {"model",
                                        "prompt",
                                        "content",
                                        "add_special_tokens",
                                        "add_special",
                                        "messages",
                                        "tools",
                                        "chat_template_kwargs",
                                        "add_generation_prompt",
                                        NULL};
    struct text text = {0};
    struct ids ids = {0};
    struct err e = {0};
    const json_t *prompt = json_object_get(j, "prompt"), *content = json_object_get(j, "content");
    if (!json_is_object(j)) return refuse(r, 400, NULL, "the body must be a JSON object");
    if (keys_known(j, known, r)) return -1;
    const bool talks = json_object_get(j, "messages"),
               special =
                   yes(j, "add_special", yes(j, "add_special_tokens", prompt && !talks, r), r),
               opens = yes(j, "add_generation_prompt", true, r);
    const json_t *said = prompt ? prompt : content;
    if (!r->status && talks)
        messages_render(m, j, opens, &text, r);
    else if (!r->status && !json_is_string(said))
        refuse(r, 400, "prompt", "expected a text as \"prompt\" or \"content\", or \"messages\"");
    else if (!r->status &&
             text_add(&text, json_string_value(said), (i64)json_string_length(said), &e))
        refuse_err(r, NULL, &e);
    if (!r->status && (tokenizer_encode(m->l->tokenizer, text.data ? text.data : "", text.size,
                                        special, &ids, &e) ||
                       text_printf(out, &e, "{\"tokens\": ") || ids_print(&ids, out, &e) ||
                       text_printf(out, &e, ", \"count\": %lld, \"max_model_len\": %lld}\n",
                                   (long long)ids.count, (long long)positions)))
        refuse_err(r, NULL, &e);
    text_free(&text), ids_free(&ids);
    return r->status ? -1 : 0;
}

int detokenize_json(const struct serve_model *m, const json_t *j, struct text *out,
                    struct refusal *r) {
    static const char *const known[] = {"model", "tokens", NULL};
    struct text text = {0}, quoted = {0};
    struct ids ids = {0};
    struct err e = {0};
    const json_t *list = json_object_get(j, "tokens"), *one;
    size_t i;
    if (!json_is_object(j)) return refuse(r, 400, NULL, "the body must be a JSON object");
    if (keys_known(j, known, r)) return -1;
    if (!json_is_array(list)) refuse(r, 400, "tokens", "tokens must be a list of ids");
    json_array_foreach((json_t *)(uintptr_t)list, i, one) {
        const i64 id = json_integer_value(one);
        if (r->status) break;
        if (!json_is_integer(one) || id < 0 || id > UINT32_MAX ||
            !tokenizer_has(m->l->tokenizer, (u32)id))
            refuse(r, 400, "tokens", "number %lld of the list is no token's id", (long long)i);
        else if (ids_add(&ids, (u32)id, &e))
            refuse_err(r, NULL, &e);
    }
    if (!r->status &&
        (tokenizer_decode(m->l->tokenizer, ids.item, ids.count, false, &text, &e) ||
         json_text_add(&quoted, text.data ? text.data : "", text.size, &e) ||
         text_printf(out, &e, "{\"prompt\": ") || text_add(out, quoted.data, quoted.size, &e) ||
         text_printf(out, &e, ", \"content\": ") || text_add(out, quoted.data, quoted.size, &e) ||
         text_printf(out, &e, "}\n")))
        refuse_err(r, NULL, &e);
    text_free(&text), text_free(&quoted), ids_free(&ids);
    return r->status ? -1 : 0;
}

int template_json(const struct serve_model *m, const json_t *j, struct text *out,
                  struct refusal *r) {
    static const char *const known[] = {"model",
                                        "messages",
                                        "tools",
                                        "tool_choice",
                                        "chat_template_kwargs",
                                        "add_generation_prompt",
                                        NULL};
    struct text text = {0};
    struct err e = {0};
    if (!json_is_object(j)) return refuse(r, 400, NULL, "the body must be a JSON object");
    if (keys_known(j, known, r)) return -1;
    const bool opens = yes(j, "add_generation_prompt", true, r);
    if (!r->status && !messages_render(m, j, opens, &text, r) &&
        (text_printf(out, &e, "{\"prompt\": ") ||
         json_text_add(out, text.data ? text.data : "", text.size, &e) ||
         text_printf(out, &e, "}\n")))
        refuse_err(r, NULL, &e);
    return text_free(&text), r->status ? -1 : 0;
}

int models_json(const struct serve_model *m, i64 positions, i64 created, struct text *out,
                struct err *e) {
    const char *const name[] = {m->name, m->base};
    int rc = text_printf(out, e, "{\"object\": \"list\", \"data\": [");
    for (int i = 0; !rc && i < 2 && name[i]; i++)
        rc = text_printf(out, e, "%s{\"id\": ", i ? ", " : "") ||
             json_text_add(out, name[i], (i64)strlen(name[i]), e) ||
             text_printf(out, e,
                         ", \"object\": \"model\", \"created\": %lld, \"owned_by\": \"hone\", "
                         "\"max_model_len\": %lld}",
                         (long long)created, (long long)positions);
    return rc || text_printf(out, e, "]}\n") ? -1 : 0;
}

int metrics_text(struct worker *w, struct text *out, struct err *e) {
    const struct worker_counts c = worker_counted(w);
    const struct {
        const char *name, *type, *help;
        i64 value;
    } row[] = {
        {"requests_total", "counter", "texts asked for", c.requests},
        {"requests_refused_total", "counter", "requests for which there was no room", c.refused},
        {"requests_cancelled_total", "counter", "texts ended before their end", c.cancelled},
        {"requests_failed_total", "counter", "texts that went wrong", c.failed},
        {"requests_waiting", "gauge", "texts that wait for room", c.waiting},
        {"requests_running", "gauge", "texts that are continued", c.running},
        {"prompt_tokens_total", "counter", "tokens of prompts", c.prompt_tokens},
        {"generated_tokens_total", "counter", "tokens of answers", c.tokens},
        {"computed_positions_total", "counter", "positions computed", c.engine.computed},
        {"reused_positions_total", "counter", "positions taken from earlier texts",
         c.engine.reused},
        {"passes_total", "counter", "passes over the weights", c.engine.passes},
        {"preempted_total", "counter", "texts that gave back their states", c.engine.preempted},
        {"evicted_pages_total", "counter", "pages of states given up", c.engine.evicted},
        {"pages", "gauge", "pages of states, of 64 positions each", c.engine.pages},
        {"pages_most", "gauge", "pages that there can be", c.engine.most}};
    int rc = 0;
    for (int i = 0; !rc && i < COUNT(row); i++)
        rc = text_printf(out, e, "# HELP hone_%s %s\n# TYPE hone_%s %s\nhone_%s %lld\n",
                         row[i].name, row[i].help, row[i].name, row[i].type, row[i].name,
                         (long long)row[i].value);
    return rc ? -1 : 0;
}
