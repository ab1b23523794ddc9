/* conversation_message.c: one message of a conversation: who speaks, what is said, which tools are
 * called, and whether it is trained. */
#include "data/templates/chat.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static int message_wrong(const struct reading *x, const char *fmt, ...) PRINTF(2, 3);
static int message_wrong(const struct reading *x, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return reading_wrong(x, "message %zu %s", x->index + 1, what);
}

/* ---- who speaks */

enum { CALL = 4 };
static const struct {
    const char *role, *spelt;
} roles[] = {
    {"user", "user human prompter"},
    {"assistant", "assistant gpt chatgpt bot chatbot model ai llm bard bing claude gemini"},
    {"system", "system"},
    {"tool", "tool function observation function_response tool_response tool_result ipython"},
    [CALL] = {"assistant", "function_call tool_call"}, /* what is said is a call, as JSON */
};
static const char roles_known[] =
    "known are, in any case: user, human, prompter; assistant, gpt, chatgpt, bot, chatbot, model, "
    "ai, llm, bard, bing, claude, gemini; system, developer; tool, function, observation, "
    "function_response, tool_response, tool_result, ipython; function_call, tool_call; and what "
    "the chat template names";

/* The role that `columns` gives a spelling, by LLaMA-Factory's names for such. */
static const char *role_tagged(const struct reading *x, const char *spelt, bool *call) {
    static const char *const tags[][2] = {{"user_tag", "user"},
                                          {"assistant_tag", "assistant"},
                                          {"system_tag", "system"},
                                          {"observation_tag", "tool"},
                                          {"function_tag", "assistant"}};
    for (int i = 0; i < COUNT(tags); i++) {
        const char *tag = json_string_value(json_object_get(x->rules->columns, tags[i][0]));
        if (tag && !strcmp(tag, spelt)) return *call = i == COUNT(tags) - 1, tags[i][1];
    }
    return NULL;
}

/* The role as the template has it; *call: the text is a function call. NULL: unknown. */
static const char *role_known(const struct reading *x, const char *written, bool *call) {
    const char *tagged = role_tagged(x, written, call), *from = written + strspn(written, " \t\n");
    char spelt[64], lower[64];
    size_t n = strlen(from);
    if (tagged) return tagged;
    while (n && strchr(" \t\n", from[n - 1])) n--;
    snprintf(spelt, sizeof spelt, "%.*s", (int)(n < sizeof spelt ? n : 0), from);
    for (size_t i = 0; i <= strlen(spelt); i++) lower[i] = (char)tolower((unsigned char)spelt[i]);
    for (int i = 0; i < COUNT(roles); i++) {
        if (!word_listed(roles[i].spelt, lower)) continue;
        *call = i == CALL;
        const bool own = !strcmp(roles[i].role, "tool") && strcmp(spelt, "tool") &&
                         chat_quotes(x->c, x->v->row, spelt) &&
                         !chat_quotes(x->c, x->v->row, "tool");
        return own ? written : roles[i].role;
    }
    if (chat_quotes(x->c, x->v->row, spelt)) return written;
    return strcasecmp(spelt, "developer") ? NULL : "system";
}

static bool same_role(const struct reading *x, const json_t *a, const json_t *b) {
    bool call = false, other = false;
    const char *one = json_is_string(a) ? role_known(x, json_string_value(a), &call) : NULL,
               *two = json_is_string(b) ? role_known(x, json_string_value(b), &other) : NULL;
    return one && two && !strcmp(one, two) && call == other;
}

/* A key of a message, by the name that `columns` gives it, else by either of its names. */
static json_t *member(const struct reading *x, const json_t *m, const char *ours, const char *tag,
                      const char *other, const char **key) {
    const json_t *columns = x->rules->columns;
    const char *mapped = json_string_value(json_object_get(columns, ours));
    if (!mapped) mapped = json_string_value(json_object_get(columns, tag));
    if (mapped) return *key = mapped, json_object_get(m, mapped);
    json_t *a = json_object_get(m, ours), *b = json_object_get(m, other);
    if (a && b && !json_equal(a, b) && !json_empty(a) && !json_empty(b) && !same_role(x, a, b))
        message_wrong(x, "has both '%s' and '%s', which differ", ours, other);
    *key = !a || (json_empty(a) && b) ? other : ours;
    return !a || (json_empty(a) && b) ? b : a;
}

