/* conversation_old.c: a row as a conversation, as recipes of version 1 read it: their runs have
 * these tokens. Nothing here changes any more; conversation.c is what is read today. */
#include "data/templates/chat.h"

#include <string.h>

static int row_wrong(const char *where, const char *what, const char *expected, struct err *e) {
    err_input(e, "%s: %s", where, what);
    return err_detail(e, "expected %s", expected);
}

static const char *role_of(const char *from) {
    static const char *const name[][2] = {{"human", "user"},
                                          {"gpt", "assistant"},
                                          {"model", "assistant"},
                                          {"chatgpt", "assistant"},
                                          {"bot", "assistant"},
                                          {"observation", "tool"},
                                          {"function_response", "tool"}};
    for (int i = 0; i < COUNT(name); i++)
        if (!strcmp(from, name[i][0])) return name[i][1];
    return from;
}

/* ShareGPT: {"from": "human", "value": "..."}; a function_call holds the call as JSON. */
static json_t *shared_message(const json_t *m) {
    const char *from = json_string_value(json_object_get(m, "from"));
    const json_t *value = json_object_get(m, "value");
    if (!from || !json_is_string(value)) return NULL;
    json_t *made = json_object();
    if (!strcmp(from, "function_call")) {
        json_t *call = json_loadb(json_string_value(value), json_string_length(value), 0, NULL);
        if (!json_is_object(call)) return json_decref(call), json_decref(made), NULL;
        json_object_set_new(made, "role", json_string("assistant"));
        json_object_set_new(made, "content", json_string(""));
        json_object_set_new(made, "tool_calls",
                            json_pack("[{s:s, s:o}]", "type", "function", "function", call));
        return made;
    }
    json_object_set_new(made, "role", json_string(role_of(from)));
    json_object_set(made, "content", (json_t *)(uintptr_t)value);
    return made;
}

static int messages_add(json_t *to, const json_t *list, const char *where, struct err *e) {
    static const char expected[] =
        "{\"role\": ..., \"content\": ...} or {\"from\": ..., \"value\": ...}";
    json_t *m;
    size_t i;
    if (!json_is_array(list)) return row_wrong(where, "the messages are no list", expected, e);
    json_array_foreach(list, i, m) {
        char what[64];
        json_t *made =
            json_is_string(json_object_get(m, "role")) ? json_incref(m) : shared_message(m);
        snprintf(what, sizeof what, "message %zu has no role", i + 1);
        if (!made) return row_wrong(where, what, expected, e);
        json_array_append_new(to, made);
    }
    return 0;
}

static void message_new(json_t *to, const char *role, json_t *content) {
    json_t *m = json_object();
    json_object_set_new(m, "role", json_string(role));
    json_object_set_new(m, "content", content);
    json_array_append_new(to, m);
}

/* {"instruction", "input", "output"} as a question and its answer. */
static int instruction_add(json_t *to, const json_t *row, const char *where, struct err *e) {
    const json_t *question = json_object_get(row, "instruction"),
                 *input = json_object_get(row, "input");
    json_t *answer = json_object_get(row, "output");
    struct text t = {0};
    if (!json_is_string(question) || !json_is_string(answer))
        return row_wrong(where, "an instruction without texts", "\"instruction\" and \"output\"",
                         e);
    int rc = text_add(&t, json_string_value(question), (i64)json_string_length(question), e);
    if (!rc && json_is_string(input) && json_string_length(input))
        rc = text_add(&t, "\n\n", 2, e) ||
             text_add(&t, json_string_value(input), (i64)json_string_length(input), e);
    if (!rc) message_new(to, "user", json_stringn(t.data, (size_t)t.size));
    if (!rc) message_new(to, "assistant", json_incref(answer));
    return text_free(&t), rc ? -1 : 0;
}

int conversation_old(struct conversation *c, const json_t *row, const char *where, struct err *e) {
    static const char *const kept[] = {"documents", "chat_template_kwargs"};
    const json_t *system = json_object_get(row, "system"), *list;
    json_t *messages = json_array(), *tools = json_object_get(row, "tools");
    c->row = json_object(), c->mute = json_array();
    json_object_set_new(c->row, "messages", messages);
    for (int i = 0; i < COUNT(kept); i++)
        json_object_set(c->row, kept[i],
                        json_object_get(row, kept[i]));       /* a missing one: nothing */
    if (json_is_string(tools) && json_string_length(tools)) { /* some files hold them as text */
        tools = json_loadb(json_string_value(tools), json_string_length(tools), 0, NULL);
        if (!tools)
            return row_wrong(where, "'tools' is a text that is not JSON", "a list of tools", e);
        json_object_set_new(c->row, "tools", tools);
    } else if (json_is_array(tools)) {
        json_object_set(c->row, "tools", tools);
    }
    if (json_is_string(system) && json_string_length(system))
        message_new(messages, "system", json_incref((json_t *)(uintptr_t)system));
    if ((list = json_object_get(row, "messages")) || (list = json_object_get(row, "conversations")))
        return messages_add(messages, list, where, e);
    if (json_object_get(row, "instruction")) return instruction_add(messages, row, where, e);
    if (messages_add(messages, json_object_get(row, "prompt"), where, e)) return -1;
    c->first = json_array_size(messages), c->complete = true;
    return messages_add(messages, json_object_get(row, "completion"), where, e);
}
