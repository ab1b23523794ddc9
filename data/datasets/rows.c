/* rows.c: what a row means: the documents it holds.
 *
 * A row has one of the forms below, the first whose columns it has. Columns may have other names
 * (`columns`). A column whose value is null is absent, for files that are a union of others write
 * null for what a row does not have. Every other column is counted, so that what is not used can be
 * named; a row that cannot be used is an error, or left out and counted (`on_bad_row`). */
#include "data/datasets/datasets_int.h"
#include <string.h>

#define TURNS "system tools functions documents chat_template_kwargs"
static const char media[] = "image images video videos audio audios";
enum form {
    IDS,
    MESSAGES,
    CONVERSATIONS,
    LISTS,
    ASKED,
    TEXT,
    PAIR,
    INSTRUCTION,
    SEGMENTS,
    QUERIED,
    FORMS,
    STYLED
};
static const struct {
    const char *needs, *uses;
} forms[FORMS] = {
    [IDS] = {"input_ids", "input_ids labels attention_mask completion_mask assistant_masks"},
    [SEGMENTS] = {"segments", "segments"},
    [MESSAGES] = {"messages", "messages " TURNS},
    [CONVERSATIONS] = {"conversations", "conversations " TURNS},
    [LISTS] = {"prompt completion", "prompt completion " TURNS},
    [ASKED] = {"instruction", "instruction input output history " TURNS},
    [TEXT] = {"text", "text"},
    [PAIR] = {"prompt completion", "prompt completion"},
    [INSTRUCTION] = {"instruction", "instruction input output instances"},
    [QUERIED] = {"query response", "query response history " TURNS}, /* of ms-swift */
};
static bool old(const struct rows *r) { return r->options->rules.version == 1; }

void rows_take(struct rows *r, json_t *row, i64 number, i64 line, bool inexact) {
    json_decref(r->json);
    r->number = number, r->line = r->notes.line = line, r->inexact = inexact, r->instance = 0;
    if (!r->notes.mapped) r->notes.mapped = json_object();
    if (old(r)) {
        r->json = row;
        return;
    }
    if (row_nulls_remove(row, 0))
        row_note(&r->notes.said, "null deep inside a value is absent", line);
    r->json = rows_renamed(r, row);
    json_decref(row);
}

void rows_free(struct rows *r) {
    json_decref(r->json), r->json = NULL;
    row_notes_free(&r->notes);
    text_free(&r->made), spans_free(&r->spans), mem_free(r->parts.item);
    r->parts = (struct message_parts){0};
}

/* ---- texts */

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
    rows_columns_hint(r, e);
    return err_detail(e, "expected {\"text\"}, {\"messages\"}, {\"prompt\", \"completion\"} or "
                         "{\"instruction\", \"input\", \"output\"}");
}

/* A row as its prompt_style writes it. */
static int made_styled(struct rows *r, i64 *prompt, struct err *e) {
    const char *wrong = NULL;
    const int rc = prompt_style_made(r->options->rules.style, r->json, &r->made, prompt, &wrong, e);
    if (rc <= 0) return rc;
    const json_t *found = json_object_get(r->json, wrong);
    if (found) return json_wrong(r, wrong, found, e);
    err_input(e, "%s:%lld: the row has no '%s'", r->path, (long long)r->line, wrong);
    return err_hint(
        e, "prompt_style (Axolotl's type) says which columns there are; without it a row is "
           "what its columns say");
}

/* Puts the next document of the current row together, one of `f`; *prompt is its size in front of
 * what is answered. */
