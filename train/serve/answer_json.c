/* answer_json.c: answers in OpenAI's forms: whole, and as events of a stream. */
#include "train/serve/serve_int.h"

#include <string.h>

static int quoted(struct text *out, const char *bytes, i64 size, struct err *e) {
    return json_text_add(out, bytes ? bytes : "", size, e);
}

static int head_add(const struct answer *a, const char *object, struct text *out, struct err *e) {
    int rc =
        text_printf(out, e,
                    "{\"id\": \"%s\", \"object\": \"%s\", \"created\": %lld, \"model\": ", a->id,
                    object, (long long)a->created) ||
        quoted(out, a->q.model, (i64)strlen(a->q.model), e) ||
        text_printf(out, e,
                    a->fingerprint ? ", \"system_fingerprint\": \"%s\""
                                   : ", \"system_fingerprint\": null",
                    a->fingerprint);
    return rc || text_printf(out, e, ", \"seed\": %lld", (long long)a->q.how.seed);
}

static int usage_add(const struct answer *a, struct text *out, struct err *e) {
    i64 prompts = 0, answers = 0;
    for (i64 i = 0; i < a->q.prompts; i++) prompts += a->q.prompt[i].ids.count;
    for (i64 i = 0; i < a->job.count; i++) answers += a->teller[i].ids.count;
    return text_printf(out, e,
                       "\"usage\": {\"prompt_tokens\": %lld, \"completion_tokens\": %lld, "
                       "\"total_tokens\": %lld}",
                       (long long)prompts, (long long)answers, (long long)(prompts + answers));
}

/* The prompt's text, where it is to be said again. */
static int echo_add(const struct answer *a, const struct teller *t, struct text *out,
                    struct err *e) {
    const struct prompt *p = t->prompt;
    if (!a->q.echo) return 0;
    if (p->text.size) return text_add(out, p->text.data, p->text.size, e);
    return tokenizer_decode(a->m->l->tokenizer, p->ids.item, p->ids.count, true, out, e);
}

static int scores_add_to(struct answer *a, struct teller *t, struct text *out, struct err *e) {
    const i64 from = t->scores_sent, to = t->prompt->ids.count + t->taken;
    if (text_printf(out, e, ", \"logprobs\": ")) return -1;
    if (!a->q.scored) return text_printf(out, e, "null");
    t->scores_sent = to;
    return logprobs_add(a, t, from, to, out, e);
}

/* ---- whole */

static int message_add(const struct answer *a, const struct teller *t, struct text *out,
                       struct err *e) {
    const struct text *s = &t->stream.text;
    struct thought h = {.said_end = s->size};
    if (a->q.split) h = thought_of(s->data ? s->data : "", s->size, t->inside, true);
    int rc = text_printf(out, e, "\"message\": {\"role\": \"assistant\", \"content\": ") ||
             quoted(out, s->data + h.said_begin, h.said_end - h.said_begin, e);
    if (!rc && a->q.split)
        rc = text_printf(out, e, ", \"reasoning_content\": ") ||
             (h.end > h.begin ? quoted(out, s->data + h.begin, h.end - h.begin, e)
                              : text_printf(out, e, "null"));
    return rc || text_printf(out, e, "}");
}

static int text_of(const struct answer *a, const struct teller *t, struct text *out,
                   struct err *e) {
    struct text whole = {0};
    const struct text *s = &t->stream.text;
    const int rc = echo_add(a, t, &whole, e) ||
                   text_add(&whole, s->data ? s->data : "", s->size, e) ||
                   text_printf(out, e, "\"text\": ") || quoted(out, whole.data, whole.size, e);
    return text_free(&whole), rc;
}

int answer_json(struct answer *a, struct text *out, struct err *e) {
    int rc = head_add(a, a->q.chat ? "chat.completion" : "text_completion", out, e) ||
             text_printf(out, e, ", \"choices\": [");
    for (i64 i = 0; !rc && i < a->job.count; i++) {
        struct teller *t = &a->teller[i];
        rc = text_printf(out, e, "%s{\"index\": %lld, ", i ? ", " : "", (long long)i) ||
             (a->q.chat ? message_add(a, t, out, e) : text_of(a, t, out, e)) ||
             scores_add_to(a, t, out, e) ||
             text_printf(out, e, ", \"finish_reason\": \"%s\"}", t->finish);
    }
    rc = rc || text_printf(out, e, "], ") || usage_add(a, out, e) || text_printf(out, e, "}\n");
    return rc ? -1 : 0;
}

/* ---- events */

static int event_begin(const struct answer *a, const struct teller *t, struct text *out,
                       struct err *e) {
    return text_printf(out, e, "data: ") ||
           head_add(a, a->q.chat ? "chat.completion.chunk" : "text_completion", out, e) ||
           text_printf(out, e, ", \"choices\": [{\"index\": %lld, ", (long long)(t - a->teller));
}

