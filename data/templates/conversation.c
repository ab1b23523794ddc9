/* conversation.c: a row of a dataset as a conversation, whoever wrote it.
 *
 * ShareGPT says who speaks in `from`, OpenAI in `role`; some write Human and bard, some mark what
 * is not to be learnt by `weight`, `train` or `loss_weight`, some hold a text as parts, and tool
 * calls as JSON inside a text. All of these become messages as templates know them. What is not
 * known is an error that names it, and what is known and without effect is noted. Rows of recipes
 * of version 1 are read by conversation_old.c. */
#include "data/templates/chat.h"

#include <string.h>

static int messages_read(struct reading *x, const json_t *given, json_t *texts) {
    json_t *list = reading_decoded(given), *m;
    size_t i;
    int rc = 0;
    if (!json_is_array(list)) {
        json_decref(list);
        reading_wrong(x, "the messages are no list");
        return err_detail(x->e, "expected {\"role\": ..., \"content\": ...} or {\"from\": ..., "
                                "\"value\": ...}");
    }
    x->index = 0;
    json_array_foreach(list, i, m) {
        json_t *text = json_object();
        rc = rc || reading_message(x, m, text);
        json_array_append_new(texts, text), x->index++;
    }
    return json_decref(list), rc;
}

static void message_add(const struct reading *x, json_t *texts, const char *role,
                        const json_t *content) {
    json_t *m = json_pack("{s:s, s:O}", "role", role, "content", content);
    json_array_append(json_object_get(x->v->row, "messages"), m), json_array_append_new(texts, m);
    json_array_append_new(x->v->mute, json_false());
}

/* ---- rows */

/* {"history": [[question, answer], ...]}, in front of {"instruction", "input", "output"} or of
 * {"query", "response"}. */
static int instruction_read(const struct reading *x, const char *ask, const char *say,
                            json_t *texts) {
    const json_t *row = x->row, *question = json_object_get(row, ask), *pair;
    const json_t *input = strcmp(ask, "query") ? json_object_get(row, "input") : NULL,
                 *history = json_object_get(row, "history"), *answer = json_object_get(row, say);
    struct text t = {0};
    size_t i;
    if (!json_is_string(question) || !json_is_string(answer)) {
        reading_wrong(x, "'%s' is %s, expected a text", json_is_string(question) ? say : ask,
                      reading_kind(json_is_string(question) ? answer : question));
        if (json_is_string(question) && !answer && json_object_get(row, "response"))
            err_hint(x->e, "where 'response' is the answer: columns: {%s: %s, output: response%s}",
                     ask, ask, !input && json_object_get(row, "context") ? ", input: context" : "");
        return -1;
    }
    if (input && !json_is_string(input))
        return reading_wrong(x, "'input' is %s", reading_kind(input));
    if (!json_empty(history) && !json_is_array(history))
        return reading_wrong(x, "'history' is %s, expected pairs [question, answer]",
                             reading_kind(history));
    json_array_foreach((json_t *)(uintptr_t)history, i, pair) {
        const json_t *asked = json_array_get(pair, 0), *said = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_string(asked) || !json_is_string(said))
            return reading_wrong(x, "'history' holds no pairs [question, answer] of texts");
        message_add(x, texts, "user", asked), message_add(x, texts, "assistant", said);
    }
    int rc = text_add(&t, json_string_value(question), (i64)json_string_length(question), x->e);
    if (!rc && !json_empty(input))
        rc = (t.size && text_add(&t, "\n\n", 2, x->e)) ||
             text_add(&t, json_string_value(input), (i64)json_string_length(input), x->e);
    json_t *asked = rc ? NULL : json_stringn(t.data ? t.data : "", (size_t)t.size);
    if (asked) message_add(x, texts, "user", asked), message_add(x, texts, "assistant", answer);
    return json_decref(asked), text_free(&t), rc ? -1 : 0;
}

/* Tools as a list, whatever holds them. */
static int tools_read(const struct reading *x) {
    const json_t *given = json_object_get(x->row, "tools"), *one;
    const bool functions = json_empty(given) && !json_empty(json_object_get(x->row, "functions"));
    size_t i;
    if (functions) given = json_object_get(x->row, "functions");
    if (json_empty(given)) return 0;
    json_t *list = reading_decoded(given), *made = json_array();
    if (!json_is_array(list)) {
        const bool text = json_is_string(given) && !list;
        json_decref(list), json_decref(made);
        if (text)
            reading_wrong(x, "'tools' is a text that is not JSON");
        else
            reading_wrong(x, "'tools' is %s", reading_kind(given));
        return err_detail(x->e, "expected a list of tools");
    }
    json_array_foreach(list, i, one) {
        json_t *tool = reading_decoded(one);
        if (functions) /* OpenAI's older form */
            json_array_append_new(made,
                                  json_pack("{s:s, s:o}", "type", "function", "function", tool));
        else
            json_array_append_new(made, tool);
    }
    const bool whole = json_array_size(made) == json_array_size(list);
    if (whole && json_array_size(made)) {
        json_object_set(x->v->row, "tools", made);
        if (!chat_reads(x->c, x->v->row, "tools"))
            reading_note(x, "column 'tools' is not used: the chat template does not read it");
    }
    json_decref(list), json_decref(made);
    return whole ? 0 : reading_wrong(x, "'tools' holds a text that is not JSON");
}

