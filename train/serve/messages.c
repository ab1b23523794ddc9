/* messages.c: a conversation as a client sends it, and its text by the model's template. Contents
 * in parts become one text; arguments of calls, which clients send as texts, are what they hold,
 * and texts for the templates that fail on that. What a template makes of other keys is its own
 * business. */
#include "train/serve/serve_int.h"

#include <string.h>

static json_t *parts_joined(const json_t *list, struct refusal *r) {
    struct text t = {0};
    struct err e = {0};
    const json_t *part;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)list, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *said = json_object_get(part, "text");
        if (!type || !word_listed("text input_text output_text", type) || !json_is_string(said))
            refuse(r, 400, "messages",
                   "a message has a part that is no text; expected {\"type\": "
                   "\"text\", \"text\": ...}");
        else if (text_add(&t, json_string_value(said), (i64)json_string_length(said), &e))
            refuse_err(r, "messages", &e);
        if (r->status) break;
    }
    json_t *made = r->status ? NULL : json_stringn(t.data ? t.data : "", (size_t)t.size);
    return text_free(&t), made;
}

static void arguments_decode(json_t *message) {
    json_t *calls = json_object_get(message, "tool_calls"), *call;
    size_t i;
    json_array_foreach(calls, i, call) {
        json_t *f = json_object_get(call, "function"), *said = json_object_get(f, "arguments");
        if (!json_is_string(said)) continue;
        json_t *held =
            json_loadb(json_string_value(said), json_string_length(said), JSON_ALLOW_NUL, NULL);
        if (held) json_object_set_new(f, "arguments", held);
    }
}

static int message_read(json_t *m, struct refusal *r) {
    const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
    if (!json_is_string(role))
        return refuse(r, 400, "messages", "a message must be an object with a role");
    if (json_is_array(content)) {
        json_t *text = parts_joined(content, r);
        if (!text) return -1;
        json_object_set_new(m, "content", text);
    } else if (content ? !json_is_string(content) && !json_is_null(content)
                       : !json_object_get(m, "tool_calls")) {
        return refuse(r, 400, "messages", "a message must have content: a text or a list of parts");
    }
    return 0;
}

static bool mentions(const struct chat *c, const char *word) {
    const char *name, *text;
    for (i64 i = 0; chat_named(c, i, &name, &text); i++)
        if (strstr(text, word)) return true;
    i64 size = 0;
    return strstr(chat_source(c, &size), word);
}

/* What a template is given besides messages; a new reference, NULL: refused. */
static json_t *row_of(const struct serve_model *m, const json_t *j, struct refusal *r) {
    const json_t *choice = json_object_get(j, "tool_choice"),
                 *kwargs = json_object_get(j, "chat_template_kwargs"),
                 *tools = json_object_get(j, "tools");
    const char *chosen = json_string_value(choice);
    json_t *row = json_object();
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        refuse(r, 400, "tools", "tools must be a list");
    if (choice && !json_is_null(choice) && (!chosen || !word_listed("auto none", chosen)))
        refuse(r, 400, "tool_choice",
               "tool_choice is auto or none: an answer cannot be forced "
               "here to be a call");
    if (kwargs && !json_is_null(kwargs) && !json_is_object(kwargs))
        refuse(r, 400, "chat_template_kwargs", "chat_template_kwargs must be an object");
    if (json_array_size(tools) && !(chosen && !strcmp(chosen, "none"))) {
        if (!mentions(m->chat, "tools"))
            refuse(r, 400, "tools", "the model's chat template takes no tools");
        json_object_set(row, "tools", (json_t *)(uintptr_t)tools);
    }
    if (json_is_object(kwargs))
        json_object_set(row, "chat_template_kwargs", (json_t *)(uintptr_t)kwargs);
    if (r->status) json_decref(row), row = NULL;
    return row;
}

int messages_render(const struct serve_model *m, const json_t *j, bool prompt, struct text *out,
                    struct refusal *r) {
    const json_t *given = json_object_get(j, "messages");
    if (!m->chat)
        return refuse(r, 400, "messages",
                      "the model has no chat template; hone serve "
                      "--chat-template names one, and /v1/completions needs "
                      "none");
    if (!json_is_array(given) || !json_array_size(given))
        return refuse(r, 400, "messages", "messages must be a list of at least one message");
    json_t *texts = json_deep_copy(given), *objects = NULL, *row = NULL, *one;
    struct err e = {0}, other = {0};
    size_t i;
    int rc = texts ? 0 : refuse(r, 503, NULL, "out of memory");
    json_array_foreach(texts, i, one) if (!rc) rc = message_read(one, r);
    if (!rc && !(objects = json_deep_copy(texts))) rc = refuse(r, 503, NULL, "out of memory");
    json_array_foreach(objects, i, one) arguments_decode(one);
    if (!rc && !(row = row_of(m, j, r))) rc = -1;
    if (!rc && chat_render(m->chat, row, objects, prompt, out, NULL, &e)) {
        out->size = 0;
        rc = json_equal(objects, texts) ||
             chat_render(m->chat, row, texts, prompt, out, NULL, &other);
        if (rc) refuse_err(r, "messages", &e);
    }
    json_decref(texts), json_decref(objects), json_decref(row);
    return rc ? -1 : 0;
}
