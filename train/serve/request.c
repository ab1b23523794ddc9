/* request.c: what a request for an answer says. Each field is followed, or without effect on the
 * answer (`user`), or refused by name: a field that is silently ignored gives another answer than
 * was asked for. Fields whose value is the one that does nothing (presence_penalty 0) are fine, as
 * null always is. */
#include "train/serve/serve_int.h"

#include <stdlib.h>
#include <string.h>

struct reading {
    struct request *q;
    const struct serve_model *m;
    const json_t *j;
    struct refusal *r;
};

static double number(const struct reading *x, const char *key, double otherwise, double low,
                     double high) {
    const json_t *v = json_object_get(x->j, key);
    if (!v || json_is_null(v)) return otherwise;
    const double n = json_number_value(v);
    if (json_is_number(v) && n >= low && n <= high) return n;
    refuse(x->r, 400, key, "%s must be a number from %g to %g", key, low, high);
    return otherwise;
}

static i64 whole(const struct reading *x, const char *key, i64 otherwise, i64 low, i64 high) {
    const json_t *v = json_object_get(x->j, key);
    if (!v || json_is_null(v)) return otherwise;
    const i64 n = json_integer_value(v);
    if (json_is_integer(v) && n >= low && n <= high) return n;
    if (low == INT64_MIN)
        refuse(x->r, 400, key, "%s must be a whole number", key);
    else
        refuse(x->r, 400, key, "%s must be a whole number from %lld to %lld", key, (long long)low,
               (long long)high);
    return otherwise;
}

static bool yes(const struct reading *x, const json_t *from, const char *key, bool otherwise) {
    const json_t *v = json_object_get(from, key);
    if (!v || json_is_null(v)) return otherwise;
    if (!json_is_boolean(v)) refuse(x->r, 400, key, "%s must be true or false", key);
    return json_is_true(v);
}

static bool given(const struct reading *x, const char *key) {
    const json_t *v = json_object_get(x->j, key);
    return v && !json_is_null(v);
}

/* ---- which fields there are */

static const char *const both[] = {"model",
                                   "stream",
                                   "stream_options",
                                   "stop",
                                   "stop_token_ids",
                                   "seed",
                                   "temperature",
                                   "top_p",
                                   "top_k",
                                   "min_p",
                                   "max_tokens",
                                   "repetition_penalty",
                                   "n",
                                   "logprobs",
                                   "ignore_eos",
                                   "user",
                                   "metadata",
                                   "safety_identifier",
                                   "store",
                                   "prompt_cache_key",
                                   "service_tier",
                                   NULL};
static const char *const of_chat[] = {"messages",
                                      "tools",
                                      "tool_choice",
                                      "chat_template_kwargs",
                                      "top_logprobs",
                                      "max_completion_tokens",
                                      NULL};
static const char *const of_completions[] = {"prompt", "echo", NULL};
/* Values as JSON with which a field that is not supported changes nothing. */
static const struct {
    const char *key, *same;
} neutral[] = {{"frequency_penalty", "0"},
               {"presence_penalty", "0"},
               {"logit_bias", "{}"},
               {"best_of", "1"},
               {"suffix", "\"\""},
               {"response_format", "{\"type\": \"text\"}"},
               {"modalities", "[\"text\"]"},
               {"typical_p", "1"},
               {"min_tokens", "0"},
               {"length_penalty", "1"},
               {"use_beam_search", "false"},
               {"skip_special_tokens", "true"},
               {"include_stop_str_in_output", "false"},
               {"parallel_tool_calls", "true"},
               {"functions", "[]"}};

static bool listed(const char *const *list, const char *key) {
    for (; *list; list++)
        if (!strcmp(*list, key)) return true;
    return false;
}

static bool is_neutral(const char *key, const json_t *value, bool *known) {
    for (int i = 0; i < COUNT(neutral); i++) {
        if (strcmp(key, neutral[i].key)) continue;
        json_t *same = json_loads(neutral[i].same, JSON_DECODE_ANY, NULL);
        const bool is =
            json_equal(same, value) || (json_is_number(same) && json_is_number(value) &&
                                        json_number_value(same) == json_number_value(value));
        json_decref(same), *known = true;
        return is;
    }
    return false;
}

static int fields_known(const struct reading *x) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)x->j, key, value) {
        bool known = false;
        if (json_is_null(value) || listed(both, key) ||
            listed(x->q->chat ? of_chat : of_completions, key) || is_neutral(key, value, &known))
            continue;
        char *said = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        refuse(x->r, 400, key,
               known ? "'%.60s' is not supported, and %.100s would change the answer"
                     : "there is no field '%.60s' here, and what it is to do is not known",
               key, said && strlen(said) <= 100 ? said : "this value");
        free(said);
        return -1;
    }
    return 0;
}

int keys_known(const json_t *j, const char *const *known, struct refusal *r) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)j, key, value) if (!listed(known, key)) return refuse(
        r, 400, key, "there is no field '%.60s' here", key);
    return 0;
}

/* ---- fields of both */