static int row_document(struct rows *r, enum form f, i64 *prompt, bool *more, struct err *e) {
    const json_t *row = r->json, *instances = json_object_get(row, "instances");
    r->made.size = 0, *prompt = 0, *more = false;
    if (f == STYLED) return made_styled(r, prompt, e);
    if (f == TEXT) return made_add(r, row, "text", e);
    if (f == PAIR) {
        if (made_add(r, row, "prompt", e)) return -1;
        *prompt = r->made.size;
        return made_add(r, row, "completion", e);
    }
    if (!instances) return made_instruction(r, row, prompt, e);
    const json_t *one = json_array_get(instances, r->instance);
    if (!json_is_array(instances) || (json_array_size(instances) && !json_is_object(one)))
        return err_input(e, "%s:%lld: 'instances' is not an array of objects", r->path,
                         (long long)r->line);
    if (!one) return 0;
    *more = ++r->instance < json_array_size(instances);
    return made_instruction(r, one, prompt, e);
}

/* Axolotl's rows without a template: [{"label": true, "text": ...}], one text, of which the
 * segments with a label of true are trained. Nothing is put around it. */
static int row_segments(struct rows *r, struct document *out, struct err *e) {
    const json_t *list = json_object_get(r->json, "segments"), *one;
    size_t i;
    r->made.size = r->spans.count = 0;
    json_array_foreach((json_t *)(uintptr_t)list, i, one) {
        const json_t *label = json_object_get(one, "label"), *text = json_object_get(one, "text");
        const i64 begin = r->made.size;
        if (!json_is_boolean(label) || !json_is_string(text)) {
            err_input(e, "%s:%lld: segment %zu is no text with a label", r->path,
                      (long long)r->line, i + 1);
            return err_detail(e, "expected {\"label\": true or false, \"text\": ...}");
        }
        if (text_add(&r->made, json_string_value(text), (i64)json_string_length(text), e) ||
            (json_is_true(label) && spans_add(&r->spans, begin, r->made.size, e)))
            return -1;
    }
    if (!r->spans.count)
        return err_input(e, "%s:%lld: no segment is trained", r->path, (long long)r->line);
    *out = (struct document){.text = r->made.data,
                             .size = r->made.size,
                             .row = r->number,
                             .span = r->spans.item,
                             .spans = r->spans.count};
    return 1;
}

static bool has_number(const json_t *j, int depth) {
    const char *key;
    json_t *value;
    size_t i;
    bool found = json_is_number(j) || depth > 100;
    json_object_foreach((json_t *)(uintptr_t)j, key, value) found |= has_number(value, depth + 1);
    json_array_foreach((json_t *)(uintptr_t)j, i, value) found |= has_number(value, depth + 1);
    return found;
}

/* Where one integer of a row has more than 64 bits, all its numbers were read as reals. That
 * matters where a template may print one; an id beside the conversation does not. */
static bool numbers_used(const struct rows *r) {
    static const char turns[] = "messages conversations prompt completion " TURNS;
    const char *key;
    json_t *value;
    bool found = false;
    json_object_foreach(r->json, key, value) if (word_listed(turns, key)) found |=
        has_number(value, 0);
    return found;
}

/* A conversation as a document: 1, 0 if nothing of it is trained, or -1. */
static int row_conversation(struct rows *r, struct document *out, struct err *e) {
    char where[4200];
    bool unstopped = false;
    const struct chat *chat = r->options->chat;
    snprintf(where, sizeof where, "%s:%lld", r->path, (long long)r->line);
    if (!chat) {
        r->fatal = true;
        err_input(e, "%s: a conversation, and there is no chat template", where);
        return err_hint(e, "name one: chat_template: chatml, llama3, alpaca or a .jinja file");
    }
    if (r->inexact && (old(r) || numbers_used(r))) {
        err_input(e, "%s: an integer of more than 64 bits", where);
        return err_hint(e, "write it as a text: templates print numbers exactly");
    }
    if (r->options->parts) r->notes.parts = &r->parts;
    if (chat_document(chat, r->json, where, r->options->assistant_only_loss, &r->options->rules,
                      &r->notes, &r->made, &r->spans, &unstopped, e))
        return r->fatal = chat_broken(chat, r->json), -1;
    const struct spans *t = &r->spans;
    *out = (struct document){.text = r->made.data,
                             .size = r->made.size,
                             .row = r->number,
                             .span = t->item,
                             .spans = t->count,
                             .unstopped = unstopped,
                             .part = r->parts.item,
                             .parts = r->parts.count};
    return t->count > 0;
}

