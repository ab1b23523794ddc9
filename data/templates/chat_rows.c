/* chat_rows.c: the text of a conversation, and which bytes of it the assistant says.
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

bool chat_row(const json_t *row, bool instructions) {
    return json_object_get(row, "messages") || json_object_get(row, "conversations") ||
           json_is_array(json_object_get(row, "prompt")) ||
           json_is_array(json_object_get(row, "completion")) ||
           (instructions && json_object_get(row, "instruction") &&
            !json_object_get(row, "instances"));
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
    bool old;         /* of a recipe of version 1 */
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

/* Where the first message is an answer: behind what opens it, if the template can say that. */
static int opening_find(struct parts *p, i64 *begin, struct err *e) {
    struct err refused = {0};
    const int rc = p->old ? -1 : part_render(p, 0, true, &refused);
    if (refused.starved) return *e = refused, -1;
    if (!rc && p->text.size < p->all->size && common(&p->text, p->all, 0) == p->text.size)
        *begin = p->text.size;
    return 0;
}

/* The conversation up to an answer, with another content in its place. */
static int other_render(const struct parts *p, size_t index, const char *content, struct text *out,
                        struct err *e) {
    json_t *row = json_copy((json_t *)(uintptr_t)p->row), *list = json_array(),
           *all = json_object_get(row, "messages");
    for (size_t i = 0; i < index; i++) json_array_append(list, json_array_get(all, i));
    json_array_append_new(list, json_pack("{s:s, s:s}", "role", "assistant", "content", content));
    const int rc = chat_render(p->c, row, list, false, out, NULL, e);
    return json_decref(row), json_decref(list), rc;
}

/* Where what is in front of an answer, a tool's message, is written otherwise when it is the last:
 * the answer begins behind the generation prompt that stands in front of its content. Two contents
 * say where that is. */
static int begin_by_content(struct parts *p, size_t index, const char *where, i64 *begin,
                            struct err *e) {
    struct text plain = {0}, a = {0}, b = {0};
    int rc = part_render(p, index, false, e) || text_add(&plain, p->text.data, p->text.size, e) ||
             part_render(p, index, true, e) || other_render(p, index, "a", &a, e) ||
             other_render(p, index, "b", &b, e);
    i64 found = -1;
    if (!rc && plain.size < p->text.size && common(&plain, &p->text, 0) == plain.size) {
        const char *prompt = p->text.data + plain.size;
        const i64 size = p->text.size - plain.size, content = common(&a, &b, 0);
        if (common(&a, p->all, 0) >= content)
            for (i64 at = common(&plain, p->all, 0); at + size <= content; at++)
                if (!memcmp(p->all->data + at, prompt, (size_t)size)) found = at + size;
    }
    text_free(&plain), text_free(&a), text_free(&b);
    if (!rc && found < 0) rc = unstable(where, index, e);
    return *begin = found, rc ? -1 : 0;
}

static int answer_find(struct parts *p, size_t index, const char *where, struct spans *trained,
                       struct err *e) {
    const char *stop = chat_stop(p->c, p->row);
    const struct text *all = p->all, *part = &p->text;
    i64 begin = 0, end = -1;
    int rc = index ? part_next(p, index, true, e) : opening_find(p, &begin, e);
    if (!rc && index) begin = common(part, all, p->same);
    if (!rc && index && begin < part->size) { /* the prompt opens what this answer does not have: a
                                                 thought */
        const i64 seen = begin;
        rc = part_next(p, index, false, e);
        if (!rc && common(part, all, p->same) < part->size)
            rc = begin_by_content(p, index, where, &begin, e);
        else
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

/* The answers that are trained, or, `mute`, those that are not. */
static int answers_find(const struct chat *c, const struct conversation *v, const struct text *all,
                        const char *where, bool mute, struct spans *found, struct err *e) {
    const json_t *messages = json_object_get(v->row, "messages");
    struct parts p = {.c = c, .row = v->row, .all = all, .old = v->old};
    int rc = parts_open(&p, v->first, where, e);
    for (size_t i = v->first; !rc && i < json_array_size(messages); i++) {
        if (!is_answer(messages, i) || json_is_true(json_array_get(v->mute, i)) != mute) continue;
        rc = answer_find(&p, i, where, found, e);
        if (rc) err_frame(e, "looking for the answer in message %zu of %s", i + 1, where);
    }
    parts_close(&p);
    return rc;
}

static i64 muted(const struct conversation *v) {
    i64 count = 0;
    for (size_t i = 0; i < json_array_size(v->mute); i++)
        count += json_is_true(json_array_get(v->mute, i));
    return count;
}

/* Those of the template's {% generation %}: one for each answer, where some are not trained. */
static int marked_keep(const struct conversation *v, const struct spans *marked, i64 from,
                       const char *where, struct spans *trained, struct err *e) {
    const json_t *messages = json_object_get(v->row, "messages");
    const i64 mute = muted(v);
    i64 answers = 0;
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(messages); i++) answers += is_answer(messages, i);
    if (mute && answers != marked->count)
        return err_input(e,
                         "%s: %lld answers, of which some are not trained, and %lld parts that "
                         "the chat template marks by {%% generation %%}",
                         where, (long long)answers, (long long)marked->count);
    for (i64 i = 0; i < marked->count; i++, at++) {
        while (mute && !is_answer(messages, at)) at++;
        if (marked->item[i].end <= from || (mute && json_is_true(json_array_get(v->mute, at))))
            continue;
        if (spans_add(trained, i64_max(from, marked->item[i].begin), marked->item[i].end, e))
            return -1;
    }
    return 0;
}

/* All but the answers that are not trained. */
static int others_keep(const struct chat *c, const struct conversation *v, const struct text *all,
                       i64 from, const char *where, struct spans *trained, struct err *e) {
    struct spans mute = {0};
    int rc = muted(v) ? answers_find(c, v, all, where, true, &mute, e) : 0;
    for (i64 i = 0; !rc && i < mute.count; from = i64_max(from, mute.item[i++].end))
        if (mute.item[i].begin > from) rc = spans_add(trained, from, mute.item[i].begin, e);
    rc = rc || spans_add(trained, from, all->size, e);
    return spans_free(&mute), rc ? -1 : 0;
}

/* Some templates put the arguments of a tool call together as texts: where one fails on objects,
 * it gets JSON. */
static int whole_render(const struct chat *c, struct conversation *v, bool prompt, struct text *out,
                        struct spans *marked, struct err *e) {
    struct err first = {0};
    if (!chat_render(c, v->row, json_object_get(v->row, "messages"), prompt, out, marked, &first))
        return 0;
    if (marked) marked->count = 0;
    if (v->texts && !first.starved &&
        !chat_render(c, v->row, v->texts, prompt, out, marked, &(struct err){0}))
        return json_object_set(v->row, "messages", v->texts);
    return *e = first, -1;
}

/* A conversation that teaches nothing is a row to look at. */
static int conversation_check(const struct conversation *v, const char *where, bool assistant_only,
                              struct row_notes *notes, struct err *e) {
    const json_t *messages = json_object_get(v->row, "messages");
    i64 answers = 0, said = 0, learnt = 0;
    for (size_t i = v->first; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i), *content = json_object_get(m, "content");
        const bool text =
            json_is_string(content) ? json_string_length(content) > 0 : content != NULL;
        if (!is_answer(messages, i)) continue;
        answers++, learnt += !json_is_true(json_array_get(v->mute, i));
        said += text || json_object_get(m, "tool_calls");
    }
    if (!assistant_only) return 0;
    if (said && said < answers && notes)
        row_note(&notes->said, "an answer is empty: only its end is trained", notes->line);
    if (!answers)
        err_input(e, "%s: the assistant says nothing%s", where,
                  v->complete ? " in the completion" : "");
    else if (!said)
        err_input(e, "%s: the assistant's answers are empty", where);
    else if (!learnt)
        err_input(e, "%s: no answer is trained: each has weight 0", where);
    return e->code ? -1 : 0;
}

