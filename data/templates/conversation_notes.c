/* conversation_notes.c: what is said about rows that are read as conversations, and what both the
 * conversation and its messages ask of a value. */
#include "data/templates/chat.h"

#include <string.h>

void row_note(json_t **list, const char *what, i64 line) {
    if (!*list) *list = json_object();
    json_t *one = json_object_get(*list, what), *first;
    if (!one) {
        one = json_pack("{s:i, s:[]}", "count", 0, "first");
        if (json_object_set_new(*list, what, one)) return;
    }
    const json_int_t count = json_integer_value(json_object_get(one, "count"));
    json_object_set_new(one, "count", json_integer(count + 1));
    first = json_object_get(one, "first");
    if (json_array_size(first) < 3) json_array_append_new(first, json_integer(line));
}

void row_notes_free(struct row_notes *n) {
    json_decref(n->skipped), json_decref(n->unused), json_decref(n->said);
    *n = (struct row_notes){0};
}

bool json_empty(const json_t *j) {
    return !j || json_is_null(j) || (json_is_string(j) && !json_string_length(j)) ||
           (json_is_array(j) && !json_array_size(j)) || (json_is_object(j) && !json_object_size(j));
}

bool word_listed(const char *list, const char *word) {
    const size_t n = strlen(word);
    for (const char *p = list; n && *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && !strncmp(p, word, n)) return true;
    return false;
}

void reading_note(const struct reading *x, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (x->notes) row_note(&x->notes->said, what, x->notes->line);
}

int reading_wrong(const struct reading *x, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return err_input(x->e, "%s: %s", x->where, what);
}

const char *reading_kind(const json_t *j) {
    static const char *const name[] = {"an object", "a list", "a text", "an integer",
                                       "a number",  "true",   "false",  "null"};
    return j ? name[json_typeof(j)] : "missing";
}

/* What a text holds as JSON, or the value itself: a new reference, or NULL. */
json_t *reading_decoded(const json_t *j) {
    if (!json_is_string(j)) return json_incref((json_t *)(uintptr_t)j);
    return json_loadb(json_string_value(j), json_string_length(j),
                      JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
}