static int event_end(const struct answer *a, const char *finish, struct text *out, struct err *e) {
    if (finish ? text_printf(out, e, ", \"finish_reason\": \"%s\"}]", finish)
               : text_printf(out, e, ", \"finish_reason\": null}]"))
        return -1;
    return text_printf(out, e, a->q.usage ? ", \"usage\": null}\n\n" : "}\n\n");
}

/* A piece of a message under its key. */
static int delta_add(struct answer *a, struct teller *t, const char *key, const char *bytes,
                     i64 size, bool scores, struct err *e) {
    struct text *out = &a->out;
    return event_begin(a, t, out, e) || text_printf(out, e, "\"delta\": {\"%s\": ", key) ||
           quoted(out, bytes, size, e) || text_printf(out, e, "}") ||
           (scores ? scores_add_to(a, t, out, e) : text_printf(out, e, ", \"logprobs\": null")) ||
           event_end(a, NULL, out, e);
}

static bool scores_wait(const struct answer *a, const struct teller *t) {
    return a->q.scored && t->prompt->ids.count + t->taken > t->scores_sent;
}

static int chat_events(struct answer *a, struct teller *t, struct err *e) {
    const struct text *s = &t->stream.text;
    const i64 size = t->stream.printed;
    struct thought h = {.said_end = size};
    if (a->q.split) h = thought_of(s->data ? s->data : "", size, t->inside, t->ended);
    t->thought_sent = i64_max(t->thought_sent, h.begin);
    t->sent = i64_max(t->sent, h.said_begin);
    if (h.end > t->thought_sent) {
        if (delta_add(a, t, "reasoning_content", s->data + t->thought_sent, h.end - t->thought_sent,
                      true, e))
            return -1;
        t->thought_sent = h.end;
    }
    if (h.said_end > t->sent) {
        if (delta_add(a, t, "content", s->data + t->sent, h.said_end - t->sent, true, e)) return -1;
        t->sent = h.said_end;
    }
    return t->ended && scores_wait(a, t) ? delta_add(a, t, "content", "", 0, true, e) : 0;
}

static int text_events(struct answer *a, struct teller *t, bool first, struct err *e) {
    struct text piece = {0}, *out = &a->out;
    int rc = first ? echo_add(a, t, &piece, e) : 0;
    if (t->stream.printed > t->sent)
        rc = rc || text_add(&piece, t->stream.text.data + t->sent, t->stream.printed - t->sent, e);
    if (piece.size || (t->ended && scores_wait(a, t)))
        rc = rc || event_begin(a, t, out, e) || text_printf(out, e, "\"text\": ") ||
             quoted(out, piece.data, piece.size, e) || scores_add_to(a, t, out, e) ||
             event_end(a, NULL, out, e);
    t->sent = i64_max(t->sent, t->stream.printed);
    return text_free(&piece), rc;
}

static int begin_events(struct answer *a, struct err *e) {
    struct text *out = &a->out;
    for (i64 i = 0; a->q.chat && i < a->job.count; i++)
        if (event_begin(a, &a->teller[i], out, e) ||
            text_printf(out, e,
                        "\"delta\": {\"role\": \"assistant\", \"content\": \"\"}, \"logprobs\": "
                        "null") ||
            event_end(a, NULL, out, e))
            return -1;
    return 0;
}

static int end_events(struct answer *a, struct err *e) {
    struct text *out = &a->out;
    if (a->q.usage &&
        (text_printf(out, e, "data: ") ||
         head_add(a, a->q.chat ? "chat.completion.chunk" : "text_completion", out, e) ||
         text_printf(out, e, ", \"choices\": [], ") || usage_add(a, out, e) ||
         text_printf(out, e, "}\n\n")))
        return -1;
    return text_printf(out, e, "data: [DONE]\n\n");
}

/* What goes wrong after the beginning can only be an event. */
static int wrong_event(struct answer *a, const struct refusal *r, struct err *e) {
    struct text *out = &a->out;
    if (text_printf(out, e, "data: ") || refusal_json(r, out, e)) return -1;
    return text_printf(out, e, "\ndata: [DONE]\n\n");
}

int answer_events(struct answer *a, int more, const struct refusal *r, struct err *e) {
    if (a->done) return 0;
    if (!a->begun && begin_events(a, e)) return -1;
    for (i64 i = 0; i < a->job.count; i++) {
        struct teller *t = &a->teller[i];
        if (t->told) continue;
        if (a->q.chat ? chat_events(a, t, e) : text_events(a, t, !a->begun, e)) return -1;
        if (!t->ended) continue;
        t->told = true;
        if (event_begin(a, t, &a->out, e) ||
            text_printf(&a->out, e, a->q.chat ? "\"delta\": {}" : "\"text\": \"\"") ||
            text_printf(&a->out, e, ", \"logprobs\": null") || event_end(a, t->finish, &a->out, e))
            return -1;
    }
    a->begun = true, a->done = more != 0;
    return more < 0 ? wrong_event(a, r, e) : more ? end_events(a, e) : 0;
}