/* The row's own variables for the template over those of the recipe. */
static int kwargs_read(const struct reading *x) {
    const json_t *given = json_object_get(x->row, "chat_template_kwargs");
    json_t *own = json_empty(given) ? json_object() : reading_decoded(given), *value;
    const char *key;
    if (!json_is_object(own)) {
        json_decref(own);
        return reading_wrong(x, "'chat_template_kwargs' is %s, expected an object",
                             reading_kind(given));
    }
    json_t *all = x->rules->kwargs ? json_deep_copy(x->rules->kwargs) : json_object();
    json_object_update(all, own), json_decref(own);
    json_object_foreach(all, key, value) if (!chat_reads(x->c, x->v->row, key)) reading_note(
        x, "'%.60s' of chat_template_kwargs is not used: the chat template does not read it", key);
    if (json_object_size(all)) json_object_set(x->v->row, "chat_template_kwargs", all);
    json_decref(all);
    return 0;
}

static int body_read(struct reading *x, json_t *texts) {
    const json_t *row = x->row, *list = json_object_get(row, "messages");
    const json_t *prompt = json_object_get(row, "prompt"),
                 *completion = json_object_get(row, "completion");
    if (!list) list = json_object_get(row, "conversations");
    if (list) return messages_read(x, list, texts);
    if (json_object_get(row, "instruction"))
        return instruction_read(x, "instruction", "output", texts);
    if (json_object_get(row, "query") && !(prompt && completion))
        return instruction_read(x, "query", "response", texts);
    if (!prompt || !completion)
        return reading_wrong(x, "there is no '%s' beside the '%s'",
                             prompt ? "completion" : "prompt", prompt ? "prompt" : "completion");
    if (!json_is_array(prompt) || !json_is_array(completion))
        return reading_wrong(
            x,
            "'prompt' is %s and 'completion' %s, expected two lists of messages or "
            "two texts",
            reading_kind(prompt), reading_kind(completion));
    if (messages_read(x, prompt, texts)) return -1;
    x->v->first = json_array_size(x->v->mute), x->v->complete = true;
    return messages_read(x, completion, texts);
}

static void system_put(const struct reading *x, json_t *texts, const char *text, size_t size) {
    json_t *m = json_pack("{s:s, s:s%}", "role", "system", "content", text, size);
    json_array_insert(json_object_get(x->v->row, "messages"), 0, m);
    json_array_insert_new(texts, 0, m);
    json_array_insert_new(x->v->mute, 0, json_false());
    x->v->first += x->v->complete;
}

static bool is_system(const json_t *m) {
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && !strcmp(role, "system");
}

/* The column is for conversations that have no system message of their own. */
static void system_read(const struct reading *x, json_t *texts) {
    const json_t *system = json_object_get(x->row, "system"), *m;
    size_t i;
    if (!json_is_string(system) || !json_string_length(system)) return;
    json_array_foreach(json_object_get(x->v->row, "messages"), i, m) {
        if (!is_system(m)) continue;
        if (!json_equal(system, json_object_get(m, "content")))
            reading_note(x,
                         "column 'system' is not used where a message of the conversation is the "
                         "system's");
        return;
    }
    system_put(x, texts, json_string_value(system), json_string_length(system));
}

/* drop_system_message: a first one goes; default_system: one for conversations without. */
static void system_rules(const struct reading *x, json_t *texts) {
    json_t *messages = json_object_get(x->v->row, "messages");
    const char *text = x->rules->system;
    if (x->rules->drop_system && is_system(json_array_get(messages, 0))) {
        json_array_remove(messages, 0), json_array_remove(texts, 0);
        json_array_remove(x->v->mute, 0);
        x->v->first -= x->v->complete && x->v->first;
        reading_note(x, "a first system message is dropped (drop_system_message)");
    }
    if (!text || !json_array_size(messages) || is_system(json_array_get(messages, 0))) return;
    system_put(x, texts, text, strlen(text));
    reading_note(x, "a conversation without a system message gets that of default_system");
}

int conversation_of(struct conversation *v, const struct chat *c, const json_t *row,
                    const char *where, const struct row_rules *rules, struct row_notes *notes,
                    struct err *e) {
    static const struct row_rules plain;
    struct reading x = {v, c, row, rules ? rules : &plain, notes, where, 0, e};
    const json_t *documents = json_object_get(row, "documents"),
                 *system = json_object_get(row, "system");
    v->row = json_object(), v->mute = json_array();
    json_object_set_new(v->row, "messages", json_array());
    json_t *texts = json_array();
    if (!json_empty(documents)) {
        json_object_set(v->row, "documents", (json_t *)(uintptr_t)documents);
        if (!chat_reads(c, v->row, "documents"))
            reading_note(&x, "column 'documents' is not used: the chat template does not read it");
    }
    int rc = tools_read(&x) || kwargs_read(&x);
    if (!rc && system && !json_is_string(system))
        rc = reading_wrong(&x, "'system' is %s, expected a text", reading_kind(system));
    rc = rc || body_read(&x, texts);
    if (!rc) system_read(&x, texts), system_rules(&x, texts);
    if (v->texts) json_decref(v->texts), v->texts = json_incref(texts);
    json_decref(texts);
    return rc ? -1 : 0;
}

void conversation_free(struct conversation *v) {
    json_decref(v->row), json_decref(v->texts), json_decref(v->mute);
    *v = (struct conversation){0};
}