static void stop_add(const struct reading *x, const json_t *one) {
    struct text_list *list = &x->q->stop;
    struct err e = {0};
    const size_t size = json_string_length(one);
    const char *text = json_string_value(one);
    if (!text || !size || strlen(text) != size || list->count >= STOP_STRINGS) {
        refuse(x->r, 400, "stop", "stop must be a text, or at most %d of them, none empty",
               (int)STOP_STRINGS);
        return;
    }
    char **more = arena_new(&x->q->arena, (list->count + 1) * (i64)sizeof *more, &e);
    for (i64 i = 0; more && i < list->count; i++) more[i] = list->item[i];
    if (more && (more[list->count] = arena_text(&x->q->arena, text, &e)))
        list->item = more, list->count++;
    if (e.code) refuse_err(x->r, "stop", &e);
}

static void stops_read(const struct reading *x) {
    struct err e = {0};
    struct request *q = x->q;
    struct answer_end end = {.id = -1, .text = ""};
    json_t *stop = json_object_get(x->j, "stop"), *ids = json_object_get(x->j, "stop_token_ids"),
           *one;
    size_t i;
    int rc = q->chat ? answer_end(&end, x->m->chat, x->j, x->m->l->tokenizer, &e) : 0;
    for (i64 k = 0; !rc && k < x->m->stops->count; k++)
        rc = ids_add(&q->stops, x->m->stops->item[k], &e);
    if (!rc && end.id >= 0) rc = ids_add(&q->stops, (u32)end.id, &e);
    json_array_foreach(ids, i, one) {
        const i64 id = json_integer_value(one);
        if (!json_is_integer(one) || id < 0 || id > UINT32_MAX)
            refuse(x->r, 400, "stop_token_ids", "stop_token_ids must be ids of tokens");
        else if (!rc)
            rc = ids_add(&q->stops, (u32)id, &e);
    }
    if (rc) refuse_err(x->r, NULL, &e);
    if (given(x, "stop_token_ids") && !json_is_array(ids))
        refuse(x->r, 400, "stop_token_ids", "stop_token_ids must be a list of ids of tokens");
    for (i64 k = 0; k < x->m->stop->count; k++) {
        json_t *text = json_string(x->m->stop->item[k]);
        stop_add(x, text), json_decref(text);
    }
    if (end.id < 0 && *end.text) {
        json_t *text = json_string(end.text);
        stop_add(x, text), json_decref(text);
    }
    if (json_is_array(stop)) {
        json_array_foreach(stop, i, one) stop_add(x, one);
    } else if (given(x, "stop")) {
        stop_add(x, stop);
    }
}

static void sampling_read(const struct reading *x) {
    struct sampling *s = &x->q->how;
    const bool asked =
        given(x, "temperature") || given(x, "top_k") || given(x, "top_p") || given(x, "min_p");
    *s = asked ? x->m->asked : x->m->usual;
    s->temperature = number(x, "temperature", s->temperature, 0, 100);
    s->top_p = number(x, "top_p", s->top_p, 0, 1);
    s->min_p = number(x, "min_p", s->min_p, 0, 1);
    s->top_k = i64_max(0, whole(x, "top_k", s->top_k, -1, 1 << 24));
    s->repetition_penalty = number(x, "repetition_penalty", s->repetition_penalty, 0.01, 100);
    s->seed = whole(x, "seed", s->seed, INT64_MIN, INT64_MAX);
    s->ignore_eos = yes(x, x->j, "ignore_eos", s->ignore_eos);
    s->max_new_tokens = whole(x, "max_tokens", s->max_new_tokens, x->q->chat, 1 << 24);
    if (x->q->chat)
        s->max_new_tokens = whole(x, "max_completion_tokens", s->max_new_tokens, 1, 1 << 24);
    s->stops = NULL, s->full = NULL;
}

static void model_read(const struct reading *x) {
    const json_t *name = json_object_get(x->j, "model");
    const struct serve_model *m = x->m;
    x->q->model = m->name;
    if (!given(x, "model")) return;
    const char *said = json_string_value(name);
    if (said && !strcmp(said, m->name)) return;
    if (said && m->base && !strcmp(said, m->base)) {
        x->q->model = m->base, x->q->lane = 1;
        return;
    }
    refuse(x->r, said ? 404 : 400, "model",
           "there is no such model here; there is '%.200s'%s%.200s%s", m->name,
           m->base ? " and '" : "", m->base ? m->base : "", m->base ? "'" : "");
}

static void logprobs_read(const struct reading *x) {
    struct request *q = x->q;
    if (q->chat) {
        q->scored = yes(x, x->j, "logprobs", false);
        q->top = (int)whole(x, "top_logprobs", 0, 0, SCORES_TOP);
        if (q->top && !q->scored)
            refuse(x->r, 400, "top_logprobs", "top_logprobs needs \"logprobs\": true");
        return;
    }
    q->echo = yes(x, x->j, "echo", false);
    q->scored = given(x, "logprobs");
    q->top = (int)whole(x, "logprobs", 0, 0, SCORES_TOP);
}

