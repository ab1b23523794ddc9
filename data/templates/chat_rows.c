/* chat_rows.c: a row of a dataset to a conversation, its text, and which bytes the assistant says.
 *
 * A template with {% generation %} says itself what is the assistant's. For any other, the text is
 * compared with what the same template makes of growing prefixes of the conversation: what follows
 * the messages before an answer and the generation prompt is the answer, up to where the text of
 * the messages with it ends. That holds only if earlier text does not change when messages follow;
 * where a template rewrites earlier answers (thinking models drop old thoughts), the answer ends at
 * the stop text that the template puts after answers, or at the tag that stands where the last
 * answer has another (gpt-oss); where nothing holds, the row is refused. The stop text is part of
 * the answer (a model must learn to stop), white space after it is not. */
#include "data/templates/chat.h"

#include <string.h>

struct conversation {
    json_t *row;   /* messages, tools, documents, chat_template_kwargs */
    size_t first;  /* messages in front of it are prompt */
    bool complete; /* a prompt and its completion: only the latter may be trained */
};

/* ---- rows */

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

bool chat_row(const json_t *row, bool instructions) {
    return json_object_get(row, "messages") || json_object_get(row, "conversations") ||
           json_is_array(json_object_get(row, "prompt")) ||
           json_is_array(json_object_get(row, "completion")) ||
           (instructions && json_object_get(row, "instruction") &&
            !json_object_get(row, "instances"));
}