/* ---- rows */

static bool has_all(const json_t *row, const char *needs, const json_t *columns) {
    bool mapped = !columns;
    char name[32];
    for (const char *p = needs; *p; p += strcspn(p, " "), p += *p == ' ') {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p, " "), p);
        if (!json_object_get(row, name)) return false;
        const char *ours;
        json_t *column;
        json_object_foreach((json_t *)(uintptr_t)columns, ours, column) {
            (void)column;
            mapped |= !strcmp(row_column_ours(columns, ours), name);
        }
    }
    return mapped;
}

bool rows_is_row(const struct row_rules *rules, const json_t *keys) {
    const char *ours;
    json_t *column;
    for (int f = 0; f < FORMS; f++)
        if (has_all(keys, forms[f].needs, NULL)) return true;
    json_object_foreach((json_t *)(uintptr_t)rules->columns, ours,
                        column) if (json_object_get(keys, json_string_value(column))) return true;
    return false;
}

/* What the user named by `columns` goes first. */
static enum form row_form(const struct rows *r) {
    const json_t *row = r->json, *columns = r->options->rules.columns;
    if (r->options->rules.style && !json_object_get(row, forms[IDS].needs)) return STYLED;
    const bool lists = json_is_array(json_object_get(row, "prompt")) ||
                       json_is_array(json_object_get(row, "completion"));
    const bool asked =
        r->options->chat && r->options->chat_instructions && !json_object_get(row, "instances");
    for (int any = json_object_size(columns) ? 0 : 1; any < 2; any++)
        for (int f = 0; f < FORMS; f++) {
            if ((f == LISTS && !lists) || (f == PAIR && lists) || (f == ASKED && !asked)) continue;
            if (has_all(row, forms[f].needs, any ? NULL : columns)) return (enum form)f;
        }
    return FORMS;
}

/* The order of version 1. */
static enum form row_form_old(const struct rows *r) {
    const json_t *row = r->json;
    if (chat_row(row, r->options->chat && r->options->chat_instructions)) return MESSAGES;
    if (json_object_get(row, "text")) return TEXT;
    if (json_object_get(row, "prompt") && json_object_get(row, "completion")) return PAIR;
    return json_object_get(row, "instruction") ? INSTRUCTION : FORMS;
}

static int unused_count(struct rows *r, enum form f, struct err *e) {
    const json_t *columns = r->options->rules.columns;
    const bool named =
        json_object_size(columns) && f < FORMS && has_all(r->json, forms[f].needs, columns);
    const char *key;
    json_t *value;
    const bool answered = f != FORMS && f != IDS && f != TEXT && f != SEGMENTS;
    const char *own = f < FORMS ? forms[f].needs : f == STYLED ? "instruction output" : "text";
    if (!named && rows_compared(r, own, answered, e)) return -1;
    if (f == FORMS) return row_unknown(r, e);
    json_object_foreach(r->json, key, value) {
        if (json_empty(value)) continue;
        if (word_listed(media, key) && f != TEXT && f != IDS) {
            err_input(e, "%s:%lld: the row has '%s', which are not supported", r->path,
                      (long long)r->line, key);
            return err_hint(e, "leave such rows out (on_bad_row: skip), or take the column away");
        }
        if (!strcmp(key, "label") && rows_wanted(value) == 1) continue; /* what it says is done */
        const bool used = f == STYLED ? prompt_style_uses(r->options->rules.style, key)
                                      : word_listed(forms[f].uses, key);
        if (!used) row_note(&r->notes.unused, row_column_theirs(r, key), r->line);
    }
    return 0;
}

