/* rows.c: what a row of JSON means: the documents it holds. */
#include "data/datasets/datasets_int.h"
#include <string.h>

void rows_take(struct rows *r, json_t *row, i64 number, i64 line, bool inexact) {
    json_decref(r->json);
    r->json = row, r->number = number, r->line = line, r->inexact = inexact, r->instance = 0;
}

void rows_free(struct rows *r) {
    json_decref(r->json), r->json = NULL;
    text_free(&r->made), spans_free(&r->spans);
}

static int json_wrong(const struct rows *r, const char *key, const json_t *found, struct err *e) {
    static const char *const name[] = {"an object", "an array", "a string", "an integer",
                                       "a number",  "true",     "false",    "null"};
    err_input(e, "%s:%lld: '%s' is %s", r->path, (long long)r->line, key, name[json_typeof(found)]);
    return err_detail(e, "expected a string");
}

static int made_add(struct rows *r, const json_t *o, const char *key, struct err *e) {
    const json_t *value = json_object_get(o, key);
    if (!json_is_string(value)) return json_wrong(r, key, value, e);
    return text_add(&r->made, json_string_value(value), (i64)json_string_length(value), e);
}

static int made_lit(struct rows *r, const char *text, struct err *e) {
    return text_add(&r->made, text, (i64)strlen(text), e);
}

/* The template of Stanford Alpaca without its preamble. `o` holds input and output. */
static int made_instruction(struct rows *r, const json_t *o, i64 *prompt, struct err *e) {
    const json_t *input = json_object_get(o, "input");
    bool with_input =
        input && !json_is_null(input) && !(json_is_string(input) && !json_string_length(input));
    if (!json_object_get(o, "output")) {
        err_input(e, "%s:%lld: an instruction without 'output'", r->path, (long long)r->line);
        return err_detail(
            e,
            "expected {\"instruction\", \"input\", \"output\"}, all strings; input may be missing");
    }
    if (made_lit(r, "### Instruction:\n", e) || made_add(r, r->json, "instruction", e)) return -1;
    if (with_input && (made_lit(r, "\n\n### Input:\n", e) || made_add(r, o, "input", e))) return -1;
    if (made_lit(r, "\n\n### Response:\n", e)) return -1;
    *prompt = r->made.size;
    return made_add(r, o, "output", e);
}

static int row_unknown(const struct rows *r, struct err *e) {
    struct text keys = {0};
    const char *key;
    json_t *value;
    json_object_foreach(r->json, key, value) {
        (void)value;
        if (keys.size < 200 && text_printf(&keys, e, "%s'%.40s'", keys.size ? ", " : "", key))
            break;
    }
    err_input(e, "%s:%lld: no text found; the keys are: %s", r->path, (long long)r->line,
              keys.size ? keys.data : "none");
    text_free(&keys);
    return err_detail(e, "expected {\"text\"}, {\"messages\"}, {\"prompt\", \"completion\"} or "
                         "{\"instruction\", \"input\", \"output\"}");
}

/* Puts the next document of the current row together; *prompt is its size in front of what is
 * answered. */
static int row_document(struct rows *r, i64 *prompt, bool *more, struct err *e) {
    const json_t *row = r->json, *instances = json_object_get(row, "instances");
    r->made.size = 0, *prompt = 0, *more = false;
    if (json_object_get(row, "text")) return made_add(r, row, "text", e);
    if (json_object_get(row, "prompt") && json_object_get(row, "completion")) {
        if (made_add(r, row, "prompt", e)) return -1;
        *prompt = r->made.size;
        return made_add(r, row, "completion", e);
    }
    if (!json_object_get(row, "instruction")) return row_unknown(r, e);
    if (!instances) return made_instruction(r, row, prompt, e);
    const json_t *one = json_array_get(instances, r->instance);
    if (!json_is_array(instances) || (json_array_size(instances) && !json_is_object(one)))
        return err_input(e, "%s:%lld: 'instances' is not an array of objects", r->path,
                         (long long)r->line);
    if (!one) return 0;
    *more = ++r->instance < json_array_size(instances);
    return made_instruction(r, one, prompt, e);
}

/* A conversation as a document: 1, 0 if nothing of it is trained, or -1. */
static int row_conversation(struct rows *r, struct document *out, struct err *e) {
    char where[4200];
    const struct chat *chat = r->options->chat;
    snprintf(where, sizeof where, "%s:%lld", r->path, (long long)r->line);
    if (!chat) {
        err_input(e, "%s: a conversation, and there is no chat template", where);
        return err_hint(e, "name one: chat_template: chatml, llama3, alpaca or a .jinja file");
    }
    if (r->inexact) {
        err_input(e, "%s: an integer of more than 64 bits", where);
        return err_hint(e, "write it as a text: templates print numbers exactly");
    }
    if (chat_document(chat, r->json, where, r->options->assistant_only_loss, &r->made, &r->spans,
                      e))
        return -1;
    const struct spans *t = &r->spans;
    const i64 last = t->count ? t->item[t->count - 1].end : 0;
    *out = (struct document){.text = r->made.data,
                             .size = r->made.size,
                             .row = r->number,
                             .span = t->item,
                             .spans = t->count,
                             .unstopped = last == r->made.size && !*chat_stop(chat, r->json)};
    return t->count > 0;
}

int rows_next(struct rows *r, struct document *out, struct err *e) {
    while (r->json) {
        i64 prompt;
        bool more;
        if (chat_row(r->json, r->options->chat && r->options->chat_instructions)) {
            const int found = row_conversation(r, out, e);
            json_decref(r->json), r->json = NULL;
            r->facts->conversations += found > 0;
            return found; /* 0: the assistant says nothing */
        }
        if (row_document(r, &prompt, &more, e)) return -1;
        if (!more) json_decref(r->json), r->json = NULL;
        const i64 answer = r->made.size - prompt;
        if (!answer) continue; /* nothing to learn from */
        *out = (struct document){.text = r->made.data,
                                 .size = r->made.size,
                                 .row = r->number,
                                 .segments = 1,
                                 .segment = {{answer, true}}};
        if (prompt) {
            out->segments = 2;
            out->segment[0] = (struct segment){prompt, !r->options->completion_only_loss};
            out->segment[1] = (struct segment){answer, true};
        }
        return 1;
    }
    return 0;
}