static int conversation_of(struct conversation *c, const json_t *row, const char *where,
                           struct err *e) {
    static const char *const kept[] = {"documents", "chat_template_kwargs"};
    const json_t *system = json_object_get(row, "system"), *list;
    json_t *messages = json_array(), *tools = json_object_get(row, "tools");
    c->row = json_object();
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

/* ---- what the assistant says */

/* The texts of growing beginnings of one conversation. */
struct parts {
    const struct chat *c;
    const json_t *row;
    const struct text *all; /* the whole */
    struct turn *turn;      /* NULL: every beginning is rendered by itself */
    i64 count, next;
    struct text text; /* of the last one asked for, */
    i64 same;         /* whose first bytes are known to be those of `all` */
};

static int part_render(struct parts *p, size_t count, bool prompt, struct err *e) {
    json_t *part = json_array(), *all = json_object_get(p->row, "messages");
    for (size_t i = 0; i < count; i++) json_array_append(part, json_array_get(all, i));
    p->text.size = p->same = 0;
    const int rc = chat_render(p->c, p->row, part, prompt, &p->text, NULL, e);
    return json_decref(part), rc;
}

/* The first `count` messages, asked for in this order. Costs what is new of the text. */
static int part_next(struct parts *p, size_t count, bool prompt, struct err *e) {
    if (!p->turn) return part_render(p, count, prompt, e);
    while (p->next < p->count &&
           (p->turn[p->next].messages < (i64)count || p->turn[p->next].prompt != prompt))
        p->next++;
    if (p->next == p->count || p->turn[p->next].messages != (i64)count)
        return err_failed(e, "chat template: a part that was not rendered");
    const struct turn *t = &p->turn[p->next];
    const i64 kept = i64_min(p->same, t->at);
    p->text.size = kept, p->same = t->at;
    return text_add(&p->text, p->all->data + kept, t->at - kept, e) ||
                   text_add(&p->text, t->tail.data ? t->tail.data : "", t->tail.size, e)
               ? -1
               : 0;
}

static bool is_answer(const json_t *messages, size_t i) {
    const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
    return role && !strcmp(role, "assistant");
}

/* Rendering each beginning by itself costs the square of the messages. Refused at once where it is
 * minutes: 7,600 short messages take a minute. */
static int parts_bounded(const struct parts *p, size_t first, const char *where, struct err *e) {
    static const i64 most = (i64)1 << 33; /* bytes of text; a message costs as much as 256 */
    const json_t *messages = json_object_get(p->row, "messages");
    const size_t count = json_array_size(messages);
    const i64 each = 256 + p->all->size / i64_max((i64)count, 1);
    i64 work = 0;
    for (size_t i = first; i < count && work <= most; i++)
        if (is_answer(messages, i)) work += 2 * (i64)i * each;
    if (work <= most) return 0;
    err_input(e, "%s: a conversation of %zu messages is too long for its chat template", where,
              count);
    err_detail(e, "earlier messages may change with what follows, so it is rendered for each "
                  "answer: at most some 7,000 short messages");
    return err_hint(e, "cut it into shorter ones, use a template with {%% generation %%} around "
                       "answers, or set assistant_only_loss: false");
}

/* For every answer: what is in front of it with the prompt and without, and what it ends. Few
 * answers are found sooner without; a rendering that fails will say so where it is needed. */
static int parts_open(struct parts *p, size_t first, const char *where, struct err *e) {
    const json_t *messages = json_object_get(p->row, "messages");
    struct text all = {0};
    struct err refused = {0};
    i64 answers = 0;
    for (size_t i = first; i < json_array_size(messages); i++) answers += is_answer(messages, i);
    if (answers < 3) return 0;
    if (!(p->turn = mem_new_array(3 * answers, sizeof *p->turn, e))) return -1;
    for (size_t i = first; i < json_array_size(messages); i++) {
        if (!is_answer(messages, i)) continue;
        if (i) p->turn[p->count++] = (struct turn){.messages = (i64)i, .prompt = true};
        if (i) p->turn[p->count++] = (struct turn){.messages = (i64)i};
        p->turn[p->count++] = (struct turn){.messages = (i64)i + 1};
    }
    const int rc = chat_render_turns(p->c, p->row, &all, p->turn, p->count, &refused);
    const bool good =
        !rc && all.size == p->all->size &&
        !memcmp(all.data ? all.data : "", p->all->data ? p->all->data : "", (size_t)all.size);
    text_free(&all);
    for (i64 i = 0; !good && i < p->count; i++) text_free(&p->turn[i].tail);
    if (!good) mem_free(p->turn), p->turn = NULL, p->count = 0;
    if (refused.starved) *e = refused;
    return refused.starved ? -1 : good ? 0 : parts_bounded(p, first, where, e);
}

static void parts_close(struct parts *p) {
    for (i64 i = 0; i < p->count; i++) text_free(&p->turn[i].tail);
    mem_free(p->turn), text_free(&p->text);
}

/* The first `same` bytes are known to be. */
static i64 common(const struct text *a, const struct text *b, i64 same) {
    i64 n = same;
    while (n < a->size && n < b->size && a->data[n] == b->data[n]) n++;
    while (n > 0 && n < b->size && (b->data[n] & 0xc0) == 0x80) n--; /* not inside a character */
    return n;
}

/* The end of an answer whose message ends at `end`: behind its stop text, if it has one. */
static i64 stop_end(const struct text *all, i64 begin, i64 end, const char *stop) {
    const i64 n = (i64)strlen(stop);
    for (i64 at = end; n && at - n >= begin; at--)
        if (!memcmp(all->data + at - n, stop, (size_t)n)) return at;
    return end;
}

/* `all` and what would be the last answer of `part` agree but for the rest of one <tag> that ends
 * the latter: the end of the tag in `all`, or -1. */
static i64 tag_end(const struct text *part, const struct text *all, i64 begin, i64 same) {
    const i64 n = common(part, all, same);
    i64 from = n, size = part->size;
    while (from > begin && part->data[from - 1] != '<' && part->data[from - 1] != '>') from--;
    while (size > n && strchr(" \n", part->data[size - 1])) size--;
    const char *last = memchr(part->data + n, '>', (size_t)(part->size - n)),
               *end = memchr(all->data + n, '>', (size_t)(all->size - n));
    const bool inside = from > begin && part->data[from - 1] == '<';
    return inside && last == part->data + size - 1 && end ? end + 1 - all->data : -1;
}

static int unstable(const char *where, size_t index, struct err *e) {
    err_input(e, "%s: the chat template writes message %zu differently when others follow", where,
              index + 1);
    err_detail(e, "so what the assistant says cannot be found by comparing texts");
    return err_hint(e, "use a template with {%% generation %%} around answers, or set "
                       "assistant_only_loss: false");
}

static int answer_find(struct parts *p, size_t index, const char *where, struct spans *trained,
                       struct err *e) {
    const char *stop = chat_stop(p->c, p->row);
    const struct text *all = p->all, *part = &p->text;
    i64 begin = 0, end = -1;
    int rc = index ? part_next(p, index, true, e) : 0;
    if (!rc && index) begin = common(part, all, p->same);
    if (!rc && index && begin < part->size) { /* the prompt opens what this answer does not have: a
                                                 thought */
        const i64 seen = begin;
        rc = part_next(p, index, false, e);
        if (!rc && common(part, all, p->same) < part->size) rc = unstable(where, index, e);
        begin = i64_max(seen, part->size);
    }
    if (!rc && !(rc = part_next(p, index + 1, false, e))) {
        const char *hit =
            *stop ? memmem(all->data + begin, (size_t)(all->size - begin), stop, strlen(stop))
                  : NULL;
        if (common(part, all, p->same) == part->size && part->size >= begin)
            end = stop_end(all, begin, part->size, stop);
        else if (hit)
            end = hit - all->data + (i64)strlen(stop);
        else
            end = tag_end(part, all, begin, p->same);
        rc = end < 0 ? unstable(where, index, e) : spans_add(trained, begin, end, e);
    }
    return rc ? -1 : 0;
}

static int answers_find(const struct chat *c, const struct conversation *v, const struct text *all,
                        const char *where, struct spans *trained, struct err *e) {
    const json_t *messages = json_object_get(v->row, "messages");
    struct parts p = {.c = c, .row = v->row, .all = all};
    int rc = parts_open(&p, v->first, where, e);
    for (size_t i = v->first; !rc && i < json_array_size(messages); i++) {
        if (!is_answer(messages, i)) continue;
        rc = answer_find(&p, i, where, trained, e);
        if (rc) err_frame(e, "looking for the answer in message %zu of %s", i + 1, where);
    }
    parts_close(&p);
    return rc;
}

int chat_document(const struct chat *c, const json_t *row, const char *where, bool assistant_only,
                  struct text *out, struct spans *trained, struct err *e) {
    struct conversation v = {0};
    struct spans marked = {0};
    struct parts prompt = {.c = c};
    i64 from = 0;
    out->size = trained->count = 0;
    int rc = conversation_of(&v, row, where, e);
    if (!rc && !json_array_size(json_object_get(v.row, "messages")))
        rc = row_wrong(where, "a conversation without messages", "at least one", e);
    if (!rc && chat_render(c, v.row, json_object_get(v.row, "messages"), false, out, &marked, e))
        rc = err_frame(e, "in the conversation of %s", where);
    if (!rc && v.complete) { /* the completion's own part of the text */
        prompt.row = v.row;
        rc = part_render(&prompt, v.first, true, e);
        from = rc ? 0 : common(&prompt.text, out, 0);
    }
    if (rc) {
    } else if (!assistant_only) {
        rc = spans_add(trained, from, out->size, e);
    } else if (chat_generation(c, v.row)) {
        for (i64 i = 0; !rc && i < marked.count; i++)
            if (marked.item[i].end > from)
                rc = spans_add(trained, i64_max(from, marked.item[i].begin), marked.item[i].end, e);
    } else {
        rc = answers_find(c, &v, out, where, trained, e);
    }
    json_decref(v.row), spans_free(&marked), parts_close(&prompt);
    return rc ? -1 : 0;
}
