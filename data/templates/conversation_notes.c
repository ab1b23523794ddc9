/* conversation_notes.c: what is said about rows that are read as conversations, and what both the
 * conversation and its messages ask of a value. */
#include "data/templates/chat.h"

#include <string.h>

/* `what`, in the list now, `more` times more than it was. */
static json_t *counted(json_t **list, const char *what, json_int_t more) {
    if (!*list) *list = json_object();
    json_t *one = json_object_get(*list, what);
    if (!one) {
        one = json_pack("{s:i, s:[]}", "count", 0, "first");
        if (json_object_set_new(*list, what, one)) return NULL;
    }
    more += json_integer_value(json_object_get(one, "count"));
    json_object_set_new(one, "count", json_integer(more));
    return one;
}

static void place_add(json_t *one, json_t *place) {
    json_t *first = json_object_get(one, "first");
    if (json_array_size(first) < 3)
        json_array_append_new(first, place);
    else
        json_decref(place);
}

void row_note(json_t **list, const char *what, i64 line) {
    place_add(counted(list, what, 1), json_integer(line));
}

/* Reasons may hold what stands in the row, and be as many as rows. */
static const char *reason_kept(const json_t *list, const char *reason) {
    const bool full = json_object_size(list) >= ROW_REASONS;
    return full && !json_object_get(list, reason) ? "other reasons" : reason;
}

void row_note_skipped(struct row_notes *n, const char *reason, i64 line) {
    row_note(&n->skipped, reason_kept(n->skipped, reason), line);
}

static void list_add(json_t **to, const json_t *from, bool reasons, const char *file) {
    const char *what;
    json_t *one, *line;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)from, what, one) {
        json_t *sum = counted(to, reasons ? reason_kept(*to, what) : what,
                              json_integer_value(json_object_get(one, "count")));
        json_array_foreach(json_object_get(one, "first"), i, line)
            place_add(sum, file ? json_sprintf("%s:%lld", file, json_integer_value(line))
                                : json_incref(line));
    }
}

void row_notes_add(struct row_notes *to, const struct row_notes *from, const char *file) {
    list_add(&to->skipped, from->skipped, true, file);
    list_add(&to->unused, from->unused, false, file), list_add(&to->said, from->said, false, file);
    if (from->mapped && !to->mapped) to->mapped = json_object();
    if (from->mapped) json_object_update(to->mapped, from->mapped);
}

void row_notes_free(struct row_notes *n) {
    json_decref(n->skipped), json_decref(n->unused), json_decref(n->said), json_decref(n->mapped);
    *n = (struct row_notes){0};
}

bool json_empty(const json_t *j) {
    return !j || json_is_null(j) || (json_is_string(j) && !json_string_length(j)) ||
           (json_is_array(j) && !json_array_size(j)) || (json_is_object(j) && !json_object_size(j));
}

/* null is absent, on every level. */
i64 row_nulls_remove(json_t *j, int depth) {
    enum { DEEP = 3 }; /* a message's own keys are at 2 */
    const char *key;
    json_t *value;
    void *next;
    size_t i;
    i64 deep = 0;
    if (depth > 100) return 0;
    json_object_foreach_safe(j, next, key, value) {
        if (!json_is_null(value)) {
            deep += row_nulls_remove(value, depth + 1);
            continue;
        }
        json_object_del(j, key);
        deep += depth >= DEEP;
    }
    json_array_foreach(j, i, value) deep += row_nulls_remove(value, depth + 1);
    return deep;
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