static int keys_said(const json_t *m, char *out, size_t size) {
    const char *key;
    json_t *value;
    size_t n = 0;
    out[0] = 0;
    json_object_foreach((json_t *)(uintptr_t)m, key, value) if (n < size) n +=
        (size_t)snprintf(out + n, size - n, "%s'%.30s'", n ? ", " : "", key);
    return n > 0;
}

static const char *role_read(const struct reading *x, const json_t *m, bool *call,
                             const char **key) {
    char keys[160];
    const json_t *spelt = member(x, m, "role", "role_tag", "from", key);
    if (x->e->code) return NULL;
    if (!json_is_string(spelt)) {
        message_wrong(x, "has no role");
        if (keys_said(m, keys, sizeof keys)) err_detail(x->e, "its keys are %s", keys);
        err_hint(x->e, "expected {\"role\": ..., \"content\": ...} or {\"from\": ..., \"value\": "
                       "...}; other names: columns: {role: NAME, content: NAME}");
        return NULL;
    }
    const char *role = role_known(x, json_string_value(spelt), call);
    if (role) return role;
    message_wrong(x, "has the unknown role '%.60s'", json_string_value(spelt));
    err_detail(x->e, "%s", roles_known);
    err_hint(x->e, "say whose it is: columns: {user_tag: NAME, assistant_tag: NAME}, or leave such "
                   "rows out: on_bad_row: skip");
    return NULL;
}

/* ---- what is said */

/* [{"type": "text", "text": ...}, ...] as one text. */
static json_t *parts_joined(const struct reading *x, const json_t *list) {
    struct text t = {0};
    const json_t *part;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)list, i, part) {
        const char *type = json_string_value(json_object_get(part, "type")), *key;
        const json_t *said = part;
        json_t *other;
        if (json_is_object(part)) {
            said = json_object_get(part, "text");
            if (!said) said = json_object_get(part, "value");
        }
        if ((type && !word_listed("text input_text output_text", type)) || !json_is_string(said)) {
            message_wrong(x, "has a part of type '%.60s', which is not supported",
                          type ? type : reading_kind(part));
            err_detail(x->e, "expected parts {\"type\": \"text\", \"text\": ...}");
            return text_free(&t), NULL;
        }
        json_object_foreach((json_t *)(uintptr_t)part, key,
                            other) if (!word_listed("type text value", key) && !json_empty(other))
            reading_note(x, "key '%.60s' in parts of messages is not used", key);
        if (text_add(&t, json_string_value(said), (i64)json_string_length(said), x->e))
            return text_free(&t), NULL;
    }
    json_t *made = json_stringn(t.data ? t.data : "", (size_t)t.size);
    return text_free(&t), made;
}

static json_t *content_read(const struct reading *x, const json_t *said, bool tool) {
    if (json_is_string(said)) return json_incref((json_t *)(uintptr_t)said);
    const json_t *first = json_array_get(said, 0);
    if (json_is_array(said) && (!tool || json_is_string(first) || json_object_get(first, "type")))
        return parts_joined(x, said);
    /* what a tool gives may be anything: templates write it as JSON */
    if (tool && (json_is_object(said) || json_is_array(said)))
        return json_incref((json_t *)(uintptr_t)said);
    message_wrong(x, "says no text, but %s", reading_kind(said));
    return NULL;
}

/* One call, whose arguments become what their text holds: {"function": {"name", "arguments"}} or
 * {"name", "arguments"}. `texts` gets it as JSON text. */