static int conversation_read(struct conversation *v, const struct chat *c, const json_t *row,
                             const char *where, const struct row_rules *rules,
                             struct row_notes *notes, struct err *e) {
    const bool old = v->old = rules && rules->version == 1;
    if (old ? conversation_old(v, row, where, e)
            : conversation_of(v, c, row, where, rules, notes, e))
        return -1;
    if (json_array_size(json_object_get(v->row, "messages"))) return 0;
    err_input(e, "%s: a conversation without messages", where);
    return err_detail(e, "expected at least one");
}

int chat_document(const struct chat *c, const json_t *row, const char *where, bool assistant_only,
                  const struct row_rules *rules, struct row_notes *notes, struct text *out,
                  struct spans *trained, bool *unstopped, struct err *e) {
    struct conversation v = {0};
    struct spans marked = {0};
    struct parts prompt = {.c = c};
    i64 from = 0;
    out->size = trained->count = 0;
    int rc = conversation_read(&v, c, row, where, rules, notes, e);
    if (!rc && whole_render(c, &v, false, out, &marked, e))
        rc = err_frame(e, "in the conversation of %s", where);
    if (!rc && !(rules && rules->version == 1))
        rc = conversation_check(&v, where, assistant_only, notes, e) ||
             (notes && conversation_parts(&v, out, notes, e));
    if (!rc && v.complete) { /* the completion's own part of the text */
        prompt.row = v.row;
        rc = part_render(&prompt, v.first, true, e);
        from = rc ? 0 : common(&prompt.text, out, 0);
    }
    if (rc) {
    } else if (!assistant_only) {
        rc = others_keep(c, &v, out, from, where, trained, e);
    } else if (chat_generation(c, v.row)) {
        rc = marked_keep(&v, &marked, from, where, trained, e);
    } else {
        rc = answers_find(c, &v, out, where, false, trained, e);
    }
    const i64 last = trained->count ? trained->item[trained->count - 1].end : 0;
    if (!rc && unstopped) *unstopped = last == out->size && !*chat_stop(c, v.old ? row : v.row);
    conversation_free(&v), spans_free(&marked), parts_close(&prompt);
    return rc ? -1 : 0;
}

int chat_prompt(const struct chat *c, const json_t *row, const char *where, bool prompt,
                struct row_notes *notes, struct text *out, struct spans *generation,
                struct err *e) {
    struct conversation v = {0};
    json_t *own = json_deep_copy(row);
    json_t *asked = json_object_get(own, "prompt");
    if (json_is_array(asked) && !json_object_get(own, "completion"))
        json_object_set(own, "messages", asked);
    if (!own) return err_memory(e, "%s: out of memory", where);
    row_nulls_remove(own, 0);
    int rc = conversation_read(&v, c, own, where, NULL, notes, e);
    if (rc && strstr(e->hint, "on_bad_row")) *e->hint = 0; /* which is of recipes */
    rc = rc || whole_render(c, &v, prompt, out, generation, e);
    conversation_free(&v), json_decref(own);
    return rc ? -1 : 0;
}
