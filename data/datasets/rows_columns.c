/* rows_columns.c: which column of a file is which of ours, and what became of all others. */
#include "data/datasets/datasets_int.h"
#include <string.h>
#include <strings.h>

static const char columns_known[] =
    "text prompt completion messages instruction input output history query response system tools "
    "documents chat_template_kwargs input_ids labels attention_mask completion_mask "
    "assistant_masks role content role_tag content_tag user_tag assistant_tag system_tag "
    "observation_tag function_tag";
static const char in_messages[] = "role content role_tag content_tag user_tag assistant_tag "
                                  "system_tag observation_tag function_tag";

/* Our name of what `columns` calls so: LLaMA-Factory's are taken too. */
const char *row_column_ours(const json_t *columns, const char *name) {
    if (!strcmp(name, "response")) return "output";
    if (!strcmp(name, "query")) return "input";
    if (!strcmp(name, "conversations")) return "messages";
    if (!strcmp(name, "prompt") &&
        (json_object_get(columns, "response") || json_object_get(columns, "query")))
        return "instruction";
    return name;
}

int row_columns_check(const json_t *columns, struct err *e) {
    const char *name;
    json_t *column;
    json_object_foreach((json_t *)(uintptr_t)columns, name, column) {
        if (!word_listed(columns_known, name) && strcmp(name, "conversations")) {
            err_input(e, "columns: '%.80s' is not what a column can be for", name);
            return err_detail(e, "known are: %s", columns_known);
        }
        if (json_is_string(column) && json_string_length(column)) continue;
        err_input(e, "columns: '%.80s' names no column", name);
        return err_hint(e, "expected columns: {prompt: question, completion: answer}, our name "
                           "first");
    }
    return 0;
}

/* The row by our names for columns; a column of one of our names that `columns` gives to another is
 * not used. */
json_t *rows_renamed(struct rows *r, json_t *row) {
    const json_t *columns = r->options->rules.columns;
    const char *name, *key;
    json_t *made, *value, *column;
    if (!json_object_size(columns)) return json_incref(row);
    made = json_object();
    json_object_foreach((json_t *)(uintptr_t)columns, name, column) {
        value = json_object_get(row, json_string_value(column));
        if (word_listed(in_messages, name)) continue; /* of messages */
        if (value) json_object_set(made, row_column_ours(columns, name), value);
        if (value) json_object_set_new(r->notes.mapped, name, json_true());
    }
    json_object_foreach(row, key, value) {
        bool taken = false, hidden = false;
        json_object_foreach((json_t *)(uintptr_t)columns, name, column) {
            taken |= !strcmp(json_string_value(column), key);
            hidden |= !strcmp(row_column_ours(columns, name), key);
        }
        if (hidden && !taken && !json_empty(value)) row_note(&r->notes.unused, key, r->line);
        if (!taken && !hidden) json_object_set(made, key, value);
    }
    return made;
}

/* The file's name of a column. */
const char *row_column_theirs(const struct rows *r, const char *ours) {
    const json_t *columns = r->options->rules.columns;
    const char *name;
    json_t *column;
    json_object_foreach(
        (json_t *)(uintptr_t)columns, name,
        column) if (!strcmp(row_column_ours(columns, name), ours)) return json_string_value(column);
    return ours;
}

int row_columns_had(const struct row_notes *n, const json_t *columns, const char *path,
                    struct err *e) {
    const char *name;
    json_t *column;
    if (!n->mapped) return 0;
    json_object_foreach((json_t *)(uintptr_t)columns, name, column) {
        if (word_listed(in_messages, name) || json_object_get(n->mapped, name)) continue;
        err_input(e, "%s: columns: no row has a column '%.80s' (for %s)", path,
                  json_string_value(column), name);
        return err_hint(e, "write it as the file does, or leave it out");
    }
    return 0;
}

/* The first of some names that is a column of texts, whatever its case; NULL: none is. */
static const char *column_of(const json_t *row, const char *const *names, int count) {
    const char *key;
    json_t *value;
    for (int i = 0; i < count; i++) json_object_foreach((json_t *)(uintptr_t)row, key, value) {
            if (json_is_string(value) && !strcasecmp(key, names[i])) return key;
        }
    return NULL;
}

/* How the columns that are there may be meant. */
void rows_columns_hint(const struct rows *r, struct err *e) {
    static const char *const ask[] = {"question",    "query",   "prompt",
                                      "instruction", "problem", "input"},
                             *const say[] = {"answer", "response", "completion",
                                             "output", "solution", "chosen"};
    const char *asked = NULL, *said = NULL, *only = NULL, *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->options->rules.columns, key, value) {
        if (word_listed(in_messages, key) ||
            json_object_get(r->json, row_column_ours(r->options->rules.columns, key)))
            continue;
        err_hint(e, "columns says that '%.60s' is the %s: the row has no such column",
                 json_string_value(value), key);
        return;
    }
    asked = column_of(r->json, ask, COUNT(ask)), said = column_of(r->json, say, COUNT(say));
    json_object_foreach(r->json, key, value) {
        const json_t *first = json_array_get(value, 0);
        if (json_object_get(first, "role") || json_object_get(first, "from")) {
            err_hint(e, "a conversation? columns: {messages: %.60s}", key);
            return;
        }
        if (json_is_string(value) &&
            (!only ||
             json_string_length(value) > json_string_length(json_object_get(r->json, only))))
            only = key;
    }
    if (asked && said)
        err_hint(e,
                 "say how '%s' and '%s' are meant, as a conversation: columns: {instruction: %s, "
                 "output: %s}, or as plain text: columns: {prompt: %s, completion: %s}",
                 asked, said, asked, said, asked, said);
    else if (only && (!strcmp(only, "prompt") || !strcmp(only, "completion")))
        err_hint(e, "expected a prompt and its completion");
    else if (only)
        err_hint(e, "say which column is the text: columns: {text: %.60s}", only);
}