static int call_read(const struct reading *x, json_t *call, json_t *texts) {
    json_t *f = json_object_get(call, "function"), *text = texts, *made;
    if (json_is_object(f)) text = json_object_get(texts, "function");
    if (!json_is_object(f)) f = call;
    json_t *arguments = json_object_get(f, "arguments");
    if (!json_is_string(json_object_get(f, "name")))
        return message_wrong(x, "calls a tool without a name");
    if (json_is_string(arguments)) {
        made = json_string_length(arguments) ? reading_decoded(arguments) : json_object();
        if (!made) {
            message_wrong(x, "calls %.60s with arguments that are no JSON",
                          json_string_value(json_object_get(f, "name")));
            return err_detail(x->e, "found '%.120s'", json_string_value(arguments));
        }
        return json_object_set_new(f, "arguments", made);
    }
    char *dumped = arguments ? json_dumps(arguments, JSON_ENCODE_ANY) : NULL;
    if (dumped) json_object_set_new(text, "arguments", json_string(dumped));
    free(dumped);
    return 0;
}

/* tool_calls of a message, decoded, into it and, as texts, into `texts`. */
static int calls_read(const struct reading *x, json_t *made, json_t *texts, const json_t *given) {
    json_t *list = reading_decoded(given), *copy = NULL, *call;
    size_t i;
    int rc = 0;
    if (json_is_object(list)) { /* one call */
        json_t *one = json_array();
        json_array_append_new(one, list), list = one;
    }
    if (!json_is_array(list)) {
        json_decref(list);
        return message_wrong(x, "has tool calls that are %s", reading_kind(given));
    }
    list = (copy = list, json_deep_copy(list));
    json_decref(copy), copy = json_deep_copy(list);
    json_array_foreach(list, i, call) {
        if (json_is_object(call))
            rc = rc || call_read(x, call, json_array_get(copy, i));
        else
            rc = rc || message_wrong(x, "has a tool call that is %s", reading_kind(call));
    }
    if (!rc && json_array_size(list) && !chat_reads(x->c, x->v->row, "tool_calls")) {
        rc = message_wrong(x, "calls a tool, and the chat template does not write tool calls");
        err_hint(x->e, "use the template of a model that calls tools");
    }
    if (!rc && json_array_size(list)) {
        json_object_set(made, "tool_calls", list), json_object_set(texts, "tool_calls", copy);
        if (!x->v->texts) x->v->texts = json_array();
    }
    return json_decref(list), json_decref(copy), rc ? -1 : 0;
}

/* {"from": "function_call", "value": "{\"name\": ...}"} */
static int call_said(const struct reading *x, json_t *made, json_t *texts, const json_t *said) {
    json_t *list = reading_decoded(said), *calls = json_array(), *one;
    size_t i;
    if (json_is_object(list)) json_array_append(calls, list);
    json_array_foreach(list, i, one) json_array_append(calls, one);
    json_decref(list);
    list = json_array();
    json_array_foreach(calls, i, one) if (json_is_object(one))
        json_array_append_new(list, json_pack("{s:s, s:O}", "type", "function", "function", one));
    const bool good = json_array_size(calls) && json_array_size(calls) == json_array_size(list);
    int rc = 0;
    if (!good) {
        rc = message_wrong(x, "is no function call as JSON");
        err_detail(x->e, "expected {\"name\": ..., \"arguments\": {...}}");
    } else {
        json_object_set_new(made, "content", json_string(""));
        json_object_set_new(texts, "content", json_string(""));
        rc = calls_read(x, made, texts, list);
    }
    return json_decref(calls), json_decref(list), rc;
}

/* ---- what is trained */

static const char train_keys[] = "weight loss_weight loss_scale train training loss";