/* Plain text has no place for these. */
static int instruction_plain(const struct rows *r, struct err *e) {
    static const char *const turns[] = {"history", "system", "tools"};
    for (int i = 0; i < COUNT(turns); i++) {
        if (json_empty(json_object_get(r->json, turns[i]))) continue;
        err_input(e, "%s:%lld: '%s' beside an instruction needs a chat template", r->path,
                  (long long)r->line, turns[i]);
        return err_hint(e, "name one: chat_template: alpaca, or the model's own");
    }
    return 0;
}

/* The next document of a row of one text: 1, 0 if it is empty, or -1. */
static int row_text(struct rows *r, enum form f, struct document *out, bool *more, struct err *e) {
    i64 prompt;
    if (f == INSTRUCTION && !old(r) && !r->instance && instruction_plain(r, e)) return -1;
    if (row_document(r, f, &prompt, more, e)) return -1;
    const i64 answer = r->made.size - prompt;
    if (!answer && !old(r)) {
        if (prompt)
            return err_input(e, "%s:%lld: the %s is empty", r->path, (long long)r->line,
                             f == PAIR     ? "completion"
                             : f == STYLED ? "answer"
                                           : "output");
        row_note(&r->notes.said,
                 f == PAIR   ? "prompt and completion are empty"
                 : f == TEXT ? "the text is empty"
                             : "there are no instances",
                 r->line);
    }
    if (!answer) return 0;
    *out = (struct document){.text = r->made.data,
                             .size = r->made.size,
                             .row = r->number,
                             .segments = 1,
                             .apart = f == STYLED,
                             .segment = {{answer, true}}};
    if (prompt) {
        out->segments = 2;
        out->segment[0] = (struct segment){prompt, !r->options->completion_only_loss};
        out->segment[1] = (struct segment){answer, true};
    }
    return 1;
}

/* 1: a document, 0: none; `more`: the row has others. */
static int row_read(struct rows *r, struct document *out, bool *more, struct err *e) {
    const enum form f = old(r) ? row_form_old(r) : row_form(r);
    if (!old(r) && !r->instance && unused_count(r, f, e)) return -1;
    if (f == FORMS) return row_unknown(r, e);
    if (f == IDS) return rows_ids(r, out, e);
    if (f == SEGMENTS) return row_segments(r, out, e);
    if (f > ASKED && f != QUERIED) return row_text(r, f, out, more, e);
    const int found = row_conversation(r, out, e);
    r->facts->conversations += found > 0;
    return found;
}

/* Leaves a row out that cannot be used, if that is wanted: the error becomes a count. */
bool rows_skip(struct rows *r, i64 line, struct err *e) {
    if (!r->options->rules.skip || r->fatal || e->code != ERR_INPUT || e->starved) return false;
    char reason[sizeof e->primary];
    const size_t n = strlen(r->path);
    const char *what = strstr(e->primary + (strncmp(e->primary, r->path, n) ? 0 : n), ": ");
    what = what ? what + 2 : e->primary;
    unsigned long index;
    int used = 0;
    if (sscanf(what, "message %lu %n", &index, &used) == 1 && used) /* of any number */
        snprintf(reason, sizeof reason, "a message %s", what + used);
    else
        snprintf(reason, sizeof reason, "%s", what);
    row_note_skipped(&r->notes, reason, line);
    r->facts->skipped++;
    *e = (struct err){0};
    return true;
}

int rows_next(struct rows *r, struct document *out, struct err *e) {
    while (r->json) {
        bool more = false;
        const int found = row_read(r, out, &more, e);
        const bool failed = found < 0 && !rows_skip(r, r->line, e);
        if (!more || found < 0) json_decref(r->json), r->json = NULL;
        if (failed && !old(r) && !r->fatal && e->code == ERR_INPUT && !e->starved && !*e->hint)
            err_hint(e, "mend the row, or leave such rows out: on_bad_row: skip");
        if (failed) return -1;
        if (found > 0) return 1;
    }
    return 0;
}