/* ---- rows of two answers, or of one that is not wanted */

/* 1: KTO's label says that the answer is wanted, 0: that it is not, -1: it is another column. */
int rows_wanted(const json_t *label) {
    const char *text = json_string_value(label);
    if (json_is_boolean(label)) return json_is_true(label);
    return !text ? -1 : !strcasecmp(text, "true") ? 1 : !strcasecmp(text, "false") ? 0 : -1;
}

static void compared_hint(const json_t *row, const char *better, const char *own, struct err *e) {
    const json_t *said = json_object_get(row, better), *prompt = json_object_get(row, "prompt");
    const int n = (int)strcspn(own, " ");
    if (!said)
        err_hint(e, "to train on what else the row has: columns: {%.*s: %.*s}", n, own, n, own);
    else if (json_is_array(said) && !prompt)
        err_hint(e, "to train on the better answers alone: columns: {messages: %s}", better);
    else if (prompt && json_typeof(prompt) == json_typeof(said))
        err_hint(e,
                 "to train on the better answers alone: columns: {prompt: prompt, completion: %s}",
                 better);
    else
        err_hint(e, "to train on the better answers alone, make each the end of its conversation");
}

/* Training on such a row would train what it says is worse, or leave out what is better. */
int rows_compared(const struct rows *r, const char *own, bool answered, struct err *e) {
    static const char better[] = "chosen chosen_messages chosen_response",
                      worse[] = "rejected rejected_messages rejected_response";
    const char *key, *two[2] = {0};
    json_t *value;
    json_object_foreach(r->json, key, value) {
        if (json_empty(value)) continue;
        if (word_listed(better, key)) two[0] = key;
        if (word_listed(worse, key)) two[1] = key;
    }
    if (two[0] || two[1]) {
        err_input(e,
                  "%s:%lld: the row has '%s'%s%s%s: answers to choose between, as preference "
                  "training (DPO) has them, and none to learn",
                  r->path, (long long)r->line, two[0] ? two[0] : two[1],
                  two[0] && two[1] ? " and '" : "", two[0] && two[1] ? two[1] : "",
                  two[0] && two[1] ? "'" : "");
        return compared_hint(r->json, two[0] ? two[0] : "", own, e), -1;
    }
    if (!answered || rows_wanted(json_object_get(r->json, "label"))) return 0;
    err_input(e, "%s:%lld: 'label' is false: an answer that is not wanted, as KTO has them",
              r->path, (long long)r->line);
    return err_hint(e, "to train on those that are wanted alone: on_bad_row: skip");
}

/* ---- what became of the rows */

static int places_text(struct text *out, const json_t *one, struct err *e) {
    const json_t *first = json_object_get(one, "first");
    const json_int_t count = json_integer_value(json_object_get(one, "count"));
    const bool lines = json_is_integer(json_array_get(first, 0));
    if (text_printf(out, e, " (%lld time%s,%s", (long long)count, count == 1 ? "" : "s",
                    !lines       ? ""
                    : count == 1 ? " line"
                                 : " lines"))
        return -1;
    for (size_t i = 0; i < json_array_size(first); i++) {
        const json_t *place = json_array_get(first, i);
        const char *between = i ? ", " : " ", *file_line = json_string_value(place);
        if (file_line
                ? text_printf(out, e, "%s%s", between, file_line)
                : text_printf(out, e, "%s%lld", between, (long long)json_integer_value(place)))
            return -1;
    }
    return text_printf(out, e, "%s)\n", count > (json_int_t)json_array_size(first) ? ", ..." : "");
}

int row_notes_text(const struct row_notes *n, const char *path, struct text *out, struct err *e) {
    const char *what;
    json_t *one;
    json_object_foreach(n->skipped, what,
                        one) if (text_printf(out, e, "note: %s: left out: %s", path, what) ||
                                 places_text(out, one, e)) return -1;
    json_object_foreach(n->said, what, one) if (text_printf(out, e, "note: %s: %s", path, what) ||
                                                places_text(out, one, e)) return -1;
    json_object_foreach(n->unused, what, one) {
        const json_int_t count = json_integer_value(json_object_get(one, "count"));
        if (text_printf(out, e, "note: column '%.80s' of %s is not used (%lld row%s)\n", what, path,
                        (long long)count, count == 1 ? "" : "s"))
            return -1;
    }
    return 0;
}