static void common_read(const struct reading *x) {
    struct request *q = x->q;
    const json_t *options = json_object_get(x->j, "stream_options"), *value;
    const char *key;
    q->stream = yes(x, x->j, "stream", false);
    if (given(x, "stream_options") && !json_is_object(options))
        refuse(x->r, 400, "stream_options", "stream_options must be an object");
    json_object_foreach((json_t *)(uintptr_t)options, key,
                        value) if (strcmp(key, "include_usage") &&
                                   strcmp(key, "include_obfuscation"))
        refuse(x->r, 400, "stream_options", "there is no stream option '%.60s'", key);
    q->usage = yes(x, options, "include_usage", false);
    yes(x, options, "include_obfuscation", false);
    q->n = whole(x, "n", 1, 1, 128);
    if (json_is_true(json_object_get(x->j, "store")))
        refuse(x->r, 400, "store", "nothing is stored here");
}

/* ---- prompts */

static struct prompt *prompts_new(const struct reading *x, i64 count) {
    struct err e = {0};
    x->q->prompt = mem_new_array(count, sizeof *x->q->prompt, &e);
    if (x->q->prompt) return x->q->prompts = count, x->q->prompt;
    return refuse_err(x->r, "prompt", &e), NULL;
}

static void ids_read(const struct reading *x, struct prompt *p, const json_t *list) {
    struct err e = {0};
    const json_t *one;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)list, i, one) {
        const i64 id = json_integer_value(one);
        if (!json_is_integer(one) || id < 0 || id >= x->m->l->model.config.vocab_size) {
            refuse(x->r, 400, "prompt", "a prompt of ids holds something that is no token's");
            return;
        }
        if (ids_add(&p->ids, (u32)id, &e)) {
            refuse_err(x->r, "prompt", &e);
            return;
        }
    }
}

static void prompt_read(const struct reading *x, struct prompt *p, const json_t *v) {
    struct err e = {0};
    if (json_is_array(v)) {
        ids_read(x, p, v);
    } else if (json_is_string(v)) {
        if (text_add(&p->text, json_string_value(v), (i64)json_string_length(v), &e) ||
            prompt_encode(x->m->l->tokenizer, p->text.data, p->text.size, &p->ids, &e))
            refuse_err(x->r, "prompt", &e);
    } else {
        refuse(x->r, 400, "prompt",
               "prompt must be a text, a list of texts, a list of ids, or a "
               "list of such lists");
    }
}

static void prompts_read(const struct reading *x) {
    const json_t *v = json_object_get(x->j, "prompt"), *first = json_array_get(v, 0);
    const bool several = json_is_array(v) && !json_is_integer(first);
    const i64 count = several ? (i64)json_array_size(v) : 1;
    if (!v || !count || count > 4096) {
        refuse(x->r, 400, "prompt", v ? "prompt must be 1 to 4096 prompts" : "prompt is missing");
        return;
    }
    struct prompt *p = prompts_new(x, count);
    for (i64 i = 0; p && i < count && !x->r->status; i++)
        prompt_read(x, &p[i], several ? json_array_get(v, (size_t)i) : v);
}

static void conversation_read(const struct reading *x) {
    struct err e = {0};
    struct prompt *p = prompts_new(x, 1);
    if (!p || messages_render(x->m, x->j, true, &p->text, x->r)) return;
    if (tokenizer_encode(x->m->l->tokenizer, p->text.data, p->text.size, false, &p->ids, &e))
        refuse_err(x->r, "messages", &e);
    i64 size = 0;
    const char *source = chat_source(x->m->chat, &size);
    x->q->split = memmem(source, (size_t)size, "</think>", 8) != NULL;
}

int request_read(struct request *q, const struct serve_model *m, i64 positions, const json_t *j,
                 bool chat, struct refusal *r) {
    const struct reading x = {q, m, j, r};
    q->chat = chat;
    if (!json_is_object(j)) return refuse(r, 400, NULL, "the body must be a JSON object");
    if (fields_known(&x)) return -1;
    common_read(&x), model_read(&x), logprobs_read(&x), sampling_read(&x);
    if (!r->status) chat ? conversation_read(&x) : prompts_read(&x);
    if (!r->status) stops_read(&x);
    for (i64 i = 0; i < q->prompts && !r->status; i++) {
        const i64 count = q->prompt[i].ids.count;
        if (!count)
            refuse(r, 400, "prompt", "the prompt is empty");
        else if (count + (q->how.max_new_tokens > 0) > positions)
            refuse(r, 400, chat ? "messages" : "prompt",
                   "the prompt has %lld tokens, and texts have at most %lld with the answer",
                   (long long)count, (long long)positions);
    }
    return r->status ? -1 : 0;
}

void request_free(struct request *q) {
    for (i64 i = 0; i < q->prompts; i++) text_free(&q->prompt[i].text), ids_free(&q->prompt[i].ids);
    mem_free(q->prompt), ids_free(&q->stops), arena_free(&q->arena);
    *q = (struct request){0};
}