/* 1: said to be trained, 0: not, -1: an error, 2: nothing is said. */
static int train_read(const struct reading *x, const json_t *m) {
    const char *key;
    json_t *value;
    int found = 2;
    json_object_foreach((json_t *)(uintptr_t)m, key, value) {
        if (word_listed("train_detail training_detail", key) && !json_empty(value))
            return message_wrong(x, "has '%s', which is not supported: whole answers are trained",
                                 key);
        if (!word_listed(train_keys, key)) continue;
        const double n = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        const bool good = (json_is_boolean(value) || json_is_number(value)) && (n == 0 || n == 1);
        if (!good) {
            message_wrong(x, "has '%s': %.60s", key, text ? text : "");
            err_detail(x->e, "expected 0 or 1, true or false: an answer is trained or not");
        }
        free(text);
        if (!good) return -1;
        if (found < 2 && found != (n > 0))
            return message_wrong(x, "has '%s' against another key that says the contrary", key);
        found = n > 0;
    }
    return found;
}

/* ---- messages */

static int message_end(const struct reading *x, const json_t *m, json_t *made, json_t *texts,
                       const char *role_key, const char *said_key) {
    static const char read[] = "tool_calls function_call weight loss_weight loss_scale train "
                               "training loss train_detail training_detail";
    const bool answer = !strcmp(json_string_value(json_object_get(made, "role")), "assistant");
    const int train = train_read(x, m);
    const char *key;
    json_t *value;
    if (train < 0) return -1;
    if (!answer && train == 1)
        reading_note(x, "a weight of 1 at a message of another than the assistant "
                        "is not used");
    json_object_foreach((json_t *)(uintptr_t)m, key, value) {
        if (!strcmp(key, role_key) || !strcmp(key, said_key) || word_listed(read, key) ||
            json_empty(value))
            continue;
        if (word_listed("role from content value", key) && !json_object_size(x->rules->columns))
            continue; /* the same under its other name */
        const bool thought = word_listed("reasoning_content thinking reasoning", key);
        if (!(chat_reads(x->c, x->v->row, key) ||
              (thought && (chat_reads(x->c, x->v->row, "reasoning_content") ||
                           chat_reads(x->c, x->v->row, "thinking")))))
            reading_note(
                x, "key '%.60s' of messages is not used: the chat template does not read it", key);
        if (json_object_get(made, key)) continue;
        json_object_set(made, key, value), json_object_set(texts, key, value);
    }
    json_array_append(json_object_get(x->v->row, "messages"), made);
    json_array_append_new(x->v->mute, json_boolean(train == 0));
    return 0;
}

/* `texts`: the message with arguments of its calls as texts, otherwise the same. */
int reading_message(const struct reading *x, const json_t *m, json_t *texts) {
    bool call = false;
    const char *role_key = "", *said_key = "";
    if (!json_is_object(m)) return message_wrong(x, "is %s, not an object", reading_kind(m));
    const char *role = role_read(x, m, &call, &role_key);
    const json_t *said = role ? member(x, m, "content", "content_tag", "value", &said_key) : NULL;
    const json_t *calls = json_object_get(m, "tool_calls"),
                 *old = json_object_get(m, "function_call");
    if (x->e->code) return -1;
    json_t *made = json_object(), *content = NULL;
    int rc = 0;
    json_object_set_new(made, "role", json_string(role));
    json_object_set_new(texts, "role", json_string(role));
    if (call) {
        rc = call_said(x, made, texts, said);
    } else if (said) {
        rc = (content = content_read(x, said, !strcmp(role, "tool"))) ? 0 : -1;
        json_object_set(made, "content", content), json_object_set(texts, "content", content);
        json_decref(content);
    } else if (json_empty(calls) && json_empty(old)) {
        char keys[160];
        rc = message_wrong(x, "has no content");
        if (keys_said(m, keys, sizeof keys)) err_detail(x->e, "its keys are %s", keys);
    }
    if (!rc && !json_empty(calls)) rc = calls_read(x, made, texts, calls);
    if (!rc && !json_empty(old)) { /* OpenAI's older form */
        json_t *one = json_pack("[{s:s, s:O}]", "type", "function", "function", old);
        rc = calls_read(x, made, texts, one);
        json_decref(one);
    }
    rc = rc || message_end(x, m, made, texts, role_key, said_key);
    return json_decref(made), rc ? -1 : 0;
}
